"""Every model gets one terminal event, whatever happens, in whatever order its batches end."""

import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    AuditOutcome,
    BatchFinished,
    Counts,
    ErrorInfo,
    EvaluationStarted,
    Heartbeat,
    Interval,
    Log,
    ModelExecuted,
    ModelFailed,
    ModelInFlight,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunStarted,
    Versions,
)
from sqlmesh_pipes_protocol.spans import interval, merged, moment
from sqlmesh_pipes_runner.recorder import RunRecorder, Skip

TERMINAL = (ModelExecuted, ModelFailed, ModelSkipped)
DAY = 86_400_000
DAYS = [(number * DAY, (number + 1) * DAY) for number in range(1000)]
A, B, C, D = (f'"db"."s"."{name}"' for name in "abcd")
STARTED = RunStarted(
    environment="prod",
    gateway="local",
    versions=Versions(runner="0.1.0", sqlmesh="0.236.4", python="3.11"),
    selection=None,
    models_deployed=4,
    models_selected=4,
    start=None,
    end=None,
    execution_time=None,
    ignore_cron=False,
)
ERROR = ErrorInfo(
    error_class="duckdb.ConversionException",
    message="no number",
    category="sql",
    transient=False,
    traceback="Traceback …",
)
UP_TO_DATE = Skip(reason="up_to_date", detail="Nothing is due.")


def audit(model, name, day=0, *, passed=True, skipped=False, rows=0, blocking=True):
    return AuditEvaluated(
        model=model,
        audit=name,
        name=name,
        arguments={},
        blocking=blocking,
        skipped=skipped,
        passed=passed and not skipped,
        failing_rows=None if skipped else rows,
        query=None,
        dialect="duckdb",
        interval=None if day is None else interval(DAYS[day]),
    )


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class YieldingClock(Clock):
    """Lets other threads run wherever the recorder asks for the time."""

    def __call__(self):
        time.sleep(1e-5)
        return super().__call__()


class Recording(RunRecorder):
    """A recorder with the list of what it emitted, and shorthands for what SQLMesh does."""

    def __init__(self, clock=None):
        self.events = []
        self.clock = clock or Clock()
        super().__init__(self.events.append, clock=self.clock)

    def start(self, *selected):
        self.run_started(STARTED, selected)

    def end_batch(self, model, day=0, *, total=1, rows=None, bytes_=None):
        self.batch_finished(model, DAYS[day], day, total, 5, rows, bytes_)

    def break_batch(self, model, day=0, error=ERROR, audits=()):
        """As SQLMesh does it: the scheduler raises, then the console hears that the batch is over."""
        self.batch_failed(model, DAYS[day], error, audits)
        self.batch_ended(model)

    def close(self, status=None, exit_code=0, error=None, why=lambda fqn: UP_TO_DATE):
        return self.finish(status, exit_code, why_pending=why, error=error, next_seq=lambda: len(self.events))

    def of(self, *kinds):
        return [event for event in self.events if isinstance(event, kinds)]

    def terminal(self, model):
        found = [event for event in self.of(*TERMINAL) if event.model == model]
        assert len(found) == 1, found
        return found[0]


@pytest.fixture
def recorder():
    return Recording()


def kinds(events):
    return [event.kind for event in events]


def test_a_model_that_runs_is_started_then_finished_then_executed(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:1]})
    recorder.batch_started(A)
    recorder.audit_evaluated(audit(A, "not_null"))
    recorder.clock.now += 1.5
    recorder.end_batch(A, rows=3)
    recorder.close()

    assert kinds(recorder.events) == [
        "run_started",
        "evaluation_started",
        "model_started",
        "audit_evaluated",
        "batch_finished",
        "model_executed",
        "run_finished",
    ]
    assert recorder.terminal(A) == ModelExecuted(
        model=A, intervals=(interval(DAYS[0]),), batches=1, duration_ms=1500, rows=3
    )


