"""The view of a run at a terminal: lines that scroll, and below them what goes on at this moment."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sqlmesh_pipes_protocol.events import (
    Event,
    Heartbeat,
    ModelExecuted,
    ModelFailed,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    UnknownEvent,
)
from sqlmesh_pipes_runner.progress import Progress, Verbosity
from sqlmesh_pipes_runner.spelling import duration, printable

_MAX_IN_FLIGHT = 12
"""Models to show at once; a terminal has few lines."""
_PER_SECOND = 4
_SHOW_CURSOR = b"\r\n\x1b[?25h"
_STYLES = (
    (" FAILED ", "bold red"),
    (" AUDIT ", "yellow"),
    ("WARNING ", "yellow"),
    ("ERROR ", "red"),
    (" skipped ", "dim"),
)


class _OneAtATime(Console):
    """Whoever prints, or draws the view, does so alone.

    Rich decides how many lines of the view to wipe before it takes the lock to write: with two threads, lines of it stayed.
    """

    def __init__(self, stream: TextIO) -> None:
        # No markup: what models print in brackets is theirs.
        super().__init__(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._turn = threading.RLock()

    def __enter__(self) -> _OneAtATime:
        self._turn.acquire()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            self._turn.release()


class LiveProgress(Progress):
    """Prints events as lines above a live view: models in flight with their time, done of due, skipped, failed, audits.

    The view is gone when the run is over; the lines stay. Colours follow ``NO_COLOR`` and the terminal, as rich decides. What Python
    code prints meanwhile goes above the view; what a child process prints may stand in it until the next time it is drawn.

    Args:
        stream: the terminal. Its own: a model may close standard error.
    """

    def __init__(
        self, verbosity: Verbosity, *, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(verbosity, stream=stream)
        self._console = _OneAtATime(stream)
        self._terminal = stream
        self._clock = clock
        self._began = clock()
        self._in_flight: dict[str, float] = {}
        self._failed = self._skipped = 0
        self._live = Live(
            console=self._console,
            get_renderable=self._view,
            auto_refresh=False,
            transient=True,
            # Redirected to a file, it is the models' own.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        self._closed = threading.Event()
        with self._console:
            self._live.start()
        threading.Thread(target=self._draw, name="live-view", daemon=True).start()

    def show(self, event: Event | UnknownEvent) -> None:
        match event:
            case ModelStarted():
                self._in_flight[event.model] = self._clock()
            case ModelExecuted() | ModelFailed():
                self._in_flight.pop(event.model, None)
                self._failed += isinstance(event, ModelFailed)
            case ModelSkipped():
                self._skipped += 1
            case RunFinished():
                self.close()
            case Heartbeat():
                return  # the view shows it
            case _:
                pass
        super().show(event)

    def close(self) -> None:
        self._closed.set()
        with suppress(OSError, ValueError), self._console:  # the terminal may have gone
            self._live.stop()

    def abandon(self) -> None:
        def leave() -> None:
            with suppress(OSError, ValueError):
                os.write(self._terminal.fileno(), _SHOW_CURSOR)

        # A terminal that was stopped takes nothing.
        thread = threading.Thread(target=leave, daemon=True)
        thread.start()
        thread.join(0.5)

    def _draw(self) -> None:
        with suppress(OSError, ValueError):
            while not self._closed.wait(1 / _PER_SECOND):
                with self._console:  # before the view's own lock, as whoever prints takes them
                    self._live.refresh()

    def _write(self, text: str) -> None:
        style = next((style for word, style in _STYLES if word in text[:40]), "")
        self._console.print(Text(text, style=style))

    def _view(self) -> RenderableType:
        # Called by any thread: what is read here is replaced, never changed, or copied at once.
        now = self._clock()
        in_flight = list(self._in_flight.items())
        room = max(1, min(_MAX_IN_FLIGHT, self._console.height - 3))
        rows = Table.grid(padding=(0, 2))
        rows.add_column(no_wrap=True)
        rows.add_column(no_wrap=True, overflow="ellipsis")
        rows.add_column(no_wrap=True, justify="right")
        bullet = "*" if self._console.options.ascii_only else "●"
        for model, since in in_flight[:room]:
            name = printable(model.replace('"', ""))
            rows.add_row(Text(bullet, style="cyan"), Text(name), Text(_since(since, now)))
        if len(in_flight) > room:
            rows.add_row("", f"and {len(in_flight) - room} more", "")
        return Group(rows, self._counts(now))

    def _counts(self, now: float) -> RenderableType:
        counts = Text.assemble(
            f"{self._over}/{self._due} models" if self._due else "starting",
            "  ",
            (f"{self._failed} failed", "bold red" if self._failed else "dim"),
            "  ",
            (f"{self._skipped} skipped", "dim"),
            "  ",
            (
                f"audits: {self._audit_totals['passed']} passed, {self._audit_totals['failed']} failed",
                "yellow" if self._audit_totals["failed"] else "dim",
            ),
            "  ",
            _since(self._began, now),
        )
        room = self._console.width - len(counts.plain) - 2
        if room < 5:  # a bar of fewer cells says nothing
            return Text(counts.plain, no_wrap=True, overflow="ellipsis")
        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(self._due, 1), completed=self._over, width=min(room, 30))
        line.add_row(bar, counts)
        return line


def _since(began: float, now: float) -> str:
    return duration(round((now - began) * 1000))
