"""What of a run is worth a line in Dagster's log: each line costs about as much as a result. Pure."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from dagster_sqlmesh_pipes.translator import readable
from sqlmesh_pipes_protocol.events import (
    EvaluationStarted,
    Event,
    Log,
    ModelFailed,
    RunFinished,
    RunStarted,
    UnknownEvent,
)

_TOLD = {"warning": logging.WARNING, "error": logging.ERROR}
_AUDIT_QUERY = re.compile(r"(?<=failed\.) Audit query:.*\Z", re.DOTALL)
"""What SQLMesh adds to its warning of an audit that does not block: the audit's check has it."""
_ENDINGS = {
    "success": "SQLMesh run succeeded",
    "nothing_to_do": "SQLMesh had nothing to do",
    "failed": "SQLMesh run failed",
    "interrupted": "SQLMesh run was interrupted",
    "error": "SQLMesh run broke off",
}


def lines(event: Event | UnknownEvent) -> Iterator[tuple[int, str]]:
    """Level and text of the lines that an event is worth: one, or none."""
    match event:
        case RunStarted():
            yield (
                logging.INFO,
                f"SQLMesh {event.versions.sqlmesh} runs environment {event.environment}: "
                f"{event.models_selected} of {event.models_deployed} models selected.",
            )
        case EvaluationStarted() if event.attempt > 1:
            yield logging.INFO, "SQLMesh starts the evaluation again: the environment changed."
        case ModelFailed() if event.error.category == "audit" and event.failed_audits:
            yield (
                logging.ERROR,
                f"{readable(event.model)} failed its audits: {', '.join(event.failed_audits)}.",
            )
        case ModelFailed():
            yield logging.ERROR, f"{readable(event.model)} failed: {event.error.message}"
        case Log() if event.level in _TOLD:
            yield _TOLD[event.level], f"{event.logger}: {_AUDIT_QUERY.sub('', event.message)}"
        case RunFinished():
            counts = event.counts
            yield (
                logging.INFO,
                f"{_ENDINGS[event.status]}: {counts.executed} executed, {counts.skipped} skipped, "
                f"{counts.failed} failed.",
            )
        case _:
            pass
