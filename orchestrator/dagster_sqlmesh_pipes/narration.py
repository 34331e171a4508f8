"""What of a run is worth a line in Dagster's log: each line costs about as much as a result. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from dagster_sqlmesh_pipes.endings import number
from sqlmesh_pipes_protocol.events import (
    EvaluationStarted,
    Event,
    Log,
    ModelFailed,
    RunFinished,
    RunStarted,
    UnknownEvent,
)

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def lines(event: Event | UnknownEvent) -> Iterator[tuple[int, str]]:
    """Level and text of the lines that an event is worth: one, or none."""
    match event:
        case RunStarted():
            yield (
                logging.INFO,
                f"SQLMesh {event.versions.sqlmesh} runs environment {event.environment!r}: "
                f"{event.models_selected} of {event.models_deployed} models selected.",
            )
        case EvaluationStarted():
            due = sum(bool(batches.intervals) for batches in event.batches)
            again = " (again: the environment changed)" if event.attempt > 1 else ""
            yield logging.INFO, f"{number(due, 'model')} due{again}."
        case ModelFailed():
            yield logging.ERROR, f"{event.model} failed: {event.error.message}"
        case Log() if event.level in ("warning", "error"):
            yield _LEVELS[event.level], f"{event.logger}: {event.message}"
        case RunFinished():
            counts = event.counts
            yield (
                logging.INFO,
                f"SQLMesh {event.status.replace('_', ' ')}: {counts.executed} executed, {counts.skipped} skipped, "
                f"{counts.failed} failed.",
            )
        case _:
            pass
