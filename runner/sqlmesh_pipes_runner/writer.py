"""The way out for events: one writer, one lock, one whole line at a time."""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import orjson
from dagster_pipes import (
    PipesBlobStoreMessageWriter,
    PipesContext,
    PipesDefaultLogWriter,
    PipesExtras,
    PipesLogWriter,
    PipesMessage,
    PipesMessageWriter,
    PipesMessageWriterChannel,
    PipesParams,
)

from sqlmesh_pipes_protocol.codec import Envelope, timestamp
from sqlmesh_pipes_protocol.errors import EventTooLargeError
from sqlmesh_pipes_protocol.events import Event, Log, RunFinished
from sqlmesh_pipes_protocol.framing import frame
from sqlmesh_pipes_runner import stores
from sqlmesh_pipes_runner.errors import UsageError
from sqlmesh_pipes_runner.secrets import Masker

READER_PATIENCE = 15.0
"""Seconds for which a reader may take nothing before it is given up."""
DAGSTER_PATIENCE = 600.0
"""The same for Dagster's process: longer, for what it is not told it has to ask SQLMesh's state for, and what has stopped it (a
debugger, a paused container, a starved host) mostly passes in minutes. Nothing is held up by it but the runner's own end: the
warehouse is let go by then. A process that has gone is another matter: it is noticed at once."""
_QUEUE_BYTES = 64 * 1024 * 1024
_GONE_SECONDS = 0.5
"""How often a reader that is sent nothing is looked after."""
_WITHOUT_READER = select.POLLERR | select.POLLHUP
_KEEPS_UP_SECONDS = 0.005
_WAIT_SECONDS = 0.5
STORE_PATIENCE = 60.0
"""Seconds for which a store may fail before it is given up."""
_UPLOAD_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_of_this_process: dict[int, tuple[int, int]] = {}
"""Descriptors that events go to, and what they were opened on: a number may be somebody else's by the time of a fork."""


def _mute_child() -> None:
    """In a process that a model has forked: the events are the parent's, and the child must not hold their pipe open."""
    for descriptor, opened_on in _of_this_process.items():
        with suppress(OSError):
            if _opened_on(descriptor) == opened_on:
                nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                os.dup2(nowhere, descriptor, inheritable=False)
                os.close(nowhere)


