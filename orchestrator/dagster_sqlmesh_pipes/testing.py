"""For tests of your own definitions: a launcher that starts nothing and plays a run, without SQLMesh.

.. code-block:: python

    from dagster_sqlmesh_pipes.testing import ScriptedLauncher, executed, failed, skipped

    launcher = ScriptedLauncher(
        [
            *executed('"db"."staging"."orders"', rows=3, audits={"not_null_id": 0}),
            *failed('"db"."marts"."revenue"', "Conversion Error: …"),
            *skipped('"db"."marts"."daily"', "upstream_failed", blocked_by=['"db"."marts"."revenue"']),
        ]
    )
    result = dagster.materialize(
        [warehouse], resources={"sqlmesh": SQLMeshResource(project, launcher=launcher)}, raise_on_error=False
    )

The events take the whole way that a runner's take: as lines over Dagster Pipes, through the reader, to results.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
from pydantic import Field

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers import Launcher, Runner, RunnerCall
from dagster_sqlmesh_pipes.pipes import EnvContextInjector
from sqlmesh_pipes_protocol.codec import Envelope, timestamp
from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    AuditOutcome,
    Counts,
    ErrorInfo,
    EvaluationStarted,
    Event,
    FailureCategory,
    Interval,
    ModelBatches,
    ModelExecuted,
    ModelFailed,
    ModelOutcome,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunStarted,
    SkipReason,
    Timestamp,
    UnknownEvent,
    Versions,
)
from sqlmesh_pipes_protocol.framing import EventStream, frame, parse_line
from sqlmesh_pipes_protocol.reconcile import ReconcileReport, dump_reconcile_report
from sqlmesh_pipes_protocol.request import RunRequest
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION

A_DAY = Interval(start=Timestamp("2026-01-01T00:00:00Z"), end=Timestamp("2026-01-02T00:00:00Z"))
"""What a model fills where a script does not say."""
_DURATION_MS = 1000
_KILLED = -9


def executed(
    model: str,
    *,
    intervals: Sequence[Interval] = (A_DAY,),
    rows: int | None = None,
    audits: Mapping[str, int] = {},
) -> list[Event]:
    """The events of a model that ran.

    Args:
        model: its FQN, as the manifest has it.
        intervals: what it filled, a batch each.
        rows: that it processed.
        audits: failing rows of each audit that was evaluated, by identity. One that fails does not block: the model ran.
    """
    return [
        ModelStarted(model=model, batches=len(intervals)),
        *(_audit(model, identity, found, blocking=not found) for identity, found in audits.items()),
        ModelExecuted(
            model=model,
            intervals=tuple(intervals),
            batches=len(intervals),
            duration_ms=_DURATION_MS,
            rows=rows,
        ),
    ]


def failed(
    model: str,
    message: str,
    *,
    category: FailureCategory = "sql",
    transient: bool = False,
    audits: Mapping[str, int] = {},
) -> list[Event]:
    """The events of a model that failed.

    Args:
        model: its FQN, as the manifest has it.
        message: what SQLMesh says.
        category: of the failure.
        transient: whether trying again can help: Dagster then follows a retry policy.
        audits: failing rows of each audit that was evaluated, by identity. One that fails blocks.
    """
    return [
        ModelStarted(model=model, batches=1),
        *(_audit(model, identity, found, blocking=True) for identity, found in audits.items()),
        ModelFailed(
            model=model,
            error=ErrorInfo(error_class="Scripted", message=message, category=category, transient=transient),
            interval=A_DAY,
            failed_audits=tuple(identity for identity, found in audits.items() if found),
            intervals=(),
            batches=0,
            duration_ms=_DURATION_MS,
        ),
    ]


def skipped(model: str, reason: SkipReason, *, blocked_by: Sequence[str] = ()) -> list[Event]:
    """The event of a model that SQLMesh did not run: its FQN, and why."""
    return [
        ModelSkipped(model=model, reason=reason, detail=f"Skipped: {reason}.", blocked_by=tuple(blocked_by))
    ]


@dataclass
class _Play:
    """What a launcher plays, and what it was asked to start."""

    script: Sequence[Event]
    dies: bool
    calls: list[RunnerCall] = field(default_factory=list)


_plays: dict[str, _Play] = {}
"""By name: Dagster makes a resource anew of its fields, which can hold no events."""


class ScriptedLauncher(Launcher):
    """Plays a run in the place of a runner.

    What a script leaves out is added: the first event, what is due, and the last one, which sums up. Of models that Dagster did not
    select nothing is played, as a runner would tell nothing; selected models that the script does not have are not deployed.
    """

    play: str = Field(
        default="", description="Names the script in this process; given by the launcher itself."
    )

    def __init__(self, events: Iterable[Event] = (), *, dies: bool = False, **settings: Any) -> None:
        """Make one of events.

        Args:
            events: in their order, from `executed`, `failed` and `skipped`, or any of the protocol's.
            dies: the runner ends without its last event, as one that is killed.
            settings: the fields of `Launcher`.
        """
        name = settings.setdefault("play", uuid.uuid4().hex)
        super().__init__(**settings)
        if name not in _plays:
            _plays[name] = _Play(list(events), dies)

    @classmethod
    def recorded(cls, path: str | Path, **settings: Any) -> ScriptedLauncher:
        """Make one of a file that ``sqlmesh-runner run --events`` has written.

        Raises:
            ProtocolError: an event cannot be read.
        """
        stream = EventStream()
        values = filter(None, map(parse_line, Path(path).read_bytes().splitlines()))
        envelopes = filter(None, map(stream.receive, values))
        events = [each.event for each in envelopes if not isinstance(each.event, UnknownEvent)]
        return cls(events, dies=stream.finished is None, **settings)

    @property
    def calls(self) -> Sequence[RunnerCall]:
        """What it was asked to start, in order: ``launcher.calls[0].arguments``."""
        return tuple(_plays[self.play].calls)

    def launch(self, call: RunnerCall) -> Runner:
        play = _plays[self.play]
        play.calls.append(call)
        if call.pipes is None:
            return _Player([_answer(call)], exit_code=0)
        request = RunRequest.from_extras(call.pipes.context_data["extras"] or {})
        assert request is not None  # noqa: S101 - every run of ours has one
        script = _selected(play.script, request.models)
        events = _whole(script, call, is_whole=not play.dies)
        return _Player(lines(events, request.run_id), exit_code=_KILLED if play.dies else 0)

    def context_injector(self) -> dg.PipesContextInjector:
        return EnvContextInjector()


class _Player(Runner):
    """A runner that has written all it ever will."""

    def __init__(self, lines: Iterable[bytes], exit_code: int) -> None:
        self._lines = lines
        self._exit_code = exit_code

    def output(self) -> Iterator[bytes]:
        yield from self._lines

    def exit_code(self) -> int | None:
        return self._exit_code

    def terminate(self) -> None:
        """It is over."""

    def kill(self) -> None:
        """It is over."""

    def close(self, *, succeeded: bool) -> None:
        """Nothing is left of it."""

    def describe(self) -> str:
        return "a script"

    def last_words(self) -> str:
        return ""


def _audit(model: str, identity: str, failing_rows: int, *, blocking: bool) -> AuditEvaluated:
    outcome = AuditOutcome(
        audit=identity, skipped=False, passed=not failing_rows, blocking=blocking, failing_rows=failing_rows
    )
    return outcome.as_evaluation(model)


def _answer(call: RunnerCall) -> bytes:
    """To the one question that a session asks: what a runner that died has done. Nothing."""
    if call.arguments[0] != "reconcile":
        raise LaunchError(
            f"A ScriptedLauncher plays runs, and was asked for `sqlmesh-runner {call.arguments[0]}`."
        )
    since = Timestamp(call.arguments[list(call.arguments).index("--since") + 1])
    report = ReconcileReport(
        v=PROTOCOL_VERSION, environment=call.arguments[1], since=since, run_id=None, models=()
    )
    return dump_reconcile_report(report)


def _selected(script: Sequence[Event], models: Collection[str] | None) -> Sequence[Event]:
    """What of a script is of some models, or of none in particular."""
    if models is None:
        return script
    chosen: list[Event] = []
    for event in script:
        if isinstance(event, EvaluationStarted):
            chosen.append(
                replace(event, batches=tuple(each for each in event.batches if each.model in models))
            )
        elif isinstance(event, AuditEvaluated) and event.standalone:
            if not set(models).isdisjoint(event.targets):
                chosen.append(event)
        elif getattr(event, "model", None) in {None, *models}:
            chosen.append(event)
    return chosen


def _whole(script: Sequence[Event], call: RunnerCall, *, is_whole: bool) -> Iterator[Event]:
    """A script with all that a run has: in any case its beginning, and its end if it has one."""
    digest = tuple(_outcomes(script))
    if not any(isinstance(event, RunStarted) for event in script):
        yield _started(call, len(digest))
    if not any(isinstance(event, EvaluationStarted) for event in script):
        begun = [event.model for event in script if isinstance(event, ModelStarted)]
        if begun:
            due = tuple(ModelBatches(model=model, intervals=(A_DAY,)) for model in begun)
            yield EvaluationStarted(attempt=1, batches=due)
    yield from (event for event in script if not isinstance(event, RunFinished))
    if is_whole:
        ended = next((event for event in script if isinstance(event, RunFinished)), None)
        yield _finished(digest) if ended is None else replace(ended, digest=digest)


def _outcomes(script: Sequence[Event]) -> Iterator[ModelOutcome]:
    evaluated: dict[str, dict[str, list[AuditEvaluated]]] = {}
    for event in script:
        match event:
            case AuditEvaluated(standalone=False):
                evaluated.setdefault(event.model, {}).setdefault(event.audit, []).append(event)
            case ModelExecuted() | ModelFailed():
                error = replace(event.error, traceback=None) if isinstance(event, ModelFailed) else None
                audits = evaluated.get(event.model, {})
                yield ModelOutcome(
                    model=event.model,
                    status="executed" if error is None else "failed",
                    intervals=event.intervals,
                    audits=tuple(AuditOutcome.of(audit, each) for audit, each in audits.items()),
                    error=error,
                )
            case ModelSkipped():
                yield ModelOutcome(model=event.model, status="skipped", reason=event.reason)
            case _:
                pass


def _started(call: RunnerCall, models: int) -> RunStarted:
    return RunStarted(
        environment=call.arguments[1],
        gateway=None,
        versions=Versions(runner="scripted", sqlmesh="scripted", python="scripted"),
        selection=None,
        models_deployed=models,
        models_selected=models,
        start=None,
        end=None,
        execution_time=None,
        ignore_cron="--ignore-cron" in call.arguments,
    )


def _finished(digest: Sequence[ModelOutcome]) -> RunFinished:
    by_status = [outcome.status for outcome in digest]
    audits = [audit for outcome in digest for audit in outcome.audits if not audit.skipped]
    has_failed, has_run = "failed" in by_status, "executed" in by_status
    return RunFinished(
        status="failed" if has_failed else "success" if has_run else "nothing_to_do",
        exit_code=int(has_failed),
        counts=Counts(
            selected=len(digest),
            executed=by_status.count("executed"),
            failed=by_status.count("failed"),
            skipped=by_status.count("skipped"),
            audits_passed=sum(audit.passed for audit in audits),
            audits_failed=sum(not audit.passed for audit in audits),
            audits_skipped=0,
        ),
        duration_ms=_DURATION_MS,
        last_seq=0,
        digest=tuple(digest),
    )


def lines(events: Iterable[Event], run_id: str) -> Iterator[bytes]:
    """Events as a runner writes them under Dagster Pipes, with its first message and its last. Each line has its break."""
    yield _message("opened", {"extras": {}})
    for seq, event in enumerate(events):
        if isinstance(event, RunFinished):
            event = replace(event, last_seq=seq)
        now = timestamp(datetime.now(timezone.utc))
        for line in frame(Envelope(run_id=run_id, seq=seq, at=now, event=event), overhead=200):
            yield _message("report_custom_message", {"payload": orjson.Fragment(line)})
    yield _message("closed", {})


def _message(method: str, params: Mapping[str, object]) -> bytes:
    return orjson.dumps({"__dagster_pipes_version": "0.1", "method": method, "params": params}) + b"\n"
