"""Nothing goes through a shell, and no name becomes an option or a command."""

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

import dagster_sqlmesh_pipes
import sqlmesh_pipes_protocol
from dagster_sqlmesh_pipes import DockerLauncher, SQLMeshProject, SQLMeshResource, SubprocessLauncher
from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers import RunnerCall, answer
from dagster_sqlmesh_pipes.resource import SQLMeshRunConfig
from sqlmesh_pipes_protocol.codec import Envelope, encode, from_wire
from sqlmesh_pipes_protocol.errors import DecodeError
from sqlmesh_pipes_protocol.events import Heartbeat

ROOT = Path(__file__).parents[2]
SOURCES = [
    *Path(dagster_sqlmesh_pipes.__file__).parent.rglob("*.py"),
    *Path(sqlmesh_pipes_protocol.__file__).parent.rglob("*.py"),
    *(ROOT / "runner/sqlmesh_pipes_runner").rglob("*.py"),
]
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen", "os.execl", "os.execlp", "os.spawnl", "os.posix_spawn", "pty.spawn"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "ssl._create_unverified_context"),
    *("xml.sax.parse", "Xml.parse", "Xml.fromstring", "Xml.XML"),
}
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "commands", "telnetlib", "ftplib"}
HOSTILE = [
    "; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "prod && touch pwned",
    "prod\ntouch pwned",
    "prod | tee pwned",
    "'\"; touch pwned #",
    "--help",
    "-h",
    "--version",
    "--events=pwned",
    "--junit=pwned",
    "--",
    "-",
    "",
    "é 😀",
    "../../pwned",
]


def name_of(node: ast.expr) -> str:
    """A dotted name; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = name_of(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def offences(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = name_of(node.func)
            if name in FORBIDDEN_CALLS:
                found.append(name)
            for keyword in node.keywords:
                given = keyword.value.value if isinstance(keyword.value, ast.Constant) else "computed"
                if keyword.arg == "shell" and given is not False:
                    found.append("shell=")
                if keyword.arg in ("verify", "check_hostname") and given is False:
                    found.append(f"{keyword.arg}=False")
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            found.append(str(node.module))
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("subprocess.run('x', shell=True)", ["shell="]),
        ("subprocess.run('x', shell=flag)", ["shell="]),
        ("subprocess.run(['x'], shell=False)", []),
        ("os.system('x')", ["os.system"]),
        ("eval('x')", ["eval"]),
        ("re.compile('x'); pattern.eval()", []),
        ("import pickle", ["pickle"]),
        ("from pickle import loads", ["pickle"]),
        ("requests.get(u, verify=False)", ["verify=False"]),
        ("yaml.load(text)", ["yaml.load"]),
        ("tempfile.mktemp()", ["tempfile.mktemp"]),
    ],
)
def test_the_search_finds_what_it_looks_for(source, expected):
    assert offences(source) == expected


def test_no_package_of_ours_uses_a_shell_or_unpickles_or_evaluates_text():
    assert len(SOURCES) > 90
    found = {path.name: found for path in SOURCES if (found := offences(path.read_text()))}

    # Readers of events, which are written from our own declarations, as dataclasses write theirs.
    assert found == {"compiled.py": ["exec", "compile"]}


def test_nothing_that_is_read_is_compiled():
    compiled = []
    is_watching = True

    def watch(event, arguments):
        if is_watching and event in ("compile", "exec"):
            compiled.append(arguments)

    told = Envelope(run_id="run", seq=0, at="2026-01-01T00:00:00Z", event=Heartbeat(models=()))
    value = orjson.loads(encode(told))
    assert from_wire(value) == told  # its reader is there
    hostile = "__import__('os').abort()"
    sys.addaudithook(watch)
    try:
        compile("'a sign that it is seen'", "sign", "eval")
        for odd in (
            {**value, "kind": hostile},
            {**value, hostile: hostile},
            {**value, "models": [{"model": hostile, "elapsed_ms": 1, hostile: 1}]},
        ):
            from_wire(odd)
        with pytest.raises(DecodeError):
            from_wire({**value, "models": hostile})
    finally:
        is_watching = False

    assert "a sign that it is seen" in repr(compiled)
    assert "abort" not in repr(compiled)


# What a launcher starts


@pytest.fixture
def recorder(tmp_path):
    """A command that writes down what it was called with, as JSON."""
    path = tmp_path / "bin/recorder"
    path.parent.mkdir()
    path.write_text("#!/usr/bin/env python3\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    path.chmod(0o755)
    return SubprocessLauncher(command=[str(path)])


@pytest.mark.parametrize("name", HOSTILE)
def test_each_name_arrives_as_the_one_argument_that_it_is(name, recorder, tmp_path):
    call = RunnerCall(arguments=["run", name, "--gateway", name], env={}, project_dir=tmp_path)

    assert json.loads(answer(recorder, call, 30)) == ["run", name, "--gateway", name]
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_container_is_given_a_list_and_no_line(name, tmp_path):
    created = []

    class Containers:
        def create(self, image, **settings):
            created.append(settings)
            raise RuntimeError("enough")

    class Client:
        containers = Containers()

        def close(self): ...

    class Recording(DockerLauncher):
        def _client(self):
            return Client()

    call = RunnerCall(arguments=["run", name], env={"A": name}, project_dir=tmp_path)
    with pytest.raises(Exception, match="enough"):
        Recording(image="i").launch(call)

    assert created[0]["command"] == ["sqlmesh-runner", "run", name]
    assert created[0]["environment"] == {"A": name}


def test_the_command_that_an_error_advises_is_quoted_for_a_shell(tmp_path):
    from sqlmesh_pipes_protocol.manifest import load_manifest

    folder = tmp_path / "a; touch pwned"
    folder.mkdir()
    with pytest.raises(Exception, match="Write it with") as caught:
        load_manifest(folder / "sqlmesh_manifest.json", gateway="$(touch pwned)")

    words = shlex.split(str(caught.value).partition("Write it with: ")[2])
    assert words == ["sqlmesh-runner", "manifest", "--project", str(folder), "--gateway", "$(touch pwned)"]


# What the real command line makes of it


def arguments_of(project, **settings):
    resource = SQLMeshResource(SQLMeshProject(project, launcher=SubprocessLauncher(), **settings))
    return resource._arguments(SQLMeshRunConfig()), resource.due_arguments()


PARSE = """
import json, sys
import click
from sqlmesh_pipes_runner.cli import main

