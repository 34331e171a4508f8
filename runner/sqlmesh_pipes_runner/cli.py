"""The command line: ``sqlmesh-runner``."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import orjson

from sqlmesh_pipes_protocol import (
    PROTOCOL_VERSION,
    ManifestError,
    ProtocolError,
    RunRequest,
    due_schema,
    dump_due_report,
    event_schema,
    manifest_schema,
)
from sqlmesh_pipes_runner.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, NoAnswerError, RunnerError
from sqlmesh_pipes_runner.progress import Progress, Verbosity

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

    from sqlmesh_pipes_runner.writer import EventWriter, Sink

Command = TypeVar("Command", bound=Callable[..., object])

_PIPES_VARIABLES = ("DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES")

_project = click.option(
    "--project",
    "-p",
    "projects",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A SQLMesh project's directory; several for a multi-repository project. Default: the current one.",
)
_gateway = click.option("--gateway", metavar="NAME", help="A gateway of the project. Default: the project's.")
_config = click.option("--config", metavar="NAME", help="A config object in config.py. Default: config.")


def _what_to_run(command: Command) -> Command:
    """The options that say which models of an environment, and which time."""
    options = (
        click.option(
            "--select-model",
            "select_models",
            multiple=True,
            metavar="EXPRESSION",
            help="Models to run, in SQLMesh's selection syntax. May be given several times.",
        ),
        click.option(
            "--no-auto-upstream", is_flag=True, help="Do not also run what the selected models read."
        ),
        click.option(
            "--ignore-cron",
            is_flag=True,
            help="Run all missing intervals, whether a cron has elapsed or not.",
        ),
        click.option("--start", metavar="TIME", help="Start of the interval to run."),
        click.option("--end", metavar="TIME", help="End of the interval to run."),
        click.option("--execution-time", metavar="TIME", help="What counts as now. Default: now."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    version("dagster-sqlmesh-pipes"), message=f"sqlmesh-runner %(version)s, protocol {PROTOCOL_VERSION}"
)
def main() -> None:
    """Run what is deployed in a SQLMesh environment, and tell exactly what happened to each model."""


@main.command()
@click.argument("environment", required=False)
@_project
@_gateway
@_config
@_what_to_run
@click.option(
    "--concurrent-tasks",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many models to evaluate at once. Default: what the gateway's connection is configured with.",
)
@click.option("--skip-janitor", is_flag=True, help="Do not clean up expired environments and snapshots.")
@click.option(
    "--events",
    metavar="PATH|-",
    help="Write events as JSON lines to a file, which is appended to, or to standard output.",
)
@click.option(
    "--grace-period",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long batches that run may go on after SIGTERM or SIGINT.",
)
@click.option("--verbose", "-v", is_flag=True, help="Show batches, all audits, and what SQLMesh says.")
@click.option("--quiet", "-q", is_flag=True, help="Show failures and the summary only.")
def run(
    environment: str | None,
    projects: tuple[Path, ...],
    select_models: tuple[str, ...],
    no_auto_upstream: bool,
    events: str | None,
    grace_period: float,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Evaluate what is due in ENVIRONMENT (default: the project's), as `sqlmesh run` does.

    \b
    Exit status: 0 success, or nothing to do
                 1 a model or a blocking audit failed
                 2 usage or configuration: no such project, environment, gateway, model
                 3 infrastructure: state or warehouse out of reach, or locked
               130 interrupted
    Started by Dagster, the process exits 0 when it has reported its outcome.
    """
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet exclude each other.")
    verbosity = Verbosity.VERBOSE if verbose else Verbosity.QUIET if quiet else Verbosity.NORMAL
    projects = projects or (Path(),)
    early_error: Exception | None = None
    request: RunRequest | None = None
    run_id: str | None = None
    pipes: PipesContext | None = None
    sink: Sink | None
    try:
        if all(name in os.environ for name in _PIPES_VARIABLES):
            if events is not None:
                raise click.UsageError("--events does not go with Dagster Pipes, which takes the events.")
            pipes = _open_pipes()
            run_id = RunRequest.run_id_in(pipes.extras)
            try:
                request = RunRequest.from_extras(pipes.extras)
            except ProtocolError as error:
                early_error = error
            sink = _pipes_sink(pipes)
        else:
            sink = _event_sink(events)
    except RunnerError as error:
        raise click.UsageError(str(error)) from error

    from sqlmesh_pipes_runner.options import RunOptions
    from sqlmesh_pipes_runner.run import Run
    from sqlmesh_pipes_runner.writer import EventWriter

    exact = request.models if request else None
    writer: EventWriter = EventWriter(run_id or str(uuid.uuid4()), sink, on_broken=lambda error: lost(error))
    the_run = Run(
        RunOptions(
            projects=projects,
            environment=environment,
            select_models=select_models or None,
            exact_models=exact,
            auto_upstream=request.include_upstream if exact is not None and request else not no_auto_upstream,
            **options,
        ),
        writer,
        Progress(verbosity),
        grace_seconds=grace_period,
    )

    def lost(error: OSError) -> None:
        with contextlib.suppress(OSError, ValueError):  # a model may have closed standard error
            click.echo(f"Events can no longer be written: {error.strerror}.", err=True)
        if pipes is not None:
            the_run.cancellation.request("Dagster no longer listens")

    exit_code = the_run.execute(early_error)
    if pipes is not None:
        try:
            pipes.close()
            exit_code = EXIT_OK
        except OSError as error:
            click.echo(f"Dagster does not know how the run ended: {error.strerror}.", err=True)
    sys.exit(exit_code)


