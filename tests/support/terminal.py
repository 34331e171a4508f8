"""A process on a pseudo-terminal, and what a person sees there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyte


class Terminal:
    """Starts a process with a terminal as its standard streams; leave the context to end it.

    Attributes:
        raw: all bytes that were written to the terminal.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        rows: int = 24,
        columns: int = 110,
        **streams: Any,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        unset = ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
        inherited = {name: value for name, value in os.environ.items() if name not in unset}
        self.process = subprocess.Popen(
            command,
            env={**inherited, "TERM": "xterm-256color", **env},
            start_new_session=True,
            **{"stdin": slave, "stdout": slave, "stderr": slave, **streams},
        )
        os.close(slave)
        self.raw = b""
        self._is_watched = True
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=1)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self.hang_up()

    @property
    def screen(self) -> list[str]:
        """The lines to be seen at this moment."""
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """All that was seen and has not been wiped, what has scrolled away included."""
        with self._lock:
            above = [
                "".join(line[x].data for x in range(self._screen.columns))
                for line in self._screen.history.top
            ]
            return "\n".join(line.rstrip() for line in [*above, *self._screen.display]).rstrip()

    @property
    def cursor_hidden(self) -> bool:
        with self._lock:
            return bool(self._screen.cursor.hidden)

    def wait_until(self, seen: Callable[[str], object], seconds: float = 40) -> str:
        """Wait for what a person is to see; returns the screen."""
        deadline = time.monotonic() + seconds
        while not seen(screen := "\n".join(self.screen)):
            assert time.monotonic() < deadline, screen
            assert self.process.poll() is None, screen
            time.sleep(0.02)
        return screen

    def hang_up(self) -> None:
        """Nobody looks any longer: what is written from now on is an error."""
        self._is_watched = False
        self._reader.join(10)
        if self._master >= 0:
            os.close(self._master)
        self._master = -1

    def wait(self, seconds: float = 40) -> int:
        """Wait for the end; returns the exit status."""
        status = self.process.wait(seconds)
        self._reader.join(10)
        return status

    def _read(self) -> None:
        while self._is_watched:
            if not select.select([self._master], [], [], 0.1)[0]:
                continue
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # EIO: the last process has closed the terminal
                return
            with self._lock:
                self.raw += chunk
                self._stream.feed(chunk)
