"""The view of a run at a terminal: lines that scroll, and below them what goes on at this moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    Event,
    ModelExecuted,
    ModelFailed,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    UnknownEvent,
)
from sqlmesh_pipes_runner.progress import Progress, Verbosity
from sqlmesh_pipes_runner.spelling import duration

_MAX_IN_FLIGHT = 12
"""Models to show at once; a terminal has few lines."""
_PER_SECOND = 4
_STYLES = (
    (" FAILED ", "bold red"),
    (" AUDIT ", "yellow"),
    ("WARNING ", "yellow"),
    ("ERROR ", "red"),
    (" skipped ", "dim"),
)


class LiveProgress(Progress):
    """Prints events as lines above a live view: models in flight with their time, done of due, skipped, failed, audits.

    The view is gone when the run is over; the lines stay. Colours follow ``NO_COLOR`` and the terminal, as rich decides.
    """

    def __init__(
        self, verbosity: Verbosity, *, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(verbosity, stream=stream)
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._clock = clock
        self._began = clock()
        self._in_flight: dict[str, float] = {}
        self._failed = self._skipped = self._audits_passed = self._audits_failed = 0
        self._live = Live(
            console=self._console, get_renderable=self._view, refresh_per_second=_PER_SECOND, transient=True
        )
        self._live.start()

    def show(self, event: Event | UnknownEvent) -> None:
        match event:
            case ModelStarted():
                self._in_flight[event.model] = self._clock()
            case ModelExecuted() | ModelFailed():
                self._in_flight.pop(event.model, None)
                self._failed += isinstance(event, ModelFailed)
            case ModelSkipped():
                self._skipped += 1
            case AuditEvaluated() if not event.skipped:
                self._audits_passed += event.passed
                self._audits_failed += not event.passed
            case RunFinished():
                self._live.stop()
            case _:
                pass
        super().show(event)

    def _write(self, text: str) -> None:
        style = next((style for word, style in _STYLES if word in text[:40]), "")
        self._console.print(Text(text, style=style))

    def _view(self) -> RenderableType:
        # Called by rich's thread: what is read here is replaced, never changed, or copied at once.
        rows = Table.grid(padding=(0, 2))
        now = self._clock()
        in_flight = list(self._in_flight.items())
        for model, since in in_flight[:_MAX_IN_FLIGHT]:
            rows.add_row(
                Text("●", style="cyan"), model.replace('"', ""), duration(round((now - since) * 1000))
            )
        more = len(in_flight) - _MAX_IN_FLIGHT
        if more > 0:
            rows.add_row("", f"and {more} more", "")
        done = Table.grid(padding=(0, 2))
        done.add_row(
            ProgressBar(total=max(self._due, 1), completed=self._over, width=30),
            f"{self._over}/{self._due} models",
            Text(f"{self._failed} failed", style="bold red" if self._failed else "dim"),
            Text(f"{self._skipped} skipped", style="dim"),
            Text(
                f"audits: {self._audits_passed} passed, {self._audits_failed} failed",
                style="yellow" if self._audits_failed else "dim",
            ),
            duration(round((now - self._began) * 1000)),
        )
        return Group(rows, done)
