"""What SQLMesh has done, against what a run's events say: the answer of ``sqlmesh-runner reconcile``."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from sqlmesh_pipes_protocol.codec import dumps, read_report
from sqlmesh_pipes_protocol.events import Interval, Timestamp


@dataclass(frozen=True, kw_only=True)
class ModelReconciled:
    """A model's intervals in SQLMesh's state and in a run's events; all merged where they meet, in order of time."""

    model: str
    """FQN."""
    recorded: tuple[Interval, ...]
    """What SQLMesh has recorded as done since, and not taken back. Of a run: what of its batches, and nothing else."""
    reported: tuple[Interval, ...]
    """What the run's events say is done. Empty where no run is asked about."""
    missing: tuple[Interval, ...]
    """Recorded and not reported."""
    uncertain: tuple[Interval, ...]
    """Recorded, but whether since or before is no longer known: SQLMesh's janitor has compacted the record since. Not in
    ``recorded``."""
    looks_back: bool = False
    """Whether a run may fill again what is filled already (``lookback``)."""


@dataclass(frozen=True, kw_only=True)
class ReconcileReport:
    """What has been recorded in an environment since a moment, or since a run began."""

    v: str
    """Protocol version of the writer."""
    environment: str
    since: Timestamp
    """The moment, or the time at which the run began."""
    run_id: str | None
    """The run; None where only a moment was given."""
    models: tuple[ModelReconciled, ...]
    """Deployed models of which there is anything to tell, by FQN."""


def dump_reconcile_report(report: ReconcileReport) -> bytes:
    """The report as one line of JSON."""
    return dumps(report, orjson.OPT_APPEND_NEWLINE)


def read_reconcile_report(text: bytes) -> ReconcileReport:
    """Read and validate a report.

    Raises:
        DecodeError: it is no JSON, or has another shape.
        VersionMismatchError: it is of another protocol major.
    """
    return read_report(ReconcileReport, text, "reconcile report")
