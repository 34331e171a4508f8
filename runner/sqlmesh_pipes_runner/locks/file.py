"""A lock on a file of this host."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from sqlmesh_pipes_runner.errors import LockUnavailableError
from sqlmesh_pipes_runner.locks.holder import Holder, keep_from_forks

_CONTENT_BYTES = 4096


class FileLock:
    """A POSIX record lock on a file, with its holder written in it.

    Of this kind since it is a process's own: that of ``flock`` would be shared with whatever the process forks, and stay with it.
    The file is never removed: who waits for a file that is gone would go on beside who locks the next one.

    Args:
        path: of the file. No other part of the process may open it: to close it would release the lock.
        me: who takes the lock.
        beside: a file whose permissions the new one gets: who may write that one may lock it. None: this user alone.
        create: make the file if there is none. Without it nobody holds the lock, and the attempt succeeds.
    """

    def __init__(self, path: Path, me: Holder, *, beside: Path | None = None, create: bool = True) -> None:
        self._path = path
        self._me = me
        self._beside = beside
        self._create = create
        self._descriptor: int | None = None
        self._is_held = False
        keep_from_forks(self)

    def attempt(self) -> bool:
        try:
            if self._descriptor is None:
                self._descriptor = self._opened()
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            if not self._create:
                return True
            raise self._unavailable("there is no such directory") from None
        except OSError as error:
            if self._descriptor is not None and error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            self.forget()
            raise self._unavailable(error.strerror) from error
        if not self._is_in_place():
            # Somebody has removed the file, and the next one may be locked already: it is opened at the next attempt.
            self.forget()
            return False
        self._is_held = True
        with suppress(OSError):  # a full disk: the lock is held all the same
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, self._me.now().as_json(), 0)
        return True

    def holder(self) -> Holder | None:
        if self._descriptor is None:
            return None
        return Holder.of_json(os.pread(self._descriptor, _CONTENT_BYTES, 0))

    def is_kept(self) -> bool:
        return True

    def release(self) -> None:
        if self._is_held and self._descriptor is not None:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
        self.forget()

    def forget(self) -> None:
        descriptor, self._descriptor, self._is_held = self._descriptor, None, False
        if descriptor is not None:
            os.close(descriptor)

    def _opened(self) -> int:
        # No link: in a directory that others may write, it could lead anywhere.
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        with suppress(FileNotFoundError):
            return os.open(self._path, flags)
        if not self._create:
            raise FileNotFoundError(self._path)
        try:
            descriptor = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:  # made by another run at this moment
            return os.open(self._path, flags)
        if self._beside is not None:
            with suppress(OSError):
                os.fchmod(descriptor, stat.S_IMODE(self._beside.stat().st_mode) & 0o666)
        return descriptor

    def _is_in_place(self) -> bool:
        assert self._descriptor is not None  # noqa: S101 - narrows the type
        try:
            return os.path.samestat(self._path.lstat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def _unavailable(self, why: str | None) -> LockUnavailableError:
        return LockUnavailableError(f"the file {self._path} cannot be locked: {why}")


def host_lock(name: str, me: Holder, *, create: bool = True) -> FileLock:
    """A lock of this user on this host, for what has no file and no locks of its own.

    Raises:
        LockUnavailableError: there is no directory for it that is this user's alone.
    """
    directory = Path(tempfile.gettempdir()) / f"sqlmesh-runner-{os.geteuid()}"
    try:
        with suppress(FileExistsError):
            directory.mkdir(0o700)
        found = directory.lstat()
    except OSError as error:
        raise LockUnavailableError(f"the directory {directory} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise LockUnavailableError(f"{directory} is no directory of this user's alone")
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return FileLock(directory / f"{digest}.run-lock", me, create=create)
