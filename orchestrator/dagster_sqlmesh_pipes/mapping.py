"""From a runner's events to Dagster's results: events in, results out; no clock, and nothing is asked but which partitions Dagster has.

executed  → a materialization with a result for each audit, and ``sqlmesh_execution_status`` passed; in a run for partitions
            that SQLMesh did not all fill, a materialization for each that it did
skipped   → no materialization; ``sqlmesh_execution_status`` not passed, a warning, with the reason
failed    → no materialization; results of the audits that ran; ``sqlmesh_execution_status`` not passed, an error

An audit that did not run in this run has no result.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import dagster as dg
from typing_extensions import assert_never

from dagster_sqlmesh_pipes.compat import NO_EVENT, CheckResult
from dagster_sqlmesh_pipes.endings import number
from dagster_sqlmesh_pipes.intervals import listed, spelled_intervals
from dagster_sqlmesh_pipes.partitions import PartitionedRun
from dagster_sqlmesh_pipes.recovery import Recovered
from dagster_sqlmesh_pipes.specs import LINEAGE_KEY, MODEL_KEY, SpecIndex, spelled
from dagster_sqlmesh_pipes.translator import EXECUTION_STATUS_CHECK, readable, with_readable_names
from sqlmesh_pipes_protocol.codec import moment_of
from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    BatchFinished,
    ErrorInfo,
    EvaluationStarted,
    Event,
    Heartbeat,
    Interval,
    Log,
    ModelExecuted,
    ModelFailed,
    ModelOutcome,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunStarted,
    UnknownEvent,
)
from sqlmesh_pipes_protocol.spans import merged, span_of

Result = dg.MaterializeResult[Any] | dg.AssetCheckResult | dg.AssetMaterialization
"""What Dagster is told. A plain materialization is of one partition, and goes to the event log directly."""

_WHOLE_TABLE_KINDS = {"FULL"}
"""Kinds that write all rows of their table in each run: what was processed is what is there."""
_NOTHING_TO_DO = {"up_to_date", "cron_not_due"}
TO_BE_TRIED_AGAIN = {"upstream_failed", "signal_not_ready", "interrupted"}
"""Reasons for a skip that leave the model due."""
_TOLD_BY_STATE = {"told_by": "SQLMesh's state"}
AS_OF_KEY = "as_of"
"""Metadata of ``sqlmesh_execution_status``: the moment up to which the model was brought, from which its next turn follows."""


class ResultMapper:
    """Follows one run. Yields each model's results when its terminal event comes, each model once.

    Args:
        index: the specs that the run is about.
        selected_keys: assets that Dagster selected; others yield nothing.
        selected_checks: checks that Dagster selected.
        already_materialized: by earlier attempts of the same work; not reported as skipped.
        tell_all: yield results of assets that Dagster did not select as well; somebody else has to record those.
        skips_pass: whether ``sqlmesh_execution_status`` passes for a model that was skipped because nothing was to do.
        partitions: what the run is for, where its assets have partitions.
        as_of: the moment up to which SQLMesh brings models; None for a run that is limited to a range of time.
        awaited: assets that other steps of the project wait for: where there was nothing to do for one, the step has an output all
            the same, which records nothing. Otherwise Dagster would skip those steps.
        read_elsewhere: assets that any other step waits for: the same, where an earlier attempt of the same work materialized one.
    """

    def __init__(
        self,
        index: SpecIndex,
        selected_keys: Collection[dg.AssetKey],
        selected_checks: Collection[dg.AssetCheckKey],
        already_materialized: Collection[dg.AssetKey] = (),
        *,
        tell_all: bool = False,
        skips_pass: bool = False,
        partitions: PartitionedRun | None = None,
        as_of: datetime | None = None,
        awaited: Collection[dg.AssetKey] = (),
        read_elsewhere: Collection[dg.AssetKey] = (),
    ) -> None:
        self._index = index
        self._keys = selected_keys
        self._checks = selected_checks
        self._already_materialized = set(already_materialized)
        self._audits: dict[str, dict[str, dict[Interval | None, AuditEvaluated]]] = {}
        """By model and identity, the latest evaluation of each interval; of a model that is over, all intervals in one."""
        self._told: dict[str, dict[str, bool]] = {}
        """Models whose results are out, and what their audits' results say."""
        self._materialized_now: set[str] = set()
        self._tell_all = tell_all
        self._skips_pass = skips_pass
        self._partitions = partitions
        self._as_of = as_of
        self._awaited = awaited
        self._read_elsewhere = read_elsewhere
        self._correlation_id: str | None = None
        self.failures: dict[str, ErrorInfo] = {}
        """Failed models, by FQN, in the order of their failing."""
        self.corrections: list[dg.AssetCheckResult] = []
        """Results that contradict one that is out: Dagster takes no second one from the step, its event log does."""
        self.unknown: dict[str, None] = {}
        """What ran and has no spec: models by FQN, audits as ``model: audit``, in order."""

    def key_of(self, fqn: str) -> dg.AssetKey | None:
        """A model's asset, whether it is selected or not."""
        return self._index.keys.get(fqn)

    def began_at(self, moment: datetime) -> None:
        """The run began earlier than now, and brings models up to that moment."""
        if self._as_of is not None:
            self._as_of = moment

    def results(self, event: Event | UnknownEvent) -> Iterator[Result]:
        """What an event means for Dagster: mostly nothing."""
        match event:
            case RunStarted():
                self._correlation_id = event.correlation_id
            case AuditEvaluated():
                evaluations = self._audits.setdefault(event.model, {}).setdefault(event.audit, {})
                if event.model in self._told:  # SQLMesh has restarted: what it says now stands
                    evaluations.pop(None, None)
                evaluations[event.interval] = event
            case ModelExecuted():
                yield from self._executed(event)
                self._shed(event.model)
            case ModelFailed():
                yield from self._failed(event)
                self._shed(event.model)
            case ModelSkipped():
                yield from self._skipped(event)
            case RunFinished():
                for outcome in event.digest:
                    yield from self._from_digest(outcome)
                if event.status in ("success", "nothing_to_do", "failed"):
                    yield from self._not_deployed()
                yield from self._standalone_results()
            case (
                EvaluationStarted() | ModelStarted() | BatchFinished() | Log() | Heartbeat() | UnknownEvent()
            ):
                return
            case _:
                assert_never(event)

    def _executed(self, event: ModelExecuted) -> Iterator[Result]:
        key = self._key_to_tell(event.model)
        if key is None:
            return
        metadata: dict[str, Any] = {
            "intervals": spelled_intervals(event.intervals),
            "batches": event.batches,
            "duration_seconds": event.duration_ms / 1000,
        }
        if event.rows is not None:
            metadata["rows_processed"] = event.rows
        if event.bytes is not None:
            metadata["bytes_processed"] = event.bytes
        if event.restated_for:
            metadata["restated_for"] = ", ".join(map(readable, event.restated_for))
        storage = event.storage
        if storage is not None:
            metadata["dagster/table_name"] = storage.view
            if storage.kind in _WHOLE_TABLE_KINDS and event.batches == 1 and event.rows is not None:
                metadata["dagster/row_count"] = event.rows
            metadata["physical_table"] = storage.physical_table
            metadata["snapshot_version"] = storage.version
            metadata["snapshot_id"] = storage.snapshot_id
        if self._correlation_id is not None:
            metadata["sqlmesh_correlation_id"] = self._correlation_id
        if event.model in self._index.lineage:
            metadata[LINEAGE_KEY] = self._index.lineage[event.model]
        metadata[MODEL_KEY] = event.model
        version = dg.DataVersion(storage.data_version) if storage is not None else None
        yield from self._materialized(
            key, event.model, event.intervals, metadata, "SQLMesh ran the model.", version
        )

    def _materialized(
        self,
        key: dg.AssetKey,
        fqn: str,
        intervals: Sequence[Interval],
        metadata: Mapping[str, Any],
        message: str,
        version: dg.DataVersion | None = None,
    ) -> Iterator[Result]:
        self._materialized_now.add(fqn)
        missing = yield from self._other_partitions(key, intervals, metadata)
        extra = {**({"partitions_not_filled": listed(missing)} if missing else {}), **self._brought_up_to()}
        checks = [
            *self._status(key, "executed", message, passed=True, extra=extra),
            *self._audit_results(key, fqn),
        ]
        if missing:  # a result of the step would be taken for all partitions that were asked for
            yield from checks
            return
        yield dg.MaterializeResult(
            asset_key=key, metadata=metadata, data_version=version, check_results=checks
        )

    def recovered(self, model: Recovered, why: str) -> Iterator[Result]:
        """What a model's intervals in SQLMesh's state mean, where no event will tell.

        Args:
            model: what is known of it.
            why: why none will, as a sentence.
        """
        if model.is_complete:
            key = self._key_to_tell(model.model)
            if key is not None:
                message = f"SQLMesh has recorded the model as done. {why}"
                yield from self._materialized(
                    key, model.model, model.intervals, _recorded_metadata(model), message
                )
        elif model.has_begun:
            error = ErrorInfo(error_class="", message=why, category="cancelled", transient=True)
            yield from self._failed(
                ModelFailed(
                    model=model.model,
                    error=error,
                    interval=None,
                    failed_audits=(),
                    intervals=model.intervals,
                    batches=len(model.intervals),
                    duration_ms=None,
                )
            )
        else:
            yield from self._skipped(ModelSkipped(model=model.model, reason="interrupted", detail=why))

    def untold(self, why: str, unknown: Collection[str] = ()) -> Iterator[Result]:
        """Selected models of which nothing was told, and nothing will be: they were interrupted.

        Args:
            why: as a sentence.
            unknown: models that are left out.
        """
        for fqn, key in self._index.keys.items():
            if key in self._keys and fqn not in self._told and fqn not in unknown:
                yield from self._skipped(ModelSkipped(model=fqn, reason="interrupted", detail=why))

    def recovered_of_earlier_run(
        self, model: Recovered, *, is_same_work: bool
    ) -> Iterator[dg.AssetMaterialization | dg.AssetCheckResult]:
        """The same of a model of an earlier run. For the event log: this run has results of its own.

        Args:
            model: what is known of it.
            is_same_work: whether this run goes on with the earlier one; the model is then not told as skipped.
        """
        key = self._index.keys[model.model]
        metadata = _recorded_metadata(model)
        if self._partitions is None:
            yield dg.AssetMaterialization(key, metadata=metadata)
        else:
            for partition in self._partitions.filled(model.intervals):
                yield dg.AssetMaterialization(key, partition=partition, metadata=metadata)
        if is_same_work and model.is_complete and key in self._keys:
            self._already_materialized.add(key)
            message = (
                "SQLMesh has recorded the model as done. An earlier attempt's process died before it said so."
            )
            yield from self._status(key, "executed", message, passed=True, extra=self._brought_up_to())

    def _other_partitions(
        self,
        key: dg.AssetKey,
        intervals: Sequence[Interval],
        metadata: Mapping[str, Any],
        *,
        failed: bool = False,
    ) -> Generator[Result, None, list[str]]:
        """Materializations of filled partitions that the step's result does not stand for: all of them, if there is to be none.

        Returns:
            The partitions that were asked for and are not filled; then the step is to have no result.
        """
        run = self._partitions
        if run is None:
            return []
        filled = run.filled(intervals)
        missing = run.missing(key, filled)
        for partition in filled:
            if missing or failed or partition not in run.asked:
                yield dg.AssetMaterialization(key, partition=partition, metadata=metadata)
        return missing

    def _failed(self, event: ModelFailed) -> Iterator[Result]:
        error = self._in_words(event)
        self.failures.setdefault(event.model, error)
        if event.model not in self._index.keys:
            return  # no asset of ours, as an external model with an audit: the step's failure names it
        key = self._key_to_tell(event.model)
        if key is None:
            return
        extra: dict[str, Any] = {
            "reason": error.category,
            "transient": error.transient,
        }
        if error.error_class:
            extra["error_class"] = error.error_class
        if event.interval is not None:
            extra["failed_interval"] = spelled_intervals([event.interval])
        if event.intervals:
            extra["intervals_done"] = spelled_intervals(event.intervals)
        if event.failed_audits:
            extra["failed_audits"] = ", ".join(event.failed_audits)
        if error.traceback:
            extra["traceback"] = dg.MetadataValue.md(f"```\n{error.traceback}\n```")
        done = {"intervals": spelled_intervals(event.intervals), MODEL_KEY: event.model}
        yield from self._other_partitions(key, event.intervals, done, failed=True)
        yield from self._status(
            key,
            "failed",
            error.message,
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR,
            extra=extra,
        )
        yield from self._audit_results(key, event.model)

    def _skipped(self, event: ModelSkipped) -> Iterator[Result]:
        if event.reason == "not_runnable" and event.model not in self._index.keys:
            return  # an embedded model: no asset, and nothing that ran
        key = self._key_to_tell(event.model)
        if key is None:
            return
        if key in self._already_materialized:
            if key in self._read_elsewhere:
                yield dg.MaterializeResult(asset_key=key, metadata=NO_EVENT)
            return
        extra: dict[str, Any] = {"reason": event.reason}
        if event.blocked_by:
            extra["blocked_by"] = ", ".join(map(readable, event.blocked_by))
        if event.next_due:
            extra["next_due"] = dg.MetadataValue.timestamp(moment_of(event.next_due))
        if event.reason not in TO_BE_TRIED_AGAIN:
            extra |= self._brought_up_to()
        detail = f"Skipped. {with_readable_names(event.detail)}"
        if self._partitions is not None and event.reason == "up_to_date":
            detail += " SQLMesh does not do it again without a restatement: `sqlmesh plan --restate-model`."
        yield from self._status(
            key,
            "skipped",
            detail,
            passed=self._skips_pass and event.reason in _NOTHING_TO_DO,
            severity=dg.AssetCheckSeverity.WARN,
            extra=extra,
        )
        yield from self._audit_results(key, event.model)
        if key in self._awaited and event.reason in _NOTHING_TO_DO:
            yield dg.MaterializeResult(asset_key=key, metadata=NO_EVENT)

    def _standalone_results(self) -> Iterator[Result]:
        """A standalone audit is a check on each model that it reads. It has no terminal event: told at the end."""
        for audits in self._audits.values():
            for evaluations in audits.values():
                ran = _that_ran(evaluations)
                if not ran or not ran[0].standalone:
                    continue
                name = ran[0].model
                if name not in self._index.standalone and not self._index.keys.keys().isdisjoint(
                    ran[0].targets
                ):
                    self.unknown[name] = None
                for key, check in self._index.standalone.get(name, ()):
                    if self._is_wanted(key, check):
                        yield _audit_result(key, check, ran)

    def _from_digest(self, outcome: ModelOutcome) -> Iterator[Result]:
        """The run's last word on a model: results of a terminal event that was lost, and of audits that were."""
        self._repair_audits(outcome)
        if outcome.model in self._told:
            yield from self._correct(outcome)
            return
        match outcome.status:
            case "executed":
                executed = ModelExecuted(
                    model=outcome.model,
                    intervals=outcome.intervals,
                    batches=len(outcome.intervals),
                    duration_ms=0,
                )
                yield from self._executed(executed)
            case "failed":
                yield from self._failed(
                    ModelFailed(
                        model=outcome.model,
                        error=outcome.error or _unknown_error(),
                        interval=None,
                        failed_audits=tuple(
                            audit.audit
                            for audit in outcome.audits
                            if audit.blocking and not audit.passed and not audit.skipped
                        ),
                        intervals=outcome.intervals,
                        batches=len(outcome.intervals),
                        duration_ms=None,
                    )
                )
            case "skipped":
                reason = outcome.reason or "interrupted"
                yield from self._skipped(
                    ModelSkipped(model=outcome.model, reason=reason, detail=f"Reason: {reason}.")
                )

    def _repair_audits(self, outcome: ModelOutcome) -> None:
        seen = self._audits.setdefault(outcome.model, {})
        for audit in outcome.audits:
            ran = _that_ran(seen.get(audit.audit, {}))
            if bool(ran) is audit.skipped or all(e.passed for e in ran) is not (
                audit.passed or audit.skipped
            ):
                seen[audit.audit] = {None: audit.as_evaluation(outcome.model)}

    def _correct(self, outcome: ModelOutcome) -> Iterator[Result]:
        """What was told of a model and is not so: the run was restarted since, or an audit's event was lost."""
        if outcome.status == "failed":
            self.failures.setdefault(outcome.model, outcome.error or _unknown_error())
        elif (
            outcome.status == "executed"
            and self.failures.pop(outcome.model, None) is not None
            and outcome.model not in self._materialized_now
        ):
            self._materialized_now.add(outcome.model)
            yield dg.MaterializeResult(
                asset_key=self._index.keys[outcome.model],
                metadata={"intervals": spelled_intervals(outcome.intervals), MODEL_KEY: outcome.model},
            )
        told = dict(self._told[outcome.model])
        for result in self._audit_results(self._index.keys[outcome.model], outcome.model):
            name = result.check_name or ""
            if name not in told:
                yield result
            elif told[name] is not result.passed:
                self.corrections.append(result)

    def _not_deployed(self) -> Iterator[Result]:
        """Models that were asked for with the whole project, and that the environment does not have: the digest has told of all others."""
        for fqn, key in self._index.keys.items():
            if key in self._keys and fqn not in self._told:
                yield from self._skipped(
                    ModelSkipped(
                        model=fqn,
                        reason="not_deployed",
                        detail="The model is not in the environment: deploy it with `sqlmesh plan`.",
                    )
                )

    def _shed(self, fqn: str) -> None:
        """Of a model's audits keep whether they passed, for the digest: a run of many batches has many queries."""
        for evaluations in self._audits.get(fqn, {}).values():
            shown = _shown(_that_ran(evaluations) or list(evaluations.values()))
            evaluations.clear()
            evaluations[None] = replace(shown, query=None, interval=None)

    def _key_to_tell(self, fqn: str) -> dg.AssetKey | None:
        """The model's key where its results are still to be yielded."""
        key = self._index.keys.get(fqn)
        if key is None:
            self.unknown[fqn] = None
            return None
        if fqn in self._told or not (self._tell_all or key in self._keys):
            return None
        self._told[fqn] = {}
        return key

    def _is_wanted(self, key: dg.AssetKey, check: str) -> bool:
        # Of an asset that Dagster did not select, no check is selected either.
        return dg.AssetCheckKey(key, check) in self._checks or (self._tell_all and key not in self._keys)

    def _status(
        self,
        key: dg.AssetKey,
        status: str,
        message: str,
        *,
        passed: bool,
        severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
        extra: Mapping[str, Any],
    ) -> Iterator[dg.AssetCheckResult]:
        if self._is_wanted(key, EXECUTION_STATUS_CHECK):
            yield CheckResult(
                asset_key=key,
                check_name=EXECUTION_STATUS_CHECK,
                passed=passed,
                severity=severity,
                description=message,
                metadata={
                    "status": status,
                    # In a run's log Dagster shows metadata, and no description.
                    **({"message": message} if status != "executed" else {}),
                    **extra,
                },
            )

    def _brought_up_to(self) -> dict[str, dg.MetadataValue[Any]]:
        return {AS_OF_KEY: dg.MetadataValue.timestamp(self._as_of)} if self._as_of is not None else {}

    def _in_words(self, event: ModelFailed) -> ErrorInfo:
        """Why a model failed. Of audits: which, and on how many rows; where in SQLMesh it raised tells a reader nothing."""
        if event.error.category != "audit" or not event.failed_audits:
            return event.error
        found = []
        for name in event.failed_audits:
            evaluations = self._audits.get(event.model, {}).get(name, {}).values()
            rows = sum(evaluation.failing_rows or 0 for evaluation in evaluations)
            found.append(f"{name} ({number(rows, 'row')})" if rows else name)
        message = f"{'Audits' if len(found) > 1 else 'Audit'} failed: {', '.join(found)}."
        return replace(event.error, error_class="", message=message, traceback=None)

    def _audit_results(self, key: dg.AssetKey, fqn: str) -> Iterator[dg.AssetCheckResult]:
        for identity, evaluations in self._audits.get(fqn, {}).items():
            name = self._index.checks.get((fqn, identity))
            if name is None:
                self.unknown[f"{fqn}: {identity}"] = None
                continue
            ran = _that_ran(evaluations)
            if ran and self._is_wanted(key, name):
                result = _audit_result(key, name, ran)
                self._told[fqn].setdefault(name, result.passed)
                yield result


