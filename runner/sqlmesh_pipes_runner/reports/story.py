"""What happened in a run, put together from its events: what all reports are made of.

The last event's digest has the last word, as for every reader. A stream that ends without it tells of a runner that died: models that
had started are then torn, and of the others nothing is known.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sqlmesh_pipes_protocol.codec import Envelope
from sqlmesh_pipes_protocol.errors import DecodeError, EventTooLargeError
from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    BatchFinished,
    ErrorInfo,
    Event,
    Interval,
    Log,
    ModelExecuted,
    ModelFailed,
    ModelOutcome,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunStarted,
    RunStatus,
    SkipReason,
    Timestamp,
    UnknownEvent,
)
from sqlmesh_pipes_protocol.framing import EventStream, LineSplitter, parse_line
from sqlmesh_pipes_runner.errors import UsageError

Status = Literal["executed", "failed", "skipped", "torn"]
_CHUNK = 1 << 20


@dataclass
class AuditStory:
    """One audit of one model, over all batches.

    Attributes:
        evaluations: by interval, the last one of each: SQLMesh starts a run again when the environment changes.
    """

    evaluations: dict[Interval | None, AuditEvaluated] = field(default_factory=dict)

    @property
    def evaluation(self) -> AuditEvaluated:
        """The one to show: the first that failed, else the last that ran."""
        failed = [one for one in self.evaluations.values() if not one.passed and not one.skipped]
        ran = [one for one in self.evaluations.values() if not one.skipped]
        return failed[0] if failed else (ran or list(self.evaluations.values()))[-1]

    @property
    def failing_rows(self) -> int:
        """The sum over all batches."""
        return sum(one.failing_rows or 0 for one in self.evaluations.values())

    @property
    def outcome(self) -> Literal["passed", "failed", "skipped"]:
        if self.evaluation.skipped:
            return "skipped"
        return "passed" if self.evaluation.passed else "failed"

    def take(self, evaluation: AuditEvaluated) -> None:
        self.evaluations[evaluation.interval] = evaluation


@dataclass
class ModelStory:
    """What became of a model. ``torn``: it had started, and the runner died."""

    fqn: str
    status: Status = "torn"
    duration_ms: int | None = None
    batches: int = 0
    rows: int | None = None
    intervals: tuple[Interval, ...] = ()
    reason: SkipReason | None = None
    detail: str | None = None
    next_due: Timestamp | None = None
    error: ErrorInfo | None = None
    failed_interval: Interval | None = None
    audits: dict[str, AuditStory] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Catalog, schema and table without quotation marks."""
        return self.fqn.replace('"', "")


