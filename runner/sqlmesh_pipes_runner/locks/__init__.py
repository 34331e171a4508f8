"""The run lock: one run at a time, by locks that the operating system or the database gives back when their holder dies.

Knows nothing of SQLMesh. Which locks a run needs is said by `sqlmesh_pipes_runner.adapter.run_locks`.
"""

from sqlmesh_pipes_runner.locks.advisory import CLIENT_KEEPALIVES, AdvisoryLock
from sqlmesh_pipes_runner.locks.file import FileLock, host_lock
from sqlmesh_pipes_runner.locks.holder import Holder, Lock
from sqlmesh_pipes_runner.locks.run_lock import RunLock, Waiting

__all__ = [
    "CLIENT_KEEPALIVES",
    "AdvisoryLock",
    "FileLock",
    "Holder",
    "Lock",
    "RunLock",
    "Waiting",
    "host_lock",
]
