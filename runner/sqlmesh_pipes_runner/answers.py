"""Questions about a project that is not run: its configurations, and what went wrong in one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

from sqlmesh.core.console import NoopConsole

from sqlmesh_pipes_runner.adapter import console_replaced, load_configs, secrets_of
from sqlmesh_pipes_runner.errors import NoAnswerError, RunnerError
from sqlmesh_pipes_runner.failures import exit_code_of
from sqlmesh_pipes_runner.options import RunOptions
from sqlmesh_pipes_runner.run import run_error
from sqlmesh_pipes_runner.secrets import Masker

T = TypeVar("T")


def answer(options: RunOptions, ask: Callable[[dict[Path, Any]], T], *, otherwise: str) -> T:
    """What ``ask`` returns, given the projects' configurations; SQLMesh itself prints nothing meanwhile.

    Args:
        options: the projects.
        ask: may raise whatever SQLMesh, a driver or a user's code raises.
        otherwise: how the sentence begins that says why there is no answer.

    Raises:
        UsageError: a project or its gateway does not exist, or ``ask`` was asked for what does not.
        NoAnswerError: ``ask`` raised something else.
    """
    # What a user's configuration or macro prints must not stand in the answer.
    with output_to_stderr(), redirect_stdout(sys.stderr), console_replaced(NoopConsole()):
        configs = load_configs(options)
        try:
            return ask(configs)
        except RunnerError:
            raise
        except Exception as error:  # of any kind, as in a run; told in one sentence
            info = run_error(error)
            message = Masker(secrets_of(configs)).text(f"{otherwise}: {info.message}")
            raise NoAnswerError(message, exit_code_of(info.category)) from error


@contextmanager
def output_to_stderr() -> Iterator[None]:
    """Have the process's standard output go to standard error, for child processes and extensions in C as well."""
    try:
        before = os.dup(1)
    except OSError:  # closed: nothing can stand in it
        yield
        return
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)
