MODEL (
  name staging.stg_customers,
  kind VIEW,
  owner 'analytics@example.com',
  tags (staging, 'customer data'),
  description 'Customers with a display name and a normalised email address.',
  grain customer_id,
  audits (
    not_null(columns := (customer_id, email)),
    unique_values(columns := (customer_id, email))
  )
);

SELECT
  customer_id, /* Identifier of the account. */
  first_name || ' ' || last_name AS customer_name, /* First and last name. */
  LOWER(TRIM(email)) AS email, /* Email address in lower case. */
  UPPER(country) AS country, /* ISO 3166-1 alpha-2 code. */
  signed_up_on::DATE AS signed_up_on /* Day on which the account was opened. */
FROM raw.customers
