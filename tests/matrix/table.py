"""The table in docs/compatibility.md: what was measured, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

BEGIN = "<!-- made by `make matrix` -->"
END = "<!-- end of what is made -->"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table. All are texts, as they stand there."""

    tests: str
    sqlmesh: str
    dagster: str
    python: str
    passed: str
    failed: str
    skipped: str
    measured: str

    @property
    def place(self) -> tuple[str, ...]:
        """What is measured: a later measurement takes the place of an earlier."""
        return (self.tests, self.sqlmesh, self.dagster, self.python)


_TITLES = ("Tests", "SQLMesh", "Dagster", "Python", "passed", "failed", "skipped", "measured")


def table(rows: Iterable[Row]) -> str:
    """Markdown."""
    lines = [_line(_TITLES), _line(["---"] * 4 + ["---:"] * 3 + ["---"])]
    return "\n".join([*lines, *(_line(astuple(row)) for row in rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def read(text: str) -> list[Row]:
    """The rows between the marks of a document."""
    _, _, rest = text.partition(BEGIN)
    names = [field.name for field in fields(Row)]
    found = []
    for line in rest.partition(END)[0].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == len(names) and cells[0] != _TITLES[0] and not cells[0].startswith("---"):
            found.append(Row(**dict(zip(names, cells, strict=True))))
    return found


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """The rows of both: what was measured anew stands in its old place, and what was not measured before at the end."""
    rows = {row.place: row for row in old}
    rows.update({row.place: row for row in new})
    return list(rows.values())


def write(path: Path, rows: Iterable[Row]) -> None:
    """Put rows between the marks of a document.

    Raises:
        ValueError: it has none.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} has no {BEGIN} … {END}")
    path.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}")
