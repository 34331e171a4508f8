"""Options that several commands share, and how a command ends that cannot answer."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from sqlmesh_pipes_runner.errors import NoAnswerError, RunnerError

Command = TypeVar("Command", bound=Callable[..., object])


class Lines(click.types.StringParamType):
    """A text; of a variable each line is one: an expression may hold spaces."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        return [line.strip() for line in rv.splitlines() if line.strip()]


def option(*names: str, of: str = "", **settings: Any) -> Callable[[Command], Command]:
    """A click option that a variable can give as well: ``--skip-janitor`` is ``SQLMESH_RUNNER_SKIP_JANITOR``.

    Args:
        of: a command, whose variable is not to be that of another command's option: ``SQLMESH_RUNNER_REPORT_FORMAT``.
    """
    long = next(name for name in names if name.startswith("--"))
    variable = f"{of}{long}".removeprefix("--").replace("--", "_").replace("-", "_").upper()
    return click.option(*names, envvar=f"SQLMESH_RUNNER_{variable}", show_envvar=True, **settings)


OWN_PROCESS = object()
"""The object of a command line that has its process to itself."""


def is_own_process() -> bool:
    """Whether the process ends with the command, as that of a script; a program that calls the command goes on."""
    return click.get_current_context().obj is OWN_PROCESS


def is_given(name: str) -> bool:
    """Whether a parameter of the command stands on the command line; not by a variable alone."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


environment = click.argument("environment", required=False, envvar="SQLMESH_RUNNER_ENVIRONMENT")


def project(command: Command) -> Command:
    """Which project, and how its configuration is read."""
    return _all(
        command,
        option(
            "--project",
            "-p",
            "projects",
            multiple=True,
            metavar="DIR",
            type=click.Path(path_type=Path),
            help="A SQLMesh project's directory; several for a multi-repository project, "
            f"in the variable with {os.pathsep!r} between them. Default: the current one.",
        ),
        option("--gateway", metavar="NAME", help="A gateway of the project. Default: the project's."),
        option("--config", metavar="NAME", help="A config object in config.py. Default: config."),
        option(
            "--dotenv",
            metavar="PATH",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="A file of variables, instead of the project's .env.",
        ),
    )


def pipes(command: Command) -> Command:
    """By which stores Dagster's message reader and context injector hand over."""
    return option(
        "--pipes",
        "store_names",
        multiple=True,
        type=click.Choice(["s3", "gcs", "azure", "dbfs", "volumes"]),
        help="The store that Dagster's message reader or context injector uses, where it is one. Dagster says it by itself for its own "
        "ones. May be given twice: a store of buckets and one of paths.",
    )(command)


def answer_format(described: str) -> Callable[[Command], Command]:
    """How a command's answer is printed, for people or for programs, as `described` for both."""
    return option(
        "--format",
        "form",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help=described,
    )


def what_to_run(command: Command) -> Command:
    """Which models of an environment, and which time."""
    return _all(
        command,
        option(
            "--select-model",
            "select_models",
            multiple=True,
            metavar="EXPRESSION",
            type=Lines(),
            help="Models to run, in SQLMesh's selection syntax. May be given several times; in the variable, one a line.",
        ),
        option("--no-auto-upstream", is_flag=True, help="Do not also run what the selected models read."),
        option(
            "--ignore-cron",
            is_flag=True,
            help="Run all missing intervals, whether a cron has elapsed or not.",
        ),
        option("--start", metavar="TIME", help="Start of the interval to run."),
        option("--end", metavar="TIME", help="End of the interval to run."),
        option("--execution-time", metavar="TIME", help="What counts as now. Default: now."),
    )


def _all(command: Command, *options: Callable[[Command], Command]) -> Command:
    for add in reversed(options):
        command = add(command)
    return command


def check_projects(projects: tuple[Path, ...]) -> None:
    """Raise UsageError unless each is a SQLMesh project."""
    from sqlmesh_pipes_runner.run import check_project

    for path in projects:
        check_project(path)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What is wrong with a question ends the process, with one sentence and the status that says why."""
    try:
        yield
    except NoAnswerError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except RunnerError as error:
        raise click.UsageError(str(error)) from error
    except ModuleNotFoundError as error:
        raise click.UsageError(f"{error}: install it in the runner's environment.") from error
