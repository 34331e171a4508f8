MODEL (
  name raw.products,
  kind SEED (
    path '$root/seeds/products.csv'
  ),
  owner 'shop-backend@example.com',
  tags (raw),
  description 'The product catalogue with the current prices.',
  columns (
    product_id INT,
    sku TEXT,
    product_name TEXT,
    category TEXT,
    unit_price_cents INT
  ),
  column_descriptions (
    unit_price_cents = 'Price of one piece, in euro cents.'
  ),
  grain product_id,
  audits (
    unique_values(columns := (product_id, sku))
  )
);
