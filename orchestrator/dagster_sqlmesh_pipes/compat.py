"""What this package uses of Dagster beyond its public interface, and where releases of Dagster differ.

Read against Dagster 1.12.0 and 1.13.29. What differs between them is found by looking for it, not by the version.

`get_step_execution_context` and the event constructors are what Dagster's own Pipes handler uses to write to the event log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from typing import Any, Literal

import dagster as dg
from dagster._core.definitions.assets.definition.asset_spec import (
    SYSTEM_METADATA_KEY_AUTO_CREATED_STUB_ASSET,
)
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import ASSET_RESUME_RETRY_TAG, RESUME_RETRY_TAG
from dagster._utils.env import using_dagster_dev
from dagster._utils.schedules import cron_string_iterator, is_valid_cron_string

from dagster_sqlmesh_pipes.installed import is_older_than
from sqlmesh_pipes_protocol.spans import Span

UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
"""Statuses of runs that are not over."""

Recordable = dg.MaterializeResult[Any] | dg.AssetCheckResult | dg.AssetMaterialization

_TELLS_TARGET = hasattr(dg.AssetCheckResult, "_get_target_materialization_data")
"""Whether Dagster says apart from the rest which materialization a check is of. Since 1.13.5."""

_RECORDED = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}


class CheckResult(dg.AssetCheckResult):
    """A result that says which check it is of, asset and name.

    For one of Dagster's own, Dagster gathers the names of all checks of the step, to see whether it is one of them, and does so twice:
    with 1,000 models, that alone takes several milliseconds of each check. This one it takes at its word, unless the step has no such
    check: then Dagster says so. Before Dagster 1.13.5 it is done once, by Dagster.
    """

    def to_asset_check_evaluation(self, step_context: Any) -> dg.AssetCheckEvaluation:
        """Made once, when Dagster records it: the second time it only looks for the name."""
        made: dg.AssetCheckEvaluation | None = self.__dict__.get("evaluation")
        if made is None:
            made = self._made(step_context) or super().to_asset_check_evaluation(step_context)
            self.__dict__["evaluation"] = made
        return made

    def _made(self, step_context: Any) -> dg.AssetCheckEvaluation | None:
        """None where this is for Dagster to do, or to refuse."""
        if not _TELLS_TARGET:
            return None
        key = check_key(self)
        assets = step_context.job_def.asset_layer.get_assets_def_for_node(step_context.node_handle)
        try:
            spec = assets.get_spec_for_check_key(key)
        except KeyError:
            return None
        return dg.AssetCheckEvaluation(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=self.passed,
            metadata=self.metadata,
            target_materialization_data=self._get_target_materialization_data(step_context, key),
            severity=self.severity,
            description=self.description,
            blocking=spec.blocking,
            partition=step_context.partition_key
            if step_context.has_partition_key and spec.partitions_def is not None
            else None,
        )


def check_key(result: dg.AssetCheckResult) -> dg.AssetCheckKey:
    """Of a result that says both asset and name, as all of ours do."""
    assert result.asset_key is not None  # noqa: S101 - narrows the type
    assert result.check_name is not None  # noqa: S101 - narrows the type
    return dg.AssetCheckKey(result.asset_key, result.check_name)


def keep_output_asset_keys(context: dg.AssetExecutionContext) -> None:
    """Have Dagster keep the keys of the step's assets, as long as the step lasts.

    It gathers them for each output, and of each of the step's assets and checks makes a set of all of them for that: 0.1 s for each
    materialization with 1,000 models and four checks each, 0.5 s with 2,000.
    """
    step = context.get_step_execution_context()
    keys = frozenset(context.selected_asset_keys)
    vars(step)["get_output_asset_keys"] = lambda: keys


def _takes(**attributes: Any) -> bool:
    """Whether Dagster takes an asset with some attributes."""
    try:
        dg.AssetSpec("asset", **attributes)
    except dg.DagsterInvalidDefinitionError:
        return False
    return True


MAX_KINDS = 10 if _takes(kinds=set("abcd")) else 3
"""How many kinds an asset may have. Three before Dagster 1.12.7."""

GROUPS_IN_GROUPS = _takes(group_name="marts/sales")
"""Whether a group may have groups in it. Since Dagster 1.13.9."""

HAS_COMPONENTS = not is_older_than(1, 13)
"""Whether Dagster's components are those that ours is built on: before 1.13 their state has other keys, which commands then do not find."""


def is_dev() -> bool:
    """Whether this process belongs to ``dagster dev`` or ``dg dev``."""
    return using_dagster_dev()


def is_stub(spec: dg.AssetSpec) -> bool:
    """Whether Dagster made the spec up, for a key that others depend on and nobody defines."""
    return SYSTEM_METADATA_KEY_AUTO_CREATED_STUB_ASSET in spec.metadata


