"""Run in the runner's environment: plan a project into an environment, leave the work to a run, write its manifest.

One process for what `sqlmesh plan` and `sqlmesh-runner manifest` do in two: importing SQLMesh takes most of the time.
"""

import sys
from pathlib import Path

from sqlmesh.core.console import NoopConsole, set_console
from sqlmesh.core.context import Context

from sqlmesh_pipes_protocol.manifest import DEFAULT_MANIFEST_NAME, write_manifest
from sqlmesh_pipes_runner.manifest import describe

project, environment = Path(sys.argv[1]), sys.argv[2]
set_console(NoopConsole())
context = Context(paths=[str(project)])
context.plan(environment, skip_backfill=True, auto_apply=True, no_prompts=True)
write_manifest(describe(context, [project]), project / DEFAULT_MANIFEST_NAME)
context.close()
