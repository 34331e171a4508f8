"""The records of decisions, in order."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "adr"


def records() -> list[Path]:
    """The records' files, by number."""
    return sorted(FOLDER.glob("[0-9]*.md"))


def title(path: Path) -> str:
    """A record's title: its first line, a heading."""
    return path.read_text("utf-8").partition("\n")[0].removeprefix("# ").strip()


def decision_list() -> str:
    """A line for each."""
    return "\n".join(f"- [{title(path)}]({path.name})" for path in records())


PARTS = {"list": decision_list}
