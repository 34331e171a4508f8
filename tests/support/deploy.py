"""Run in the runner's environment: plan a project into an environment, leave the work to a run, write its manifest.

One process for what `sqlmesh plan` and `sqlmesh-runner manifest` do in two: importing SQLMesh takes most of the time.
"""

import os
import sys
from pathlib import Path

from sqlmesh.core.console import NoopConsole, set_console
from sqlmesh.core.context import Context

from sqlmesh_pipes_protocol.manifest import DEFAULT_MANIFEST_NAME, write_manifest
from sqlmesh_pipes_runner.manifest import describe

projects = [Path(project) for project in sys.argv[1].split(os.pathsep)]
environment, gateway = sys.argv[2], sys.argv[3] or None
set_console(NoopConsole())
context = Context(paths=[str(project) for project in projects], gateway=gateway)
context.plan(environment, skip_backfill=True, auto_apply=True, no_prompts=True)
write_manifest(describe(context, projects), projects[0] / DEFAULT_MANIFEST_NAME)
context.close()
