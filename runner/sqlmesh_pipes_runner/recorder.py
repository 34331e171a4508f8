"""What happened to each model: turns what SQLMesh does into events, exactly one terminal event a model.

Knows nothing of SQLMesh: models are FQNs, intervals are pairs of milliseconds since the epoch, start included and end
excluded. Thread-safe: SQLMesh evaluates in threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    AuditOutcome,
    BatchFinished,
    Counts,
    ErrorInfo,
    EvaluationStarted,
    Event,
    Heartbeat,
    Interval,
    Log,
    LogLevel,
    ModelBatches,
    ModelExecuted,
    ModelFailed,
    ModelInFlight,
    ModelOutcome,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunStarted,
    RunStatus,
    SkipReason,
    Storage,
    Timestamp,
)
from sqlmesh_pipes_protocol.spans import Span, interval, merged
from sqlmesh_pipes_runner.options import FailOn

_NO_REASON = ErrorInfo(
    error_class="unknown",
    message="A batch ended without being recorded as done, and SQLMesh did not say why.",
    category="internal",
    transient=False,
)

_HELD_BACK = {"upstream_failed", "signal_not_ready"}


def _exit_code(
    exit_code: int,
    status: RunStatus,
    digest: Iterable[ModelOutcome],
    counts: Counts,
    fail_on: Collection[FailOn],
) -> int:
    if "nothing" in fail_on and status == "failed":
        return 0
    if exit_code == 0 and (
        ("warn-audit" in fail_on and counts.audits_failed)
        or ("skipped-upstream" in fail_on and any(outcome.reason in _HELD_BACK for outcome in digest))
    ):
        return 1
    return exit_code


@dataclass(frozen=True, kw_only=True)
class Skip:
    """Why a model was not run."""

    reason: SkipReason
    detail: str
    blocked_by: tuple[str, ...] = ()
    next_due: Timestamp | None = None


@dataclass(kw_only=True)
class _Failure:
    error: ErrorInfo
    span: Span | None
    audits: tuple[str, ...]


@dataclass(kw_only=True)
class _ModelState:
    outstanding: int = 0
    unfinished: int = 0
    """Batches of this evaluation that ended without being recorded as done."""
    running: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    done: list[Span] = field(default_factory=list)
    rows: int | None = None
    bytes: int | None = None
    failures: list[_Failure] = field(default_factory=list)
    audits: dict[str, dict[Interval | None, AuditEvaluated]] = field(default_factory=dict)
    """By identity, the latest evaluation of each interval."""
    restated_for: dict[str, None] = field(default_factory=dict)
    outcome: ModelOutcome | None = None
    """As of now: after a restart of the run it may change."""
    told: bool = False
    """Whether the terminal event is out. There is one, even if a restart changes the outcome; the digest has the last word."""

    @property
    def duration_ms(self) -> int | None:
        if self.started_at is None or self.ended_at is None:
            return None
        return round((self.ended_at - self.started_at) * 1000)

    def audit_outcomes(self) -> tuple[AuditOutcome, ...]:
        return tuple(AuditOutcome.of(audit, spans.values()) for audit, spans in self.audits.items())


class RunRecorder:
    """Follows one run from its start to its end.

    Args:
        emit: takes each event, in order; called with the recorder's lock held.
        clock: seconds, monotonic.
    """

    def __init__(
        self, emit: Callable[[Event], object], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._emit = emit
        self._clock = clock
        self._lock = threading.RLock()
        self._began = clock()
        self._started = False
        self._finished = False
        self._attempt = 0
        self._selected: dict[str, None] = {}
        self.storage_of: Callable[[str, Sequence[Span]], Storage | None] = lambda fqn, done: None
        """Where a model's data is, given the intervals that this run has filled; set by whoever knows."""
        self._models: dict[str, _ModelState] = {}
        self._broken_audits: dict[str, ErrorInfo] = {}
        self._fault: ErrorInfo | None = None

    @property
    def failed_models(self) -> set[str]:
        with self._lock:
            return {fqn for fqn, state in self._models.items() if state.failures}

    @property
    def any_failure(self) -> bool:
        with self._lock:
            return bool(self._broken_audits) or self.first_failure() is not None

    def first_failure(self) -> tuple[str, ErrorInfo] | None:
        """A model that failed, and why."""
        with self._lock:
            for fqn, state in self._models.items():
                if state.failures:
                    return fqn, state.failures[0].error
            return None

    def has_failed(self, name: str) -> bool:
        """Whether a model's, or a standalone audit's, failure is known already."""
        with self._lock:
            state = self._models.get(name)
            return name in self._broken_audits or (state is not None and bool(state.failures))

    def run_started(self, event: RunStarted, selected: Iterable[str]) -> None:
        """The run begins, or begins again after the environment changed: later calls only widen the selection."""
        with self._lock:
            self._selected.update(dict.fromkeys(selected))
            if not self._started:
                self._started = True
                self._send(event)

    def evaluation_started(self, batches: Mapping[str, Sequence[Span]]) -> None:
        """All that is due, per model; again if SQLMesh restarts the run."""
        with self._lock:
            self._attempt += 1
            for fqn, spans in batches.items():
                state = self._state(fqn)
                state.outstanding = len(spans)
                state.unfinished = state.running = 0
                state.failures.clear()  # of an evaluation that SQLMesh has given up
            self._send(
                EvaluationStarted(
                    attempt=self._attempt,
                    batches=tuple(
                        ModelBatches(model=fqn, intervals=tuple(map(interval, spans)))
                        for fqn, spans in batches.items()
                    ),
                )
            )

    def batch_started(self, fqn: str) -> None:
        with self._lock:
            state = self._state(fqn)
            state.running += 1
            if state.started_at is None:
                state.started_at = self._clock()
                self._send(ModelStarted(model=fqn, batches=state.outstanding))

    def audit_evaluated(self, event: AuditEvaluated) -> None:
        with self._lock:
            self._state(event.model).audits.setdefault(event.audit, {})[event.interval] = event
            self._send(event)

    def batch_finished(
        self,
        fqn: str,
        span: Span,
        index: int,
        total: int,
        duration_ms: int,
        rows: int | None,
        bytes_: int | None,
        restated_for: Iterable[str] = (),
    ) -> None:
        """SQLMesh has recorded the interval."""
        with self._lock:
            state = self._state(fqn)
            state.restated_for.update(dict.fromkeys(restated_for))
            state.done.append(span)
            state.rows = _added(state.rows, rows)
            state.bytes = _added(state.bytes, bytes_)
            self._send(
                BatchFinished(
                    model=fqn,
                    interval=interval(span),
                    index=index,
                    total=total,
                    duration_ms=duration_ms,
                    rows=rows,
                    bytes=bytes_,
                )
            )
            self._batch_ended(fqn, state)

    def standalone_audit_failed(self, name: str, error: ErrorInfo) -> None:
        """A standalone audit could not be evaluated. It is no model: it has no terminal event, but the run has failed."""
        with self._lock:
            if name not in self._broken_audits:
                self._broken_audits[name] = error
                self._send(
                    Log(
                        level="error",
                        logger="sqlmesh",
                        message=f"The standalone audit {name} could not be evaluated: {error.message}",
                    )
                )

    def fault(self, message: str, error: ErrorInfo) -> None:
        """Something that happened was not taken in: the run cannot be told to be a success."""
        with self._lock:
            if self._fault is None:
                self._fault = replace(error, message=message, category="internal", transient=False)
            self._send(Log(level="error", logger="sqlmesh-runner", message=message))

    def batch_failed(
        self, fqn: str, span: Span | None, error: ErrorInfo, audits: tuple[str, ...] = ()
    ) -> None:
        """A batch raised. The terminal event follows when no other batch of the model is to come."""
        with self._lock:
            state = self._state(fqn)
            state.failures.append(_Failure(error=error, span=span, audits=audits))

    def batch_ended(self, fqn: str) -> None:
        """A batch is over that did not finish."""
        with self._lock:
            state = self._state(fqn)
            state.unfinished += 1
            self._batch_ended(fqn, state)

    def settle(self, fqns: Iterable[str]) -> None:
        """No further batch of these models comes: those that failed are told now."""
        with self._lock:
            for fqn in fqns:
                state = self._models.get(fqn)
                if state is not None and state.failures:
                    self._fail(fqn, state)

    def skipped(self, fqn: str, skip: Skip) -> None:
        """SQLMesh did not run the model. A model that has its outcome keeps it."""
        with self._lock:
            state = self._state(fqn)
            if state.outcome is not None:
                return
            self._conclude(
                fqn,
                ModelOutcome(
                    model=fqn,
                    status="skipped",
                    reason=skip.reason,
                    intervals=merged(state.done),
                    audits=state.audit_outcomes(),
                ),
                ModelSkipped(
                    model=fqn,
                    reason=skip.reason,
                    detail=skip.detail,
                    blocked_by=skip.blocked_by,
                    next_due=skip.next_due,
                ),
            )

    def log(self, level: LogLevel, logger: str, message: str) -> None:
        with self._lock:
            self._send(Log(level=level, logger=logger, message=message))

    def heartbeat(self) -> None:
        with self._lock:
            now = self._clock()
            in_flight = tuple(
                ModelInFlight(model=fqn, elapsed_ms=round((now - state.started_at) * 1000))
                for fqn, state in self._models.items()
                if state.running and state.started_at is not None
            )
            self._send(Heartbeat(models=in_flight))

    def pending(self) -> list[str]:
        """Selected models without an outcome."""
        with self._lock:
            return [fqn for fqn in self._selected if self._state(fqn).outcome is None]

    def started(self, fqn: str) -> bool:
        with self._lock:
            return self._state(fqn).started_at is not None

    def finish(
        self,
        status: RunStatus | None,
        exit_code: int,
        *,
        why_pending: Callable[[str], Skip],
        error: ErrorInfo | None = None,
        next_seq: Callable[[], int],
        fail_on: Collection[FailOn] = (),
    ) -> RunFinished:
        """End the run: an outcome for whoever has none, then the run's last event. Everything later is ignored.

        Args:
            status: None for failed where a model failed, success where one ran, nothing_to_do otherwise.
            exit_code: of the process when it runs alone; for None as ``status`` the code of a run without failure.
            why_pending: tells for a model without an outcome why it did not run.
            error: why there was no run, or why it broke off.
            next_seq: the seq that the last event will get.
            fail_on: what else, or that nothing, makes the exit status that of a failure.
        """
        with self._lock:
            for state in self._models.values():
                if state.unfinished and not state.failures and state.outcome is None:
                    state.failures.append(_Failure(error=_NO_REASON, span=None, audits=()))
            self.settle(fqn for fqn, state in self._models.items() if state.failures)
            for fqn in self.pending():
                self.skipped(fqn, why_pending(fqn))
            digest = tuple(
                replace(outcome, audits=state.audit_outcomes())
                for state in self._models.values()
                if (outcome := state.outcome)
            )
            counts = self._counts(digest)
            if status is None:
                has_failed = bool(counts.failed or self._broken_audits)
                status = "failed" if has_failed else "success" if counts.executed else "nothing_to_do"
                exit_code = 1 if has_failed else exit_code
            if self._fault is not None and error is None and status != "interrupted":
                status, exit_code, error = "error", 1, self._fault
            if error is None and self._broken_audits:
                name, cause = next(iter(self._broken_audits.items()))
                error = replace(
                    cause, message=f"The standalone audit {name} could not be evaluated: {cause.message}"
                )
            event = RunFinished(
                status=status,
                exit_code=_exit_code(exit_code, status, digest, counts, fail_on),
                counts=counts,
                duration_ms=round((self._clock() - self._began) * 1000),
                last_seq=next_seq(),
                digest=digest,
                error=error,
            )
            self._send(event)
            self._finished = True
            return event

    def _send(self, event: Event) -> None:
        if not self._finished:
            self._emit(event)

    def _state(self, fqn: str) -> _ModelState:
        return self._models.setdefault(fqn, _ModelState())

    def _batch_ended(self, fqn: str, state: _ModelState) -> None:
        state.running = max(0, state.running - 1)
        state.outstanding -= 1
        state.ended_at = self._clock()
        if state.outstanding > 0:
            return
        if state.unfinished and not state.failures:
            state.failures.append(_Failure(error=_NO_REASON, span=None, audits=()))
        if state.failures:
            self._fail(fqn, state)
        else:
            intervals = merged(state.done)
            self._conclude(
                fqn,
                ModelOutcome(model=fqn, status="executed", intervals=intervals),
                ModelExecuted(
                    model=fqn,
                    intervals=intervals,
                    batches=len(state.done),
                    duration_ms=state.duration_ms or 0,
                    rows=state.rows,
                    bytes=state.bytes,
                    storage=self.storage_of(fqn, state.done),
                    restated_for=tuple(state.restated_for),
                ),
            )

    def _fail(self, fqn: str, state: _ModelState) -> None:
        # The first failure is the one to show; the audits of all of them failed.
        first = state.failures[0]
        intervals = merged(state.done)
        self._conclude(
            fqn,
            ModelOutcome(
                model=fqn, status="failed", intervals=intervals, error=replace(first.error, traceback=None)
            ),
            ModelFailed(
                model=fqn,
                error=first.error,
                interval=interval(first.span) if first.span else None,
                failed_audits=tuple(
                    dict.fromkeys(audit for failure in state.failures for audit in failure.audits)
                ),
                intervals=intervals,
                batches=len(state.done),
                duration_ms=state.duration_ms,
            ),
        )

    def _conclude(self, fqn: str, outcome: ModelOutcome, event: Event) -> None:
        state = self._state(fqn)
        state.outcome = outcome
        if not state.told:
            state.told = True
            self._send(event)

    def _counts(self, digest: Collection[ModelOutcome]) -> Counts:
        audits = [audit for outcome in digest for audit in outcome.audits]
        return Counts(
            selected=len(digest),
            executed=sum(outcome.status == "executed" for outcome in digest),
            failed=sum(outcome.status == "failed" for outcome in digest),
            skipped=sum(outcome.status == "skipped" for outcome in digest),
            audits_passed=sum(audit.passed for audit in audits),
            audits_failed=sum(not audit.passed and not audit.skipped for audit in audits),
            audits_skipped=sum(audit.skipped for audit in audits),
        )


def _added(total: int | None, value: int | None) -> int | None:
    return total if value is None else value if total is None else total + value
