"""What stops a run before or beside its models, with the exit status that says so."""

from __future__ import annotations

EXIT_OK = 0
"""Success, or nothing to do."""
EXIT_FAILED = 1
"""A model or a blocking audit failed, or something that ``--fail-on`` names; of other commands: what they check does not hold."""
EXIT_USAGE = 2
"""Usage or configuration: no such project, environment, gateway, model."""
EXIT_INFRASTRUCTURE = 3
"""Infrastructure: the state or the warehouse is out of reach, or locked; or another run of the environment did not end in time."""
EXIT_INTERRUPTED = 130
"""Interrupted: the run was told to stop."""


class RunnerError(Exception):
    """Base of the runner's own errors; the message is for the user, whole and by itself."""


class UsageError(RunnerError):
    """What the user asked for does not exist, or cannot be asked for. Exit status 2."""


class InstallationError(UsageError):
    """The installed SQLMesh is none that the runner can work with.

    Attributes:
        found: what is wrong.
        advice: what to do.
    """

    def __init__(self, found: str, advice: str) -> None:
        self.found = found
        self.advice = advice
        super().__init__(f"{found} {advice}")


class StoreError(UsageError):
    """A store by which Dagster hands over is not named, its driver is missing, or it does not do what it is asked for.

    Attributes:
        found: what is wrong.
        advice: what to do.
        exit_code: the status that says why.
    """

    def __init__(self, found: str, advice: str, exit_code: int = EXIT_USAGE) -> None:
        self.found = found
        self.advice = advice
        self.exit_code = exit_code
        super().__init__(f"{found} {advice}")


class RunInterruptedError(RunnerError):
    """The run was told to stop; raised where SQLMesh is between batches, or before it has any."""


class RunLockedError(RunnerError):
    """Another run has been waited for, and goes on still. Exit status 3."""


class LockUnavailableError(RunnerError):
    """There is nothing here by which one run could keep another out; the message says why, and begins no sentence."""


class NoAnswerError(RunnerError):
    """A question about a project cannot be answered; the message has no secrets in it.

    Attributes:
        exit_code: the status that says why.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)
