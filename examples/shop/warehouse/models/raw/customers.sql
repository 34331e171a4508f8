MODEL (
  name raw.customers,
  kind SEED (
    path '$root/seeds/customers.csv'
  ),
  owner 'shop-backend@example.com',
  tags (raw, 'customer data'),
  description 'Customer accounts, one row each. Dates are text, as delivered.',
  columns (
    customer_id INT,
    first_name TEXT,
    last_name TEXT,
    email TEXT,
    country TEXT,
    signed_up_on TEXT
  ),
  grain customer_id
);
