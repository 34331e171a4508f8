"""How many models run at once is the connection's setting, unless the run is told otherwise."""

import pytest

from .conftest import CONFIG

SINGLE = CONFIG.replace("      concurrent_tasks: 4\n", "")
TOGETHER = """
    import os
    import time
    import typing as t
    from datetime import datetime
    from pathlib import Path

    import pandas as pd
    from sqlmesh import ExecutionContext, model


    @model("s.{name}", kind="FULL", columns={{"seen": "int"}})
    def execute(
        context: ExecutionContext, start: datetime, end: datetime, execution_time: datetime, **kwargs: t.Any
    ) -> pd.DataFrame:
        # Stays until as many run as are hoped for, or for a second; says how many there were at most.
        folder = Path(os.environ["RUNNER_TEST_DATABASE"]).parent / "running"
        folder.mkdir(exist_ok=True)
        (folder / "{name}").touch()
        seen, until = 0, time.monotonic() + 1
        while seen < 4 and time.monotonic() < until:
            seen = max(seen, len(list(folder.iterdir())))
            time.sleep(0.01)
        context.fetchdf("SELECT 1")
        (folder / "{name}").unlink()
        return pd.DataFrame({{"seen": [seen]}})
"""


def most_at_once(warehouse, *arguments):
    """How many models ran at once, in a process of its own: SQLMesh keeps a DuckDB file's adapter for later contexts."""
    import duckdb

    done = warehouse.spawn("run", "prod", *arguments)
    assert done.returncode == 0, done.stderr
    assert "5 executed" in done.stderr
    with duckdb.connect(str(warehouse.database)) as connection:
        union = " UNION ALL ".join(f"SELECT seen FROM s.{name}" for name in "abcde")
        return connection.execute(f"SELECT MAX(seen) FROM ({union})").fetchone()[0]


@pytest.fixture
def make(make_warehouse):
    return lambda config: make_warehouse(
        {f"models/{name}.py": TOGETHER.format(name=name) for name in "abcde"}, config=config
    )


def test_without_the_option_it_is_the_connections_setting(make):
    assert most_at_once(make(CONFIG)) == 4


def test_fewer_models_than_the_connection_allows_run_at_once(make):
    assert most_at_once(make(CONFIG), "--concurrent-tasks", "2") == 2


def test_more_models_run_at_once_on_a_connection_that_is_configured_for_one(make):
    assert most_at_once(make(SINGLE), "--concurrent-tasks", "3") == 3


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_what_is_no_number_of_models_is_refused(warehouse, number):
    result = warehouse.invoke("run", "prod", "--concurrent-tasks", number)

    assert result.exit_code == 2
    assert "--concurrent-tasks" in result.stderr
