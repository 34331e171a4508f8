"""What goes wrong around a container, on a real Docker engine: the event log has what was reported, the step's failure says why."""

import contextlib
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import DockerLauncher
from support.daemon import finished, kill_step_worker, launched_run
from support.engine import Containers, DockerEngine, OwnEngine, needs
from support.intervals import in_dagster, in_state
from support.obedient import obedient, obeying, planned_obedient  # noqa: F401 - pytest finds fixtures by name
from support.waiting import WAITS, wait_for
from support.warehouse import Outcome, Warehouse
from support.worker import outcome_of

FAULTY_RUNNER = Path(__file__).parents[1] / "support/faulty_runner.py"

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(600)]

EXITS = """
    import os
    import pandas as pd
    from sqlmesh import model
    @model("marts.exits", columns={"a": "int"}, kind="FULL", depends_on=["staging.first"])
    def execute(context, **kwargs):
        os._exit(7)
"""
FIRST, WAITING = dg.AssetKey(["db", "staging", "first"]), dg.AssetKey(["db", "marts", "waits"])


class Waiting:
    """A warehouse with a first model, one that waits for a file to appear, and one after it; and a run of it in Dagster."""

    def __init__(self, warehouse: Warehouse, folder: Path, instance: dg.DagsterInstance) -> None:
        self.warehouse = warehouse
        self.started, self.released = folder / "started", folder / "released"
        self._instance = instance
        self._outcomes: list[Outcome] = []

    @contextlib.contextmanager
    def running(self, launcher: DockerLauncher):
        """In the middle of the run: the first model is in Dagster's event log, the second waits."""

        def materialize() -> None:
            self._outcomes.append(self.warehouse.materialize(self._instance, launcher=launcher))

        thread = threading.Thread(target=materialize)
        thread.start()
        try:
            wait_for(self.started.exists)
            wait_for(lambda: self._instance.get_latest_materialization_event(FIRST) is not None)
            yield
        except BaseException:
            self.released.touch()
            raise
        finally:
            thread.join(timeout=180)

    @property
    def outcome(self) -> Outcome:
        (outcome,) = self._outcomes
        return outcome


@pytest.fixture
def waiting(make_warehouse, tmp_path, instance) -> Waiting:
    files = {
        "models/waits.py": WAITS.format(
            started=str(tmp_path / "started"), released=str(tmp_path / "released")
        )
    }
    models = {"staging.first": "SELECT 1 AS a", "marts.after": "SELECT a FROM marts.waits"}
    return Waiting(make_warehouse(models, files), tmp_path, instance)


def test_a_container_killed_in_mid_run_keeps_what_it_reported_and_invents_nothing(waiting, containers):
    with waiting.running(containers.launcher(waiting.warehouse)):
        containers.kill()

    outcome = waiting.outcome
    assert not outcome.success
    assert set(outcome.materialized) == {"staging/first"}
    assert outcome.status("marts/waits") == ("failed", "cancelled")
    assert outcome.status("marts/after") == ("skipped", "interrupted")
    assert "was killed by SIGKILL in mid-run" in outcome.failure


def test_an_interval_that_was_committed_and_not_told_is_in_dagster(
    obedient,  # noqa: F811 - the fixture
    containers,
    instance,
    tmp_path,
):
    script = shutil.copy(FAULTY_RUNNER, tmp_path)
    env = obeying(obedient, "", FAULT="after the interval is committed", FAULT_MARKER=str(tmp_path / "died"))
    launcher = containers.launcher(obedient, command=["python", script], env=env)

    outcome = obedient.materialize(instance, launcher=launcher)

    assert "was killed by SIGKILL in mid-run. Of what it had not reported" in outcome.failure
    assert in_dagster(outcome) == in_state(obedient)
    assert outcome.status("marts/second") == ("failed", "cancelled")
    assert "intervals_done" in outcome.checks["marts/second", "sqlmesh_execution_status"].metadata


def test_a_container_told_to_end_by_somebody_else_reports_what_it_did_not_do(waiting, containers):
    with waiting.running(containers.launcher(waiting.warehouse)):
        containers.kill("SIGTERM")
        time.sleep(1)
        waiting.released.touch()

    outcome = waiting.outcome
    assert not outcome.success
    assert set(outcome.materialized) == {"staging/first", "marts/waits"}
    assert outcome.status("marts/after") == ("skipped", "interrupted")


