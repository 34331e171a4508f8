"""What still runs of what a test has started."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.waiting import wait_for


def processes_of(place: Path) -> dict[int, str]:
    """Processes that have a path in their environment or command line: id to command line. This one is left out."""
    name = os.fsencode(place)
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        if int(process.name) != os.getpid() and (name in command or name in environment):
            found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


@pytest.fixture
def no_process_left(tmp_path: Path) -> Iterator[None]:
    """After the test, nothing runs that was started with the test's own directory in its environment, as its database is."""
    yield
    wait_for(
        lambda: not processes_of(tmp_path), seconds=15, what=lambda: f"the end of {processes_of(tmp_path)}"
    )
