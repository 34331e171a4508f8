"""What a run's events say of intervals, event by event."""

from __future__ import annotations

import pytest

from sqlmesh_pipes_protocol.codec import Envelope
from sqlmesh_pipes_protocol.events import (
    BatchFinished,
    Counts,
    ErrorInfo,
    EvaluationStarted,
    Event,
    Heartbeat,
    Interval,
    Log,
    ModelBatches,
    ModelExecuted,
    ModelFailed,
    ModelOutcome,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunStarted,
    UnknownEvent,
    Versions,
)
from sqlmesh_pipes_protocol.spans import Span, span_of
from sqlmesh_pipes_protocol.told import RunTold

A, B = '"db"."s"."a"', '"db"."s"."b"'
STARTED = RunStarted(
    environment="prod",
    gateway=None,
    versions=Versions(runner="1", sqlmesh="1", python="3"),
    selection=None,
    models_deployed=2,
    models_selected=2,
    start=None,
    end=None,
    execution_time=None,
    ignore_cron=False,
)
ERROR = ErrorInfo(error_class="E", message="m", category="sql", transient=False)
COUNTS = Counts(
    selected=2, executed=1, failed=0, skipped=1, audits_passed=0, audits_failed=0, audits_skipped=0
)


def day(number: int) -> Interval:
    return Interval(start=f"2026-01-{number:02}T00:00:00Z", end=f"2026-01-{number + 1:02}T00:00:00Z")


def span(number: int) -> Span:
    return span_of(day(number))


def at(second: int) -> str:
    return f"2026-01-04T00:00:{second:02}.000000Z"


def told(*events: Event | UnknownEvent) -> RunTold:
    """Of a run whose events came a second apart."""
    run = RunTold("r")
    for seq, event in enumerate(events):
        run.take(Envelope(run_id="r", seq=seq, at=at(seq), event=event))
    return run


def due(attempt: int, **models: tuple[Interval, ...]) -> EvaluationStarted:
    return EvaluationStarted(
        attempt=attempt,
        batches=tuple(
            ModelBatches(model=f'"db"."s"."{name}"', intervals=days) for name, days in models.items()
        ),
    )


def batch(model: str, number: int) -> BatchFinished:
    return BatchFinished(model=model, interval=day(number), index=0, total=2, duration_ms=1)


def finished(*digest: ModelOutcome) -> RunFinished:
    return RunFinished(status="success", exit_code=0, counts=COUNTS, duration_ms=1, last_seq=9, digest=digest)


def test_of_a_run_without_events_nothing_is_known() -> None:
    run = told()

    assert (run.began_at, run.started, run.is_due_known) == (None, None, False)
    assert (run.due, run.done, run.in_flight, run.ended) == ({}, {}, {}, set())


def test_a_run_began_when_it_says_so_and_not_when_it_waited_for_another() -> None:
    waits = Log(level="info", logger="l", message="waits for another run")

    assert told(waits).began_at == at(0)
    assert told(waits, waits).began_at == at(0)
    assert told(waits, STARTED, waits).began_at == at(1)
    assert told(waits, STARTED).started == STARTED


def test_what_is_due_is_known_from_the_first_list_and_a_restart_adds_to_it() -> None:
    once = told(STARTED, due(1, a=(day(1), day(2)), b=()))
    again = told(STARTED, due(1, a=(day(1),)), due(2, a=(day(2),), b=(day(1),)))

    assert not told(STARTED).is_due_known
    assert once.is_due_known
    assert once.due == {A: [span(1), span(2)], B: []}
    assert again.due == {A: [span(1), span(2)], B: [span(1)]}


def test_a_model_is_in_flight_from_its_first_batch_to_its_last_word() -> None:
    begun = (ModelStarted(model=B, batches=1), ModelStarted(model=A, batches=2), batch(A, 1))

    assert list(told(*begun).in_flight) == [B, A]
    assert told(*begun).ended == set()


@pytest.mark.parametrize(
    ("last_word", "done"),
    [
        (ModelExecuted(model=A, intervals=(day(1), day(2)), batches=2, duration_ms=1), [1, 1, 2]),
        (
            ModelFailed(
                model=A,
                error=ERROR,
                interval=day(2),
                failed_audits=(),
                intervals=(day(1),),
                batches=1,
                duration_ms=1,
            ),
            [1, 1],
        ),
        (ModelSkipped(model=A, reason="interrupted", detail="d"), [1]),
        (finished(ModelOutcome(model=A, status="executed", intervals=(day(1),))), [1, 1]),
    ],
)
def test_a_last_word_ends_a_model_and_may_tell_of_more_that_is_done(
    last_word: Event, done: list[int]
) -> None:
    run = told(ModelStarted(model=A, batches=2), ModelStarted(model=B, batches=1), batch(A, 1), last_word)

    assert list(run.in_flight) == [B]
    assert run.ended == {A}
    assert run.done == {A: [span(number) for number in done]}


def test_a_last_word_on_a_model_that_was_not_seen_to_begin_counts() -> None:
    assert told(ModelSkipped(model=A, reason="up_to_date", detail="d")).ended == {A}


def test_the_digest_tells_of_every_model_and_that_nothing_more_was_due() -> None:
    run = told(
        finished(
            ModelOutcome(model=A, status="executed", intervals=(day(1),)),
            ModelOutcome(model=B, status="skipped", reason="up_to_date"),
        )
    )

    assert run.is_due_known
    assert run.ended == {A, B}
    assert run.done == {A: [span(1)], B: []}


@pytest.mark.parametrize(
    "event", [Heartbeat(models=()), UnknownEvent(kind="later"), Log(level="info", logger="l", message="m")]
)
def test_events_that_speak_of_no_interval_change_nothing_but_the_beginning(event: Event) -> None:
    expected = RunTold("r", began_at=at(0))

    assert told(event) == expected
