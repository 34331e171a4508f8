"""Every option can be given as a variable; what stands on the command line goes before it."""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from dagster_pipes import encode_param

from sqlmesh_pipes_protocol import RunRequest
from sqlmesh_pipes_runner.cli import main

COMMANDS = sorted(main.commands)
PROGRAM = Path(sys.executable).parent / "sqlmesh-runner"
OPTIONS = [
    (name, option)
    for name, command in main.commands.items()
    for option in command.params
    if isinstance(option, click.Option) and not option.hidden  # hidden ones are Dagster's own arguments
]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SQLMESH_RUNNER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def parsed(monkeypatch):
    """What a command understands."""

    def parse(command, *arguments, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"SQLMESH_RUNNER_{name}", value)
        return main.commands[command].make_context(command, list(arguments)).params

    return parse


@pytest.mark.parametrize(
    ("command", "option"), OPTIONS, ids=[f"{name} {option.opts[0]}" for name, option in OPTIONS]
)
def test_every_option_has_a_variable_that_its_help_names(command, option):
    assert option.envvar.startswith("SQLMESH_RUNNER_")
    assert f"env var: {option.envvar}".replace(" ", "") in "".join(
        CliRunner().invoke(main, [command, "--help"]).output.split()
    )


def test_a_variable_means_the_same_in_every_command():
    meanings = {}
    for _, option in OPTIONS:
        choices = tuple(option.type.choices) if isinstance(option.type, click.Choice) else None
        meanings.setdefault(option.envvar, set()).add((choices, option.is_flag, option.multiple))

    assert {name: found for name, found in meanings.items() if len(found) > 1} == {}
    assert {option.envvar for name, option in OPTIONS if name == "report"} >= {
        "SQLMESH_RUNNER_REPORT_FORMAT",
        "SQLMESH_RUNNER_REPORT_OUTPUT",  # or a report would be written over the manifest
    }


def test_variables_are_read(parsed, tmp_path):
    given = parsed(
        "run",
        PROJECT=f"{tmp_path}{os.pathsep}other",
        ENVIRONMENT="dev",
        GATEWAY="g",
        SELECT_MODEL="s.a\ntag:x & +s.b\n\n",
        IGNORE_CRON="true",
        SKIP_JANITOR="0",
        FAIL_ON="warn-audit skipped-upstream",
        GRACE_PERIOD="2.5",
        CONCURRENT_TASKS="3",
        EVENTS="",
    )

    assert (given["projects"], given["environment"], given["gateway"]) == (
        (tmp_path, Path("other")),
        "dev",
        "g",
    )
    assert given["select_models"] == ("s.a", "tag:x & +s.b")
    assert (given["ignore_cron"], given["skip_janitor"]) == (True, False)
    assert given["fail_on"] == ("warn-audit", "skipped-upstream")
    assert (given["grace_period"], given["concurrent_tasks"]) == (2.5, 3)
    assert given["events"] is None


def test_the_command_line_goes_before_variables(parsed):
    given = parsed(
        "run",
        *("prod", "-p", "here", "--select-model", "s.c", "--fail-on", "nothing", "--events", "-"),
        PROJECT="there",
        ENVIRONMENT="dev",
        SELECT_MODEL="s.a",
        FAIL_ON="warn-audit",
        EVENTS="file",
    )

    assert (given["environment"], given["projects"], given["select_models"]) == (
        "prod",
        (Path("here"),),
        ("s.c",),
    )
    assert (given["fail_on"], given["events"]) == (("nothing",), "-")


def run_nowhere(*arguments, **variables):
    """A run of a project that is not there, which has its lines and no need of SQLMesh."""
    env = {f"SQLMESH_RUNNER_{name}": value for name, value in variables.items()}
    return CliRunner(env=env).invoke(main, ["run", "--project", "/nowhere", *arguments])


