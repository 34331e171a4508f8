"""docs/troubleshooting.md quotes messages as the source has them: what does not change of each stands in a text of the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
SOURCES = ("orchestrator", "runner", "shared_protocol")
CHANGING = "…"


def quoted() -> list[str]:
    """The code spans of the tables' first columns that are sentences, or parts of one."""
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| ")]
    return [span for cell in cells for span in re.findall(r"`([^`]+)`", cell) if " " in span.strip()]


def _texts(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield from (str(part.value) for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.split(r"\{\w+[^}]*\}", node.value)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]
    return [" ".join(text.split()) for path in files for text in _texts(path.read_text())]


def test_the_page_quotes_messages_of_every_kind() -> None:
    assert len(quoted()) > 60


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_one_of_the_source(message: str, texts: list[str]) -> None:
    parts = [part.strip(" .:;,()'`\"") for part in message.split(CHANGING)]
    fixed = [part for part in parts if part]

    assert [part for part in fixed if not any(part in text for text in texts)] == []
    assert any(len(part) >= 8 for part in fixed)
