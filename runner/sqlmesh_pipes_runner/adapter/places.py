"""Where a connection leads, as far as its configuration says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmesh.core.config import DuckDBConnectionConfig
from sqlmesh.core.config.connection import DuckDBAttachOptions

_ELSEWHERE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
"""What begins a DuckDB path that is no file of this host: ``:memory:`` apart, ``md:``, ``s3://``, ``ducklake:`` …"""


@dataclass(frozen=True)
class DatabaseFile:
    """A file that DuckDB opens in this process, and locks."""

    path: Path
    read_only: bool


def database_files(connection: Any) -> tuple[DatabaseFile, ...]:
    """The files that DuckDB opens for a connection, of which the configuration is given."""
    return tuple(
        DatabaseFile(Path(path).absolute(), read_only)
        for path, read_only in _attached(connection)
        if not _ELSEWHERE.match(path)
    )


def is_in_memory(connection: Any) -> bool:
    """Whether a connection is to a DuckDB that no other process sees."""
    return isinstance(connection, DuckDBConnectionConfig) and not list(_attached(connection))


def _attached(connection: Any) -> Iterator[tuple[str, bool]]:
    """What DuckDB opens that is not in memory, and whether it only reads there. Databases of other kinds have their kind before them."""
    if not isinstance(connection, DuckDBConnectionConfig):
        return
    for one in (connection.database, *(connection.catalogs or {}).values()):
        if isinstance(one, DuckDBAttachOptions):
            path, read_only = one.path if one.type == "duckdb" else f"{one.type}:{one.path}", one.read_only
        else:
            path, read_only = one or "", False
        if path and not path.startswith(":memory:"):
            yield path, read_only
