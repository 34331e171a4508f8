"""SQLMesh never waits for Dagster: a Dagster process that stands still holds nothing up, and loses nothing when it goes on."""

import signal
import subprocess
from pathlib import Path

import pytest

from support.obedient import AUDITED, KEYS, obedient, obeying, planned_obedient  # noqa: F401 - fixtures
from support.processes import processes_of
from support.recorded import assert_nothing_invented, recorded
from support.waiting import wait_for
from support.warehouse import Warehouse
from support.worker import outcome_of, worker

SAYS_MUCH = """
    import logging, os, pathlib, time
    pathlib.Path(os.environ["STARTED"]).touch()
    deadline = time.monotonic() + 60
    while not pathlib.Path(os.environ["RELEASED"]).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for number in range(1000):
        logging.getLogger("sqlmesh").warning("%s:%s", number, "m" * 3000)
"""
"""Events, and lines of progress, of which each takes several times what a pipe holds."""


@pytest.fixture
def started(tmp_path: Path) -> Path:
    return tmp_path / "started"


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return tmp_path / "released"


@pytest.fixture
def env(obedient: Warehouse, started: Path, released: Path) -> dict[str, str]:  # noqa: F811 - the fixture
    return obeying(obedient, SAYS_MUCH, STARTED=str(started), RELEASED=str(released))


def is_all_recorded(warehouse: Warehouse) -> bool:
    """Whether SQLMesh is through, and has let go of the warehouse, which DuckDB gives to one process at a time."""
    try:
        return set(recorded(warehouse)) == KEYS
    except subprocess.CalledProcessError as error:
        if "lock" not in error.stderr:
            raise
        return False


def test_a_dagster_process_that_is_stopped_holds_nothing_up_and_gets_everything_when_it_goes_on(
    obedient,  # noqa: F811 - the fixture
    env,
    tmp_path,
    started,
    released,
):
    home = tmp_path / "home"
    with worker(obedient, home, env) as process:
        wait_for(started.exists)
        process.send_signal(signal.SIGSTOP)
        released.touch()
        wait_for(lambda: is_all_recorded(obedient))
        assert [
            line for line in processes_of(tmp_path).values() if "sqlmesh-runner" in line
        ]  # it has more to tell
        process.send_signal(signal.SIGCONT)
        process.wait(timeout=120)

    outcome = outcome_of(home)
    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == KEYS
    assert {place for place in outcome.checks if place[1] == "not_null"} == {
        (key, "not_null") for key in AUDITED
    }
    assert sum(line.endswith("m" * 3000) for line in outcome.log) == 1000
    assert not [line for line in outcome.log if "lost" in line]
    assert_nothing_invented(outcome, obedient)


def test_a_runner_whose_stopped_dagster_process_is_killed_ends_by_itself(
    obedient,  # noqa: F811 - the fixture
    env,
    tmp_path,
    started,
    released,
):
    with worker(obedient, tmp_path / "home", env) as process:
        wait_for(started.exists)
        process.send_signal(signal.SIGSTOP)
        released.touch()
        wait_for(lambda: is_all_recorded(obedient))
        process.kill()
        process.wait(timeout=10)

    wait_for(lambda: not processes_of(tmp_path), what=lambda: f"the end of {processes_of(tmp_path)}")
    assert set(recorded(obedient)) == KEYS
