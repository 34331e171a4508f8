"""What is lost between a pod and Dagster is made good: logs that break off, an API server that is away, a worker that dies."""

import json
import random
import string
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import RunnerCall
from dagster_sqlmesh_pipes.launchers import answer
from support.daemon import finished, kill_step_worker, launched_run
from support.pods import Pods
from support.waiting import wait_for
from support.warehouse import Outcome, Warehouse

pytestmark = [
    pytest.mark.xdist_group("kubernetes"),
    pytest.mark.timeout(1500),
    pytest.mark.usefixtures("no_pod_left"),
]

FIRST = dg.AssetKey(["db", "staging", "first"])
SLOW = """
    import time
    import pandas as pd
    from sqlmesh import model
    @model("marts.slow", columns={"a": "int"}, kind="FULL", depends_on=["staging.first"])
    def execute(context, start, end, execution_time, **kwargs):
        time.sleep(%d)
        return pd.DataFrame({"a": [1]})
"""
NUMBERED = """
import json, time
for number in range({count}):
    print(json.dumps({{"__dagster_pipes_version": "0.1", "method": "m", "params": {{"number": number, "x": "x" * 200}}}}, separators=(",", ":")))
    if number % 10 == 0:
        print("line", number)
    time.sleep({pause})
"""
"""Numbered messages, and lines between them."""


@pytest.fixture
def slow(make_warehouse):
    """A project whose second model takes long enough for something to happen."""

    def make(seconds: int) -> Warehouse:
        warehouse = make_warehouse(
            {"staging.first": "SELECT 1 AS a", "marts.after": "SELECT a FROM marts.slow"},
            {"models/slow.py": SLOW % seconds},
            deploy=False,
        )
        warehouse.manifest()
        return warehouse

    return make


def numbers_and_lines(output: bytes) -> tuple[list[int], list[bytes]]:
    messages, lines = [], []
    for line in output.splitlines():
        if line.startswith(b"{"):
            messages.append(json.loads(line)["params"]["number"])
        else:
            lines.append(line)
    return messages, lines


def read_in_background(
    pods: Pods, count: int, pause: float
) -> tuple[threading.Thread, list[bytes], list[str]]:
    """A pod that writes numbered messages, and a thread that takes in what arrives."""
    said: list[str] = []
    runner = pods.start(["python", "-u", "-c", NUMBERED.format(count=count, pause=pause)], tell=said.append)
    chunks: list[bytes] = []

    def read() -> None:
        try:
            chunks.extend(runner.output())
        finally:
            runner.kill()
            runner.close(succeeded=True)

    thread = threading.Thread(target=read)
    thread.start()
    wait_for(lambda: chunks)
    return thread, chunks, said


def test_nothing_is_lost_when_the_api_server_stops_and_starts_in_mid_stream(pods, local_cluster):
    thread, chunks, _ = read_in_background(pods, count=3_000, pause=0.004)
    for _ in range(2):
        time.sleep(1)
        with local_cluster.without("kube-apiserver"):
            time.sleep(2)
    thread.join(timeout=120)

    messages, lines = numbers_and_lines(b"".join(chunks))
    assert sorted(set(messages)) == list(range(3_000))
    assert lines == [b"line %d" % number for number in range(0, 3_000, 10)]


def test_a_run_goes_on_while_the_api_server_is_away(pods, local_cluster, slow, instance):
    warehouse = slow(8)

    def outage() -> None:
        wait_for(lambda: instance.get_latest_materialization_event(FIRST) is not None, seconds=120)
        with local_cluster.without("kube-apiserver"):
            time.sleep(12)  # the model after it is done meanwhile

    thread = threading.Thread(target=outage)
    thread.start()
    outcome = pods.materialize(warehouse, instance)
    thread.join()

    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == {"staging/first", "marts/slow", "marts/after"}


def test_a_kubelet_that_stamps_every_part_of_a_line_corrupts_no_event(pods, local_cluster, wordy, instance):
    said, warehouse = wordy

    with local_cluster.with_environment("kubelet", {"KUBELET_STAMP_EVERY_PART": "1"}):
        outcome = pods.materialize(warehouse, instance)

    assert said in str(outcome.checks["staging/first", "wordy"].metadata["query"].value)


def test_the_log_may_be_rotated_under_the_reader(pods):
    runner = pods.start(["sh", "-c", "echo up; trap 'exit 0' TERM; sleep 60 & wait"])
    try:
        assert next(runner.output()) == b"up\n"
        rotated = _max_size_of(*pods.names())
    finally:
        runner.kill()
        runner.close(succeeded=True)
    if rotated is None:
        pytest.skip("the nodes' container engine is not one here that rotates logs (max-size)")

    thread, chunks, _ = read_in_background(pods, count=32_000, pause=0.0005)
    thread.join(timeout=180)

    messages, _ = numbers_and_lines(b"".join(chunks))
    assert len(b"".join(chunks)) > 2 * rotated
    assert sorted(set(messages)) == list(range(32_000))


