"""What the protocol's tests share: golden files, and a strategy for anything that a declaration can hold."""

from __future__ import annotations

import dataclasses
import os
import types
from collections.abc import Callable, Mapping
from datetime import timezone
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from sqlmesh_pipes_protocol.codec import timestamp
from sqlmesh_pipes_protocol.events import Event, Timestamp

GOLDEN = Path(__file__).parent / "golden"

TIMES = st.one_of(
    st.datetimes(timezones=st.just(timezone.utc)).map(timestamp),
    st.sampled_from(["2026-01-31T06:30:00Z", "2026-01-31T06:30:00.5Z", "2024-02-29T23:59:59.123Z"]),
)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(['"db"."schema"."model"', "a\nb\r\nc", "\0", '\\"', "😀 é", "\u2028", "{", "}"]),
)


def strategy(declaration: Any) -> SearchStrategy[Any]:
    """Any value that a declaration of the protocol admits, derived from its type hints."""
    if dataclasses.is_dataclass(declaration):
        hints = get_type_hints(declaration)
        fields = {field.name: strategy(hints[field.name]) for field in dataclasses.fields(declaration)}
        return st.builds(declaration, **fields)
    if declaration is Timestamp:
        return TIMES
    if declaration is str:
        return TEXTS
    if declaration is bool:
        return st.booleans()
    if declaration is int:
        return st.integers(min_value=-(2**63), max_value=2**63 - 1)
    origin, arguments = get_origin(declaration), get_args(declaration)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of(
            *(st.none() if argument is type(None) else strategy(argument) for argument in arguments)
        )
    if origin is tuple:
        return st.lists(strategy(arguments[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(strategy(arguments[0]), strategy(arguments[1]), max_size=3)
    raise TypeError(f"no strategy for {declaration!r}")


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
