"""What a Python model does to the process that it runs in, undone where its function ends."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from sqlmesh.core.model import PythonModel


@contextmanager
def models_contained() -> Iterator[None]:
    """For as long as models are evaluated: a forked process ends with the model's function, closed streams are opened again.

    A process that comes out of the function, and is not the one that went in, would write the model's rows a second time, over a
    connection that is not its own, and go on with the run beside its parent. It ends with the status that it would have had as a
    script. A descriptor of a standard stream that is closed is given to the next file that is opened, a database's for instance;
    what is printed then goes there.
    """
    render = PythonModel.render
    with ExitStack() as kept:
        copies = _copies(kept)

        def contained(self: PythonModel, **kwargs: Any) -> Iterator[Any]:
            process = os.getpid()
            try:
                for frame in render(self, **kwargs):
                    if os.getpid() != process:
                        break
                    _reopen(copies)
                    yield frame
            except BaseException as error:
                if os.getpid() != process:
                    _end(error)
                _reopen(copies)
                raise
            if os.getpid() != process:
                _end()
            _reopen(copies)

        # SQLMesh has no other place between a function and its rows.
        PythonModel.render = contained  # type: ignore[method-assign]
        try:
            yield
        finally:
            PythonModel.render = render  # type: ignore[method-assign]


def _copies(kept: ExitStack) -> dict[int, int]:
    """Standard output and error, by their numbers; those that are open."""
    copies = {}
    for number in (1, 2):
        with suppress(OSError):
            copies[number] = os.dup(number)
            kept.callback(os.close, copies[number])
    return copies


def _reopen(copies: dict[int, int]) -> None:
    for number, copy in copies.items():
        try:
            os.fstat(number)
        except OSError:  # noqa: PERF203 - closed, and nothing else has been opened under its number
            with suppress(OSError):
                os.dup2(copy, number)


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
