"""What SQLMesh has done that no event told, because the runner died: from SQLMesh's state. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlmesh_pipes_protocol.events import Interval
from sqlmesh_pipes_protocol.reconcile import ModelReconciled, ReconcileReport
from sqlmesh_pipes_protocol.spans import merged, span_of, within, without
from sqlmesh_pipes_protocol.told import RunTold


def _done_since(model: ModelReconciled) -> tuple[Interval, ...]:
    """What is recorded, and was not there when the run began: of what was due, also what has been compacted since."""
    return model.recorded if model.looks_back else (*model.recorded, *model.uncertain)


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What is known of a model that has no terminal event.

    Attributes:
        model: FQN.
        intervals: that SQLMesh has recorded as done, those that an event told included, in order of time.
        is_complete: whether that is all that the run set out to do for the model.
        has_begun: whether the model began.
    """

    model: str
    intervals: tuple[Interval, ...]
    is_complete: bool
    has_begun: bool


def recovered(report: ReconcileReport, told: RunTold) -> Iterator[Recovered]:
    """What became of each model that the run was to do and did not tell of, in the order in which the run has them.

    Where the run had not said what it set out to do, all that was recorded since counts.

    Args:
        report: what SQLMesh has recorded since the run began.
        told: what the run's events say.
    """
    recorded = {model.model: list(map(span_of, _done_since(model))) for model in report.models}
    if not told.is_due_known:
        for model in report.models:
            if model.recorded and model.model not in told.ended:
                yield Recovered(model=model.model, intervals=model.recorded, is_complete=True, has_begun=True)
        return
    for fqn, due in told.due.items():
        if not due or fqn in told.ended:
            continue
        done = [*within(recorded.get(fqn, []), due), *told.done.get(fqn, [])]
        yield Recovered(
            model=fqn,
            intervals=merged(done),
            is_complete=not list(without(due, done)),
            has_begun=bool(done) or fqn in told.in_flight,
        )
