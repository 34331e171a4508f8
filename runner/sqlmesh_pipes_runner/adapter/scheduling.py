"""A run: SQLMesh's context and scheduler, which say what they do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlglot import exp
from sqlmesh.core.analytics import python_api_analytics
from sqlmesh.core.context import Context
from sqlmesh.core.environment import EnvironmentNamingInfo
from sqlmesh.core.scheduler import Scheduler
from sqlmesh.core.snapshot import DeployabilityIndex, Snapshot, SnapshotEvaluator, merge_intervals
from sqlmesh.core.state_sync import StateSync
from sqlmesh.utils import CompletionStatus
from sqlmesh.utils.date import now, to_datetime, to_timestamp

from sqlmesh_pipes_protocol.codec import moment_of
from sqlmesh_pipes_protocol.events import RunStarted, Storage, Versions
from sqlmesh_pipes_runner.adapter.audits import failed_audits, tap_audits
from sqlmesh_pipes_runner.adapter.containment import models_contained
from sqlmesh_pipes_runner.adapter.loading import exits_are_errors
from sqlmesh_pipes_runner.adapter.selection import check_selection, check_times
from sqlmesh_pipes_runner.adapter.state import StateContext
from sqlmesh_pipes_runner.adapter.turns import next_due
from sqlmesh_pipes_runner.cancel import Cancellation
from sqlmesh_pipes_runner.failures import error_info
from sqlmesh_pipes_runner.garbage import keep_what_is_loaded
from sqlmesh_pipes_runner.options import RunOptions
from sqlmesh_pipes_runner.recorder import RunRecorder, Skip


def _without_analytics(method: Any) -> Any:
    """What SQLMesh's analytics are wrapped around; the method itself where they are not, or something else is around them."""
    is_wrapped = method.__code__ is python_api_analytics(lambda: None).__code__
    return method.__wrapped__ if is_wrapped else method


class ReportingContext(StateContext):
    """A SQLMesh context whose scheduler reports to a recorder."""

    run = _without_analytics(Context.run)
    """Without `python_api_analytics`: it imports IPython to find out whether a notebook calls, which takes 0.1 s of the 1.1 s of a run
    with nothing to do, and then reports nothing, for it finds click among the callers."""

    def __init__(
        self,
        options: RunOptions,
        configs: dict[Path, Any],
        recorder: RunRecorder,
        cancellation: Cancellation,
        versions: Versions,
    ) -> None:
        self._recorder = recorder
        self._cancellation = cancellation
        self._versions = versions
        self.run_scheduler: ReportingScheduler | None = None
        # Nothing is read before the run lock is held: `run_reported` loads.
        super().__init__(options, configs, load=False)

    def create_scheduler(
        self, snapshots: Iterable[Snapshot], snapshot_evaluator: SnapshotEvaluator
    ) -> ReportingScheduler:
        keep_what_is_loaded()  # the snapshots as well; from here on models run
        tap_audits(snapshot_evaluator, self._recorder)
        self.run_scheduler = ReportingScheduler(
            snapshots,
            snapshot_evaluator,
            self.state_sync,
            default_catalog=self.default_catalog,
            max_workers=self.concurrent_tasks,
            console=self.console,
            notification_target_manager=self.notification_target_manager,
        )
        self.run_scheduler.report_to(
            self._recorder, self._cancellation, self._options, self._started, self.default_dialect
        )
        return self.run_scheduler

    def run_reported(self) -> CompletionStatus:
        """``sqlmesh run`` with the options of this context.

        Raises:
            UsageError: the environment has never been planned, or no model is selected.
        """
        options = self._options
        check_times(options)
        # As `sqlmesh run` does: with one project nothing is loaded, models come from the state.
        if len(options.projects) > 1:
            keep_what_is_loaded()  # to parse models leaves much behind
            self.load()
        environment = self.deployed_environment().name
        status: CompletionStatus = self.run(
            environment,
            start=options.start,
            end=options.end,
            execution_time=options.execution_time,
            skip_janitor=options.skip_janitor,
            ignore_cron=options.ignore_cron,
            select_models=options.select_models,
            no_auto_upstream=not options.auto_upstream,
        )
        return status

    def _new_state_sync(self) -> StateSync:
        state_sync = super()._new_state_sync()
        _ = (
            self.engine_adapter.cursor
        )  # a run needs the warehouse as well; connected here for the same reason
        return state_sync

    def _started(self, scheduler: ReportingScheduler, selected: Sequence[str]) -> None:
        options = self._options
        selection = options.exact_models if options.exact_models is not None else options.select_models
        self._recorder.run_started(
            RunStarted(
                environment=self.target_environment,
                gateway=self.selected_gateway,
                versions=self._versions,
                selection=selection,
                models_deployed=len(scheduler.runnable_models()),
                models_selected=len(selected),
                start=options.start,
                end=options.end,
                execution_time=options.execution_time,
                ignore_cron=options.ignore_cron,
                correlation_id=scheduler.correlation_id,
            ),
            selected,
        )


