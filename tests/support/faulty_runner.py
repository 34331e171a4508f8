"""`sqlmesh-runner` that kills itself, or pauses, at a place that no signal from outside would hit: run in the runner's environment.

FAULT names the place; FAULT_MARKER is a file, made by the fault, with which the runner is like any other.
"""

import functools
import os
import signal
import time
from pathlib import Path

from sqlmesh.core.scheduler import Scheduler

from sqlmesh_pipes_runner.adapter.scheduling import ReportingScheduler
from sqlmesh_pipes_runner.cli import main
from sqlmesh_pipes_runner.run import Run

MARKER = Path(os.environ["FAULT_MARKER"])
MODEL = '."marts"."second"'


def die(*_arguments, **_named):
    if not MARKER.exists():
        MARKER.touch()
        if os.getpid() == 1:  # of a container: it cannot kill itself
            os._exit(128 + signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def pause(*_arguments, **_named):
    MARKER.touch()
    deadline = time.monotonic() + 60
    while MARKER.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def before(method, when=lambda *arguments, **named: True):
    @functools.wraps(method)
    def wrapped(*arguments, **named):
        if when(*arguments, **named):
            die()
        return method(*arguments, **named)

    return wrapped


def after(method, when=lambda *arguments, **named: True):
    @functools.wraps(method)
    def wrapped(*arguments, **named):
        result = method(*arguments, **named)
        if when(*arguments, **named):
            die()
        return result

    return wrapped


def first(what, method):
    def wrapped(*arguments, **named):
        what()
        return method(*arguments, **named)

    return wrapped


def of_the_second(_scheduler, snapshot, *_rest, **_named):
    return snapshot.name.endswith(MODEL)


match os.environ["FAULT"]:
    case "before the first event":
        ReportingScheduler.run = before(ReportingScheduler.run)
    case "in mid-model":  # its rows are written, its interval is not
        Scheduler._audit_snapshot = before(Scheduler._audit_snapshot, of_the_second)
    case "after the interval is committed":
        Scheduler.evaluate = after(Scheduler.evaluate, of_the_second)
    case "before run_finished":
        Scheduler.run = after(Scheduler.run)
    case "pauses before run_finished":
        Run._finish = first(pause, Run._finish)
    case unknown:
        raise SystemExit(f"no such fault: {unknown}")

main()