def _opened_on(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


os.register_at_fork(after_in_child=_mute_child)


class Sink(Protocol):
    """Takes whole lines, without their breaks, and has them on their way when it returns."""

    overhead: int
    """Bytes that the sink adds to each line, its break included."""

    def write(self, line: bytes) -> None: ...

    def drain(self) -> None:
        """Returns when all lines are on their way; raises OSError when that cannot be."""


class EventWriter:
    """Numbers, times, masks and writes events. Thread-safe; in a process that was forked from this one it does nothing.

    When the sink breaks (the reader has gone, the disk is full), the run goes on without events: ``on_broken`` is called
    once, and later events are dropped.
    """

    def __init__(
        self,
        run_id: str,
        sink: Sink | None,
        *,
        on_broken: Callable[[OSError], None],
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.run_id = run_id
        self.masker = Masker()
        self._sink = sink
        self._on_broken = on_broken
        self._now = now
        self._lock = threading.Lock()
        self._seq = 0
        self._process = os.getpid()

    @property
    def next_seq(self) -> int:
        """The seq that the next event gets, if no other thread writes first."""
        return self._seq

    def emit(self, event: Event) -> Envelope:
        """Write the event; returns it with its place in the run, secrets masked."""
        event = self.masker.event(event)
        broken: OSError | None = None
        if (
            os.getpid() != self._process
        ):  # the lock may be held for ever here, by a thread that the fork did not copy
            return Envelope(run_id=self.run_id, seq=self._seq, at=timestamp(self._now()), event=event)
        with self._lock:
            envelope = Envelope(run_id=self.run_id, seq=self._seq, at=timestamp(self._now()), event=event)
            if self._sink is not None:
                lines = self._lines(envelope, event, self._sink.overhead)
                try:
                    for line in lines:
                        self._sink.write(line)
                except OSError as error:
                    self._sink = None
                    broken = error
                finally:
                    # A signal's handler may raise in the midst of it. A number that is missing can be told from one that
                    # comes twice, whose second event would be dropped.
                    self._seq += 1
            else:
                self._seq += 1
        if broken is not None:
            self._on_broken(broken)
        return envelope

    def drain(self) -> None:
        """Have the events on their way that a slow reader has not taken yet. Waits for as long as it takes some, no longer."""
        sink = self._sink
        if sink is None or os.getpid() != self._process:
            return
        try:
            sink.drain()
        except OSError as error:
            self.give_up(error)

    def give_up(self, error: OSError) -> None:
        """The sink has broken, as somebody has noticed who did not write: later events are dropped."""
        with self._lock:
            is_news, self._sink = self._sink is not None, None
        if is_news:
            self._on_broken(error)

    def _lines(self, envelope: Envelope, event: Event, overhead: int) -> list[bytes]:
        try:
            return list(frame(envelope, overhead=overhead))
        except (TypeError, EventTooLargeError) as error:
            # What cannot be sent must not end the run, nor leave a gap in its numbers.
            return list(frame(replace(envelope, event=_instead_of(event, error)), overhead=overhead))


def _instead_of(event: Event, error: Exception) -> Event:
    if isinstance(event, RunFinished):
        return replace(event, digest=())
    return Log(
        level="error", logger="sqlmesh-runner", message=f"An event {event.kind!r} could not be sent: {error}"
    )


class DescriptorSink:
    """Lines to a file descriptor that nothing else in the process knows of."""

    overhead = 1

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, line: bytes) -> None:
        rest = memoryview(line + b"\n")
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # noqa: PERF203 - a descriptor that somebody made non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()

    def drain(self) -> None:
        """Nothing waits."""


class QueuedSink:
    """Lines to a pipe or a terminal, whose reader may be slow, or never read: the run goes on.

    As long as the reader keeps up, a line is on its way when `write` returns. While it does not, lines wait in memory, and
    none is lost. A reader that has taken nothing for ``patience`` seconds is given up, when the memory is full or the run over.
    """

    overhead = 1

    def __init__(
        self, descriptor: int, *, capacity: int = _QUEUE_BYTES, patience: float = READER_PATIENCE
    ) -> None:
        self._descriptor = descriptor
        self._is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self._sink = DescriptorSink(descriptor)
        self._capacity = capacity
        self._patience = patience
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()  # the line that is being written included
        self._size = 0
        self._taken = 0
        self._keeps_up = True
        self._over = False
        self._error: OSError | None = None
        self._on_gone: Callable[[OSError], object] | None = None
        self._thread = threading.Thread(target=self._pass_on, name="events", daemon=True)
        self._thread.start()

    def watch(self, on_gone: Callable[[OSError], object]) -> None:
        """Look after the reader while there is nothing to write, too: called from another thread, once, when it has gone."""
        with self._changed:
            self._on_gone = on_gone
            self._changed.notify_all()

    def write(self, line: bytes) -> None:
        with self._changed:
            if self._passed_on_at_once(line):
                return
            keeps_up = self._keeps_up and not self._waiting
            self._wait(lambda: not self._waiting or self._size + len(line) <= self._capacity)
            self._waiting.append(line)
            self._size += len(line)
            self._changed.notify_all()
            if keeps_up:
                self._changed.wait_for(lambda: not self._waiting, _WAIT_SECONDS)
            if self._error is not None:
                raise self._error

    def drain(self) -> None:
        with self._changed:
            self._wait(lambda: not self._waiting)

    def close(self) -> bool:
        """End, with whatever waits; returns whether nothing is being written any more, so that the descriptor may be closed."""
        with self._changed:
            self._over = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(timeout=_WAIT_SECONDS)
        return not self._thread.is_alive()

    def _passed_on_at_once(self, line: bytes) -> bool:
        """Write without the thread's help, which takes several times as long, where that cannot block. The condition is held."""
        if (
            not self._is_pipe
            or self._waiting
            or self._error is not None
            or len(line) >= select.PIPE_BUF
            or not _polled(self._descriptor, select.POLLOUT) & select.POLLOUT
        ):
            return False
        try:
            self._sink.write(line)
        except OSError as error:
            self._give_up(error)
            raise
        return True

    def _wait(self, enough: Callable[[], bool]) -> None:
        """Wait as long as the reader takes lines. The condition is held."""
        while self._error is None and not enough():
            taken = self._taken

            def is_news(taken: int = taken) -> bool:
                return self._taken != taken or self._error is not None

            if not self._changed.wait_for(is_news, self._patience):
                self._give_up(OSError(errno.ETIMEDOUT, f"nobody has read them for {self._patience:g} s"))
        if self._error is not None:
            raise self._error

    def _give_up(self, error: OSError) -> None:
        self._error = error
        self._waiting.clear()
        self._size = 0
        self._changed.notify_all()

    def _pass_on(self) -> None:
        try:
            while (line := self._next()) is not None:
                began = time.monotonic()
                self._sink.write(line)
                with self._changed:
                    if self._error is not None or self._over:
                        return
                    self._waiting.popleft()
                    self._size -= len(line)
                    self._taken += 1
                    self._keeps_up = time.monotonic() - began < _KEEPS_UP_SECONDS
                    self._changed.notify_all()
        except OSError as error:
            with self._changed:
                self._give_up(self._error or error)
            if self._on_gone is not None:
                self._on_gone(error)

    def _next(self) -> bytes | None:
        """The line to write, once there is one; None when there will be none. Raises BrokenPipeError if the reader has gone."""
        with self._changed:
            while self._error is None and not self._over:
                if self._waiting:
                    return self._waiting[0]
                if self._on_gone is not None and _polled(self._descriptor) & _WITHOUT_READER:
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
                self._changed.wait(_GONE_SECONDS if self._on_gone is not None else None)
            return None


def _polled(descriptor: int, events: int = 0) -> int:
    """What a descriptor is ready for, now."""
    poll = select.poll()
    poll.register(descriptor, events)
    return sum(ready for _, ready in poll.poll(0))


def sink_of(descriptor: int, *, patience: float = READER_PATIENCE) -> Sink:
    """Lines to a descriptor: at once to a file, through memory to what may not be read. None from a process forked from this."""
    _of_this_process[descriptor] = _opened_on(descriptor)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return DescriptorSink(descriptor)
    return QueuedSink(descriptor, patience=patience)


class PipesSink:
    """Lines as the payload of Dagster Pipes' custom messages."""

    _FRAME = b'{"__dagster_pipes_version":"0.1","method":"report_custom_message","params":{"payload":}}'
    overhead = len(_FRAME) + 8  # its own line break, and some air for a longer version

    def __init__(self, pipes: PipesContext, writer: RunnerMessageWriter | None = None) -> None:
        self._pipes = pipes
        self._writer = writer

    def write(self, line: bytes) -> None:
        # The line is JSON already; the channels below are ours and serialise with orjson.
        self._pipes.report_custom_message(orjson.Fragment(line))

    def drain(self) -> None:
        if self._writer is not None:
            self._writer.drain()

    def watch(self, on_gone: Callable[[OSError], object]) -> None:
        """Have it told from another thread when Dagster has gone, where that can be known before something is written."""
        if self._writer is not None:
            self._writer.watch(on_gone)


class _LineChannel(PipesMessageWriterChannel):
    """Messages as lines to a descriptor, which is its own; thread-safe, and mute in a process that was forked from this one."""

    def __init__(self, descriptor: int, *, patience: float) -> None:
        self._descriptor = descriptor
        self._sink = sink_of(descriptor, patience=patience)
        self._lock = threading.Lock()
        self._process = os.getpid()

    def write_message(self, message: PipesMessage) -> None:
        self.write(orjson.dumps(message))

    def write(self, line: bytes) -> None:
        if os.getpid() == self._process:
            with self._lock:
                self._sink.write(line)

    def drain(self) -> None:
        if os.getpid() == self._process:
            self._sink.drain()

    def watch(self, on_gone: Callable[[OSError], object]) -> None:
        if isinstance(self._sink, QueuedSink):
            self._sink.watch(on_gone)

    def close(self) -> None:
        """Returns when all lines are on their way; raises OSError when they cannot be."""
        if os.getpid() != self._process:
            return
        try:
            self._sink.drain()
        finally:
            if not isinstance(self._sink, QueuedSink) or self._sink.close():
                del _of_this_process[self._descriptor]
                os.close(self._descriptor)


class LineMessageWriter(PipesMessageWriter[PipesMessageWriterChannel]):
    """Pipes messages as whole lines to where the orchestrator's reader asks for them: standard output, or a file.

    It understands the parameters of Dagster's own readers (``stdio``, ``path``). The stock writer is not used because it
    neither locks nor flushes, and shares standard output with whatever a model prints.

    Args:
        patience: seconds for which a reader of standard output may take nothing before it is given up.
    """

    def __init__(self, patience: float = DAGSTER_PATIENCE) -> None:
        self._patience = patience
        self._channel: _LineChannel | None = None

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[PipesMessageWriterChannel]:
        path, stream = params.get("path"), params.get("stdio")
        if isinstance(path, str):
            channel = _LineChannel(open_append(Path(path)), patience=self._patience)
        elif stream in ("stdout", "stderr"):
            channel = _LineChannel(claim_stream(1 if stream == "stdout" else 2), patience=self._patience)
            channel.write(b"")  # whatever stood there before, the first message begins a line
        else:
            raise UsageError(
                "Dagster's message reader asks for messages in a way that sqlmesh-runner does not know "
                f"(parameters {sorted(params)}): use a reader of standard output, of a file, or of a store that --pipes names."
            )
        self._channel = channel
        try:
            yield channel
        finally:
            channel.close()

    def drain(self) -> None:
        """Returns when all messages are on their way; raises OSError when that cannot be."""
        if self._channel is not None:
            self._channel.drain()

    def watch(self, on_gone: Callable[[OSError], object]) -> None:
        """Have it told from another thread when the reader has gone, before anything is written to it."""
        if self._channel is not None:
            self._channel.watch(on_gone)


class ObjectChannel(PipesMessageWriterChannel):
    """Pipes messages as numbered objects in a store, lines of JSON, as Dagster's readers of stores expect them.

    The first message is uploaded before `write_message` returns: if that fails, nothing has begun yet. Later ones are on their way
    within ``interval`` seconds, in order. An upload that fails is tried again for ``patience`` seconds, while messages wait in memory;
    then the store is given up, and whoever writes next is told. Thread-safe.

    Why not the stock channel: its thread ends at the first error, without a word, and takes all later messages along; and it uploads
    every eleven seconds, which a runner that is killed takes along.

    Args:
        upload: takes an object's text and its number, from 1 on, and raises whatever the store's driver does.
        place: where to, for messages.
        interval: the least time between two uploads, in seconds.
        patience: how long a store may fail.
        capacity: bytes that may wait.
    """

    def __init__(
        self,
        upload: Callable[[str, int], None],
        place: str,
        *,
        interval: float = _UPLOAD_SECONDS,
        patience: float = STORE_PATIENCE,
        capacity: int = _QUEUE_BYTES,
    ) -> None:
        self._upload = upload
        self._place = place
        self._interval = interval
        self._patience = patience
        self._capacity = capacity
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []  # what is being uploaded included
        self._size = 0
        self._number = 1
        self._hurries = 0
        self._over = False
        self._error: OSError | None = None
        self._thread: threading.Thread | None = None

    def write_message(self, message: PipesMessage) -> None:
        line = orjson.dumps(message)
        with self._changed:
            if self._thread is None:
                self._begin(line)
                return
            self._changed.wait_for(lambda: not self._waiting or self._size + len(line) <= self._capacity)
            if self._error is not None:
                raise self._error
            self._waiting.append(line)
            self._size += len(line)
            self._changed.notify_all()

    def drain(self) -> None:
        """Returns when all messages are uploaded; raises OSError when they cannot be."""
        with self._changed:
            self._hurries += 1
            self._changed.notify_all()
            try:
                # Comes to an end: the thread that uploads loses its patience.
                self._changed.wait_for(lambda: not self._waiting)
            finally:
                self._hurries -= 1
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Upload what waits, and end; raises OSError when that cannot be."""
        try:
            self.drain()
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
            if self._thread is not None:
                self._thread.join(timeout=_WAIT_SECONDS)

    def _begin(self, line: bytes) -> None:
        with stores.reached(f"Messages to Dagster cannot be written to {self._place}"):
            self._upload(line.decode(), self._number)
        self._number += 1
        self._thread = threading.Thread(target=self._pass_on, name="messages", daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._over)
                if not self._waiting:
                    return
                lines = list(self._waiting)
            error = self._uploaded(b"\n".join(lines).decode())
            with self._changed:
                if error is not None:
                    self._error = error
                    self._waiting.clear()
                    self._changed.notify_all()
                    return
                del self._waiting[: len(lines)]
                self._size -= sum(map(len, lines))
                self._number += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._hurries or self._over, self._interval)

    def _uploaded(self, text: str) -> OSError | None:
        """Upload an object, however often it takes; returns why it cannot be."""
        deadline, pause = time.monotonic() + self._patience, 0.2
        while True:
            try:
                self._upload(text, self._number)
            except Exception as error:  # noqa: BLE001, PERF203 - of any driver, at the thread's boundary; tried again, or told
                if type(error).__name__ == "ResourceExistsError":  # Azure's: an earlier try did arrive
                    return None
                if time.monotonic() + pause > deadline:
                    said = stores.sentence(error)
                    return OSError(
                        errno.EIO, f"the store at {self._place} does not take them. {said}".rstrip(".")
                    )
                time.sleep(pause)
                pause = min(2 * pause, _RETRY_SECONDS)
            else:
                return None


class RunnerMessageWriter(PipesMessageWriter[PipesMessageWriterChannel]):
    """Pipes messages to where Dagster's reader asks for them: whole lines, or objects in a store.

    Args:
        store_names: the stores that the runner was told of.
    """

    def __init__(self, store_names: Sequence[str] = ()) -> None:
        self._store_names = store_names
        self._writer: PipesBlobStoreMessageWriter[Any] | None = None
        self._channel: ObjectChannel | None = None
        self._lines = LineMessageWriter()

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[PipesMessageWriterChannel]:
        store = stores.store_of(params, self._store_names)
        if store is None:
            with self._lines.open(params) as lines:
                yield lines
            return
        place = store.place(params)
        self._writer = store.message_writer()
        with stores.reached(f"Messages to Dagster cannot be written to {place}"):
            upload = store.uploader(self._writer, params)
        self._channel = ObjectChannel(upload, place)
        try:
            with _terminal_in_messages(params, self._channel):
                yield self._channel
        finally:
            self._channel.close()

    def get_opened_extras(self) -> PipesExtras:
        return self._writer.get_opened_extras() if self._writer is not None else {}

    def drain(self) -> None:
        """Returns when all messages are on their way; raises OSError when that cannot be."""
        (self._lines if self._channel is None else self._channel).drain()

    def watch(self, on_gone: Callable[[OSError], object]) -> None:
        """Have it told from another thread when Dagster has gone, where that can be known before something is written."""
        self._lines.watch(on_gone)


def _terminal_in_messages(
    params: PipesParams, channel: PipesMessageWriterChannel
) -> AbstractContextManager[object]:
    """What the process prints, as messages, where Dagster's reader asks for it."""
    if not params.get(PipesBlobStoreMessageWriter.INCLUDE_STDIO_IN_MESSAGES_KEY):
        return nullcontext()
    return PipesDefaultLogWriter(message_channel=channel).open(params.get(PipesLogWriter.LOG_WRITER_KEY, {}))


def open_append(path: Path, *, patience: float = READER_PATIENCE) -> int:
    """A descriptor that appends to a file, from a new line on, or writes to a FIFO; not inherited by child processes.

    Raises:
        UsageError: the path cannot be written to, or is a FIFO that nobody opened for ``patience`` seconds.
    """
    try:
        if path.is_fifo():
            return _open_fifo(path, patience)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"Events cannot be written to {path}: {error.strerror}.") from error
    if _ends_in_a_line(path):
        os.write(descriptor, b"\n")
    return descriptor


def _open_fifo(path: Path, patience: float) -> int:
    deadline = time.monotonic() + patience
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:  # noqa: PERF203 - it is tried again
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() >= deadline:
                raise OSError(errno.ENXIO, f"nobody has read it for {patience:g} s") from error
            time.sleep(0.05)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


def _ends_in_a_line(path: Path) -> bool:
    """Whether a runner that was killed has left a torn line, which the next event must not become a part of."""
    with suppress(OSError):  # what cannot be read may still be written to
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read() != b"\n"
    return False


def claim_stream(number: int) -> int:
    """Take standard output (1) or error (2) for lines alone; what the process prints there goes to the other.

    Returns:
        A private descriptor of the stream, not inherited by child processes.
    """
    private = os.dup(number)  # PEP 446: not inheritable
    os.dup2(2 if number == 1 else 1, number)
    return private
