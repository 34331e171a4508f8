"""One line of the table: what was measured, against what, and whether the target was met."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measurement.

    Attributes:
        what: is measured.
        size: of the project, or of what else it grows with.
        against: what a ratio is to; empty for an absolute number.
        value: the median, where there is more than one round.
        unit: of the value; ``x`` for a ratio.
        limit: the target.
        at_least: the target is a floor, and not a ceiling.
        spread: the least and the greatest of the rounds.
        details: what else is worth keeping, for the JSON file alone.
    """

    what: str
    size: str
    against: str = ""
    value: float
    unit: str
    limit: float
    at_least: bool = False
    spread: tuple[float, float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def target(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {_spelled(self.limit)} {self.unit}"

    @property
    def cells(self) -> tuple[str, ...]:
        spread = " to ".join(map(_spelled, self.spread)) if self.spread else ""
        measured = f"{_spelled(self.value)} {self.unit}"
        return (
            self.what,
            self.size,
            self.against,
            measured,
            spread,
            self.target,
            "met" if self.met else "MISSED",
        )


HEADINGS = ("what", "size", "against", "measured", "rounds", "target", "verdict")


@dataclass(frozen=True)
class Rounds:
    """The rounds of a comparison: seconds of each side, in the order in which they were taken."""

    seconds: Mapping[str, Sequence[float]]

    def ratios(self, of: Sequence[str], to: Sequence[str]) -> list[float]:
        """Of each round by itself: what slows the machine down for a while slows both sides."""
        return [
            sum(self.seconds[name][place] for name in of) / sum(self.seconds[name][place] for name in to)
            for place in range(len(self.seconds[of[0]]))
        ]

    def row(self, *, of: Sequence[str], to: Sequence[str], **row: Any) -> Row:
        found = self.ratios(of, to)
        medians = {name: round(statistics.median(taken), 4) for name, taken in self.seconds.items()}
        details = {
            "seconds": medians,
            "ratios": [round(ratio, 4) for ratio in found],
            **row.pop("details", {}),
        }
        row.setdefault("unit", "x")
        return Row(value=statistics.median(found), spread=(min(found), max(found)), details=details, **row)


def table(rows: Iterable[Row]) -> str:
    """The rows as text, a column as wide as its widest cell."""
    lines = [HEADINGS, *(row.cells for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADINGS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write(rows: Sequence[Row], folder: Path, versions: Mapping[str, str], name: str = "") -> Path:
    """The rows as JSON, and as a table in Markdown beside it. The files are named for the day: of several runs the last stays.

    Args:
        rows: of one run.
        folder: is made where there is none.
        versions: of what was measured.
        name: of benchmarks that are not all there are.
    """
    now = datetime.now(timezone.utc)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y-%m-%d}{'-' if name else ''}{name}.json"
    report = {
        "date": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "versions": versions,
        "machine": machine(),
        "rows": [{**asdict(row), "target": row.target, "met": row.met} for row in rows],
    }
    path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    said = ", ".join(f"{name} {value}" for name, value in {**versions, **machine()}.items())
    path.with_suffix(".md").write_text(f"{now:%Y-%m-%d}: {said}.\n\n{markdown(rows)}\n")
    return path


def markdown(rows: Iterable[Row]) -> str:
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> dict[str, str]:
    """What a figure depends on: processor, memory, system. No names."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = next(
        line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    return {
        "processor": processor,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory.split()[1]) / 2**20:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def _spelled(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}".rstrip("0").rstrip(".") if value < 100 else f"{value:.0f}"