@pytest.mark.parametrize(("argument", "variable"), [("--quiet", "VERBOSE"), ("--verbose", "QUIET")])
def test_verbose_or_quiet_on_the_command_line_goes_before_the_other_as_a_variable(argument, variable):
    assert "ERROR in" in run_nowhere(argument, **{variable: "1"}).stderr
    assert "exclude each other" in run_nowhere(VERBOSE="1", QUIET="1").stderr


def test_fail_on_nothing_goes_with_no_other():
    result = run_nowhere("--fail-on", "nothing", "--fail-on", "warn-audit")

    assert result.exit_code == 2
    assert "--fail-on nothing excludes the others." in result.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("IGNORE_CRON", "maybe"),
        ("GRACE_PERIOD", "-1"),
        ("CONCURRENT_TASKS", "none"),
        ("FAIL_ON", "everything"),
    ],
)
def test_a_variable_that_cannot_be_read_is_an_error_of_usage_that_names_it(variable, value):
    result = run_nowhere(**{variable: value})

    assert result.exit_code == 2
    assert f"SQLMESH_RUNNER_{variable}" in result.stderr


def test_variables_for_the_writing_of_a_manifest_do_not_hinder_its_check(warehouse, monkeypatch):
    assert warehouse.invoke("manifest").exit_code == 0
    monkeypatch.setenv("SQLMESH_RUNNER_ENVIRONMENT", "prod")
    monkeypatch.setenv("SQLMESH_RUNNER_NO_COLUMN_LINEAGE", "1")

    assert warehouse.invoke("manifest", "--check").exit_code == 0


def pipes(messages, request):
    context = {
        "asset_keys": None,
        "code_version_by_asset_key": None,
        "provenance_by_asset_key": None,
        "partition_key": None,
        "partition_key_range": None,
        "partition_time_window": None,
        "run_id": "dagster-run",
        "job_name": None,
        "retry_number": 0,
        "extras": request.to_extras(),
    }
    return {
        "DAGSTER_PIPES_CONTEXT": encode_param({"data": context}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(messages)}),
    }


def test_variables_for_runs_by_hand_do_not_disturb_one_of_dagster(slow, gate, tmp_path):
    gate.touch()
    (tmp_path / "messages").touch()
    env = {
        **pipes(tmp_path / "messages", RunRequest(run_id="r-1")),
        "SQLMESH_RUNNER_EVENTS": str(tmp_path / "events.jsonl"),
        "SQLMESH_RUNNER_SELECT_MODEL": "marts.quick",
    }
    done = slow.spawn("run", "prod", env=env)

    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "events.jsonl").exists()
    payloads = [
        message["params"]["payload"]
        for message in map(json.loads, (tmp_path / "messages").read_text().splitlines())
        if message["method"] == "report_custom_message"
    ]
    assert {payload["run_id"] for payload in payloads} == {"r-1"}
    started = next(
        payload for payload in payloads if payload["kind"] == "run_started"
    )  # a heartbeat may come before
    assert (started["models_selected"], payloads[-1]["status"]) == (5, "failed")


def test_events_on_the_command_line_of_a_run_of_dagster_are_refused(slow, tmp_path):
    (tmp_path / "messages").touch()
    done = slow.spawn(
        "run", "prod", "--events", "-", env=pipes(tmp_path / "messages", RunRequest(run_id="r-1"))
    )

    assert done.returncode == 2
    assert "--events does not go with Dagster Pipes" in done.stderr


def test_a_projects_dotenv_is_read_and_another_one_in_its_place(slow, gate, tmp_path):
    gate.touch()
    config = slow.path / "config.yaml"
    config.write_text(config.read_text().replace("RUNNER_TEST_DATABASE", "FROM_DOTENV"))
    (slow.path / ".env").write_text(f"FROM_DOTENV={slow.database}\n")
    shutil.copy(slow.database, tmp_path / "other.duckdb")
    (tmp_path / "other.env").write_text("FROM_DOTENV=/nowhere/at/all.duckdb\n")

    own = slow.spawn("run", "prod", "--select-model", "marts.quick")
    other = slow.spawn("run", "prod", env={"SQLMESH_RUNNER_DOTENV": str(tmp_path / "other.env")})

    assert own.returncode == 0, own.stderr
    assert "1 executed" in own.stderr
    assert other.returncode != 0
    assert "/nowhere/at/all.duckdb" in other.stderr


