"""A run ends with its last event, whatever ends it."""

import io
import os
import signal
import threading

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
    """Send SIGTERM to this process at the first event of a kind."""
    sent = []

    def hook(event):
        if event.kind == kind and getattr(event, "model", model) == model and not sent:
            sent.append(event)
            os.kill(os.getpid(), signal.SIGTERM)

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
    reasons = {e.reason for e in terminal(events).values() if e.kind == "model_skipped"}
    assert reasons == {"interrupted"}


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