def test_every_path_ends_in_one_terminal_event_a_model(recorder):
    recorder.start(A, B, C, D)
    recorder.evaluation_started({A: DAYS[:1], B: DAYS[:1], C: DAYS[:1]})
    recorder.batch_started(A)
    recorder.end_batch(A)
    recorder.batch_started(B)
    recorder.break_batch(B)
    recorder.settle([B])
    recorder.skipped(C, Skip(reason="upstream_failed", detail="Upstream failed.", blocked_by=(B,)))
    recorder.skipped(C, UP_TO_DATE)  # later reasons change nothing
    recorder.skipped(A, UP_TO_DATE)
    finished = recorder.close()

    assert [(e.model, e.kind) for e in recorder.of(*TERMINAL)] == [
        (A, "model_executed"),
        (B, "model_failed"),
        (C, "model_skipped"),
        (D, "model_skipped"),
    ]
    assert recorder.terminal(C).reason == "upstream_failed"
    assert recorder.terminal(C).blocked_by == (B,)
    assert (finished.status, finished.exit_code) == ("failed", 1)


def test_evaluation_started_lists_what_is_due_with_the_intervals(recorder):
    recorder.evaluation_started({A: DAYS[:2], B: []})

    (event,) = recorder.of(EvaluationStarted)
    assert event.attempt == 1
    assert [(due.model, due.intervals) for due in event.batches] == [
        (A, (interval(DAYS[0]), interval(DAYS[1]))),
        (B, ()),
    ]


def test_a_model_is_executed_only_after_its_last_batch(recorder):
    recorder.evaluation_started({A: DAYS[:3]})
    for day in (1, 0):
        recorder.batch_started(A)
        recorder.end_batch(A, day, total=3)
    assert recorder.of(*TERMINAL) == []

    recorder.batch_started(A)
    recorder.end_batch(A, 2, total=3)

    assert recorder.of(ModelStarted) == [ModelStarted(model=A, batches=3)]
    assert recorder.terminal(A).intervals == (Interval(start=moment(0), end=moment(3 * DAY)),)
    assert recorder.terminal(A).batches == 3


def test_a_failed_batch_among_others_is_told_after_the_last_with_what_was_done(recorder):
    recorder.evaluation_started({A: DAYS[:3]})
    for _ in range(3):
        recorder.batch_started(A)
    recorder.end_batch(A, 0, total=3)
    recorder.break_batch(A, 1, audits=("not_null_id",))
    assert recorder.of(*TERMINAL) == []

    recorder.clock.now += 2
    recorder.end_batch(A, 2, total=3)

    assert recorder.terminal(A) == ModelFailed(
        model=A,
        error=ERROR,
        interval=interval(DAYS[1]),
        failed_audits=("not_null_id",),
        intervals=(interval(DAYS[0]), interval(DAYS[2])),
        batches=2,
        duration_ms=2000,
    )


def test_batches_that_never_begin_after_a_failure_are_settled(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:3]})
    recorder.batch_started(A)
    recorder.break_batch(A, 0)
    assert recorder.of(*TERMINAL) == []

    recorder.settle([A])
    recorder.settle([A])

    assert recorder.terminal(A).intervals == ()
    assert recorder.terminal(A).batches == 0


def test_a_failure_that_nobody_settled_is_told_at_the_end(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:2]})
    recorder.batch_started(A)
    recorder.break_batch(A, 0)
    finished = recorder.close()

    assert recorder.terminal(A).error == ERROR
    assert finished.status == "failed"


def test_the_first_of_several_failures_is_shown_with_the_audits_of_all(recorder):
    second = ErrorInfo(error_class="x.Y", message="second", category="audit", transient=False)
    recorder.evaluation_started({A: DAYS[:2]})
    recorder.batch_started(A)
    recorder.batch_started(A)
    recorder.break_batch(A, 1, audits=("b", "a"))
    recorder.break_batch(A, 0, error=second, audits=("a", "c"))

    event = recorder.terminal(A)
    assert event.error == ERROR
    assert event.interval == interval(DAYS[1])
    assert event.failed_audits == ("b", "a", "c")


