"""The events of the protocol: the one place where they are declared.

An event is a frozen dataclass; its fields are the keys of its JSON object. The codec, the JSON Schema and the
reference documentation derive from these declarations and from the union `Event` at the end of the file. On the wire
each event also carries the envelope's keys (`sqlmesh_pipes_protocol.codec.Envelope`): kind, v, run_id, seq, at.

Conventions. Models are named by SQLMesh's fully qualified name, verbatim, catalog included (``"db"."schema"."model"``).
Times are UTC in RFC 3339. Intervals are half-open. Durations are integers in milliseconds. ``rows`` and ``bytes`` are
what the engine reported as processed, None where it reports nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NewType, TypeAlias

Timestamp = NewType("Timestamp", str)
"""UTC, RFC 3339, ending in Z: ``2026-01-31T06:30:00Z``, with up to six decimals of a second."""

SkipReason = Literal[
    "up_to_date",
    "cron_not_due",
    "upstream_failed",
    "signal_not_ready",
    "not_deployed",
    "interrupted",
    "not_runnable",
]
"""Why a model did not run.

- ``up_to_date``: nothing is missing.
- ``cron_not_due``: its cron has not elapsed since its last interval.
- ``upstream_failed``: a model that it reads failed, at any depth.
- ``signal_not_ready``: a signal holds it back, or a model that it reads.
- ``not_deployed``: the environment does not have it.
- ``interrupted``: the run was stopped, or broke off, before its turn.
- ``not_runnable``: SQLMesh never evaluates it: an external or an embedded model.
"""
FailureCategory = Literal[
    "audit",
    "sql",
    "python",
    "connection",
    "lock",
    "timeout",
    "resource",
    "cancelled",
    "config",
    "internal",
]
"""What kind of failure it is.

- ``audit``: a blocking audit found rows.
- ``sql``: the engine refuses the query, or the query fails on its data.
- ``python``: the project's own code raised: a Python model, a macro, a signal.
- ``connection``: warehouse or state cannot be reached, or refuse the login.
- ``lock``: a transaction, a process or a run has what is needed.
- ``timeout``: something took longer than it was allowed to.
- ``resource``: memory, disk, a quota or a limit of the engine is exhausted.
- ``cancelled``: the query or the run was stopped.
- ``config``: project, environment or request do not fit: nothing changes until somebody changes them.
- ``internal``: a fault of the engine, of SQLMesh or of the runner.
"""
RunStatus = Literal["success", "nothing_to_do", "failed", "interrupted", "error"]
"""How a run ended.

- ``success``: at least one model ran, and none failed.
- ``nothing_to_do``: no model ran, and none failed.
- ``failed``: a model failed, or a standalone audit could not be evaluated.
- ``interrupted``: it was stopped.
- ``error``: there was no run, or it broke off: ``error`` says why.
"""
ModelStatus = Literal["executed", "failed", "skipped"]
"""What became of a model: the terminal event that it had."""
LogLevel = Literal["debug", "info", "warning", "error"]
"""Python's levels; critical counts as error."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A stretch of time that a model fills."""

    start: Timestamp
    """Included."""
    end: Timestamp
    """Excluded."""


@dataclass(frozen=True, kw_only=True)
class Versions:
    """What runs, for the reader who has to explain a difference."""

    runner: str
    """Version of the distribution dagster-sqlmesh-pipes that the runner comes from."""
    sqlmesh: str
    python: str


@dataclass(frozen=True, kw_only=True)
class ErrorInfo:
    """Why a model, or the whole run, failed."""

    error_class: str
    """Qualified name of the exception's class, such as ``duckdb.ParserException``."""
    message: str
    """What the error says, secrets masked."""
    category: FailureCategory
    transient: bool
    """Whether trying again, with nothing changed, can help."""
    traceback: str | None = None
    """Formatted, secrets masked. None where nothing was raised."""


@dataclass(frozen=True, kw_only=True)
class ModelBatches:
    """One model's share of the work that is due."""

    model: str
    intervals: tuple[Interval, ...]
    """One a batch, in SQLMesh's order. Empty where a signal holds everything back."""


