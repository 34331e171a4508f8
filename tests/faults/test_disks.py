"""Where events go to a disk: one that is full, a file that is taken away. SQLMesh's work is done all the same where nobody waits for it.

Annotations are not postponed: Dagster reads those of asset functions.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, sqlmesh_assets
from support.obedient import BEFORE, KEYS, obedient, obeying, planned_obedient  # noqa: F401 - fixtures
from support.recorded import assert_nothing_invented, recorded
from support.warehouse import Warehouse

SAYS_MUCH = """
    import logging
    for number in range(100):
        logging.getLogger("sqlmesh").warning("%s:%s", number, "m" * 3000)
"""
TAKES_AWAY = """
    import os
    os.unlink(os.environ["EVENTS"])
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def read_by(reader: dg.PipesMessageReader, warehouse: Warehouse) -> dg.AssetsDefinition:
    @sqlmesh_assets(project=SQLMeshProject(warehouse.path), name="warehouse")
    def assets(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
        yield from sqlmesh.run(context, message_reader=reader)

    return assets


def test_a_full_disk_ends_the_events_and_not_the_run_of_a_runner_alone(obedient, small_disk):  # noqa: F811 - the fixture
    path = small_disk / "events.jsonl"
    done = obedient.runner(
        "run",
        "prod",
        "--project",
        str(obedient.path),
        "--events",
        str(path),
        env=obeying(obedient, SAYS_MUCH),
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Events can no longer be written: No space left on device.") == 1
    assert "4 executed, 0 skipped, 0 failed" in done.stderr
    assert set(recorded(obedient)) == KEYS
    *whole, torn = path.read_bytes().split(b"\n")
    assert [json.loads(line)["seq"] for line in whole if b'"part"' not in line] == list(range(len(whole)))
    assert path.stat().st_size == 128 << 10  # as much as there was room for, the torn line included
    assert torn


def test_a_full_disk_between_runner_and_dagster_stops_the_run_and_keeps_what_came(
    obedient,  # noqa: F811 - the fixture
    instance,
    small_disk,
):
    """What Dagster cannot be told is not to be done: the run ends after the model that is under way."""
    reader = dg.PipesFileMessageReader(str(small_disk / "messages"), cleanup_file=False)
    launcher = obedient.launcher(env=obeying(obedient, SAYS_MUCH))
    outcome = obedient.materialize(instance, assets=read_by(reader, obedient), launcher=launcher)

    assert not outcome.success
    assert "exited with status 130 in mid-run" in outcome.failure
    assert "Dagster does not know how the run ended: No space left on device." in outcome.failure
    assert set(outcome.materialized) >= BEFORE
    assert "marts/last" not in outcome.materialized
    assert "marts/last" not in assert_nothing_invented(outcome, obedient)


def test_a_file_of_messages_that_is_taken_away_in_mid_run_is_read_to_its_end(
    obedient,  # noqa: F811 - the fixture
    instance,
    tmp_path,
):
    path = tmp_path / "messages"
    outcome = obedient.materialize(
        instance,
        launcher=obedient.launcher(env=obeying(obedient, TAKES_AWAY, EVENTS=str(path))),
        assets=read_by(dg.PipesFileMessageReader(str(path)), obedient),
    )

    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == KEYS
    assert set(assert_nothing_invented(outcome, obedient)) == KEYS
    assert not path.exists()


def test_a_file_of_events_that_is_taken_away_in_mid_run_does_not_disturb_a_runner_alone(obedient, tmp_path):  # noqa: F811 - the fixture
    path = tmp_path / "events.jsonl"
    env = obeying(obedient, TAKES_AWAY, EVENTS=str(path))
    done = obedient.runner("run", "prod", "--project", str(obedient.path), "--events", str(path), env=env)

    assert done.returncode == 0, done.stderr
    assert set(recorded(obedient)) == KEYS
    assert not path.exists()
