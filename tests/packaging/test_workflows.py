"""The workflows and forms in .github are what GitHub takes, and call what there is."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from support.distributions import BIN, ROOT, succeed

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [path for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"]
SCHEMAS = {
    **dict.fromkeys(WORKFLOWS, "github-workflows"),
    **dict.fromkeys(FORMS, "github-issue-forms"),
    GITHUB / "ISSUE_TEMPLATE/config.yml": "github-issue-config",
    GITHUB / "dependabot.yml": "dependabot",
}


def name(path):
    return path.name


def load(path):
    # YAML 1.1 takes `on` for true.
    return {"on" if key is True else key: value for key, value in yaml.safe_load(path.read_text()).items()}


def jobs(path):
    return load(path)["jobs"].items()


def steps():
    return [
        pytest.param(path, step, id=f"{path.stem}-{job}-{number}")
        for path in WORKFLOWS
        for job, content in jobs(path)
        for number, step in enumerate(content["steps"])
    ]


STEPS = steps()
SCRIPTS = [each for each in STEPS if "run" in each.values[1]]


@pytest.mark.parametrize("path", SCHEMAS, ids=name)
def test_each_file_is_what_its_schema_allows(path):
    succeed([BIN / "check-jsonschema", "--builtin-schema", f"vendor.{SCHEMAS[path]}", path])


def test_every_file_of_github_is_checked():
    found = {path for path in GITHUB.rglob("*") if path.suffix in (".yml", ".yaml")}

    assert found == set(SCHEMAS)


@pytest.mark.parametrize(("path", "step"), SCRIPTS)
def test_the_shell_is_shell(path, step):
    # What GitHub puts in place of ${{ }} goes by variables: it may come from whoever opens a pull request.
    assert "${{" not in step["run"]
    subprocess.run(["bash", "-n", "-c", step["run"]], check=True, timeout=20)


@pytest.mark.parametrize(("path", "step"), SCRIPTS)
def test_every_target_and_file_that_a_step_names_exists(path, step):
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for called in re.findall(r"\bmake ([a-z0-9-]+)", step["run"]):
        assert called in targets
    for named in re.findall(r"\b(?:tests|docker|examples|docs)/\S+", step["run"]):
        assert (ROOT / named).exists()


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_the_paths_that_start_a_workflow_exist(path):
    for event in load(path)["on"].values():
        for pattern in event.get("paths", ()) if isinstance(event, dict) else ():
            assert (ROOT / pattern.removesuffix("/**")).exists(), pattern


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_a_workflow_may_read_and_no_more_has_an_end_and_does_not_pile_up(path):
    workflow = load(path)

    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] < 360  # what GitHub gives it by default
        assert job.get("permissions", {}).keys() <= {"id-token"}
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_what_publishes_does_that_alone_for_tags_in_an_environment_of_its_own():
    release = load(GITHUB / "workflows/release.yml")
    may = {
        job
        for path in WORKFLOWS
        for job, content in jobs(path)
        if "id-token" in content.get("permissions", {})
    }

    assert release["on"] == {"push": {"tags": ["v*"]}}
    assert may == {"publish"}
    publish = release["jobs"]["publish"]
    assert publish["needs"] == "build"
    assert publish["environment"] == "release"
    assert [step["uses"].partition("@")[0] for step in publish["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]
    built = [step.get("run") for step in release["jobs"]["build"]["steps"] if "run" in step]
    assert built.index("make release-check") < built.index("make dist") < len(built) - 1


def test_every_python_that_the_package_names_is_tested():
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())

    assert load(GITHUB / "workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == named


def test_one_version_of_each_action_is_used():
    used: dict[str, set[str]] = {}
    for path in [*WORKFLOWS, ROOT / "examples/ci/github-workflow.yml"]:
        for action, version in re.findall(r"uses: ([^@\s]+)@(\S+)", Path(path).read_text()):
            used.setdefault(action, set()).add(version)

    assert {action: versions for action, versions in used.items() if len(versions) > 1} == {}
