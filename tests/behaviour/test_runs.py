"""How a run is asked for: a part of the project, a range of time, an environment, a second attempt."""

import json
import subprocess
import threading

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, SQLMeshRunConfig, sqlmesh_assets
from support.waiting import WAITS, wait_for
from support.warehouse import Outcome

CHAIN = {
    "staging.first": "SELECT 1 AS a",
    "staging.second": "SELECT a FROM staging.first",
    "marts.third": "SELECT a FROM staging.second",
}
DAILY = """\
    MODEL (name marts.daily, kind INCREMENTAL_BY_TIME_RANGE (time_column day), start '2026-01-01');
    SELECT CAST(@start_ds AS DATE) AS day
"""
FLAKY = """\
    import pathlib
    import pandas as pd
    import typing as t
    from sqlmesh import ExecutionContext, model

    @model("marts.flaky", columns={{"a": "int"}}, kind="full", depends_on=["staging.second"])
    def execute(context: ExecutionContext, **kwargs: t.Any):
        marker = pathlib.Path({marker!r})
        if not marker.exists():
            marker.touch()
            raise ConnectionError("the warehouse hung up")
        return pd.DataFrame({{"a": [1]}})
"""


def assets_with(warehouse, **run: object) -> dg.AssetsDefinition:
    """Assets whose function passes something on to the run."""

    @sqlmesh_assets(project=SQLMeshProject(warehouse.path), name="warehouse")
    def warehouse_assets(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
        yield from sqlmesh.run(context, **run)

    return warehouse_assets


def configurable_assets(warehouse) -> dg.AssetsDefinition:
    @sqlmesh_assets(project=SQLMeshProject(warehouse.path), name="warehouse")
    def warehouse_assets(
        context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource, config: SQLMeshRunConfig
    ):
        yield from sqlmesh.run(context, config=config)

    return warehouse_assets


@pytest.mark.on_both
def test_a_selected_model_runs_without_what_it_reads(make_warehouse, instance, engine):
    warehouse = make_warehouse(CHAIN, engine=engine)
    selection = dg.AssetSelection.assets([warehouse.catalog, "staging", "first"])

    outcome = warehouse.materialize(instance, selection=selection)

    assert set(outcome.materialized) == {"staging/first"}
    assert {key for key, _ in outcome.checks} == {"staging/first"}


def test_where_asked_for_what_a_selected_model_reads_runs_too_and_is_told(make_warehouse, instance, engine):
    warehouse = make_warehouse(CHAIN, engine=engine)
    selection = dg.AssetSelection.assets([warehouse.catalog, "staging", "second"])

    outcome = warehouse.materialize(
        instance, selection=selection, assets=assets_with(warehouse, include_upstream=True)
    )

    assert outcome.success
    assert set(outcome.materialized) == {"staging/first", "staging/second"}
    assert outcome.status("staging/first") == ("executed", None)
    assert outcome.status("staging/second") == ("executed", None)
    assert "marts/third" not in {key for key, _ in outcome.checks}


def test_thousands_of_selected_models_reach_the_runner_and_each_has_an_outcome(make_warehouse, tmp_path):
    from dagster_pipes import encode_param

    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"})
    models = ['"db"."staging"."first"', *(f'"db"."staging"."model_{number:04}"' for number in range(4999))]
    request = {"run_id": "r", "models": models, "include_upstream": False, "v": "1.0"}
    context = {"extras": {"sqlmesh_pipes": request}, "run_id": "d", "job_name": None, "retry_number": 0}
    (tmp_path / "context.json").write_text(json.dumps(context))

    done = warehouse.runner(
        "run",
        "prod",
        "--project",
        str(warehouse.path),
        "--quiet",
        env={
            "DAGSTER_PIPES_CONTEXT": encode_param({"path": str(tmp_path / "context.json")}),
            "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(tmp_path / "messages")}),
        },
    )

    assert done.returncode == 0, done.stderr
    payloads = [
        json.loads(line)["params"].get("payload") for line in (tmp_path / "messages").read_text().splitlines()
    ]
    skipped = [payload for payload in payloads if payload and payload["kind"] == "model_skipped"]
    executed = [payload for payload in payloads if payload and payload["kind"] == "model_executed"]
    assert [payload["model"] for payload in executed] == models[:1]
    assert {payload["model"] for payload in skipped} == set(models[1:])
    assert {payload["reason"] for payload in skipped} == {"not_deployed"}


def test_run_config_says_what_range_of_time_to_run(make_warehouse, instance, engine):
    warehouse = make_warehouse(files={"models/daily.sql": DAILY}, engine=engine)
    config = {"start": "2026-01-03", "end": "2026-01-04", "execution_time": "2026-02-01"}

    result = dg.materialize(
        [configurable_assets(warehouse)],
        instance=instance,
        resources={"sqlmesh": warehouse.resource()},
        run_config={"ops": {"warehouse": {"config": config}}},
    )

    outcome = Outcome.read(instance, result.run_id)
    assert outcome.materialized["marts/daily"].metadata["intervals"].value == "2026-01-03 to 2026-01-05"


def test_a_range_that_is_done_is_up_to_date(make_warehouse, instance, engine):
    warehouse = make_warehouse(files={"models/daily.sql": DAILY}, engine=engine)
    config = SQLMeshRunConfig(start="2026-01-03", end="2026-01-04")
    assets = assets_with(warehouse, config=config)

    first = warehouse.materialize(instance, assets=assets)
    second = warehouse.materialize(instance, assets=assets)

    assert first.status("marts/daily") == ("executed", None)
    assert second.status("marts/daily") == ("skipped", "up_to_date")


def test_a_dev_environment_runs_its_own_models_into_views_of_its_own(make_warehouse, instance, engine):
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS a", "marts.second": "SELECT a FROM staging.first"}, engine=engine
    )
    warehouse.materialize(instance)
    changed = warehouse.path / "models/marts.second.sql"
    changed.write_text(changed.read_text().replace("SELECT a", "SELECT a + 1 AS a"))
    warehouse.deploy("dev")

    outcome = warehouse.materialize(instance, environment="dev")

    assert outcome.success
    assert set(outcome.materialized) == {"marts/second"}
    metadata = outcome.materialized["marts/second"].metadata
    assert metadata["dagster/table_name"].value == f"{warehouse.catalog}.marts__dev.second"
    assert outcome.status("staging/first") == ("skipped", "cron_not_due")


