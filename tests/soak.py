"""Many runs in a row, and a large project, through Dagster end to end: what they leave behind. By hand: ``make soak``.

    python tests/soak.py runs [RUNS]        memory, descriptors, threads, processes and temporary files of a process that runs so often;
                                            the same number of bare Dagster runs beside it, for what Dagster itself gathers
    python tests/soak.py models [MODELS]    a project of so many models: every one is materialized, and every audit a check

Prints what it measured, and ends with status 1 where something grows that should not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import dagster as dg

sys.path.insert(0, str(Path(__file__).parent))

from support.obedient import KEYS, plan_obedient
from support.processes import processes_of
from support.warehouse import CONFIG, DUCKDB, ROOT, Warehouse, write

RUNNER_BIN = Path(os.environ.get("SQLMESH_RUNNER_VENV", ROOT / ".venv-runner")) / "bin"
WARM_UP = 10
"""Runs after which everything that is made once is made."""
FLAT_MIB = 20.0
"""How much more than bare Dagster a process may grow over all its runs."""


@dataclass(frozen=True)
class Sample:
    """What a process has at some time; `processes` are those that it has started, `files` those in its temporary folder."""

    run: int
    rss_mib: float
    descriptors: int
    threads: int
    processes: int
    files: int


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def sample(run: int, folder: Path) -> Sample:
    return Sample(
        run=run,
        rss_mib=resident_mib(),
        descriptors=len(list(Path("/proc/self/fd").iterdir())),
        threads=threading.active_count(),
        processes=len(processes_of(folder)),
        files=sum(1 for _ in Path(tempfile.gettempdir()).rglob("*")),
    )


def run_often(kind: str, runs: int, folder: Path) -> list[Sample]:
    warehouse = plan_obedient(folder / "warehouse", RUNNER_BIN) if kind == "sqlmesh" else None
    fresh = folder / "fresh.duckdb"
    if warehouse is not None:
        shutil.copy(warehouse.database, fresh)
    samples = []
    (folder / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        for run in range(1, runs + 1):
            if warehouse is not None:
                shutil.copy(fresh, warehouse.database)
                found = warehouse.materialize(instance)
                assert found.success, found.failure
                assert set(found.materialized) == KEYS
            else:
                assert dg.materialize([bare()], instance=instance).success
            if run in (WARM_UP, runs) or run % 20 == 0:
                samples.append(sample(run, folder / "warehouse"))
                print(kind, json.dumps(asdict(samples[-1])), file=sys.stderr, flush=True)
    return samples


def bare() -> dg.AssetsDefinition:
    """As many assets and checks as the project has, and as much metadata."""
    specs = [dg.AssetSpec(key.split("/"), skippable=True) for key in sorted(KEYS)]
    checks = [
        dg.AssetCheckSpec(name, asset=spec.key)
        for spec in specs
        for name in ("sqlmesh_execution_status", "not_null")
    ]

    @dg.multi_asset(specs=specs, check_specs=checks, can_subset=True)
    def bare():
        for spec in specs:
            metadata = {f"key_{number}": "some value of some length" for number in range(8)}
            yield dg.MaterializeResult(
                asset_key=spec.key,
                metadata=metadata,
                check_results=[
                    dg.AssetCheckResult(
                        asset_key=spec.key, check_name=check.name, passed=True, metadata=metadata
                    )
                    for check in checks
                    if check.asset_key == spec.key
                ],
            )

    return bare


def compare(runs: int) -> int:
    found: dict[str, list[Sample]] = {}
    for kind in ("bare", "sqlmesh"):
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            temporary = Path(folder) / "tmp"
            temporary.mkdir()
            done = subprocess.run(
                [sys.executable, __file__, kind, str(runs), folder],
                env={**os.environ, "TMPDIR": str(temporary)},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=120 + 60 * runs,
            )
            found[kind] = [Sample(**each) for each in json.loads(done.stdout.splitlines()[-1])]
    grown = {kind: samples[-1].rss_mib - samples[0].rss_mib for kind, samples in found.items()}
    first, last = found["sqlmesh"][0], found["sqlmesh"][-1]
    print(f"{runs} runs, from the {WARM_UP}th to the last:")
    print(f"  memory       {first.rss_mib} → {last.rss_mib} MiB (bare Dagster: + {grown['bare']:.1f} MiB)")
    print(f"  descriptors  {first.descriptors} → {last.descriptors}")
    print(f"  threads      {first.threads} → {last.threads}")
    print(f"  processes    {last.processes} left")
    print(f"  temp. files  {first.files} → {last.files}")
    is_flat = (
        grown["sqlmesh"] - grown["bare"] <= FLAT_MIB
        and last.descriptors <= first.descriptors
        and last.threads <= first.threads
        and last.processes == 0
        and last.files <= first.files
    )
    print("flat" if is_flat else "NOT FLAT")
    return 0 if is_flat else 1


def large(models: int) -> int:
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        config = CONFIG.replace("@connection@\n", DUCKDB).replace("@dialect@", "duckdb")
        write(folder / "project/config.yaml", config)
        for number in range(models):
            upstream = (
                f"layer_{(number - 10) // 100}.model_{number - 10}" if number >= 10 else "(SELECT 1 AS a)"
            )
            text = f"MODEL (name layer_{number // 100}.model_{number}, kind FULL, audits (not_null(columns := (a))));\n"
            write(folder / f"project/models/model_{number}.sql", f"{text}SELECT a FROM {upstream}\n")
        warehouse = Warehouse(path=folder / "project", database=folder / "db.duckdb", bin=RUNNER_BIN)
        began = time.monotonic()
        warehouse.deploy(timeout=3600)
        planned = time.monotonic()
        (folder / "dagster").mkdir()
        with dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
            outcome = warehouse.materialize(instance)
        ran = time.monotonic()
        passed = sum(check.passed for check in outcome.checks.values())
        resident = resident_mib()
        print(
            f"{models} models: planned and described in {planned - began:.0f} s, run in {ran - planned:.0f} s; "
            f"{len(outcome.materialized)} materialized, {passed} of {len(outcome.checks)} checks passed; {resident} MiB"
        )
        whole = outcome.success and len(outcome.materialized) == models and passed == 2 * models
        return 0 if whole and not processes_of(folder) else 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["runs", *rest]:
            sys.exit(compare(int(rest[0]) if rest else 200))
        case ["models", *rest]:
            sys.exit(large(int(rest[0]) if rest else 2000))
        case [("bare" | "sqlmesh") as kind, runs, folder]:
            print(json.dumps([asdict(each) for each in run_often(kind, int(runs), Path(folder))]))
        case _:
            sys.exit(__doc__)
