"""The way out for events: one writer, one lock, one whole line at a time."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

import orjson
from dagster_pipes import (
    PipesContext,
    PipesMessage,
    PipesMessageWriter,
    PipesMessageWriterChannel,
    PipesParams,
)

from sqlmesh_pipes_protocol.codec import Envelope, timestamp
from sqlmesh_pipes_protocol.errors import EventTooLargeError
from sqlmesh_pipes_protocol.events import Event, Log, RunFinished
from sqlmesh_pipes_protocol.framing import frame
from sqlmesh_pipes_runner.errors import UsageError
from sqlmesh_pipes_runner.secrets import Masker


class Sink(Protocol):
    """Takes whole lines, without their breaks, and has them on their way when it returns."""

    overhead: int
    """Bytes that the sink adds to each line, its break included."""

    def write(self, line: bytes) -> None: ...


class EventWriter:
    """Numbers, times, masks and writes events. Thread-safe.

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

    @property
    def next_seq(self) -> int:
        """The seq that the next event gets, if no other thread writes first."""
        return self._seq

    def emit(self, event: Event) -> Envelope:
        """Write the event; returns it with its place in the run, secrets masked."""
        event = self.masker.event(event)
        broken: OSError | None = None
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
            self._seq += 1
        if broken is not None:
            self._on_broken(broken)
        return envelope

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


class PipesSink:
    """Lines as the payload of Dagster Pipes' custom messages."""

    _FRAME = b'{"__dagster_pipes_version":"0.1","method":"report_custom_message","params":{"payload":}}'
    overhead = len(_FRAME) + 8  # its own line break, and some air for a longer version

    def __init__(self, pipes: PipesContext) -> None:
        self._pipes = pipes

    def write(self, line: bytes) -> None:
        # The line is JSON already; the channel below is ours and serialises with orjson.
        self._pipes.report_custom_message(orjson.Fragment(line))


class _LineChannel(PipesMessageWriterChannel):
    def __init__(self, sink: DescriptorSink) -> None:
        self._sink = sink
        self._lock = threading.Lock()

    def write_message(self, message: PipesMessage) -> None:
        with self._lock:
            self._sink.write(orjson.dumps(message))


class LineMessageWriter(PipesMessageWriter[PipesMessageWriterChannel]):
    """Pipes messages as whole lines to where the orchestrator's reader asks for them: standard output, or a file.

    It understands the parameters of Dagster's own readers (``stdio``, ``path``). The stock writer is not used because it
    neither locks nor flushes, and shares standard output with whatever a model prints.
    """

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[PipesMessageWriterChannel]:
        path, stream = params.get("path"), params.get("stdio")
        if isinstance(path, str):
            descriptor = open_append(Path(path))
        elif stream in ("stdout", "stderr"):
            descriptor = claim_stream(1 if stream == "stdout" else 2)
            os.write(descriptor, b"\n")  # whatever stood there before, the first message begins a line
        else:
            raise UsageError(
                "Dagster's message reader asks for messages in a way that sqlmesh-runner does not know "
                f"(parameters {sorted(params)}): use a reader of standard output or of a file."
            )
        try:
            yield _LineChannel(DescriptorSink(descriptor))
        finally:
            os.close(descriptor)


def open_append(path: Path) -> int:
    """A descriptor that appends to a file (or writes to a FIFO), not inherited by child processes.

    Raises:
        UsageError: the path cannot be written to.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"Events cannot be written to {path}: {error.strerror}.") from error


def claim_stream(number: int) -> int:
    """Take standard output (1) or error (2) for lines alone; what the process prints there goes to the other.

    Returns:
        A private descriptor of the stream, not inherited by child processes.
    """
    private = os.dup(number)  # PEP 446: not inheritable
    os.dup2(2 if number == 1 else 1, number)
    return private