def test_a_failure_before_any_batch_has_neither_interval_nor_duration(recorder):
    recorder.evaluation_started({A: DAYS[:1]})
    recorder.batch_failed(A, None, ERROR)
    recorder.settle([A])

    assert recorder.terminal(A).interval is None
    assert recorder.terminal(A).duration_ms is None


def test_a_restart_keeps_what_was_executed_and_forgets_failures_of_the_given_up_attempt(recorder):
    recorder.start(A, B, C)
    recorder.evaluation_started({A: DAYS[:1], B: DAYS[:2], C: DAYS[:1]})
    recorder.batch_started(A)
    recorder.end_batch(A)
    recorder.batch_started(B)
    recorder.end_batch(B, 0, total=2)
    recorder.batch_started(C)
    recorder.break_batch(C)  # its outstanding batches are over, so this one is told

    recorder.start(A, B, C, D)
    recorder.evaluation_started({B: DAYS[1:2], D: DAYS[:1]})
    recorder.batch_started(B)
    recorder.end_batch(B, 1)
    recorder.batch_started(D)
    recorder.end_batch(D)
    finished = recorder.close()

    assert [event.attempt for event in recorder.of(EvaluationStarted)] == [1, 2]
    assert len(recorder.of(RunStarted)) == 1
    assert Counter(event.model for event in recorder.of(ModelStarted)) == {A: 1, B: 1, C: 1, D: 1}
    assert recorder.terminal(A).kind == "model_executed"
    assert recorder.terminal(B).intervals == (Interval(start=moment(0), end=moment(2 * DAY)),)
    assert recorder.terminal(B).batches == 2
    assert recorder.terminal(D).kind == "model_executed"
    assert finished.counts.executed == 3


def test_a_model_whose_failure_was_given_up_with_its_attempt_can_still_be_executed(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:2]})
    recorder.batch_started(A)
    recorder.break_batch(A, 0)
    recorder.evaluation_started({A: DAYS[:2]})
    for day in range(2):
        recorder.batch_started(A)
        recorder.end_batch(A, day, total=2)
    finished = recorder.close()

    assert recorder.terminal(A).kind == "model_executed"
    assert finished.status == "success"


def test_a_model_executed_before_a_restart_that_fails_after_it_makes_no_success(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:1]})
    recorder.batch_started(A)
    recorder.end_batch(A)
    recorder.evaluation_started({A: DAYS[1:2]})
    recorder.batch_started(A)
    recorder.break_batch(A, 1)
    finished = recorder.close()

    assert recorder.terminal(A).kind == "model_executed"  # told before, and once
    (outcome,) = finished.digest
    assert (outcome.status, outcome.error, outcome.intervals) == (
        "failed",
        replace(ERROR, traceback=None),
        (interval(DAYS[0]),),
    )
    assert (finished.status, finished.exit_code) == ("failed", 1)
    assert (finished.counts.executed, finished.counts.failed) == (0, 1)
    assert recorder.any_failure


def test_a_model_failed_before_a_restart_that_is_executed_after_it_makes_a_success(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:1]})
    recorder.batch_started(A)
    recorder.break_batch(A)
    recorder.evaluation_started({A: DAYS[:1]})
    assert not recorder.any_failure
    recorder.batch_started(A)
    recorder.end_batch(A)
    finished = recorder.close()

    assert recorder.terminal(A).kind == "model_failed"  # told before, and once
    (outcome,) = finished.digest
    assert (outcome.status, outcome.error, outcome.intervals) == ("executed", None, (interval(DAYS[0]),))
    assert (finished.status, finished.exit_code) == ("success", 0)
    assert (finished.counts.executed, finished.counts.failed) == (1, 0)


def test_what_a_model_does_after_a_restart_is_in_the_digest(recorder):
    recorder.start(A)
    for day in range(2):
        recorder.evaluation_started({A: DAYS[day : day + 1]})
        recorder.batch_started(A)
        recorder.end_batch(A, day)

    assert recorder.close().digest[0].intervals == merged(DAYS[:2])