for arguments in json.load(sys.stdin):
    command = main.commands[arguments[0]]
    try:
        context = command.make_context(arguments[0], arguments[1:], resilient_parsing=False)
        told = {name: str(value) for name, value in context.params.items()}
    except click.exceptions.Exit:
        told = {}
    except click.ClickException as error:
        told = {"error": error.format_message()}
    print("told " + json.dumps(told))
"""


def understood(runner_bin, calls):
    """What the runner's own command line makes of arguments."""
    done = subprocess.run(
        [str(runner_bin / "python"), "-c", PARSE],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("told ")]


def calls_for(names, tmp_path):
    return [call for name in names for call in arguments_of(tmp_path, environment=name)]


def test_an_environment_with_the_words_of_a_shell_is_a_name(runner_bin, tmp_path):
    names = [name for name in HOSTILE if name and not name.startswith("-")]

    told = understood(runner_bin, calls_for(names, tmp_path))

    assert [one.get("environment") for one in told] == [name for name in names for _ in ("run", "due")]


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.startswith("-")])
def test_an_environment_that_looks_like_an_option_is_refused(tmp_path, name):
    with pytest.raises(LaunchError, match="the runner would take it for an option"):
        arguments_of(tmp_path, environment=name)


def test_a_gateway_a_config_and_a_time_that_look_like_options_are_values(runner_bin):
    names = {
        "gateway": "gateway",
        "config": "config",
        "start": "start",
        "end": "end",
        "execution-time": "execution_time",
    }
    calls = [["run", "prod", f"--{name}", value] for name in names for value in ("--help", "-x", "--", "; x")]

    told = understood(runner_bin, calls)

    assert [one.get(names[call[2][2:]]) for one, call in zip(told, calls, strict=True)] == [
        call[3] for call in calls
    ]
    assert {one["environment"] for one in told} == {"prod"}


def test_a_project_directory_that_begins_with_a_dash_is_one(make_warehouse, tmp_path):
    warehouse = make_warehouse({"s.ok": "SELECT 1 AS a"})
    odd = warehouse.path.parent / "--help; touch pwned"
    warehouse.path.rename(odd)

    absolute = warehouse.runner("due", "prod", "--project", str(odd))
    relative = warehouse.runner("due", "prod", "--project", odd.name)

    assert absolute.returncode == 0, absolute.stderr
    assert relative.returncode == 0, relative.stderr
    assert '"db"."s"."ok"' in absolute.stdout
    assert not (tmp_path / "pwned").exists()


def test_a_file_of_events_that_begins_with_a_dash_is_one(make_warehouse, tmp_path):
    warehouse = make_warehouse({"s.ok": "SELECT 1 AS a"})

    done = warehouse.runner(
        "run", "prod", "--project", str(warehouse.path), "--events", "--help", "--junit", "-x"
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "--help").exists()
    assert (tmp_path / "-x").exists()


def test_a_model_with_quotes_and_line_breaks_in_its_name_runs_and_reports(make_warehouse, instance, tmp_path):
    warehouse = make_warehouse(
        files={
            "models/odd.sql": """MODEL (name s."a'b; $(touch pwned) --help", kind FULL);\nSELECT 1 AS x""",
            "models/plain.sql": "MODEL (name s.plain, kind FULL);\nSELECT 1 AS x",
        }
    )
    assets = warehouse.assets()
    (key,) = [key for key in assets.keys if "touch" in key.path[-1]]

    outcome = warehouse.materialize(instance, assets=assets, selection=[key])

    assert outcome.success, outcome.failure
    assert len(outcome.materialized) == 1
    assert not list(tmp_path.rglob("pwned*"))