def test_on_preview_tables_of_a_dev_environment_no_audit_blocks(make_warehouse, instance, engine):
    forward_only = """\
        MODEL (
          name marts.daily,
          kind INCREMENTAL_BY_TIME_RANGE (time_column day, forward_only true),
          start '2026-01-01', end '2026-01-03',
          audits (not_null(columns := (a)))
        );
        SELECT CAST(@start_ds AS DATE) AS day, CAST({} AS INT) AS a
        """
    warehouse = make_warehouse(files={"models/daily.sql": forward_only.format("1")}, engine=engine)
    warehouse.materialize(instance)
    (warehouse.path / "models/daily.sql").write_text(forward_only.format("NULL"))
    warehouse.deploy("dev")

    outcome = warehouse.materialize(instance, environment="dev")

    assert outcome.success
    assert outcome.status("marts/daily") == ("executed", None)
    check = outcome.checks["marts/daily", "not_null"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert outcome.materialized["marts/daily"].metadata["physical_table"].value.endswith("__dev")


def test_skips_pass_where_the_resource_says_so(make_warehouse, instance, engine):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, engine=engine)
    warehouse.materialize(instance)

    outcome = warehouse.materialize(instance, skips_pass=True)

    assert outcome.materialized == {}
    assert outcome.status("staging/first") == ("skipped", "cron_not_due")
    assert outcome.checks["staging/first", "sqlmesh_execution_status"].passed


def marks_its_runs(warehouse):
    """Whether SQLMesh marks the queries of a run in the warehouse. Since 0.236.2."""
    asked = "from sqlmesh.utils import CorrelationId; print(hasattr(CorrelationId, 'from_run_id'))"
    done = subprocess.run(
        [warehouse.bin / "python", "-c", asked], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip() == "True"


@pytest.mark.on_both
def test_a_materialization_tells_where_the_data_is_and_which_data_it_is(make_warehouse, instance, engine):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, engine=engine)

    outcome = warehouse.materialize(instance)

    materialization = outcome.materialized["staging/first"]
    values = {name: value.value for name, value in materialization.metadata.items()}
    assert values["dagster/table_name"] == f"{warehouse.catalog}.staging.first"
    assert values["physical_table"].startswith(f"{warehouse.catalog}.sqlmesh__staging.staging__first__")
    assert values["physical_table"].endswith(values["snapshot_version"])
    assert values["batches"] == 1
    assert ("SQLMESH_RUN" in values.get("sqlmesh_correlation_id", "")) is marks_its_runs(warehouse)
    assert materialization.tags["dagster/data_version"].startswith(f"{values['snapshot_version']}-")
    # PostgreSQL reports how many rows were written, DuckDB does not.
    assert values.get("dagster/row_count") == (1 if engine == "postgres" else None)


def test_the_data_version_changes_with_the_intervals_that_are_filled(make_warehouse, instance, engine):
    warehouse = make_warehouse(files={"models/daily.sql": DAILY}, engine=engine)
    versions = []
    for day in ("2026-01-03", "2026-01-04"):
        config = SQLMeshRunConfig(start=day, end=day)
        outcome = warehouse.materialize(instance, assets=assets_with(warehouse, config=config))
        versions.append(outcome.materialized["marts/daily"].tags["dagster/data_version"])

    assert versions[0] != versions[1]