class ReportingScheduler(Scheduler):
    """SQLMesh's scheduler; says what it is given and how each batch ends."""

    def report_to(
        self,
        recorder: RunRecorder,
        cancellation: Cancellation,
        options: RunOptions,
        started: Callable[[ReportingScheduler, Sequence[str]], None],
        dialect: str | None,
    ) -> None:
        self._recorder = recorder
        self._cancellation = cancellation
        self._options = options
        self._report_started = started
        self._dialect = dialect
        self._naming: EnvironmentNamingInfo | None = None
        self._deployability = DeployabilityIndex.all_deployable()

    def run(self, environment: Any, *args: Any, **kwargs: Any) -> CompletionStatus:
        self._cancellation.check()
        if self._options.exact_models is not None:
            kwargs["selected_snapshots"] = self._exact_selection(self._options.exact_models)
        elif self._options.select_models is not None:
            check_selection(
                self._options.select_models,
                kwargs.get("selected_snapshots"),
                self.snapshots_by_name,
                default_catalog=self.default_catalog,
                dialect=self._dialect,
            )
        self._recorder.storage_of = self._storage
        self._report_started(self, self._selected_models(kwargs.get("selected_snapshots")))

        environment_changed: Callable[[], bool] | None = kwargs.get("circuit_breaker")

        def stop_or_restart() -> bool:
            self._cancellation.check()
            return environment_changed is not None and environment_changed()

        kwargs["circuit_breaker"] = stop_or_restart
        with self._cancellation.between_batches_only(), models_contained():
            return super().run(environment, *args, **kwargs)

    def run_merged_intervals(
        self,
        *,
        environment_naming_info: EnvironmentNamingInfo,
        deployability_index: DeployabilityIndex,
        **given: Any,
    ) -> Any:
        # How the environment names its views, and which tables it uses: from SQLMesh, which has just found out.
        self._naming, self._deployability = environment_naming_info, deployability_index
        return super().run_merged_intervals(
            environment_naming_info=environment_naming_info, deployability_index=deployability_index, **given
        )

    def evaluate(self, snapshot: Snapshot, start: Any, end: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            with exits_are_errors():
                return super().evaluate(snapshot, start, end, *args, **kwargs)
        except Exception as error:  # reported, and raised again
            self._report_failure(
                snapshot,
                error,
                (to_timestamp(start), to_timestamp(end)),
                failed_audits(error, snapshot),
            )
            raise

    def _report_failure(
        self,
        snapshot: Snapshot,
        error: Exception,
        span: tuple[int, int] | None = None,
        audits: tuple[str, ...] = (),
    ) -> None:
        if snapshot.is_model:
            self._recorder.batch_failed(snapshot.name, span, error_info(error), audits)
        else:
            self._recorder.standalone_audit_failed(snapshot.name, error_info(error))

    def _check_ready_intervals(self, snapshot: Snapshot, *args: Any, **kwargs: Any) -> Any:
        # Private, and the only place that knows whose signal raised: SQLMesh breaks off the whole run for it.
        try:
            with exits_are_errors():
                return super()._check_ready_intervals(snapshot, *args, **kwargs)
        except Exception as error:  # reported, and raised again
            info = error_info(error)
            signals = ", ".join(name for name, _ in snapshot.model.signals)
            message = f"The signal {signals} raised: {info.message}"
            self._recorder.batch_failed(snapshot.name, None, replace(info, message=message))
            raise

    @property
    def correlation_id(self) -> str | None:
        """What SQLMesh marks the run's queries with."""
        correlation = getattr(self.snapshot_evaluator.adapter, "correlation_id", None)
        return str(correlation) if correlation else None

    def _storage(self, fqn: str, done: Sequence[tuple[int, int]]) -> Storage | None:
        """What is known of where the data is: told along with a model, and no reason to fail it."""
        try:
            return self._storage_of(fqn, done)
        except Exception as error:  # noqa: BLE001 - called from within a batch that is done
            self._recorder.log("warning", "sqlmesh-runner", f"The table of {fqn} is not known: {error!r}")
            return None

    def _storage_of(self, fqn: str, done: Sequence[tuple[int, int]]) -> Storage | None:
        snapshot = self.snapshots_by_name.get(fqn)
        if snapshot is None or not snapshot.version or self._naming is None:
            return None
        deployable = self._deployability.is_deployable(snapshot)
        earlier = (
            snapshot.intervals if self._deployability.is_representative(snapshot) else snapshot.dev_intervals
        )
        filled = repr(merge_intervals([*earlier, *done])).encode()
        adapter = self.snapshot_evaluator.get_adapter(snapshot.model_gateway)
        kind = snapshot.model_kind_name
        view = snapshot.qualified_view_name.for_environment(self._naming, dialect=adapter.dialect)
        return Storage(
            kind=kind.value if kind else "",
            snapshot_id=snapshot.identifier,
            version=snapshot.version,
            physical_table=_plain_name(snapshot.table_name(is_deployable=deployable)),
            view=_plain_name(view),
            data_version=f"{snapshot.version}-{hashlib.sha256(filled).hexdigest()[:12]}",
        )

    def runnable_models(self) -> list[str]:
        """FQNs of the deployed models, external ones left out, in topological order where SQLMesh gave one."""
        return [s.name for s in self.snapshots.values() if s.is_model and not s.model.kind.is_external]

    def blocking_failures(self, fqn: str, failed: set[str]) -> tuple[str, ...]:
        """Those of the failed models that a model depends on, directly or not."""
        return tuple(sorted(failed & self._upstream([fqn]) - {fqn}))

    def why_not_run(self, fqn: str) -> Skip:
        """Why SQLMesh had nothing to do for a model, read from its snapshot."""
        snapshot = self.snapshots_by_name.get(fqn)
        if snapshot is None:
            return Skip(
                reason="not_deployed",
                detail="The model is not in the environment: deploy it with `sqlmesh plan`.",
            )
        kind = snapshot.model_kind_name
        if snapshot.is_symbolic:
            return Skip(
                reason="not_runnable",
                detail=f"SQLMesh never runs a model of kind {kind.value if kind else '?'}.",
            )
        at = to_datetime(self._options.execution_time) if self._options.execution_time else now()
        due = next_due(snapshot, at)
        if snapshot.is_seed:
            return Skip(
                reason="up_to_date", detail="The seed is loaded; it runs again when its file changes."
            )
        if due is None:
            return Skip(reason="up_to_date", detail=f"The model ends at {snapshot.node.end} and is complete.")
        node_start = snapshot.node.start
        if node_start and to_datetime(node_start) > at:
            return Skip(reason="cron_not_due", detail=f"The model starts at {node_start}.")
        if self._options.ignore_cron or self._options.start or self._options.end:
            return Skip(reason="up_to_date", detail="Every interval in the range asked for is done.")
        return Skip(
            reason="cron_not_due",
            detail=f"Its cron {snapshot.node.cron} elapses next at {moment_of(due):%Y-%m-%d %H:%M} UTC.",
            next_due=due,
        )

    def _selected_models(self, selected: Iterable[str] | None) -> list[str]:
        if self._options.exact_models is not None:
            chosen = dict.fromkeys((*self._options.exact_models, *(selected or ())))
        elif selected is not None:
            names = set(selected)
            chosen = dict.fromkeys(fqn for fqn in self.snapshots_by_name if fqn in names)
        else:
            return self.runnable_models()
        return [
            fqn
            for fqn in chosen
            if (snapshot := self.snapshots_by_name.get(fqn)) is None
            or (snapshot.is_model and not snapshot.is_external)
        ]

    def _exact_selection(self, models: Sequence[str]) -> set[str]:
        """What SQLMesh is to run: the models, and the standalone audits that read nothing but them.

        SQLMesh's own selection leaves standalone audits out. What an audit reads through an embedded model counts, the
        embedded model itself and external ones do not: nobody runs them.
        """
        deployed = {fqn for fqn in models if fqn in self.snapshots_by_name}
        selected = self._upstream(deployed) if self._options.auto_upstream else deployed
        for snapshot in self.snapshots.values():
            if snapshot.is_audit:
                read = {parent.name for parent in snapshot.parents if self._is_run(parent.name)}
                if read and read <= selected:
                    selected = selected | {snapshot.name}
        return selected

    def _is_run(self, fqn: str) -> bool:
        snapshot = self.snapshots_by_name.get(fqn)
        return snapshot is None or not snapshot.is_symbolic

    def _upstream(self, models: Iterable[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(models)
        while waiting:
            fqn = waiting.pop()
            if fqn not in found and (snapshot := self.snapshots_by_name.get(fqn)):
                found.add(fqn)
                waiting.extend(parent.name for parent in snapshot.parents)
        return found


def _plain_name(table: str) -> str:
    """The parts of a table's name without quotes, as people write it."""
    parsed = exp.to_table(table)
    return ".".join(part.name for part in parsed.parts)
