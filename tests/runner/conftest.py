"""What the runner's tests share: a planned SQLMesh project on DuckDB, the command line, and processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlmesh.core.console import NoopConsole
from sqlmesh.core.context import Context

from sqlmesh_pipes_runner.adapter import console_replaced
from sqlmesh_pipes_runner.cli import main
from support.postgres import postgres_server  # noqa: F401 - pytest finds fixtures by name

CONFIG = """\
gateways:
  local:
    connection:
      type: duckdb
      catalogs:
        db: "{{ env_var('RUNNER_TEST_DATABASE') }}"
      concurrent_tasks: 4
default_gateway: local
model_defaults:
  dialect: duckdb
  start: 2026-01-01
  cron: '@daily'
disable_anonymized_analytics: true
"""

FILES = {
    "external_models.yaml": """\
        - name: db.landing.payments
          description: Payments as they arrive.
          columns:
            id: int
        """,
    "seeds/colours.csv": "id,colour\n1,red\n2,green\n",
    "models/colours.sql": """\
        MODEL (
          name raw.colours,
          kind SEED (path '../seeds/colours.csv'),
          columns (id int, colour text)
        );
        """,
    "models/bright.sql": """\
        MODEL (name staging.bright, kind EMBEDDED);
        SELECT id, colour FROM raw.colours
        """,
    "models/orders.sql": """\
        MODEL (
          name staging.orders,
          kind FULL,
          description 'Orders with their colour.',
          owner shop,
          tags (daily, core),
          grain id,
          column_descriptions (id = 'The order.'),
          audits (
            not_null(columns := (id)),
            not_null(columns := (colour), blocking := false),
            unique_values(columns := (id)),
            few_rows(maximum := 1, blocking := false),
            unique_values(columns := (id))
          )
        );
        SELECT id::INT AS id, colour::TEXT AS colour FROM staging.bright
        UNION ALL SELECT 3::INT, NULL::TEXT
        """,
    "models/days.sql": """\
        MODEL (
          name marts.days,
          kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1),
          start '2026-01-01', end '2026-01-03',
          audits (not_null(columns := (day)))
        );
        SELECT CAST(@start_ds AS DATE) AS day, COUNT(*)::INT AS orders FROM staging.orders
        """,
    "models/doubled.py": """\
        import typing as t
        from datetime import datetime

        import pandas as pd
        from sqlmesh import ExecutionContext, model


        @model(
            "marts.doubled",
            kind="FULL",
            columns={"id": "int"},
            depends_on=["staging.orders"],
            audits=[("not_null", {"columns": "(id)"})],
        )
        def execute(
            context: ExecutionContext, start: datetime, end: datetime, execution_time: datetime, **kwargs: t.Any
        ) -> pd.DataFrame:
            print("a model prints")
            return pd.DataFrame({"id": [2, 4]})
        """,
    "models/paid.sql": """\
        MODEL (name marts.paid, kind VIEW);
        SELECT id FROM db.landing.payments WHERE id NOT IN (SELECT id FROM db.landing.refunds)
        """,
    "audits/few_rows.sql": """\
        AUDIT (name few_rows);
        SELECT 1 FROM @this_model HAVING COUNT(*) > @maximum
        """,
    "audits/orders_exist.sql": """\
        AUDIT (name orders_exist, standalone true, description 'There is an order.');
        SELECT 1 FROM staging.orders HAVING COUNT(*) = 0
        """,
}

SLOW = """\
    import os
    import sys
    import time
    import typing as t
    from pathlib import Path

    import pandas as pd
    from sqlmesh import ExecutionContext, model


    @model("marts.slow", kind="FULL", columns={"id": "int"})
    def execute(context: ExecutionContext, start, end, execution_time, **kwargs: t.Any) -> pd.DataFrame:
        does = os.environ.get("SLOW_DOES", "")
        if does == "say":
            os.write(1, b"on [/standard] output\\n")  # in one piece: print writes the end of a line apart
        if does == "print":
            print("on [/standard] output")
            print("and on [red]error[/red]", file=sys.stderr)
            print("no line yet [/b]", end="", flush=True)
        if does == "close":
            sys.stderr.close()
        while not Path(os.environ["SLOW_GATE"]).exists():
            time.sleep(0.02)
        return pd.DataFrame({"id": [1]})
    """
SLOW_FILES = {
    "models/slow.py": SLOW,
    "models/quick.sql": """
        MODEL (name marts.quick, kind FULL, audits (not_null(columns := (b), blocking := false)));
        SELECT 1 AS a, NULL::INT AS b
        """,
    "models/held.sql": "MODEL (name marts.held, kind FULL); SELECT id FROM marts.slow",
    "models/broken.sql": "MODEL (name marts.broken, kind FULL); SELECT CAST('x' AS INT) AS n",
    "models/below.sql": "MODEL (name marts.below, kind FULL); SELECT n FROM marts.broken",
}

LANDING = (
    "CREATE SCHEMA landing",
    "CREATE TABLE landing.payments AS SELECT 1 AS id",
    "CREATE TABLE landing.refunds AS SELECT 2 AS id",
)


@dataclass
class Warehouse:
    """A SQLMesh project and its database."""

    path: Path
    database: Path

    def plan(self, environment: str = "prod") -> None:
        """Plan into an environment in this process; all the work is left to the next run."""
        with console_replaced(NoopConsole()):
            context = self.context()
            context.plan(environment, skip_backfill=True, auto_apply=True, no_prompts=True)
            context.close()

    def context(self) -> Context:
        os.environ["RUNNER_TEST_DATABASE"] = str(self.database)
        return Context(paths=[str(self.path)])

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(textwrap.dedent(text))

    def invoke(self, *arguments: str) -> Result:
        """A command of ``sqlmesh-runner`` on this project, in this process."""
        os.environ["RUNNER_TEST_DATABASE"] = str(self.database)
        command, *rest = arguments
        return CliRunner().invoke(main, [command, "--project", str(self.path), *rest])

    def run(self, *arguments: str) -> tuple[Result, list[dict[str, Any]]]:
        """``sqlmesh-runner run prod`` in this process, and the events of this run."""
        events = self.path.parent / "events.jsonl"
        events.unlink(missing_ok=True)
        result = self.invoke("run", "prod", "--events", str(events), *arguments)
        return result, [json.loads(line) for line in events.read_bytes().splitlines()]

    def spawn(self, *arguments: str, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
        """The same in a process of its own."""
        return subprocess.run(
            self.command(*arguments),
            env={**os.environ, "RUNNER_TEST_DATABASE": str(self.database), **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
        """The same, to go on beside the test; the caller ends it."""
        env = {**os.environ, "RUNNER_TEST_DATABASE": str(self.database), **settings.pop("env", {})}
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **settings}
        return subprocess.Popen(self.command(*arguments), env=env, **streams)

    def command(self, *arguments: str) -> list[str]:
        command, *rest = arguments
        return [sys.executable, "-m", "sqlmesh_pipes_runner", command, "--project", str(self.path), *rest]


@pytest.fixture(autouse=True)
def _database_variable() -> Iterator[None]:
    """The variable that names the database is the test's own."""
    before = os.environ.get("RUNNER_TEST_DATABASE")
    yield
    if before is None:
        os.environ.pop("RUNNER_TEST_DATABASE", None)
    else:
        os.environ["RUNNER_TEST_DATABASE"] = before


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The project of `FILES`, planned once; tests get a copy."""
    import duckdb

    folder = tmp_path_factory.mktemp("planned")
    warehouse = Warehouse(path=folder / "project", database=folder / "db.duckdb")
    warehouse.write({"config.yaml": CONFIG, **FILES})
    with duckdb.connect(str(warehouse.database)) as connection:
        for statement in LANDING:
            connection.execute(statement)
    warehouse.plan()
    return warehouse


@pytest.fixture
def warehouse(planned: Warehouse, tmp_path: Path) -> Warehouse:
    """The planned project with a database of its own, and everything due."""
    shutil.copytree(planned.path, tmp_path / "project")
    shutil.copy(planned.database, tmp_path / "db.duckdb")
    return Warehouse(path=tmp_path / "project", database=tmp_path / "db.duckdb")


@pytest.fixture
def make_warehouse(tmp_path: Path) -> Callable[..., Warehouse]:
    """A project of the files given, planned: for what the common one must not hold."""

    def make(files: Mapping[str, str], *, config: str = CONFIG, plan: bool = True) -> Warehouse:
        warehouse = Warehouse(path=tmp_path / "project", database=tmp_path / "db.duckdb")
        warehouse.write({"config.yaml": config, **files})
        if plan:
            warehouse.plan()
        return warehouse

    return make


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in a process of its own."""

    def run(
        script: str, *arguments: str, env: Mapping[str, str] = {}, flags: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *flags, "-c", textwrap.dedent(script), *arguments],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def planned_slow(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    folder = tmp_path_factory.mktemp("slow")
    warehouse = Warehouse(path=folder / "project", database=folder / "db.duckdb")
    warehouse.write({"config.yaml": CONFIG, **SLOW_FILES})
    warehouse.plan()
    return warehouse


@pytest.fixture
def slow(planned_slow: Warehouse, tmp_path: Path) -> Warehouse:
    """A project with a model that takes until the gate is opened, planned, and everything due."""
    shutil.copytree(planned_slow.path, tmp_path / "project")
    shutil.copy(planned_slow.database, tmp_path / "db.duckdb")
    return Warehouse(path=tmp_path / "project", database=tmp_path / "db.duckdb")


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Opens with ``touch()``."""
    monkeypatch.setenv("SLOW_GATE", str(tmp_path / "gate"))
    return tmp_path / "gate"