def test_a_model_that_failed_and_did_not_come_again_after_a_restart_has_failed(recorder):
    recorder.start(A, B)
    recorder.evaluation_started({A: DAYS[:1], B: DAYS[:1]})
    recorder.batch_started(A)
    recorder.break_batch(A)
    recorder.evaluation_started({A: DAYS[:1], B: DAYS[:1]})
    recorder.batch_started(B)
    recorder.end_batch(B)
    finished = recorder.close(why=lambda _: Skip(reason="interrupted", detail="Stopped."))

    assert {outcome.model: outcome.status for outcome in finished.digest} == {A: "failed", B: "executed"}
    assert (finished.status, finished.exit_code) == ("failed", 1)


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_a_batch_that_ended_unfinished_without_a_reason_makes_the_model_failed(recorder, order):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:2]})
    for day, finishes in enumerate(order):
        recorder.batch_started(A)
        if finishes:
            recorder.end_batch(A, day, total=2)
        else:
            recorder.batch_ended(A)
    finished = recorder.close()

    event = recorder.terminal(A)
    assert (event.error.category, event.error.transient, event.interval) == ("internal", False, None)
    assert "without being recorded as done" in event.error.message
    assert event.intervals == (interval(DAYS[order.index(True)]),)
    assert (finished.status, finished.exit_code) == ("failed", 1)


def test_a_batch_that_ended_unfinished_makes_the_model_failed_though_the_next_never_began(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:2]})
    recorder.batch_started(A)
    recorder.batch_ended(A)
    finished = recorder.close()

    assert recorder.terminal(A).kind == "model_failed"
    assert (finished.status, finished.exit_code) == ("failed", 1)


def test_a_restart_forgets_the_batches_that_ended_unfinished(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:2]})
    recorder.batch_started(A)
    recorder.batch_ended(A)
    recorder.evaluation_started({A: DAYS[:1]})
    recorder.batch_started(A)
    recorder.end_batch(A)

    assert recorder.terminal(A).kind == "model_executed"
    assert recorder.close().status == "success"


def test_a_standalone_audit_that_failed_is_no_model_but_fails_the_run(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:1]})
    recorder.batch_started(A)
    recorder.end_batch(A)
    assert not recorder.any_failure
    for _ in range(2):  # the scheduler reports it, and then the console
        recorder.standalone_audit_failed("orders_exist", ERROR)

    assert recorder.any_failure
    assert (recorder.has_failed("orders_exist"), recorder.has_failed(A)) == (True, False)
    assert recorder.failed_models == set()
    finished = recorder.close()
    (log,) = recorder.of(Log)
    assert (log.level, log.message) == (
        "error",
        "The standalone audit orders_exist could not be evaluated: no number",
    )
    assert [event.model for event in recorder.of(*TERMINAL)] == [A]
    assert [outcome.model for outcome in finished.digest] == [A]
    assert (finished.status, finished.exit_code) == ("failed", 1)
    assert finished.counts.failed == 0
    assert (finished.error.message, finished.error.category) == (log.message, "sql")


def test_an_error_of_the_run_goes_before_that_of_a_standalone_audit(recorder):
    recorder.start(A)
    recorder.standalone_audit_failed("orders_exist", replace(ERROR, message="of the audit"))
    finished = recorder.close("error", 3, error=ERROR)

    assert (finished.status, finished.exit_code, finished.error) == ("error", 3, ERROR)


def test_rows_and_bytes_add_up_and_absent_ones_count_for_nothing(recorder):
    recorder.evaluation_started({A: DAYS[:3], B: DAYS[:1]})
    for day, rows, size in ((0, None, None), (1, 4, None), (2, 3, 10)):
        recorder.batch_started(A)
        recorder.end_batch(A, day, total=3, rows=rows, bytes_=size)
    recorder.batch_started(B)
    recorder.end_batch(B)

    assert (recorder.terminal(A).rows, recorder.terminal(A).bytes) == (7, 10)
    assert (recorder.terminal(B).rows, recorder.terminal(B).bytes) == (None, None)
    assert [(event.rows, event.bytes) for event in recorder.of(BatchFinished)][:3] == [
        (None, None),
        (4, None),
        (3, 10),
    ]


