"""What Dagster hands over to a runner that it starts."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from sqlmesh_pipes_runner.checks import NotOkError
from sqlmesh_pipes_runner.errors import EXIT_USAGE

CONTEXT, MESSAGES = "DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES"


class ContextLoader(PipesContextLoader):
    """Loads the context as Dagster's stock injectors leave it, or from the variables that this project's does."""

    @contextmanager
    def load_context(self, params: PipesParams) -> Iterator[PipesContextData]:
        encoded = variables.join(params, os.environ)
        if encoded is not None:
            params = {PipesDefaultContextLoader.DIRECT_KEY: decode_param(encoded)}
        with PipesDefaultContextLoader().load_context(params) as context:
            yield context


def request_in(variable: str) -> RunRequest:
    """The orchestrator's request in a Pipes context."""
    foreign = "Start the runner by this project's launchers, or unset the variables to run it alone."
    try:
        with ContextLoader().load_context(decode_param(variable)) as context:
            extras: Any = context["extras"]
        if not isinstance(extras, Mapping):
            raise TypeError(f"its extras are {type(extras).__name__}")
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


def messages_place(variable: str) -> str:
    """Where Pipes messages go; nothing is written there."""
    try:
        parameters: Any = decode_param(variable)
        path, stream = parameters.get("path"), parameters.get("stdio")
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
        "Use a reader of standard output or of a file.",
        EXIT_USAGE,
    )
