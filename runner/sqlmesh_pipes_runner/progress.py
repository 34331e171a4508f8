"""What people read on stderr while a run goes on: one line for what matters, and a closing summary."""

from __future__ import annotations

import select
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import IntEnum
from typing import TextIO

from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    BatchFinished,
    EvaluationStarted,
    Event,
    Heartbeat,
    Log,
    ModelExecuted,
    ModelFailed,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunStarted,
    UnknownEvent,
)
from sqlmesh_pipes_runner.spelling import ENDINGS, counted, duration, first_line, printable, span

_WORST_FIRST = ("failed", "passed", "skipped")
_PIECE = select.PIPE_BUF // 4
"""Characters that a pipe takes at once if it takes any."""


class Verbosity(IntEnum):
    QUIET = -1
    """Failures and the summary."""
    NORMAL = 0
    """Models, failing audits and warnings as well."""
    VERBOSE = 1
    """Batches, audits that pass, heartbeats and what SQLMesh says as well."""


class Progress:
    """Prints events as lines. Not thread-safe: the recorder calls it one event at a time.

    Args:
        verbosity: what to show.
        stream: where to; standard error by default.
        waits: whether the run stands still while nobody reads. If not, lines are left out then: who has the events misses nothing.
        now: the time.
    """

    def __init__(
        self,
        verbosity: Verbosity,
        *,
        stream: TextIO | None = None,
        waits: bool = True,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self._verbosity = verbosity
        self._stream = stream
        self._waits = waits
        self._is_torn = False
        self._now = now
        self._is_heard = True
        self._due = 0
        self._over = 0
        self._audits: dict[str, dict[str, str]] = {}  # the worst outcome over all batches
        self._audit_totals: Counter[str] = Counter()
        self._slowest: list[tuple[int, str]] = []
        self._failures: list[ModelFailed] = []
        self._skips: Counter[str] = Counter()

    def show(self, event: Event | UnknownEvent) -> None:
        """Print what the event tells a person, if anything."""
        match event:
            case RunStarted():
                self._show_start(event)
            case EvaluationStarted():
                due = [batches for batches in event.batches if batches.intervals]
                self._due = self._over + len(due)
                if event.attempt > 1:
                    self._line("The environment changed: SQLMesh starts the evaluation again.")
                total = sum(len(batches.intervals) for batches in due)
                self._line(f"{counted(len(due), 'model')} due, {counted(total, 'batch', 'batches')}.")
            case ModelStarted():
                self._line(f"{self._place(1)} started   {event.model}")
            case BatchFinished():
                if event.total > 1:
                    self._line(
                        f"{'':10} batch {event.index + 1}/{event.total} of {event.model}, "
                        f"{span(event.interval)}, {duration(event.duration_ms)}",
                        Verbosity.VERBOSE,
                    )
            case AuditEvaluated():
                self._show_audit(event)
            case ModelExecuted():
                self._over += 1
                self._slowest.append((event.duration_ms, event.model))
                rows = "" if event.rows is None else f", {counted(event.rows, 'row')}"
                batches = f", {event.batches} batches" if event.batches > 1 else ""
                self._line(
                    f"{self._place()} executed  {event.model} in {duration(event.duration_ms)}"
                    f"{batches}{rows}{self._audit_counts(event.model)}"
                )
            case ModelFailed():
                self._over += 1
                self._failures.append(event)
                self._line(
                    f"{self._place()} FAILED    {event.model}: {first_line(event.error.message)}",
                    Verbosity.QUIET,
                )
            case ModelSkipped():
                self._skips[event.reason] += 1
                if event.reason in ("upstream_failed", "signal_not_ready", "interrupted", "not_deployed"):
                    self._line(f"{'':10} skipped   {event.model}: {event.detail}")
                else:
                    self._line(f"{'':10} skipped   {event.model}: {event.detail}", Verbosity.VERBOSE)
            case Log():
                needed = Verbosity.NORMAL if event.level in ("warning", "error") else Verbosity.VERBOSE
                self._line(f"{event.level.upper()} {event.message}", needed)
            case Heartbeat():
                for model in event.models:
                    self._line(
                        f"{'':10} running   {model.model} since {duration(model.elapsed_ms)}",
                        Verbosity.VERBOSE,
                    )
            case RunFinished():
                self._show_end(event)

    def close(self) -> None:
        """Nothing more is shown. May be called again."""

    def abandon(self) -> None:
        """The process ends at once: leave the terminal as it was, and wait for nobody."""

    def _show_start(self, event: RunStarted) -> None:
        gateway = f" on gateway {event.gateway!r}" if event.gateway else ""
        self._line(
            f"SQLMesh {event.versions.sqlmesh} runs environment {event.environment!r}{gateway}: "
            f"{event.models_selected} of {counted(event.models_deployed, 'model')} selected."
        )

    def _show_audit(self, event: AuditEvaluated) -> None:
        outcome = "skipped" if event.skipped else "passed" if event.passed else "failed"
        audits = self._audits.setdefault(event.model, {})
        before = audits.get(event.audit)
        if before is None or _WORST_FIRST.index(outcome) < _WORST_FIRST.index(before):
            audits[event.audit] = outcome
            self._audit_totals[outcome] += 1
            if before is not None:
                self._audit_totals[before] -= 1
        if outcome == "passed":
            self._line(f"{'':10} audit     {event.audit} of {event.model} passed", Verbosity.VERBOSE)
        elif outcome == "failed":
            severity = "blocking" if event.blocking else "not blocking"
            self._line(
                f"{'':10} AUDIT     {event.audit} of {event.model} failed: "
                f"{counted(event.failing_rows or 0, 'row')}, {severity}"
            )

    def _show_end(self, event: RunFinished) -> None:
        counts = event.counts
        audits = counts.audits_passed + counts.audits_failed
        self._line(
            f"{ENDINGS[event.status]} in {duration(event.duration_ms)}: {counts.executed} executed, "
            f"{counts.skipped} skipped, {counts.failed} failed; {counted(audits, 'audit')}, "
            f"{counts.audits_failed} failed.",
            Verbosity.QUIET,
        )
        if event.error is not None:
            self._line(event.error.message, Verbosity.QUIET)
        for failure in self._failures:
            error = failure.error
            self._line(
                f"  failed  {failure.model}: [{error.category}] {first_line(error.message)}", Verbosity.QUIET
            )
        for reason, number in sorted(self._skips.items()):
            self._line(f"  skipped {counted(number, 'model')}: {reason.replace('_', ' ')}")
        slowest = sorted(self._slowest, reverse=True)[:3]
        if len(self._slowest) > 1:
            listed = ", ".join(f"{model} {duration(ms)}" for ms, model in slowest)
            self._line(f"  slowest {listed}")

    def _place(self, ahead: int = 0) -> str:
        return f"[{min(self._over + ahead, max(self._due, 1)):>3}/{self._due}]".ljust(10)

    def _audit_counts(self, model: str) -> str:
        counts = Counter(self._audits.get(model, {}).values())
        if not counts:
            return ""
        return "; audits: " + ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))

    def _line(self, text: str, needed: Verbosity = Verbosity.NORMAL) -> None:
        if self._verbosity < needed or not self._is_heard:
            return
        try:
            # No line of a text begins as a line of its own: CI systems take commands from lines such as `::error::`.
            lines = printable(text).replace("\n", "\n         | ")
            self._write(f"{self._now():%H:%M:%S} {lines}")
        except (
            OSError,
            ValueError,
            AttributeError,
        ):  # a stream that is broken, closed by a model, or was never there
            self._is_heard = False

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stderr
        line = f"\n{text}\n" if self._is_torn else f"{text}\n"
        size = len(line) if self._waits else _PIECE
        for begin in range(0, len(line), size):
            if not self._waits and not _is_ready(stream):
                self._is_torn = self._is_torn or begin > 0
                return
            stream.write(line[begin : begin + size])  # at once: events may go to the same terminal
            stream.flush()
        self._is_torn = False


def _is_ready(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return bool(poll.poll(0))


def is_terminal(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that can show more than lines, and a person sits there."""
    in_ci = environ.get("CI", "").lower() not in ("", "0", "false")
    return (
        stream is not None
        and stream.isatty()
        and not in_ci
        and environ.get("TERM", "dumb") not in ("", "dumb")
    )