def test_a_row_count_of_zero_is_not_an_absent_one(recorder):
    recorder.evaluation_started({A: DAYS[:1]})
    recorder.batch_started(A)
    recorder.end_batch(A, rows=0)

    assert recorder.terminal(A).rows == 0


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([{"rows": 2, "passed": False}, {}], (False, False, 2)),
        ([{}, {"rows": 2, "passed": False}], (False, False, 2)),
        ([{"rows": 2, "passed": False}, {}, {"rows": 3, "passed": False}], (False, False, 5)),
        ([{"rows": 2, "passed": False}, {"skipped": True}], (False, False, 2)),
        ([{}, {}], (False, True, 0)),
        ([{"skipped": True}], (True, False, None)),
        ([{"skipped": True}, {}], (False, True, 0)),
    ],
)
def test_an_audit_that_failed_in_any_batch_has_failed_with_the_rows_of_all(recorder, results, expected):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[: len(results)]})
    for day, result in enumerate(results):
        recorder.batch_started(A)
        recorder.audit_evaluated(audit(A, "few", day, blocking=False, **result))
        recorder.end_batch(A, day, total=len(results))
    (outcome,) = recorder.close().digest

    skipped, passed, rows = expected
    assert outcome.audits == (
        AuditOutcome(audit="few", skipped=skipped, passed=passed, blocking=False, failing_rows=rows),
    )


@pytest.mark.parametrize("day", [0, None])
@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([{"rows": 2, "passed": False}, {}], (False, True, 0)),
        ([{}, {"rows": 2, "passed": False}], (False, False, 2)),
        ([{"rows": 2, "passed": False}, {"rows": 3, "passed": False}], (False, False, 3)),
        ([{"rows": 2, "passed": False}, {"skipped": True}], (True, False, None)),
    ],
)
def test_an_audit_evaluated_again_on_the_same_interval_has_its_latest_result(
    recorder, day, results, expected
):
    recorder.start(A)
    for result in results:  # a restart each, as SQLMesh does a batch again that it has not recorded
        recorder.evaluation_started({A: DAYS[:1]})
        recorder.batch_started(A)
        recorder.audit_evaluated(audit(A, "few", day, blocking=False, **result))
    recorder.end_batch(A)
    finished = recorder.close()

    skipped, passed, rows = expected
    assert finished.digest[0].audits == (
        AuditOutcome(audit="few", skipped=skipped, passed=passed, blocking=False, failing_rows=rows),
    )
    assert len(recorder.of(AuditEvaluated)) == len(results)
    assert finished.counts.audits_failed == (not passed and not skipped)


def test_an_audit_blocks_if_it_did_on_any_interval(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:2]})
    for day in range(2):
        recorder.batch_started(A)
        recorder.audit_evaluated(audit(A, "few", day, blocking=day == 0))
        recorder.end_batch(A, day, total=2)

    assert [outcome.blocking for outcome in recorder.close().digest[0].audits] == [True]


def test_the_digest_says_what_the_terminal_events_said(recorder):
    recorder.start(A, B, C)
    recorder.evaluation_started({A: DAYS[:2], B: DAYS[:2]})
    for model in (A, B):
        recorder.batch_started(model)
        recorder.audit_evaluated(audit(model, "not_null"))
        recorder.end_batch(model, 0, total=2)
    recorder.batch_started(A)
    recorder.end_batch(A, 1, total=2)
    recorder.batch_started(B)
    recorder.audit_evaluated(audit(B, "few", 1, passed=False, rows=9))
    recorder.break_batch(B, 1, audits=("few",))
    finished = recorder.close()

    assert {outcome.model: outcome.status for outcome in finished.digest} == {
        event.model: event.kind.removeprefix("model_") for event in recorder.of(*TERMINAL)
    }
    digest = {outcome.model: outcome for outcome in finished.digest}
    assert digest[A].intervals == recorder.terminal(A).intervals
    assert digest[B].intervals == recorder.terminal(B).intervals == (interval(DAYS[0]),)
    assert digest[B].error is not None
    assert digest[B].error.message == recorder.terminal(B).error.message
    assert digest[B].error.traceback is None  # the digest stays small
    assert digest[C].reason == recorder.terminal(C).reason
    assert finished.counts == Counts(
        selected=3, executed=1, failed=1, skipped=1, audits_passed=2, audits_failed=1, audits_skipped=0
    )