@main.command()
@_project
@_gateway
@_config
@click.option(
    "--output",
    "-o",
    metavar="PATH|-",
    help="Where to write it. Default: sqlmesh_manifest.json in the project's directory.",
)
@click.option(
    "--no-column-lineage", is_flag=True, help="Do not tell what each column is computed from: some faster."
)
@click.option(
    "--environment",
    metavar="NAME",
    help="Tell what is deployed in this environment as well, read from SQLMesh's state.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing: say by the exit status whether the manifest fits the project's files. Needs no SQLMesh.",
)
def manifest(
    projects: tuple[Path, ...],
    gateway: str | None,
    config: str | None,
    output: str | None,
    no_column_lineage: bool,
    environment: str | None,
    check: bool,
) -> None:
    """Write what Dagster needs to know of the project: models, audits, dependencies, columns.

    \b
    Exit status: 0 written; with --check: it fits
                 1 SQLMesh cannot load the project; with --check: the manifest is stale
                 2 usage or configuration; with --check: the manifest is missing or cannot be used
                 3 infrastructure: state or warehouse out of reach, or locked
    """
    from sqlmesh_pipes_protocol.manifest import DEFAULT_MANIFEST_NAME, dump_manifest, write_manifest
    from sqlmesh_pipes_runner.options import RunOptions

    projects = projects or (Path(),)
    path = Path(output) if output else projects[0] / DEFAULT_MANIFEST_NAME
    if check:
        if environment is not None or no_column_lineage or output == "-":
            raise click.UsageError(
                "--check looks at a file that there is: --environment, --no-column-lineage and --output - "
                "are for writing one."
            )
        _check_manifest(path, projects, gateway)
        return
    options = RunOptions(projects=projects, gateway=gateway, config=config, environment=environment)
    with _told():
        _check_projects(projects)
        from sqlmesh_pipes_runner.manifest import build_manifest

        built = build_manifest(options, column_lineage=not no_column_lineage)
    if output == "-":
        sys.stdout.buffer.write(dump_manifest(built))
        return
    try:
        write_manifest(built, path)
    except OSError as error:
        raise click.UsageError(f"The manifest cannot be written to {path}: {error.strerror}.") from error
    deployed = (
        f", {len(built.deployment.models)} deployed in {built.deployment.environment}"
        if built.deployment
        else ""
    )
    click.echo(
        f"{path}: {len(built.models)} models, {len(built.external_models)} external{deployed}.", err=True
    )


