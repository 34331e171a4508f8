"""The images of docker/, each claim of their Dockerfiles' on a real Docker engine."""

from __future__ import annotations

import subprocess

import pytest

from support import images
from support.engine import DockerEngine
from support.warehouse import Warehouse, write

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(1500)]

LOOK = """
import importlib.util, os, shutil, sys
for module in sys.argv[1].split(","):
    print(module, importlib.util.find_spec(module) is not None)
print("compiler", any(map(shutil.which, ("cc", "gcc", "g++", "clang"))))
print("root", os.getuid() == 0)
"""
NOWHERE = """
gateways:
  local:
    connection: {type: postgres, host: 127.0.0.1, port: 1, user: a, password: b, database: c}
model_defaults: {dialect: postgres}
disable_anonymized_analytics: true
"""


def run(
    engine: DockerEngine, image: str, *command: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """A command in a container that has no network and may not write but to /tmp."""
    where = ["--host", engine.host] if engine.host else []
    closed = ["--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"]
    return subprocess.run(
        ["docker", *where, "run", "--rm", *closed, *options, image, *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def look(engine: DockerEngine, image: str, *modules: str) -> dict[str, bool]:
    done = run(engine, image, "python", "-c", LOOK, ",".join(modules))
    assert done.returncode == 0, done.stderr
    pairs = (line.split() for line in done.stdout.splitlines())
    return {name: value == "True" for name, value in pairs}


def test_the_runners_image_has_sqlmesh_and_the_drivers_that_were_asked_for_and_no_dagster(docker_engine):
    modules = ("sqlmesh", "sqlmesh_pipes_runner", "psycopg2", "duckdb", "dagster", "docker", "hatchling")

    assert look(docker_engine, docker_engine.image, *modules) == {
        "sqlmesh": True,
        "sqlmesh_pipes_runner": True,
        "psycopg2": True,
        "duckdb": True,
        "dagster": False,
        "docker": False,
        "hatchling": False,
        "compiler": False,
        "root": False,
    }


def test_dagsters_image_has_what_its_services_need_and_no_sqlmesh(docker_engine):
    image = images.orchestrator_image(docker_engine.host)
    modules = (
        "dagster",
        "dagster_sqlmesh_pipes",
        "dagster_webserver",
        "dagster_postgres",
        "docker",
        "kubernetes",
    )

    assert look(docker_engine, image, *modules, "sqlmesh", "sqlglot") == {
        **dict.fromkeys(modules, True),
        "sqlmesh": False,
        "sqlglot": False,
        "compiler": False,
        "root": False,
    }


def test_a_code_location_loads_from_the_manifest_that_its_image_was_built_with(docker_engine):
    image = images.shop_orchestrator_image(docker_engine.host)
    script = (
        "from shop_dagster.definitions import defs, warehouse; import pathlib; "
        "print(len(list(warehouse.specs)), pathlib.Path('/project').exists())"
    )
    env = {"SHOP_POSTGRES_HOST": "nowhere", "SHOP_POSTGRES_PASSWORD": "none"}
    options = tuple(f"--env={name}={value}" for name, value in env.items())

    done = run(docker_engine, image, "python", "-c", script, options=options)

    assert done.stdout.split() == ["13", "False"], done.stderr


def test_the_doctor_finds_an_image_and_a_mounted_project_in_order_on_a_read_only_file_system(
    docker_engine, make_warehouse
):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"})

    done = doctor(docker_engine, warehouse)

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines() + done.stderr.splitlines()
    assert not [line for line in lines if line.startswith("NOT OK")]
    assert [line for line in lines if line.split()[:2] == ["ok", "versions"]]


def test_the_doctor_tells_an_image_whose_warehouse_is_out_of_reach(docker_engine, make_warehouse):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"})
    write(warehouse.path / "config.yaml", NOWHERE)

    done = doctor(docker_engine, warehouse)

    assert done.returncode == 3
    assert "NOT OK" in done.stdout + done.stderr


def doctor(engine: DockerEngine, warehouse: Warehouse) -> subprocess.CompletedProcess[str]:
    """With the project where the image has it, read-only, and the database where the tests have it."""
    folder = warehouse.path.parent
    for path in (folder, *folder.parents[:2], *folder.rglob("*")):  # to be read by the image's own user
        path.chmod(0o755 if path.is_dir() else 0o666)
    options = (
        f"--volume={warehouse.path}:/project:ro",
        f"--volume={folder}:{folder}",
        f"--env=TEST_DATABASE={warehouse.database}",
    )
    return run(engine, engine.image, "sqlmesh-runner", "doctor", "prod", options=options)


def test_a_version_of_sqlmesh_that_does_not_exist_ends_the_build(docker_engine):
    where = ["--host", docker_engine.host] if docker_engine.host else []
    arguments = {
        "BASE_IMAGE": images.base_image(docker_engine.host),
        "PIP_ARGS": images.pip_args(),
        "SQLMESH_VERSION": "0.0.1",
    }
    given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    file = str(images.ROOT / "docker/runner.Dockerfile")

    done = subprocess.run(
        ["docker", *where, "build", "--force-rm", "--file", file, *given, str(images.ROOT)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode != 0
    assert "sqlmesh==0.0.1" in done.stdout + done.stderr
