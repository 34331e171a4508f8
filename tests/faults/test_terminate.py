"""Terminate in Dagster, whenever it comes: SQLMesh ends within the grace period, and commits nothing after Dagster has recorded the end."""

import time
from pathlib import Path

import dagster as dg
import pytest

from support.daemon import finished, launched_run
from support.intervals import in_dagster, in_state
from support.obedient import KEYS, obedient, obeying, planned_obedient  # noqa: F401 - fixtures
from support.processes import processes_of
from support.waiting import wait_for
from support.warehouse import Outcome

FAULTY_RUNNER = Path(__file__).parents[1] / "support/faulty_runner.py"
WAITS = """
    import os, pathlib, time
    pathlib.Path(os.environ["STARTED"]).touch()
    deadline = time.monotonic() + 90
    while not pathlib.Path(os.environ["RELEASED"]).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
"""
NOTHING = dict.fromkeys(KEYS, ("skipped", "interrupted"))


def terminated(instance: dg.DagsterInstance) -> Outcome:
    """What there is of the run after it was told to end, as Dagster's web server tells it."""
    (run,) = instance.get_runs()
    assert instance.run_coordinator.cancel_run(run.run_id)
    wait_for(lambda: finished(instance), seconds=90)
    assert finished(instance).status == dg.DagsterRunStatus.CANCELED
    return Outcome.read(instance, run.run_id)


def runners(folder: Path) -> list[str]:
    commands = processes_of(folder).values()
    return [command for command in commands if "sqlmesh-runner run" in command or "faulty_runner" in command]


def statuses(outcome: Outcome) -> dict[str, tuple[str, str | None]]:
    return {key: outcome.status(key) for key, name in outcome.checks if name == "sqlmesh_execution_status"}


def test_a_run_in_the_queue_never_starts(obedient, tmp_path):  # noqa: F811 - the fixture
    no_run = "concurrency: {runs: {max_concurrent_runs: 0}}\n"
    with launched_run(
        obedient, tmp_path / "home", obedient.launcher(), retries=0, settings=no_run
    ) as instance:
        (run,) = instance.get_runs()
        wait_for(lambda: instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.QUEUED)
        outcome = terminated(instance)

    assert outcome.materialized == outcome.checks == {}
    assert in_state(obedient) == {}


def test_a_runner_that_is_starting_ends_and_no_model_runs(obedient, tmp_path):  # noqa: F811 - the fixture
    with launched_run(obedient, tmp_path / "home", obedient.launcher(), retries=0) as instance:
        wait_for(lambda: runners(tmp_path))
        outcome = terminated(instance)
        assert runners(tmp_path) == []

    assert outcome.materialized == {}
    assert statuses(outcome) == NOTHING
    assert in_state(obedient) == {}


@pytest.mark.parametrize("heeds", [True, False])
def test_a_model_that_runs_gets_its_time_and_what_did_not_run_is_interrupted(
    obedient,  # noqa: F811 - the fixture
    tmp_path,
    heeds,
):
    started, released = tmp_path / "started", tmp_path / "released"
    env = obeying(obedient, WAITS, STARTED=str(started), RELEASED=str(released))
    launcher = obedient.launcher(env=env, grace_period_seconds=20 if heeds else 7)
    with launched_run(obedient, tmp_path / "home", launcher, retries=0) as instance:
        wait_for(started.exists)
        (run,) = instance.get_runs()
        if heeds:
            instance.run_coordinator.cancel_run(run.run_id)
            time.sleep(1)
            released.touch()
            wait_for(lambda: finished(instance), seconds=60)
            outcome = Outcome.read(instance, run.run_id)
        else:
            outcome = terminated(instance)
        assert runners(tmp_path) == []
        committed = in_state(obedient)
        released.touch()  # for whoever would still wait
        time.sleep(3)

    assert in_dagster(outcome) == committed == in_state(obedient)
    assert statuses(outcome) == {
        "staging/first": ("executed", None),
        "marts/second": ("executed", None),
        "marts/obeys": ("executed", None) if heeds else ("failed", "cancelled"),
        "marts/last": ("skipped", "interrupted"),
    }


def test_a_run_that_is_finishing_keeps_all_that_it_did(obedient, tmp_path):  # noqa: F811 - the fixture
    marker = tmp_path / "finishing"
    env = obeying(obedient, "", FAULT="pauses before run_finished", FAULT_MARKER=str(marker))
    launcher = obedient.launcher(command=[str(obedient.bin / "python"), str(FAULTY_RUNNER)], env=env)
    with launched_run(obedient, tmp_path / "home", launcher, retries=0) as instance:
        wait_for(marker.exists)
        (run,) = instance.get_runs()
        instance.run_coordinator.cancel_run(run.run_id)
        time.sleep(1)
        marker.unlink()
        wait_for(lambda: finished(instance), seconds=60)
        assert finished(instance).status == dg.DagsterRunStatus.CANCELED
        outcome = Outcome.read(instance, run.run_id)
        assert runners(tmp_path) == []

    assert set(outcome.materialized) == KEYS
    assert in_dagster(outcome) == in_state(obedient)
