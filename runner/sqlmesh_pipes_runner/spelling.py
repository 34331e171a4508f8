"""How numbers, times and endings are spelled for people: the same in the terminal and in reports."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlmesh_pipes_protocol.events import Interval

ENDINGS = {
    "success": "Finished",
    "nothing_to_do": "Nothing to do",
    "failed": "FAILED",
    "interrupted": "INTERRUPTED",
    "error": "ERROR",
    "died": "DIED",
}


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    """The text without what a terminal would obey: control characters are spelled out, line breaks and tabs left."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text.replace("\r\n", "\n"))


def counted(value: int, singular: str, plural: str | None = None) -> str:
    return f"{value:,} {singular if value == 1 else plural or singular + 's'}"


def duration(ms: int | None) -> str:
    if ms is None:
        return ""
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def span(interval: Interval) -> str:
    return f"{interval.start.removesuffix('T00:00:00Z')} to {interval.end.removesuffix('T00:00:00Z')}"


def spans(intervals: Iterable[Interval]) -> str:
    return ", ".join(span(interval) for interval in intervals)


def first_line(text: str, limit: int = 300) -> str:
    return text.strip().partition("\n")[0][:limit].strip()
