"""Pipes message readers of Dagster's and of the user's: what they lack to lose nothing, and what a runner must know of them.

The stock readers of stores fetch one object at a time, every eleven seconds, and stop eleven seconds after the end: what was written
faster is lost. They end for good at the first error of a network, or at a line that is JSON and no object, and a second session of one
reader looks for its objects under wrong numbers. Those of files take a half-written line for a message. Only public names are
used, of the one reader, for the time of the session. Read against Dagster 1.13.27.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
from dagster_pipes import PipesMessage, PipesParams

from dagster_sqlmesh_pipes.errors import LaunchError, SQLMeshPipesError
from dagster_sqlmesh_pipes.pipes import EndOfOutput, Items, parse_message
from sqlmesh_pipes_protocol.framing import LineSplitter

_STORES = {
    "PipesS3MessageReader": "s3",
    "PipesS3ContextInjector": "s3",
    "PipesGCSMessageReader": "gcs",
    "PipesGCSContextInjector": "gcs",
    "PipesAzureBlobStorageMessageReader": "azure",
    "PipesAzureBlobStorageContextInjector": "azure",
    "PipesDbfsMessageReader": "dbfs",
    "PipesDbfsContextInjector": "dbfs",
    "PipesUnityCatalogVolumesMessageReader": "volumes",
    "PipesUnityCatalogVolumesContextInjector": "volumes",
}
_CHUNK = 64 * 1024
_POLL_SECONDS = 0.02


class Handler(Protocol):
    """What readers hand messages to, and tell why they read no more."""

    items: Items

    def handle_message(self, message: PipesMessage) -> None: ...


def store_arguments(*parts: object) -> list[str]:
    """What a runner is told of the stores that a message reader and a context injector use; nothing where they use none."""
    names = {
        _STORES[kind.__name__] for part in parts for kind in type(part).__mro__ if kind.__name__ in _STORES
    }
    if len(names & {"s3", "gcs", "azure"}) > 1:
        raise LaunchError(
            f"The message reader and the context injector are of different stores ({', '.join(sorted(names))}): use those of one."
        )
    return [word for name in sorted(names) for word in ("--pipes", name)]


def messages(
    reader: dg.PipesMessageReader,
    handler: Any,
    tell: Callable[[str], None],
    read_messages: Callable[[Any], AbstractContextManager[PipesParams]] | None = None,
) -> AbstractContextManager[PipesParams]:
    """Have a reader hand each message to a handler, whole and once, as long as the context is open.

    Args:
        reader: any; of Dagster's own kinds it is known what they lack.
        handler: takes the messages, from a thread of the reader's.
        tell: says a sentence that is worth a line in Dagster's log; called from any thread.
        read_messages: the reader's own method, where it stands for another at the moment.
    """
    read_messages = read_messages or reader.read_messages
    if isinstance(reader, (dg.PipesFileMessageReader, dg.PipesTempFileMessageReader)):
        return _of_file(read_messages, handler)
    if hasattr(reader, "download_messages"):
        return _of_downloads(reader, read_messages, handler, tell)
    return read_messages(handler)


class _Nobody:
    """Stands for a handler where somebody else reads."""

    def handle_message(self, message: PipesMessage) -> None: ...

    def report_pipes_framework_exception(self, origin: str, exc_info: object) -> None: ...


@contextmanager
def _of_file(
    read_messages: Callable[[Any], AbstractContextManager[PipesParams]], handler: Handler
) -> Iterator[PipesParams]:
    with read_messages(_Nobody()) as params:
        is_over = threading.Event()
        thread = threading.Thread(
            target=_follow, args=(Path(params["path"]), handler, is_over), name="messages", daemon=True
        )
        thread.start()
        try:
            yield params
        finally:
            is_over.set()
            thread.join()


def _follow(path: Path, handler: Handler, is_over: threading.Event) -> None:
    lines = LineSplitter()
    with path.open("rb") as file:
        while True:
            was_over = is_over.is_set()  # asked before reading: what was written until then is read
            chunk = file.read(_CHUNK)
            for line in lines.feed(chunk):
                message = parse_message(line)
                if message is not None and not _is_taken(handler, message):
                    return
            if not chunk:
                if was_over:
                    return
                time.sleep(_POLL_SECONDS)


def _is_taken(handler: Handler, message: PipesMessage) -> bool:
    """Whether the handler takes a message. It takes none where too much waits already: then it is told so, and reading ends."""
    try:
        handler.handle_message(message)
    except SQLMeshPipesError as error:
        handler.items.put(EndOfOutput(error))
        return False
    return True


@contextmanager
def _of_downloads(
    reader: Any,
    read_messages: Callable[[Any], AbstractContextManager[PipesParams]],
    handler: Handler,
    tell: Callable[[str], None],
) -> Iterator[PipesParams]:
    download = reader.download_messages
    is_store = isinstance(reader, dg.PipesBlobStoreMessageReader)
    if is_store:
        reader.counter = 1
    failing = False

    def all_there_is(cursor: Any, params: PipesParams) -> tuple[Any, str] | None:
        nonlocal failing
        lines: list[str] = []
        is_news = False
        try:
            while (result := download(cursor, params)) is not None:
                is_news = True
                cursor, chunk = result
                lines += [line for line in chunk.split("\n") if parse_message(line.encode()) is not None]
                if not is_store:
                    break
            failing = False
        except Exception as error:  # noqa: BLE001 - of any driver; told, and tried again at the next turn
            if not failing:
                tell(f"Messages of the runner cannot be read at the moment: {type(error).__name__}: {error}")
            failing = True
        return (cursor, "\n".join(lines)) if is_news else None

    vars(reader)["download_messages"] = all_there_is
    try:
        with read_messages(handler) as params:
            yield params
    finally:
        del vars(reader)["download_messages"]
