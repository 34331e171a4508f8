"""With Dagster's multiprocess executor, each step in a process of its own, the event log is the same."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg

from behaviour.case import FAILED, PASSED, WARNED, Case, Seen, contains, executed, failed, in_one_run, skipped
from behaviour.cases_audits import AUDITS, daily, numbers
from behaviour.cases_code import SIGNALS, python_model
from behaviour.verdict import assert_shows
from support.warehouse import write

DEFINITIONS = """\
import os

import dagster as dg

from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, SubprocessLauncher, sqlmesh_assets

project = SQLMeshProject(os.environ["TEST_PROJECT"])


@sqlmesh_assets(project=project)
def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
    yield from sqlmesh.run(context)


launcher = SubprocessLauncher(command=[os.environ["TEST_RUNNER"]])


def everything():
    return dg.Definitions(
        assets=[warehouse],
        jobs=[dg.define_asset_job("everything", executor_def=dg.multiprocess_executor)],
        resources={"sqlmesh": SQLMeshResource(project, launcher=launcher)},
    ).resolve_job_def("everything")


if __name__ == "__main__":
    import definitions

    with dg.DagsterInstance.get() as instance:
        job = dg.reconstructable(definitions.everything)
        with dg.execute_job(job, instance=instance) as result:
            print("run", result.run_id)
"""
CASE = Case(
    name="one_situation_of_each_family",
    models={
        "staging.amounts": "SELECT day, amount FROM (VALUES "
        "('2026-01-01', 1), ('2026-01-02', -2), ('2026-01-03', 3)) AS t(day, amount)",
        "marts.broken": "SELECT CAST(day AS INT) AS day FROM staging.amounts",
        "marts.below": "SELECT day FROM marts.broken",
    },
    files={
        **AUDITS,
        **SIGNALS,
        **daily("stops", "positive(column := amount)"),
        **daily("warns", "rather_positive(column := amount)"),
        **numbers("has_two", "not_null(columns := (a)), not_null(columns := (b), blocking := false)"),
        **python_model("raises", "raise ValueError('these numbers do not add up')"),
        "models/waits.sql": "MODEL (name marts.waits, kind FULL, signals (not_yet()));\nSELECT 1 AS a",
        "models/odd.sql": 'MODEL (name "my-schema"."an item", kind VIEW);\nSELECT day FROM staging.amounts',
        "audits/all_in_january.sql": "AUDIT (name all_in_january, standalone true);\n"
        "SELECT day FROM staging.amounts WHERE day > '2026-01-31'",
    },
    steps=in_one_run(
        {
            "staging/amounts": executed({"all_in_january": PASSED}),
            "marts/broken": failed("sql"),
            "marts/below": skipped("upstream_failed", blocked_by="db.marts.broken"),
            "marts/stops": failed("audit", {"positive": FAILED}, intervals_done="2026-01-01 to 2026-01-02"),
            "marts/warns": executed({"rather_positive": WARNED}, batches=3),
            "marts/has_two": executed({"not_null_a": PASSED, "not_null_b": WARNED}),
            "marts/raises": failed("python", message=contains("do not add up")),
            "marts/waits": skipped("signal_not_ready"),
            "my-schema/an_item": executed(),
        },
        failure=("3 models failed",),
    ),
)


def test_steps_in_processes_of_their_own_show_the_same(stage, tmp_path, monkeypatch):
    scene = stage(CASE)
    home = tmp_path / "dagster_home"
    home.mkdir()
    write(home / "dagster.yaml", "telemetry: {enabled: false}\n")
    write(tmp_path / "definitions.py", DEFINITIONS)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("TEST_PROJECT", str(scene.warehouse.path))
    monkeypatch.setenv("TEST_RUNNER", str(scene.warehouse.bin / "sqlmesh-runner"))

    done = subprocess.run(
        [sys.executable, str(tmp_path / "definitions.py")],
        env=scene.warehouse.environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run_id = done.stdout.split("run ")[-1].strip()

    with dg.DagsterInstance.get() as instance:
        types = {record.dagster_event_type for record in instance.all_logs(run_id)}
        assert dg.DagsterEventType.STEP_WORKER_STARTED in types
        assert_shows(Seen.read(instance, run_id, "db"), CASE.steps[0], "duckdb")
