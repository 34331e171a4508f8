"""Dagster's daemon on a code location of a test's own, and nothing left of it afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg

from dagster_sqlmesh_pipes import Launcher
from support.waiting import wait_for
from support.warehouse import Warehouse


@contextmanager
def daemon(home: Path, location: str, settings: str = "") -> Iterator[dg.DagsterInstance]:
    """The instance of a new DAGSTER_HOME, and a daemon that serves it.

    Args:
        home: a directory to be made.
        location: the Python text of the definitions.
        settings: more of the instance's settings, as YAML.
    """
    home.mkdir()
    (home / "dagster.yaml").write_text(f"telemetry: {{enabled: false}}\n{settings}")
    (home / "location.py").write_text(location)
    log = home / "daemon.log"
    with (
        log.open("wb") as output,
        dg.DagsterInstance.from_config(str(home)) as instance,
        subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", "-f", str(home / "location.py")],
            env={**os.environ, "DAGSTER_HOME": str(home)},
            cwd=home,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group of its own, with the code server, to be ended as a whole
        ) as process,
    ):
        try:
            yield instance
        except BaseException:
            print(log.read_text(errors="replace")[-8_000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def launched_run(
    warehouse: Warehouse,
    home: Path,
    launcher: Launcher,
    project_dir: str | None = None,
    retries: int = 1,
    settings: str = "",
) -> Iterator[dg.DagsterInstance]:
    """A run of all models that the daemon launches, a process for each step; a step that fails is tried again.

    Args:
        home: a directory to be made.
        launcher: one that its settings make again.
        project_dir: where the runner sees the project, if elsewhere than here.
        settings: of the instance, as YAML.
    """
    launcher_settings = launcher.model_dump(mode="json", include=launcher.model_fields_set)
    location = f"""\
        import json
        import dagster as dg
        from dagster_sqlmesh_pipes import {type(launcher).__name__}, SQLMeshProject, SQLMeshResource, sqlmesh_assets

        project = SQLMeshProject({str(warehouse.path)!r})

        @sqlmesh_assets(project=project, retry_policy=dg.RetryPolicy(max_retries={retries}))
        def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
            yield from sqlmesh.run(context)

        everything = dg.define_asset_job("everything")

        @dg.sensor(job=everything, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=1)
        def once(context):
            return dg.RunRequest(run_key="once")

        launcher = {type(launcher).__name__}(**json.loads({json.dumps(launcher_settings)!r}))
        resource = SQLMeshResource(project, project_dirs=[{project_dir or str(warehouse.path)!r}], launcher=launcher)
        defs = dg.Definitions([warehouse], jobs=[everything], sensors=[once], resources={{"sqlmesh": resource}})
        """
    with daemon(home, textwrap.dedent(location), settings) as instance:
        wait_for(instance.get_runs, seconds=120)
        yield instance


def finished(instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    """The instance's only run, once it is over."""
    (run,) = instance.get_runs()
    return run if run.is_finished else None


def kill_step_worker(instance: dg.DagsterInstance, attempt: int = 1) -> None:
    """SIGKILL to the process that executes the only step of the only run."""
    (run,) = instance.get_runs()
    captured = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED)
    found = re.search(r"pid: (\d+)", captured[attempt - 1].message)
    assert found is not None, captured
    os.kill(int(found[1]), signal.SIGKILL)
