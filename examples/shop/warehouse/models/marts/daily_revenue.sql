MODEL (
  name marts.daily_revenue,
  kind FULL,
  owner 'finance@example.com',
  tags ('dagster:group_name:marts', 'dagster:owner:team:finance', 'dagster:tag:tier:gold', finance),
  description 'Revenue and number of orders of each day with at least one order.',
  grain order_date,
  audits (
    not_null(columns := (order_date)),
    unique_values(columns := (order_date)),
    amount_is_positive(column := revenue)
  )
);

SELECT
  order_date, /* Day of the orders, UTC. */
  COUNT(*)::INT AS orders, /* Orders that were not cancelled. */
  COUNT(DISTINCT customer_id)::INT AS customers, /* Customers who placed them. */
  SUM(amount)::DECIMAL(12, 2) AS revenue /* In euros. */
FROM marts.orders
WHERE
  NOT is_cancelled
GROUP BY
  order_date
