"""A Dagster Pipes session of our own: a small context, and a reader that loses nothing.

Why not `open_pipes_session`: it looks up the provenance of every selected asset in the event log (about 9 ms each) and
sends it along. Why not the stock readers: they take a half-written line or a chunk for a message, and one bad line ends
them. Read against Dagster 1.13.27; only public names are used.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import dagster as dg
import orjson
from dagster_pipes import (
    PipesContextData,
    PipesDefaultContextLoader,
    PipesMessage,
    PipesParams,
    encode_param,
)

from dagster_sqlmesh_pipes.errors import LaunchError, SQLMeshPipesError
from sqlmesh_pipes_protocol import variables
from sqlmesh_pipes_protocol.errors import shown
from sqlmesh_pipes_protocol.framing import LineSplitter
from sqlmesh_pipes_protocol.request import RunRequest

_MESSAGE_KEYS = {"__dagster_pipes_version", "method", "params"}
MAX_WAITING_BYTES = 256 * 1024 * 1024
"""Of messages that Dagster has not recorded yet, as JSON. 10,000 models with all their audits are some 50 MB."""
_ODD_BYTES = 10_000
_MAX_TOLD = 5


@dataclass(frozen=True)
class Payload:
    """The payload of a custom message: an event of ours, or somebody else's; of what is no object, a few words that show it."""

    value: object


@dataclass(frozen=True)
class Closed:
    """The runner's Pipes context was closed.

    Attributes:
        error: class and message of the exception that closed it; None for a regular end.
    """

    error: str | None


@dataclass(frozen=True)
class Notice:
    """What a launcher says that is worth a line in Dagster's log: what a runner waits for."""

    sentence: str


@dataclass(frozen=True)
class EndOfOutput:
    """The runner writes no more.

    Attributes:
        error: what ended the reading early; None where the stream ended.
    """

    error: BaseException | None


Item = Payload | Closed | Notice | EndOfOutput


class Items:
    """What a runner reports, waiting for the thread that yields results to Dagster. First in, first out; thread-safe.

    Reading never waits for Dagster. So what waits here is bounded by its size: a runner that floods its output must not take the
    memory of Dagster's process.
    """

    def __init__(self, limit: int = MAX_WAITING_BYTES) -> None:
        self._queue: SimpleQueue[tuple[Item, int]] = SimpleQueue()
        self._limit = limit
        self._lock = threading.Lock()
        self._size = 0

    def put(self, item: Item, size: int = 0) -> None:
        """Raises SQLMeshPipesError where too much waits; what does is still taken out."""
        with self._lock:
            if self._size + size > self._limit:
                raise SQLMeshPipesError(
                    f"the runner reports more than Dagster can record: {self._limit:,} bytes of its messages wait already"
                )
            self._size += size
        self._queue.put((item, size))

    def get(self, timeout: float | None = None) -> Item:
        """The next item; raises `queue.Empty` when there is none for so many seconds."""
        item, size = self._queue.get(timeout=timeout)
        with self._lock:
            self._size -= size
        return item

    def empty(self) -> bool:
        return self._queue.empty()


class RunnerMessageHandler(dg.PipesMessageHandler):
    """Puts what a runner reports on a queue, for the thread that yields results to Dagster."""

    def __init__(self, context: dg.AssetExecutionContext, reader: dg.PipesMessageReader) -> None:
        super().__init__(context, reader)
        self.items = Items()
        self._not_taken: set[str] = set()
        self._reader = reader
        self._has_opened = self._has_closed = False

    @property
    def received_opened_message(self) -> bool:
        return self._has_opened

    @property
    def received_closed_message(self) -> bool:
        """Whether nothing more comes: a reader of a store then reads no longer."""
        return self._has_closed

    def handle_message(self, message: PipesMessage) -> None:
        params: Any = message["params"] or {}
        match message["method"]:
            case "report_custom_message":
                payload = params.get("payload")
                # What is no event is handed on to be told, in words: a list in so many others cannot even be shown.
                self.items.put(
                    Payload(payload if isinstance(payload, dict) else shown(payload)), _size(payload)
                )
            case "opened":
                self._has_opened = True
                self._reader.on_opened(params)
            case "closed":
                self.items.put(Closed(_raised(params.get("exception"))))
                self._has_closed = True
            case "report_asset_materialization" | "report_asset_check":
                # Dagster's own handler would keep them, and nobody ask for them: results come from events.
                self._tell_not_taken(message["method"], "results come from the runner's events alone")
            case _:
                try:
                    super().handle_message(message)
                except Exception as error:  # noqa: BLE001 - of whatever is in it: a line that resembles a message ends no run
                    self._tell_not_taken(str(message["method"]), f"{type(error).__name__}: {error}")

    def _tell_not_taken(self, method: str, why: str) -> None:
        """Once for each method, of which there are not many: a line in Dagster's log costs more than one in the runner's output."""
        if method not in self._not_taken and len(self._not_taken) < _MAX_TOLD:
            self._not_taken.add(method)
            self.items.put(Notice(f"A message of the runner, {shown(method)}, is not taken: {why[:300]}"))


