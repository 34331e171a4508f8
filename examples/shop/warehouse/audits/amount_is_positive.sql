/* A row whose amount is zero or less is wrong, and must not reach what is downstream. */
AUDIT (
  name amount_is_positive
);

SELECT
  *
FROM @this_model
WHERE
  @column <= 0
