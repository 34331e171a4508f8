"""Starting a runner somewhere, reading what it writes, and ending it."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from dagster_sqlmesh_pipes.errors import LaunchError

LAST_WORDS_LINES = 30
"""How much of a runner's standard error is kept for the case that it says nothing else."""


@dataclass(frozen=True, kw_only=True)
class RunnerCall:
    """What to start.

    Attributes:
        arguments: of ``sqlmesh-runner``.
        env: variables that Dagster Pipes needs in the runner's environment.
        project_dir: where the SQLMesh project is, for a launcher that runs on this host.
    """

    arguments: Sequence[str]
    env: Mapping[str, str]
    project_dir: Path


class Runner(ABC):
    """A runner that was started. One thread reads its output; the others may be called from any thread."""

    @abstractmethod
    def output(self) -> Iterator[bytes]:
        """What it writes to standard output, in any pieces, until it writes no more."""

    @abstractmethod
    def exit_code(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""

    @abstractmethod
    def terminate(self) -> None:
        """Ask it to end: it then reports what it has done, within its grace period."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once, with whatever it started. Does nothing if nothing is left."""

    @abstractmethod
    def describe(self) -> str:
        """What and where it is, for messages: ``process 4711``."""

    @abstractmethod
    def last_words(self) -> str:
        """The end of what it wrote to standard error, for the case that it says nothing else."""

    def verdict(self) -> str | None:
        """What its surroundings say of its end, in a sentence: out of memory, removed by hand. None where they say nothing."""
        return None


class Launcher(dg.ConfigurableResource[Any], ABC):
    """How runners are started. Subclass it to start them elsewhere."""

    grace_period_seconds: float = Field(
        default=30.0, gt=0, description="How long a runner may take to end itself before it is killed."
    )

    @abstractmethod
    def launch(self, call: RunnerCall) -> Runner:
        """Start a runner.

        Raises:
            LaunchError: it cannot be started; the message says what to do.
        """

    @abstractmethod
    def context_injector(self) -> dg.PipesContextInjector:
        """How the Pipes context reaches a runner."""


def answer(launcher: Launcher, call: RunnerCall, timeout_seconds: float) -> bytes:
    """What a runner writes to standard output until it ends; for calls that ask something.

    Raises:
        LaunchError: it cannot be started, does not end in time, or ends with another status than 0; the message has the last
            of what it wrote to standard error.
    """
    runner = launcher.process_config_and_initialize().launch(call)
    overdue = threading.Event()

    def end() -> None:
        overdue.set()
        runner.kill()

    timer = threading.Timer(timeout_seconds, end)
    timer.daemon = True
    timer.start()
    try:
        output = b"".join(runner.output())
        while (status := runner.exit_code()) is None and not overdue.wait(0.01):
            pass
    finally:
        timer.cancel()
        runner.kill()
    if overdue.is_set():
        raise LaunchError(
            f"`sqlmesh-runner {call.arguments[0]}` took longer than {timeout_seconds:g} s and was ended.",
            transient=True,
        )
    if status != 0:
        # A command ends with its error; before it may stand how the command is used, and whatever a project prints.
        words = runner.last_words().rpartition("Error: ")[2]
        raise LaunchError(
            words or f"`sqlmesh-runner {call.arguments[0]}` ended with status {status}, without a word.",
            transient=status == 3,
        )
    return output


def forward(line: bytes) -> None:
    """Hand a runner's standard error on to this process's, that is, to Dagster's compute log."""
    encoding = sys.stderr.encoding or "utf-8"
    text = line.decode("utf-8", "replace").encode(encoding, "backslashreplace").decode(encoding)
    print(text, end="", file=sys.stderr, flush=True)