def job_keys(job: Any, assets: Sequence[dg.AssetsDefinition]) -> Collection[dg.AssetKey]:
    """Which of some assets a job materializes: one of `dagster.define_asset_job`, or one that is resolved."""
    if isinstance(job, dg.JobDefinition):
        return set(job.asset_layer.executable_asset_keys)
    selection: dg.AssetSelection = job.selection
    return selection.resolve(assets, allow_missing=True)


NO_EVENT: Mapping[str, bool] = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
"""Metadata of a step's result that gives Dagster an output and records nothing of the asset."""


def read_by_other_steps(
    context: dg.AssetExecutionContext, metadata_key: str
) -> tuple[set[dg.AssetKey], set[dg.AssetKey]]:
    """The selected assets that another step of the run reads, and those of them that an asset with a metadata key reads.

    Dagster skips a step if one that it reads from gives no output.
    """
    layer = context.job_def.asset_layer
    selected, running = context.selected_asset_keys, set(layer.executable_asset_keys)
    by_any, by_marked = set(), set()
    for key in selected:
        readers = [child for child in layer.get(key).child_keys if child in running and child not in selected]
        if readers:
            by_any.add(key)
        if any(metadata_key in layer.get(reader).metadata for reader in readers):
            by_marked.add(key)
    return by_any, by_marked


def is_valid_cron(cron: str) -> bool:
    """Whether Dagster can read a cron string."""
    return is_valid_cron_string(cron)


def cron_ticks(cron: str, zone: str | None, start: datetime) -> Iterator[datetime]:
    """When a cron elapses, from a moment on, as Dagster's schedules have it. Without end."""
    return cron_string_iterator(start.timestamp(), cron, zone)


@dataclass(frozen=True, kw_only=True)
class CheckRecord:
    """What ``sqlmesh_execution_status`` last said of a model, or that it is about to.

    Attributes:
        running_in: id of a run that is to evaluate the check and is not over; nothing else is then known.
        as_of: the moment up to which the model was brought.
    """

    running_in: str | None = None
    status: str | None = None
    reason: str | None = None
    as_of: datetime | None = None
    next_due: datetime | None = None


def latest_checks(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]
) -> dict[dg.AssetCheckKey, CheckRecord]:
    """The latest records of many checks, in one query, and one for the runs that have not evaluated theirs.

    A check that a finished run left without a result is not in it: what became of it is not known.
    """
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    planned = {record.run_id for record in records.values() if record.status.value == "PLANNED"}
    unfinished: set[str] = set()
    if planned:
        runs = instance.get_runs(dg.RunsFilter(run_ids=list(planned), statuses=list(UNFINISHED)))
        unfinished = {run.run_id for run in runs}
    found: dict[dg.AssetCheckKey, CheckRecord] = {}
    for key, record in records.items():
        if record.status.value == "PLANNED":
            if record.run_id in unfinished:
                found[key] = CheckRecord(running_in=record.run_id)
            continue
        metadata = record.evaluation.metadata if record.evaluation is not None else {}
        values = {name: value.value for name, value in metadata.items()}
        found[key] = CheckRecord(
            status=_text(values.get("status")),
            reason=_text(values.get("reason")),
            as_of=_time(values.get("as_of")),
            next_due=_time(values.get("next_due")),
        )
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _time(seconds: object) -> datetime | None:
    """Of a timestamp's value."""
    return datetime.fromtimestamp(seconds, timezone.utc) if isinstance(seconds, float) else None


def parent_runs(context: dg.AssetExecutionContext) -> list[str]:
    """Ids of the runs that this one goes on with, latest first: Dagster re-executes them from a failure."""
    ids: list[str] = []
    run: dg.DagsterRun | None = context.run
    while (
        run is not None
        and run.parent_run_id
        and run.parent_run_id not in ids
        and "true" in (run.tags.get(RESUME_RETRY_TAG), run.tags.get(ASSET_RESUME_RETRY_TAG))
    ):
        ids.append(run.parent_run_id)
        run = context.instance.get_run_by_id(run.parent_run_id)
    return ids


Stage = Literal["starts", "runs", "found", "over"]


@dataclass(frozen=True, kw_only=True)
class Handle:
    """What the event log knows of a runner that a step started, so that another attempt at the step finds it, or what it did.

    Attributes:
        name: of the container or pod.
        run_id: that its events carry.
        dagster_run_id: the Dagster run that started it.
        began_at: when, in seconds since the epoch; once it runs, by its own clock.
        stage: it is about to start, has said what it sets out to do, was found by another attempt, or was seen to its end.
        due: what it sets out to fill, by FQN: pairs of milliseconds since the epoch. None before it has said so.
    """

    name: str
    run_id: str
    dagster_run_id: str
    began_at: float
    stage: Stage = "starts"
    due: Mapping[str, Sequence[Span]] | None = None


