"""The shop in Dagster: payments are loaded, SQLMesh runs the warehouse, a report reads the result.

This environment has no SQLMesh. The models come from the manifest, and run where `shop_dagster.runners` says.
"""

import csv
import os
from pathlib import Path

import dagster as dg

from dagster_sqlmesh_pipes import (
    SQLMeshProject,
    SQLMeshResource,
    SQLMeshRunConfig,
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_assets,
)
from shop_dagster.databases import SHOP, database
from shop_dagster.runners import launcher

DATABASE = database()
REPORTS = Path(os.environ.get("SHOP_REPORTS", SHOP)).absolute()

# Under `dagster dev` the manifest is made anew when a model has changed.
project = SQLMeshProject(
    os.environ.get("SHOP_PROJECT", SHOP / "warehouse"),
    environment="prod",
    manifest_path=os.environ.get("SHOP_MANIFEST"),
    launcher=launcher(),
).prepare_if_dev()
sqlmesh_resource = SQLMeshResource(project)


@dg.asset(key=["shop", "raw", "payments"], group_name="ingestion", kinds={DATABASE.kind})
def payments() -> dg.MaterializeResult:
    """Payments as the payment provider exports them. An external model for SQLMesh, an asset for Dagster."""
    return dg.MaterializeResult(metadata={"dagster/row_count": DATABASE.load_payments()})


@sqlmesh_assets(project=project)
def warehouse(context: dg.AssetExecutionContext, config: SQLMeshRunConfig, sqlmesh: SQLMeshResource):
    yield from sqlmesh.run(context, config=config)


@dg.asset(
    deps=[["shop", "marts", "daily_revenue"], ["shop", "marts", "order_payments"]],
    group_name="reporting",
    kinds={"csv"},
)
def revenue_report() -> dg.MaterializeResult:
    """Revenue and open amounts per day, for those who read spreadsheets."""
    rows = DATABASE.revenue()
    path = REPORTS / "revenue_report.csv"
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
