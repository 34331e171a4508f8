"""What SQLMesh did in a pod that died before it said so: Dagster has it, asked of SQLMesh's state by another pod.

The state is on this host's PostgreSQL, which pods of a cluster on this host reach by its own network.
"""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from support.daemon import finished, kill_step_worker, launched_run
from support.intervals import in_dagster, in_state
from support.pods import PLANNED, Pods
from support.postgres import postgres_server  # noqa: F401 - pytest finds fixtures by name
from support.waiting import wait_for
from support.warehouse import Outcome, Warehouse

pytestmark = [
    pytest.mark.xdist_group("kubernetes"),
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("no_pod_left", "local_cluster"),
]

FAULTY_RUNNER = Path(__file__).parents[1] / "support/faulty_runner.py"
FAULTY = PLANNED.replace("exec sqlmesh-runner", "exec python /tmp/project/faulty_runner.py")
SECOND = """\
MODEL (
  name marts.second, start '2026-01-01', end '2026-01-03',
  kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1, batch_concurrency 1)
);
SELECT CAST(@start_ds AS DATE) AS day, a FROM staging.first
"""


@pytest.fixture
def warehouse(make_warehouse) -> Warehouse:
    made = make_warehouse(
        {"staging.first": "SELECT 1 AS a", "marts.last": "SELECT day FROM marts.second"},
        {"models/second.sql": SECOND},
        engine="postgres",
    )
    shutil.copy(FAULTY_RUNNER, made.path)
    return made


def settings(warehouse: Warehouse, **env: str) -> dict[str, object]:
    return {
        "command": ["sh", "-c", FAULTY, "sh"],
        "env": {
            "TEST_DATABASE": str(warehouse.database),
            **warehouse.env,
            "FAULT_MARKER": "/tmp/died",
            **env,
        },
        "base_pod_spec": {"security_context": {"fs_group": 10001}, "host_network": True},
    }


def test_an_interval_that_was_committed_and_not_told_is_in_dagster(warehouse, pods: Pods, instance):
    fault = "after the interval is committed"
    outcome = pods.materialize(
        warehouse, instance, launcher=pods.launcher(warehouse, **settings(warehouse, FAULT=fault))
    )

    assert (
        "Of what it had not reported, SQLMesh's state has 0 models as complete; 1 was torn" in outcome.failure
    )
    assert in_dagster(outcome) == in_state(warehouse)
    assert outcome.status("marts/second") == ("failed", "cancelled")
    assert "intervals_done" in outcome.checks["marts/second", "sqlmesh_execution_status"].metadata
    assert outcome.status("marts/last") == ("skipped", "interrupted")


def test_a_pod_that_is_gone_when_another_worker_looks_for_it_has_its_work_in_dagster(
    warehouse, pods: Pods, tmp_path
):
    launcher = pods.launcher(warehouse, **settings(warehouse, FAULT="pauses before run_finished"))
    first = dg.AssetKey([str(warehouse.catalog), "marts", "last"])
    with launched_run(warehouse, tmp_path / "home", launcher, "/tmp/project", retries=1) as instance:
        wait_for(lambda: instance.get_latest_materialization_event(first) is not None, seconds=120)
        (name,) = pods.names()
        (run,) = instance.get_runs()
        kill_step_worker(instance)
        pods.cluster.delete_pod(name)
        wait_for(lambda: finished(instance), seconds=180)
        outcome = Outcome.read(instance, run.run_id)

    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == {"staging/first", "marts/second", "marts/last"}
    assert in_dagster(outcome) == in_state(warehouse)
