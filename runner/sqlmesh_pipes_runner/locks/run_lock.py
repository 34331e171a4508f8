"""What a run must have to itself: taken before it begins, kept, given back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlmesh_pipes_protocol.events import LogLevel
from sqlmesh_pipes_runner.errors import LockUnavailableError, RunLockedError
from sqlmesh_pipes_runner.locks.holder import Holder, Lock

_KEEP_SECONDS = 10.0
"""How often a lock is looked after while it is held."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_SETTLING_POLLS = 3
"""Who has just taken the lock gets so many polls to write who it is, before it is told as unknown."""

Say = Callable[[LogLevel, str], object]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How to wait for a lock.

    Attributes:
        seconds: how long at most, for all that is to be locked.
        option: that says so, for the user.
        say: told for whom this process waits, and that it does without a lock.
        check: raises what ends the waiting.
        clock: seconds, monotonic.
        sleep: takes seconds.
    """

    seconds: float
    option: str
    say: Say
    check: Callable[[], object] = lambda: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep


class RunLock:
    """All that a run must have to itself. The locks are taken in one order by all, so that no two runs wait for each other.

    Args:
        environment: what is run.
        locks: in that order.
        without: why a lock that would be among them is not.
    """

    def __init__(self, environment: str, locks: Sequence[Lock], without: Sequence[str] = ()) -> None:
        self._environment = environment
        self._locks = list(locks)
        self._without = tuple(without)
        self._is_lost = False

    @contextmanager
    def held(self, waiting: Waiting, on_taken: Callable[[str], object]) -> Iterator[None]:
        """Have the lock while the block runs.

        Args:
            waiting: how.
            on_taken: called from a thread of its own when the lock was lost, and another process has it now.

        Raises:
            RunLockedError: the time is over.
        """
        over = threading.Event()

        def keep() -> None:
            while not over.wait(_KEEP_SECONDS) and self.keep(waiting.say, on_taken):
                pass

        thread = threading.Thread(target=keep, name="run-lock", daemon=True)
        try:
            self.acquire(waiting)
            thread.start()
            yield
        finally:
            over.set()
            if thread.ident is not None:
                thread.join(timeout=_KEEP_SECONDS)
            self.release()

    def acquire(self, waiting: Waiting) -> None:
        """Take all locks, and wait for those that are not free. If it raises, what was taken is to be released.

        Raises:
            RunLockedError: the time is over.
        """
        deadline = waiting.clock() + waiting.seconds
        for why in self._without:
            self._say_without(why, waiting.say)
        self._locks = [lock for lock in self._locks if self._has_waited_for(lock, deadline, waiting)]

    def keep(self, say: Say, on_taken: Callable[[str], object]) -> bool:
        """See whether the locks are held still, and take anew what was lost; False if another process has it."""
        for lock in self._locks:
            try:
                if lock.is_kept():
                    continue
                if not lock.attempt():
                    holder = lock.holder()
                    on_taken(f"its lock was lost, and {self._other(holder)} has it: {_described(holder)}")
                    return False
            except Exception as error:  # noqa: BLE001 - the thread's boundary: the database may be back the next time
                if not self._is_lost:
                    self._is_lost = True
                    cause = " ".join(str(error).split()) or type(error).__name__
                    say("warning", f"The run lock is lost for now, and another run can begin: {cause}")
            else:
                self._is_lost = False
                say("warning", "The run lock was lost with its connection, and is held again.")
        return True

    def release(self) -> None:
        """Give all back. May be called again."""
        for lock in reversed(self._locks):
            lock.release()

    def _has_waited_for(self, lock: Lock, deadline: float, waiting: Waiting) -> bool:
        try:
            self._wait_for(lock, deadline, waiting)
        except LockUnavailableError as error:
            self._say_without(str(error), waiting.say)
            return False
        return True

    def _wait_for(self, lock: Lock, deadline: float, waiting: Waiting) -> None:
        began, polls, pause = waiting.clock(), 0, _FIRST_PAUSE
        told: Holder | None = None
        is_told = False
        while not lock.attempt():
            waiting.check()
            holder = lock.holder()
            left = deadline - waiting.clock()
            if left <= 0:
                raise self._locked(holder, waiting)
            if (holder is not None and holder != told) or (polls == _SETTLING_POLLS and not is_told):
                told, is_told = holder, True
                waiting.say("warning", f"Waits for {self._other(holder)}: {_described(holder)}.")
            polls += 1
            waiting.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        if is_told:
            waiting.say("info", f"Has waited {waiting.clock() - began:.0f} s for another run.")

    def _other(self, holder: Holder | None) -> str:
        return f"another run of environment {holder.environment if holder else self._environment!r}"

    def _locked(self, holder: Holder | None, waiting: Waiting) -> RunLockedError:
        waited = f" after {waiting.seconds:g} s" if waiting.seconds else ""
        return RunLockedError(
            f"There is still {self._other(holder)}{waited}: {_described(holder)}; try again when it has ended, "
            f"or wait for longer with {waiting.option}."
        )

    def _say_without(self, why: str, say: Say) -> None:
        say("info", f"Nothing keeps another run of environment {self._environment!r} out: {why}.")


def _described(holder: Holder | None) -> str:
    return str(holder) if holder else "it does not say who it is"