@dataclass(frozen=True, kw_only=True)
class ModelInFlight:
    """A model that is being evaluated at this moment."""

    model: str
    elapsed_ms: int


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where a model's data is, and which data it is."""

    kind: str
    """SQLMesh's name of the model's kind: FULL, VIEW, INCREMENTAL_BY_TIME_RANGE …"""
    snapshot_id: str
    """Fingerprint of the model's definition as deployed."""
    version: str
    """SQLMesh's version of the data: models that differ in metadata alone share it."""
    physical_table: str
    view: str
    """What readers in the environment query."""
    data_version: str
    """Changes when the version or the intervals that are filled change."""


@dataclass(frozen=True, kw_only=True)
class AuditOutcome:
    """The last result of one audit in this run; failed in any batch is failed."""

    audit: str
    """Identity, see `sqlmesh_pipes_protocol.audits`."""
    skipped: bool
    """In every batch."""
    passed: bool
    blocking: bool
    failing_rows: int | None = None
    """Over all batches. None where skipped."""

    @classmethod
    def of(cls, audit: str, evaluations: Collection[AuditEvaluated]) -> AuditOutcome:
        """What its evaluations on a model's batches come to."""
        ran = [evaluation for evaluation in evaluations if not evaluation.skipped]
        return cls(
            audit=audit,
            skipped=not ran,
            passed=bool(ran) and all(evaluation.passed for evaluation in ran),
            blocking=any(evaluation.blocking for evaluation in evaluations),
            failing_rows=sum(evaluation.failing_rows or 0 for evaluation in ran) if ran else None,
        )

    def as_evaluation(self, model: str) -> AuditEvaluated:
        """The outcome as the event that told it and was lost: without arguments, query and interval."""
        return AuditEvaluated(
            model=model,
            audit=self.audit,
            name=self.audit,
            arguments={},
            blocking=self.blocking,
            skipped=self.skipped,
            passed=self.passed,
            failing_rows=self.failing_rows,
            query=None,
            dialect=None,
            interval=None,
        )


@dataclass(frozen=True, kw_only=True)
class ModelOutcome:
    """One model's line in the digest: enough to rebuild a terminal event that was lost on the way."""

    model: str
    status: ModelStatus
    intervals: tuple[Interval, ...] = ()
    """What SQLMesh has recorded as done in this run, merged."""
    audits: tuple[AuditOutcome, ...] = ()
    reason: SkipReason | None = None
    """For skipped models."""
    error: ErrorInfo | None = None
    """For failed models; without the traceback."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Totals over the selected models and the audits that were evaluated."""

    selected: int
    executed: int
    failed: int
    skipped: int
    audits_passed: int
    audits_failed: int
    audits_skipped: int


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """The runner has read what is deployed and begins."""

    kind: ClassVar[str] = "run_started"

    environment: str
    gateway: str | None
    """None for the project's default."""
    versions: Versions
    selection: tuple[str, ...] | None
    """Selection expressions as the caller gave them; None for everything."""
    models_deployed: int
    """Models in the environment, external ones not counted."""
    models_selected: int
    """Models that will each get one terminal event."""
    start: str | None
    """As the caller gave it; None where SQLMesh decides. The same for end and execution_time."""
    end: str | None
    execution_time: str | None
    ignore_cron: bool
    """Whether all that is missing is due, whatever the crons say."""
    correlation_id: str | None = None
    """What SQLMesh marks the run's queries with in the warehouse."""


@dataclass(frozen=True, kw_only=True)
class EvaluationStarted:
    """All that is due, before the first batch; comes again if SQLMesh restarts the run."""

    kind: ClassVar[str] = "evaluation_started"

    attempt: int
    """1, and one more for each restart."""
    batches: tuple[ModelBatches, ...]
    """One entry for each model that has something due."""


@dataclass(frozen=True, kw_only=True)
class ModelStarted:
    """A model's first batch begins. Once a model."""

    kind: ClassVar[str] = "model_started"

    model: str
    batches: int
    """How many it has to do."""


