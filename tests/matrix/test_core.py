"""A case of each family of the behaviour suite: the fewest that show that releases work together."""

from __future__ import annotations

import pytest

from behaviour.test_behaviour import CORE
from behaviour.verdict import assert_shows


@pytest.mark.parametrize("family", CORE)
def test_dagster_shows_what_sqlmesh_did(family, stage):
    scene = stage(CORE[family])
    for step in CORE[family].steps:
        assert_shows(scene.play(step), step, "duckdb")