@main.command()
@click.argument("environment", required=False)
@_project
@_gateway
@_config
@_what_to_run
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people, or as `sqlmesh-runner schema due` describes.",
)
def due(
    environment: str | None,
    projects: tuple[Path, ...],
    select_models: tuple[str, ...],
    no_auto_upstream: bool,
    form: str,
    **options: Any,
) -> None:
    """Say what a run in ENVIRONMENT (default: the project's) would do now, and when each model's next turn is.

    Reads SQLMesh's state and writes nothing. Signals are not asked: a model that waits for one is due.

    \b
    Exit status: 0 whether something is due or not
                 2 usage or configuration: no such project, environment, gateway, model
                 3 infrastructure: state out of reach, or locked
    """
    from sqlmesh_pipes_runner.options import RunOptions

    projects = projects or (Path(),)
    with _told():
        _check_projects(projects)
        from sqlmesh_pipes_runner.due import due_report, table

        report = due_report(
            RunOptions(
                projects=projects,
                environment=environment,
                select_models=select_models or None,
                auto_upstream=not no_auto_upstream,
                **options,
            )
        )
    sys.stdout.buffer.write(dump_due_report(report) if form == "json" else table(report).encode())


_SCHEMAS = {"events": event_schema, "manifest": manifest_schema, "due": due_schema}


@main.command()
@click.argument("subject", type=click.Choice(list(_SCHEMAS)), default="events")
def schema(subject: str) -> None:
    """Print the JSON Schema of a line of the event stream, of the manifest, or of what `due` reports."""
    declared = _SCHEMAS[subject]()
    sys.stdout.buffer.write(orjson.dumps(declared, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _check_manifest(path: Path, projects: tuple[Path, ...], gateway: str | None) -> None:
    """Ends the process unless the manifest fits. In a hook or a health check this has to be fast: without SQLMesh."""
    from sqlmesh_pipes_protocol.manifest import load_manifest, staleness

    with _told():
        _check_projects(projects)
    try:
        reason = staleness(load_manifest(path, projects, gateway), path, projects, gateway)
    except ManifestError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_USAGE)
    except OSError as error:
        click.echo(f"{error.filename} cannot be read: {error.strerror}.", err=True)
        sys.exit(EXIT_USAGE)
    if reason is not None:
        click.echo(reason, err=True)
        sys.exit(EXIT_FAILED)
    click.echo(f"{path} fits.", err=True)


def _check_projects(projects: tuple[Path, ...]) -> None:
    from sqlmesh_pipes_runner.run import check_project

    for project in projects:
        check_project(project)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What is wrong with a question ends the process, with one sentence and the status that says why."""
    try:
        yield
    except NoAnswerError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except RunnerError as error:
        raise click.UsageError(str(error)) from error
    except ModuleNotFoundError as error:
        raise click.UsageError(f"{error}: install dagster-sqlmesh-pipes[sqlmesh].") from error


def _open_pipes() -> PipesContext:
    from dagster_pipes import open_dagster_pipes

    from sqlmesh_pipes_runner.writer import LineMessageWriter

    try:
        return open_dagster_pipes(message_writer=LineMessageWriter())
    finally:
        for name in _PIPES_VARIABLES:  # not for the processes that a model starts
            os.environ.pop(name, None)


def _pipes_sink(pipes: PipesContext) -> Sink:
    from sqlmesh_pipes_runner.writer import PipesSink

    return PipesSink(pipes)


def _event_sink(events: str | None) -> Sink | None:
    from sqlmesh_pipes_runner.writer import DescriptorSink, claim_stream, open_append

    if events is None:
        return None
    return DescriptorSink(claim_stream(1) if events == "-" else open_append(Path(events)))


if __name__ == "__main__":
    main()
