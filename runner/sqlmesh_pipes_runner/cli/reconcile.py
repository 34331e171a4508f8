"""``sqlmesh-runner reconcile``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sqlmesh_pipes_protocol import dump_reconcile_report
from sqlmesh_pipes_runner.cli import options


@click.command()
@options.environment
@options.project
@options.option(
    "--since",
    metavar="TIME",
    help="Tell what has been recorded since then, such as 2026-01-31T06:30:00 (UTC) or '1 hour ago'.",
)
@options.option(
    "--events",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Tell what a run has done that its events, as `run --events FILE` wrote them, do not say.",
)
@options.option(
    "--wait-for-run",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the end of a run of the environment that still goes on, as one does whose starter has died; "
    "0: read at once.",
)
@options.option("--run-id", metavar="ID", help="One of several runs in the file. Default: the last one.")
@options.answer_format("For people, or as `sqlmesh-runner schema reconcile` describes.")
def reconcile(
    environment: str | None,
    projects: tuple[Path, ...],
    since: str | None,
    events: Path | None,
    run_id: str | None,
    wait_for_run: float,
    form: str,
    **settings: Any,
) -> None:
    """Say which intervals SQLMesh has recorded in ENVIRONMENT since a moment, or since a run began.

    For a run that died: what SQLMesh has done is in its state, whether or not an event about it got out. With --events
    the environment is the run's. Reads SQLMesh's state and writes nothing.

    The state tells when, and not by whom: with --since, other runs and plans are in it. Of a run only what it set out to do
    counts. SQLMesh's janitor merges records, which then have the time of the merge: with --since such intervals are told as
    uncertain; of a run they are exact, unless the model looks back (lookback) and fills again what it had filled.

    \b
    Examples:
      sqlmesh-runner reconcile --events run.jsonl --project warehouse
      sqlmesh-runner reconcile prod --since '1 hour ago' --format json

    \b
    Exit status: 0 whether something is missing or not
                 2 usage or configuration: no such project, environment, gateway, file, run
                 3 infrastructure: state out of reach, or locked; or a run did not end in time
    """
    if (since is None) == (events is None):
        raise click.UsageError("Give either --since TIME or --events FILE.")
    if run_id is not None and events is None:
        raise click.UsageError("--run-id names a run in a file: give --events FILE as well.")
    from sqlmesh_pipes_runner.installation import check_sqlmesh
    from sqlmesh_pipes_runner.options import RunOptions

    projects = projects or (Path(),)
    with options.told():
        options.check_projects(projects)
        check_sqlmesh()
        from sqlmesh_pipes_runner.reconcile import read_run, reconcile_report, table

        told = read_run(events, run_id) if events is not None else None
        report = reconcile_report(
            RunOptions(projects=projects, environment=environment, **settings),
            since=since,
            told=told,
            wait_seconds=wait_for_run,
        )
    sys.stdout.buffer.write(dump_reconcile_report(report) if form == "json" else table(report).encode())