_HANDLE_KEY = "sqlmesh_runner"
_HANDLE_FIELDS = tuple(field.name for field in fields(Handle))


def record_handle(
    context: dg.AssetExecutionContext, handle: Handle, message: str, run: dg.DagsterRun | None = None
) -> None:
    """Write a handle down, and what became of its runner: an event of the step, and no result."""
    context.instance.report_engine_event(
        message,
        dagster_run=run or context.run,
        engine_event_data=EngineEventData(metadata={_HANDLE_KEY: dg.MetadataValue.json(asdict(handle))}),
        step_key=context.get_step_execution_context().step.key,
    )


def record_end(context: dg.AssetExecutionContext, handle: Handle, message: str) -> None:
    """Write down that a runner was seen to its end, in the run that started it as well: others may go on with that."""
    over = replace(handle, stage="over")
    record_handle(context, over, message)
    if handle.dagster_run_id != context.run_id:
        started_in = context.instance.get_run_by_id(handle.dagster_run_id)
        if started_in is not None:
            record_handle(context, over, message, started_in)


def labels(context: dg.AssetExecutionContext) -> dict[str, str]:
    """What Dagster's own containers and pods are labelled with: run, job, op, code location."""
    run = context.run
    found = {
        "dagster/run-id": run.run_id,
        "dagster/job": run.job_name,
        "dagster/op": context.get_step_execution_context().step.key,
    }
    if run.remote_job_origin is not None:
        location = run.remote_job_origin.repository_origin.code_location_origin.location_name
        found["dagster/code-location"] = location
    return found


