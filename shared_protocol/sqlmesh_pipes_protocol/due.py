"""What a run would do now, told without running: the answer of ``sqlmesh-runner due``."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from sqlmesh_pipes_protocol.codec import dumps, read_report
from sqlmesh_pipes_protocol.events import Interval, Timestamp


@dataclass(frozen=True, kw_only=True)
class ModelDue:
    """Whether a run would evaluate a model now.

    Signals are not asked: a model that waits for one is due.
    """

    model: str
    """FQN."""
    intervals: tuple[Interval, ...]
    """What is missing and would be filled, merged where intervals meet. Empty: not due."""
    next_due: Timestamp | None
    """When its cron next elapses, due now or not. None where it has had its last turn: a seed, a model past its end."""


@dataclass(frozen=True, kw_only=True)
class DueReport:
    """What is due in an environment."""

    v: str
    """Protocol version of the writer."""
    environment: str
    execution_time: Timestamp
    """What counted as now."""
    models: tuple[ModelDue, ...]
    """Every deployed model that SQLMesh evaluates, or those of them that were selected, in topological order."""


def dump_due_report(report: DueReport) -> bytes:
    """The report as one line of JSON."""
    return dumps(report, orjson.OPT_APPEND_NEWLINE)


def read_due_report(text: bytes) -> DueReport:
    """Read and validate a report.

    Raises:
        DecodeError: it is no JSON, or has another shape.
        VersionMismatchError: it is of another protocol major.
    """
    return read_report(DueReport, text, "due report")