def test_a_dotenv_that_is_not_there_is_an_error_of_usage():
    result = run_nowhere("--dotenv", "/nowhere/.env")

    assert result.exit_code == 2
    assert "/nowhere/.env" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_examples_that_it_takes_and_exit_statuses(command):
    text = CliRunner().invoke(main, [command, "--help"]).output
    doc = inspect.cleandoc(main.commands[command].help)
    examples = [line.strip() for line in doc.splitlines() if line.strip().startswith("sqlmesh-runner ")]

    assert "Exit status" in text
    assert "Examples:" in text
    assert any(example.split()[1] == command for example in examples)
    for example in examples:
        assert example in text  # in a line of its own
        assert_taken(example)


def test_the_examples_of_the_program_itself_are_taken():
    text = CliRunner().invoke(main, ["--help"]).output
    examples = [
        line.strip().split("   ")[0]
        for line in text.splitlines()
        if line.strip().startswith("sqlmesh-runner ")
    ]

    assert len(examples) >= 5
    for example in examples:
        assert_taken(example)


def assert_taken(line):
    """The command and its options exist; what they name need not."""
    program, name, *arguments = shlex.split(line.partition(">>")[0])
    assert program == "sqlmesh-runner"
    command = main.commands[name]
    paths = {
        option.type: option.type.exists for option in command.params if isinstance(option.type, click.Path)
    }
    for path in paths:
        path.exists = False
    try:
        command.make_context(name, arguments)
    finally:
        for path, exists in paths.items():
            path.exists = exists


def complete(shell, **env):
    return subprocess.run(
        [str(PROGRAM)],
        env={**os.environ, "_SQLMESH_RUNNER_COMPLETE": shell, **env},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_a_completion_script_is_one_of_its_shell(shell, check, tmp_path):
    (tmp_path / "script").write_text(complete(f"{shell}_source"))

    assert "_SQLMESH_RUNNER_COMPLETE" in (tmp_path / "script").read_text()
    if shutil.which(shell):
        subprocess.run([shell, check, str(tmp_path / "script")], check=True, timeout=20)


def test_bash_completes_commands_and_options():
    script = """
    eval "$(_SQLMESH_RUNNER_COMPLETE=bash_source sqlmesh-runner)"
    COMP_WORDS=(sqlmesh-runner re); COMP_CWORD=1; _sqlmesh_runner_completion sqlmesh-runner; echo "${COMPREPLY[@]}"
    COMPREPLY=(); COMP_WORDS=(sqlmesh-runner run --fail-on sk); COMP_CWORD=3; _sqlmesh_runner_completion sqlmesh-runner; echo "${COMPREPLY[@]}"
    """
    path = os.pathsep.join([str(PROGRAM.parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert done.stdout.splitlines() == ["reconcile report", "skipped-upstream"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_the_same(shell):
    answer = complete(
        f"{shell}_complete", COMP_WORDS="sqlmesh-runner re", COMP_CWORD="1" if shell == "zsh" else "re"
    )

    assert "report" in answer
    assert "due" not in answer.split()


def test_the_commands_of_the_documentation_are_taken():
    text = (Path(__file__).parents[2] / "docs/terminal.md").read_text()
    commands = re.findall(r"^(?:\$ |\| `)(sqlmesh-runner .*?)(?:` \|.*)?$", text, re.MULTILINE)

    assert len(commands) >= 9
    for command in commands:
        assert_taken(command)
    for variable in re.findall(r"SQLMESH_RUNNER_[A-Z_]+", text):
        assert variable in {*(option.envvar for _, option in OPTIONS), "SQLMESH_RUNNER_COMPLETE"}
