"""The project's Markdown files, and their blocks of code."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docs.generate.links import DOCS, ROOT

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*)")


class Block(NamedTuple):
    """A block of code, and where it begins."""

    place: str
    language: str
    text: str

    def __str__(self) -> str:
        return self.place


def markdown_files() -> list[Path]:
    """All that people read: in docs/, beside code, and in the root."""
    folders = ("docs", "docker", "examples", "benchmarks", ".github")
    return sorted([*ROOT.glob("*.md"), *(path for name in folders for path in (ROOT / name).rglob("*.md"))])


def pages() -> list[Path]:
    return [path for path in markdown_files() if path.is_relative_to(DOCS)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(*languages: str) -> list[Block]:
    """The blocks of some languages in all files."""
    return [block for path in markdown_files() for block in _blocks(path) if block.language in languages]


def _blocks(path: Path) -> Iterator[Block]:
    opened: re.Match[str] | None = None
    begin = 0
    lines: list[str] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        match = _FENCE.match(line)
        if opened is None and match:
            opened, begin, lines = match, number, []
        elif opened is not None and line.strip() == opened["fence"]:
            yield Block(
                f"{name_of(path)}:{begin}", opened["language"], textwrap.dedent("\n".join(lines)) + "\n"
            )
            opened = None
        elif opened is not None:
            lines.append(line)
    assert opened is None, f"{name_of(path)}:{begin}: a block of code has no end"
