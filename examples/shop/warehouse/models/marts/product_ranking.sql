MODEL (
  name marts.product_ranking,
  kind VIEW,
  owner 'analytics@example.com',
  tags ('dagster:group_name:marts', sales),
  description 'Products by revenue; products that were never sold come last.',
  grain product_id,
  audits (
    unique_values(columns := (product_id)),
    not_null(columns := (revenue_rank))
  )
);

SELECT
  p.product_id, /* Identifier of the product. */
  p.product_name, /* Name in the catalogue. */
  p.category, /* Category in the catalogue. */
  COALESCE(SUM(o.quantity), 0)::INT AS units_sold, /* Pieces sold. */
  COALESCE(SUM(o.amount), 0)::DECIMAL(12, 2) AS revenue, /* In euros. */
  RANK() OVER (ORDER BY COALESCE(SUM(o.amount), 0) DESC)::INT AS revenue_rank /* 1 is the best seller. */
FROM raw.products AS p
LEFT JOIN marts.orders AS o
  ON o.product_id = p.product_id AND NOT o.is_cancelled
GROUP BY
  p.product_id,
  p.product_name,
  p.category
