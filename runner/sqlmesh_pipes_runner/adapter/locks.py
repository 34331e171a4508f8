"""Who keeps a DuckDB file to itself."""

from __future__ import annotations

import errno
import fcntl
import os
import re

import duckdb

from sqlmesh_pipes_runner.adapter.places import DatabaseFile

_HOLDER = re.compile(r"held in (?P<program>.+?) \(PID (?P<pid>[0-9]+)\)")


def holder_of(file: DatabaseFile) -> str | None:
    """The process that keeps others from opening a DuckDB file, in words; None if there is none, or no such file.

    Asked by the lock that DuckDB takes, taken and given back at once. Not to be asked in a process that has the file open:
    giving it back would release that one too.
    """
    try:
        descriptor = os.open(file.path, (os.O_RDONLY if file.read_only else os.O_RDWR) | os.O_CLOEXEC)
    except OSError:
        return None  # connecting to it says why
    try:
        fcntl.lockf(descriptor, (fcntl.LOCK_SH if file.read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return None  # a file system without locks
    else:
        return None
    finally:
        os.close(descriptor)
    return _named(file) or "another process"


def _named(file: DatabaseFile) -> str | None:
    """Who that is: DuckDB finds out."""
    try:
        duckdb.connect(str(file.path), read_only=file.read_only).close()
    except duckdb.Error as error:
        found = _HOLDER.search(str(error))
        return f"the process {found['pid']} ({found['program']})" if found else None
    return None
