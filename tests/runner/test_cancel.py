"""A run that is told to stop ends between batches; one that does not end is ended."""

import os
import signal
import sys
import threading
import time

import pytest

from sqlmesh_pipes_runner.cancel import Cancellation
from sqlmesh_pipes_runner.errors import RunInterruptedError

LONG = 60.0


class Force:
    """Notes what it is called with, and in which thread."""

    def __init__(self):
        self.called = threading.Event()
        self.calls = []

    def __call__(self, reason):
        self.calls.append((reason, threading.current_thread() is threading.main_thread()))
        self.called.set()


@pytest.fixture
def force():
    return Force()


def deliver(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python's handler runs between two instructions of the main thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_evaluation_raises_in_the_main_thread(force, number):
    cancellation = Cancellation(LONG, force)

    with cancellation.handling_signals(), pytest.raises(RunInterruptedError) as caught:
        deliver(number)

    assert caught.value.args == (signal.Signals(number).name,)
    assert cancellation.requested
    assert cancellation.reason == signal.Signals(number).name
    assert force.calls == []


def test_a_signal_between_batches_only_raises_nothing_until_the_run_checks(force):
    cancellation = Cancellation(LONG, force)

    with cancellation.handling_signals(), cancellation.between_batches_only():
        deliver(signal.SIGTERM)
        assert cancellation.requested
        with pytest.raises(RunInterruptedError):
            cancellation.check()

    assert force.calls == []


def test_a_signal_raises_again_once_the_evaluation_is_over(force):
    cancellation = Cancellation(LONG, force)

    with cancellation.handling_signals():
        with cancellation.between_batches_only(), cancellation.between_batches_only():
            pass
        with pytest.raises(RunInterruptedError):
            deliver(signal.SIGTERM)


def test_a_signal_while_the_end_is_told_raises_nothing(force):
    cancellation = Cancellation(LONG, force)

    with cancellation.handling_signals():
        cancellation.raise_no_more()
        deliver(signal.SIGTERM)

    assert cancellation.requested


def test_check_is_silent_as_long_as_nothing_was_asked_for(force):
    cancellation = Cancellation(LONG, force)

    cancellation.check()

    assert not cancellation.requested
    assert cancellation.reason is None


def test_a_second_signal_forces_the_end_from_a_thread_of_its_own(force):
    cancellation = Cancellation(LONG, force)

    with cancellation.handling_signals(), cancellation.between_batches_only():
        deliver(signal.SIGTERM)
        assert not force.called.is_set()
        deliver(signal.SIGINT)
        assert force.called.wait(5)

    assert force.calls == [("SIGINT", False)]
    assert cancellation.reason == "SIGTERM"  # the first one is why the run ends


def test_the_end_of_the_grace_period_forces_the_end(force):
    cancellation = Cancellation(0.05, force)

    with cancellation.handling_signals(), cancellation.between_batches_only():
        began = time.monotonic()
        deliver(signal.SIGTERM)
        assert force.called.wait(5)

    assert time.monotonic() - began >= 0.05
    assert force.calls == [("SIGTERM", False)]


def test_a_run_that_ends_within_the_grace_period_is_not_forced(force):
    cancellation = Cancellation(0.2, force)

    with cancellation.handling_signals(), cancellation.between_batches_only():
        deliver(signal.SIGTERM)

    assert not force.called.wait(0.4)


def test_a_request_from_another_thread_interrupts_nothing_but_is_seen(force):
    cancellation = Cancellation(LONG, force)

    with cancellation.handling_signals():
        thread = threading.Thread(target=cancellation.request, args=("Dagster no longer listens",))
        thread.start()
        thread.join(5)
        with pytest.raises(RunInterruptedError) as caught:
            cancellation.check()

    assert caught.value.args == ("Dagster no longer listens",)


@pytest.mark.parametrize("raises", [False, True])
def test_the_handlers_before_are_restored(force, raises):
    def mine(_number, _frame):
        pass

    before = {number: signal.signal(number, mine) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        try:
            with Cancellation(LONG, force).handling_signals():
                assert signal.getsignal(signal.SIGTERM) is not mine
                if raises:
                    raise LookupError
        except LookupError:
            pass
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_at_any_line_of_the_handling_of_another_is_handled(force):
    """The handler interrupts the main thread wherever it stands, its own work for the signal before included: with a
    lock taken there, it would wait for itself."""
    lines = None
    for place in range(10_000):
        if lines is not None and place >= lines:
            break
        cancellation, seen = Cancellation(LONG, force), 0

        def trace(_frame, event, _argument, *, place=place, cancellation=cancellation):
            nonlocal seen
            if event == "line":
                seen += 1
                if seen == place + 1:
                    sys.settrace(None)
                    cancellation.request("SIGINT")
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            cancellation.request("SIGTERM")
        finally:
            sys.settrace(before)
        assert cancellation.requested
        cancellation._timer.cancel()
        if seen <= place:
            lines = seen

    assert lines is not None
    assert lines > 5
