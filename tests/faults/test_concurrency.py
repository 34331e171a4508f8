"""Runs of one environment at once, from Dagster and by hand: one after the other, no row twice, and whoever waits says for whom."""

import json
import os
import re
import signal
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from support.daemon import finished, launched_run
from support.waiting import WAITS, wait_for
from support.warehouse import Outcome, Warehouse

DAYS = 5
MODELS = {"staging.first": "SELECT 1 AS a"}
# A range is deleted and inserted: whoever inserts between the two of another run has its rows twice.
INCREMENTAL = {
    "duckdb": f"""
        MODEL (name marts.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day), start '2026-01-01', end '2026-01-0{DAYS}');
        SELECT CAST(range AS DATE) AS day, waits.a
        FROM RANGE(CAST(@start_ds AS TIMESTAMP), CAST(@end_ds AS TIMESTAMP) + INTERVAL 1 DAY, INTERVAL 1 DAY)
        CROSS JOIN marts.waits AS waits
        """,
    "postgres": f"""
        MODEL (name marts.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day), start '2026-01-01', end '2026-01-0{DAYS}');
        SELECT days.day::DATE AS day, waits.a
        FROM GENERATE_SERIES(@start_ds::DATE, @end_ds::DATE, '1 day'::INTERVAL) AS days(day)
        CROSS JOIN marts.waits AS waits CROSS JOIN (SELECT PG_SLEEP(1)) AS slow
        """,
}
WAITING = re.compile(
    r"Waits for another run of environment 'prod': process (\d+) on host \S+, (run|Dagster run) (\w{8}), "
)


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest, make_warehouse, tmp_path: Path) -> Warehouse:
    """A project in whose middle a model waits, before one that concurrent runs would fill twice."""
    waits = WAITS.format(started=str(tmp_path / "started"), released=str(tmp_path / "released"))
    files = {"models/waits.py": waits, "models/days.sql": INCREMENTAL[request.param]}
    return make_warehouse(MODELS, files, engine=request.param)


