"""Arithmetic of intervals: as pairs of milliseconds, which is what SQLMesh's state has, and as the protocol writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from functools import lru_cache

from sqlmesh_pipes_protocol.codec import timestamp
from sqlmesh_pipes_protocol.events import Interval, Timestamp

Span = tuple[int, int]
"""An interval in milliseconds since the epoch, end excluded."""
_TIMES_KEPT = 2048
"""The ends of a run's intervals come again with each batch, and are few."""


def moment(epoch_ms: int) -> Timestamp:
    """Milliseconds since the epoch as the protocol writes a time."""
    text = timestamp(datetime.fromtimestamp(epoch_ms / 1000, timezone.utc))
    return Timestamp(text.replace(".000000Z", "Z"))


@lru_cache(_TIMES_KEPT)
def epoch_ms(time: Timestamp) -> int:
    """A time of the protocol in milliseconds since the epoch. Rounded down: SQLMesh's own times have no more."""
    whole, _, fraction = time.removesuffix("Z").partition(".")
    return round(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1000 + int(
        fraction.ljust(3, "0")[:3]
    )


def interval(span: Span) -> Interval:
    return Interval(start=moment(span[0]), end=moment(span[1]))


def span_of(interval: Interval) -> Span:
    return epoch_ms(interval.start), epoch_ms(interval.end)


def merged(spans: Iterable[Span]) -> tuple[Interval, ...]:
    """The spans as few intervals as possible, in order of time."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return tuple(map(interval, result))


def without(spans: Iterable[Span], taken: Iterable[Span]) -> Iterator[Span]:
    """What of the spans lies in none of those that are taken away."""
    away = sorted(taken)
    for start, end in spans:
        for taken_start, taken_end in away:
            if start < taken_start < end:
                yield start, taken_start
            if taken_start < end and start < taken_end:
                start = taken_end
            if start >= end:
                break
        if start < end:
            yield start, end


def within(spans: Iterable[Span], others: Iterable[Span]) -> Iterator[Span]:
    """What of the spans lies in one of the others."""
    others = list(others)
    for start, end in spans:
        for other_start, other_end in others:
            if max(start, other_start) < min(end, other_end):
                yield max(start, other_start), min(end, other_end)
