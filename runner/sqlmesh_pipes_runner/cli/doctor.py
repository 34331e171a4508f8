"""``sqlmesh-runner doctor``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import orjson

from sqlmesh_pipes_runner.cli import options


@click.command()
@options.environment
@options.project
@options.pipes
@options.option(
    "--manifest",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The manifest that Dagster reads. Default: sqlmesh_manifest.json in the project's directory, if it is there.",
)
@options.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the configuration, the warehouse and the state may take to answer, each.",
)
@options.answer_format("For people, a line a check as it is made; or an object with all checks, at the end.")
def doctor(
    environment: str | None,
    projects: tuple[Path, ...],
    store_names: tuple[str, ...],
    manifest: Path | None,
    timeout: float,
    form: str,
    **settings: Any,
) -> None:
    """Say whether everything is in place to run ENVIRONMENT (default: the project's), and what to do where it is not.

    Looks at the project, versions, configuration, locks, warehouse, state, environment, manifest and what Dagster has handed
    over: `ok`, `NOT OK`, or `-` for what cannot be told because of an earlier one. Writes nothing; makes and migrates no state.

    \b
    Examples:
      sqlmesh-runner doctor prod --project warehouse
      sqlmesh-runner doctor prod --project warehouse --format json

    \b
    Exit status, by the first that is not ok:
                 0 everything is ok
                 1 the manifest is stale
                 2 usage or configuration: project, versions, configuration, no such environment, another state, Dagster's context
                 3 infrastructure: warehouse or state out of reach or locked, or the environment is being planned
    """
    from sqlmesh_pipes_runner.checks import exit_code_of_all, lines
    from sqlmesh_pipes_runner.doctor import Doctor
    from sqlmesh_pipes_runner.options import RunOptions

    asked = RunOptions(projects=projects or (Path(),), environment=environment, **settings)
    examined = Doctor(asked, timeout=timeout, manifest=manifest, store_names=store_names)
    made = []
    for check in examined.checks():
        made.append(check)
        if form == "table":
            sys.stdout.buffer.write(lines(check).encode("utf-8", "replace"))
            sys.stdout.buffer.flush()
    exit_code = exit_code_of_all(made)
    if form == "json":
        report = {"exit_code": exit_code, "checks": made}
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
    if examined.hangs:
        os._exit(exit_code)  # what hangs would be waited for, by a driver's own clean-up
    sys.exit(exit_code)
