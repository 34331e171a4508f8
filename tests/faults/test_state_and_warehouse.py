"""A state or a warehouse that is away, refuses, or does not fit: one sentence, and another attempt where that can help."""

import subprocess
import threading

import dagster as dg
import pytest

from support.intervals import in_dagster, in_state
from support.postgres import PASSWORD, PostgresServer
from support.waiting import wait_for
from support.warehouse import Outcome, Warehouse

DAYS = """\
MODEL (
  name marts.days, start '2026-01-01', end '2026-01-03',
  kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1, batch_concurrency 1)
);
SELECT CAST(@start_ds AS DATE) AS day, a FROM staging.first
"""
WAITS = """
    import os, pathlib, time
    import pandas as pd
    from sqlmesh import model

    @model("marts.waits", columns={{"a": "int"}}, kind="FULL", depends_on=["marts.days"])
    def execute(context, start, end, execution_time, **kwargs):
        pathlib.Path({started!r}).touch()
        deadline = time.monotonic() + 60
        while not pathlib.Path({released!r}).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return pd.DataFrame({{"a": [1]}})
"""


@pytest.fixture
def on_postgres(make_warehouse, tmp_path) -> Warehouse:
    waits = WAITS.format(started=str(tmp_path / "started"), released=str(tmp_path / "released"))
    return make_warehouse(
        {"staging.first": "SELECT 1 AS a", "marts.after": "SELECT a FROM marts.waits"},
        {"models/days.sql": DAYS, "models/waits.py": waits},
        engine="postgres",
    )


def retries(instance: dg.DagsterInstance) -> list[str]:
    """Why each attempt failed that is tried again."""
    (run,) = instance.get_runs()
    events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    up_for_retry = [each for each in events if each.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    return [each.step_retry_data.error.cause.message for each in up_for_retry]


def in_background(
    warehouse: Warehouse, instance: dg.DagsterInstance
) -> tuple[threading.Thread, list[Outcome]]:
    outcomes: list[Outcome] = []
    assets = warehouse.assets(retry_policy=dg.RetryPolicy(max_retries=1, delay=2))
    thread = threading.Thread(target=lambda: outcomes.append(warehouse.materialize(instance, assets=assets)))
    thread.start()
    return thread, outcomes


def test_a_server_that_is_away_is_told_and_another_attempt_finds_it(
    on_postgres, postgres_server: PostgresServer, instance, tmp_path
):
    (tmp_path / "released").touch()
    postgres_server.stop()
    try:
        thread, outcomes = in_background(on_postgres, instance)
        wait_for(lambda: instance.get_runs() and retries(instance))
    finally:
        postgres_server.start()
    thread.join(timeout=120)

    (why,) = retries(instance)
    assert "onnection refused" in why
    assert PASSWORD not in why
    assert outcomes[0].success, outcomes[0].failure
    assert in_dagster(*outcomes) == in_state(on_postgres)


def test_a_server_that_is_stopped_and_started_in_mid_run_costs_an_attempt_and_no_row(
    on_postgres, postgres_server: PostgresServer, instance, tmp_path
):
    thread, outcomes = in_background(on_postgres, instance)
    wait_for((tmp_path / "started").exists)
    postgres_server.stop()
    try:
        (tmp_path / "released").touch()
        wait_for(lambda: retries(instance))
    finally:
        postgres_server.start()
    thread.join(timeout=120)

    (why,) = retries(instance)
    assert "marts.waits" in why
    outcome = outcomes[0]
    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == {"staging/first", "marts/days", "marts/waits", "marts/after"}
    assert in_dagster(outcome) == in_state(on_postgres)
    assert postgres_server.execute("SELECT count(*) FROM marts.days", str(on_postgres.database)) == "3"


def test_a_wrong_password_is_told_and_not_tried_again(on_postgres, instance):
    config = on_postgres.path / "config.yaml"
    config.write_text(config.read_text().replace(PASSWORD, "not-the-password"))
    outcome = on_postgres.materialize(
        instance, assets=on_postgres.assets(retry_policy=dg.RetryPolicy(max_retries=1))
    )

    assert not outcome.success
    assert outcome.retried == 0
    assert "password authentication failed" in outcome.failure
    assert "not-the-password" not in outcome.failure
    assert outcome.materialized == {}


def test_a_state_of_another_sqlmesh_says_what_to_do_and_is_not_tried_again(make_warehouse, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"})
    change = "UPDATE sqlmesh._versions SET schema_version = schema_version - 1"
    script = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute(sys.argv[2])"
    subprocess.run(
        [str(warehouse.bin / "python"), "-c", script, str(warehouse.database), change], check=True, timeout=60
    )
    outcome = warehouse.materialize(
        instance, assets=warehouse.assets(retry_policy=dg.RetryPolicy(max_retries=1))
    )

    assert not outcome.success
    assert outcome.retried == 0
    assert "sqlmesh migrate" in outcome.failure
    assert outcome.materialized == {}


def test_a_locked_file_is_told_with_its_holder_and_another_attempt_finds_it_free(make_warehouse, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"})
    holds = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [str(warehouse.bin / "python"), "-c", holds, str(warehouse.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        thread, outcomes = in_background(warehouse, instance)
        try:
            wait_for(lambda: instance.get_runs() and retries(instance))
        finally:
            holder.stdin.close()
        thread.join(timeout=120)

    (why,) = retries(instance)
    assert "lock" in why.lower()
    assert str(holder.pid) in why
    assert outcomes[0].success, outcomes[0].failure
    assert in_dagster(*outcomes) == in_state(warehouse)
