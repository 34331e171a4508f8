MODEL (
  name marts.orders,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column order_date,
    batch_size 30
  ),
  start '2026-01-01',
  cron '@daily',
  owner 'analytics@example.com',
  tags ('dagster:group_name:marts', sales),
  description 'Orders with their customer, product and amount. Loaded in batches of 30 days.',
  column_descriptions (
    order_id = 'Identifier of the order.',
    order_date = 'Day of the order, UTC.',
    amount = 'Quantity times unit price, in euros.',
    is_cancelled = 'Whether the order was cancelled; such an order is not revenue.'
  ),
  grain order_id,
  audits (
    not_null(columns := (order_id, customer_id, product_id, order_date)),
    unique_values(columns := (order_id)),
    amount_is_positive(column := amount)
  )
);

SELECT
  o.order_id,
  o.order_date,
  o.customer_id,
  c.country,
  o.product_id,
  p.product_name,
  p.category,
  o.channel,
  o.status,
  o.quantity,
  (o.quantity * p.unit_price_cents / 100)::DECIMAL(12, 2) AS amount,
  o.status = 'cancelled' AS is_cancelled
FROM staging.stg_orders AS o
JOIN staging.stg_customers AS c
  ON c.customer_id = o.customer_id
JOIN raw.products AS p
  ON p.product_id = o.product_id
WHERE
  o.order_date BETWEEN @start_date AND @end_date
