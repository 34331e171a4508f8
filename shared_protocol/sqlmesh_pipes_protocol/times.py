"""What a time looks like on the wire."""

from __future__ import annotations

import re
from datetime import date

TIMESTAMP_PATTERN = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?Z$"
)
_ANY_TIMESTAMP = re.compile(TIMESTAMP_PATTERN)
ORDINARY_TIMESTAMP = re.compile(
    r"(?!0000)[0-9]{4}-"
    r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z"
)
"""What no calendar has is none. The 29th of February is looked at by itself: with it in the pattern, all others would cost more."""


def is_timestamp(text: str) -> bool:
    """Whether it is a `Timestamp` that the calendar has."""
    return ORDINARY_TIMESTAMP.fullmatch(text) is not None or _is_leap_day(text)


def _is_leap_day(text: str) -> bool:
    try:
        day = date.fromisoformat(text[:10])
    except ValueError:
        return False
    return (day.month, day.day) == (2, 29) and _ANY_TIMESTAMP.fullmatch(text) is not None