def _max_size_of(name: str) -> int | None:
    """What the engine here lets a pod's log grow to, in bytes."""
    listed = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label=io.kubernetes.pod.name={name}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ids = listed.stdout.split() if listed.returncode == 0 else []
    for each in ids:
        size = subprocess.run(
            ["docker", "inspect", "--format", '{{index .HostConfig.LogConfig.Config "max-size"}}', each],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()
        units = {"k": 1024, "m": 1024**2}
        if size and size[-1] in units:
            return int(size[:-1]) * units[size[-1]]
    return None


# ------------------------------------------------------------ workers of Dagster


@contextmanager
def dagster_run(
    pods: Pods, warehouse: Warehouse, home: Path, *, retries: int = 1, **settings: object
) -> Iterator[dg.DagsterInstance]:
    launcher = pods.launcher(warehouse, **settings)
    with launched_run(warehouse, home, launcher, "/tmp/project", retries=retries) as instance:
        yield instance


def test_terminate_in_mid_model_ends_the_pod_before_dagster_records_the_end(pods, slow, tmp_path):
    warehouse = slow(300)
    with dagster_run(pods, warehouse, tmp_path / "home", grace_period_seconds=8) as instance:
        wait_for(lambda: instance.get_latest_materialization_event(FIRST) is not None, seconds=120)
        (run,) = instance.get_runs()
        instance.run_launcher.terminate(run.run_id)
        wait_for(lambda: finished(instance), seconds=60)
        left = pods.names()

        assert finished(instance).status == dg.DagsterRunStatus.CANCELED
        assert left == []
        outcome = Outcome.read(instance, run.run_id)
    assert set(outcome.materialized) == {"staging/first"}
    assert outcome.status("marts/after") == ("skipped", "interrupted")


def test_terminate_while_the_pod_waits_for_a_node_leaves_nothing(pods, slow, tmp_path):
    warehouse = slow(0)
    with dagster_run(pods, warehouse, tmp_path / "home", node_selector={"no-such": "node"}) as instance:
        wait_for(pods.names, seconds=60)
        (run,) = instance.get_runs()
        instance.run_launcher.terminate(run.run_id)
        wait_for(lambda: finished(instance), seconds=60)

        assert finished(instance).status == dg.DagsterRunStatus.CANCELED
        assert pods.names() == []


def test_a_step_worker_that_was_killed_finds_its_pod_again_and_reads_on(pods, slow, tmp_path):
    warehouse = slow(25)
    with dagster_run(pods, warehouse, tmp_path / "home") as instance:
        wait_for(lambda: instance.get_latest_materialization_event(FIRST) is not None, seconds=120)
        (before,) = pods.names()
        kill_step_worker(instance)
        wait_for(lambda: finished(instance), seconds=120)

        run = finished(instance)
        assert run.status == dg.DagsterRunStatus.SUCCESS
        outcome = Outcome.read(instance, run.run_id)  # asserts that nothing is materialized twice
        messages = [entry.message for entry in instance.all_logs(run.run_id)]
    assert set(outcome.materialized) == {"staging/first", "marts/slow", "marts/after"}
    assert outcome.retried == 1
    assert any(
        f"Found the runner of an earlier attempt: pod {pods.cluster.namespace}/{before}" in m
        for m in messages
    )
    assert sum("Starts a runner" in message for message in messages) == 1


def test_what_two_workers_recorded_before_they_died_is_not_recorded_again(pods, slow, tmp_path):
    warehouse = slow(35)
    with dagster_run(pods, warehouse, tmp_path / "home", retries=2) as instance:
        wait_for(lambda: instance.get_latest_materialization_event(FIRST) is not None, seconds=120)
        kill_step_worker(instance)
        wait_for(lambda: told(instance, "Found the runner of an earlier attempt") == 1, seconds=60)
        kill_step_worker(instance, attempt=2)
        wait_for(lambda: finished(instance), seconds=120)

        run = finished(instance)
        assert run.status == dg.DagsterRunStatus.SUCCESS
        outcome = Outcome.read(instance, run.run_id)  # asserts that nothing is materialized twice
        assert told(instance, "Found the runner of an earlier attempt") == 2
    assert set(outcome.materialized) == {"staging/first", "marts/slow", "marts/after"}


def told(instance: dg.DagsterInstance, words: str) -> int:
    (run,) = instance.get_runs()
    return sum(words in entry.message for entry in instance.all_logs(run.run_id))


# --------------------------------------------------------------- large selections


def test_5_000_selected_models_of_the_longest_names_fit_into_a_pod(pods, cluster):
    rng = random.Random(5)
    # As long as PostgreSQL's may be, and as hard to compress as letters and digits can be.
    models = tuple(
        ".".join(
            f'"{"".join(rng.choices(string.ascii_lowercase + string.digits + "_", k=63))}"' for _ in range(3)
        )
        for _ in range(5_000)
    )
    from dagster_pipes import encode_param

    from sqlmesh_pipes_protocol import variables
    from sqlmesh_pipes_protocol.request import EXTRAS_KEY, RunRequest

    context = {"extras": RunRequest(run_id="r", models=models).to_extras(), "asset_keys": None}
    params, env = variables.split(encode_param(context))
    script = (
        "import json, os, sys\n"
        "from dagster_pipes import decode_param\n"
        "from sqlmesh_pipes_runner.handover import ContextLoader\n"
        f"with ContextLoader().load_context({params!r}) as context:\n"
        f"    print(json.dumps({{'count': len(set(context['extras'][{EXTRAS_KEY!r}]['models']))}}))\n"
    )
    call = RunnerCall(arguments=["-c", script], env=env, project_dir=Path("/"))

    assert sum(map(len, env.values())) > 6 * 128 * 1024  # more than six variables hold
    assert json.loads(answer(pods.launcher(command=["python"]), call, 120)) == {"count": 5_000}
