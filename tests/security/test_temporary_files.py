"""Temporary files are private while they are there, and gone afterwards, however a run ends."""

import os
import signal
import stat
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, sqlmesh_assets
from sqlmesh_pipes_protocol.manifest import load_manifest, write_manifest
from support.processes import processes_of
from support.waiting import wait_for
from support.watching import meanwhile

SLOW = {
    "models/slow.py": """\
        import time, typing as t
        from pathlib import Path
        import pandas as pd
        from sqlmesh import ExecutionContext, model

        @model("s.slow", kind="FULL", columns={"a": "int"})
        def execute(context: ExecutionContext, **kwargs: t.Any) -> pd.DataFrame:
            time.sleep(60)
            return pd.DataFrame({"a": [1]})
        """
}


@contextmanager
def watched(folder):
    """Paths and modes of what is in a folder meanwhile."""
    seen: set[tuple[str, int]] = set()

    def look():
        with suppress(OSError):
            for path in folder.rglob("*"):
                seen.add((path.relative_to(folder).as_posix(), stat.S_IMODE(path.stat().st_mode)))

    with meanwhile(look, every=0.01):
        yield seen


def assert_private(seen):
    """Whatever is in the folder may be entered by its owner alone, and files of ours be read by nobody else."""
    assert seen, "nothing was seen: the test would see nothing wrong"
    open_to_others = {path: oct(mode) for path, mode in seen if mode & 0o077}
    assert [path for path in open_to_others if "/" not in path] == []
    # In the moment between Dagster's making of it and ours, the folder keeps it.
    assert not [path for path in open_to_others if path.endswith("context") and (path, 0o600) not in seen]


def leftovers(tmp_path):
    """What a write of ours that was torn would leave beside its target."""
    return [
        str(path)
        for path in tmp_path.rglob(".*")
        if path.name.startswith((".sqlmesh_manifest", ".junit", ".report"))
    ]


@pytest.mark.parametrize("query", ["SELECT 1 AS a", "SELECT error('no') AS a"], ids=["success", "failure"])
def test_after_a_run_there_is_none(query, make_warehouse, instance, temporary):
    warehouse = make_warehouse({"s.ok": query})

    with watched(temporary) as seen:
        outcome = warehouse.materialize(instance)

    assert outcome.success == ("error" not in query)
    assert_private(seen)
    assert list(temporary.iterdir()) == []


def test_after_the_runner_was_killed_there_is_none(make_warehouse, instance, temporary):
    warehouse = make_warehouse(files=SLOW)

    def kill():
        def runners():
            return [pid for pid, line in processes_of(warehouse.path).items() if "sqlmesh-runner run" in line]

        wait_for(runners, seconds=60)
        time.sleep(4)
        for pid in runners():
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with watched(temporary) as seen:
        outcome = warehouse.materialize(instance)
    killer.join()

    assert "was killed by SIGKILL" in outcome.failure
    assert_private(seen)
    assert list(temporary.iterdir()) == []


def test_after_an_exception_in_the_step_there_is_none(make_warehouse, instance, temporary):
    warehouse = make_warehouse({"s.a": "SELECT 1 AS a", "s.b": "SELECT 2 AS a"})

    @sqlmesh_assets(project=SQLMeshProject(warehouse.path), name="warehouse")
    def breaks(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
        for result in sqlmesh.run(context):
            yield result
            raise ValueError("of the user's own")

    outcome = warehouse.materialize(instance, assets=breaks)

    assert not outcome.success
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name
)
def test_a_runner_by_itself_leaves_none_whatever_ends_it(number, make_warehouse, tmp_path, temporary):
    warehouse = make_warehouse(files=SLOW)
    out = tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen(
        [
            str(warehouse.bin / "sqlmesh-runner"),
            *("run", "prod", "--project", str(warehouse.path), "--grace-period", "0"),
            *(
                "--events",
                str(out / "events.jsonl"),
                "--junit",
                str(out / "junit.xml"),
                "--markdown",
                str(out / "summary.md"),
            ),
        ],
        env=warehouse.environ,
        stderr=subprocess.DEVNULL,
    )
    try:
        events = out / "events.jsonl"
        wait_for(lambda: events.exists() and b"model_started" in events.read_bytes(), seconds=60)
        process.send_signal(number)
        process.wait(timeout=30)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == (-signal.SIGKILL if number is signal.SIGKILL else 130)
    assert list(temporary.iterdir()) == []
    assert leftovers(tmp_path) == []
    assert (out / "junit.xml").exists() == (number is not signal.SIGKILL)


def test_questions_and_reports_leave_none(make_warehouse, tmp_path, temporary):
    warehouse = make_warehouse({"s.ok": "SELECT 1 AS a"})
    done, _ = warehouse.run()
    events = tmp_path / "run.jsonl"
    events.write_text(done.stdout)
    project = ("--project", str(warehouse.path))

    for arguments in (
        ("manifest", *project),
        ("due", "prod", *project),
        ("doctor", "prod", *project),
        ("report", str(events), "--format", "junit", "--output", str(tmp_path / "report.xml")),
    ):
        told = warehouse.runner(*arguments)
        assert told.returncode == 0, told.stderr

    assert list(temporary.iterdir()) == []
    assert leftovers(tmp_path) == []


def test_a_manifest_is_private_until_it_is_whole(tmp_path, monkeypatch):
    golden = load_manifest(Path(__file__).parents[1] / "protocol/golden/manifest-1.json")
    modes = []
    chmod = Path.chmod
    monkeypatch.setattr(
        Path, "chmod", lambda path, mode: (modes.append(stat.S_IMODE(path.stat().st_mode)), chmod(path, mode))
    )

    write_manifest(golden, tmp_path / "sqlmesh_manifest.json")

    assert modes == [0o600]
    assert [path.name for path in tmp_path.iterdir()] == ["sqlmesh_manifest.json"]
