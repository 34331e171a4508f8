"""The behaviour suite's core with the runner in a container: a case of each family, on DuckDB and on PostgreSQL, the same event log."""

from __future__ import annotations

import pytest

from behaviour.test_behaviour import CORE
from behaviour.verdict import assert_shows

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(900)]


@pytest.mark.parametrize("family", CORE)
def test_dagster_shows_what_sqlmesh_did_in_a_container(family, stage, containers):
    case = CORE[family]
    # By turns: each case is played on both, on this host.
    engine = "postgres" if case.only_duckdb is None and list(CORE).index(family) % 2 else "duckdb"
    scene = stage(case, engine, containers.launcher)

    for step in case.steps:
        assert_shows(scene.play(step), step, engine)