def test_the_last_event_carries_its_own_seq_and_nothing_follows_it(recorder):
    recorder.start(A)
    recorder.clock.now += 0.25
    finished = recorder.close()
    before = list(recorder.events)

    recorder.log("info", "sqlmesh", "late")
    recorder.heartbeat()
    recorder.evaluation_started({B: DAYS[:1]})
    recorder.batch_started(B)
    recorder.end_batch(B)
    recorder.skipped(C, UP_TO_DATE)
    recorder.close()

    assert finished.last_seq == len(before) - 1
    assert finished.duration_ms == 250
    assert before[-1] is finished
    assert recorder.events == before


def test_the_end_gives_every_pending_model_the_reason_that_it_is_told(recorder):
    recorder.start(A, B)
    assert recorder.pending() == [A, B]

    recorder.close(why=lambda fqn: Skip(reason="not_deployed", detail=f"No {fqn}."))

    assert [(e.model, e.reason, e.detail) for e in recorder.of(ModelSkipped)] == [
        (A, "not_deployed", f"No {A}."),
        (B, "not_deployed", f"No {B}."),
    ]
    assert recorder.pending() == []


def test_a_model_in_mid_batch_at_the_end_keeps_the_intervals_it_had_done(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:2]})
    recorder.batch_started(A)
    recorder.end_batch(A, 0, total=2)
    recorder.batch_started(A)
    finished = recorder.close("interrupted", 130, why=lambda _: Skip(reason="interrupted", detail="Stopped."))

    assert finished.digest[0].reason == "interrupted"
    assert finished.digest[0].intervals == (interval(DAYS[0]),)


@pytest.mark.parametrize(
    ("work", "expected"),
    [("nothing", ("nothing_to_do", 0)), ("execute", ("success", 0)), ("fail", ("failed", 1))],
)
def test_the_status_follows_from_what_the_models_did(recorder, work, expected):
    recorder.start(A)
    if work != "nothing":
        recorder.evaluation_started({A: DAYS[:1]})
        recorder.batch_started(A)
        (recorder.end_batch if work == "execute" else recorder.break_batch)(A)
    finished = recorder.close()

    assert (finished.status, finished.exit_code) == expected


def test_a_given_status_and_error_stand_even_where_models_failed(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:1]})
    recorder.batch_started(A)
    recorder.break_batch(A)
    finished = recorder.close("error", 3, error=ERROR)

    assert (finished.status, finished.exit_code, finished.error) == ("error", 3, ERROR)


def test_a_heartbeat_tells_of_the_models_in_flight_and_no_others(recorder):
    recorder.evaluation_started({A: DAYS[:2], B: DAYS[:1], C: DAYS[:1]})
    recorder.batch_started(A)
    recorder.batch_started(B)
    recorder.end_batch(B)
    recorder.clock.now += 3
    recorder.heartbeat()
    recorder.end_batch(A, 0, total=2)
    recorder.heartbeat()

    assert recorder.of(Heartbeat) == [
        Heartbeat(models=(ModelInFlight(model=A, elapsed_ms=3000),)),
        Heartbeat(models=()),
    ]


