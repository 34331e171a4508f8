"""The wheel in new environments, with each extra: it does what the extra is for, and says in a sentence what is not there."""

import json
import os

import pytest

from support.distributions import BIN, PACKAGES, ROOT, run, succeed

# They share environments, and a project. The first time, packages are downloaded.
pytestmark = [pytest.mark.xdist_group("installs"), pytest.mark.timeout(900)]

IMPORT_ALL = """
import importlib, pkgutil
def names(package):
    yield package
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not found.name.endswith(".__main__"):
            yield found.name
for name in names({package!r}):
    importlib.import_module(name)
    print(name)
"""

PROJECT = {
    "config.yaml": """
gateways:
  local:
    connection: {type: duckdb, database: warehouse.duckdb}
model_defaults: {dialect: duckdb, start: 2026-01-01}
""",
    "models/numbers.sql": """
MODEL (name staging.numbers, kind FULL, audits (not_null(columns := (a))));
SELECT 1 AS a
""",
    "models/sums.sql": """
MODEL (name marts.sums, kind FULL);
SELECT sum(a) AS total FROM staging.numbers
""",
}

MATERIALIZE = """
import sys
import dagster as dg
from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, SubprocessLauncher, sqlmesh_assets

project = SQLMeshProject(sys.argv[1], environment="prod", launcher=SubprocessLauncher(command=[sys.argv[2]]))

@sqlmesh_assets(project=project)
def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
    yield from sqlmesh.run(context)

result = dg.materialize([warehouse], resources={"sqlmesh": SQLMeshResource(project)})
for event in result.get_asset_materialization_events():
    print("materialized", *event.asset_key.path)
for check in result.get_asset_check_evaluations():
    print("passed" if check.passed else "not passed", *check.asset_key.path, check.check_name)
"""

LAUNCH = """
from pathlib import Path
from dagster_sqlmesh_pipes import DockerLauncher, KubernetesLauncher, LaunchError, RunnerCall
for launcher in (
    DockerLauncher(image="none", docker_host="tcp://127.0.0.1:1"),
    KubernetesLauncher(image="none", kubeconfig_file="/nowhere"),
):
    try:
        launcher.launch(RunnerCall(arguments=(), env={}, project_dir=Path("/"), name="none", tell=print))
    except LaunchError as error:
        print(type(launcher).__name__, str(error).splitlines()[0], sep=": ")
"""

