"""Fixtures of the behaviour suite, shared with the integration tests."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from behaviour.case import Case, Stage, execute_in_duckdb
from support.warehouse import (  # noqa: F401 - pytest finds fixtures by name
    instance,
    make_warehouse,
    postgres_server,
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

    def set_up(case: Case, engine: str = "duckdb") -> Stage:
        warehouse = make_warehouse(case.models, case.files, engine=engine, deploy=False)

        def execute(sql: str) -> None:
            if engine == "postgres":
                request.getfixturevalue("postgres_server").execute(sql, warehouse.database)
            else:
                execute_in_duckdb(warehouse, sql)

        if case.sql:
            execute(case.sql)
        warehouse.deploy()
        return Stage(warehouse, instance, execute, engine)

    return set_up
