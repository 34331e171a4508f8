"""What a run of SQLMesh would do now: from Dagster's own record, or exactly, from SQLMesh's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

import dagster as dg

from dagster_sqlmesh_pipes.compat import CheckRecord, latest_checks
from dagster_sqlmesh_pipes.crons import dagster_cron, next_tick
from dagster_sqlmesh_pipes.launchers import RunnerCall, answer
from dagster_sqlmesh_pipes.mapping import TO_BE_TRIED_AGAIN
from dagster_sqlmesh_pipes.resource import SQLMeshResource
from dagster_sqlmesh_pipes.translator import EXECUTION_STATUS_CHECK, WITHOUT_TURNS
from sqlmesh_pipes_protocol.codec import moment_of
from sqlmesh_pipes_protocol.due import read_due_report
from sqlmesh_pipes_protocol.manifest import Model

Source = Literal["record", "state"]

_ANSWER_SECONDS = 50.0
"""Dagster gives a tick a minute by default."""


@dataclass(frozen=True)
class Due:
    """What is due.

    Attributes:
        keys: assets to run now, in the manifest's order.
        next_due: when the first of the others is; None if that is not known.
    """

    keys: Sequence[dg.AssetKey]
    next_due: datetime | None


Records = Mapping[dg.AssetKey, CheckRecord]
"""What ``sqlmesh_execution_status`` last said, by asset."""


def status_records(instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey]) -> Records:
    """Dagster's record of the models. Two queries, however many there are."""
    checks = [dg.AssetCheckKey(key, EXECUTION_STATUS_CHECK) for key in keys]
    return {check.asset_key: record for check, record in latest_checks(instance, checks).items()}


def unfinished_runs(records: Records) -> list[str]:
    """Ids of runs that are not over, of whatever job, and have some of the models still before them."""
    return sorted({record.running_in for record in records.values() if record.running_in is not None})


def due_by_record(
    records: Records, models: Mapping[dg.AssetKey, Model], now: datetime, manifest_created_at: datetime
) -> Due:
    """Judge by crons, and by what the record says of each model.

    Where the record does not tell, a model is due: SQLMesh then says itself that there is nothing to do, and when there will be.
    """
    turns = {key: next_turn(model, records.get(key), manifest_created_at) for key, model in models.items()}
    later = [turn for turn in turns.values() if turn is not None and turn > now]
    return Due(
        keys=[key for key, turn in turns.items() if turn is not None and turn <= now],
        next_due=min(later, default=None),
    )


def next_turn(model: Model, record: CheckRecord | None, manifest_created_at: datetime) -> datetime | None:
    """When a model is to be run next: in the past if it is due, None if never again.

    Args:
        model: from the manifest.
        record: what its status check last said.
        manifest_created_at: a new manifest may bring a new version of a seed, or cron, or a deployment.
    """
    if record is None or record.running_in is not None:
        return _LONG_AGO
    if record.status == "failed" or record.reason in TO_BE_TRIED_AGAIN:
        return _LONG_AGO
    if record.as_of is None:  # the run was limited to a range of time
        return record.next_due or _LONG_AGO
    is_newer = manifest_created_at > record.as_of
    if record.next_due is not None and not is_newer:
        return record.next_due
    if record.reason == "not_deployed" and is_newer:
        return _LONG_AGO  # deployed since, perhaps
    if model.kind in WITHOUT_TURNS or (record.reason == "up_to_date" and model.end):
        return _LONG_AGO if is_newer else None
    if dagster_cron(model.cron) is None:
        return _LONG_AGO  # SQLMesh can read it
    turn = next_tick(model.cron, model.cron_tz, record.as_of)
    # With a newer manifest the cron may be another one.
    return min(turn, record.next_due) if record.next_due is not None else turn


def due_by_state(resource: SQLMeshResource, keys: Mapping[str, dg.AssetKey]) -> Due:
    """Ask the runner, which asks SQLMesh's state: exact, at the cost of starting SQLMesh.

    Args:
        resource: the project and its launcher.
        keys: the assets in question, by FQN.

    Raises:
        LaunchError: the runner cannot be started, or cannot say.
        ProtocolError: its answer cannot be read.
    """
    call = RunnerCall(arguments=resource.due_arguments(), env={}, project_dir=resource.project.project_dir)
    report = read_due_report(answer(resource.launcher, call, _ANSWER_SECONDS))
    models = [model for model in report.models if model.model in keys]
    later = [moment_of(model.next_due) for model in models if not model.intervals and model.next_due]
    return Due(
        keys=[keys[model.model] for model in models if model.intervals],
        next_due=min(later, default=None),
    )


_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)
