"""Kills runners at random moments, and compares what is told of each with SQLMesh's state. A script, in the runner's environment.

    python kills.py PROJECT DATABASE KILLS SEED

The project is deployed in the DuckDB file DATABASE, which each run gets a copy of, under the path in TEST_DATABASE. Runs are forked from
this process, which has imported everything and opened nothing, so that a run takes a second. In every second run SQLMesh pauses after
each commit, before the runner learns of it: otherwise a kill hardly ever falls in between. Prints one JSON object: what the runs came
to, and the first that does not add up.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlmesh.core.context import Context
from sqlmesh.core.state_sync import EngineAdapterStateSync

from sqlmesh_pipes_protocol.reconcile import read_reconcile_report
from sqlmesh_pipes_protocol.spans import merged, span_of
from sqlmesh_pipes_runner.cli import main

PAUSE_SECONDS = 0.03
FOR_THE_FORKS = (
    "sqlmesh.core.engine_adapter.duckdb",
    *(f"sqlmesh_pipes_runner.{name}" for name in ("run", "adapter", "reconcile")),
)


def forked(function: Callable[[], object], output: Path) -> int:
    """Call a function in a process of its own, in a group of its own, which writes to a file."""
    pid = os.fork()
    if pid:
        with suppress(OSError):  # it has done so itself, or is over
            os.setpgid(pid, pid)
        return pid
    status = 1
    try:
        os.setpgid(0, 0)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor if "log" in output.name else os.open(f"{output}.log", os.O_WRONLY | os.O_CREAT), 2)
        function()
        status = 0
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(status)


def answer(function: Callable[[], object], output: Path) -> bytes:
    _, status = os.waitpid(forked(function, output), 0)
    assert status == 0, Path(f"{output}.log").read_text()
    return output.read_bytes()


def run(project: Path, events: Path, *, pausing: bool) -> None:
    if pausing:
        commit = EngineAdapterStateSync.add_snapshots_intervals

        def commit_and_pause(self: Any, intervals: Any) -> None:
            commit(self, intervals)
            time.sleep(PAUSE_SECONDS)

        EngineAdapterStateSync.add_snapshots_intervals = commit_and_pause  # type: ignore[method-assign]
    main(["run", "prod", "--project", str(project), "--events", str(events)])


def state(project: Path) -> None:
    with closing(Context(paths=[str(project)], load=False)) as context:
        environment = context.state_reader.get_environment("prod")
        assert environment is not None
        snapshots = context.state_reader.get_snapshots(environment.snapshots)
        print(json.dumps({each.name: each.intervals for each in snapshots.values() if each.intervals}))


def has_begun(events: Path) -> bool:
    return events.exists() and b'"kind":"run_started"' in events.read_bytes()


@dataclass
class Killed:
    """What a run came to; by model, what is told of it (reported, and found missing) and what SQLMesh's state has."""

    outcome: str
    events: int
    told: dict[str, list[tuple[int, int]]]
    recorded: dict[str, list[tuple[int, int]]]


def number_of(events: Path) -> int:
    return events.read_bytes().count(b"\n") if events.exists() else 0


def kill_one(
    project: Path, fresh: Path, folder: Path, when: tuple[int, float] | None, *, pausing: bool
) -> Killed:
    """Kill a run so many seconds after it has written so many events, or let it end."""
    database = Path(os.environ["TEST_DATABASE"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    Path(f"{database}.wal").unlink(missing_ok=True)
    shutil.copy(fresh, database)
    events = folder / "events.jsonl"
    pid = forked(lambda: run(project, events, pausing=pausing), folder / "log")
    if when is not None:
        deadline = time.monotonic() + 30
        while number_of(events) < when[0] and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(when[1])
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    in_state = json.loads(answer(lambda: state(project), folder / "state").splitlines()[-1])
    recorded = {fqn: [(start, end) for start, end in spans] for fqn, spans in in_state.items()}
    if not has_begun(events):
        return Killed("before its first event", 0, {}, recorded)
    asked = ["reconcile", "--events", str(events), "--project", str(project), "--format", "json"]
    report = read_reconcile_report(answer(lambda: main(asked), folder / "report"))
    told = {
        each.model: [span_of(one) for one in merged(map(span_of, (*each.reported, *each.missing)))]
        for each in report.models
    }
    if os.WIFEXITED(status):
        outcome = "ended before it was killed"
    elif b'"kind":"run_finished"' in events.read_bytes():
        outcome = "after its last event"
    elif any(each.missing for each in report.models):
        outcome = "with work that was not told"
    else:
        outcome = "in between"
    told = {fqn: spans for fqn, spans in told.items() if spans}
    return Killed(outcome, number_of(events), told, recorded)


def kill_many(project: Path, fresh: Path, kills: int, seed: int) -> dict[str, Any]:
    for name in FOR_THE_FORKS:
        import_module(name)
    chance = random.Random(seed)
    folder = fresh.parent / "run"
    whole = {pausing: kill_one(project, fresh, folder, None, pausing=pausing) for pausing in (False, True)}
    outcomes: Counter[str] = Counter()
    for number in range(kills):
        pausing = bool(number % 2)
        when = chance.randrange(whole[pausing].events + 1), chance.uniform(0, 2 * PAUSE_SECONDS)
        killed = kill_one(project, fresh, folder, when, pausing=pausing)
        outcomes[killed.outcome] += 1
        if killed.told != killed.recorded:
            return {"outcomes": outcomes, "wrong": {"number": number, "when": when, **asdict(killed)}}
    wrong = [asdict(each) for each in whole.values() if each.told != each.recorded]
    return {"outcomes": outcomes, "wrong": wrong[0] if wrong else None}


if __name__ == "__main__":
    project, fresh, kills, seed = sys.argv[1:]
    print(json.dumps(kill_many(Path(project), Path(fresh), int(kills), int(seed))))
