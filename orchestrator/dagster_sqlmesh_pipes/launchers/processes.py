"""Starting a runner as a process on this host."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg
from pydantic import Field

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.launcher import (
    LAST_WORDS_LINES,
    Launcher,
    Runner,
    RunnerCall,
    Verdict,
    forward,
)
from dagster_sqlmesh_pipes.pipes import PrivateFileContextInjector

_CHUNK = 64 * 1024
_PIPE_BYTES = 1024 * 1024
"""How much a model may print while this process does not read. The kernel's default is 64 KiB, and this its usual limit."""
_LAST_WORDS_BYTES = 500
"""Of a line that is kept: a model may print megabytes without a break, and a failure's message goes into the event log."""
_FOREIGN_ENVIRONMENT = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Not handed on: they would mix the packages of Dagster's environment into the runner's."""


class SubprocessLauncher(Launcher):
    """Starts the runner as a process on this host, in a process group of its own.

    With a virtual environment of its own: ``SubprocessLauncher(command=["/opt/sqlmesh/bin/sqlmesh-runner"])``, or
    ``SubprocessLauncher(python="/opt/sqlmesh/bin/python")``.
    """

    command: list[str] = Field(
        default=[], description="How to call the runner; by default `sqlmesh-runner` from the PATH."
    )
    python: str | None = Field(
        default=None, description="A Python interpreter that has the runner installed, instead of a command."
    )
    env: dict[str, str] = Field(default={}, description="Variables for the runner's environment.")
    working_dir: str | None = Field(
        default=None, description="Where the runner is started; by default the project's directory."
    )

    def launch(self, call: RunnerCall) -> Runner:
        if self.command and self.python:
            raise LaunchError("SubprocessLauncher takes a command or a python, and was given both.")
        command = self.command or (
            [self.python, "-m", "sqlmesh_pipes_runner"] if self.python else ["sqlmesh-runner"]
        )
        if os.sep in command[0]:
            command = [str(Path(command[0]).absolute()), *command[1:]]  # not relative to where it is started
        inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN_ENVIRONMENT}
        return _SubprocessRunner(
            [*command, *call.arguments],
            env={**inherited, **self.env, **call.env},
            working_dir=Path(self.working_dir) if self.working_dir else call.project_dir,
        )

    def context_injector(self) -> dg.PipesContextInjector:
        # A file, not a variable: Linux allows 128 KB for one variable, and a selection may be larger.
        return PrivateFileContextInjector()


class _SubprocessRunner(Runner):
    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], working_dir: Path) -> None:
        if not working_dir.is_dir():
            raise LaunchError(
                f"The runner cannot be started in {working_dir}: there is no such directory. "
                "Give the SQLMesh project's directory, or the launcher's working_dir."
            )
        try:
            self._process = subprocess.Popen(
                list(command),
                env=dict(env),
                cwd=working_dir,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # a process group of its own, to be ended as a whole
            )
        except FileNotFoundError:
            if Path(command[0]).is_file():
                raise LaunchError(
                    f"The runner command {command[0]!r} is there, and the interpreter in its first line is not: "
                    "make its virtual environment again."
                ) from None
            raise LaunchError(
                f"The runner command {command[0]!r} was not found. Install dagster-sqlmesh-pipes[sqlmesh] in the "
                "runner's environment, and name the command there: "
                'SubprocessLauncher(command=["/path/to/venv/bin/sqlmesh-runner"]).'
            ) from None
        except OSError as error:
            raise LaunchError(
                f"The runner command {command[0]!r} cannot be started: {error.strerror}."
            ) from error
        for stream in (self._process.stdout, self._process.stderr):
            # Not on every system, nor for every user.
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[arg-type]  # both are pipes
        self._is_killed = False
        self._last_words: deque[bytes] = deque(maxlen=LAST_WORDS_LINES)
        self._forwarder = threading.Thread(target=self._forward_stderr, name="runner-stderr", daemon=True)
        self._forwarder.start()

    def output(self) -> Iterator[bytes]:
        assert self._process.stdout is not None  # noqa: S101 - narrows the type
        with self._process.stdout as stream:
            while chunk := os.read(stream.fileno(), _CHUNK):
                yield chunk

    def exit_code(self) -> int | None:
        return self._process.poll()

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._is_killed = self._is_killed or self._process.poll() is None
        self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self._forwarder.join(timeout=2)

    def close(self, *, succeeded: bool) -> None:
        """Nothing is left of a process that was ended."""

    def verdict(self) -> Verdict | None:
        """Only of a kill that nobody here asked for: the kernel leaves no word with the process."""
        if self._is_killed or self._process.poll() != -signal.SIGKILL:
            return None
        return Verdict(
            cause="Not by Dagster; often that is Linux, out of memory: its log (dmesg) then names the process."
        )

    def describe(self) -> str:
        return f"process {self._process.pid}"

    def last_words(self) -> str:
        if self._process.poll() is not None:
            self._forwarder.join(timeout=2)
        return b"".join(self._last_words).decode("utf-8", "replace").strip()

    def _signal(self, number: signal.Signals) -> None:
        # The group outlives its leader while anything that the runner started is alive.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _forward_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - narrows the type
        with self._process.stderr as stream:
            for line in iter(lambda: stream.readline(_CHUNK), b""):
                self._last_words.append(
                    line if len(line) <= _LAST_WORDS_BYTES else line[:_LAST_WORDS_BYTES] + b"...\n"
                )
                forward(line)
