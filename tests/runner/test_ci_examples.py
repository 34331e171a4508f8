"""The examples for CI are what GitHub, GitLab and cron take, and what they run is what the runner has."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from croniter import croniter
from ruamel.yaml import YAML

from sqlmesh_pipes_runner.cli import main

CI = Path(__file__).parents[2] / "examples/ci"
BIN = Path(sys.executable).parent
GITHUB = YAML(typ="safe").load(CI / "github-workflow.yml")
GITLAB = YAML(typ="safe").load(CI / "gitlab-ci.yml")
CRON = [line for line in (CI / "crontab").read_text().splitlines() if not line.startswith("#")]


def scripts():
    """All shell of the examples, by where it stands."""
    found = {
        f"github: {step.get('name', step['run'])}": step["run"]
        for job in GITHUB["jobs"].values()
        for step in job["steps"]
        if "run" in step
    }
    for name, job in GITLAB.items():
        if name in ("default", "variables"):
            job = {"script": job.get("before_script", [])}
        found[f"gitlab: {name}"] = "\n".join(job.get("script", []))
    found["cron"] = CRON[-1].split(maxsplit=6)[6]
    return found


SCRIPTS = scripts()


@pytest.mark.parametrize(
    ("schema", "name"),
    [("vendor.github-workflows", "github-workflow.yml"), ("vendor.gitlab-ci", "gitlab-ci.yml")],
)
def test_an_example_is_what_its_schema_allows(schema, name):
    done = subprocess.run(
        [str(BIN / "check-jsonschema"), "--builtin-schema", schema, str(CI / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schedules_are_crons():
    minute_hour = CRON[-1].split(maxsplit=5)[:5]

    assert croniter.is_valid(" ".join(minute_hour))
    assert croniter.is_valid(GITHUB["on"]["schedule"][0]["cron"])
    assert re.fullmatch(
        r"[a-z_][a-z0-9_-]*", CRON[-1].split(maxsplit=6)[5]
    )  # whose crontab of /etc/cron.d names
    assert "%" not in CRON[-1]  # cron reads it as the end of a line
    assert CRON[0].startswith("MAILTO=")


@pytest.mark.parametrize("place", SCRIPTS)
def test_the_shell_is_shell(place):
    subprocess.run(["bash", "-n", "-c", SCRIPTS[place]], check=True, timeout=20)


def uses():
    for place, script in SCRIPTS.items():
        plain = (
            re.sub(r"\$\{SELECT:\+(.*?)\}", r"\1", script.replace("'", " "))
            if place != "cron"
            else script.replace("'", " ")
        )
        for match in re.finditer(r"sqlmesh-runner ([^|&;\n]*)", plain):
            yield place, match[1].split("2>")[0].strip()


USES = list(uses())


@pytest.mark.parametrize(
    ("place", "arguments"), USES, ids=[f"{place} {arguments.split()[0]}" for place, arguments in USES]
)
def test_every_command_and_option_of_the_runner_exists(place, arguments):
    name, *rest = shlex.split(arguments)

    context = main.commands[name].make_context(name, rest)
    assert context.params.get("environment") in (None, "prod")


def test_the_examples_use_the_runner_for_what_a_ci_needs():
    used = {arguments.split()[0] for _, arguments in USES}
    options = {
        option for _, arguments in USES for option in shlex.split(arguments) if option.startswith("--")
    }

    assert used == {"doctor", "run", "manifest"}
    assert options >= {
        "--events",
        "--junit",
        "--markdown",
        "--github",
        "--select-model",
        "--quiet",
        "--check",
    }


def variables():
    return {name for source in (GITHUB["jobs"]["run"]["env"], GITLAB["variables"]) for name in source}


def test_every_variable_of_the_runner_is_that_of_an_option():
    known = {
        option.envvar
        for command in main.commands.values()
        for option in command.params
        if isinstance(option, (click.Option, click.Argument))
    }

    assert {name for name in variables() if name.startswith("SQLMESH_RUNNER_")} <= known


def shell(script, slow, **env):
    """A step as CI runs it: with the runner on the PATH, the project in `warehouse/`, and stop at the first error."""
    (slow.path.parent / "warehouse").symlink_to(slow.path)
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        env={
            **os.environ,
            "CI": "true",
            "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
            "RUNNER_TEST_DATABASE": str(slow.database),
            "SQLMESH_RUNNER_PROJECT": "warehouse",
            **env,
        },
        cwd=slow.path.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def step(name):
    return SCRIPTS[f"github: {name}"]


@pytest.mark.parametrize(
    ("select", "status", "executed"), [("", 1, 3), ("marts.quick", 0, 1)], ids=["all", "a selection"]
)
def test_the_steps_of_github_run(slow, gate, tmp_path, select, status, executed):
    gate.touch()
    summary = tmp_path / "summary.md"
    done = shell(
        step("Run what is due"),
        slow,
        SELECT=select,
        GITHUB_STEP_SUMMARY=str(summary),
        GITHUB_WORKSPACE=str(tmp_path),
    )

    assert done.returncode == status, done.stdout + done.stderr
    assert f"{executed} executed" in summary.read_text()
    assert (tmp_path / "junit.xml").exists()
    assert (tmp_path / "events.jsonl").exists()
    assert ("::error file=warehouse/models/broken.sql,line=1" in done.stderr) == bool(status)


def test_the_jobs_of_gitlab_run(slow, gate, tmp_path):
    gate.touch()
    done = shell(SCRIPTS["gitlab: warehouse"], slow)

    assert done.returncode == 1, done.stdout + done.stderr
    assert step("Is everything in place?") in SCRIPTS["gitlab: warehouse"].splitlines()
    assert set(GITLAB["warehouse"]["artifacts"]["paths"]) == {"events.jsonl"}
    for name in ("events.jsonl", GITLAB["warehouse"]["artifacts"]["reports"]["junit"]):
        assert (tmp_path / name).exists()
    assert GITLAB["warehouse"]["retry"]["exit_codes"] == 3


def test_the_line_of_cron_says_something_only_if_a_run_failed_and_lets_one_run_at_a_time(
    slow, gate, tmp_path
):
    gate.touch()
    script = CRON[-1].split(maxsplit=6)[6]
    for path, here in {
        "/run/lock": tmp_path,
        "/srv/warehouse": slow.path,
        "/var/log/sqlmesh": tmp_path,
    }.items():
        assert path in script
        script = script.replace(path, str(here))
    done = shell(script, slow)

    assert done.returncode == 0  # of `cat`
    assert 'failed  "db"."marts"."broken"' in done.stdout
    first = (tmp_path / "events.jsonl").read_bytes()
    with (tmp_path / "warehouse-prod").open("w") as lock:
        hold = subprocess.Popen(["flock", str(tmp_path / "warehouse-prod"), "sleep", "60"], stdout=lock)
        try:
            (tmp_path / "warehouse").unlink()
            held = shell(
                f"until ! flock -n {tmp_path}/warehouse-prod true; do sleep 0.05; done; {script}", slow
            )
        finally:
            hold.kill()
            hold.wait()
    assert (held.returncode, held.stdout) == (0, "")
    assert (tmp_path / "events.jsonl").read_bytes() == first
