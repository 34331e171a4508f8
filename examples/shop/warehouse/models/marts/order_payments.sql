MODEL (
  name marts.order_payments,
  kind FULL,
  owner 'finance@example.com',
  tags ('dagster:group_name:marts', finance),
  description 'What each order that was not cancelled costs, and what has been paid for it.',
  column_descriptions (
    order_amount = 'What the order costs, in euros.',
    paid_amount = 'Sum of its payments, in euros; 0 if there are none.',
    payment_count = 'Number of payments.',
    open_amount = 'What remains to be paid, in euros.'
  ),
  grain order_id,
  audits (
    unique_values(columns := (order_id)),
    orders_have_a_payment,
    amount_is_positive(column := order_amount)
  )
);

WITH payments AS (
  SELECT
    order_id,
    SUM(amount)::DECIMAL(12, 2) AS paid_amount,
    COUNT(*) AS payment_count
  FROM staging.stg_payments
  GROUP BY
    order_id
)
SELECT
  o.order_id,
  o.order_date,
  o.customer_id,
  o.amount AS order_amount,
  COALESCE(p.paid_amount, 0)::DECIMAL(12, 2) AS paid_amount,
  COALESCE(p.payment_count, 0)::INT AS payment_count,
  (o.amount - COALESCE(p.paid_amount, 0))::DECIMAL(12, 2) AS open_amount
FROM marts.orders AS o
LEFT JOIN payments AS p
  ON p.order_id = o.order_id
WHERE
  NOT o.is_cancelled
