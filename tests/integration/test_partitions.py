"""Partitions of Dagster and intervals of SQLMesh, on a real warehouse and in a real event log.

Annotations are not postponed: Dagster reads those of asset functions.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, sqlmesh_assets_factory
from support.daemon import daemon
from support.waiting import wait_for
from support.warehouse import CONFIG, DUCKDB, Warehouse, write

STATUS = "sqlmesh_execution_status"
DAYS = """\
MODEL (
  name marts.days,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1, batch_concurrency 1 @lookback),
  start '2026-01-01'
);
SELECT CAST(d AS DATE) AS day, CAST(@value AS INT) AS amount
FROM range(DATE '2026-01-01', DATE '2026-02-01', INTERVAL 1 DAY) AS t(d)
WHERE d BETWEEN @start_ds AND @end_ds
"""
GOOD, BAD_ON_THE_THIRD = "'1'", "CASE WHEN d = DATE '2026-01-03' THEN 'x' ELSE '1' END"
BELOW = "MODEL (name marts.below, kind FULL);\nSELECT COUNT(*) AS number FROM marts.days"
HOURS = """\
MODEL (
  name marts.hours,
  kind INCREMENTAL_BY_TIME_RANGE (time_column moment),
  start '2026-01-01',
  cron '@hourly'
);
SELECT h AS moment FROM range(TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-02', INTERVAL 1 HOUR) AS t(h)
WHERE h BETWEEN @start_dt AND @end_dt
"""
MONTHS = """\
MODEL (
  name marts.months,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day),
  start '2026-01-01',
  cron '@monthly'
);
SELECT CAST(d AS DATE) AS day FROM range(DATE '2026-01-01', DATE '2026-04-01', INTERVAL 1 DAY) AS t(d)
WHERE d BETWEEN @start_ds AND @end_ds
"""


def days(value: str = GOOD, lookback: str = "") -> str:
    return DAYS.replace("@value", value).replace(" @lookback", lookback)


@pytest.fixture(scope="module")
def planned(tmp_path_factory, runner_bin) -> Callable[..., Warehouse]:
    """A project with these models, planned, with everything due; made once. Not to be changed."""
    made: dict[tuple[str, ...], Warehouse] = {}

    def make(*models: str) -> Warehouse:
        if models not in made:
            home = tmp_path_factory.mktemp("planned")
            warehouse = Warehouse(path=home / "project", database=home / "db.duckdb", bin=runner_bin)
            config = CONFIG.replace("@connection@\n", DUCKDB).replace("@dialect@", "duckdb")
            write(warehouse.path / "config.yaml", config)
            for number, text in enumerate(models):
                write(warehouse.path / f"models/m{number}.sql", text)
            warehouse.deploy()
            made[models] = warehouse
        return made[models]

    return make


@dataclass
class Shown:
    """What Dagster's event log has of a run.

    Attributes:
        partitions: materialized ones, by table, in order.
        status: what the status check last said of each table: status, reason, and all it has.
    """

    success: bool
    partitions: dict[str, list[str | None]]
    status: dict[str, tuple[str, str | None, dict[str, object]]]
    failure: str

    @classmethod
    def of(cls, instance: dg.DagsterInstance, run_id: str) -> "Shown":
        partitions: dict[str, list[str | None]] = {}
        status: dict[str, tuple[str, str | None, dict[str, object]]] = {}
        failure = ""
        for entry in instance.all_logs(run_id):
            event = entry.dagster_event
            if event is None:
                continue
            if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
                partitions.setdefault(event.asset_key.path[-1], []).append(event.partition)
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                check = event.asset_check_evaluation_data
                values = {name: value.value for name, value in check.metadata.items()}
                if check.check_name == STATUS:
                    table = check.asset_key.path[-1]
                    status[table] = (values["status"], values.get("reason"), values)
            elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
                data = event.step_failure_data
                failure += (data.user_failure_data.description if data.user_failure_data else "") or ""
        run = instance.get_run_by_id(run_id)
        assert run is not None
        ordered = {table: sorted(keys, key=str) for table, keys in partitions.items()}
        return cls(run.status == dg.DagsterRunStatus.SUCCESS, ordered, status, failure)


@dataclass
class Partitioned:
    """A project whose incremental models have partitions."""

    warehouse: Warehouse
    instance: dg.DagsterInstance
    assets: dg.AssetsDefinition
    others: list[dg.AssetsDefinition]
    resource: SQLMeshResource

    def run(self, first: str | None = None, last: str | None = None, *, others: bool = False) -> Shown:
        """Run a partition, a range of them, or without any."""
        tags = {}
        if last is not None:
            tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        result = dg.materialize(
            self.others if others else [self.assets],
            instance=self.instance,
            resources={"sqlmesh": self.resource},
            partition_key=first if last is None else None,
            tags=tags,
            raise_on_error=False,
        )
        return Shown.of(self.instance, result.run_id)

    def column(self, table: str, column: str) -> list[str]:
        """What the table holds, in order."""
        code = (
            "import duckdb, json, sys; print(json.dumps([str(row[0]) for row in "
            "duckdb.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()]))"
        )
        query = f"SELECT {column} FROM {table} ORDER BY 1"
        command = [str(self.warehouse.bin / "python"), "-c", code, str(self.warehouse.database), query]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)

    def materialized(self, table: str) -> list[str]:
        """The partitions that Dagster has as materialized, of all runs."""
        return sorted(self.instance.get_materialized_partitions(dg.AssetKey(["db", "marts", table])))


@pytest.fixture
def partitioned(planned, instance, tmp_path) -> Callable[..., Partitioned]:
    def make(*models: str) -> Partitioned:
        original = planned(*models)
        shutil.copytree(original.path, tmp_path / "project")
        shutil.copy(original.database, tmp_path / "db.duckdb")
        warehouse = replace(original, path=tmp_path / "project", database=tmp_path / "db.duckdb")
        resource = SQLMeshResource(SQLMeshProject(warehouse.path), launcher=warehouse.launcher())
        assets = sqlmesh_assets_factory(
            sqlmesh_resource=resource, name="filled", select="kind:incremental_*", partitions=True
        )
        others = [
            sqlmesh_assets_factory(sqlmesh_resource=resource, name="others", exclude="kind:incremental_*")
            for _ in models[1:]
        ]
        return Partitioned(warehouse, instance, assets, others, resource)

    return make


def test_a_run_for_a_partition_fills_that_interval_alone(partitioned):
    project = partitioned(days())

    shown = project.run("2026-01-05")

    assert shown.success, shown.failure
    assert shown.partitions == {"days": ["2026-01-05"]}
    assert shown.status["days"][:2] == ("executed", None)
    assert project.column("db.marts.days", "day") == ["2026-01-05"]


def test_a_range_of_partitions_is_one_run_and_each_is_materialized(partitioned):
    project = partitioned(days())

    shown = project.run("2026-01-02", "2026-01-04")

    assert shown.success, shown.failure
    assert shown.partitions == {"days": ["2026-01-02", "2026-01-03", "2026-01-04"]}
    assert project.column("db.marts.days", "day") == ["2026-01-02", "2026-01-03", "2026-01-04"]


def test_a_partition_of_an_hour_is_that_hour(partitioned):
    project = partitioned(HOURS)

    shown = project.run("2026-01-01-05:00")

    assert shown.success, shown.failure
    assert shown.partitions == {"hours": ["2026-01-01-05:00"]}
    assert project.column("db.marts.hours", "moment") == ["2026-01-01 05:00:00"]


def test_a_partition_of_a_month_is_that_month(partitioned):
    project = partitioned(MONTHS)

    shown = project.run("2026-02")

    assert shown.success, shown.failure
    assert shown.partitions == {"months": ["2026-02"]}
    filled = project.column("db.marts.months", "day")
    assert (filled[0], filled[-1], len(filled)) == ("2026-02-01", "2026-02-28", 28)


def test_a_partition_that_was_filled_already_is_skipped_and_says_what_does_it_again(partitioned):
    project = partitioned(days())
    project.run("2026-01-05")

    shown = project.run("2026-01-05")

    assert shown.success
    assert shown.partitions == {}
    status, reason, metadata = shown.status["days"]
    assert (status, reason) == ("skipped", "up_to_date")
    assert "SQLMesh does not do it again without a restatement" in metadata["message"]
    assert project.materialized("days") == ["2026-01-05"]


def test_a_range_that_was_filled_in_part_is_materialized_whole(partitioned):
    project = partitioned(days())
    project.run("2026-01-02")

    shown = project.run("2026-01-01", "2026-01-03")

    assert shown.success, shown.failure
    assert set(shown.partitions["days"]) >= {"2026-01-01", "2026-01-03"}
    assert project.materialized("days") == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert project.column("db.marts.days", "day") == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_a_range_that_was_filled_in_part_without_dagster_does_not_claim_that_part(partitioned):
    project = partitioned(days())
    done, _ = project.warehouse.run("--start", "2026-01-02", "--end", "2026-01-02")
    assert done.returncode == 0, done.stderr

    shown = project.run("2026-01-01", "2026-01-03")

    assert shown.success, shown.failure
    assert shown.partitions == {"days": ["2026-01-01", "2026-01-03"]}
    assert "2026-01-02" in str(shown.status["days"][2]["partitions_not_filled"])


def test_a_model_that_fails_in_mid_range_has_the_partitions_that_it_had_filled(partitioned):
    project = partitioned(days(BAD_ON_THE_THIRD))

    shown = project.run("2026-01-01", "2026-01-05")

    assert not shown.success
    assert shown.status["days"][:2] == ("failed", "sql")
    filled = project.column("db.marts.days", "day")
    assert filled == ["2026-01-01", "2026-01-02"]
    assert shown.partitions == {"days": filled}
    assert project.materialized("days") == filled


def test_a_lookback_does_nothing_outside_the_range_that_was_asked_for(partitioned):
    project = partitioned(days(lookback=", lookback 1"))
    project.run("2026-01-04")

    shown = project.run("2026-01-05")

    assert shown.success, shown.failure
    assert shown.partitions == {"days": ["2026-01-05"]}
    assert project.column("db.marts.days", "day") == ["2026-01-04", "2026-01-05"]


def test_a_run_without_a_partition_says_what_to_launch_and_starts_no_runner(partitioned):
    project = partitioned(days())

    shown = project.run()

    assert not shown.success
    assert (shown.partitions, shown.status) == ({}, {})
    assert shown.failure == (
        "These assets have partitions and the run names none: launch it with a partition or a range of partitions."
    )
    assert project.column("db.marts.days", "day") == []


def test_an_asset_below_that_has_no_partitions_runs_by_itself(partitioned):
    project = partitioned(days(), BELOW)
    project.run("2026-01-02", "2026-01-03")

    shown = project.run(others=True)

    assert shown.success, shown.failure
    assert shown.partitions == {"below": [None]}
    assert project.column("db.marts.below", "number") == ["2"]
    (spec,) = project.others[0].specs
    assert [dep.asset_key.path[-1] for dep in spec.deps] == ["days"]


LOCATION = """\
import dagster as dg
from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, SubprocessLauncher, sqlmesh_assets_factory

