"""What Dagster hands over to a runner that it starts."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dagster_pipes import (
    DagsterPipesError,
    PipesContextData,
    PipesContextLoader,
    PipesDefaultContextLoader,
    PipesParams,
    decode_param,
)

from sqlmesh_pipes_protocol import variables
from sqlmesh_pipes_protocol.errors import ProtocolError
from sqlmesh_pipes_protocol.request import RunRequest
from sqlmesh_pipes_runner import stores
from sqlmesh_pipes_runner.checks import NotOkError
from sqlmesh_pipes_runner.errors import EXIT_USAGE, StoreError

CONTEXT, MESSAGES = "DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES"


class ContextLoader(PipesContextLoader):
    """Loads the context as Dagster's stock injectors leave it, or from the variables that this project's does.

    Args:
        store_names: the stores that the runner was told of.
    """

    def __init__(self, store_names: Sequence[str] = ()) -> None:
        self._store_names = store_names

    @contextmanager
    def load_context(self, params: PipesParams) -> Iterator[PipesContextData]:
        encoded = variables.join(params, os.environ)
        if encoded is not None:
            params = {PipesDefaultContextLoader.DIRECT_KEY: decode_param(encoded)}
        store = stores.store_of(params, self._store_names)
        if store is None:
            with PipesDefaultContextLoader().load_context(params) as context:
                yield context
            return
        loader = store.context_loader()
        with ExitStack() as stack:
            with stores.reached(f"What Dagster asks for cannot be read from {store.place(params)}"):
                context = stack.enter_context(loader.load_context(params))
            yield context


def request_in(variable: str, store_names: Sequence[str] = ()) -> RunRequest:
    """The orchestrator's request in a Pipes context."""
    foreign = "Start the runner by this project's launchers, or unset the variables to run it alone."
    try:
        params: Any = decode_param(variable)
        if not isinstance(params, Mapping):
            raise TypeError(f"its parameters are {type(params).__name__}")
        with ContextLoader(store_names).load_context(params) as context:
            extras: Any = context["extras"]
        if not isinstance(extras, Mapping):
            raise TypeError(f"its extras are {type(extras).__name__}")
    except StoreError as error:
        raise NotOkError(error.found, error.advice, error.exit_code) from error
    # Of base64, zlib, JSON, the file and the loader, for what is none of theirs.
    except (ValueError, TypeError, KeyError, OSError, DagsterPipesError, zlib.error) as error:
        raise NotOkError(
            f"{CONTEXT} is no context of Dagster Pipes: {error!r}.", foreign, EXIT_USAGE
        ) from error
    try:
        request = RunRequest.from_extras(extras)
    except ProtocolError as error:
        raise NotOkError(
            f"The Pipes context does not fit: {error}.",
            "Install the same release of dagster-sqlmesh-pipes on both sides.",
            EXIT_USAGE,
        ) from error
    if request is None:
        raise NotOkError(
            "The Pipes context is another client's, which does not understand what the runner reports.",
            foreign,
            EXIT_USAGE,
        )
    return request


def messages_place(variable: str, store_names: Sequence[str] = ()) -> str:
    """Where Pipes messages go; nothing is written there."""
    try:
        parameters: Any = decode_param(variable)
        path, stream = parameters.get("path"), parameters.get("stdio")
        store = stores.store_of(parameters, store_names)
        if store is not None:
            place = store.place(parameters)
            client = store.client()
            with stores.reached(f"Messages to Dagster cannot be written to {place}"):
                store.look(client, parameters[store.parameter])
            return place
    except StoreError as error:
        raise NotOkError(error.found, error.advice, error.exit_code) from error
    except (ValueError, TypeError, AttributeError, zlib.error) as error:
        raise NotOkError(
            f"{MESSAGES} cannot be read: {error!r}.", "Let the launcher set it.", EXIT_USAGE
        ) from error
    if isinstance(path, str):
        file = Path(path)
        if not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
            raise NotOkError(
                f"Messages to Dagster cannot be written to {path}.",
                "Mount the folder where the launcher expects it, writable.",
                EXIT_USAGE,
            )
        return path
    if stream in ("stdout", "stderr"):
        return str(stream)
    raise NotOkError(
        f"Dagster's message reader asks for messages in a way that sqlmesh-runner does not know ({sorted(parameters)}).",
        "Use a reader of standard output, of a file, or of a store that --pipes names.",
        EXIT_USAGE,
    )
