"""Which locks a run needs."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from sqlmesh.core.config.connection import GCPPostgresConnectionConfig, PostgresConnectionConfig

from sqlmesh_pipes_runner.adapter.places import database_files, is_in_memory
from sqlmesh_pipes_runner.adapter.state import StateContext
from sqlmesh_pipes_runner.errors import LockUnavailableError
from sqlmesh_pipes_runner.locks import (
    CLIENT_KEEPALIVES,
    AdvisoryLock,
    FileLock,
    Holder,
    Lock,
    RunLock,
    host_lock,
)

_PLACE = ("host", "port", "account", "server_hostname", "http_path", "project", "instance_connection_string")
"""Settings that say where a database is. What they leave out makes two states one lock, never one state two."""
_SUFFIX = ".run-lock"


def run_lock(context: StateContext, me: Holder, *, create: bool = True) -> RunLock:
    """What a run of the context's environment must have to itself. Nothing is connected.

    That is the environment in its state, and each DuckDB file that it writes: one process has such a file at a time, whichever
    environment it runs, so it is waited for as well.

    Args:
        context: of the run.
        me: who takes the locks.
        create: make lock files that do not exist; a run has made them, if there was one.
    """
    state = context.state_connection
    locks: list[Lock] = []
    without: list[str] = []
    if not (database_files(state) or is_in_memory(state)):
        try:
            locks.append(_environment_lock(context, state, me, create=create))
        except LockUnavailableError as error:
            without.append(str(error))
    written = {
        os.path.realpath(file.path)
        for connection in (context.connection_config, state)
        for file in database_files(connection)
        if not file.read_only
    }
    locks += (
        FileLock(Path(f"{path}{_SUFFIX}"), me, beside=Path(path), create=create) for path in sorted(written)
    )
    return RunLock(me.environment, locks, without)


def _environment_lock(context: StateContext, state: Any, me: Holder, *, create: bool) -> Lock:
    schema = context.config.get_state_schema(context.gateway) or ""
    if isinstance(state, (PostgresConnectionConfig, GCPPostgresConnectionConfig)):
        settings = CLIENT_KEEPALIVES if isinstance(state, PostgresConnectionConfig) else {}
        # Without host and database: by whatever name they are reached, the server has the locks of a database by itself.
        name = repr(("dagster-sqlmesh-pipes run lock", schema, me.environment))
        return AdvisoryLock(partial(state._connection_factory_with_kwargs, **settings), name, me)
    place = [(setting, str(getattr(state, setting, None))) for setting in _PLACE]
    catalogs = sorted(
        getattr(value, "path", value) for value in (getattr(state, "catalogs", None) or {}).values()
    )
    return host_lock(
        repr((state.type_, place, state.get_catalog(), catalogs, schema, me.environment)), me, create=create
    )
