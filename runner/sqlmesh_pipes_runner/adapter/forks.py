"""Processes that a Python model forks: they end where the model's function does."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlmesh.core.model import PythonModel


@contextmanager
def forks_end_with_their_model() -> Iterator[None]:
    """A process that comes out of a model's function, and is not the one that went in, is ended there.

    It would write the model's rows a second time, over a connection that is not its own, and go on with the run beside its
    parent. It ends with the status that it would have had as a script.
    """
    render = PythonModel.render

    def ended(self: PythonModel, **kwargs: Any) -> Iterator[Any]:
        process = os.getpid()
        try:
            for frame in render(self, **kwargs):
                if os.getpid() != process:
                    break
                yield frame
        except BaseException as error:
            if os.getpid() != process:
                _end(error)
            raise
        if os.getpid() != process:
            _end()

    # SQLMesh has no other place between a function and its rows.
    PythonModel.render = ended  # type: ignore[method-assign]
    try:
        yield
    finally:
        PythonModel.render = render  # type: ignore[method-assign]


def _end(error: BaseException | None = None) -> None:
    status = 0 if error is None else 1
    with suppress(Exception):  # a stream may be closed
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            status = error.code or 0
        elif error is not None:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)
