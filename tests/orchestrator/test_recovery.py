"""What the state says of a run that can no longer tell."""

import pytest

from dagster_sqlmesh_pipes.recovery import Recovered, recovered
from sqlmesh_pipes_protocol.codec import Envelope
from sqlmesh_pipes_protocol.events import (
    BatchFinished,
    EvaluationStarted,
    Interval,
    ModelBatches,
    ModelExecuted,
    ModelStarted,
)
from sqlmesh_pipes_protocol.reconcile import ModelReconciled, ReconcileReport
from sqlmesh_pipes_protocol.told import RunTold

A, B, C = '"db"."s"."a"', '"db"."s"."b"', '"db"."s"."c"'


def day(number: int) -> Interval:
    return Interval(start=f"2026-01-{number:02}T00:00:00Z", end=f"2026-01-{number + 1:02}T00:00:00Z")


def told(*events) -> RunTold:
    run = RunTold("r")
    for seq, event in enumerate(events):
        run.take(Envelope(run_id="r", seq=seq, at="2026-01-04T00:00:00.000000Z", event=event))
    return run


def state(**models: tuple[Interval, ...]) -> ReconcileReport:
    return ReconcileReport(
        v="1.0",
        environment="prod",
        since="2026-01-04T00:00:00Z",
        run_id=None,
        models=tuple(
            ModelReconciled(
                model=f'"db"."s"."{name}"', recorded=days, reported=(), missing=days, uncertain=()
            )
            for name, days in models.items()
        ),
    )


DUE = EvaluationStarted(
    attempt=1,
    batches=(
        ModelBatches(model=A, intervals=(day(1), day(2))),
        ModelBatches(model=B, intervals=(day(1), day(2))),
        ModelBatches(model=C, intervals=(day(1),)),
    ),
)


def batch(model: str, number: int) -> BatchFinished:
    return BatchFinished(model=model, interval=day(number), index=1, total=2, duration_ms=1)


@pytest.mark.parametrize(
    ("events", "recorded", "expected"),
    [
        ((), {}, (False, False, ())),
        ((ModelStarted(model=A, batches=2),), {}, (False, True, ())),
        ((ModelStarted(model=A, batches=2), batch(A, 1)), {"a": (day(1),)}, (False, True, (day(1),))),
        ((), {"a": (day(1),)}, (False, True, (day(1),))),
        ((batch(A, 1),), {"a": (day(2),)}, (True, True, (day(1), day(2)))),
        ((), {"a": (day(2), day(1))}, (True, True, (day(1), day(2)))),
        ((), {"a": (day(3),)}, (False, False, ())),  # not of this run
    ],
)
def test_a_model_is_complete_where_all_that_was_due_is_told_or_recorded(events, recorded, expected):
    found = next(recovered(state(**recorded), told(DUE, *events)))

    merged = (Interval(start=day(1).start, end=day(2).end),) if len(expected[2]) == 2 else expected[2]
    assert found == Recovered(model=A, is_complete=expected[0], has_begun=expected[1], intervals=merged)


def test_what_was_told_to_its_end_is_not_told_again():
    executed = ModelExecuted(model=A, intervals=(day(1), day(2)), batches=2, duration_ms=1)

    assert [each.model for each in recovered(state(a=(day(1),)), told(DUE, executed))] == [B, C]


def test_where_nobody_knows_what_was_due_all_that_is_recorded_counts():
    assert list(recovered(state(c=(day(1),)), told())) == [
        Recovered(model=C, is_complete=True, has_begun=True, intervals=(day(1),))
    ]
