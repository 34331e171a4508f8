"""Events leave the runner as whole lines, whoever else writes, and whatever happens to the reader."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import pytest
from dagster_pipes import encode_param

from sqlmesh_pipes_protocol.events import AuditEvaluated, Counts, Log, ModelOutcome, RunFinished
from sqlmesh_pipes_protocol.framing import MAX_LINE_BYTES, EventStream, LineSplitter, parse_line
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION
from sqlmesh_pipes_runner.errors import UsageError
from sqlmesh_pipes_runner.secrets import Masker
from sqlmesh_pipes_runner.writer import DescriptorSink, EventWriter, LineMessageWriter, open_append

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


class ListSink:
    """Keeps lines; breaks from the one with the number given on."""

    overhead = 1

    def __init__(self, breaks_at=None):
        self.lines = []
        self.attempts = 0
        self._breaks_at = breaks_at

    def write(self, line):
        self.attempts += 1
        if self._breaks_at is not None and len(self.lines) >= self._breaks_at:
            raise BrokenPipeError(32, "Broken pipe")
        self.lines.append(line)


def log(message, level="info"):
    return Log(level=level, logger="test", message=message)


def no_break(error):
    raise AssertionError(error)


@pytest.fixture
def sink():
    return ListSink()


@pytest.fixture
def writer(sink):
    return EventWriter("run-1", sink, on_broken=no_break, now=lambda: NOON)


def events_of(lines):
    """The events of lines, read as an orchestrator reads them."""
    stream = EventStream()
    received = [stream.receive(parse_line(line)) for line in lines]
    assert stream.missing() == []
    assert stream.duplicates == 0
    return [envelope for envelope in received if envelope is not None]


def test_events_are_numbered_and_timed(writer, sink):
    assert writer.next_seq == 0
    writer.emit(log("a"))
    writer.emit(log("b"))

    assert writer.next_seq == 2
    assert json.loads(sink.lines[1]) == {
        "kind": "log",
        "v": PROTOCOL_VERSION,
        "run_id": "run-1",
        "seq": 1,
        "at": "2026-01-01T12:00:00.000000Z",
        "level": "info",
        "logger": "test",
        "message": "b",
    }


def test_what_is_written_and_what_is_returned_is_masked(writer, sink):
    writer.masker = Masker(["planted-secret"])

    returned = writer.emit(log("with planted-secret"))

    assert returned.event == log("with ***")
    assert b"planted" not in sink.lines[0]


def test_without_a_sink_events_are_still_masked_and_counted():
    writer = EventWriter("run-1", None, on_broken=no_break)
    writer.masker = Masker(["planted-secret"])

    assert writer.emit(log("planted-secret")).event == log("***")
    assert writer.next_seq == 1


def test_a_large_event_goes_in_parts_none_longer_than_a_line(writer, sink):
    event = AuditEvaluated(
        model="m",
        audit="a",
        name="a",
        arguments={},
        blocking=True,
        skipped=False,
        passed=True,
        failing_rows=0,
        query="x" * 50_000,
        dialect=None,
        interval=None,
    )
    writer.emit(event)
    writer.emit(log("after"))

    assert len(sink.lines) > 7
    assert max(len(line) + 1 for line in sink.lines) <= MAX_LINE_BYTES
    first, second = events_of(sink.lines)
    assert first.event == event
    assert second.event == log("after")


def test_an_event_that_cannot_be_sent_leaves_no_gap_and_says_so(writer, sink):
    writer.emit(log({"not", "text"}))
    writer.emit(log("after"))

    first, second = events_of(sink.lines)
    assert first.event.level == "error"
    assert "'log' could not be sent" in first.event.message
    assert second.event == log("after")


def test_a_last_event_that_cannot_be_sent_goes_without_its_digest(writer, sink):
    counts = Counts(
        selected=1, executed=1, failed=0, skipped=0, audits_passed=0, audits_failed=0, audits_skipped=0
    )
    finished = RunFinished(
        status="success",
        exit_code=0,
        counts=counts,
        duration_ms=1,
        last_seq=0,
        digest=(ModelOutcome(model={"not", "text"}, status="executed"),),
    )
    writer.emit(finished)

    (envelope,) = events_of(sink.lines)
    assert envelope.event.status == "success"
    assert envelope.event.counts == counts
    assert envelope.event.digest == ()


def test_a_broken_sink_is_told_once_and_later_events_are_dropped():
    sink, broken = ListSink(breaks_at=1), []
    writer = EventWriter("run-1", sink, on_broken=broken.append)

    for number in range(5):
        writer.emit(log(str(number)))

    assert len(sink.lines) == 1
    assert sink.attempts == 2
    assert [error.strerror for error in broken] == ["Broken pipe"]
    assert writer.next_seq == 5


def test_the_one_who_is_told_of_the_break_may_write_itself():
    writer = EventWriter("run-1", ListSink(breaks_at=0), on_broken=lambda _: writer.emit(log("told")))

    writer.emit(log("a"))

    assert writer.next_seq == 2


def test_a_real_pipe_whose_reader_has_gone_breaks_once_for_eight_threads():
    reading, writing = os.pipe()
    os.close(reading)
    broken = []
    writer = EventWriter("run-1", DescriptorSink(writing), on_broken=broken.append)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: writer.emit(log(str(n))), range(80)))
    finally:
        os.close(writing)

    assert [type(error) for error in broken] == [BrokenPipeError]
    assert writer.next_seq == 80


def test_lines_of_eight_threads_arrive_whole_large_events_too():
    reading, writing = os.pipe()
    chunks = []

    def read():
        while chunk := os.read(reading, 1000):  # smaller than a line
            chunks.append(chunk)
        os.close(reading)

    reader = threading.Thread(target=read)
    reader.start()
    writer = EventWriter("run-1", DescriptorSink(writing), on_broken=no_break)
    gate = threading.Barrier(8)

    def work(worker):
        gate.wait(5)
        for number in range(25):
            size = 20_000 if number % 5 == 0 else 100
            writer.emit(log(f"{worker}:{number}:" + "é" * size))

    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        os.close(writing)
        reader.join(20)

    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    assert splitter.close() is None
    assert max(map(len, lines)) < MAX_LINE_BYTES
    events = events_of(lines)
    assert [envelope.seq for envelope in events] == list(range(200))
    assert {envelope.event.message.rpartition(":")[0] for envelope in events} == {
        f"{worker}:{number}" for worker in range(8) for number in range(25)
    }


@pytest.mark.parametrize("stream", [1, 2])
def test_a_claimed_stream_carries_events_alone(python, stream):
    done = python(
        """
        import os, subprocess, sys
        from sqlmesh_pipes_protocol.events import Log
        from sqlmesh_pipes_runner.writer import DescriptorSink, EventWriter, claim_stream

        number = int(sys.argv[1])
        writer = EventWriter("run-1", DescriptorSink(claim_stream(number)), on_broken=print)
        print("a print", file=sys.stdout if number == 1 else sys.stderr, flush=True)
        writer.emit(Log(level="info", logger="test", message="an event"))
        redirected = "" if number == 1 else " 1>&2"
        os.system("echo a shell" + redirected)
        subprocess.run("echo a child" + redirected, shell=True)
        os.write(number, b"a write")
        """,
        str(stream),
    )

    claimed, other = (done.stdout, done.stderr) if stream == 1 else (done.stderr, done.stdout)
    assert done.returncode == 0, done.stderr
    assert [envelope.event.message for envelope in events_of(claimed.encode().splitlines())] == ["an event"]
    assert other.split("\n") == ["a print", "a shell", "a child", "a write"]


def test_children_do_not_inherit_the_descriptor_of_the_events(python):
    done = python("""
        import os, subprocess, sys
        from sqlmesh_pipes_runner.writer import claim_stream
        private = claim_stream(1)
        script = f"import os; os.write({private}, b'from a child')"
        print(subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, close_fds=False).returncode)
    """)

    assert (done.stdout, done.stderr) == ("", "1\n")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("missing/events.jsonl", "No such file or directory"),
        ("", "Is a directory"),
        ("file/events.jsonl", "Not a directory"),
    ],
)
def test_a_path_that_cannot_be_written_to_is_an_error_of_usage(tmp_path, place, says):
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match=says) as caught:
        open_append(tmp_path / place)

    assert str(tmp_path / place) in str(caught.value)


def test_a_file_is_appended_to(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("before\n")
    descriptor = open_append(path)
    DescriptorSink(descriptor).write(b"after")
    os.close(descriptor)

    assert path.read_text() == "before\nafter\n"


PIPES_PROCESS = """
    import sys
    from dagster_pipes import open_dagster_pipes
    from sqlmesh_pipes_protocol.events import Log
    from sqlmesh_pipes_runner.writer import EventWriter, LineMessageWriter, PipesSink

    pipes = open_dagster_pipes(message_writer=LineMessageWriter())
    writer = EventWriter("run-1", PipesSink(pipes), on_broken=print)
    print("a print", flush=True)
    writer.emit(Log(level="info", logger="test", message="small"))
    writer.emit(Log(level="info", logger="test", message="x" * 20_000))
    pipes.close()
