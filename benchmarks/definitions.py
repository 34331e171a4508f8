"""How long a code location takes to load: this package's definitions, against bare specs and checks of Dagster, and against the peers.

Each measurement is a cold process, from its start to a complete repository with job and schedule.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import orjson

from benchmarks import peers, projects
from benchmarks.places import LOADED, ROOT, Place, interleaved, say, timed
from benchmarks.rows import Row

LIMIT = 1.3
PEER_LIMIT = 10.0
_ROUNDS = {100: 9, 1000: 7, 5000: 3}
_ROUNDS_COLD = 2
_ROUNDS_WARM = 3

BARE = """
    import sys, orjson, dagster as dg
    project = orjson.loads(open(sys.argv[1], "rb").read())
    keys = {model["fqn"]: dg.AssetKey([model["catalog"], model["schema"], model["table"]]) for model in project["models"]}
    specs = [
        dg.AssetSpec(keys[model["fqn"]], deps=[keys[fqn] for fqn in model["depends_on"] if fqn in keys], skippable=True)
        for model in project["models"]
    ]
    checks = [
        dg.AssetCheckSpec(name, asset=keys[model["fqn"]])
        for model in project["models"]
        for name in ("status", *(audit["audit"] for audit in model["audits"]))
    ]

    @dg.multi_asset(specs=specs, check_specs=checks, can_subset=True)
    def assets(context):
        yield

    job = dg.define_asset_job("job", selection=dg.AssetSelection.assets(*keys.values()))
    schedule = dg.ScheduleDefinition(name="schedule", job=job, cron_schedule="@daily")
    defs = dg.Definitions(assets=[assets], jobs=[job], schedules=[schedule])
"""
OURS = """
    import sys
    from pathlib import Path
    from dagster_sqlmesh_pipes import sqlmesh_definitions_factory
    defs = sqlmesh_definitions_factory(project_dir=Path(sys.argv[1]).parent, manifest=sys.argv[1])
"""


def measure(place: Place) -> Iterator[Row]:
    for models in (20,) if place.quick else _ROUNDS:
        manifest = manifest_of(place, models)
        say(f"loads definitions of {models:,} models")
        rounds = interleaved(
            _ROUNDS.get(models, 1),
            {"bare": partial(_load, BARE, manifest, models), "ours": partial(_load, OURS, manifest, models)},
        )
        yield rounds.row(
            what="load definitions",
            size=f"{models:,} models",
            against="bare Dagster",
            of=["ours"],
            to=["bare"],
            limit=LIMIT,
        )


def measure_peers(place: Place) -> Iterator[Row]:
    models = 1000
    manifest = manifest_of(place, models)
    for name in peers.PEERS:
        say(f"loads definitions of {models:,} models with {name}")
        python = peers.install(name, ROOT / ".bench")
        project = projects.write_project(place.folder / name, models)
        for cache, rounds in (("cold", _ROUNDS_COLD), ("warm", _ROUNDS_WARM)):
            load = partial(peers.load_seconds, name, python, project, models, warm=cache == "warm")
            taken = interleaved(rounds, {name: load, "ours": partial(_load, OURS, manifest, models)})
            yield taken.row(
                what="load definitions",
                size=f"{models:,} models",
                against=f"{name}, SQLMesh's cache {cache}",
                of=[name],
                to=["ours"],
                unit="x faster",
                limit=PEER_LIMIT,
                at_least=True,
                details={"versions": peers.versions(python)},
            )


def manifest_of(place: Place, models: int) -> Path:
    """Of a project that need not be deployed."""
    folder = place.folder / f"manifest-{models}"
    folder.mkdir(exist_ok=True)
    path = folder / "sqlmesh_manifest.json"
    return path if path.exists() else projects.write(path, models)


def _load(program: str, manifest: Path, models: int) -> float:
    elapsed, said = timed(
        [sys.executable, "-c", textwrap.dedent(program) + LOADED, manifest], manifest.parent
    )
    loaded = orjson.loads(said.splitlines()[-1])
    expected = {"assets": models, "checks": models * projects.CHECKS, "sqlmesh": False}
    if loaded != expected:
        raise RuntimeError(f"{expected} was to be loaded, and {loaded} was")
    return elapsed
