"""How long a code location takes to load: this package's definitions of N models, against bare specs and checks of Dagster.

Each measurement is a cold process, from its start to a complete repository with job and schedule. Both kinds take turns, so that
what else the machine does meets both. ``python benchmarks/load_definitions.py [MODELS ...]``
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 7
TARGET = 1.3
PROGRAMS = {
    "dagster": """
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
    """,
    "dagster-sqlmesh-pipes": """
        import sys
        from dagster_sqlmesh_pipes import sqlmesh_definitions_factory
        defs = sqlmesh_definitions_factory(project_dir=sys.argv[2], manifest=sys.argv[1])
    """,
}
END = """
repository = defs.get_repository_def()
repository.get_all_jobs()
graph = defs.resolve_asset_graph()
import json
print(json.dumps({"assets": len(graph.materializable_asset_keys), "checks": len(graph.asset_check_keys),
                  "sqlmesh": "sqlmesh" in sys.modules}))
"""


def main(sizes: list[int]) -> int:
    from projects import write

    failed = False
    print(f"{'models':>7} {'checks':>7} {'dagster':>9} {'ours':>9} {'ratio':>7}  target {TARGET}")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            manifest = write(Path(folder) / "sqlmesh_manifest.json", size)
            seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
            for _ in range(ROUNDS):
                for name, program in PROGRAMS.items():
                    started = time.perf_counter()
                    loaded = _run(program, manifest)
                    seconds[name].append(time.perf_counter() - started)
                    assert loaded == {"assets": size, "checks": size * 4, "sqlmesh": False}, loaded
            floor, ours = (statistics.median(seconds[name]) for name in PROGRAMS)
            # Of each round by itself: what slows the machine down for a while slows both.
            ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
            failed |= ratio > TARGET
            print(f"{size:>7} {size * 4:>7} {floor:>8.2f}s {ours:>8.2f}s {ratio:>7.2f}")
    return int(failed)


def _run(program: str, manifest: Path) -> dict[str, object]:
    import textwrap

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program) + END, str(manifest), str(manifest.parent)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    sys.exit(main([int(size) for size in sys.argv[1:]] or [100, 1000]))
