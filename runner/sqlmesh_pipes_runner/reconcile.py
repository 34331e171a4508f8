"""What SQLMesh has done that a run's events do not tell: asked of SQLMesh's state, and shown to people."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlmesh.core.environment import Environment

from sqlmesh_pipes_protocol.errors import DecodeError, EventTooLargeError, VersionMismatchError
from sqlmesh_pipes_protocol.framing import EventStream
from sqlmesh_pipes_protocol.reconcile import ModelReconciled, ReconcileReport
from sqlmesh_pipes_protocol.spans import Span, epoch_ms, merged, moment, within, without
from sqlmesh_pipes_protocol.told import RunTold
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION
from sqlmesh_pipes_runner.adapter import RecordContext, Records, StateContext, run_lock
from sqlmesh_pipes_runner.answers import answer
from sqlmesh_pipes_runner.errors import EXIT_INFRASTRUCTURE, NoAnswerError, RunLockedError, UsageError
from sqlmesh_pipes_runner.locks import Holder, Waiting
from sqlmesh_pipes_runner.options import RunOptions
from sqlmesh_pipes_runner.reports import read_story
from sqlmesh_pipes_runner.reports.story import objects_in
from sqlmesh_pipes_runner.spelling import counted, spans

_OTHERWISE = "what has been recorded cannot be told"


def read_run(path: Path, run_id: str | None) -> RunTold:
    """What a run in an event file says of intervals; the last one, if the file has several and none is named.

    Raises:
        UsageError: the file cannot be read, has no such run, or one of another protocol major.
    """
    try:
        story = read_story(path, run_id)
        assert story.run_id is not None and story.began_at is not None  # noqa: S101, PT018 - narrows the types
        told, stream = RunTold(story.run_id, story.began_at), EventStream(story.run_id)
        for value in objects_in(path):
            try:
                envelope = stream.receive(value)
            except (DecodeError, EventTooLargeError):
                continue  # its seq stays missing
            if envelope is not None:
                told.take(envelope)
    except VersionMismatchError as error:
        raise UsageError(f"{path}: {error}") from error
    except OSError as error:
        raise UsageError(f"The events of {path} cannot be read: {error.strerror}.") from error
    if stream.missing():
        told.is_due_known = False
    return told


def reconcile_report(
    options: RunOptions, *, since: str | None = None, told: RunTold | None = None, wait_seconds: float = 0
) -> ReconcileReport:
    """What has been recorded since a moment or since a run began. Nothing is written, neither data nor state.

    Args:
        options: the projects, and the environment; without one, that of the run.
        since: a time as SQLMesh understands it.
        told: a run's events, instead.
        wait_seconds: how long to wait for the end of a run of the environment; 0: not at all.

    Raises:
        UsageError: a project, its gateway or the environment does not exist, is not the run's, or the time is none.
        NoAnswerError: the state is out of reach, or not one that this SQLMesh can read; or a run goes on still.
    """
    if told is not None and told.started is not None:
        options = _of_the_run(options, told)

    def ask(configs: Mapping[Path, Any]) -> ReconcileReport:
        with closing(RecordContext(options, configs, load=False)) as context:
            if wait_seconds:
                _wait_for_run(context, wait_seconds)
            if told is None:
                from_ms = context.check_time(since or "")
                records = context.records_since(from_ms)
            else:
                started = told.started
                if (
                    started is not None
                    and (started.gateway or "").lower() != (context.selected_gateway or "").lower()
                ):
                    raise UsageError(
                        f"The run {told.run_id} was on the gateway {started.gateway!r}, and {context.selected_gateway!r} "
                        "is asked: give the run's with --gateway."
                    )
                assert told.began_at is not None  # noqa: S101 - narrows the type: the file has an event
                from_ms = epoch_ms(told.began_at)
                records = context.records_since(from_ms, start=started.start if started else None)
            return ReconcileReport(
                v=PROTOCOL_VERSION,
                environment=context.target_environment,
                since=moment(from_ms) if told is None or told.began_at is None else told.began_at,
                run_id=told.run_id if told is not None else None,
                models=tuple(
                    model
                    for fqn in sorted(records)
                    if _tells_something(model := compare(fqn, records[fqn], told))
                ),
            )

    return answer(options, ask, otherwise=_OTHERWISE)


def _wait_for_run(context: StateContext, seconds: float) -> None:
    """Return when no run of the context's environment goes on.

    Raises:
        NoAnswerError: one still does.
    """
    lock = run_lock(context, Holder.here("reconcile", "", context.target_environment), create=False)
    waiting = Waiting(
        seconds=seconds,
        option="--wait-for-run",
        say=lambda _, message: print(message, file=sys.stderr, flush=True),
    )
    try:
        lock.acquire(waiting)
    except RunLockedError as error:
        raise NoAnswerError(f"{_OTHERWISE}: {error}", EXIT_INFRASTRUCTURE) from error
    finally:
        lock.release()


def _of_the_run(options: RunOptions, told: RunTold) -> RunOptions:
    """The options with the run's environment.

    Raises:
        UsageError: another one is asked for.
    """
    assert told.started is not None  # noqa: S101 - narrows the type
    environment = told.started.environment
    if options.environment is not None and Environment.sanitize_name(options.environment) != environment:
        raise UsageError(
            f"The run {told.run_id} was of the environment {environment!r}, and {options.environment!r} is asked for."
        )
    return replace(options, environment=environment)


def compare(fqn: str, records: Records, told: RunTold | None) -> ModelReconciled:
    """One model's intervals in the state and in the events.

    Args:
        fqn: the model.
        records: what the state has of it since the run began, or since the moment.
        told: the run's events; None where a moment was given.
    """
    recorded, uncertain = records.recorded, records.uncertain
    reported: list[Span] = []
    if told is not None:
        reported = told.done.get(fqn, [])
        if told.is_due_known:
            # What a run sets out to fill is its own doing; the rest was another run's, or a plan's.
            due = told.due.get(fqn, [])
            recorded, uncertain = list(within(recorded, due)), list(within(uncertain, due))
            if not records.looks_back:
                # It was due, so it was not there when the run began: the record is younger, compacted or not.
                recorded, uncertain = [*recorded, *uncertain], []
    return ModelReconciled(
        model=fqn,
        recorded=merged(recorded),
        reported=merged(reported),
        missing=merged(without(recorded, reported)),
        uncertain=merged(without(uncertain, recorded)),
        looks_back=records.looks_back,
    )


def table(report: ReconcileReport) -> str:
    """The report for people, times in UTC. Models with something missing stand first."""
    missing = [model for model in report.models if model.missing]
    rest = [model for model in report.models if not model.missing]
    since = report.since.removesuffix("Z").replace("T", " ")
    told = f", and not reported by the run {report.run_id}" if report.run_id is not None else ""
    lines = [f"{counted(len(missing), 'model')} recorded in {report.environment!r} since {since} UTC{told}."]
    uncertain = sum(bool(model.uncertain) for model in report.models)
    if uncertain:
        lines.append(
            f"Of {counted(uncertain, 'model')} the janitor has compacted the records since: what of them is older is not known."
        )
    if report.models:
        rows = [
            ("MODEL", "MISSING", "REPORTED", "UNCERTAIN"),
            *(
                (
                    model.model,
                    spans(model.missing) or "-",
                    spans(model.reported) or "-",
                    spans(model.uncertain) or "-",
                )
                for model in (*missing, *rest)
            ),
        ]
        widths = [max(len(row[place]) for row in rows) for place in range(4)]
        lines += ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)]
    return "\n".join(lines) + "\n"


def _tells_something(model: ModelReconciled) -> bool:
    return bool(model.recorded or model.reported or model.uncertain)
