MODEL (
  name marts.customer_lifetime_value,
  kind FULL,
  owner 'analytics@example.com',
  tags ('dagster:group_name:marts', 'customer data'),
  description 'What each customer has bought so far; customers without an order are included.',
  column_descriptions (
    orders = 'Orders that were not cancelled.',
    lifetime_value = 'Sum of their amounts, in euros.',
    first_order_date = 'Day of the first of them; null if there is none.',
    last_order_date = 'Day of the latest of them; null if there is none.'
  ),
  grain customer_id,
  audits (
    not_null(columns := (customer_id, lifetime_value)),
    unique_values(columns := (customer_id)),
    number_of_rows(threshold := 10, blocking := false)
  )
);

SELECT
  c.customer_id,
  c.customer_name,
  c.country,
  COUNT(o.order_id)::INT AS orders,
  COALESCE(SUM(o.amount), 0)::DECIMAL(12, 2) AS lifetime_value,
  MIN(o.order_date) AS first_order_date,
  MAX(o.order_date) AS last_order_date
FROM staging.stg_customers AS c
LEFT JOIN marts.orders AS o
  ON o.customer_id = c.customer_id AND NOT o.is_cancelled
GROUP BY
  c.customer_id,
  c.customer_name,
  c.country
