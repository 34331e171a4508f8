"""Dagster's interrupts: it raises in the main thread, wherever that is, what it receives as a signal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back interrupts for a moment, in which something must not be torn; they are handled at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    with _blocked():
        before = {
            number: signal.signal(number, lambda number, frame: held.append((number, frame)))
            for number in _SIGNALS
        }
    try:
        yield
    finally:
        with _blocked():
            for number, handler in before.items():
                signal.signal(number, handler)
        for held_number, frame in held[:1]:
            held_handler = before[signal.Signals(held_number)]
            if callable(held_handler):
                held_handler(held_number, frame)
            elif held_handler is signal.SIG_DFL:
                signal.raise_signal(held_number)


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    """No signal comes while handlers are exchanged, or one of them would stay."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
