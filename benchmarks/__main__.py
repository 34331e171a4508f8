"""``python -m benchmarks [NAME ...]``: the table of all benchmarks, or of some; ``--quick`` shows in minutes that each works, and measures nothing."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks import definitions, orchestrator, protocol, rows, runs
from benchmarks.places import ROOT, RUNNER_BIN, Place, call
from benchmarks.rows import Row

BENCHMARKS: dict[str, Callable[[Place], Iterator[Row]]] = {
    "definitions": definitions.measure,
    "peers": definitions.measure_peers,
    "runner": runs.measure_runner,
    "idle": runs.measure_idle,
    "dagster": runs.measure_through_dagster,
    "latency": orchestrator.measure_latency,
    "launch": orchestrator.measure_launch,
    "protocol": protocol.measure,
    "memory": orchestrator.measure_memory,
    "tick": orchestrator.measure_tick,
}
_NOT_QUICK = ("peers",)
"""Nothing of it is quick."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default"
    )
    parser.add_argument("--quick", action="store_true", help="small projects, one round, no results file")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
    given = parser.parse_args()
    unknown = set(given.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(
            f"there is no benchmark {', '.join(sorted(unknown))}: choose from {', '.join(BENCHMARKS)}"
        )
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        place = Place(Path(folder), quick=given.quick)
        for name in given.names or [each for each in BENCHMARKS if not (given.quick and each in _NOT_QUICK)]:
            for row in BENCHMARKS[name](place):
                found.append(row)
                print(rows.table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    print(rows.table(found))
    if not given.quick:
        name = "-".join(given.names)
        print(f"\nKept: {rows.write(found, given.results, _versions(), name)}")


def _versions() -> dict[str, str]:
    """Of both environments."""
    ours = {name: version(name) for name in ("dagster-sqlmesh-pipes", "dagster", "orjson")}
    program = "from importlib.metadata import version as v; print(v('sqlmesh'), v('duckdb'), v('sqlglot'))"
    theirs = call([RUNNER_BIN / "python", "-c", program], ROOT).split()
    return {**ours, **dict(zip(("sqlmesh", "duckdb", "sqlglot"), theirs, strict=True))}


if __name__ == "__main__":
    main()
