"""A schedule that fires when one of the models' crons elapses, and starts a run only if something is due."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import dagster as dg

from dagster_sqlmesh_pipes.compat import job_keys
from dagster_sqlmesh_pipes.crons import shortest_gap, union
from dagster_sqlmesh_pipes.due import (
    Due,
    Source,
    due_by_record,
    due_by_state,
    status_records,
    unfinished_runs,
)
from dagster_sqlmesh_pipes.errors import LaunchError, PartitionsError
from dagster_sqlmesh_pipes.resource import SQLMeshResource
from dagster_sqlmesh_pipes.specs import MODEL_KEY, runnable
from dagster_sqlmesh_pipes.translator import WITHOUT_TURNS
from sqlmesh_pipes_protocol.codec import moment_of
from sqlmesh_pipes_protocol.errors import ProtocolError
from sqlmesh_pipes_protocol.manifest import Model

Granularity = Literal["union", "finest"]


def build_sqlmesh_schedule(
    assets: Sequence[dg.AssetsDefinition],
    resource: SQLMeshResource,
    *,
    job: Any,
    name: str = "sqlmesh_adaptive_schedule",
    granularity: Granularity = "union",
    due: Source = "record",
    catch_up: str | None = None,
    default_status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.STOPPED,
) -> dg.ScheduleDefinition:
    """A schedule for a job of SQLMesh's assets.

    It fires whenever a model's cron elapses. A tick asks what is due and requests those assets alone, or is skipped and says when
    the next model is due. It is skipped as well while a run of these assets is not over. What failed or was missed is due
    until it has run, and so is caught up by the next tick.

    Args:
        assets: what `sqlmesh_assets` made of the resource's project.
        resource: the project, its environment and its launcher.
        job: of these assets, or of a part of them, and of others as it may be. What it leaves out is left alone.
        name: of the schedule.
        granularity: ``union`` fires at every model's own cron, ``finest`` at the most frequent of them only.
        due: who is asked. ``record``: Dagster's own record and the manifest's crons, in milliseconds. ``state``: SQLMesh's
            state, by ``sqlmesh-runner due``, exact also for what ran without Dagster, in the seconds that SQLMesh takes to start.
        catch_up: a cron in the schedule's time zone at which it fires as well: what failed, or was missed because a run was not
            over, then waits no longer than until it elapses. Otherwise that is caught up when the next model's cron elapses.
        default_status: whether it runs as soon as it is deployed.

    Raises:
        PartitionsError: some of the assets have partitions: a tick is for no partition.
    """
    in_job = job_keys(job, assets)
    specs = [
        spec
        for definition in assets
        for spec in definition.specs
        if MODEL_KEY in spec.metadata and spec.key in in_job
    ]
    partitioned = next((spec for spec in specs if spec.partitions_def is not None), None)
    if partitioned is not None:
        raise PartitionsError(
            f"{partitioned.key.to_user_string()} has partitions, and the adaptive schedule asks for none: leave it out, "
            "and schedule it with dagster.build_schedule_from_partitioned_job."
        )
    manifest = resource.project.manifest
    by_fqn = {model.fqn: model for model in runnable(manifest)}
    models = {spec.key: by_fqn[str(spec.metadata[MODEL_KEY])] for spec in specs}
    keys = {model.fqn: key for key, model in models.items()}
    created_at = moment_of(manifest.created_at)
    crons, zone = schedule_crons(models.values(), granularity, created_at)
    if catch_up is not None:
        crons = sorted({*crons, catch_up})

    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        records = status_records(context.instance, models)
        running = unfinished_runs(records)
        if running:
            return _overlap(running)
        with resource.process_config_and_initialize_cm() as resolved:  # a setting may be a dagster.EnvVar
            environment = resolved.environment
            if resolved.ignore_cron:
                found = Due(keys=list(models), next_due=None)
            elif due == "state":
                try:
                    found = due_by_state(resolved, keys)
                except (LaunchError, ProtocolError) as error:
                    raise dg.Failure(f"SQLMesh was asked for what is due: {error}") from error
            else:
                found = due_by_record(records, models, datetime.now(timezone.utc), created_at)
        if not found.keys:
            when = f"; the next model is due at {found.next_due:%Y-%m-%d %H:%M} UTC" if found.next_due else ""
            return dg.SkipReason(f"Nothing is due{when}.")
        return dg.RunRequest(
            run_key=None,
            # The whole job is asked for without naming any asset.
            asset_selection=None if len(found.keys) == len(models) else list(found.keys),
            tags={"sqlmesh/environment": environment},
        )

    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=crons,
        execution_timezone=zone,
        execution_fn=tick,
        default_status=default_status,
        description=f"Runs what is due in SQLMesh's environment {_shown(resource.environment)}, when a model's cron elapses.",
    )


def schedule_crons(
    models: Iterable[Model], granularity: Granularity = "union", now: datetime | None = None
) -> tuple[list[str], str]:
    """When a schedule of these models has to fire: cron strings, and their time zone.

    Models that no cron runs again and again count for nothing, nor do those that have ended; if there are no others, the schedule
    fires daily.
    """
    now = now or datetime.now(timezone.utc)
    crons = [
        (model.cron, model.cron_tz)
        for model in models
        if model.kind not in WITHOUT_TURNS and not _has_ended(model, now)
    ]
    crons = crons or [("@daily", None)]
    if granularity == "finest":
        finest = min(shortest_gap(*cron) for cron in crons)
        crons = [cron for cron in crons if shortest_gap(*cron) == finest]
    return union(crons)


def _has_ended(model: Model, now: datetime) -> bool:
    try:
        end = datetime.fromisoformat(str(model.end))
    except ValueError:
        return False  # none, or a relative one
    # A day, so that a date is over whatever the time zone, and the model's last interval has had its turn.
    return end.replace(tzinfo=end.tzinfo or timezone.utc) + timedelta(days=2) < now


def _shown(setting: str) -> str:
    """A setting as it can be told when definitions load: an environment variable is read later."""
    return f"${setting.env_var_name}" if isinstance(setting, dg.EnvVar) else setting


def _overlap(runs: Sequence[str]) -> dg.SkipReason:
    listed = ", ".join(runs)
    return dg.SkipReason(
        f"A run of these assets is not over: {listed}. What is due is left to the next tick."
    )
