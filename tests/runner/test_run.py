"""A run ends with its last event, whatever ends it."""

import io
import os
import signal
import sys
import threading
import time

import pytest

from sqlmesh_pipes_protocol.events import RunFinished
from sqlmesh_pipes_runner.errors import EXIT_INTERRUPTED
from sqlmesh_pipes_runner.options import RunOptions
from sqlmesh_pipes_runner.progress import Progress, Verbosity
from sqlmesh_pipes_runner.run import Run
from sqlmesh_pipes_runner.writer import EventWriter


class HookedProgress(Progress):
    """Silent; calls the hook with each event that is shown."""

    def __init__(self, hook):
        super().__init__(Verbosity.QUIET, stream=io.StringIO())
        self.hook = hook

    def show(self, event):
        super().show(event)
        self.hook(event)


@pytest.fixture
def events():
    return []


@pytest.fixture
def make_run(warehouse, events, monkeypatch):
    monkeypatch.setenv("RUNNER_TEST_DATABASE", str(warehouse.database))

    def make(hook=lambda event: None, *, exit_process=os.abort):
        def show(event):
            events.append(event)
            hook(event)

        return Run(
            RunOptions(projects=(warehouse.path,), environment="prod"),
            EventWriter("run-1", None, on_broken=print),
            HookedProgress(show),
            grace_seconds=60.0,
            exit_process=exit_process,
        )

    return make


def interrupt_at(kind, model='"db"."staging"."orders"'):
    """Send SIGTERM to this process at the first event of a kind, and go on when it is handled: by the main thread, which may be another."""
    sent = []

    def hook(event):
        if event.kind == kind and getattr(event, "model", model) == model and not sent:
            sent.append(event)
            os.kill(os.getpid(), signal.SIGTERM)
            deadline = time.monotonic() + 10
            while not is_handled() and time.monotonic() < deadline:
                time.sleep(0.001)

    def is_handled():  # the grace period has begun
        return any(isinstance(thread, threading.Timer) for thread in threading.enumerate())

    return hook


def terminal(events):
    return {e.model: e for e in events if e.kind in ("model_executed", "model_failed", "model_skipped")}


@pytest.mark.parametrize("kind", ["run_started", "evaluation_started", "model_started", "batch_finished"])
def test_a_signal_at_any_point_leaves_every_model_with_one_outcome(make_run, events, kind):
    code = make_run(interrupt_at(kind)).execute()

    told = [e.model for e in events if e.kind in ("model_executed", "model_failed", "model_skipped")]
    assert code == EXIT_INTERRUPTED
    assert sorted(told) == sorted(set(told))
    assert len(told) == 6
    assert (events[-1].kind, events[-1].status, events[-1].exit_code) == ("run_finished", "interrupted", 130)
    assert events[-1].last_seq == len(events) - 1
    assert {outcome.model for outcome in events[-1].digest} == set(told)
    skips = {e.model: e.reason for e in terminal(events).values() if e.kind == "model_skipped"}
    # Before SQLMesh has said what is due, nobody knows that the embedded model never is.
    embedded = skips.pop('"db"."staging"."bright"')
    assert embedded == ("interrupted" if kind == "run_started" else "not_runnable")
    assert set(skips.values()) == {"interrupted"}


@pytest.mark.parametrize("kind", ["evaluation_started", "model_started", "batch_finished"])
def test_an_interrupted_run_has_no_error(make_run, events, kind):
    make_run(interrupt_at(kind)).execute()

    assert events[-1].status == "interrupted"
    assert events[-1].error is None


def test_a_model_that_is_not_due_keeps_its_reason_when_the_run_is_interrupted(make_run, events, warehouse):
    warehouse.write(
        {"models/later.sql": "MODEL (name s.later, kind FULL, start '2999-01-01'); SELECT 1 AS a"}
    )
    warehouse.plan()
    make_run(interrupt_at("model_started")).execute()

    skips = {e.model: e for e in terminal(events).values() if e.kind == "model_skipped"}
    later = skips['"db"."s"."later"']
    assert (later.reason, later.detail) == ("cron_not_due", "The model starts at 2999-01-01.")
    assert skips['"db"."staging"."bright"'].reason == "not_runnable"
    assert skips['"db"."marts"."doubled"'].reason == "interrupted"
    assert "SIGTERM" in skips['"db"."marts"."doubled"'].detail
    assert events[-1].status == "interrupted"


