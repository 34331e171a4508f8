"""When a silence is odd, and when it is the end."""

import pytest

from dagster_sqlmesh_pipes.silence import Listener, Silence


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def after(clock: Clock, listener: Listener, seconds: float) -> Silence:
    """What is said when so much time has gone by, in which somebody listened; nothing is said before."""
    for _ in range(int(seconds) - 1):
        clock.now += 1
        assert listener.silent() is Silence.NONE
    clock.now += 1
    return listener.silent()


def test_a_runner_that_was_never_heard_is_starting(clock):
    assert after(clock, Listener(10, clock=clock), 10_000) is Silence.NONE


@pytest.mark.parametrize(("deadly", "worrying"), [(300, 30), (20, 10), (None, 30)])
def test_a_silence_is_told_once_and_then_the_end(clock, deadly, worrying):
    listener = Listener(deadly, clock=clock)
    assert listener.heard() is Silence.NONE
    assert after(clock, listener, worrying - 1) is Silence.NONE
    assert after(clock, listener, 1) is Silence.WORRYING
    rest = (deadly or 10_000) - worrying
    assert after(clock, listener, rest) is (Silence.DEADLY if deadly else Silence.NONE)


def test_being_heard_again_is_told_once(clock):
    listener = Listener(300, clock=clock)
    listener.heard()
    after(clock, listener, 30)
    assert [listener.heard(), listener.heard()] == [Silence.OVER, Silence.NONE]
    assert after(clock, listener, 30) is Silence.WORRYING


def test_who_did_not_listen_has_not_heard_a_silence(clock):
    listener = Listener(60, clock=clock)
    listener.heard()
    clock.now += 10_000  # stopped, as by SIGSTOP
    assert listener.silent() is Silence.NONE
    assert after(clock, listener, 30) is Silence.WORRYING


def test_what_cannot_be_heard_is_not_silent(clock):
    listener = Listener(60, clock=clock)
    listener.heard()
    for _ in range(10):
        assert after(clock, listener, 20) is Silence.NONE
        listener.excuse()
    assert after(clock, listener, 30) is Silence.WORRYING
    assert after(clock, listener, 30) is Silence.DEADLY
