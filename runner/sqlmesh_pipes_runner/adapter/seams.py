"""What of SQLMesh's own the runner overrides, replaces or calls by the names of its parameters.

Read against SQLMesh 0.224.0 and 0.236.4, which do not differ in any of it. Looked at when the runner starts, so that a SQLMesh in which
something is gone is refused in a sentence before anything has run. A test holds the whole signatures against those that were
read: `tests/runner/test_seams.py`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from sqlmesh.core.config import load_configs
from sqlmesh.core.config.connection import PostgresConnectionConfig
from sqlmesh.core.console import NoopConsole
from sqlmesh.core.context import Context
from sqlmesh.core.dialect import normalize_model_name
from sqlmesh.core.model import PythonModel
from sqlmesh.core.scheduler import Scheduler
from sqlmesh.core.snapshot import DeployabilityIndex, SnapshotEvaluator
from sqlmesh.core.state_sync import EngineAdapterStateSync
from sqlmesh.core.state_sync.db.utils import snapshot_name_version_filter


@dataclass(frozen=True)
class Seam:
    """A function of SQLMesh's, and those of its parameters that the runner knows by name.

    Attributes:
        owner: the class that has it; None for a function of a module.
    """

    owner: type | None
    name: str
    parameters: tuple[str, ...] = ()
    function: Any = None

    @property
    def path(self) -> str:
        """As people write it."""
        return f"{self.owner.__name__}.{self.name}" if self.owner else self.name

    def found(self) -> Any:
        """The function, or the property's; None if there is none any more."""
        found = self.function or getattr(self.owner, self.name, None)
        return found.fget if isinstance(found, property) else found


def _function(function: Any, *parameters: str) -> Seam:
    return Seam(None, function.__name__, parameters, function)


SEAMS = (
    # Contexts.
    Seam(Context, "__init__", ("paths", "config", "gateway", "load")),
    Seam(Context, "_new_state_sync"),
    Seam(Context, "state_sync"),
    Seam(Context, "create_scheduler", ("snapshots", "snapshot_evaluator")),
    Seam(
        Context,
        "run",
        (
            "start",
            "end",
            "execution_time",
            "skip_janitor",
            "ignore_cron",
            "select_models",
            "no_auto_upstream",
        ),
    ),
    Seam(Context, "_select_models_for_run"),
    _function(load_configs, "dotenv_path"),
    Seam(PostgresConnectionConfig, "_connection_factory_with_kwargs"),
    # The scheduler and what it calls.
    Seam(Scheduler, "__init__", ("default_catalog", "max_workers", "console", "notification_target_manager")),
    Seam(Scheduler, "run", ("environment", "selected_snapshots", "circuit_breaker")),
    Seam(Scheduler, "run_merged_intervals", ("environment_naming_info", "deployability_index")),
    Seam(Scheduler, "evaluate", ("snapshot", "start", "end")),
    Seam(Scheduler, "_check_ready_intervals", ("snapshot",)),
    Seam(Scheduler, "merged_missing_intervals", ("deployability_index", "ignore_cron", "selected_snapshots")),
    Seam(DeployabilityIndex, "create", ("start",)),
    Seam(SnapshotEvaluator, "_audit", ("audit", "audit_args", "snapshot", "start", "end")),
    Seam(SnapshotEvaluator, "get_adapter"),
    Seam(PythonModel, "render"),
    _function(normalize_model_name, "default_catalog", "dialect"),
    # The state.
    Seam(EngineAdapterStateSync, "get_versions", ("validate",)),
    _function(snapshot_name_version_filter, "batch_size", "alias"),
    # What the console is told of a model; without the other callbacks a run can be told.
    Seam(NoopConsole, "start_evaluation_progress", ("batched_intervals",)),
    Seam(NoopConsole, "start_snapshot_evaluation_progress", ("snapshot",)),
    Seam(
        NoopConsole,
        "update_snapshot_evaluation_progress",
        ("snapshot", "interval", "batch_idx", "duration_ms"),
    ),
    Seam(NoopConsole, "update_signal_progress", ("snapshot", "signal_name", "ready_intervals")),
    Seam(NoopConsole, "log_skipped_models", ("snapshot_names",)),
    Seam(NoopConsole, "log_failed_models", ("errors",)),
)


def unknown_seams() -> list[str]:
    """What the installed SQLMesh has not, in words: none where the runner can work with it."""
    unknown = []
    for seam in SEAMS:
        found = seam.found()
        if found is None:
            unknown.append(f"there is no {seam.path}")
            continue
        parameters = inspect.signature(found).parameters
        gone = [name for name in seam.parameters if name not in parameters]
        if gone:
            unknown.append(f"{seam.path} has no parameter {', '.join(gone)}")
    return unknown
