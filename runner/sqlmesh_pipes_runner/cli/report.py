"""``sqlmesh-runner report``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sqlmesh_pipes_protocol import VersionMismatchError
from sqlmesh_pipes_runner.cli import options


@click.command()
@click.argument("events", type=click.Path(path_type=Path), metavar="FILE")
@options.option(
    "--format",
    "form",
    of="report",
    type=click.Choice(["table", "markdown", "junit", "json", "github"]),
    default="table",
    show_default=True,
    help="For people, a job's summary, a CI system's test report, programs, or as GitHub's annotations.",
)
@options.option(
    "--output",
    "-o",
    of="report",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Default: standard output.",
)
@options.option("--run-id", metavar="ID", help="One of several runs in the file. Default: the last one.")
@options.option(
    "--project",
    "-p",
    "projects",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the models' files are, for annotations. Default: the current directory.",
)
def report(
    events: Path, form: str, output: Path | None, run_id: str | None, projects: tuple[Path, ...]
) -> None:
    """Tell what happened in a run, from the events that `run --events FILE` wrote. Needs no SQLMesh.

    A run that was killed is told as far as its events go.

    \b
    Examples:
      sqlmesh-runner report run.jsonl
      sqlmesh-runner report run.jsonl --format junit --output junit.xml
      sqlmesh-runner report run.jsonl --format markdown >> "$GITHUB_STEP_SUMMARY"

    \b
    Exit status: 0 whatever happened in the run
                 2 there is no such file, or no run in it
    """
    from sqlmesh_pipes_runner import reports
    from sqlmesh_pipes_runner.reports.files import replace_file
    from sqlmesh_pipes_runner.reports.sources import SourceFiles

    with options.told():
        try:
            story = reports.read_story(events, run_id)
        except VersionMismatchError as error:
            raise click.UsageError(f"{events}: {error}") from error
    match form:
        case "markdown":
            text = reports.markdown(story)
        case "junit":
            text = reports.junit(story)
        case "json":
            text = reports.summary(story)
        case "github":
            text = reports.github(story, SourceFiles(projects or (Path(),)).of)
        case _:
            text = reports.table(story)
    if output is None:
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        return
    try:
        replace_file(output, text)
    except OSError as error:
        raise click.UsageError(f"The report cannot be written to {output}: {error.strerror}.") from error
