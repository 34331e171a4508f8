"""The shop's warehouse as its own assets see it: a DuckDB file on this host, or a PostgreSQL database."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

SHOP = Path(__file__).parent.parent
PAYMENTS = Path(os.environ.get("SHOP_PAYMENTS", SHOP / "data" / "payments.csv")).absolute()
"""What the payment provider sent. Another file may be given, to see what wrong data does."""
COLUMNS = "payment_id INT, order_id INT, amount_cents INT, method TEXT, paid_at TIMESTAMP"
REVENUE = (
    "SELECT r.order_date, r.revenue, COALESCE(SUM(p.open_amount), 0) AS open_amount "
    "FROM shop.marts.daily_revenue AS r "
    "LEFT JOIN shop.marts.order_payments AS p ON p.order_date = r.order_date "
    "GROUP BY r.order_date, r.revenue ORDER BY r.order_date"
)


class Database(Protocol):
    kind: str
    """As Dagster shows it."""

    def load_payments(self) -> int:
        """Replace raw.payments with what the payment provider sent; returns the number of rows."""

    def revenue(self) -> Sequence[tuple[object, ...]]:
        """Day, revenue and open amount."""


class DuckDB:
    """One file, which SQLMesh's views call ``shop``: it is attached under that name."""

    kind = "duckdb"

    def __init__(self, path: Path) -> None:
        self._path = path

    def load_payments(self) -> int:
        import duckdb

        self._path.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH '{self._path}' AS shop")
            connection.execute("CREATE SCHEMA IF NOT EXISTS shop.raw")
            connection.execute(f"CREATE OR REPLACE TABLE shop.raw.payments ({COLUMNS})")
            connection.execute(f"COPY shop.raw.payments FROM '{PAYMENTS}' (HEADER)")
            (rows,) = connection.execute("SELECT COUNT(*) FROM shop.raw.payments").fetchone() or (0,)
        return int(rows)

    def revenue(self) -> Sequence[tuple[object, ...]]:
        import duckdb

        with duckdb.connect() as connection:
            connection.execute(f"ATTACH '{self._path}' AS shop (READ_ONLY)")
            return connection.execute(REVENUE).fetchall()


class PostgreSQL:
    """The database ``shop`` of a server, as the SQLMesh project's configuration has it."""

    kind = "postgres"

    def __init__(self, host: str, password: str) -> None:
        self._address = {"host": host, "user": "shop", "password": password, "dbname": "shop"}

    def load_payments(self) -> int:
        import psycopg2

        with psycopg2.connect(**self._address) as connection, connection.cursor() as cursor:
            # Emptied, not replaced: SQLMesh's views are built on it.
            cursor.execute("CREATE SCHEMA IF NOT EXISTS raw")
            cursor.execute(f"CREATE TABLE IF NOT EXISTS raw.payments ({COLUMNS})")
            cursor.execute("TRUNCATE raw.payments")
            with PAYMENTS.open() as file:
                cursor.copy_expert("COPY raw.payments FROM STDIN (FORMAT csv, HEADER)", file)
            return int(cursor.rowcount)

    def revenue(self) -> Sequence[tuple[object, ...]]:
        import psycopg2

        with psycopg2.connect(**self._address) as connection, connection.cursor() as cursor:
            cursor.execute(REVENUE)
            return cursor.fetchall()


def database() -> Database:
    """The one that SHOP_GATEWAY names, as for SQLMesh."""
    if os.environ.get("SHOP_GATEWAY", "local") == "postgres":
        return PostgreSQL(os.environ["SHOP_POSTGRES_HOST"], os.environ["SHOP_POSTGRES_PASSWORD"])
    return DuckDB(Path(os.environ.get("SHOP_DATABASE", SHOP / "shop.duckdb")).absolute())
