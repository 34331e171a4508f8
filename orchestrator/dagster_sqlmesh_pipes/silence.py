"""Whether a runner is heard: it sends a heartbeat every 5 seconds, however long its queries take."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

WORRYING_SECONDS = 30.0
"""A silence that is worth a word: six heartbeats."""


ASLEEP_SECONDS = 5.0
"""Who listens asks several times a second: where it did not for so long, it was stopped itself, or busy."""


class Silence(Enum):
    NONE = "none"
    WORRYING = "worrying"
    """Said once a silence."""
    OVER = "over"
    """Said once, when the runner is heard again."""
    DEADLY = "deadly"
    """The runner is to be ended."""


class Listener:
    """Judges silence. A runner that has never been heard is starting, and not judged.

    Args:
        deadly_seconds: when a silent runner is to be ended; None for never.
        clock: seconds, monotonic.
    """

    def __init__(self, deadly_seconds: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._deadly = deadly_seconds
        self._worrying = min(WORRYING_SECONDS, (deadly_seconds or 2 * WORRYING_SECONDS) / 2)
        self._clock = clock
        self._heard_at: float | None = None
        self._asked_at = clock()
        self._is_worried = False

    @property
    def seconds(self) -> float:
        """For how long nothing was heard."""
        return self._clock() - self._heard_at if self._heard_at is not None else 0.0

    def heard(self) -> Silence:
        """Something came."""
        self._heard_at = self._asked_at = self._clock()
        self._is_worried, was_worried = False, self._is_worried
        return Silence.OVER if was_worried else Silence.NONE

    def excuse(self) -> None:
        """Nothing can be heard for now, and that is not the runner's doing."""
        if self._heard_at is not None:
            self._heard_at = self._clock()

    def silent(self) -> Silence:
        """Nothing came for now."""
        now = self._clock()
        asleep, self._asked_at = now - self._asked_at, now
        if self._heard_at is None:
            return Silence.NONE
        if asleep > ASLEEP_SECONDS:  # it was Dagster that did not listen
            self._heard_at += asleep
        if self._deadly is not None and self.seconds >= self._deadly:
            return Silence.DEADLY
        if self.seconds >= self._worrying and not self._is_worried:
            self._is_worried = True
            return Silence.WORRYING
        return Silence.NONE
