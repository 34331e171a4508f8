"""Dagster's event log is slow, or fails for a while: SQLMesh goes on, and nothing that it did is lost."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from support.intervals import in_dagster, in_state
from support.obedient import KEYS, obedient, obeying, planned_obedient  # noqa: F401 - fixtures
from support.postgres import PASSWORD, PostgresServer
from support.waiting import wait_for
from support.warehouse import Outcome, Warehouse

WAITS = """
    import os, pathlib, time
    pathlib.Path(os.environ["STARTED"]).touch()
    deadline = time.monotonic() + 60
    while not pathlib.Path(os.environ["RELEASED"]).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
"""


class MidRun:
    """A run whose third model waits to be let go, in a thread."""

    def __init__(self, warehouse: Warehouse, instance: dg.DagsterInstance, folder: Path) -> None:
        self.started, self.released = folder / "started", folder / "released"
        env = obeying(warehouse, WAITS, STARTED=str(self.started), RELEASED=str(self.released))
        launcher = warehouse.launcher(env=env)

        def run() -> None:
            with contextlib.suppress(Exception):  # of a step whose end Dagster cannot write down
                warehouse.materialize(instance, launcher=launcher)

        self._thread = threading.Thread(target=run)
        self._thread.start()
        wait_for(self.started.exists)

    def end(self) -> None:
        self._thread.join(timeout=180)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Nobody else can write to it."""
    connection = sqlite3.connect(database, isolation_level=None, timeout=30)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()


def test_a_log_that_is_locked_for_a_while_has_everything_afterwards(
    obedient,  # noqa: F811 - the fixture
    instance,
    tmp_path,
):
    run = MidRun(obedient, instance, tmp_path)
    (record,) = instance.get_runs()
    with locked(next((tmp_path / "dagster").rglob(f"{record.run_id}.db"))):
        run.released.touch()
        time.sleep(10)
    run.end()

    outcome = Outcome.read(instance, record.run_id)
    assert outcome.success
    assert set(outcome.materialized) == KEYS
    assert in_dagster(outcome) == in_state(obedient)


@pytest.fixture
def on_postgres(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    database = postgres_server.new_database()
    (tmp_path / "home").mkdir()
    (tmp_path / "home/dagster.yaml").write_text(
        f"""\
        telemetry: {{enabled: false}}
        storage:
          postgres:
            postgres_url: postgresql+psycopg2://postgres:{PASSWORD}@127.0.0.1:{postgres_server.port}/{database}
        """
    )
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        yield instance


def test_a_server_that_is_away_for_longer_than_dagster_waits_has_everything_when_it_is_back(
    obedient,  # noqa: F811 - the fixture
    on_postgres,
    postgres_server,
    tmp_path,
):
    run = MidRun(obedient, on_postgres, tmp_path)
    (record,) = on_postgres.get_runs()
    postgres_server.stop()
    try:
        run.released.touch()
        time.sleep(15)
    finally:
        postgres_server.start()
    run.end()

    outcome = Outcome.read(on_postgres, record.run_id)
    assert not outcome.success  # Dagster gave up a write of its own
    assert set(outcome.materialized) == KEYS
    assert in_dagster(outcome) == in_state(obedient)
