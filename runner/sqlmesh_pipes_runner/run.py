"""One run, from its options to its exit status, with an event for everything on the way."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sqlmesh_pipes_protocol.events import ErrorInfo, Event, LogLevel, RunStatus, Versions
from sqlmesh_pipes_runner.cancel import Cancellation
from sqlmesh_pipes_runner.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    RunInterruptedError,
    RunLockedError,
    RunnerError,
    UsageError,
)
from sqlmesh_pipes_runner.failures import error_info, exit_code_of
from sqlmesh_pipes_runner.installation import DISTRIBUTION, check_sqlmesh
from sqlmesh_pipes_runner.locks import Holder, Waiting
from sqlmesh_pipes_runner.options import DEFAULT_LOCK_SECONDS, RunOptions
from sqlmesh_pipes_runner.progress import Progress
from sqlmesh_pipes_runner.recorder import RunRecorder, Skip
from sqlmesh_pipes_runner.writer import EventWriter

if TYPE_CHECKING:
    from sqlmesh_pipes_runner.adapter import ReportingContext
    from sqlmesh_pipes_runner.console import SQLMeshEventCaptureConsole
    from sqlmesh_pipes_runner.reports.files import Reports

HEARTBEAT_SECONDS = 5.0
LAST_RESORT_SECONDS = 5.0
_CONFIG_NAMES = ("config.py", "config.yaml", "config.yml", "sqlmesh.yaml", "sqlmesh.yml")


class Run:
    """A run of SQLMesh that reports to a writer and to people.

    Args:
        options: what to run.
        writer: takes the events.
        progress: shows them to people.
        grace_seconds: how long batches may go on after the run was told to stop.
        lock_seconds: how long to wait for another run of the environment.
        dagster_run_id: of the run of Dagster's that this one is for, if it is.
        reports: written when the run is over, however it ends.
        exit_process: ends the process at once; called with an exit status when the grace period is over.
    """

    def __init__(
        self,
        options: RunOptions,
        writer: EventWriter,
        progress: Progress,
        *,
        grace_seconds: float,
        lock_seconds: float = DEFAULT_LOCK_SECONDS,
        dagster_run_id: str | None = None,
        reports: Reports | None = None,
        exit_process: Callable[[int], object] = os._exit,
    ) -> None:
        self._options = options
        self._writer = writer
        self._progress = progress
        self._reports = reports
        self._exit_process = exit_process
        self._lock_seconds = lock_seconds
        self._dagster_run_id = dagster_run_id
        self._finishing = threading.Lock()
        self._finished = False
        self._recorder = RunRecorder(self._emit)
        self._context: ReportingContext | None = None
        self._console: SQLMeshEventCaptureConsole | None = None
        self.cancellation = Cancellation(grace_seconds, self._force_stop)

    def execute(self, early_error: Exception | None = None) -> int:
        """Run, report, and say how it ended.

        Args:
            early_error: what already stands in the way, to be reported as the run's error.

        Returns:
            The exit status, as the package's errors module names them.
        """
        status: RunStatus | None = None
        exit_code, error = EXIT_OK, None
        with self.cancellation.handling_signals():
            try:
                try:
                    if early_error is not None:
                        raise early_error
                    with self._heartbeats():
                        has_failed = self._run_sqlmesh()
                    if has_failed and not self._recorder.any_failure and not self.cancellation.requested:
                        # Never a success that SQLMesh does not know of.
                        raise RunnerError("SQLMesh reports that the run failed, and named no model that did.")
                finally:
                    self.cancellation.raise_no_more()  # inside the try: a signal at this very moment is still caught
            except RunInterruptedError:
                pass  # told below, as for a run that came to its end in time
            except BaseException as failure:  # noqa: BLE001 - the run's boundary; told in its last event
                status, error = "error", run_error(failure)
                exit_code = exit_code_of(error.category)
            if self.cancellation.requested:
                status, exit_code = "interrupted", EXIT_INTERRUPTED
            return self._finish(status, exit_code, error)

    def _run_sqlmesh(self) -> bool:
        """Whether SQLMesh says that the run failed."""
        for project in self._options.projects:
            check_project(project)
        check_sqlmesh()
        # Imported here: it takes seconds, and the projects are checked without SQLMesh.
        from sqlmesh_pipes_runner import adapter
        from sqlmesh_pipes_runner.console import SQLMeshEventCaptureConsole
        from sqlmesh_pipes_runner.secrets import Masker

        configs = adapter.load_configs(self._options)
        self._writer.masker = Masker(adapter.secrets_of(configs))
        self._console = SQLMeshEventCaptureConsole(self._recorder, self._blocked_by)
        with adapter.console_replaced(self._console), _forwarded_logs(self._recorder):
            self.cancellation.check()
            context = adapter.ReportingContext(
                self._options, configs, self._recorder, self.cancellation, versions()
            )
            self._context = context
            lock = adapter.run_lock(context, self._me(context.target_environment))
            with lock.held(self._waiting(), on_taken=self.cancellation.request):
                try:
                    return bool(context.run_reported().is_failure)
                finally:
                    context.close()  # before the next run begins, which may need the same file

    def _me(self, environment: str) -> Holder:
        if self._dagster_run_id is not None:
            return Holder.here("dagster", self._dagster_run_id, environment)
        return Holder.here("run", self._writer.run_id, environment)

    def _waiting(self) -> Waiting:
        return Waiting(
            seconds=self._lock_seconds,
            option="--lock-timeout",
            say=lambda level, message: self._recorder.log(level, "sqlmesh-runner", message),
            check=self.cancellation.check,
        )

    def _blocked_by(self, fqn: str, failed: set[str]) -> tuple[str, ...]:
        scheduler = self._context.run_scheduler if self._context else None
        return scheduler.blocking_failures(fqn, failed) if scheduler else ()

    def _why_pending(self, error: ErrorInfo | None) -> Callable[[str], Skip]:
        scheduler = self._context.run_scheduler if self._context else None

        def why(fqn: str) -> Skip:
            console = self._console
            # Once SQLMesh has said what is due, the others are known not to be, whatever happened then.
            if scheduler is not None and console is not None and console.is_due(fqn) is False:
                return console.held_back(fqn) or scheduler.why_not_run(fqn)
            if self.cancellation.requested:
                return Skip(
                    reason="interrupted",
                    detail=f"The run was stopped ({self.cancellation.reason}) before the model ran.",
                )
            if error is not None or scheduler is None:
                failed = self._recorder.first_failure()
                if failed is not None:
                    cause = f"{failed[0]} failed: {failed[1].message.partition(chr(10))[0]}"
                else:
                    cause = error.message.partition("\n")[0] if error else "it never began"
                return Skip(reason="interrupted", detail=f"The run broke off: {cause}")
            if console is not None and console.is_due(fqn):
                return Skip(
                    reason="interrupted", detail="It was due, and SQLMesh did not say what became of it."
                )
            return scheduler.why_not_run(fqn)

        return why

    def _finish(self, status: RunStatus | None, exit_code: int, error: ErrorInfo | None) -> int:
        with self._finishing:
            if self._finished:
                return exit_code
            self._finished = True
            for fqn in self._recorder.pending():
                if self._recorder.started(fqn) and self.cancellation.requested:
                    self._recorder.batch_failed(fqn, None, _interrupted(self.cancellation.reason))
            finished = self._recorder.finish(
                status,
                exit_code,
                why_pending=self._why_pending(error),
                error=error,
                next_seq=lambda: self._writer.next_seq,
                fail_on=self._options.fail_on,
            )
            if self._reports is not None:
                self._reports.write()
            self._writer.drain()
            return finished.exit_code

    def _force_stop(self, reason: str) -> None:
        """From a thread of its own: report what is known, and end the process with whatever still runs in it."""
        # Reporting may wait for a reader that does not read: the end must not.
        last_resort = threading.Timer(LAST_RESORT_SECONDS, self._abandon)
        last_resort.daemon = True
        last_resort.start()
        self._recorder.log(
            "warning", "sqlmesh-runner", f"Stopped at once ({reason}): batches that ran are torn."
        )
        self._exit_process(self._finish("interrupted", EXIT_INTERRUPTED, None))

    def _abandon(self) -> None:
        self._progress.abandon()
        self._exit_process(EXIT_INTERRUPTED)

    def _emit(self, event: Event) -> None:
        envelope = self._writer.emit(event)
        self._progress.show(envelope.event)
        if self._reports is not None:
            self._reports.take(envelope)

    @contextmanager
    def _heartbeats(self) -> Iterator[None]:
        over = threading.Event()

        def beat() -> None:
            while not over.wait(HEARTBEAT_SECONDS):
                self._recorder.heartbeat()

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=HEARTBEAT_SECONDS)


def check_project(project: Path) -> None:
    """Raise UsageError unless the path is a directory with a SQLMesh configuration."""
    if not project.exists():
        raise UsageError(f"There is no directory {project}: give the SQLMesh project with --project DIR.")
    if not project.is_dir():
        raise UsageError(f"{project} is no directory: give the SQLMesh project with --project DIR.")
    if not any((project / name).is_file() for name in _CONFIG_NAMES):
        raise UsageError(
            f"{project} is not a SQLMesh project: there is none of {', '.join(_CONFIG_NAMES)} in it. "
            "Give the directory that holds the configuration with --project DIR."
        )


def versions() -> Versions:
    """Of what takes part in a run. Read from the metadata of the installed distributions."""
    return Versions(
        runner=version(DISTRIBUTION), sqlmesh=version("sqlmesh"), python=platform.python_version()
    )


def run_error(failure: BaseException) -> ErrorInfo:
    """Why there is no run, or no manifest: as `error_info`, with the message that was written for the user."""
    info = error_info(failure)
    # The outermost message is the one written for the user; the root's is added where it says more.
    outer = str(failure).strip()
    message = outer if not outer or info.message in outer else f"{outer} ({info.message})"
    traceback = None if isinstance(failure, (UsageError, RunLockedError)) else info.traceback
    return ErrorInfo(
        error_class=info.error_class,
        message=message or info.message,
        category=info.category,
        transient=info.transient,
        traceback=traceback,
    )


def _interrupted(reason: str | None) -> ErrorInfo:
    return ErrorInfo(
        error_class=f"{RunInterruptedError.__module__}.{RunInterruptedError.__qualname__}",
        message=f"The run was stopped ({reason}) before the model was complete.",
        category="cancelled",
        transient=True,
    )


class _LogForwarder(logging.Handler):
    def __init__(self, recorder: RunRecorder) -> None:
        super().__init__(logging.WARNING)
        self._recorder = recorder

    def emit(self, record: logging.LogRecord) -> None:
        level: LogLevel = "error" if record.levelno >= logging.ERROR else "warning"
        with contextlib.suppress(TypeError, ValueError):  # a log call whose arguments do not fit its format
            self._recorder.log(level, record.name, record.getMessage())


@contextmanager
def _forwarded_logs(recorder: RunRecorder) -> Iterator[None]:
    logger = logging.getLogger("sqlmesh")
    handler = _LogForwarder(recorder)
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False  # what is forwarded is shown once
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
