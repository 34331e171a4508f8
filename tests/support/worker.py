"""A process that materializes a warehouse in Dagster, as a step worker does: to be stopped and killed by a test."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from support.warehouse import Outcome, Warehouse

_SCRIPT = """\
import dagster as dg
from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, SubprocessLauncher, sqlmesh_assets

project = SQLMeshProject({path!r})

@sqlmesh_assets(project=project)
def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
    yield from sqlmesh.run(context)

launcher = SubprocessLauncher(**{settings!r})
defs = dg.Definitions([warehouse], resources={{"sqlmesh": SQLMeshResource(project, launcher=launcher)}})
with dg.DagsterInstance.local_temp({home!r}) as instance:
    job = defs.resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=instance, raise_on_error=False)
"""


@contextmanager
def worker(warehouse: Warehouse, home: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The worker, killed at the end if it still runs.

    Args:
        warehouse: what to materialize, all of it.
        home: a directory to be made, for Dagster's instance.
        env: of the runner.
    """
    home.mkdir()
    settings = warehouse.launcher(env=env).model_dump(include={"command", "env"})
    script = _SCRIPT.format(path=str(warehouse.path), settings=settings, home=str(home))
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def outcome_of(home: Path) -> Outcome:
    """What the event log of a worker's only run holds."""
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        (run,) = instance.get_runs()
        return Outcome.read(instance, run.run_id)
