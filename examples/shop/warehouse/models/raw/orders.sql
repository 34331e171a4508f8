MODEL (
  name raw.orders,
  kind SEED (
    path '$root/seeds/orders.csv'
  ),
  owner 'shop-backend@example.com',
  tags (raw),
  description 'Orders as the shop records them. An order is for one product. Times are text, as delivered.',
  columns (
    order_id INT,
    customer_id INT,
    product_id INT,
    quantity INT,
    status TEXT,
    channel TEXT,
    ordered_at TEXT
  ),
  grain order_id
);
