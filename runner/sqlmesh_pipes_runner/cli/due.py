"""``sqlmesh-runner due``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sqlmesh_pipes_protocol import dump_due_report
from sqlmesh_pipes_runner.cli import options


@click.command()
@options.environment
@options.project
@options.what_to_run
@options.answer_format("For people, or as `sqlmesh-runner schema due` describes.")
def due(
    environment: str | None,
    projects: tuple[Path, ...],
    select_models: tuple[str, ...],
    no_auto_upstream: bool,
    form: str,
    **settings: Any,
) -> None:
    """Say what a run in ENVIRONMENT (default: the project's) would do now, and when each model's next turn is.

    Reads SQLMesh's state and writes nothing. Signals are not asked: a model that waits for one is due.

    \b
    Examples:
      sqlmesh-runner due prod --project warehouse
      sqlmesh-runner due prod --select-model 'tag:daily' --execution-time tomorrow --format json

    \b
    Exit status: 0 whether something is due or not
                 2 usage or configuration: no such project, environment, gateway, model
                 3 infrastructure: state out of reach, or locked
    """
    from sqlmesh_pipes_runner.installation import check_sqlmesh
    from sqlmesh_pipes_runner.options import RunOptions

    projects = projects or (Path(),)
    with options.told():
        options.check_projects(projects)
        check_sqlmesh()
        from sqlmesh_pipes_runner.due import due_report, table

        report = due_report(
            RunOptions(
                projects=projects,
                environment=environment,
                select_models=select_models or None,
                auto_upstream=not no_auto_upstream,
                **settings,
            )
        )
    sys.stdout.buffer.write(dump_due_report(report) if form == "json" else table(report).encode())
