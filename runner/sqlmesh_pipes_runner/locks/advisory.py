"""A lock in PostgreSQL."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from sqlmesh_pipes_runner.errors import LockUnavailableError
from sqlmesh_pipes_runner.locks.holder import Holder, keep_from_forks

CLIENT_KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 50_000,
}
"""Settings of libpq's: a server that has vanished is noticed within a minute."""
_SETTINGS = {
    # The same for the server, which then gives the lock back.
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "50000",
    # The session does nothing for hours, and is to stay.
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
}
_VALUES = ", ".join(["(%s, %s)"] * (1 + len(_SETTINGS)))
_SET = (
    f"SELECT set_config(name, value, false) FROM (VALUES {_VALUES}) AS wanted(name, value) "  # noqa: S608 - placeholders alone
    "WHERE current_setting(name, true) IS NOT NULL"  # a server of another version does not know them all
)
_HOLDER = (
    "SELECT activity.application_name FROM pg_locks AS locks JOIN pg_stat_activity AS activity ON activity.pid = locks.pid "
    "WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 1 "
    "AND locks.classid::bigint = %s AND locks.objid::bigint = %s "
    "AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_NOT_HERE = ("0A", "42")
"""SQLSTATEs of what speaks PostgreSQL's protocol and has no such locks."""


class AdvisoryLock:
    """An advisory lock on a connection of its own, whose ``application_name`` says who holds it.

    It is the session's. Behind a pooler a session is not the client's own: there the lock is that of a transaction, which is open
    as long as the lock is held, and which a pooler leaves on one session.

    Args:
        connect: makes a connection, as DB-API 2.0 describes it.
        name: what is locked, among all such names in the connection's database.
        me: who takes the lock.
    """

    def __init__(self, connect: Callable[[], Any], name: str, me: Holder) -> None:
        self._connect = connect
        self._me = me
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        self._connection: Any = None
        self._is_pooled = False
        self._process = os.getpid()
        keep_from_forks(self)

    def attempt(self) -> bool:
        try:
            if self._connection is None:
                self._open()
            settings = {"application_name": self._me.now().as_application_name(), **_SETTINGS}
            self._ask(_SET, [text for setting in settings.items() for text in setting])
            function = "pg_try_advisory_xact_lock" if self._is_pooled else "pg_try_advisory_lock"
            ((is_taken,),) = self._ask(f"SELECT {function}(%s)", [self._key])
        except Exception as error:  # of the driver's: DB-API gives no base that all of them share
            self.forget()
            if str(getattr(error, "pgcode", None) or "").startswith(_NOT_HERE):
                raise LockUnavailableError(
                    f"the database has no advisory locks: {str(error).strip()}"
                ) from error
            raise
        return bool(is_taken)

    def holder(self) -> Holder | None:
        unsigned = self._key % 2**64
        found = self._ask(_HOLDER, [unsigned >> 32, unsigned & 0xFFFF_FFFF])
        if self._is_pooled:
            self._connection.rollback()  # the session is not kept while nothing is held
        return Holder.of_application_name(found[0][0] or "", self._me.environment) if found else None

    def is_kept(self) -> bool:
        try:
            self._ask("SELECT 1", [])
        except Exception:  # noqa: BLE001 - of the driver's: the session may have gone, and the lock with it
            self.forget()
            return False
        return True

    def release(self) -> None:
        if self._connection is None:
            return
        with suppress(Exception):  # of the driver's: a session that has gone has no lock
            # Not left to the end of the connection, of which the server may hear when the next run has asked already.
            if self._is_pooled:
                self._connection.rollback()
            else:
                self._ask("SELECT pg_advisory_unlock_all()", [])
        self.forget()

    def forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(Exception):  # of the driver's: the connection may be broken
            if os.getpid() == self._process:
                connection.close()
            else:
                # To close it would tell the server to end the parent's session.
                nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(nowhere, connection.fileno(), inheritable=False)
                os.close(nowhere)

    def _open(self) -> None:
        self._connection = self._connect()
        self._connection.autocommit = True
        ((backend,),) = self._ask("SELECT pg_backend_pid()", [])
        # A pooler tells its clients numbers of its own.
        told = getattr(getattr(self._connection, "info", None), "backend_pid", backend)
        self._is_pooled = told != backend
        self._connection.autocommit = not self._is_pooled

    def _ask(self, query: str, values: Sequence[object]) -> list[Any]:
        cursor = self._connection.cursor()
        try:
            cursor.execute(query, values)
            return list(cursor.fetchall())
        finally:
            cursor.close()
