"""What a doctor's check finds, and how it is told to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlmesh_pipes_runner.errors import EXIT_OK

Status = Literal["ok", "not_ok", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """The outcome of one check; secrets are masked."""

    name: str
    status: Status
    """``unknown``: cannot be told because of an earlier one."""
    found: str
    advice: str | None = None
    """What to do, in a sentence. None where nothing has to be done."""
    exit_code: int = EXIT_OK
    """What a run would end with for this reason."""


class NotOkError(Exception):
    """A check has failed; the attributes are those of `Check`."""

    def __init__(self, found: str, advice: str, exit_code: int) -> None:
        self.found = found
        self.advice = advice
        self.exit_code = exit_code
        super().__init__(found)


class CannotTellError(Exception):
    """A check cannot be made; ``cause`` is the check that has to be ok first."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(cause)


def exit_code_of_all(checks: Sequence[Check]) -> int:
    """That of the first check that is not ok; 0 where all are."""
    return next((check.exit_code for check in checks if check.status == "not_ok"), EXIT_OK)


def lines(check: Check) -> str:
    """A check for people: the outcome in a line, and the advice below it."""
    mark = {"ok": "ok", "not_ok": "NOT OK", "unknown": "-"}[check.status]
    advice = f"\n{'':22}{check.advice}" if check.advice else ""
    return f"{mark:<6}  {check.name:<13} {check.found}{advice}\n"