@pytest.fixture
def rows(request: pytest.FixtureRequest):
    """How many rows and how many days there are in the model's table."""

    def count(warehouse: Warehouse) -> tuple[int, int]:
        query = "SELECT COUNT(*), COUNT(DISTINCT day) FROM marts.days"
        if isinstance(warehouse.database, str):
            found = request.getfixturevalue("postgres_server").execute(query, warehouse.database)
            all_rows, days = found.split("|")
        else:
            script = "import duckdb, sys; print(*duckdb.connect(sys.argv[1]).execute(sys.argv[2]).fetchone())"
            done = subprocess.run(
                [str(warehouse.bin / "python"), "-c", script, str(warehouse.database), query],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            all_rows, days = done.stdout.split()
        return int(all_rows), int(days)

    return count


@contextmanager
def by_hand(warehouse: Warehouse, events: Path):
    """`sqlmesh-runner run prod` beside the test."""
    arguments = ["run", "prod", "--project", str(warehouse.path), "--events", str(events)]
    with subprocess.Popen(
        [str(warehouse.bin / "sqlmesh-runner"), *arguments],
        env=warehouse.environ,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def waits_for(messages: list[str]) -> list[tuple[str, str, str]]:
    """Process, kind and id of each run that was waited for."""
    return [found.groups() for message in messages if (found := WAITING.search(message))]


def warnings_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """What Dagster's log of the run says as a warning."""
    return [
        entry.user_message
        for entry in instance.all_logs(run.run_id)
        if entry.level == 30 and not entry.is_dagster_event
    ]


def events_of(path: Path) -> list[dict]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def test_two_runs_of_dagster_and_one_by_hand_leave_each_row_once(
    warehouse: Warehouse, instance: dg.DagsterInstance, tmp_path: Path, rows
) -> None:
    events, released = tmp_path / "events.jsonl", tmp_path / "released"
    with ThreadPoolExecutor(2) as threads, by_hand(warehouse, events) as hand:
        try:
            wait_for((tmp_path / "started").exists)
            dagster: list[Future[Outcome]] = [
                threads.submit(warehouse.materialize, instance) for _ in range(2)
            ]
            wait_for(lambda: len(instance.get_runs()) == 2)
            runs = instance.get_runs()
            for run in runs:
                wait_for(lambda run=run: waits_for(warnings_of(instance, run)), what=lambda: "the waiting")
        finally:
            released.write_text("")
        assert hand.wait(60) == 0
        outcomes = [future.result(120) for future in dagster]

    assert rows(warehouse) == (DAYS, DAYS)
    run_id = events_of(events)[0]["run_id"]
    waited = {run.run_id: waits_for(warnings_of(instance, run)) for run in runs}
    for holders in waited.values():
        assert holders[0] == (str(hand.pid), "run", run_id[:8])
    # Whoever comes last may have waited for the other one of Dagster's as well; nobody for itself.
    for run_id, holders in waited.items():
        others = {other[:8] for other in waited if other != run_id}
        assert {holder[2] for holder in holders[1:]} <= others
        assert all(holder[1] == "Dagster run" for holder in holders[1:])
    assert all(outcome.success for outcome in outcomes)
    # The first run has done everything: what is due was read after it.
    assert [outcome.materialized for outcome in outcomes] == [{}, {}]
    assert {outcome.status("marts/days") for outcome in outcomes} == {("skipped", "up_to_date")}


def test_a_run_by_hand_waits_for_one_of_dagsters_and_says_which(
    warehouse: Warehouse, instance: dg.DagsterInstance, tmp_path: Path, rows
) -> None:
    events, released = tmp_path / "events.jsonl", tmp_path / "released"
    with ThreadPoolExecutor(1) as threads:
        try:
            dagster = threads.submit(warehouse.materialize, instance)
            wait_for((tmp_path / "started").exists)
            (run,) = instance.get_runs()
            with by_hand(warehouse, events) as hand:
                wait_for(lambda: waits_for([event.get("message", "") for event in events_of(events)]))
                released.write_text("")
                assert hand.wait(60) == 0
                assert hand.stderr is not None
                assert "WARNING Waits for another run of environment 'prod': " in hand.stderr.read().decode()
        finally:
            released.write_text("")
        outcome = dagster.result(120)

    (holder,) = waits_for([event.get("message", "") for event in events_of(events)])
    assert holder[1:] == ("Dagster run", run.run_id[:8])
    assert outcome.success
    assert outcome.status("marts/days") == ("executed", None)
    assert rows(warehouse) == (DAYS, DAYS)


def test_a_runner_that_is_killed_leaves_the_way_free_for_the_run_that_waits(
    warehouse: Warehouse, instance: dg.DagsterInstance, tmp_path: Path, rows
) -> None:
    events, released = tmp_path / "events.jsonl", tmp_path / "released"
    with ThreadPoolExecutor(1) as threads, by_hand(warehouse, events) as hand:
        try:
            wait_for((tmp_path / "started").exists)
            dagster = threads.submit(warehouse.materialize, instance)
            wait_for(instance.get_runs)
            (run,) = instance.get_runs()
            wait_for(lambda: waits_for(warnings_of(instance, run)))
            os.kill(hand.pid, signal.SIGKILL)
        finally:
            released.write_text("")
        outcome = dagster.result(120)

    assert waits_for(warnings_of(instance, run))[0][0] == str(hand.pid)
    assert outcome.success
    assert outcome.status("marts/days") == ("executed", None)
    assert rows(warehouse) == (DAYS, DAYS)


def test_a_run_that_cannot_wait_any_longer_fails_as_locked_and_its_retry_does_the_work(
    warehouse: Warehouse, instance: dg.DagsterInstance, tmp_path: Path, rows
) -> None:
    events, released = tmp_path / "events.jsonl", tmp_path / "released"
    launcher = warehouse.launcher()
    settings = {**launcher.env, "SQLMESH_RUNNER_LOCK_TIMEOUT": "1"}
    with ThreadPoolExecutor(1) as threads, by_hand(warehouse, events) as hand:
        try:
            wait_for((tmp_path / "started").exists)
            dagster = threads.submit(
                warehouse.materialize,
                instance,
                assets=warehouse.assets(retry_policy=dg.RetryPolicy(max_retries=20)),
                launcher=warehouse.launcher(env=settings),
            )
            wait_for(lambda: retried(instance))
        finally:
            released.write_text("")
        assert hand.wait(60) == 0
        outcome = dagster.result(200)

    assert outcome.retried
    assert outcome.success
    assert rows(warehouse) == (DAYS, DAYS)


def retried(instance: dg.DagsterInstance) -> bool:
    return any(
        instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
        for run in instance.get_runs()
    )


def test_a_run_that_dagster_ends_while_it_waits_ends_at_once_and_is_told_as_interrupted(
    warehouse: Warehouse, tmp_path: Path, rows
) -> None:
    released = tmp_path / "released"
    with by_hand(warehouse, tmp_path / "events.jsonl") as hand:
        try:
            wait_for((tmp_path / "started").exists)
            with launched_run(warehouse, tmp_path / "home", warehouse.launcher(), retries=0) as instance:
                (run,) = instance.get_runs()
                wait_for(lambda: waits_for(warnings_of(instance, run)), seconds=120)
                instance.run_launcher.terminate(run.run_id)
                wait_for(lambda: finished(instance), seconds=40)
                outcome = Outcome.read(instance, run.run_id)
                assert finished(instance).status == dg.DagsterRunStatus.CANCELED
                assert outcome.materialized == {}
                assert hand.poll() is None
        finally:
            released.write_text("")
        assert hand.wait(60) == 0
    assert rows(warehouse) == (DAYS, DAYS)


def test_with_a_limit_on_the_pool_the_second_run_waits_in_dagster(
    make_warehouse, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    waits = WAITS.format(started=str(tmp_path / "started"), released=str(tmp_path / "released"))
    warehouse = make_warehouse(MODELS, {"models/waits.py": waits})
    # As `dagster instance concurrency set sqlmesh_project_prod 1` does.
    instance.event_log_storage.set_concurrency_slots("sqlmesh_project_prod", 1)
    with ThreadPoolExecutor(2) as threads:
        try:
            first = threads.submit(warehouse.materialize, instance)
            wait_for((tmp_path / "started").exists)
            second = threads.submit(warehouse.materialize, instance)
            wait_for(lambda: [run for run in instance.get_runs() if is_blocked(instance, run)])
            (run,) = (run for run in instance.get_runs() if is_blocked(instance, run))
            assert instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START) == []
        finally:
            (tmp_path / "released").write_text("")
        outcomes = [first.result(60), second.result(60)]

    assert [outcome.success for outcome in outcomes] == [True, True]
    assert waits_for(warnings_of(instance, run)) == []


def is_blocked(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    return any(
        "blocked by limit for pool sqlmesh_project_prod" in entry.message
        for entry in instance.all_logs(run.run_id)
    )