@dataclass(frozen=True, kw_only=True)
class BatchFinished:
    """SQLMesh has recorded an interval of a model as done."""

    kind: ClassVar[str] = "batch_finished"

    model: str
    interval: Interval
    index: int
    """Counts from 0."""
    total: int
    """How many the model has to do."""
    duration_ms: int
    rows: int | None = None
    bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class AuditEvaluated:
    """SQLMesh has evaluated (or skipped) one audit on one interval."""

    kind: ClassVar[str] = "audit_evaluated"

    model: str
    """The model; for a standalone audit the audit's own name."""
    audit: str
    """Identity, stable between manifest and run, see `sqlmesh_pipes_protocol.audits`."""
    name: str
    arguments: Mapping[str, str]
    """As SQL, in the model's dialect."""
    blocking: bool
    """Whether a failure stops the model, after SQLMesh has weighed the audit's and the model's settings."""
    skipped: bool
    passed: bool
    """False where skipped."""
    failing_rows: int | None
    """None where skipped."""
    query: str | None
    """The audit's query as it ran. None where skipped."""
    dialect: str | None
    interval: Interval | None
    standalone: bool = False
    targets: tuple[str, ...] = ()
    """For a standalone audit: the models that it reads."""


@dataclass(frozen=True, kw_only=True)
class ModelExecuted:
    """Terminal: every batch that was due is done."""

    kind: ClassVar[str] = "model_executed"

    model: str
    intervals: tuple[Interval, ...]
    """Merged."""
    batches: int
    """Batches done."""
    duration_ms: int
    """From the start of the first batch to the end of the last."""
    rows: int | None = None
    bytes: int | None = None
    storage: Storage | None = None
    restated_for: tuple[str, ...] = ()
    """Models whose automatic restatement made this one run again."""


@dataclass(frozen=True, kw_only=True)
class ModelFailed:
    """Terminal: at least one batch failed."""

    kind: ClassVar[str] = "model_failed"

    model: str
    error: ErrorInfo
    interval: Interval | None
    """The first interval that failed. None where the model failed before any, as in creating its table."""
    failed_audits: tuple[str, ...]
    """Identities of the blocking audits that failed."""
    intervals: tuple[Interval, ...]
    """What was done all the same, merged."""
    batches: int
    """Batches done."""
    duration_ms: int | None
    """From the start of the first batch. None where none began."""


@dataclass(frozen=True, kw_only=True)
class ModelSkipped:
    """Terminal: SQLMesh did not run the model."""

    kind: ClassVar[str] = "model_skipped"

    model: str
    reason: SkipReason
    detail: str
    """One sentence for people."""
    blocked_by: tuple[str, ...] = ()
    """For upstream_failed: the models that failed. For signal_not_ready: the signals, or the models that wait."""
    next_due: Timestamp | None = None
    """When the model's cron next elapses."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """Something that SQLMesh, or the runner, says."""

    kind: ClassVar[str] = "log"

    level: LogLevel
    logger: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """The runner lives. At least every 10 seconds."""

    kind: ClassVar[str] = "heartbeat"

    models: tuple[ModelInFlight, ...]
    """Those that are being evaluated."""


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """Terminal: the last event of a run. A stream that ends without it tells of a runner that died."""

    kind: ClassVar[str] = "run_finished"

    status: RunStatus
    exit_code: int
    """What the process exits with when it runs alone."""
    counts: Counts
    duration_ms: int
    last_seq: int
    """This event's own seq: the run had ``last_seq + 1`` events."""
    digest: tuple[ModelOutcome, ...]
    """One entry for each selected model."""
    error: ErrorInfo | None = None
    """Why there was no run, or why it broke off. None where models failed but the run itself did not."""


Event: TypeAlias = (
    RunStarted
    | EvaluationStarted
    | ModelStarted
    | BatchFinished
    | AuditEvaluated
    | ModelExecuted
    | ModelFailed
    | ModelSkipped
    | Log
    | Heartbeat
    | RunFinished
)


@dataclass(frozen=True, kw_only=True)
class UnknownEvent:
    """An event of a later minor version, kept whole so that a reader may show it."""

    kind: str
    fields: Mapping[str, object] = field(default_factory=dict)