Recorded = set[tuple[dg.AssetKey, str | None] | dg.AssetCheckKey]
"""What the event log has: materializations by asset key and partition, evaluations of checks."""


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A runner that an earlier attempt left before its end.

    Attributes:
        handle: what is known of it.
        recorded: what the event log has had of the step since it began.
        is_same_work: whether that was an attempt at this very step, in this run or in one that this run goes on with.
    """

    handle: Handle
    recorded: Recorded
    is_same_work: bool


_LOOKED_THROUGH = 20
"""How many failed runs of a job, or materializations of an asset, are looked through, the latest first."""


def unfinished_runners(context: dg.AssetExecutionContext) -> list[Unfinished]:
    """The runners that earlier attempts at the step left before their ends, the latest first.

    Attempts are those of this run, of the runs that it goes on with, and of the job's last run that failed or was canceled and got as far
    as this step: nobody may have gone on with that.
    """
    step_key = context.get_step_execution_context().step.key
    same_work = [context.run_id, *parent_runs(context)]
    handles = [found for run_id in same_work for found in _handles(context, run_id, step_key)]
    if not handles:
        failed = dg.RunsFilter(
            job_name=context.run.job_name,
            statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
        )
        for run in context.instance.get_runs(failed, limit=_LOOKED_THROUGH):
            handles = list(_handles(context, run.run_id, step_key))
            if handles:
                break
    latest: dict[str, Handle] = {}
    for handle in handles:
        known = latest.setdefault(handle.name, handle)
        if known.due is None and handle.due is not None:  # what it ran for was said before it was found
            latest[handle.name] = replace(known, due=handle.due, began_at=handle.began_at)
    unfinished = [handle for handle in latest.values() if handle.stage != "over"]
    return [
        Unfinished(
            handle=handle,
            recorded=recorded_since(
                context,
                dict.fromkeys((*same_work, *(one.dagster_run_id for one in handles))),
                min(one.began_at for one in handles if one.name == handle.name),
            ),
            is_same_work=handle.dagster_run_id in same_work,
        )
        for handle in unfinished
    ]


def recorded_since(context: dg.AssetExecutionContext, run_ids: Iterable[str], since: float) -> Recorded:
    """What the event logs of runs have of the step since a time, in seconds since the epoch."""
    step_key = context.get_step_execution_context().step.key
    recorded: Recorded = set()
    for run_id in run_ids:
        for record in context.instance.get_records_for_run(run_id, of_type=_RECORDED).records:
            event = record.event_log_entry.dagster_event
            if event is not None and event.step_key == step_key and record.event_log_entry.timestamp >= since:
                recorded |= _written(event)
    return recorded


def _handles(context: dg.AssetExecutionContext, run_id: str, step_key: str) -> Iterator[Handle]:
    """What a run's event log knows of a step's runners, the latest first. Nothing, where the step has succeeded since."""
    kinds = {dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.STEP_SUCCESS}
    for record in reversed(context.instance.get_records_for_run(run_id, of_type=kinds).records):
        event = record.event_log_entry.dagster_event
        if event is None or event.step_key != step_key:
            continue
        if event.event_type == dg.DagsterEventType.STEP_SUCCESS:
            return
        value = event.engine_event_data.metadata.get(_HANDLE_KEY)
        if isinstance(value, dg.JsonMetadataValue) and isinstance(value.data, Mapping):
            # Of a later release it may have more.
            yield Handle(**{name: value.data[name] for name in _HANDLE_FIELDS if name in value.data})


def later_materializations(
    context: dg.AssetExecutionContext, key: dg.AssetKey, since: float
) -> list[dg.AssetMaterialization]:
    """Those of an asset that the event log has since a time, in seconds since the epoch; of any run."""
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, after_timestamp=since), limit=_LOOKED_THROUGH
    ).records
    return [record.asset_materialization for record in records if record.asset_materialization is not None]


def _written(event: dg.DagsterEvent) -> Recorded:
    if event.event_type != dg.DagsterEventType.ASSET_MATERIALIZATION:
        return {event.asset_check_evaluation_data.asset_check_key}
    return {(event.asset_key, event.partition)} if event.asset_key is not None else set()


def unrecorded(
    context: dg.AssetExecutionContext, result: Recordable, recorded: Recorded
) -> Iterator[Recordable]:
    """What is news in a result; for a materialization that is not, an output that records nothing of the asset."""
    if not recorded:
        yield result
    elif isinstance(result, dg.AssetCheckResult):
        if check_key(result) not in recorded:
            yield result
    elif isinstance(result, dg.AssetMaterialization):
        if (result.asset_key, result.partition) not in recorded:
            yield result
    else:
        yield from _unrecorded_materialization(context, result, recorded)


def _unrecorded_materialization(
    context: dg.AssetExecutionContext, result: dg.MaterializeResult[Any], recorded: Recorded
) -> Iterator[Recordable]:
    key = result.asset_key
    partitions = _partitions_of_step(context.get_step_execution_context(), key) if key is not None else [None]
    missing = [partition for partition in partitions if key is None or (key, partition) not in recorded]
    if key is None or len(missing) == len(partitions):
        yield result
        return
    for partition in missing:
        yield dg.AssetMaterialization(key, metadata=result.metadata, partition=partition)
    checks = [
        check
        for each in result.check_results or ()
        for check in unrecorded(context, each, recorded)
        if isinstance(check, dg.AssetCheckResult)
    ]
    yield dg.MaterializeResult(asset_key=key, metadata=NO_EVENT, check_results=checks)


def record_missing(
    context: dg.AssetExecutionContext, results: Iterable[Recordable], since: float, recorded: Recorded
) -> None:
    """Write results to the event log of a step that takes no more of them, but for those that it already has.

    Once Dagster has been interrupted outside of the asset function it never asks the function for another result, and the one
    that it was just given may be recorded in part.

    Args:
        context: of the step.
        results: what it may not have.
        since: when this attempt began, in seconds since the epoch; what an earlier one recorded is another result.
        recorded: what it has had of the same runner before.
    """
    has = recorded_since(context, [context.run_id], since) | recorded
    _write(context.get_step_execution_context(), results, has)


def record(context: dg.AssetExecutionContext, results: Iterable[Recordable]) -> None:
    """Write to the event log of a step what it cannot be given as a result: other results of its checks, single partitions."""
    _write(context.get_step_execution_context(), results, recorded=set())


def _write(step: Any, results: Iterable[Recordable], recorded: Recorded) -> None:
    for result in results:
        checks: Iterable[dg.AssetCheckResult] = ()
        if isinstance(result, dg.AssetCheckResult):
            checks = [result]
        elif isinstance(result, dg.AssetMaterialization):
            _materialized(step, result, recorded)
        elif result.asset_key is not None and result.metadata != NO_EVENT:
            checks = result.check_results or ()
            for partition in _partitions_of_step(step, result.asset_key):
                materialization = dg.AssetMaterialization(
                    result.asset_key, metadata=result.metadata, partition=partition
                )
                _materialized(step, materialization, recorded)
        for check in checks:
            if check_key(check) not in recorded:
                dg.DagsterEvent.asset_check_evaluation(step, check.to_asset_check_evaluation(step))


def _materialized(step: Any, materialization: dg.AssetMaterialization, recorded: Recorded) -> None:
    if (materialization.asset_key, materialization.partition) not in recorded:
        dg.DagsterEvent.asset_materialization(step, materialization)


def _partitions_of_step(step: Any, key: dg.AssetKey) -> Sequence[str | None]:
    """The partitions that a step's result for an asset stands for, as Dagster takes it."""
    definition = step.job_def.asset_layer.get(key).partitions_def
    if definition is None or not step.has_partitions:
        return [None]
    return list(definition.get_partition_keys_in_range(step.partition_key_range))
