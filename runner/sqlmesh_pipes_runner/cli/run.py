"""``sqlmesh-runner run``."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sqlmesh_pipes_protocol import ProtocolError, RunRequest, variables
from sqlmesh_pipes_runner import garbage
from sqlmesh_pipes_runner.cli import options
from sqlmesh_pipes_runner.errors import EXIT_OK, RunnerError, StoreError, UsageError
from sqlmesh_pipes_runner.options import DEFAULT_LOCK_SECONDS
from sqlmesh_pipes_runner.progress import Progress, Verbosity, is_terminal

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

    from sqlmesh_pipes_runner.writer import EventWriter, PipesSink, Sink

_PIPES_VARIABLES = ("DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES")


@click.command()
@options.environment
@options.project
@options.what_to_run
@options.option(
    "--concurrent-tasks",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many models to evaluate at once. Default: what the gateway's connection is configured with.",
)
@options.option("--skip-janitor", is_flag=True, help="Do not clean up expired environments and snapshots.")
@options.option(
    "--events",
    metavar="PATH|-",
    help="Write events as JSON lines to a file, which is appended to, or to standard output.",
)
@options.option(
    "--grace-period",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long batches that run may go on after SIGTERM or SIGINT.",
)
@options.option(
    "--lock-timeout",
    type=click.FloatRange(min=0),
    default=DEFAULT_LOCK_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another run of the environment; 0: not at all.",
)
@options.option(
    "--junit",
    metavar="PATH",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write JUnit XML: models and audits as cases.",
)
@options.option(
    "--markdown",
    metavar="PATH",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Append Markdown, as for a job's summary.",
)
@options.option(
    "--github", is_flag=True, help="Print GitHub's annotations, which point at the models' files."
)
@options.option(
    "--fail-on",
    multiple=True,
    type=click.Choice(["skipped-upstream", "warn-audit", "nothing"]),
    help="What else makes the exit status 1: models that had to wait for others or a signal; audits that only warn. "
    "`nothing`: 0 even if models failed. May be given several times.",
)
@options.pipes
@click.option("--dagster-pipes-context", hidden=True)
@click.option("--dagster-pipes-messages", hidden=True)
@options.option("--verbose", "-v", is_flag=True, help="Show batches, all audits, and what SQLMesh says.")
@options.option("--quiet", "-q", is_flag=True, help="Show failures and the summary only.")
def run(
    environment: str | None,
    projects: tuple[Path, ...],
    select_models: tuple[str, ...],
    no_auto_upstream: bool,
    events: str | None,
    grace_period: float,
    lock_timeout: float,
    verbose: bool,
    quiet: bool,
    junit: Path | None,
    markdown: Path | None,
    github: bool,
    store_names: tuple[str, ...],
    dagster_pipes_context: str | None,
    dagster_pipes_messages: str | None,
    **settings: Any,
) -> None:
    """Evaluate what is due in ENVIRONMENT (default: the project's), as `sqlmesh run` does.

    One run of an environment at a time: a second one waits until the first has ended.

    \b
    Exit status: 0 success, or nothing to do
                 1 a model or a blocking audit failed
                 2 usage or configuration: no such project, environment, gateway, model
                 3 infrastructure: state or warehouse out of reach, or locked; or another run did not end in time
               130 interrupted
    Started by Dagster, the process exits 0 when it has reported its outcome; --events and --select-model by a variable are left
    aside, for Dagster takes the events and says which models to run.

    \b
    Examples:
      sqlmesh-runner run prod --project warehouse
      sqlmesh-runner run prod --select-model '+marts.orders' --ignore-cron
      sqlmesh-runner run prod --quiet --events run.jsonl --junit junit.xml
    """
    if options.is_own_process():
        garbage.hold_back()
    verbosity = _verbosity(verbose, quiet)
    if "nothing" in settings["fail_on"] and len(set(settings["fail_on"])) > 1:
        raise click.UsageError("--fail-on nothing excludes the others.")
    at_terminal = is_terminal(sys.stderr, os.environ)
    projects = projects or (Path(),)
    early_error: Exception | None = None
    request: RunRequest | None = None
    run_id: str | None = None
    pipes: PipesContext | None = None
    sink: Sink | None
    # Some clients cannot set variables, and give arguments.
    given = zip(_PIPES_VARIABLES, (dagster_pipes_context, dagster_pipes_messages), strict=True)
    handed_over = {**os.environ, **{name: value for name, value in given if value is not None}}
    try:
        if all(name in handed_over for name in _PIPES_VARIABLES):
            if events is not None and options.is_given("events"):
                raise click.UsageError("--events does not go with Dagster Pipes, which takes the events.")
            at_terminal = False
            pipes, sink = _open_pipes(handed_over, store_names)
            run_id = RunRequest.run_id_in(pipes.extras)
            try:
                request = RunRequest.from_extras(pipes.extras)
            except ProtocolError as error:
                early_error = error
            if request is not None and not options.is_given("select_models"):
                select_models = ()  # Dagster says which models to run: a variable of the image is for runs by hand
        else:
            at_terminal = at_terminal and not (
                events == "-" and os.isatty(1)
            )  # each line would go through the view
            sink = _event_sink(events)
        reports = None
        if junit or markdown or github:
            from sqlmesh_pipes_runner.reports.files import Reports

            reports = Reports(
                projects, environment=environment, junit=junit, markdown=markdown, annotations=github
            )
    except StoreError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except RunnerError as error:
        _closed(pipes)
        raise click.UsageError(str(error)) from error

    from sqlmesh_pipes_runner.options import RunOptions
    from sqlmesh_pipes_runner.run import Run
    from sqlmesh_pipes_runner.writer import EventWriter, PipesSink

    exact = request.models if request else None
    writer: EventWriter = EventWriter(run_id or str(uuid.uuid4()), sink, on_broken=lambda error: lost(error))
    progress = _progress(verbosity, at_terminal=at_terminal, waits=pipes is None)
    the_run = Run(
        RunOptions(
            projects=projects,
            environment=environment,
            select_models=select_models or None,
            exact_models=exact,
            auto_upstream=request.include_upstream if exact is not None and request else not no_auto_upstream,
            **settings,
        ),
        writer,
        progress,
        grace_seconds=grace_period,
        lock_seconds=lock_timeout,
        dagster_run_id=pipes.run_id if pipes is not None else None,
        reports=reports,
    )

    def lost(error: OSError) -> None:
        with contextlib.suppress(OSError, ValueError):  # a model may have closed standard error
            click.echo(f"Events can no longer be written: {error.strerror}.", err=True)
        if pipes is not None:
            the_run.cancellation.request("Dagster no longer listens")

    if isinstance(sink, PipesSink):
        sink.watch(writer.give_up)
    try:
        exit_code = the_run.execute(early_error)
    finally:
        progress.close()
        is_told = _closed(pipes)
    sys.exit(EXIT_OK if is_told else exit_code)


def _closed(pipes: PipesContext | None) -> bool:
    """Whether Dagster has had everything."""
    if pipes is None:
        return False
    try:
        pipes.close()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # a model may have closed standard error
            click.echo(f"Dagster does not know how the run ended: {error.strerror}.", err=True)
        return False
    return True


def _verbosity(verbose: bool, quiet: bool) -> Verbosity:
    if verbose and quiet:
        if options.is_given("verbose") == options.is_given("quiet"):
            raise click.UsageError("--verbose and --quiet exclude each other.")
        verbose, quiet = options.is_given("verbose"), options.is_given("quiet")
    return Verbosity.VERBOSE if verbose else Verbosity.QUIET if quiet else Verbosity.NORMAL


def _progress(verbosity: Verbosity, *, at_terminal: bool, waits: bool) -> Progress:
    if verbosity is Verbosity.QUIET or not at_terminal:
        return Progress(verbosity, waits=waits)
    from sqlmesh_pipes_runner.live import LiveProgress

    # Of its own: a model may close standard error, and the view must be taken off all the same.
    terminal = os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, errors="backslashreplace")
    return LiveProgress(verbosity, stream=terminal)


def _open_pipes(handed_over: Mapping[str, str], store_names: Sequence[str]) -> tuple[PipesContext, PipesSink]:
    from dagster_pipes import PipesMappingParamsLoader, open_dagster_pipes

    from sqlmesh_pipes_runner.handover import ContextLoader
    from sqlmesh_pipes_runner.writer import PipesSink, RunnerMessageWriter

    writer = RunnerMessageWriter(store_names)
    try:
        pipes = open_dagster_pipes(
            context_loader=ContextLoader(store_names),
            message_writer=writer,
            params_loader=PipesMappingParamsLoader(handed_over),
        )
    finally:
        for name in _PIPES_VARIABLES:  # not for the processes that a model starts
            os.environ.pop(name, None)
        for name in [name for name in os.environ if name.startswith(variables.PREFIX)]:
            del os.environ[name]
    return pipes, PipesSink(pipes, writer)


def _event_sink(events: str | None) -> Sink | None:
    from sqlmesh_pipes_runner import writer

    if events is None:
        return None
    patience = writer.READER_PATIENCE
    try:
        descriptor = (
            writer.claim_stream(1) if events == "-" else writer.open_append(Path(events), patience=patience)
        )
        return writer.sink_of(descriptor, patience=patience)
    except OSError as error:
        raise UsageError(f"Events cannot be written to standard output: {error.strerror}.") from error