"""


def pipes_environment(messages):
    context = {
        "asset_keys": None,
        "code_version_by_asset_key": None,
        "provenance_by_asset_key": None,
        "partition_key": None,
        "partition_key_range": None,
        "partition_time_window": None,
        "run_id": "dagster-run",
        "job_name": None,
        "retry_number": 0,
        "extras": {},
    }
    return {
        "DAGSTER_PIPES_CONTEXT": encode_param({"data": context}),
        "DAGSTER_PIPES_MESSAGES": encode_param(messages),
    }


def assert_pipes_messages(text):
    lines = [line for line in text.splitlines() if line]
    messages = [json.loads(line) for line in lines]
    assert {message["__dagster_pipes_version"] for message in messages} == {"0.1"}
    assert [messages[0]["method"], messages[-1]["method"]] == ["opened", "closed"]
    custom = messages[1:-1]
    assert {message["method"] for message in custom} == {"report_custom_message"}
    assert max(len(line) + 1 for line in lines) <= MAX_LINE_BYTES
    stream = EventStream("run-1")
    received = [stream.receive(message["params"]["payload"]) for message in custom]
    assert [len(e.event.message) for e in received if e is not None] == [5, 20_000]


def test_pipes_messages_go_to_the_file_that_dagster_names(python, tmp_path):
    path = tmp_path / "messages"
    path.touch()
    done = python(PIPES_PROCESS, env=pipes_environment({"path": str(path)}))

    assert done.returncode == 0, done.stderr
    assert done.stdout == "a print\n"
    assert_pipes_messages(path.read_text())


def test_pipes_messages_have_standard_output_to_themselves(python):
    done = python(PIPES_PROCESS, env=pipes_environment({"stdio": "stdout"}))

    assert done.returncode == 0, done.stderr
    assert done.stderr == "a print\n"
    assert_pipes_messages(done.stdout)


def test_the_first_pipes_message_begins_a_line_whatever_stood_there_before(python):
    script = "import sys; sys.stdout.write('torn'); sys.stdout.flush()\n" + PIPES_PROCESS.replace(
        "\n    ", "\n"
    )
    done = python(script, env=pipes_environment({"stdio": "stdout"}))

    assert done.returncode == 0, done.stderr
    first, _, rest = done.stdout.partition("\n")
    assert first == "torn"
    assert_pipes_messages(rest)


def test_a_reader_that_stops_holds_up_no_pipes_message_and_gets_all_of_them_when_it_comes_back(python):
    """Ten times what the pipe holds is written before anything is read; the process ends when all is on its way."""
    script = """
        import os, sys
        from dagster_pipes import open_dagster_pipes
        from sqlmesh_pipes_protocol.events import Log
        from sqlmesh_pipes_runner.writer import EventWriter, PipesSink, RunnerMessageWriter

        messages = RunnerMessageWriter()
        pipes = open_dagster_pipes(message_writer=messages)
        writer = EventWriter("run-1", PipesSink(pipes, messages), on_broken=print)
        for number in range(100):
            writer.emit(Log(level="info", logger="test", message=str(number) + ":" + "x" * 7_000))
        os.write(2, b"told\\n")
        writer.drain()
        pipes.close()
    """
    reading, writing = os.pipe()
    telling, told = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, **pipes_environment({"stdio": "stdout"})},
        stdout=writing,
        stderr=told,
    )
    os.close(writing)
    os.close(told)
    with os.fdopen(telling) as words:
        assert words.readline() == "told\n"
    assert process.poll() is None  # it has more to hand over than it can
    with os.fdopen(reading, "rb") as output:
        lines = output.read().splitlines()

    assert process.wait(20) == 0
    messages = [json.loads(line) for line in lines if line]
    assert [messages[0]["method"], messages[-1]["method"]] == ["opened", "closed"]
    stream = EventStream("run-1")
    received = [stream.receive(message["params"]["payload"]) for message in messages[1:-1]]
    assert [e.event.message.partition(":")[0] for e in received] == [str(number) for number in range(100)]


@pytest.mark.parametrize("params", [{"stdio": "stdout"}, {"path": "messages"}])
def test_a_process_that_is_forked_writes_no_event_and_holds_no_pipe(python, tmp_path, params):
    script = """
        import os, sys
        from dagster_pipes import open_dagster_pipes
        from sqlmesh_pipes_protocol.events import Log
        from sqlmesh_pipes_runner.writer import EventWriter, PipesSink, RunnerMessageWriter

        messages = RunnerMessageWriter()
        pipes = open_dagster_pipes(message_writer=messages)
        writer = EventWriter("run-1", PipesSink(pipes, messages), on_broken=print)
        writer.emit(Log(level="info", logger="test", message="before"))
        child = os.fork()
        writer.emit(Log(level="info", logger="test", message="child" if child == 0 else "parent"))
        writer.drain()
        if child:
            os.waitpid(child, 0)
        pipes.close()
    """
    if "path" in params:
        params = {"path": str(tmp_path / "messages")}
    done = python(script, env=pipes_environment(params))

    assert done.returncode == 0, done.stderr
    written = (tmp_path / "messages").read_text() if "path" in params else done.stdout
    messages = [json.loads(line) for line in written.splitlines() if line]
    assert [message["method"] for message in messages] == ["opened", *["report_custom_message"] * 2, "closed"]
    assert [m["params"]["payload"]["message"] for m in messages[1:-1]] == ["before", "parent"]


@pytest.mark.parametrize("params", [{}, {"bucket": "b", "key": "k"}, {"stdio": "stdlog"}, {"path": 7}])
def test_a_reader_that_is_not_known_is_an_error_of_usage(params):
    with pytest.raises(UsageError, match="sqlmesh-runner does not know"), LineMessageWriter().open(params):
        pass


def test_a_reader_that_is_not_known_ends_the_command_with_a_usage_error(warehouse):
    done = warehouse.spawn("run", "prod", env=pipes_environment({"socket": "s"}))

    assert done.returncode == 2
    assert "does not know (parameters ['socket'])" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_line_is_written_to_its_end_though_a_signal_cuts_the_write_short():
    reading, writing = os.pipe()
    line = b"y" * 300_000  # several times what a pipe holds
    received = []
    main_thread = threading.main_thread().ident
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)

    def read():
        time.sleep(
            0.1
        )  # the writer is blocked in a full pipe: the signal makes it return with a part written
        signal.pthread_kill(main_thread, signal.SIGUSR1)
        time.sleep(0.1)
        while chunk := os.read(reading, 65_536):
            received.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        DescriptorSink(writing).write(line)
    finally:
        os.close(writing)
        reader.join(20)
        os.close(reading)
        signal.signal(signal.SIGUSR1, before)

    assert b"".join(received) == line + b"\n"


def test_a_line_is_written_to_its_end_though_the_descriptor_does_not_block():
    """Somebody at the other end of the pipe, or a child with the same terminal, may have made it so."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    lines = [bytes([letter]) * 200_000 for letter in b"abc"]  # each several times what a pipe holds
    received = []

    def read():
        time.sleep(0.1)  # the pipe is full by now
        while chunk := os.read(reading, 65_536):
            received.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for line in lines:
            DescriptorSink(writing).write(line)
    finally:
        os.close(writing)
        reader.join(20)
        os.close(reading)

    assert b"".join(received).split(b"\n") == [*lines, b""]


def test_a_descriptor_that_does_not_block_breaks_when_its_reader_goes():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    threading.Timer(0.1, os.close, args=(reading,)).start()
    try:
        with pytest.raises(BrokenPipeError):
            DescriptorSink(writing).write(b"x" * 300_000)
    finally:
        os.close(writing)