def _that_ran(evaluations: Mapping[Interval | None, AuditEvaluated]) -> list[AuditEvaluated]:
    return [evaluation for evaluation in evaluations.values() if not evaluation.skipped]


def _shown(evaluations: Sequence[AuditEvaluated]) -> AuditEvaluated:
    """The evaluation that stands for all of an audit: the first that failed, or else the last."""
    return next((each for each in evaluations if not each.passed), evaluations[-1])


def _audit_result(key: dg.AssetKey, name: str, evaluations: Sequence[AuditEvaluated]) -> dg.AssetCheckResult:
    """One result for an audit's evaluations on all batches: failed if one failed, and then that one is shown."""
    failed = [evaluation for evaluation in evaluations if not evaluation.passed]
    shown = _shown(evaluations)
    failing_rows = sum(evaluation.failing_rows or 0 for evaluation in evaluations)
    metadata: dict[str, Any] = {
        "failing_rows": failing_rows,
        "blocking": shown.blocking,
    }
    if shown.arguments:
        metadata["arguments"] = spelled(shown.arguments)
    if shown.query:
        metadata["query"] = dg.MetadataValue.md(f"```sql\n{shown.query}\n```")
    intervals = [e.interval for e in (failed or evaluations) if e.interval is not None]
    if failed and intervals:
        metadata["failed_intervals"] = spelled_intervals(intervals)
    elif intervals:
        metadata["intervals"] = spelled_intervals(merged(map(span_of, intervals)))
    return CheckResult(
        asset_key=key,
        check_name=name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if shown.blocking else dg.AssetCheckSeverity.WARN,
        description=f"{number(failing_rows, 'row')} failed." if failed else None,
        metadata=metadata,
    )


def _unknown_error() -> ErrorInfo:
    return ErrorInfo(
        error_class="unknown", message="The runner did not say why.", category="internal", transient=False
    )


def _recorded_metadata(model: Recovered) -> dict[str, Any]:
    return {"intervals": spelled_intervals(model.intervals), **_TOLD_BY_STATE, MODEL_KEY: model.model}
