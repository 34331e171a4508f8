"""The runner in a container of its own, on a real Docker engine, in the image that the project's Dockerfile makes."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from dagster_sqlmesh_pipes import DockerLauncher, LaunchError, Runner, RunnerCall
from integration.test_component import Sandbox
from support.engine import LABEL
from support.waiting import wait_for
from support.warehouse import Outcome

# The first test makes a base and the image, where they are not there yet: minutes on a busy machine.
pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(1500)]

SLOW = """
    import time
    import pandas as pd
    from sqlmesh import model
    @model("staging.slow", columns={"id": "int"}, kind="FULL", depends_on=["staging.first"])
    def execute(context, start, end, execution_time, **kwargs):
        for _ in range(600):
            time.sleep(0.1)
        return pd.DataFrame({"id": [1]})
"""
HUNGRY = """
    import pandas as pd
    from sqlmesh import model
    @model("staging.hungry", columns={"id": "int"}, kind="FULL", depends_on=["staging.first"])
    def execute(context, start, end, execution_time, **kwargs):
        eaten = [bytearray(10_000_000) for _ in range(1_000)]
        return pd.DataFrame({"id": [len(eaten)]})
"""


@contextlib.contextmanager
def started(launcher: DockerLauncher, *arguments: str) -> Iterator[Runner]:
    runner = launcher.launch(RunnerCall(arguments=arguments, env={}, project_dir=Path("/")))
    try:
        yield runner
    finally:
        runner.kill()
        runner.close(succeeded=False)


def output_of(runner: Runner) -> bytes:
    return b"".join(runner.output())


def test_models_that_ran_in_a_container_are_materialized(make_warehouse, containers, instance):
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS id", "staging.second": "SELECT id FROM staging.first"}
    )

    outcome = warehouse.materialize(instance, launcher=containers.launcher(warehouse))

    assert outcome.success
    assert set(outcome.materialized) == {"staging/first", "staging/second"}


def test_a_part_of_a_project_is_asked_for_by_name(make_warehouse, containers, instance):
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS id", "staging.second": "SELECT id FROM staging.first"}
    )

    outcome = warehouse.materialize(
        instance,
        launcher=containers.launcher(warehouse),
        selection=dg.AssetSelection.assets(dg.AssetKey(["db", "staging", "first"])),
    )

    assert set(outcome.materialized) == {"staging/first"}


def test_a_read_only_file_system_is_enough(make_warehouse, containers, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"})

    outcome = warehouse.materialize(
        instance,
        launcher=containers.launcher(warehouse, container_kwargs={"read_only": True, "tmpfs": {"/tmp": ""}}),
    )

    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == {"staging/first"}


def test_the_image_has_no_dagster_no_compiler_and_is_not_root(containers):
    script = (
        "import importlib.util, os, shutil; "
        "print(importlib.util.find_spec('dagster'), shutil.which('cc'), shutil.which('gcc'), os.getuid() > 0)"
    )

    with started(containers.launcher(command=["python", "-c", script])) as runner:
        assert output_of(runner) == b"None None None True\n"


def test_a_model_that_needs_more_memory_than_there_is_is_told_as_such(make_warehouse, containers, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"}, {"models/hungry.py": HUNGRY})

    outcome = warehouse.materialize(instance, launcher=containers.launcher(warehouse, memory="600m"))

    assert not outcome.success
    assert "It ran out of memory: its limit is 600 MiB." in outcome.failure
    assert set(outcome.materialized) == {"staging/first"}  # what was reported before stays


def test_every_byte_of_its_output_arrives_in_order_and_apart_from_its_errors(containers):
    script = (
        "import sys\n"
        "for number in range(20_000):\n"
        "    print(number, 'x' * (number % 700))\n"
        "    if number % 1000 == 0: print('error', number, file=sys.stderr)\n"
    )

    with started(containers.launcher(command=["python", "-c", script])) as runner:
        lines = output_of(runner).splitlines()
        assert lines == [b"%d %b" % (number, b"x" * (number % 700)) for number in range(20_000)]
        assert runner.exit_code() == 0
        assert runner.last_words().splitlines() == [f"error {number}" for number in range(0, 20_000, 1000)]


@pytest.mark.parametrize("ended", [True, False])
def test_a_container_that_is_found_again_is_read_from_its_beginning(containers, ended):
    script = (
        "import sys, time\n"
        "for number in range(5_000):\n"
        "    print(number, flush=True)\n"
        "    if number % 500 == 0: time.sleep(0.3)\n"
        "print('the end', file=sys.stderr)\n"
    )
    launcher = containers.launcher(command=["python", "-c", script])
    call = RunnerCall(arguments=(), env={}, project_dir=Path("/"), name=f"found-{containers.test[:12]}")
    lost = launcher.launch(call)  # by a process that died
    try:
        if ended:
            wait_for(lambda: lost.exit_code() is not None)
        found = launcher.find(call)
        assert found is not None
        # Each number is there, in order; some may come twice, as events may, whose numbers tell.
        seen = list(dict.fromkeys(line for line in output_of(found).splitlines() if line))
        assert seen == [b"%d" % number for number in range(5_000)]
        assert found.exit_code() == 0
        assert found.last_words() == "the end"
        found.close(succeeded=True)
        assert launcher.find(call) is None
    finally:
        lost.close(succeeded=False)


def test_a_container_that_was_made_and_never_started_is_no_runner(containers, docker_engine):
    import docker

    launcher = containers.launcher()
    call = RunnerCall(arguments=(), env={}, project_dir=Path("/"), name=f"made-{containers.test[:12]}")
    with contextlib.closing(docker.DockerClient(base_url=docker_engine.host)) as client:
        client.containers.create(launcher.image, name=call.name, labels=launcher.labels)

        assert launcher.find(call) is None
        assert containers.names() == []


def test_a_container_that_is_told_to_end_reports_and_ends(make_warehouse, containers):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"}, {"models/slow.py": SLOW})
    arguments = ("run", "prod", "--project", str(warehouse.path), "--events", "-", "--grace-period", "1")

    with started(containers.launcher(warehouse), *arguments) as runner:
        seen = b""
        for chunk in runner.output():
            seen += chunk
            if b'"model_started"' in seen and b'staging\\".\\"slow' in seen:
                runner.terminate()
        last = json.loads(seen.splitlines()[-1])
        assert (last["kind"], last["status"]) == ("run_finished", "interrupted")
        assert runner.exit_code() == 130


def test_a_container_that_somebody_removes_is_told_as_such(containers):
    with started(containers.launcher(command=["sleep", "300"])) as runner:
        containers.remove()
        assert output_of(runner) == b""
        wait_for(lambda: runner.exit_code() is not None)
        assert runner.exit_code() == -9


def test_a_container_that_is_killed_leaves_nothing_behind(containers):
    with started(containers.launcher(command=["sleep", "300"])) as runner:
        began = time.monotonic()
        runner.kill()
        assert time.monotonic() - began < 30
        runner.kill()  # does nothing the second time
        runner.close(succeeded=False)
        assert containers.names() == []


@pytest.mark.parametrize(
    ("settings", "words", "transient"),
    [
        (
            {"image": "no-such-image:1", "pull": "never"},
            "The image no-such-image:1 is not on the Docker engine, and is not to be pulled",
            False,
        ),
        (
            {"image": "127.0.0.1:1/no-such-image:1"},
            "The image 127.0.0.1:1/no-such-image:1 cannot be pulled",
            True,
        ),
        ({"docker_host": "unix:///no/such/socket"}, "The Docker engine cannot be reached", True),
        ({"command": ["no-such-program"]}, "cannot be started", False),
        ({"network": "no-such-network"}, "no-such-network", False),
    ],
)
def test_what_cannot_be_started_is_told_in_a_sentence(containers, settings, words, transient):
    with pytest.raises(LaunchError) as caught:
        containers.launcher(**settings).launch(RunnerCall(arguments=(), env={}, project_dir=Path("/")))

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.transient is transient


def test_a_component_makes_its_manifest_and_runs_in_containers_by_yaml_alone(shop, containers, instance):
    folder = str(shop.path.parent)
    launcher = {
        "type": "docker",
        "image": containers.engine.image,
        "network": "none",
        "user": "0",
        "volumes": [f"{shop.path}:/project", f"{folder}:{folder}"],
        "env": shop.env,
        "labels": {LABEL: containers.test},
    }
    if containers.engine.host:
        launcher["docker_host"] = containers.engine.host
    with create_defs_folder_sandbox() as made:
        sandbox = Sandbox(made, {"project_dir": "/project"})  # where it is in the container, and nowhere here
        sandbox.write(launcher=launcher, select="raw.*", schedule=None)

        sandbox.refresh()
        with sandbox.load() as loaded:
            job = loaded.defs.resolve_job_def(loaded.job.name)
            result = job.execute_in_process(instance=instance)

    outcome = Outcome.read(instance, result.run_id)
    assert set(outcome.materialized) == {"raw/customers", "raw/orders", "raw/products"}
