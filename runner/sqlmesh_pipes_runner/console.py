"""The console that SQLMesh talks to while it runs: every callback that tells of a model becomes an event.

SQLMesh's versions differ in the arguments of the callbacks. Those are taken by the names that the installed version gives
them, and what it does not have is absent; a callback that this class does not know is inherited from SQLMesh's own
`NoopConsole`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from sqlmesh.core.console import NoopConsole
from sqlmesh.utils.errors import CircuitBreakerError

from sqlmesh_pipes_runner.errors import RunInterruptedError
from sqlmesh_pipes_runner.failures import causes, error_info
from sqlmesh_pipes_runner.recorder import RunRecorder, Skip


def _by_name(callback: Callable[[Any, dict[str, Any]], Any]) -> Any:
    """Give a callback its arguments by name in one mapping, whatever their order in the installed version.

    Arguments beyond those that `NoopConsole` declares are let pass: SQLMesh's `Console` allows them in places. Nothing is
    raised: SQLMesh calls from within its batches, and a fault of ours would fail a model that is done.
    """
    names = list(inspect.signature(getattr(NoopConsole, callback.__name__)).parameters)[1:]

    @wraps(callback)
    def bound(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return callback(self, {**dict(zip(names, args, strict=False)), **kwargs})
        except Exception as error:  # noqa: BLE001 - the boundary to SQLMesh; the run's last event says so
            self._recorder.fault(f"{callback.__name__} could not be told: {error!r}", error_info(error))

    return bound


class SQLMeshEventCaptureConsole(NoopConsole):
    """Reports to a recorder. Thread-safe: SQLMesh calls it from its worker threads.

    Args:
        recorder: takes what happens.
        blocked_by: for a model that SQLMesh skipped and the models that failed, those that are to blame.
    """

    def __init__(self, recorder: RunRecorder, blocked_by: Callable[[str, set[str]], tuple[str, ...]]) -> None:
        self._recorder = recorder
        self._blocked_by = blocked_by
        self._evaluating = False
        self._batches: dict[str, int] = {}
        self._skipped: set[str] = set()
        self._signals: dict[str, list[str]] = {}

    @_by_name
    def start_evaluation_progress(self, given: dict[str, Any]) -> None:
        batches = {
            snapshot.name: list(intervals)
            for snapshot, intervals in given["batched_intervals"].items()
            if _is_built(snapshot)
        }
        self._batches = {name: len(intervals) for name, intervals in batches.items()}
        self._skipped = set()
        self._evaluating = True
        self._recorder.evaluation_started(batches)

    @_by_name
    def start_snapshot_evaluation_progress(self, given: dict[str, Any]) -> None:
        if _is_built(given["snapshot"]):
            self._recorder.batch_started(given["snapshot"].name)

    @_by_name
    def update_snapshot_evaluation_progress(self, given: dict[str, Any]) -> None:
        snapshot = given["snapshot"]
        if not _is_built(snapshot):
            return
        duration_ms = given.get("duration_ms")
        if duration_ms is None:  # the batch raised; the scheduler has reported why
            self._recorder.batch_ended(snapshot.name)
            return
        stats = given.get("execution_stats")
        self._recorder.batch_finished(
            snapshot.name,
            given["interval"],
            given["batch_idx"],
            self._batches[snapshot.name],
            duration_ms,
            _integer(getattr(stats, "total_rows_processed", None)),
            _integer(getattr(stats, "total_bytes_processed", None)),
            [trigger.name for trigger in given.get("auto_restatement_triggers") or ()],
        )

    @_by_name
    def update_signal_progress(self, given: dict[str, Any]) -> None:
        if not given.get("ready_intervals"):
            self._signals.setdefault(given["snapshot"].name, []).append(given["signal_name"])

    @_by_name
    def log_skipped_models(self, given: dict[str, Any]) -> None:
        # Told before the failed models are: kept until those are known, see log_failed_models.
        self._skipped = set(given["snapshot_names"])

    @_by_name
    def log_failed_models(self, given: dict[str, Any]) -> None:
        ended = []
        for error in given["errors"]:
            name = getattr(error.node, "snapshot_name", None) or str(error.node)
            chain = list(causes(error))
            if any(isinstance(link, (RunInterruptedError, CircuitBreakerError)) for link in chain):
                continue
            if not self._recorder.has_failed(name):  # failed outside a batch, as in creating its table
                self._recorder.batch_failed(name, None, error_info(chain[1] if len(chain) > 1 else error))
            ended.append(name)
        self._recorder.settle(ended)
        failed = self._recorder.failed_models
        for name in sorted((self._skipped & self._batches.keys()) - failed):
            blocked_by = self._blocked_by(name, failed)
            if blocked_by:
                self._recorder.skipped(
                    name,
                    Skip(
                        reason="upstream_failed",
                        detail=f"Upstream {', '.join(blocked_by)} failed.",
                        blocked_by=blocked_by,
                    ),
                )

    def is_due(self, fqn: str) -> bool | None:
        """Whether a model has batches in this run; None before SQLMesh has said which have."""
        return bool(self._batches.get(fqn)) if self._evaluating else None

    def held_back(self, fqn: str) -> Skip | None:
        """For a model that had intervals due but no batch: the signal that was not ready. None for any other."""
        if self._batches.get(fqn) != 0:
            return None
        signals = tuple(dict.fromkeys(self._signals.get(fqn, ())))
        if signals:
            return Skip(
                reason="signal_not_ready", detail=f"Not ready: {', '.join(signals)}.", blocked_by=signals
            )
        waiting = self._blocked_by(fqn, set(self._signals))
        return Skip(
            reason="signal_not_ready",
            detail=f"It reads {', '.join(waiting) or 'a model'} whose signal is not ready.",
            blocked_by=waiting,
        )

    @_by_name
    def log_status_update(self, given: dict[str, Any]) -> None:
        self._recorder.log("info", "sqlmesh", given["message"])

    @_by_name
    def log_success(self, given: dict[str, Any]) -> None:
        self._recorder.log("info", "sqlmesh", given["message"])

    @_by_name
    def log_warning(self, given: dict[str, Any]) -> None:
        self._recorder.log(
            "warning", "sqlmesh", (given.get("long_message") or given["short_message"]).strip()
        )

    @_by_name
    def log_error(self, given: dict[str, Any]) -> None:
        self._recorder.log("error", "sqlmesh", given["message"])

    @_by_name
    def update_cleanup_progress(self, given: dict[str, Any]) -> None:
        self._recorder.log("info", "sqlmesh", f"The janitor has deleted {given['object_name']}.")


def _is_built(snapshot: Any) -> bool:
    """Whether a node is a model with a table of its own: no standalone audit, no external model with audits."""
    return bool(snapshot.is_model and not snapshot.is_external)


def _integer(value: Any) -> int | None:
    """Drivers give counts in types of their own."""
    return None if value is None else int(value)
