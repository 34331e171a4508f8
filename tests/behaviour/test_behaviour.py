"""What SQLMesh did is what Dagster shows, in every situation of the tables.

Each case runs real SQLMesh on DuckDB, under a real Dagster instance; one of each family on PostgreSQL too, and all that
can with BEHAVIOUR_EVERYWHERE=1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from behaviour import (
    cases_audits,
    cases_batches,
    cases_causes,
    cases_code,
    cases_deployment,
    cases_external,
    cases_failures,
    cases_kinds,
    cases_names,
    cases_schedule,
    cases_standalone,
)
from behaviour.case import Case
from behaviour.verdict import assert_shows

FAMILIES = {
    "schedule": cases_schedule.CASES,
    "failures": cases_failures.CASES,
    "audits": cases_audits.CASES,
    "code": cases_code.CASES,
    "batches": cases_batches.CASES,
    "kinds": cases_kinds.CASES,
    "names": cases_names.CASES,
    "deployment": cases_deployment.CASES,
    "causes": cases_causes.CASES,
    "external": cases_external.CASES,
    "standalone": cases_standalone.CASES,
}
CORE = {family: next(case for case in cases if case.postgres) for family, cases in FAMILIES.items()}
"""The case of each family that is played wherever runners run: in this process's neighbour, in a container, in a pod."""
EVERYWHERE = bool(os.environ.get("BEHAVIOUR_EVERYWHERE"))


def plays() -> Iterator[object]:
    for family, cases in FAMILIES.items():
        for case in cases:
            yield pytest.param(case, "duckdb", id=f"{family}-{case.name}-duckdb")
            if case.postgres or (EVERYWHERE and case.only_duckdb is None):
                yield pytest.param(case, "postgres", id=f"{family}-{case.name}-postgres")


@pytest.mark.parametrize(("case", "engine"), plays())
def test_dagster_shows_what_sqlmesh_did(case: Case, engine: str, stage):
    scene = stage(case, engine)
    for step in case.steps:
        assert_shows(scene.play(step), step, engine)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_played_on_postgresql_too(family):
    assert any(case.postgres for case in FAMILIES[family])
    assert not any(case.postgres and case.only_duckdb for case in FAMILIES[family])


def test_each_case_has_a_name_of_its_own():
    names = [(family, case.name) for family, cases in FAMILIES.items() for case in cases]
    assert len(set(names)) == len(names)