class Story:
    """Follows a run. Feed it each event once, in order.

    Args:
        asked_for: the environment that was asked for, where it is known: a run that broke off early has not told it.

    Attributes:
        began_at, ended_at: times of the first and the last event.
        started: the run's first event; None where it broke off before.
        finished: its last one; None where the runner died.
        models: by FQN, in the order in which SQLMesh began or told them.
        standalone: standalone audits, by name.
        warnings: what SQLMesh or the runner warned of.
    """

    def __init__(self, asked_for: str | None = None) -> None:
        self._asked_for = asked_for
        self.run_id: str | None = None
        self.began_at: Timestamp | None = None
        self.ended_at: Timestamp | None = None
        self.started: RunStarted | None = None
        self.finished: RunFinished | None = None
        self.models: dict[str, ModelStory] = {}
        self.standalone: dict[str, AuditStory] = {}
        self.warnings: list[Log] = []

    @property
    def status(self) -> RunStatus | Literal["died"]:
        return self.finished.status if self.finished is not None else "died"

    @property
    def environment(self) -> str | None:
        return self.started.environment if self.started is not None else self._asked_for

    @property
    def error(self) -> ErrorInfo | None:
        """Why there was no run, or why it broke off; of a runner that died, that it did."""
        if self.finished is not None:
            return self.finished.error
        return ErrorInfo(
            error_class="died",
            message="The events end without the run's last one: the runner died, or still runs.",
            category="internal",
            transient=True,
        )

    @property
    def duration_ms(self) -> int | None:
        return self.finished.duration_ms if self.finished is not None else None

    def of(self, *statuses: Status) -> list[ModelStory]:
        """The models with one of these statuses."""
        return [model for model in self.models.values() if model.status in statuses]

    def audits(self) -> list[tuple[ModelStory | None, AuditStory]]:
        """All audits with their model, None for a standalone one."""
        with_model: list[tuple[ModelStory | None, AuditStory]] = [
            (model, audit) for model in self.models.values() for audit in model.audits.values()
        ]
        return with_model + [(None, audit) for audit in self.standalone.values()]

    def take(self, envelope: Envelope) -> None:
        """Take in an event."""
        self.run_id = envelope.run_id
        self.began_at = self.began_at or envelope.at
        self.ended_at = envelope.at
        self._take(envelope.event)

    def _take(self, event: Event | UnknownEvent) -> None:
        match event:
            case RunStarted():
                self.started = event
            case ModelStarted():
                self._model(event.model)
            case BatchFinished():
                self._model(event.model).batches += 1
            case AuditEvaluated():
                audits = self.standalone if event.standalone else self._model(event.model).audits
                audits.setdefault(event.audit, AuditStory()).take(event)
            case ModelExecuted():
                model = self._model(event.model)
                model.status, model.duration_ms, model.rows = "executed", event.duration_ms, event.rows
                model.batches, model.intervals = event.batches, event.intervals
            case ModelFailed():
                model = self._model(event.model)
                model.status, model.duration_ms, model.error = "failed", event.duration_ms, event.error
                model.batches, model.intervals = event.batches, event.intervals
                model.failed_interval = event.interval
            case ModelSkipped():
                model = self._model(event.model)
                model.status, model.reason, model.detail = "skipped", event.reason, event.detail
                model.next_due = event.next_due
            case Log() if event.level in ("warning", "error"):
                self.warnings.append(event)
            case RunFinished():
                self.finished = event
                for outcome in event.digest:
                    self._correct(outcome)
            case _:
                pass

    def _model(self, fqn: str) -> ModelStory:
        return self.models.setdefault(fqn, ModelStory(fqn))

    def _correct(self, outcome: ModelOutcome) -> None:
        model = self._model(outcome.model)
        for audit in outcome.audits:
            if audit.audit not in model.audits:  # what it was told with has not come
                model.audits[audit.audit] = AuditStory()
                model.audits[audit.audit].take(audit.as_evaluation(outcome.model))
        if model.status == outcome.status:
            return
        model.status, model.intervals = outcome.status, outcome.intervals
        model.error, model.reason = outcome.error, outcome.reason
        model.detail = None


def read_story(path: Path, run_id: str | None = None) -> Story:
    """The story of a run in an event file; of the last one, if the file has several and none is named.

    Foreign and torn lines are passed over, as by every reader.

    Raises:
        UsageError: the file cannot be read, or has no such run.
        VersionMismatchError: the events are of another protocol major.
    """
    try:
        if run_id is None:
            for value in objects_in(path):
                found = value["run_id"]
                run_id = found if isinstance(found, str) else run_id
        story, stream = Story(), EventStream(run_id)
        for value in objects_in(path) if run_id is not None else ():
            try:
                envelope = stream.receive(value)
            except (DecodeError, EventTooLargeError):
                continue  # the digest has what it said
            if envelope is not None:
                story.take(envelope)
    except OSError as error:
        raise UsageError(f"The events of {path} cannot be read: {error.strerror}.") from error
    if story.run_id is None:
        which = f"is no run {run_id}" if stream.foreign else "are no events of a run"
        raise UsageError(
            f"There {which} in {path}: give a file that `sqlmesh-runner run --events FILE` wrote."
        )
    return story


def objects_in(path: Path) -> Iterator[dict[str, object]]:
    """The objects in an event file that look like events of ours, of whatever run.

    Raises:
        UsageError: it is no regular file: it is read more than once, and of a device the end may never come.
        OSError: it cannot be read.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UsageError(
            f"{path} is no regular file: write the events to one, with `sqlmesh-runner run --events FILE`."
        )
    splitter = LineSplitter()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for line in splitter.feed(chunk):
                value = parse_line(line)
                if value is not None:
                    yield value
    torn = splitter.close()
    value = parse_line(torn) if torn is not None else None
    if value is not None:
        yield value
