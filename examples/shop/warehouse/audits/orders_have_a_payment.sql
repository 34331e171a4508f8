/* An order without a payment is worth a look, but it is not an error: the payment may come tomorrow. */
AUDIT (
  name orders_have_a_payment,
  blocking false
);

SELECT
  *
FROM @this_model
WHERE
  payment_count = 0