DEFINITIONS = """
from pathlib import Path
import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


def modules(package):
    """Of a package in the tree."""
    paths = [
        path.relative_to(PACKAGES[package]).with_suffix("")
        for path in (PACKAGES[package] / package).rglob("*.py")
    ]
    return {".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__"}


def importable(environment, package):
    """Modules of a package that can be imported: one that cannot ends the test."""
    done = environment.python(IMPORT_ALL.format(package=package))
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def write(project):
    for name, text in PROJECT.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)


def deploy(environment, project):
    """Write a project, plan it and leave the work to a run, and write its manifest; returns the runner that did."""
    write(project)
    plan = ["plan", "--skip-backfill", "--auto-apply", "--no-prompts"]
    succeed([environment.bin("sqlmesh"), *plan], cwd=project)
    runner = environment.bin("sqlmesh-runner")
    succeed([runner, "manifest"], cwd=project)
    return runner


@pytest.fixture(scope="module")
def project(environment, tmp_path_factory):
    """A deployed project with a manifest. One test runs it; the others only read it."""
    there = tmp_path_factory.mktemp("installed") / "warehouse"
    deploy(environment("sqlmesh"), there)
    return there


def test_without_extras_the_runner_says_that_sqlmesh_is_not_there_and_does_the_rest(environment, tmp_path):
    bare = environment()
    runner = bare.bin("sqlmesh-runner")
    write(tmp_path)

    assert bare.lacks("sqlmesh")
    assert bare.lacks("dagster")
    assert importable(bare, "sqlmesh_pipes_protocol") == modules("sqlmesh_pipes_protocol")
    assert succeed([runner, "--version"]).endswith(", SQLMesh not installed\n")
    assert succeed([bare.bin("python"), "-m", "sqlmesh_pipes_runner", "--version"]) == succeed(
        [runner, "--version"]
    )
    assert "Commands:" in succeed([runner, "--help"])
    assert json.loads(succeed([runner, "schema"]))["$schema"]
    assert "failed" in succeed([runner, "report", ROOT / "tests/protocol/golden/events-1.jsonl"])
    for arguments in (
        ["run", "prod"],
        ["manifest"],
        ["due"],
        ["reconcile", "--since", "2026-01-01"],
        ["doctor"],
    ):
        done = run([runner, *arguments, "--project", tmp_path])
        said = done.stdout + done.stderr
        assert done.returncode == 2, (arguments, said)
        assert "SQLMesh is not installed." in said
        assert "pip install 'dagster-sqlmesh-pipes[sqlmesh]'" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("module", ["dagster_sqlmesh_pipes", "dagster_sqlmesh_pipes.testing"])
def test_without_dagster_the_orchestrator_says_what_to_install(environment, module):
    done = environment().python(f"import {module}")

    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: dagster_sqlmesh_pipes needs Dagster: pip install 'dagster-sqlmesh-pipes[dagster]'"
    )
    assert "another exception" not in done.stderr


def test_the_extra_sqlmesh_has_the_runner_and_no_dagster(environment, project):
    sqlmesh = environment("sqlmesh")
    runner = sqlmesh.bin("sqlmesh-runner")

    assert sqlmesh.lacks("dagster")
    assert importable(sqlmesh, "sqlmesh_pipes_runner") == modules("sqlmesh_pipes_runner")
    assert "not installed" not in succeed([runner, "--version"])
    succeed([runner, "doctor", "prod"], cwd=project)
    succeed([runner, "manifest", "--check"], cwd=project)
    lines = succeed([runner, "run", "prod", "--events", "-"], cwd=project).splitlines()
    assert json.loads(lines[-1])["kind"] == "run_finished"
    assert json.loads(lines[-1])["status"] == "success"


def test_the_extra_dagster_has_the_orchestrator_and_no_sqlmesh(environment):
    dagster = environment("dagster")

    assert [name for name in ("sqlmesh", "docker", "kubernetes") if not dagster.lacks(name)] == []
    assert importable(dagster, "dagster_sqlmesh_pipes") == modules("dagster_sqlmesh_pipes")


@pytest.mark.parametrize(
    ("dagster", "sqlmesh"),
    [("dagster", "sqlmesh"), ("dagster,sqlmesh", "dagster,sqlmesh")],
    ids=["in two environments", "in one"],
)
def test_dagster_materializes_what_sqlmesh_runs(environment, tmp_path, dagster, sqlmesh):
    project = tmp_path / "warehouse"
    runner = deploy(environment(sqlmesh), project)
    script = tmp_path / "materialize.py"
    script.write_text(MATERIALIZE)

    told = succeed([environment(dagster).bin("python"), script, project, runner], cwd=tmp_path)

    assert sorted(told.splitlines()) == [
        "materialized warehouse marts sums",
        "materialized warehouse staging numbers",
        "passed warehouse marts sums sqlmesh_execution_status",
        "passed warehouse staging numbers not_null",
        "passed warehouse staging numbers sqlmesh_execution_status",
    ]


def test_a_launcher_names_the_extra_that_is_missing_and_has_enough_with_it(environment):
    docker, kubernetes = environment("dagster").python(LAUNCH).stdout.splitlines()
    assert docker.startswith(
        "DockerLauncher: DockerLauncher needs the docker package: install dagster-sqlmesh-pipes[docker]"
    )
    assert kubernetes.startswith(
        "KubernetesLauncher: KubernetesLauncher needs the kubernetes and dagster-k8s packages: install dagster-sqlmesh-pipes[k8s]"
    )

    assert "Docker engine" in environment("docker").python(LAUNCH).stdout.splitlines()[0]
    assert "The cluster is not known" in environment("k8s").python(LAUNCH).stdout.splitlines()[1]


def test_dg_lists_and_scaffolds_the_component(environment, project, tmp_path):
    (tmp_path / "shop/defs").mkdir(parents=True)
    for package in ("shop", "shop/defs"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "0"\n\n[tool.dg]\ndirectory_type = "project"\n\n'
        '[tool.dg.project]\nroot_module = "shop"\n'
    )
    (tmp_path / "shop/definitions.py").write_text(DEFINITIONS)
    dg = environment("dagster", "dagster-dg-cli")
    # The component starts the `sqlmesh-runner` that it finds.
    path = os.pathsep.join([str(environment("sqlmesh").path / "bin"), os.environ["PATH"]])
    env = {"PATH": path, "PYTHONPATH": str(tmp_path)}

    listed = json.loads(succeed([dg.bin("dg"), "list", "components", "--json"], cwd=tmp_path, env=env))
    assert "dagster_sqlmesh_pipes.SQLMeshProjectComponent" in [item["key"] for item in listed["items"]]
    scaffold = [
        dg.bin("dg"),
        "scaffold",
        "defs",
        "dagster_sqlmesh_pipes.SQLMeshProjectComponent",
        "warehouse",
    ]
    succeed([*scaffold, "--project-path", project], cwd=tmp_path, env=env)
    assert (
        "type: dagster_sqlmesh_pipes.SQLMeshProjectComponent"
        in (tmp_path / "shop/defs/warehouse/defs.yaml").read_text()
    )
    assert "marts/sums" in succeed([dg.bin("dg"), "list", "defs"], cwd=tmp_path, env=env).replace(" ", "")


def test_type_checkers_see_the_types(environment, tmp_path):
    """By `py.typed`: without it, mypy refuses what it imports as untyped. Dagster's own types would take it a minute."""
    user = tmp_path / "user.py"
    user.write_text(
        "from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION\n"
        "from sqlmesh_pipes_runner.errors import EXIT_OK\n"
        "version: int = PROTOCOL_VERSION\n"
        "status: str = EXIT_OK\n"
    )

    done = run(
        [BIN / "mypy", "--strict", "--python-executable", environment().bin("python"), user], cwd=tmp_path
    )

    assert [line.partition("error: ")[2] for line in done.stdout.splitlines()[:-1]] == [
        'Incompatible types in assignment (expression has type "str", variable has type "int")  [assignment]',
        'Incompatible types in assignment (expression has type "int", variable has type "str")  [assignment]',
    ]
