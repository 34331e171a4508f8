"""Any value that a declaration of the protocol admits, derived from its type hints."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from datetime import timezone
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from sqlmesh_pipes_protocol.codec import timestamp
from sqlmesh_pipes_protocol.events import Timestamp

TIMES = st.one_of(
    st.datetimes(timezones=st.just(timezone.utc)).map(timestamp),
    st.sampled_from(["2026-01-31T06:30:00Z", "2026-01-31T06:30:00.5Z", "2024-02-29T23:59:59.123Z"]),
)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(['"db"."schema"."model"', "a\nb\r\nc", "\0", '\\"', "😀 é", "\u2028", "{", "}"]),
)


def strategy(declaration: Any, texts: SearchStrategy[str] = TEXTS) -> SearchStrategy[Any]:
    """Any value of a declaration.

    Args:
        declaration: a type as `sqlmesh_pipes_protocol.shapes` lists them.
        texts: what its strings may be.
    """
    if dataclasses.is_dataclass(declaration):
        hints = get_type_hints(declaration)
        fields = {field.name: strategy(hints[field.name], texts) for field in dataclasses.fields(declaration)}
        return st.builds(declaration, **fields)
    if declaration is Timestamp:
        return TIMES
    if declaration is str:
        return texts
    if declaration is bool:
        return st.booleans()
    if declaration is int:
        return st.integers(min_value=-(2**63), max_value=2**63 - 1)
    origin, arguments = get_origin(declaration), get_args(declaration)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of(
            *(st.none() if argument is type(None) else strategy(argument, texts) for argument in arguments)
        )
    if origin is tuple:
        return st.lists(strategy(arguments[0], texts), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(strategy(arguments[0], texts), strategy(arguments[1], texts), max_size=3)
    raise TypeError(f"no strategy for {declaration!r}")
