"""Fixtures of the behaviour suite, shared with the integration tests."""

from __future__ import annotations

import os
from collections.abc import Callable

import dagster as dg
import pytest

from behaviour.case import Case, Stage, execute_in_duckdb
from dagster_sqlmesh_pipes import Launcher
from support.engine import (  # noqa: F401 - pytest finds fixtures by name
    containers,
    docker_engine,
    docker_host,
)
from support.postgres import postgres_server  # noqa: F401 - pytest finds fixtures by name
from support.warehouse import (  # noqa: F401 - pytest finds fixtures by name
    Warehouse,
    instance,
    make_warehouse,
    runner_bin,
)

pytest.register_assert_rewrite("behaviour.verdict")


@pytest.fixture
def stage(
    make_warehouse: Callable[..., object],  # noqa: F811 - the fixture
    instance: dg.DagsterInstance,  # noqa: F811 - the fixture
    request: pytest.FixtureRequest,
) -> Callable[..., Stage]:
    """Set a case's scene: the project written, the warehouse prepared, everything planned and nothing run."""

    def set_up(
        case: Case, engine: str = "duckdb", start: Callable[[Warehouse], Launcher] | None = None
    ) -> Stage:
        warehouse = make_warehouse(case.models, case.files, engine=engine, deploy=False)

        def execute(sql: str) -> None:
            if engine == "postgres":
                request.getfixturevalue("postgres_server").execute(sql, warehouse.database)
            else:
                execute_in_duckdb(warehouse, sql)

        if case.sql:
            execute(case.sql)
        warehouse.deploy()
        return Stage(warehouse, instance, execute, engine, start(warehouse) if start else None)

    return set_up


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for an ``engine`` runs on DuckDB, marked ``on_both`` or with BEHAVIOUR_EVERYWHERE=1 on both."""
    if "engine" in metafunc.fixturenames and metafunc.definition.get_closest_marker("parametrize") is None:
        both = metafunc.definition.get_closest_marker("on_both") or os.environ.get("BEHAVIOUR_EVERYWHERE")
        metafunc.parametrize("engine", ["duckdb", "postgres"] if both else ["duckdb"])
