"""Reports of real runs, however they end: the same while the run goes on as later from its events."""

import json
import signal
import subprocess
import time

import junitparser
import pytest
from click.testing import CliRunner

from runner.conftest import CONFIG
from sqlmesh_pipes_runner.cli import main

SECRET = "planted-s3cret"


@pytest.fixture
def files(tmp_path):
    return {name: tmp_path / name for name in ("events.jsonl", "junit.xml", "summary.md")}


@pytest.fixture
def asked_for(files):
    return [
        *("--events", str(files["events.jsonl"])),
        *("--junit", str(files["junit.xml"]), "--markdown", str(files["summary.md"]), "--github"),
    ]


@pytest.fixture
def in_flight(slow, gate, files, asked_for):
    """A run in a process of its own, with a model in flight that takes until the gate is opened."""
    processes = []

    def start(*arguments):
        process = slow.start("run", "prod", *asked_for, *arguments, stderr=subprocess.PIPE)
        processes.append(process)
        deadline = time.monotonic() + 40
        while b'"kind":"batch_finished"' not in (
            files["events.jsonl"].read_bytes() if files["events.jsonl"].exists() else b""
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def cases(path):
    (suite,) = junitparser.JUnitXml.fromfile(str(path))
    return {
        case.name: case.result[0] if case.result else None
        for case in suite
        if case.classname in ("db.marts", "sqlmesh")
    }


def report(files, *arguments):
    return CliRunner().invoke(main, ["report", str(files["events.jsonl"]), *arguments])


def test_a_run_that_fails_has_its_reports(slow, gate, files, asked_for):
    gate.touch()
    done = slow.spawn("run", "prod", *asked_for, env={"GITHUB_WORKSPACE": str(slow.path.parent)})

    assert done.returncode == 1
    found = cases(files["junit.xml"])
    assert {name: type(result).__name__ for name, result in found.items()} == {
        "broken": "Failure",
        "quick": "NoneType",
        "slow": "NoneType",
        "held": "NoneType",
        "below": "Skipped",
    }
    assert found["broken"].message.startswith("Conversion Error: Could not convert string 'x' to INT32")
    assert "❌ SQLMesh prod: FAILED in" in files["summary.md"].read_text()
    said = [line for line in done.stderr.splitlines() if line.startswith("::")]
    assert said[0].startswith(
        "::error file=project/models/broken.sql,line=1,title=db.marts.broken failed::Conversion Error"
    )
    assert said[1].startswith(
        "::warning file=project/models/quick.sql,line=1,title=Audit of db.marts.quick::"
    )
    assert said[2].startswith(
        "::warning file=project/models/below.sql,line=1,title=db.marts.below was skipped::"
    )
    for name, form in (("junit.xml", "junit"), ("summary.md", "markdown")):
        later = report(files, "--format", form)
        assert later.stdout == files[name].read_text()


def test_annotations_find_the_files_by_the_manifest(slow, gate, asked_for, monkeypatch):
    """Also of a model whose name does not stand in it."""
    gate.touch()
    monkeypatch.setenv("GITHUB_WORKSPACE", str(slow.path))
    (slow.path / "models/broken.sql").rename(slow.path / "models/elsewhere.sql")
    assert slow.invoke("manifest").exit_code == 0
    model = slow.path / "models/elsewhere.sql"
    model.write_text(model.read_text().replace("marts.broken", "@schema.broken"))
    result = slow.invoke("run", "prod", *asked_for)

    assert "::error file=models/elsewhere.sql,line=1,title=db.marts.broken failed::" in result.stderr


def test_a_run_that_never_began_has_reports_with_the_environment_that_was_asked_for(
    slow, gate, files, asked_for
):
    result = slow.invoke("run", "nowhere", *asked_for)

    assert result.exit_code == 2
    found = cases(files["junit.xml"])
    assert "There is no environment 'nowhere'" in found["run"].message
    assert type(found["run"]).__name__ == "Error"
    assert files["summary.md"].read_text().startswith("### ❌ SQLMesh nowhere: ERROR in")
    assert "::error title=SQLMesh nowhere::There is no environment 'nowhere'" in result.stderr


def test_markdown_is_added_to_and_junit_takes_the_place_of_the_last(slow, gate, files, asked_for):
    for name in ("junit.xml", "summary.md"):
        files[name].write_text("before\n")
    slow.invoke("run", "nowhere", *asked_for)

    assert files["summary.md"].read_text().startswith("before\n### ❌")
    assert files["junit.xml"].read_text().startswith("<?xml")


@pytest.mark.parametrize(("grace", "of_slow"), [("60", None), ("0", "Error")])
def test_a_run_that_is_stopped_has_whole_reports(in_flight, gate, files, grace, of_slow):
    process = in_flight("--grace-period", grace)
    process.send_signal(signal.SIGTERM)
    if of_slow is None:
        gate.touch()
    _, said = process.communicate(timeout=40)

    assert process.returncode == 130
    found = cases(files["junit.xml"])
    assert type(found["slow"]).__name__ == (of_slow or "NoneType")
    assert found["held"].message == "The run was stopped (SIGTERM) before the model ran."
    assert files["summary.md"].read_text().startswith("### ⚠️ SQLMesh prod: INTERRUPTED in")
    assert b"title=db.marts.held was skipped::The run was stopped (SIGTERM)" in said
    last = json.loads(files["events.jsonl"].read_bytes().splitlines()[-1])
    assert (last["kind"], last["exit_code"]) == ("run_finished", 130)


def test_a_run_that_is_killed_leaves_whole_lines_from_which_it_is_told(in_flight, files):
    process = in_flight()
    process.kill()
    process.communicate(timeout=20)

    assert not files["junit.xml"].exists()
    lines = files["events.jsonl"].read_bytes().split(b"\n")
    assert lines[-1] == b""
    assert [json.loads(line)["seq"] for line in lines[:-1]] == list(range(len(lines) - 1))
    result = report(files, "--format", "junit", "-o", str(files["junit.xml"]))
    assert result.exit_code == 0
    found = cases(files["junit.xml"])
    assert "the runner died" in found["run"].message
    assert found["slow"].message == "It had started when the runner died."
    assert found["quick"] is None
    assert "DIED: 1 executed" in report(files).stdout


def test_no_secret_stands_in_a_report(make_warehouse, files, asked_for):
    config = CONFIG.replace(
        "default_gateway: local",
        f"""\
  other:
    connection:
      type: postgres
      host: 127.0.0.1
      port: 1
      user: nobody
      password: {SECRET}
      database: nothing
default_gateway: local""",
    )
    warehouse = make_warehouse(
        {
            "models/leak.sql": f"MODEL (name s.leak, kind FULL); SELECT CAST('{SECRET}' AS INT) AS n",
            "models/leaks.sql": f"""
            MODEL (name s.leaks, kind FULL, audits (accepted_values(column := a, is_in := ('{SECRET}'), blocking := false)));
            SELECT 'x' AS a
            """,
        },
        config=config,
    )
    result = warehouse.invoke("run", "prod", *asked_for, "--verbose")

    assert result.exit_code == 1
    everything = [result.output, *(path.read_text() for path in files.values())]
    for text in everything:
        assert SECRET not in text
        assert "***" in text
