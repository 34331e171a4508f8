"""Results come while the run goes on, and a run that is ended leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from support.waiting import WAITS, wait_for
from support.warehouse import Outcome
from support.worker import outcome_of


@pytest.fixture
def started(tmp_path) -> Path:
    return tmp_path / "started"


@pytest.fixture
def released(tmp_path) -> Path:
    return tmp_path / "released"


@pytest.fixture
def waiting(make_warehouse, started, released):
    """A first model, one that waits for a file to appear, and one after it."""
    return make_warehouse(
        {"staging.first": "SELECT 1 AS a", "marts.after": "SELECT a FROM marts.waits"},
        {"models/waits.py": WAITS.format(started=str(started), released=str(released))},
    )


def test_a_model_is_materialized_in_dagster_while_a_later_one_still_runs(
    waiting, instance, started, released
):
    outcome: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcome.append(waiting.materialize(instance)))
    thread.start()
    try:
        wait_for(started.exists)
        first = dg.AssetKey(["db", "staging", "first"])
        wait_for(lambda: instance.get_latest_materialization_event(first) is not None)
        # The event is in the log, and the later model has not been let go.
        assert thread.is_alive()
        assert instance.get_latest_materialization_event(dg.AssetKey(["db", "marts", "waits"])) is None
    finally:
        released.touch()
        thread.join(timeout=60)

    assert outcome[0].success
    assert set(outcome[0].materialized) == {"staging/first", "marts/waits", "marts/after"}


def children_of(group: int) -> list[int]:
    """Live processes of a process group, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, pgrp = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except (OSError, ValueError):
                continue
            if int(pgrp) == group and state != "Z":
                found.append(int(entry.name))
    return found


def start_run(waiting, tmp_path, instance_dir: Path) -> subprocess.Popen:
    """A process that materializes the project in Dagster, as a run worker does."""
    script = tmp_path / "worker.py"
    launcher = waiting.launcher()
    script.write_text(
        textwrap.dedent(
            f"""\
            import dagster as dg
            from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, SubprocessLauncher, sqlmesh_assets

            project = SQLMeshProject({str(waiting.path)!r})

            @sqlmesh_assets(project=project)
            def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
                yield from sqlmesh.run(context)

            launcher = SubprocessLauncher(command={launcher.command!r}, env={launcher.env!r}, grace_period_seconds=8)
            defs = dg.Definitions([warehouse], resources={{"sqlmesh": SQLMeshResource(project, launcher=launcher)}})
            with dg.DagsterInstance.local_temp({str(instance_dir)!r}) as instance:
                job = defs.resolve_implicit_global_asset_job_def()
                job.execute_in_process(instance=instance, raise_on_error=False)
            """
        )
    )
    return subprocess.Popen([sys.executable, str(script)])


def runner_groups(worker: subprocess.Popen) -> list[int]:
    """Process groups of the worker's children: each runner has its own."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    pids = [int(pid) for pid in children.read_text().split()]
    return [pid for pid in pids if os.getpgid(pid) == pid]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_the_dagster_run_ends_the_runner_and_keeps_what_was_done(
    waiting, tmp_path, started, released, number
):
    home = tmp_path / "home"
    home.mkdir()
    worker = start_run(waiting, tmp_path, home)
    try:
        wait_for(started.exists)
        (group,) = runner_groups(worker)
        worker.send_signal(number)
        # The model that runs may end within its grace period; the one after it must not begin.
        time.sleep(1)
        released.touch()
        worker.wait(timeout=60)
    finally:
        worker.kill()
        worker.wait(timeout=10)

    assert children_of(group) == []
    outcome = outcome_of(home)
    assert not outcome.success
    assert set(outcome.materialized) == {"staging/first", "marts/waits"}
    assert outcome.status("marts/after") == ("skipped", "interrupted")


def test_a_runner_that_does_not_end_is_killed_after_the_grace_period(waiting, tmp_path, started, released):
    home = tmp_path / "home"
    home.mkdir()
    worker = start_run(waiting, tmp_path, home)
    try:
        wait_for(started.exists)
        (group,) = runner_groups(worker)
        worker.send_signal(signal.SIGTERM)
        worker.wait(timeout=60)
    finally:
        worker.kill()
        worker.wait(timeout=10)

    assert children_of(group) == []
    outcome = outcome_of(home)
    assert set(outcome.materialized) == {"staging/first"}
    assert outcome.status("marts/waits") == ("failed", "cancelled")
    assert outcome.status("marts/after") == ("skipped", "interrupted")


def test_a_runner_killed_in_mid_run_fails_the_step_and_invents_nothing(waiting, instance, started):
    outcome: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcome.append(waiting.materialize(instance)))
    thread.start()
    wait_for(started.exists)
    first = dg.AssetKey(["db", "staging", "first"])
    wait_for(lambda: instance.get_latest_materialization_event(first) is not None)
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    (runner,) = [
        int(pid) for file in children for pid in file.read_text().split() if "sqlmesh-runner" in cmdline(pid)
    ]
    os.kill(runner, signal.SIGKILL)
    thread.join(timeout=60)

    assert not outcome[0].success
    assert set(outcome[0].materialized) == {"staging/first"}
    assert {key: outcome[0].status(key) for key in ("staging/first", "marts/waits", "marts/after")} == {
        "staging/first": ("executed", None),
        "marts/waits": ("failed", "cancelled"),
        "marts/after": ("skipped", "interrupted"),
    }
    assert "was killed by SIGKILL in mid-run. " in outcome[0].failure
    assert (
        " Of what it had not reported, SQLMesh's state has 0 models as complete; 1 was torn, 1 had not begun."
        in outcome[0].failure
    )


def cmdline(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_runner_alone_ends_between_models_and_exits_with_130(waiting, started, released, number):
    process = subprocess.Popen(
        [str(waiting.bin / "sqlmesh-runner"), "run", "prod", "-p", str(waiting.path), "--events", "-"],
        env=waiting.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    wait_for(started.exists)
    process.send_signal(number)
    time.sleep(0.5)
    released.touch()
    output, _ = process.communicate(timeout=60)

    events = [json.loads(line) for line in output.splitlines()]
    assert process.returncode == 130
    assert events[-1]["kind"] == "run_finished"
    assert events[-1]["status"] == "interrupted"
    statuses = {outcome["model"]: (outcome["status"], outcome["reason"]) for outcome in events[-1]["digest"]}
    assert statuses == {
        '"db"."staging"."first"': ("executed", None),
        '"db"."marts"."waits"': ("executed", None),
        '"db"."marts"."after"': ("skipped", "interrupted"),
    }


def test_a_runner_whose_dagster_process_is_killed_ends_by_itself(waiting, tmp_path, started):
    home = tmp_path / "home"
    home.mkdir()
    worker = start_run(waiting, tmp_path, home)
    try:
        wait_for(started.exists)
        (group,) = runner_groups(worker)
    finally:
        worker.kill()
        worker.wait(timeout=10)

    # It notices at once that nobody listens; the model that runs then has its grace period.
    wait_for(lambda: children_of(group) == [])