def _size(payload: object) -> int:
    """Of a payload as JSON, in bytes."""
    try:
        return len(orjson.dumps(payload))
    except TypeError:  # a number that another parser than orjson has let pass
        return _ODD_BYTES


def _raised(exception: object) -> str | None:
    if not exception:
        return None
    if not isinstance(exception, dict):
        return shown(exception)
    return f"{exception.get('name')}: {exception.get('message')}"


class RunnerOutputReader(dg.PipesMessageReader):
    """Reads messages from the standard output of a runner: the default reader, for every launcher.

    Whatever is no message goes on to this process's standard output, that is, to Dagster's compute log.
    """

    def __init__(self) -> None:
        self._handler: dg.PipesMessageHandler | None = None
        self._lines = LineSplitter()

    @property
    def expected_writer_count(self) -> int:
        # Dagster's default, said here because asking the base class for it warns of a preview.
        return 1

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        self._handler = handler
        yield {"stdio": "stdout"}

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of output, in order."""
        for line in self._lines.feed(chunk):
            self._take(line)

    def close(self) -> None:
        """No more output comes: a torn last line is passed on."""
        torn = self._lines.close()
        if torn is not None:
            self._take(torn)

    def no_messages_debug_text(self) -> str:
        return "Attempted to read messages from the standard output of the runner."

    def _take(self, line: bytes) -> None:
        message = parse_message(line)
        if message is not None and self._handler is not None:
            self._handler.handle_message(message)
        elif line:
            # Escaped where the log's encoding cannot hold it: a foreign line must not end the reading.
            encoding = sys.stdout.encoding or "utf-8"
            with suppress(OSError, ValueError):  # of a log that is full, or closed
                print(line.decode("utf-8", "replace").encode(encoding, "backslashreplace").decode(encoding))


class EnvContextInjector(dg.PipesContextInjector):
    """Puts the context into environment variables, as many as it takes: Linux allows 128 KiB for one.

    Attributes:
        env: the variables besides Dagster's own, once the context is injected; mostly none.
    """

    def __init__(self) -> None:
        self.env: dict[str, str] = {}

    @contextmanager
    def inject_context(self, context: PipesContextData) -> Iterator[PipesParams]:
        """Raises `LaunchError` where the selection is larger than what a pod can hold."""
        try:
            params, self.env = variables.split(encode_param(context))
        except ValueError as error:
            raise LaunchError(
                f"The names of the selected models are too much for a runner's environment ({error}): select fewer at once, or "
                "all of them, which names none."
            ) from error
        yield params or {PipesDefaultContextLoader.DIRECT_KEY: context}

    def no_messages_debug_text(self) -> str:
        return "Attempted to inject the context through environment variables."


class PrivateFileContextInjector(dg.PipesTempFileContextInjector):
    """The context in a temporary file that its owner alone may read, in a folder of its own."""

    @contextmanager
    def inject_context(self, context: PipesContextData) -> Iterator[PipesParams]:
        with super().inject_context(context) as params:
            Path(params[PipesDefaultContextLoader.FILE_PATH_KEY]).chmod(0o600)
            yield params


def parse_message(line: bytes) -> PipesMessage | None:
    """The Pipes message that a line holds; None for any other line."""
    if not line.startswith(b"{"):
        return None
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict) or not value.keys() >= _MESSAGE_KEYS:
        return None
    if not isinstance(value["method"], str) or not isinstance(value["params"], (dict, type(None))):
        return None
    return cast("PipesMessage", value)


def context_data(context: dg.AssetExecutionContext, request: RunRequest) -> PipesContextData:
    """What a runner needs and no more: its cost does not grow with the number of assets."""
    return PipesContextData(
        asset_keys=None,
        code_version_by_asset_key=None,
        provenance_by_asset_key=None,
        partition_key=None,
        partition_key_range=None,
        partition_time_window=None,
        run_id=context.run_id,
        job_name=context.job_name,
        retry_number=context.retry_number,
        extras=request.to_extras(),
    )