def test_a_run_that_breaks_off_interrupts_only_what_was_due(make_run, events, monkeypatch):
    from sqlmesh.core import scheduler

    def broken(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scheduler, "concurrent_apply_to_dag", broken)
    code = make_run().execute()

    skips = {e.model: e for e in terminal(events).values()}
    assert skips.pop('"db"."staging"."bright"').reason == "not_runnable"
    assert {e.reason for e in skips.values()} == {"interrupted"}
    assert {e.detail for e in skips.values()} == {"The run broke off: [Errno 28] No space left on device"}
    assert (code, events[-1].status, events[-1].error.category) == (3, "error", "resource")


def test_a_failure_that_sqlmesh_reports_and_no_model_had_is_an_error_of_the_run(
    make_run, events, monkeypatch
):
    from sqlmesh.utils import CompletionStatus

    from sqlmesh_pipes_runner.adapter import ReportingContext

    monkeypatch.setattr(ReportingContext, "run", lambda *_args, **_kwargs: CompletionStatus.FAILURE)
    code = make_run().execute()

    assert (code, events[-1].status, events[-1].exit_code) == (1, "error", 1)
    assert events[-1].error.message == "SQLMesh reports that the run failed, and named no model that did."
    assert events[-1].error.category == "internal"


@pytest.mark.parametrize("status", [0, 7, None, "bye"])
def test_an_exit_from_within_sqlmesh_is_an_error_of_the_run_whatever_its_status(
    make_run, events, monkeypatch, status
):
    from sqlmesh_pipes_runner.adapter import ReportingContext

    def leave(*_args, **_kwargs):
        sys.exit(status)

    monkeypatch.setattr(ReportingContext, "run", leave)
    code = make_run().execute()

    assert (code, events[-1].status, events[-1].exit_code) == (1, "error", 1)
    assert events[-1].error.error_class == "builtins.SystemExit"


def test_a_signal_while_the_end_is_told_tears_nothing(make_run, events):
    """The first skip of the closing round is told outside of SQLMesh's evaluation."""
    code = make_run(interrupt_at("model_skipped", '"db"."staging"."bright"')).execute()

    assert isinstance(events[-1], RunFinished)
    assert len(terminal(events)) == 6
    assert (code, events[-1].status) == (0, "success")  # all had been done


def test_a_signal_before_sqlmesh_is_loaded_still_gives_a_last_event(make_run, events):
    run = make_run()
    run.cancellation.request("SIGTERM")
    code = run.execute()

    assert code == EXIT_INTERRUPTED
    assert [(event.kind, event.status) for event in events] == [("run_finished", "interrupted")]


def test_an_error_before_the_run_is_its_last_event(make_run, events):
    code = make_run().execute(LookupError("no such request"))

    assert code == 1
    assert [event.kind for event in events] == ["run_finished"]
    assert events[0].error.message == "no such request"
    assert events[0].status == "error"


def test_the_second_request_reports_what_is_known_and_ends_the_process(make_run, events):
    """The process would be gone; here it goes on, and adds nothing."""
    ended, exits, runs = threading.Event(), [], []

    def exit_process(code):
        exits.append(code)
        ended.set()

    def hook(event):
        if event.kind == "model_started" and event.model == '"db"."staging"."orders"':
            for _ in range(2):
                runs[0].cancellation.request("asked twice")

    runs.append(make_run(hook, exit_process=exit_process))
    code = runs[0].execute()

    assert ended.wait(10)
    assert exits == [EXIT_INTERRUPTED]
    assert code == EXIT_INTERRUPTED
    assert [event.kind for event in events].count("run_finished") == 1
    assert events[-1].kind == "run_finished"
    assert events[-1].status == "interrupted"
    assert len(terminal(events)) == 6
