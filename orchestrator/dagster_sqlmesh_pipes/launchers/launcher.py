"""Starting a runner somewhere, reading what it writes, and ending it."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
from pydantic import Field

from dagster_sqlmesh_pipes.errors import LaunchError
from sqlmesh_pipes_protocol.manifest import MAX_MANIFEST_BYTES

MAX_ANSWER_BYTES = MAX_MANIFEST_BYTES
"""The largest answer is a manifest."""
LAST_WORDS_LINES = 30
"""How much of a runner's standard error is kept for the case that it says nothing else."""


@dataclass(frozen=True, kw_only=True)
class RunnerCall:
    """What to start.

    Attributes:
        arguments: of ``sqlmesh-runner``.
        env: variables that Dagster Pipes needs in the runner's environment.
        project_dir: where the SQLMesh project is, for a launcher that runs on this host.
        name: what a container or pod is to be called; one of its own for each call. None leaves it to the launcher.
        labels: what a container or pod is to be found by: ``dagster/run-id`` and friends.
        pipes: the session that the runner reports to, for a launcher that hands it on; None for calls that ask something.
        tell: says a sentence that is worth a line in Dagster's log: what a runner waits for. May be called from any thread.
    """

    arguments: Sequence[str]
    env: Mapping[str, str]
    project_dir: Path
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    pipes: dg.PipesSession | None = None
    tell: Callable[[str], None] = lambda sentence: None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a runner's surroundings say of its end: out of memory, evicted, its image not to be had.

    Attributes:
        cause: in sentences.
        transient: whether trying again can help.
        started: whether the runner began at all.
        ended: whether its end is known; where it is not, another attempt looks for it.
        details: what else is known, as lines: a pod's last state and events.
    """

    cause: str
    transient: bool = True
    started: bool = True
    ended: bool = True
    how: str | None = None
    details: str = ""


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
        """End it at once, with whatever it started. Does nothing if nothing runs."""

    @abstractmethod
    def close(self, *, succeeded: bool) -> None:
        """Everything is known of it: remove what is left of it, or what is not to be kept after such an end.

        Nothing runs any more. May be called again.
        """

    def detach(self) -> None:
        """Its end is not known: leave it as it is, for another attempt to find."""
        self.close(succeeded=False)

    @abstractmethod
    def describe(self) -> str:
        """What and where it is, for messages: ``process 4711``."""

    @abstractmethod
    def last_words(self) -> str:
        """The end of what it wrote to standard error, for the case that it says nothing else."""

    def is_out_of_reach(self) -> bool:
        """Whether it cannot be heard for now, whatever it says: where it runs is away. Its silence then means nothing."""
        return False

    def verdict(self) -> Verdict | None:
        """What its surroundings say of its end. None where they say nothing."""
        return None


class Launcher(dg.ConfigurableResource[Any], ABC):
    """How runners are started. Subclass it to start them elsewhere."""

    outlives_dagster: ClassVar[bool] = False
    """Whether its runners go on when the process that started them dies. They are then found again by their names."""
    merges_streams: ClassVar[bool] = False
    """Whether what a runner writes to standard error comes with its output."""

    grace_period_seconds: float = Field(
        default=30.0, gt=0, description="How long a runner may take to end itself before it is killed."
    )
    silence_timeout_seconds: float | None = Field(
        default=300.0,
        gt=0,
        description="How long a runner may be silent before it is ended. It sends a heartbeat every 5 seconds, however long its "
        "queries take. None for ever.",
    )

    @abstractmethod
    def launch(self, call: RunnerCall) -> Runner:
        """Start a runner.

        Raises:
            LaunchError: it cannot be started; the message says what to do.
        """

    def find(self, call: RunnerCall) -> Runner | None:
        """The runner of the call's name, which an earlier attempt started and did not see to its end.

        What it has written is read again from the beginning, or from where its log still begins.

        Returns:
            None where there is no such runner any more.

        Raises:
            LaunchError: where runners are cannot be reached.
        """
        return None

    @abstractmethod
    def context_injector(self) -> dg.PipesContextInjector:
        """How the Pipes context reaches a runner."""


def answer(launcher: Launcher, call: RunnerCall, timeout_seconds: float) -> bytes:
    """What a runner writes to standard output until it ends; for calls that ask something.

    Raises:
        LaunchError: it cannot be started, does not end in time, writes more than an answer can be, or ends with another status
            than 0; the message has the last of what it wrote to standard error.
    """
    with launcher.process_config_and_initialize_cm() as initialized:
        runner = initialized.launch(call)
    overdue = threading.Event()

    def end() -> None:
        overdue.set()
        runner.kill()

    timer = threading.Timer(timeout_seconds, end)
    timer.daemon = True
    timer.start()
    try:
        output = _bounded(runner.output(), call)
        while (status := runner.exit_code()) is None and not overdue.wait(0.01):
            pass
    finally:
        timer.cancel()
        runner.kill()
        runner.close(succeeded=False)
    verdict = runner.verdict()
    if overdue.is_set():
        why = f" {verdict.cause}" if verdict is not None else ""
        raise LaunchError(
            f"`sqlmesh-runner {call.arguments[0]}` took longer than {timeout_seconds:g} s and was ended.{why}",
            transient=True,
        )
    if verdict is not None and status != 0:
        raise LaunchError(verdict.cause, transient=verdict.transient)
    if status != 0:
        # A command ends with its error; before it may stand how the command is used, and whatever a project prints.
        words = runner.last_words().rpartition("Error: ")[2]
        raise LaunchError(
            words or f"`sqlmesh-runner {call.arguments[0]}` ended with status {status}, without a word.",
            transient=status == 3,
        )
    if launcher.merges_streams:  # an answer is one line of JSON
        return next((line for line in reversed(output.splitlines()) if line.startswith(b"{")), b"")
    return output


def _bounded(pieces: Iterable[bytes], call: RunnerCall) -> bytes:
    answer = bytearray()
    for piece in pieces:
        answer += piece
        if len(answer) > MAX_ANSWER_BYTES:
            raise LaunchError(
                f"`sqlmesh-runner {call.arguments[0]}` wrote more than {MAX_ANSWER_BYTES:,} bytes, which is no answer: it was ended. "
                "Look at what the project prints."
            )
    return bytes(answer)


def forward(line: bytes) -> None:
    """Hand a runner's standard error on to this process's, that is, to Dagster's compute log."""
    encoding = sys.stderr.encoding or "utf-8"
    text = line.decode("utf-8", "replace").encode(encoding, "backslashreplace").decode(encoding)
    with suppress(OSError, ValueError):  # of a log that is full, or closed
        print(text, end="", file=sys.stderr, flush=True)
