"""Events reach a file, a FIFO or a pipe, whoever reads there, and however: the run is never held up by it."""

import fcntl
import json
import os
import subprocess
import threading
import time
from contextlib import suppress

import pytest

from sqlmesh_pipes_protocol.events import Log
from sqlmesh_pipes_protocol.framing import EventStream, LineSplitter, parse_line
from sqlmesh_pipes_runner import writer as writer_module
from sqlmesh_pipes_runner.errors import RunInterruptedError, UsageError
from sqlmesh_pipes_runner.writer import DescriptorSink, EventWriter, QueuedSink, open_append, sink_of

F_SETPIPE_SZ = 1031


@pytest.fixture
def pipe():
    """The ends of a pipe that holds a page."""
    ends = os.pipe()
    fcntl.fcntl(ends[1], F_SETPIPE_SZ, 4096)
    yield ends
    for end in ends:
        with suppress(OSError):  # the test may have closed it
            os.close(end)


def log(message):
    return Log(level="info", logger="test", message=message)


def read_lines(descriptor, pause=0.0):
    """All lines until the other end is closed, with a pause before each piece."""
    splitter, lines = LineSplitter(), []
    while True:
        time.sleep(pause)
        chunk = os.read(descriptor, 2048)
        if not chunk:
            return lines
        lines += splitter.feed(chunk)


def test_a_line_is_with_the_reader_when_write_returns_as_long_as_the_reader_keeps_up(pipe):
    sink = QueuedSink(pipe[1])
    for number in range(20):
        sink.write(b"%d" % number)
        assert os.read(pipe[0], 100) == b"%d\n" % number


def test_a_slow_reader_gets_every_event_and_holds_nothing_up(pipe):
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(read_lines(pipe[0], pause=0.02)))
    writer = EventWriter("run-1", QueuedSink(pipe[1]), on_broken=pytest.fail)
    reader.start()
    began = time.monotonic()
    for number in range(100):
        writer.emit(log(f"{number}:" + "x" * 2_000))
    took = time.monotonic() - began
    writer.drain()
    os.close(pipe[1])
    reader.join(20)

    assert took < 1
    stream = EventStream()
    events = [stream.receive(parse_line(line)) for line in lines]
    assert [event.seq for event in events] == list(range(100))
    assert stream.missing() == []


def test_a_reader_that_never_reads_is_given_up_after_a_while_and_told_once(pipe):
    broken = []
    writer = EventWriter("run-1", QueuedSink(pipe[1], patience=0.3), on_broken=broken.append)
    began = time.monotonic()
    for _ in range(100):
        writer.emit(log("x" * 2_000))
    emitted = time.monotonic()
    writer.drain()
    writer.drain()
    writer.emit(log("after"))

    assert emitted - began < 1
    assert 0.25 < time.monotonic() - emitted < 2
    assert [error.strerror for error in broken] == ["nobody has read them for 0.3 s"]
    assert writer.next_seq == 101


def test_memory_that_is_full_waits_for_the_reader_and_for_one_that_never_reads_no_longer_than_patience(pipe):
    sink = QueuedSink(pipe[1], capacity=10_000, patience=0.3)
    with pytest.raises(OSError, match="nobody has read them"):  # noqa: PT012 - which one raises is not known
        for _ in range(100):
            sink.write(b"x" * 1_000)

    lines = []
    reading, writing = os.pipe()
    sink = QueuedSink(writing, capacity=10_000, patience=5)
    reader = threading.Thread(target=lambda: lines.extend(read_lines(reading, pause=0.001)))
    reader.start()
    for _ in range(300):
        sink.write(b"x" * 1_000)
    sink.drain()
    os.close(writing)
    reader.join(20)
    os.close(reading)
    assert lines == [b"x" * 1_000] * 300


def test_a_reader_that_closes_breaks_the_sink_at_once(pipe):
    sink = QueuedSink(pipe[1], patience=60)
    sink.write(b"a")
    os.close(pipe[0])

    with pytest.raises(BrokenPipeError):
        sink.write(b"b")
    with pytest.raises(BrokenPipeError):
        sink.drain()


