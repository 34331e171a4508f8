"""The shop in Dagster: payments are loaded, SQLMesh runs the warehouse, a report reads the result.

This environment has no SQLMesh. The models come from the manifest, and run where `SHOP_RUNNER` is installed.
"""

import csv
import os
from pathlib import Path

import dagster as dg
import duckdb

from dagster_sqlmesh_pipes import (
    SQLMeshProject,
    SQLMeshResource,
    SubprocessLauncher,
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_assets,
)

SHOP = Path(__file__).parent.parent
DATABASE = Path(os.environ.get("SHOP_DATABASE", SHOP / "shop.duckdb")).absolute()
RUNNER = os.environ.get("SHOP_RUNNER", "sqlmesh-runner")

# Under `dagster dev` the manifest is made anew when a model has changed.
project = SQLMeshProject(
    SHOP / "warehouse",
    environment="prod",
    manifest_path=os.environ.get("SHOP_MANIFEST"),
    launcher=SubprocessLauncher(command=[RUNNER], env={"SHOP_DATABASE": str(DATABASE)}),
).prepare_if_dev()
sqlmesh_resource = SQLMeshResource(project)


def load_payments(database: Path) -> int:
    """Replace raw.payments with what the payment provider sent; returns the number of rows."""
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS raw")
        connection.execute(
            "CREATE OR REPLACE TABLE raw.payments AS "
            "SELECT payment_id::INT AS payment_id, order_id::INT AS order_id, amount_cents::INT AS amount_cents, "
            "method, paid_at::TIMESTAMP AS paid_at FROM read_csv(?)",
            [str(SHOP / "data" / "payments.csv")],
        )
        (rows,) = connection.execute("SELECT COUNT(*) FROM raw.payments").fetchone() or (0,)
    return int(rows)


@dg.asset(key=["shop", "raw", "payments"], group_name="ingestion", kinds={"duckdb"})
def payments() -> dg.MaterializeResult:
    """Payments as the payment provider exports them. An external model for SQLMesh, an asset for Dagster."""
    return dg.MaterializeResult(metadata={"dagster/row_count": load_payments(DATABASE)})


@sqlmesh_assets(project=project)
def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
    yield from sqlmesh.run(context)


@dg.asset(
    deps=[["shop", "marts", "daily_revenue"], ["shop", "marts", "order_payments"]],
    group_name="reporting",
    kinds={"csv"},
)
def revenue_report() -> dg.MaterializeResult:
    """Revenue and open amounts per day, for those who read spreadsheets."""
    # SQLMesh's views name the catalog: the file is attached under that name.
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{DATABASE}' AS shop (READ_ONLY)")
        rows = connection.execute(
            "SELECT r.order_date, r.revenue, COALESCE(SUM(p.open_amount), 0) AS open_amount "
            "FROM shop.marts.daily_revenue AS r "
            "LEFT JOIN shop.marts.order_payments AS p ON p.order_date = r.order_date "
            "GROUP BY ALL ORDER BY r.order_date"
        ).fetchall()
    path = DATABASE.parent / "revenue_report.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("order_date", "revenue", "open_amount"), *rows])
    return dg.MaterializeResult(
        metadata={"path": dg.MetadataValue.path(str(path)), "dagster/row_count": len(rows)}
    )


# Runs what is due whenever a model's cron elapses; switched on in the UI.
schedule, warehouse_job, _ = sqlmesh_adaptive_schedule_factory(
    sqlmesh_resource=sqlmesh_resource, name="warehouse_schedule", job_name="warehouse_job", assets=[warehouse]
)

defs = dg.Definitions(
    assets=[payments, warehouse, revenue_report],
    jobs=[dg.define_asset_job("shop", selection=dg.AssetSelection.all()), warehouse_job],
    schedules=[schedule],
    resources={"sqlmesh": sqlmesh_resource},
)
