MODEL (
  name marts.weekly_sales,
  kind FULL,
  cron '@weekly',
  owner 'analytics@example.com',
  tags ('dagster:group_name:marts', sales, 'weekly report'),
  description 'Sales of each week and category, for the weekly report. Rebuilt once a week.',
  column_descriptions (
    week_start = 'Monday of the week.',
    units_sold = 'Pieces sold.',
    revenue = 'In euros.'
  ),
  grain (week_start, category),
  audits (
    unique_combination_of_columns(columns := (week_start, category)),
    amount_is_positive(column := revenue)
  )
);

SELECT
  DATE_TRUNC('WEEK', order_date)::DATE AS week_start,
  category,
  SUM(quantity)::INT AS units_sold,
  SUM(amount)::DECIMAL(12, 2) AS revenue
FROM marts.orders
WHERE
  NOT is_cancelled
GROUP BY
  DATE_TRUNC('WEEK', order_date)::DATE,
  category