resource = SQLMeshResource(
    SQLMeshProject({project!r}), launcher=SubprocessLauncher(command=[{runner!r}], env={env!r})
)
assets = sqlmesh_assets_factory(sqlmesh_resource=resource, partitions=True)
defs = dg.Definitions([assets], resources={{"sqlmesh": resource}})
"""


def test_a_backfill_of_dagster_s_own_is_one_run_and_fills_its_partitions(partitioned, tmp_path):
    project = partitioned(days())
    wanted = ["2026-01-02", "2026-01-03", "2026-01-04"]
    location = LOCATION.format(
        project=str(project.warehouse.path),
        runner=str(project.warehouse.bin / "sqlmesh-runner"),
        env={"TEST_DATABASE": str(project.warehouse.database)},
    )
    graph = dg.Definitions([project.assets], resources={"sqlmesh": project.resource}).resolve_asset_graph()

    with daemon(tmp_path / "home", location) as instance:
        instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id="backfill",
                asset_graph=graph,
                partition_names=wanted,
                asset_selection=list(project.assets.keys),
                backfill_timestamp=time.time(),
                tags={},
                dynamic_partitions_store=instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            )
        )
        over = {
            BulkActionStatus.COMPLETED_SUCCESS,
            BulkActionStatus.COMPLETED_FAILED,
            BulkActionStatus.FAILED,
        }
        wait_for(lambda: instance.get_backfill("backfill").status in over, seconds=180)
        backfill = instance.get_backfill("backfill")
        (run,) = instance.get_runs()
        shown = Shown.of(instance, run.run_id)

    assert backfill.status == BulkActionStatus.COMPLETED_SUCCESS, backfill.error
    assert shown.partitions == {"days": wanted}
    assert project.column("db.marts.days", "day") == wanted
