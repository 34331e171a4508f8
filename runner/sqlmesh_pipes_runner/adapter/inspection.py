"""A context that is looked at piece by piece: what it connects to, whether that answers, what its state is. Reads only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from sqlmesh.core.environment import Environment
from sqlmesh.core.snapshot import SnapshotTableInfo
from sqlmesh.core.state_sync.base import SCHEMA_VERSION
from sqlmesh.utils import major_minor
from sqlmesh.utils.jinja import ENVIRONMENT, create_var
from sqlmesh.utils.yaml import JINJA_METHODS, YAML

from sqlmesh_pipes_runner.adapter.places import DatabaseFile, database_files
from sqlmesh_pipes_runner.adapter.state import StateContext

Role = Literal["warehouse", "state"]

_UNSET = "__variable_without_value__"


@dataclass(frozen=True)
class StateVersions:
    """Versions in the state, against those that are installed.

    Attributes:
        schema: of SQLMesh's tables; 0 where there are none.
        fits: whether this SQLMesh can work with the state.
        is_older: the state is older than this SQLMesh. Of no meaning where it fits.
    """

    schema: int
    sqlmesh: str
    sqlglot: str
    fits: bool
    is_older: bool


class InspectingContext(StateContext):
    """A context of which each part is tried by itself: nothing is connected before it is asked for."""

    @property
    def has_state_connection(self) -> bool:
        """Whether the state has a connection of its own."""
        return self.config.get_state_connection(self.gateway) is not None

    def connection(self, role: Role) -> Any:
        """The connection's configuration."""
        return self.connection_config if role == "warehouse" else self.state_connection

    def described(self, role: Role) -> str:
        """A connection in words, without user and password."""
        connection = self.connection(role)
        files = self.database_files(role)
        if files:
            return f"{connection.type_} {', '.join(str(file.path) for file in files)}"
        host, port = getattr(connection, "host", None), getattr(connection, "port", None)
        database = connection.get_catalog()
        place = f" at {host}{f':{port}' if port else ''}" if host else ""
        return f"{connection.type_}{place}{f', database {database}' if database else ''}"

    def database_files(self, role: Role) -> tuple[DatabaseFile, ...]:
        """The files that DuckDB opens for a connection."""
        return database_files(self.connection(role))

    def ask_warehouse(self) -> None:
        """Connect, and have a query answered. Raises whatever the driver raises."""
        _ = self.engine_adapter.cursor
        self.engine_adapter.ping()

    def connect_state(self) -> None:
        """Connect to the state, as it is. Raises whatever the driver raises."""
        # Where SQLMesh itself would make or refuse a state, this context has one already.
        self._state_sync = self._new_state_sync()

    def state_versions(self) -> StateVersions:
        """The versions in the state, which is connected."""
        found = self.state_sync.get_versions(validate=False)
        # As `StateReader.get_versions` validates them.
        pairs: list[tuple[Any, Any]] = [
            (major_minor(version("sqlmesh")), major_minor(found.sqlmesh_version)),
            (SCHEMA_VERSION, found.schema_version),
            (major_minor(version("sqlglot")), major_minor(found.sqlglot_version)),
        ]
        differing = next(((here, there) for here, there in pairs if here != there), None)
        return StateVersions(
            schema=found.schema_version,
            sqlmesh=found.sqlmesh_version,
            sqlglot=found.sqlglot_version,
            fits=differing is None,
            is_older=differing is not None and differing[0] > differing[1],
        )


def runnable(environment: Environment) -> list[SnapshotTableInfo]:
    """The environment's models, external ones left out."""
    return [snapshot for snapshot in environment.snapshots if snapshot.is_model and not snapshot.is_external]


@dataclass(frozen=True)
class UnsetVariables:
    """Variables that a configuration asks for without a default, and that have no value: SQLMesh writes None instead.

    Attributes:
        used: those that the gateway's connections are made of.
        others: the others.
    """

    used: tuple[str, ...]
    others: tuple[str, ...]


def unset_variables(projects: Sequence[Path], gateway: str | None) -> UnsetVariables:
    """What the projects' YAML asks for in vain. To be called when .env has been read.

    Args:
        projects: the project directories.
        gateway: the one that is used; None where that is not known, and every gateway counts.
    """
    used: dict[str, None] = {}
    everywhere: dict[str, None] = {}

    def env_var(name: str, default: str | None = None) -> str:
        value = os.environ.get(name, default)
        if value is None:
            everywhere[name] = None
            return f"{_UNSET}{name}{_UNSET}"
        return value

    for project in projects:
        for name in ("config.yaml", "config.yml", "sqlmesh.yaml", "sqlmesh.yml"):
            path = project / name
            if not path.is_file():
                continue
            try:
                template = ENVIRONMENT.from_string(path.read_text(encoding="utf-8"))
                content = YAML().load(
                    template.render({**JINJA_METHODS, "env_var": env_var, "var": create_var({})})
                )
            except Exception:  # noqa: BLE001, S112 - of Jinja, of YAML or of the file: SQLMesh has told it, or passed over it
                continue
            for place, text in _texts(content, ()):
                if _UNSET in text and _is_used(place, gateway):
                    used.update(dict.fromkeys(re.findall(f"{_UNSET}(.*?){_UNSET}", text)))
    return UnsetVariables(tuple(used), tuple(name for name in everywhere if name not in used))


def says_none(context: InspectingContext) -> bool:
    """Whether a connection of the context holds what SQLMesh writes for a variable without a value."""
    roles: tuple[Role, ...] = ("warehouse", "state")
    settings = (context.connection(role).model_dump(mode="python") for role in roles)
    return any("None" in text for one in settings for _, text in _texts(one, ()))


def _is_used(place: tuple[str, ...], gateway: str | None) -> bool:
    if place[:1] == ("default_connection",):
        return True
    if place[:1] != ("gateways",) or len(place) < 3:
        return False
    return (gateway is None or place[1].lower() == gateway.lower()) and place[2] != "test_connection"


def _texts(value: object, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, (*place, str(key)))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, place)
    elif isinstance(value, str):
        yield place, value