def test_automatic_restatement_runs_again_what_was_done_and_says_for_which_model(
    make_warehouse, instance, engine
):
    warehouse = make_warehouse(
        files={
            "models/daily.sql": """\
            MODEL (
              name staging.daily,
              kind INCREMENTAL_BY_TIME_RANGE (
                time_column day, auto_restatement_cron '@daily', auto_restatement_intervals 2
              ),
              start '2026-01-01'
            );
            SELECT CAST(@start_ds AS DATE) AS day
            """
        },
        models={"marts.below": "SELECT day FROM staging.daily"},
        engine=engine,
    )
    first = SQLMeshRunConfig(execution_time="2036-11-30 12:00:00", end="2036-11-29")
    later = SQLMeshRunConfig(execution_time="2036-12-01 00:00:01", end="2036-11-30")
    warehouse.materialize(instance, assets=assets_with(warehouse, config=first))

    outcome = warehouse.materialize(instance, assets=assets_with(warehouse, config=later))

    daily = outcome.materialized["staging/daily"].metadata
    assert daily["restated_for"].value == f"{warehouse.catalog}.staging.daily"
    assert daily["intervals"].value == "2036-11-29 to 2036-12-01"


def test_what_ran_stays_executed_when_the_environment_changes_in_mid_run(make_warehouse, instance, tmp_path):
    started, released = tmp_path / "started", tmp_path / "released"
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS a", "marts.after": "SELECT a FROM marts.waits"},
        {"models/waits.py": WAITS.format(started=str(started), released=str(released))},
        engine="postgres",
    )
    outcome: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcome.append(warehouse.materialize(instance)))
    thread.start()
    try:
        wait_for(started.exists)
        after = warehouse.path / "models/marts.after.sql"
        after.write_text(after.read_text().replace("SELECT a", "SELECT a + 1 AS a"))
        warehouse.deploy()
    finally:
        released.touch()
        thread.join(timeout=120)

    assert outcome[0].success
    assert set(outcome[0].materialized) == {"staging/first", "marts/waits", "marts/after"}
    assert any("again: the environment changed" in line for line in outcome[0].log)


def test_a_step_retry_shows_each_model_once_and_none_of_them_as_skipped(
    make_warehouse, instance, tmp_path, engine
):
    models = {"staging.first": "SELECT 1 AS a", "staging.second": "SELECT a FROM staging.first"}
    flaky = {"models/flaky.py": FLAKY.format(marker=str(tmp_path / "tried"))}
    warehouse = make_warehouse(models, flaky, engine=engine)
    assets = warehouse.assets(retry_policy=dg.RetryPolicy(max_retries=1))

    outcome = warehouse.materialize(instance, assets=assets)

    assert outcome.success
    assert outcome.retried == 1
    assert set(outcome.materialized) == {"staging/first", "staging/second", "marts/flaky"}
    assert {outcome.status(key)[0] for key in outcome.materialized} == {"executed"}


@pytest.mark.parametrize("strategy", ["FROM_FAILURE", "FROM_ASSET_FAILURE"])
def test_re_execution_from_failure_does_the_rest_and_tells_nothing_as_skipped(
    make_warehouse, instance, tmp_path, strategy
):
    models = {"staging.first": "SELECT 1 AS a", "staging.second": "SELECT a FROM staging.first"}
    flaky = {"models/flaky.py": FLAKY.format(marker=str(tmp_path / "tried"))}
    warehouse = make_warehouse(models, flaky)
    script = tmp_path / "code.py"
    script.write_text(
        f"""\
import dagster as dg
from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, SubprocessLauncher, sqlmesh_assets

project = SQLMeshProject({str(warehouse.path)!r})

@sqlmesh_assets(project=project)
def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
    yield from sqlmesh.run(context)

launcher = SubprocessLauncher(command={warehouse.launcher().command!r}, env={warehouse.launcher().env!r})
defs = dg.Definitions(
    [warehouse],
    jobs=[dg.define_asset_job("everything", executor_def=dg.in_process_executor)],
    resources={{"sqlmesh": SQLMeshResource(project, launcher=launcher)}},
)

def job():
    return defs.resolve_job_def("everything")
"""
    )
    job = dg.build_reconstructable_job("support.loading", "load_job", reconstructable_args=(str(script),))
    first = dg.execute_job(job, instance=instance, raise_on_error=False)
    assert not first.success

    second = dg.execute_job(
        job,
        instance=instance,
        raise_on_error=False,
        reexecution_options=dg.ReexecutionOptions.from_failure(first.run_id, instance)
        if strategy == "FROM_FAILURE"
        else None,
        # As the UI and automatic retries mark such a run.
        tags={"dagster/is_resume_retry": "true"} if strategy == "FROM_FAILURE" else None,
        asset_selection=[dg.AssetKey(["db", "marts", "flaky"])] if strategy == "FROM_ASSET_FAILURE" else None,
    )

    outcome = Outcome.read(instance, second.run_id)
    assert outcome.success
    assert set(outcome.materialized) == {"marts/flaky"}
    assert {key for key, _ in outcome.checks} == {"marts/flaky"}
