MODEL (
  name staging.stg_payments,
  kind VIEW,
  owner 'analytics@example.com',
  tags (staging, finance),
  description 'Payments from the payment provider, with amounts in euros.',
  column_descriptions (
    payment_id = 'Identifier given by the payment provider.',
    order_id = 'The order that was paid for. An order can have several payments.',
    amount = 'Amount in euros.',
    method = 'card, paypal, bank_transfer or gift_card.',
    paid_at = 'When the payment was confirmed, UTC.'
  ),
  grain payment_id,
  audits (
    unique_values(columns := (payment_id)),
    not_null(columns := (payment_id, order_id, amount)),
    not_null(columns := (paid_at), blocking := false)
  )
);

SELECT
  payment_id,
  order_id,
  (amount_cents / 100)::DECIMAL(12, 2) AS amount,
  method,
  paid_at
FROM raw.payments
