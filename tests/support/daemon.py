"""Dagster's daemon on a code location of a test's own, and nothing left of it afterwards."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg


@contextmanager
def daemon(home: Path, location: str) -> Iterator[dg.DagsterInstance]:
    """The instance of a new DAGSTER_HOME, and a daemon that serves it.

    Args:
        home: a directory to be made.
        location: the Python text of the definitions.
    """
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (home / "location.py").write_text(location)
    log = home / "daemon.log"
    with (
        log.open("wb") as output,
        dg.DagsterInstance.from_config(str(home)) as instance,
        subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", "-f", str(home / "location.py")],
            env={**os.environ, "DAGSTER_HOME": str(home)},
            cwd=home,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group of its own, with the code server, to be ended as a whole
        ) as process,
    ):
        try:
            yield instance
        except BaseException:
            print(log.read_text(errors="replace")[-8_000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
