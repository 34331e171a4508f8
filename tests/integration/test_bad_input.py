"""Bad input gets one clear sentence and the right exit status, from the runner and as Dagster's failure."""

import stat
import sys
import textwrap

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import ManifestError, SQLMeshProject, SubprocessLauncher, sqlmesh_assets


@pytest.fixture
def warehouse(make_warehouse):
    return make_warehouse({"staging.one": "SELECT 1 AS a"})


def case(warehouse, name: str) -> tuple[list[str], str]:
    """Arguments of `sqlmesh-runner run`, and the sentence expected."""
    path = warehouse.path
    empty = path.parent / "empty"
    empty.mkdir(exist_ok=True)
    return {
        "no such directory": (
            ["prod", "--project", f"{path}-gone"],
            f"There is no directory {path}-gone: give the SQLMesh project with --project DIR.",
        ),
        "not a SQLMesh project": (
            ["prod", "--project", str(empty)],
            f"{empty} is not a SQLMesh project: there is none of config.py, config.yaml",
        ),
        "environment never planned": (
            ["staging", "--project", str(path)],
            "There is no environment 'staging' in the state of gateway 'local' (it has prod): "
            "create it with `sqlmesh plan staging`.",
        ),
        "unknown gateway": (
            ["prod", "--project", str(path), "--gateway", "elsewhere"],
            f"There is no gateway 'elsewhere' in the project {path}; it has 'local'.",
        ),
        "unknown model": (
            ["prod", "--project", str(path), "--select-model", "staging.on"],
            "There is no model 'staging.on' in the environment. Did you mean 'staging.one'?",
        ),
        "selection of nothing": (
            ["prod", "--project", str(path), "--select-model", "tag:none"],
            "No model in the environment matches the selection tag:none.",
        ),
        "bad time": (["prod", "--project", str(path), "--start", "someday"], "someday"),
    }[name]


CASES = [
    "no such directory",
    "not a SQLMesh project",
    "environment never planned",
    "unknown gateway",
    "unknown model",
    "selection of nothing",
    "bad time",
]


@pytest.mark.parametrize("name", CASES)
def test_the_runner_says_what_is_wrong_and_exits_with_2(warehouse, name):
    arguments, sentence = case(warehouse, name)

    done = warehouse.runner("run", *arguments, "--quiet")

    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["no such directory", "not a SQLMesh project", "unknown gateway"])
def test_the_manifest_command_says_what_is_wrong_and_exits_with_2(warehouse, name):
    arguments, sentence = case(warehouse, name)

    done = warehouse.runner("manifest", *arguments[1:])

    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"project_dirs": ["/nowhere/at/all"]}, "The runner cannot be started in /nowhere/at/all"),
        ({"environment": "staging"}, "There is no environment 'staging' in the state of gateway 'local'"),
        ({"gateway": "elsewhere"}, "There is no gateway 'elsewhere' in the project"),
    ],
)
def test_dagster_fails_with_the_same_sentence(warehouse, instance, settings, sentence):
    outcome = warehouse.materialize(instance, **settings)

    assert not outcome.success
    assert sentence in outcome.failure
    assert outcome.materialized == {}
    assert outcome.checks == {}


def test_a_project_that_is_none_fails_in_dagster(warehouse, instance, tmp_path):
    (tmp_path / "empty").mkdir()

    outcome = warehouse.materialize(instance, project_dirs=[str(tmp_path / "empty")])

    assert "empty is not a SQLMesh project" in outcome.failure


def test_a_runner_command_that_does_not_exist_fails_with_what_to_do(warehouse, instance):
    launcher = SubprocessLauncher(command=["/opt/none/bin/sqlmesh-runner"])

    outcome = warehouse.materialize(instance, launcher=launcher)

    assert "The runner command '/opt/none/bin/sqlmesh-runner' was not found." in outcome.failure
    assert "SubprocessLauncher(command=" in outcome.failure


def test_a_python_without_the_runner_fails_with_its_last_words(warehouse, instance):
    outcome = warehouse.materialize(instance, launcher=SubprocessLauncher(python="/usr/bin/python3"))

    assert "exited with status 1 before it reported anything" in outcome.failure
    assert "No module named sqlmesh_pipes_runner" in outcome.failure


def test_command_and_python_together_are_refused(warehouse, instance):
    launcher = warehouse.launcher(python=sys.executable)

    outcome = warehouse.materialize(instance, launcher=launcher)

    assert "takes a command or a python, and was given both" in outcome.failure


def test_a_runner_of_another_protocol_major_is_refused_with_both_versions(warehouse, instance, tmp_path):
    # A runner from the future: opens Pipes as the real one does, then speaks protocol 2.
    script = tmp_path / "runner"
    script.write_text(
        f"#!{warehouse.bin / 'python'}\n"
        + textwrap.dedent(
            """\
            import time
            from dagster_pipes import open_dagster_pipes
            with open_dagster_pipes() as pipes:
                run_id = pipes.extras["sqlmesh_pipes"]["run_id"]
                pipes.report_custom_message({"kind": "run_started", "v": "2.0", "run_id": run_id, "seq": 0})
                print(end="", flush=True)
                time.sleep(60)
            """
        )
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)

    outcome = warehouse.materialize(instance, launcher=warehouse.launcher(command=[str(script)]))

    assert not outcome.success
    assert "speaks protocol 2.0, this side speaks 1.0" in outcome.failure


def test_an_orchestrator_of_another_protocol_major_is_refused_by_the_runner(warehouse, instance, monkeypatch):
    monkeypatch.setattr("sqlmesh_pipes_protocol.request.RunRequest.to_extras", _extras_of_version_2)

    outcome = warehouse.materialize(instance)

    assert not outcome.success
    assert outcome.failure.partition("Failure: ")[2].startswith(
        "the orchestrator speaks protocol 2.0, this side speaks 1.0"
    )


def _extras_of_version_2(request):
    return {"sqlmesh_pipes": {"run_id": request.run_id, "v": "2.0"}}


def test_a_manifest_that_is_missing_says_how_to_write_it(tmp_path):
    with pytest.raises(ManifestError) as caught:
        sqlmesh_assets(project=SQLMeshProject(tmp_path))

    assert str(caught.value) == (
        f"There is no SQLMesh manifest at {tmp_path / 'sqlmesh_manifest.json'}. "
        f"Write it with: sqlmesh-runner manifest --project {tmp_path}"
    )


def test_a_warehouse_that_another_process_holds_is_transient(warehouse, instance):
    import subprocess

    holder = subprocess.Popen(
        [
            str(warehouse.bin / "python"),
            "-c",
            "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()",
            str(warehouse.database),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        done = warehouse.runner("run", "prod", "--project", str(warehouse.path))
        outcome = warehouse.materialize(
            instance, assets=warehouse.assets(retry_policy=dg.RetryPolicy(max_retries=1))
        )
    finally:
        holder.communicate(timeout=30)

    assert done.returncode == 3, done.stderr
    assert "lock" in done.stderr.lower()
    assert not outcome.success
    assert outcome.retried == 1