@given(
    st.dictionaries(
        st.sampled_from([A, B, C, D]),
        st.lists(st.booleans(), min_size=1, max_size=12),
        min_size=1,
    ),
    st.integers(min_value=2, max_value=6),
)
def test_batches_in_threads_still_give_one_start_and_one_terminal_event(plan, workers):
    recorder = Recording(YieldingClock())
    recorder.start(*plan)
    recorder.evaluation_started({model: DAYS[: len(batches)] for model, batches in plan.items()})
    gate = threading.Barrier(workers)

    def work(share):
        gate.wait(5)
        for model, day, good in share:
            recorder.batch_started(model)
            recorder.heartbeat()
            if good:
                recorder.end_batch(model, day, total=len(plan[model]))
            else:
                recorder.break_batch(model, day)

    batches = [(model, day, good) for model, days in plan.items() for day, good in enumerate(days)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, [batches[worker::workers] for worker in range(workers)]))
    finished = recorder.close()

    by_model = defaultdict(list)
    for event in recorder.of(ModelStarted, BatchFinished, *TERMINAL):
        by_model[event.model].append(event)
    for model, days in plan.items():
        kinds_of_model = kinds(by_model[model])
        ending = "model_executed" if all(days) else "model_failed"
        assert kinds_of_model == ["model_started", *["batch_finished"] * sum(days), ending]
        done = [day for day, good in zip(DAYS, days, strict=False) if good]
        assert by_model[model][-1].intervals == merged(done)
    assert finished.last_seq == len(recorder.events) - 1
    assert len(finished.digest) == len(plan)


def test_a_busy_run_in_many_threads_loses_and_doubles_nothing():
    models = [f'"db"."s"."m{number}"' for number in range(40)]
    recorder = Recording(YieldingClock())
    recorder.start(*models)
    recorder.evaluation_started(dict.fromkeys(models, DAYS[:25]))
    gate = threading.Barrier(8)

    def work(worker):
        gate.wait(5)
        for day in range(25):
            for model in models[worker % 4 :: 4]:  # two threads share each model
                if day % 2 == worker // 4:
                    recorder.batch_started(model)
                    recorder.audit_evaluated(audit(model, "few", day, passed=False, rows=1))
                    recorder.end_batch(model, day, total=25, rows=1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    finished = recorder.close()

    assert Counter(kinds(recorder.events)) == {
        "run_started": 1,
        "evaluation_started": 1,
        "model_started": 40,
        "audit_evaluated": 1000,
        "batch_finished": 1000,
        "model_executed": 40,
        "run_finished": 1,
    }
    assert {event.rows for event in recorder.of(ModelExecuted)} == {25}
    assert {outcome.audits[0].failing_rows for outcome in finished.digest} == {25}


SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    max_size=15,
)


def milliseconds(timestamp):
    return round(datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp() * 1000)


@given(SPANS)
def test_merged_intervals_cover_the_same_time_and_are_sorted_and_apart(spans):
    result = [(milliseconds(i.start), milliseconds(i.end)) for i in merged(spans)]

    assert {ms for start, end in result for ms in range(start, end)} == {
        ms for start, end in spans for ms in range(start, end)
    }
    assert all(start < end for start, end in result)
    assert all(before[1] < after[0] for before, after in pairwise(result))


def test_a_moment_is_utc_with_microseconds_only_where_there_are_any():
    assert moment(0) == "1970-01-01T00:00:00Z"
    assert moment(1_767_225_600_000) == "2026-01-01T00:00:00Z"
    assert moment(1) == "1970-01-01T00:00:00.001000Z"


def test_the_last_event_is_a_run_finished(recorder):
    assert isinstance(recorder.close("error", 2, error=ERROR), RunFinished)
    assert kinds(recorder.events) == ["run_finished"]  # even where the run never began


def test_what_was_not_taken_in_is_no_success(recorder):
    recorder.start(A)
    recorder.evaluation_started({A: DAYS[:1]})
    recorder.batch_started(A)
    recorder.end_batch(A)
    recorder.fault("a callback could not be told", ERROR)

    finished = recorder.close()

    assert (finished.status, finished.exit_code) == ("error", 1)
    assert finished.error.message == "a callback could not be told"
    assert finished.error.category == "internal"
    assert finished.digest[0].status == "executed"
