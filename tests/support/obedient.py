"""A warehouse with a Python model that does what a variable says: how a test injects a fault from within a runner."""

import shutil
import textwrap
from pathlib import Path

import pytest

from support.warehouse import CONFIG, DUCKDB, Warehouse, write

MODELS = {
    "first.sql": """\
        MODEL (name staging.first, kind FULL, audits (not_null(columns := (a))));
        SELECT 1 AS a
        """,
    "second.sql": """\
        MODEL (
          name marts.second, start '2026-01-01', end '2026-01-03', audits (not_null(columns := (day))),
          kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1, batch_concurrency 1)
        );
        SELECT CAST(@start_ds AS DATE) AS day, a FROM staging.first
        """,
    "obeys.py": """\
        import os
        import typing as t
        import pandas as pd
        from sqlmesh import ExecutionContext, model

        @model("marts.obeys", columns={"a": "int"}, kind="full", depends_on=["marts.second"])
        def execute(context: ExecutionContext, **kwargs: t.Any):
            names = {}
            exec(os.environ.get("OBEYS", ""), names)
            return pd.DataFrame({"a": names.get("values", [1])})
        """,
    "last.sql": """\
        MODEL (name marts.last, kind FULL, audits (not_null(columns := (a))));
        SELECT a FROM marts.obeys
        """,
}
KEYS = {"staging/first", "marts/second", "marts/obeys", "marts/last"}
BEFORE = {"staging/first", "marts/second"}
"""What runs before the model that obeys."""
AUDITED = KEYS - {"marts/obeys"}


def plan_obedient(folder: Path, runner_bin: Path) -> Warehouse:
    """Planned, with everything due, in a folder of its own."""
    config = CONFIG.replace("@connection@\n", DUCKDB).replace("@dialect@", "duckdb")
    write(folder / "project/config.yaml", config)
    for name, text in MODELS.items():
        write(folder / "project/models" / name, textwrap.dedent(text))
    warehouse = Warehouse(path=folder / "project", database=folder / "db.duckdb", bin=runner_bin)
    warehouse.deploy()
    return warehouse


@pytest.fixture(scope="session")
def planned_obedient(tmp_path_factory: pytest.TempPathFactory, runner_bin: Path) -> Warehouse:
    """Planned once a worker; tests get a copy."""
    return plan_obedient(tmp_path_factory.mktemp("obedient"), runner_bin)


@pytest.fixture
def obedient(planned_obedient: Warehouse, tmp_path: Path) -> Warehouse:
    """A first model, one of three daily batches, the one that obeys the variable OBEYS, and a last one; everything is due."""
    shutil.copytree(planned_obedient.path, tmp_path / "project")
    shutil.copy(planned_obedient.database, tmp_path / "db.duckdb")
    return Warehouse(path=tmp_path / "project", database=tmp_path / "db.duckdb", bin=planned_obedient.bin)


def obeying(warehouse: Warehouse, code: str, **env: str) -> dict[str, str]:
    """The variables of a launcher, whose runner does what the code says."""
    return {**warehouse.launcher().env, "OBEYS": textwrap.dedent(code), **env}
