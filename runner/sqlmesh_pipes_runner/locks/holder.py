"""What a lock is, and who holds it."""

from __future__ import annotations

import json
import os
import time
import weakref
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any, Literal, Protocol

Who = Literal["run", "dagster", "reconcile"]

_WORDS: dict[str, str] = {"run": "run", "dagster": "Dagster run", "reconcile": "reconcile"}
_NAME_BYTES = 63
"""Of PostgreSQL's ``application_name``; what is longer is cut."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock.

    Attributes:
        who: what kind of process: a run by hand, one that Dagster started, a reconciliation.
        run: the beginning of the run's id; of Dagster's own where that started it.
        environment: what it runs.
        host: where it is.
        pid: its process there.
        since: when it took the lock, in seconds since the epoch; 0 before.
    """

    who: Who
    run: str
    environment: str
    host: str
    pid: int
    since: int = 0

    @classmethod
    def here(cls, who: Who, run_id: str, environment: str) -> Holder:
        """This process."""
        return cls(
            who=who, run=run_id[:8], environment=environment, host=os.uname().nodename, pid=os.getpid()
        )

    def now(self) -> Holder:
        """The same, with the lock taken at this moment."""
        return replace(self, since=int(time.time()))

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, timezone.utc)
        day = "" if since.date() == datetime.now(timezone.utc).date() else f"{since:%Y-%m-%d} "
        what = f"{_WORDS[self.who]} {self.run}".rstrip()
        return f"process {self.pid} on host {self.host}, {what}, since {day}{since:%H:%M:%S} UTC"

    def as_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def of_json(cls, text: bytes) -> Holder | None:
        """What `as_json` gave; None for anything else: nothing, or half of it."""
        try:
            found = json.loads(text)
            return cls._of(found["environment"], **{name: found[name] for name in _PARTS})
        except (ValueError, TypeError, KeyError):
            return None

    def as_application_name(self) -> str:
        """All but the environment in 63 bytes, the host cut if it is too long: ``sqlmesh/dagster:1a2b3c4d/4711/6920a1b8/host``."""
        name = f"sqlmesh/{self.who}:{self.run}/{self.pid}/{self.since:x}/{self.host}"
        return name.encode("ascii", "replace")[:_NAME_BYTES].decode()

    @classmethod
    def of_application_name(cls, name: str, environment: str) -> Holder | None:
        """What `as_application_name` gave; None for any other name."""
        try:
            prefix, what, pid, since, host = name.split("/", 4)
            who, _, run = what.partition(":")
            if prefix != "sqlmesh":
                return None
            return cls._of(environment, who=who, run=run, host=host, pid=pid, since=int(since, 16))
        except ValueError:
            return None

    @classmethod
    def _of(cls, environment: str, *, who: Any, run: str, host: str, pid: str, since: int) -> Holder:
        if who not in _WORDS:
            raise ValueError(who)
        return cls(
            who=who,
            run=str(run),
            environment=str(environment),
            host=str(host),
            pid=int(pid),
            since=int(since),
        )


_PARTS = ("who", "run", "host", "pid", "since")


class Lock(Protocol):
    """A lock that one process has, and that is free when this has died."""

    def attempt(self) -> bool:
        """Take it if it is free, without waiting; whether this process has it now.

        Raises:
            LockUnavailableError: there can be no such lock here.
        """

    def holder(self) -> Holder | None:
        """Who has it, after an attempt in vain; None where that is not known."""

    def is_kept(self) -> bool:
        """Whether it is held still; one that was lost can be attempted anew."""

    def release(self) -> None:
        """Give it back, or give up the attempt. May be called again."""

    def forget(self) -> None:
        """In a process that was forked from the holder: hold nothing of the lock open, and leave it to the parent."""


_of_this_process: weakref.WeakSet[Lock] = weakref.WeakSet()


def keep_from_forks(lock: Lock) -> None:
    """What a model forks, and what may live on when this process has died, does not hold the lock."""
    _of_this_process.add(lock)


def _forget_in_child() -> None:
    for lock in list(_of_this_process):
        lock.forget()


os.register_at_fork(after_in_child=_forget_in_child)
