"""What this package uses of Dagster beyond its public interface. Read against Dagster 1.13.27.

`get_step_execution_context` and the event constructors are what Dagster's own Pipes handler uses to write to the event log.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg

RESUME_RETRY_TAG = "dagster/is_resume_retry"
"""On runs that re-execute from a failure (`dagster._core.storage.tags`)."""

_RECORDED = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}


def record_missing(
    context: dg.AssetExecutionContext, results: Iterable[dg.MaterializeResult[Any] | dg.AssetCheckResult]
) -> None:
    """Write results to the event log of a step that takes no more of them, but for those that it already has.

    Once Dagster has been interrupted outside of the asset function it never asks the function for another result, and the one
    that it was just given may be recorded in part.
    """
    step = context.get_step_execution_context()
    events = [
        record.event_log_entry.dagster_event
        for record in context.instance.get_records_for_run(context.run_id, of_type=_RECORDED).records
    ]
    recorded = {
        event.asset_key
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION
        else event.asset_check_evaluation_data.asset_check_key
        for event in events
        if event is not None and event.step_key == step.step.key
    }
    _write(step, results, recorded)


def record(context: dg.AssetExecutionContext, results: Iterable[dg.AssetCheckResult]) -> None:
    """Write check results to the event log of a step that has reported others of the same checks."""
    _write(context.get_step_execution_context(), results, recorded=set())


def _write(
    step: Any, results: Iterable[dg.MaterializeResult[Any] | dg.AssetCheckResult], recorded: set[Any]
) -> None:
    for result in results:
        checks: Iterable[dg.AssetCheckResult] = ()
        if isinstance(result, dg.AssetCheckResult):
            checks = [result]
        elif result.asset_key is not None:
            checks = result.check_results or ()
            if result.asset_key not in recorded:
                dg.DagsterEvent.asset_materialization(
                    step, dg.AssetMaterialization(result.asset_key, metadata=result.metadata)
                )
        for check in checks:
            evaluation = check.to_asset_check_evaluation(step)
            if evaluation.asset_check_key not in recorded:
                dg.DagsterEvent.asset_check_evaluation(step, evaluation)
