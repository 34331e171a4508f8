-- One server for the demo, two databases and roles. POSTGRES_DB has made the warehouse, which holds SQLMesh's state as well; this
-- makes Dagster's storage.
\getenv password DAGSTER_POSTGRES_PASSWORD
CREATE ROLE dagster LOGIN PASSWORD :'password';
CREATE DATABASE dagster OWNER dagster;
