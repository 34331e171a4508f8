"""The command line: ``sqlmesh-runner``. A module a command; SQLMesh is imported by those alone that need it, when they do."""

from __future__ import annotations

from typing import Any

import click

from sqlmesh_pipes_protocol import PROTOCOL_VERSION
from sqlmesh_pipes_runner.cli import options
from sqlmesh_pipes_runner.cli.doctor import doctor
from sqlmesh_pipes_runner.cli.due import due
from sqlmesh_pipes_runner.cli.manifest import manifest
from sqlmesh_pipes_runner.cli.reconcile import reconcile
from sqlmesh_pipes_runner.cli.report import report
from sqlmesh_pipes_runner.cli.run import run
from sqlmesh_pipes_runner.cli.schema import schema


class _Commands(click.Group):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # By the console script and `python -m`, which end with the command. A program that goes on after it is not standalone.
        if kwargs.get("standalone_mode", True):
            kwargs.setdefault("obj", options.OWN_PROCESS)
        return self.main(*args, **kwargs)


def _tell_versions(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if not is_asked or context.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        sqlmesh = version("sqlmesh")
    except PackageNotFoundError:
        sqlmesh = "not installed"
    click.echo(
        f"sqlmesh-runner {version('dagster-sqlmesh-pipes')}, protocol {PROTOCOL_VERSION}, SQLMesh {sqlmesh}"
    )
    context.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog='Completion for bash: eval "$(_SQLMESH_RUNNER_COMPLETE=bash_source sqlmesh-runner)"; zsh and fish likewise.',
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_tell_versions,
    help="Show the version and exit.",
)
def main() -> None:
    """Run what is deployed in a SQLMesh environment, and tell exactly what happened to each model.

    Options can be given as variables too, such as SQLMESH_RUNNER_PROJECT and SQLMESH_RUNNER_GATEWAY; what stands on the command line
    goes before them. A project's .env is read as SQLMesh does.

    \b
    Examples:
      sqlmesh-runner doctor prod --project warehouse          is everything in place?
      sqlmesh-runner due prod --project warehouse             what would run now, and when is the rest due?
      sqlmesh-runner run prod --project warehouse             run it
      sqlmesh-runner run prod --events run.jsonl --junit junit.xml --markdown "$GITHUB_STEP_SUMMARY"
      sqlmesh-runner report run.jsonl --format markdown       and tell about it later
    """


for command in (doctor, run, due, reconcile, report, manifest, schema):
    main.add_command(command)