def test_a_reader_that_closes_while_lines_wait_is_told_at_the_end(pipe):
    broken = []
    writer = EventWriter("run-1", QueuedSink(pipe[1], patience=60), on_broken=broken.append)
    for _ in range(10):
        writer.emit(log("x" * 2_000))
    threading.Timer(0.1, os.close, args=(pipe[0],)).start()
    writer.drain()

    assert [type(error) for error in broken] == [BrokenPipeError]


def test_a_file_is_written_to_at_once_and_what_may_block_is_not(tmp_path, pipe):
    file = open_append(tmp_path / "events")

    assert isinstance(sink_of(file), DescriptorSink)
    assert isinstance(sink_of(pipe[1]), QueuedSink)
    os.close(file)


def test_an_interrupt_in_the_midst_of_a_write_leaves_no_number_that_comes_twice():
    class Interrupted(DescriptorSink):
        def write(self, line):
            raise RunInterruptedError("SIGTERM")

    writer = EventWriter("run-1", Interrupted(-1), on_broken=pytest.fail)
    with pytest.raises(RunInterruptedError):
        writer.emit(log("a"))

    assert writer.next_seq == 1


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_a_fifo_that_nobody_reads_is_an_error_of_usage_after_a_while(fifo):
    began = time.monotonic()
    with pytest.raises(UsageError, match=r"fifo: nobody has read it for 0\.3 s"):
        open_append(fifo, patience=0.3)

    assert 0.25 < time.monotonic() - began < 2


def test_a_fifo_waits_for_its_reader(fifo):
    read = []
    reader = threading.Timer(0.2, lambda: read.append(fifo.read_bytes()))
    reader.start()
    descriptor = open_append(fifo, patience=10)
    assert os.get_blocking(descriptor)
    QueuedSink(descriptor).write(b"a line")
    os.close(descriptor)
    reader.join(10)

    assert read == [b"a line\n"]


@pytest.mark.parametrize(
    ("before", "after"), [("", "new\n"), ("old\n", "old\nnew\n"), ("torn", "torn\nnew\n")]
)
def test_a_file_is_appended_to_from_a_new_line_on(tmp_path, before, after):
    (tmp_path / "events").write_text(before)
    descriptor = open_append(tmp_path / "events")
    DescriptorSink(descriptor).write(b"new")
    os.close(descriptor)

    assert (tmp_path / "events").read_text() == after


def test_a_run_whose_events_nobody_reads_ends_with_its_own_status_and_says_so(slow, gate, fifo, monkeypatch):
    gate.touch()
    monkeypatch.setattr(writer_module, "READER_PATIENCE", 1.0)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reading, F_SETPIPE_SZ, 4096)
    try:
        result = slow.invoke("run", "prod", "--events", str(fifo))
    finally:
        os.close(reading)

    assert result.exit_code == 1
    assert "FAILED in" in result.stderr
    assert "Events can no longer be written: nobody has read them for 1 s." in result.stderr


@pytest.mark.parametrize("status", [0, 1])
def test_a_run_whose_reader_closes_ends_with_its_own_status(slow, gate, status):
    gate.touch()
    selection = [] if status else ["--select-model", "marts.slow"]
    process = slow.start(
        "run", "prod", "--events", "-", *selection, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while (
        json.loads(process.stdout.readline())["kind"] != "run_started"
    ):  # on a busy machine heartbeats come before it
        pass
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()

    assert process.wait(40) == status
    assert said.count("Events can no longer be written: Broken pipe.") == 1
    assert "1 executed" in said or "3 executed" in said


def test_standard_output_that_is_closed_is_an_error_of_usage(slow):
    command = " ".join([*slow.command("run", "prod", "--events", "-"), ">&-"])
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=40, check=False)

    assert done.returncode == 2
    assert "Events cannot be written to standard output: Bad file descriptor." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_while_there_is_nothing_to_write_is_noticed(pipe):
    gone = threading.Event()
    broken = []
    sink = QueuedSink(pipe[1], patience=60)
    writer = EventWriter("run-1", sink, on_broken=lambda error: (broken.append(error), gone.set()))
    sink.watch(writer.give_up)
    writer.emit(log("a"))
    assert not gone.is_set()
    os.close(pipe[0])

    assert gone.wait(10)
    writer.emit(log("b"))
    assert [type(error) for error in broken] == [BrokenPipeError]
