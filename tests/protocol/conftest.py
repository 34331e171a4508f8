"""What the protocol's tests share: golden files, and strategies for anything that a declaration can hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from sqlmesh_pipes_protocol.events import Event
from support.anything import TIMES, strategy

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def any_of() -> Callable[[Any], SearchStrategy[Any]]:
    """The strategy builder: ``data.draw(any_of(Manifest))``."""
    return strategy


@pytest.fixture(scope="session")
def any_event() -> SearchStrategy[Any]:
    """Any event, each kind alike."""
    return st.one_of(*(strategy(event) for event in get_args(Event)))


@pytest.fixture(scope="session")
def any_time() -> SearchStrategy[Any]:
    return TIMES


@pytest.fixture(scope="session")
def golden() -> Callable[[str, Callable[[], bytes]], bytes]:
    """The content of a golden file; ``UPDATE_GOLDEN=1`` writes it anew, which has to be asked for."""

    def content(name: str, current: Callable[[], bytes]) -> bytes:
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN") == "1":
            path.write_bytes(current())
        return path.read_bytes()

    return content


@pytest.fixture(scope="session")
def golden_lines() -> list[bytes]:
    """The lines of the golden event stream, without their breaks."""
    return (GOLDEN / "events-1.jsonl").read_bytes().splitlines()
