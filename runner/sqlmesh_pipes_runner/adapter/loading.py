"""Before there is a context: the console, the configurations, and what in them is secret."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml.error import MarkedYAMLError
from sqlmesh.core.config import load_configs as sqlmesh_load_configs
from sqlmesh.core.console import Console, get_console, set_console
from sqlmesh.core.context import Context
from sqlmesh.utils.errors import PythonModelEvalError

from sqlmesh_pipes_runner.errors import RunInterruptedError, UsageError
from sqlmesh_pipes_runner.options import RunOptions
from sqlmesh_pipes_runner.secrets import Masker, secrets_in, secrets_in_environment


@contextmanager
def console_replaced(console: Console) -> Iterator[None]:
    """SQLMesh talks to this console; the one before it is put back whatever happens."""
    before = get_console()
    set_console(console)
    try:
        yield
    finally:
        set_console(before)


@contextmanager
def exits_are_errors() -> Iterator[None]:
    """sys.exit in a user's code is an error of that code: let through, it would end the run, with a status of its own."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        raise PythonModelEvalError(f"{type(error).__name__} was raised: {error}") from error


def load_configs(options: RunOptions) -> dict[Path, Any]:
    """The projects' configurations, with the gateway checked.

    Raises:
        UsageError: SQLMesh refuses a configuration, or there is no such gateway.
    """
    try:
        with exits_are_errors():
            configs: dict[Path, Any] = sqlmesh_load_configs(
                options.config, Context.CONFIG_TYPE, options.projects, dotenv_path=options.dotenv
            )
    except RunInterruptedError:
        raise
    except Exception as error:  # a parser's, pydantic's, or that of the user's own config.py
        raise UsageError(
            f"SQLMesh cannot read the configuration of {options.projects[0]}: "
            # Which settings are secret is not known yet: those of the environment are, which most of them come from.
            + Masker(secrets_in_environment(os.environ)).text(_without_excerpt(error))
        ) from error
    config = configs[options.projects[0].absolute()]
    gateways = sorted(filter(None, config.gateways)) if isinstance(config.gateways, dict) else []
    if options.gateway is not None and options.gateway.lower() not in gateways:
        known = ", ".join(repr(name) for name in gateways) or "none by name"
        raise UsageError(
            f"There is no gateway {options.gateway!r} in the project {options.projects[0]}; it has {known}."
        )
    return configs


def _without_excerpt(error: Exception) -> str:
    """What an error says; of YAML that cannot be read the place only, for the lines around it may hold a password."""
    if not isinstance(error, MarkedYAMLError):
        return str(error)
    # Of a key that is there twice it also quotes both values.
    problem = str(error.problem or error.context).partition(" with value ")[0]
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def secrets_of(configs: Mapping[Path, Any]) -> set[str]:
    """What is secret in the configurations and in the environment.

    That is the values of secret fields in all connections, variables and notification targets, and what stands in connection strings and
    URLs in them or in the statements around a run. Dumped without warnings: pydantic's quote values.
    """
    secrets = secrets_in_environment(os.environ)
    for config in configs.values():
        settings: list[Any] = [config.variables, config.before_all, config.after_all]
        connections = [config.default_connection, config.get_default_test_connection()]
        gateways = config.gateways.values() if isinstance(config.gateways, dict) else [config.gateways]
        for gateway in gateways:
            connections += (gateway.connection, gateway.state_connection, gateway.test_connection)
            settings.append(gateway.variables)
        settings += [
            connection.model_dump(mode="python", warnings=False)
            for connection in connections
            if connection is not None
        ]
        targets = [
            *config.notification_targets,
            *(one for user in config.users for one in user.notification_targets),
        ]
        for target in targets:
            dumped = target.model_dump(mode="python", warnings=False)
            # Who knows the address of a webhook may write to it.
            settings.append({"secret" if name == "url" else name: value for name, value in dumped.items()})
        secrets |= secrets_in(settings)
    return secrets
