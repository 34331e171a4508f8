"""Intervals in metadata: as people read them, and read back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import dagster as dg

from sqlmesh_pipes_protocol.events import Interval, Timestamp
from sqlmesh_pipes_protocol.spans import Span, epoch_ms

_MAX_LISTED = 20
_AN_INTERVAL = re.compile(r"(\d{4}-\d\d-\d\d\S*) to (\d{4}-\d\d-\d\d[^,\s]*)")


def spelled_intervals(intervals: Iterable[Interval]) -> str:
    """Each interval once, the first ones only where there are many; midnights as dates: ``2026-01-01 to 2026-01-31``."""
    return listed(list(dict.fromkeys(f"{_short(each.start)} to {_short(each.end)}" for each in intervals)))


def listed(names: Sequence[str]) -> str:
    """The first ones, and how many more there are."""
    more = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def spans_in(materialization: dg.AssetMaterialization) -> list[Span]:
    """The intervals that a materialization of ours names; none of those that it only counts."""
    value = materialization.metadata.get("intervals")
    text = str(value.value) if value is not None else ""
    return [(epoch_ms(_long(start)), epoch_ms(_long(end))) for start, end in _AN_INTERVAL.findall(text)]


def _short(time: Timestamp) -> str:
    return time.removesuffix("T00:00:00Z")


def _long(time: str) -> Timestamp:
    return Timestamp(time if "T" in time else f"{time}T00:00:00Z")
