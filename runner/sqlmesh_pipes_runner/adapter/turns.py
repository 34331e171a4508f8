"""When models are to run: what is due now, and when each model's next turn is."""

from __future__ import annotations

from datetime import datetime

from sqlmesh.core.constants import PROD
from sqlmesh.core.scheduler import Scheduler
from sqlmesh.core.snapshot import (
    DeployabilityIndex,
    Snapshot,
    SnapshotEvaluator,
    apply_auto_restatements,
    snapshots_to_dag,
)
from sqlmesh.utils.date import make_exclusive, now_timestamp, to_datetime, to_timestamp

from sqlmesh_pipes_protocol.codec import timestamp
from sqlmesh_pipes_protocol.due import DueReport, ModelDue
from sqlmesh_pipes_protocol.events import Timestamp
from sqlmesh_pipes_protocol.spans import interval, moment
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION
from sqlmesh_pipes_runner.adapter.selection import check_selection, check_times
from sqlmesh_pipes_runner.adapter.state import ReadingContext
from sqlmesh_pipes_runner.errors import UsageError


def next_due(snapshot: Snapshot, at: datetime) -> Timestamp | None:
    """When the cron of a node elapses next after ``at``, and after its own start; None if it has had its last turn."""
    node = snapshot.node
    if snapshot.is_seed:
        return None
    if node.end and node.cron_floor(at) >= make_exclusive(node.end):
        return None
    after = max(at, to_datetime(node.start)) if node.start else at
    return moment(to_timestamp(node.cron_next(after)))


class DueContext(ReadingContext):
    """Finds out what a run would do. Only the state is asked, and the warehouse for its catalog where models are selected."""

    def due(self) -> DueReport:
        """What ``sqlmesh run`` would find missing, with the options of this context.

        Follows `Context._run` and `Scheduler._run_or_audit`, up to where these begin to work. What they do first is left
        out, since it writes: the janitor, and the record of automatic restatements, which are only worked out here. An
        environment that is being planned is taken as it is: a run would wait for it.

        Raises:
            UsageError: there is no such environment, no such model, or a time is none.
        """
        options = self._options
        check_times(options)
        environment = self.deployed_environment()
        execution_time = options.execution_time or now_timestamp()
        at = to_datetime(execution_time)
        found = self.state_reader.get_snapshots(environment.snapshots)
        if not found:
            raise UsageError(f"There is no model in the environment {environment.name!r}.")
        # Nothing is evaluated: the adapter is never connected.
        scheduler = Scheduler(
            found.values(), SnapshotEvaluator(self.engine_adapter), self.state_sync, default_catalog=None
        )
        selected = None
        if options.select_models is not None:
            selected = self._select_models_for_run(
                options.select_models, not options.auto_upstream, scheduler.snapshots.values()
            )
            check_selection(
                options.select_models,
                selected,
                scheduler.snapshots_by_name,
                default_catalog=self.default_catalog,
                dialect=self.default_dialect,
            )
        if environment.name.lower() == PROD:
            deployability = DeployabilityIndex.all_deployable()
            apply_auto_restatements(scheduler.snapshots, execution_time)  # to these objects, not to the state
        else:
            deployability = DeployabilityIndex.create(scheduler.snapshots.values(), start=options.start)
        missing = scheduler.merged_missing_intervals(
            options.start,
            options.end,
            execution_time,
            deployability_index=deployability,
            ignore_cron=options.ignore_cron,
            selected_snapshots=selected,
        )
        spans = {snapshot.name: intervals for snapshot, intervals in missing.items()}
        return DueReport(
            v=PROTOCOL_VERSION,
            environment=environment.name,
            execution_time=timestamp(at),
            models=tuple(
                ModelDue(
                    model=snapshot.name,
                    intervals=tuple(map(interval, spans.get(snapshot.name, ()))),
                    next_due=next_due(snapshot, at),
                )
                for snapshot_id in snapshots_to_dag(scheduler.snapshots.values())
                if (snapshot := scheduler.snapshots.get(snapshot_id)) is not None
                and is_evaluated(snapshot)
                and (selected is None or snapshot.name in selected)
            ),
        )


def is_evaluated(snapshot: Snapshot) -> bool:
    """Whether it is a model that SQLMesh runs: no standalone audit, no external model, no embedded one without audits."""
    return snapshot.is_model and not snapshot.is_external and snapshot.evaluatable
