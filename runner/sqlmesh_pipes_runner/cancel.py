"""Stopping a run: asked once, it ends between batches; after a grace period, or asked twice, it ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sqlmesh_pipes_runner.errors import RunInterruptedError


class Cancellation:
    """Whether the run is to stop, and why. Thread-safe.

    Args:
        grace_seconds: how long batches that run may go on after the request.
        force: called from a thread of its own when the grace period is over, or at the second request.
    """

    def __init__(self, grace_seconds: float, force: Callable[[str], None]) -> None:
        self.reason: str | None = None
        self._grace_seconds = grace_seconds
        self._force = force
        self._requested = False  # no Event: its lock must not be taken in a signal handler
        self._interruptible = 0
        self._timer: threading.Timer | None = None

    @property
    def requested(self) -> bool:
        return self._requested

    def request(self, reason: str) -> None:
        """Ask for the end; the second call forces it."""
        if self._requested:
            threading.Thread(target=self._force, args=(reason,), name="force-stop", daemon=True).start()
            return
        self.reason = reason
        self._requested = True
        self._timer = threading.Timer(self._grace_seconds, self._force, args=(reason,))
        self._timer.daemon = True
        self._timer.start()

    def check(self) -> None:
        """Raise RunInterruptedError if the run is to stop."""
        if self._requested:
            raise RunInterruptedError(self.reason)

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask for the end. Outside of `between_batches_only` they also raise in the main thread."""

        def handle(number: int, _frame: FrameType | None) -> None:
            first = not self.requested
            self.request(signal.Signals(number).name)
            if first and self._interruptible == 0:
                self.check()

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._timer is not None:
                self._timer.cancel()

    @contextmanager
    def between_batches_only(self) -> Iterator[None]:
        """While SQLMesh evaluates: a signal must not tear a batch, so nothing is raised from its handler."""
        self._interruptible += 1
        try:
            yield
        finally:
            self._interruptible -= 1

    def raise_no_more(self) -> None:
        """From here on a signal raises nothing: the end of the run is told, and must not be torn."""
        self._interruptible += 1
