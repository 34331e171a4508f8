"""``python -m matrix [SQLMESH,DAGSTER ...]``: the contract suite over the oldest and the newest SQLMesh and Dagster, as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from itertools import product
from pathlib import Path

from matrix import cells, environments, releases, table, versions
from matrix.cells import Cell, Outcome
from matrix.environments import Environment, InstallError
from matrix.versions import AGES, Age, Side

Pair = tuple[Age, Age]
"""Which SQLMesh, and which Dagster."""


@dataclass(frozen=True, kw_only=True)
class Uninstallable:
    """A cell whose environments cannot be made, and why."""

    name: str
    sqlmesh: Age | None
    dagster: Age | None
    reason: str

    @property
    def title(self) -> str:
        sides = (("SQLMesh", self.sqlmesh), ("Dagster", self.dagster))
        return f"{self.name}: {', '.join(f'{title}, the {age}' for title, age in sides if age)}"


class Matrix:
    """The cells that were asked for. An environment is made when the first cell needs it."""

    def __init__(self, pairs: Sequence[Pair], suites: Sequence[str], python: str, *, quick: bool) -> None:
        self._pairs = pairs
        self._suites = suites
        self._python = python
        self._quick = quick
        self._environment = cache(self._make)
        self._over = cache(self._make_over)

    def cells(self) -> Iterator[Cell | Uninstallable]:
        """Each cell, or why there is none."""
        if "runner" in self._suites:
            for age in dict.fromkeys(sqlmesh for sqlmesh, _ in self._pairs):
                yield self._cell("runner", cells.RUNNER, sqlmesh=age)
        if "orchestrator" in self._suites:
            for age in dict.fromkeys(dagster for _, dagster in self._pairs):
                yield self._cell("orchestrator", cells.ORCHESTRATOR, dagster=age)
        if "pairs" in self._suites:
            for sqlmesh, dagster in self._pairs:
                pair = cells.CORE if self._quick else cells.PAIR
                yield self._cell("end to end", pair, sqlmesh=sqlmesh, dagster=dagster)
        if "releases" in self._suites:
            sqlmesh, dagster = self._pairs[-1]
            for protocol in releases.RELEASES:
                few = self._quick or protocol == "2.0"
                tests = cells.OTHER_RELEASE if few else cells.OTHER_MINOR
                for theirs, ours in _either(protocol):
                    name = f"runner of protocol {theirs or '1.0'}, orchestrator of {ours or '1.0'}"
                    yield self._cell(
                        name, tests, sqlmesh=sqlmesh, dagster=dagster, runner_of=theirs, orchestrator_of=ours
                    )

    def _cell(
        self,
        name: str,
        tests: Sequence[str],
        *,
        sqlmesh: Age | None = None,
        dagster: Age | None = None,
        runner_of: releases.Protocol | None = None,
        orchestrator_of: releases.Protocol | None = None,
    ) -> Cell | Uninstallable:
        name = f"{name}, core" if self._quick else name
        try:
            return Cell(
                name=name,
                tests=tests,
                runner=self._side("sqlmesh", sqlmesh, runner_of),
                orchestrator=self._side("dagster", dagster, orchestrator_of),
            )
        except InstallError as error:
            return Uninstallable(name=name, sqlmesh=sqlmesh, dagster=dagster, reason=str(error))

    def _side(self, side: Side, age: Age | None, protocol: releases.Protocol | None) -> Environment | None:
        if age is None:
            return None
        base = self._environment(side, age)
        return base if protocol is None else self._over(base, protocol)

    def _make(self, side: Side, age: Age) -> Environment:
        if age == "oldest":
            bounds = versions.lower_bounds(versions.project(), side)
            say(f"{side} {bounds[side]}: making its environment, where there is none yet")
            return environments.environment(side, bounds[side], self._python, pins=bounds)
        try:
            newest = versions.newest(side, environments.version_of(self._python))
        except LookupError as error:
            raise InstallError(str(error)) from error
        say(f"{side} {newest}: making its environment, where there is none yet")
        return environments.environment(side, newest, self._python)

    def _make_over(self, base: Environment, protocol: releases.Protocol) -> Environment:
        return environments.over(base, f"protocol-{protocol}", releases.sources(protocol))


def _either(
    protocol: releases.Protocol,
) -> Iterator[tuple[releases.Protocol | None, releases.Protocol | None]]:
    """The runner is of the other release, then the orchestrator."""
    yield protocol, None
    yield None, protocol


def main() -> int:
    """Run the cells, one after the other; 1 if one of them is not as it should be."""
    parser = _parser()
    given = parser.parse_args()
    try:
        python = environments.version_of(given.python)
    except InstallError as error:
        parser.error(str(error))
    environments.FOLDER.mkdir(exist_ok=True)
    (environments.FOLDER / "pytest.log").unlink(missing_ok=True)
    pairs = given.pairs or [("oldest", "oldest")] if given.quick else given.pairs or list(product(AGES, AGES))
    suites = given.suite or (["pairs", "releases"] if given.quick else cells.SUITES)
    matrix = Matrix(pairs, suites, given.python, quick=given.quick)
    is_whole = not (given.pairs or given.suite or given.quick)
    before = [] if is_whole or given.table is None else table.read(given.table.read_text())
    rows: list[table.Row] = []
    is_good = True
    for cell in matrix.cells():
        if isinstance(cell, Cell):
            say(f"{cell.title}: running")
            outcome = cells.run(cell, given.jobs)
        else:
            outcome = Outcome(problem=f"cannot be installed: {cell.reason}")
        rows.append(_row(cell, outcome, python))
        if given.table is not None:
            table.write(given.table, table.merged(before, rows))
        is_good = is_good and outcome.is_good
        say(f"{cell.title}: {_told(outcome)}")
    print(table.table(rows))
    return 0 if is_good and rows else 1


def _told(outcome: Outcome) -> str:
    counts = f"{outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} skipped in {outcome.seconds:.0f} s"
    lines = [outcome.problem or counts, *(f"  failed: {name}" for name in outcome.failures)]
    return "\n".join(lines)


def _row(cell: Cell | Uninstallable, outcome: Outcome, python: str) -> table.Row:
    if isinstance(cell, Cell):
        sqlmesh = cell.runner.version if cell.runner else ""
        dagster = cell.orchestrator.version if cell.orchestrator else ""
        failed = str(outcome.failed) if outcome.problem is None else outcome.problem
    else:
        sqlmesh, dagster, failed = cell.sqlmesh or "", cell.dagster or "", "cannot be installed"
    return table.Row(
        tests=cell.name,
        sqlmesh=sqlmesh,
        dagster=dagster,
        python=python,
        passed=str(outcome.passed),
        failed=failed,
        skipped=str(outcome.skipped),
        measured=f"{datetime.now(timezone.utc):%Y-%m-%d}",
    )


def say(text: str) -> None:
    print(f"{datetime.now().astimezone():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m matrix", description=__doc__)
    parser.add_argument(
        "pairs",
        nargs="*",
        type=_pair,
        metavar="SQLMESH,DAGSTER",
        help="oldest or newest of each; all four by default",
    )
    parser.add_argument(
        "--suite", action="append", choices=cells.SUITES, help="only this one; may come several times"
    )
    parser.add_argument("--quick", action="store_true", help="the core of it, on the oldest of both")
    parser.add_argument(
        "--python", default=sys.executable, metavar="PATH", help="the Python of all environments"
    )
    parser.add_argument("--jobs", default="auto", metavar="N", help="workers of pytest")
    parser.add_argument(
        "--table",
        type=Path,
        metavar="PATH",
        help="a document to put the table in: as a whole, or the lines of what was chosen",
    )
    return parser


def _pair(text: str) -> Pair:
    sqlmesh, _, dagster = text.partition(",")
    ages: dict[str, Age] = {age: age for age in AGES}
    if sqlmesh not in ages or dagster not in ages:
        raise argparse.ArgumentTypeError(f"{text} is not SQLMESH,DAGSTER, each of them {' or '.join(AGES)}")
    return ages[sqlmesh], ages[dagster]


if __name__ == "__main__":
    sys.exit(main())
