"""People read what they can; that nobody can read it is no reason to fail a run."""

import io
import os
import sys

import pytest

from sqlmesh_pipes_protocol.events import AuditEvaluated, Interval, Log, ModelExecuted
from sqlmesh_pipes_runner.progress import Progress, Verbosity

LOG = Log(level="error", logger="test", message="said")


class Broken(io.StringIO):
    """Breaks from the write with the number given on; counts."""

    def __init__(self, error, *, breaks_at=0):
        super().__init__()
        self.error = error
        self.breaks_at = breaks_at
        self.attempts = 0

    def write(self, text):
        self.attempts += 1
        if self.attempts > self.breaks_at:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device"), ValueError("closed")],
)
def test_a_stream_that_breaks_is_not_written_to_again_and_nothing_is_raised(error):
    stream = Broken(error)
    progress = Progress(Verbosity.VERBOSE, stream=stream)

    for _ in range(3):
        progress.show(LOG)

    assert stream.attempts == 1


def test_what_was_said_before_the_stream_broke_stands():
    stream = Broken(BrokenPipeError(32, "Broken pipe"), breaks_at=1)
    progress = Progress(Verbosity.VERBOSE, stream=stream)

    for _ in range(3):
        progress.show(LOG)

    assert stream.getvalue().count("ERROR said") == 1


def test_a_stream_that_is_closed_is_silence():
    stream = io.StringIO()
    progress = Progress(Verbosity.VERBOSE, stream=stream)
    stream.close()

    progress.show(LOG)
    progress.show(LOG)


def test_standard_error_is_the_one_of_the_moment(monkeypatch):
    """It is looked up for each line: a test's, or a model's own, may have taken its place."""
    progress = Progress(Verbosity.NORMAL)
    first, second = io.StringIO(), io.StringIO()
    for stream in (first, second):
        monkeypatch.setattr(sys, "stderr", stream)
        progress.show(LOG)

    assert [stream.getvalue().count("ERROR said") for stream in (first, second)] == [1, 1]


def audit(name, *, passed, day="2026-01-01"):
    return AuditEvaluated(
        model="m",
        audit=name,
        name=name,
        arguments={},
        blocking=False,
        skipped=False,
        passed=passed,
        failing_rows=0 if passed else 1,
        query=None,
        dialect=None,
        interval=Interval(start=f"{day}T00:00:00Z", end=f"{day}T23:00:00Z"),
    )


def test_an_audit_of_many_batches_is_one_audit_and_failed_if_one_of_them_did():
    stream = io.StringIO()
    progress = Progress(Verbosity.NORMAL, stream=stream)
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        progress.show(audit("a", passed=True, day=day))
        progress.show(audit("b", passed=day != "2026-01-02", day=day))
    progress.show(ModelExecuted(model="m", intervals=(), batches=3, duration_ms=1, rows=None, bytes=None))

    assert stream.getvalue().endswith("executed  m in 0.0 s, 3 batches; audits: 1 failed, 1 passed\n")


def test_no_line_of_a_text_is_taken_for_a_command_of_ci_or_of_the_terminal():
    stream = io.StringIO()
    Progress(Verbosity.NORMAL, stream=stream).show(
        Log(level="error", logger="test", message="said\n::error::not so\r\n\x1b[2J##[error]nor so")
    )

    first, *rest = stream.getvalue().splitlines()
    assert first.endswith(" ERROR said")
    assert rest == ["         | ::error::not so", "         | \\x1b[2J##[error]nor so"]


def test_lines_that_a_full_pipe_would_hold_up_are_left_out_where_nobody_is_to_be_waited_for():
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as other_end:
        progress = Progress(Verbosity.NORMAL, stream=stream, waits=False)
        for number in range(100):
            progress.show(Log(level="warning", logger="test", message=f"{number}:" + "é" * 3_000))
        os.set_blocking(reading, False)
        taken = other_end.read().decode(errors="replace")
        progress.show(Log(level="warning", logger="test", message="after"))
        rest = other_end.read().decode()

    assert "0:é" in taken
    assert "99:é" not in taken  # more than a pipe holds: this would have waited for ever
    assert rest.startswith("\n")  # the last one before was torn
    assert rest.endswith("WARNING after\n")