def test_a_model_that_ends_the_runners_process_fails_the_step_and_what_was_done_stays(
    make_warehouse, containers, instance
):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, {"models/exits.py": EXITS})

    outcome = warehouse.materialize(instance, launcher=containers.launcher(warehouse))

    assert not outcome.success
    assert set(outcome.materialized) == {"staging/first"}
    assert "exited with status 7 in mid-run" in outcome.failure


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_the_dagster_run_ends_the_container_and_commits_nothing_afterwards(
    waiting, containers, instance, tmp_path, number
):
    home = tmp_path / "home"
    home.mkdir()
    worker = start_worker(waiting.warehouse, containers, tmp_path, home)
    try:
        wait_for(waiting.started.exists)
        assert len(containers.names()) == 1
        worker.send_signal(number)
        worker.wait(timeout=90)
    finally:
        worker.kill()
        worker.wait(timeout=10)

    assert containers.names() == []
    outcome = outcome_of(home)
    assert not outcome.success
    assert set(outcome.materialized) == {"staging/first"}
    assert outcome.status("marts/waits") == ("failed", "cancelled")
    assert outcome.status("marts/after") == ("skipped", "interrupted")
    waiting.released.touch()
    rest = waiting.warehouse.materialize(instance)
    assert set(rest.materialized) == {"marts/waits", "marts/after"}  # still due: nothing was recorded of them


def test_a_step_worker_that_was_killed_finds_its_container_again_and_reads_on(waiting, containers, tmp_path):
    launcher = containers.launcher(waiting.warehouse)
    with launched_run(waiting.warehouse, tmp_path / "home", launcher) as instance:
        wait_for(waiting.started.exists)
        wait_for(lambda: instance.get_latest_materialization_event(FIRST) is not None)
        before = containers.names()
        kill_step_worker(instance)
        wait_for(lambda: "Found the runner of an earlier attempt" in str(messages(instance)))
        assert containers.names() == before
        waiting.released.touch()
        wait_for(lambda: finished(instance))

        run = finished(instance)
        assert run.status == dg.DagsterRunStatus.SUCCESS
        outcome = Outcome.read(instance, run.run_id)  # asserts that nothing is materialized twice
        assert sum("Starts a runner" in message for message in messages(instance)) == 1
    assert set(outcome.materialized) == {"staging/first", "marts/waits", "marts/after"}
    assert outcome.retried == 1


def messages(instance: dg.DagsterInstance) -> list[str]:
    (run,) = instance.get_runs()
    return [entry.message for entry in instance.all_logs(run.run_id)]


def start_worker(
    warehouse: Warehouse, containers: Containers, tmp_path: Path, home: Path
) -> subprocess.Popen[bytes]:
    """A process that materializes the project in Dagster, as a run worker does."""
    launcher = containers.launcher(warehouse, grace_period_seconds=8)
    settings = launcher.model_dump(include=launcher.model_fields_set)
    script = tmp_path / "worker.py"
    script.write_text(
        textwrap.dedent(
            f"""\
            import dagster as dg
            from dagster_sqlmesh_pipes import DockerLauncher, SQLMeshProject, SQLMeshResource, sqlmesh_assets

            project = SQLMeshProject({str(warehouse.path)!r})

            @sqlmesh_assets(project=project)
            def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
                yield from sqlmesh.run(context)

            launcher = DockerLauncher(**{settings!r})
            defs = dg.Definitions([warehouse], resources={{"sqlmesh": SQLMeshResource(project, launcher=launcher)}})
            with dg.DagsterInstance.local_temp({str(home)!r}) as instance:
                job = defs.resolve_implicit_global_asset_job_def()
                job.execute_in_process(instance=instance, raise_on_error=False)
            """
        )
    )
    return subprocess.Popen([sys.executable, str(script)])


def test_a_run_goes_on_while_the_engine_is_stopped_and_started(waiting, docker_engine):
    needs(("dockerd", "docker.io"))
    # Its own: nobody else's containers are to be without an engine.
    with contextlib.closing(
        OwnEngine("--live-restore", "--iptables=false", "--bridge=none", apart=True)
    ) as own:
        copy_image(docker_engine, own)
        containers = Containers(DockerEngine(own.host, docker_engine.image))
        with waiting.running(containers.launcher(waiting.warehouse)):
            own.stop()
            time.sleep(3)
            own.start()
            waiting.released.touch()
        assert waiting.outcome.success, waiting.outcome.failure
        assert set(waiting.outcome.materialized) == {"staging/first", "marts/waits", "marts/after"}
        assert containers.names() == []


def copy_image(engine: DockerEngine, own: OwnEngine) -> None:
    where = ["--host", engine.host] if engine.host else []
    save = ["docker", *where, "save", engine.image]
    with subprocess.Popen(save, stdout=subprocess.PIPE) as saved:
        load = ["docker", "--host", own.host, "load", "--quiet"]
        subprocess.run(load, stdin=saved.stdout, check=True, capture_output=True, timeout=300)
    assert saved.returncode == 0
