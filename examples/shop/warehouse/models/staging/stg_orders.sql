MODEL (
  name staging.stg_orders,
  kind VIEW,
  owner 'analytics@example.com',
  tags (staging),
  description 'Orders with the calendar day on which they were placed.',
  column_descriptions (
    order_id = 'Identifier of the order.',
    status = 'placed, shipped, completed or cancelled.',
    channel = 'Where the order was placed: web or app.',
    ordered_at = 'When the order was placed, UTC.',
    order_date = 'Day of the order, UTC.'
  ),
  grain order_id,
  audits (
    unique_values(columns := (order_id)),
    accepted_values(column := status, is_in := ('placed', 'shipped', 'completed', 'cancelled')),
    accepted_values(column := channel, is_in := ('web', 'app'))
  )
);

SELECT
  order_id,
  customer_id,
  product_id,
  quantity,
  status,
  channel,
  ordered_at::TIMESTAMP AS ordered_at,
  ordered_at::TIMESTAMP::DATE AS order_date
FROM raw.orders
