"""What Dagster needs to know of a SQLMesh project, in one file that is read without SQLMesh."""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from sqlmesh_pipes_protocol import shapes
from sqlmesh_pipes_protocol.codec import dumps
from sqlmesh_pipes_protocol.digest import project_digest
from sqlmesh_pipes_protocol.errors import DecodeError, ManifestError, VersionMismatchError
from sqlmesh_pipes_protocol.events import Timestamp, Versions
from sqlmesh_pipes_protocol.version import check_version

DEFAULT_MANIFEST_NAME = "sqlmesh_manifest.json"
"""Where a manifest stands unless told otherwise: in the (first) project directory, under this name."""
MAX_MANIFEST_BYTES = 512 * 1024 * 1024
"""A larger manifest is not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnSource:
    """A column that another one is computed from."""

    model: str
    """FQN of a model or an external model."""
    column: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a model's table."""

    name: str
    type: str | None
    """As SQL, in the model's dialect. None where SQLMesh cannot tell."""
    description: str | None = None
    sources: tuple[ColumnSource, ...] = ()
    """What it is computed from, one step up. Empty for constants, for Python models, and where SQLMesh cannot tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditUse:
    """An audit as a model uses it."""

    audit: str
    """Identity, see `sqlmesh_pipes_protocol.audits`."""
    name: str
    arguments: Mapping[str, str]
    blocking: bool
    skip: bool
    query: str | None
    """As written, before it is rendered for an interval."""
    dialect: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model of the project. Embedded models are here too, with their kind; external ones are not."""

    fqn: str
    name: str
    """As the project writes it."""
    catalog: str | None
    schema: str | None
    table: str
    kind: str
    """SQLMesh's name of the kind: FULL, VIEW, INCREMENTAL_BY_TIME_RANGE, EMBEDDED …"""
    source: str
    """``sql``, ``python`` or ``seed``."""
    dialect: str | None
    cron: str
    cron_tz: str | None
    interval_unit: str
    start: str | None
    tags: tuple[str, ...]
    owner: str | None
    description: str | None
    columns: tuple[Column, ...]
    depends_on: tuple[str, ...]
    """FQNs of models and external models that it reads."""
    audits: tuple[AuditUse, ...]
    partitioned_by: tuple[str, ...]
    clustered_by: tuple[str, ...]
    grain: tuple[str, ...]
    data_hash: str
    query: str | None
    path: str | None
    """Relative to its project directory."""
    time_column: str | None = None
    project: str | None = None
    project_index: int = 0
    """Which of the manifest's projects its file is in."""
    end: str | None = None
    metadata_hash: str | None = None
    """SQLMesh's hash of what does not determine the data: audits, owner, cron, description …"""

    @property
    def view_name(self) -> str:
        """SQLMesh's word for `table`, which is the name of the view that readers query."""
        return self.table

    @property
    def schema_name(self) -> str:
        """SQLMesh's word for `schema`."""
        return self.schema or ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalModel:
    """A table that the project reads and SQLMesh does not build."""

    fqn: str
    name: str
    catalog: str | None
    schema: str | None
    table: str
    description: str | None
    columns: tuple[Column, ...]
    declared: bool
    """False where a model reads it and no external model is declared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StandaloneAudit:
    """An audit that belongs to no model and reads several."""

    name: str
    depends_on: tuple[str, ...]
    cron: str
    blocking: bool
    skip: bool
    query: str | None
    dialect: str | None
    description: str | None
    owner: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployedModel:
    """A model's version in an environment, by the hashes that `Model` has of the project's version."""

    data_hash: str
    metadata_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """What an environment held when the manifest was written."""

    environment: str
    finalized_at: Timestamp | None
    """None while a plan is being applied."""
    models: Mapping[str, DeployedModel]
    """By FQN."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A SQLMesh project as its code location sees it."""

    v: str
    """Protocol version of the writer."""
    created_at: Timestamp
    versions: Versions
    projects: tuple[str, ...]
    """Names of the project directories, the first one first."""
    gateway: str | None
    engine: str
    """SQLMesh's name of the default gateway's engine: duckdb, postgres, snowflake …"""
    default_catalog: str | None
    digest: str
    """SHA-256 over the project's files, see `sqlmesh_pipes_protocol.digest`."""
    models: tuple[Model, ...]
    """In topological order: a model stands after what it reads."""
    external_models: tuple[ExternalModel, ...]
    standalone_audits: tuple[StandaloneAudit, ...]
    deployment: Deployment | None = None
    """Only where the manifest was asked to tell it."""


def load_manifest(path: Path, projects: Sequence[Path] = (), gateway: str | None = None) -> Manifest:
    """Read and validate a manifest.

    Args:
        path: where it stands.
        projects: the directories that it is to be of, for the command that writes it; by default the one that it stands in.
        gateway: that it is to be of, for the same.

    Raises:
        ManifestError: there is none, it is damaged, or of another protocol major; it says how to make a new one.
    """
    remedy = _remedy(path, projects, gateway)
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            # Of a FIFO or a device the end may never come.
            raise ManifestError(f"The manifest {path} is no regular file. {remedy}")
        if status.st_size > MAX_MANIFEST_BYTES:
            raise ManifestError(f"The manifest {path} is larger than {MAX_MANIFEST_BYTES:,} bytes. {remedy}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"There is no SQLMesh manifest at {path}. {remedy}") from None
    except OSError as error:
        raise ManifestError(f"The manifest {path} cannot be read: {error.strerror}. {remedy}") from error
    try:
        return read_manifest(content)
    except (DecodeError, VersionMismatchError) as error:
        raise ManifestError(f"The manifest {path} cannot be used: {error}. {remedy}") from error


def read_manifest(content: bytes) -> Manifest:
    """A manifest from its JSON.

    Raises:
        DecodeError: it is no JSON, or has another shape.
        VersionMismatchError: it is of another protocol major.
    """
    with collector_paused():
        try:
            value = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise DecodeError("$", "JSON", str(error)) from error
        if isinstance(value, dict):
            check_version(value.get("v"), subject="manifest")
        return shapes.read(Manifest, value)


_MAX_FREEZES = 8
_freezes = 0


@contextlib.contextmanager
def collector_paused(*, for_life: bool = False) -> Iterator[None]:
    """No garbage collection meanwhile: for making many objects that stay, which the collector would walk again and again.

    A project of 1,000 models loads in half the time.

    Args:
        for_life: what is alive at the end stays for the process's life, as a code location's definitions do, and the collector leaves
            it alone from then on (`gc.freeze`). References are counted as ever; only cycles among these objects are not found, and what
            else is garbage at that time is kept: so this is done for the first few definitions of a process, and for no more.
    """
    global _freezes
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        if for_life and was_enabled and _freezes < _MAX_FREEZES:
            _freezes += 1
            gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


def staleness(
    manifest: Manifest, path: Path, projects: Sequence[Path], gateway: str | None = None
) -> str | None:
    """What of a manifest no longer fits its project, and the command that mends it, in one sentence each; None if all does.

    Args:
        manifest: as it was read.
        path: where it stands, for the message.
        projects: the project directories, the first one first.
        gateway: the one that is asked for; None for whichever the manifest is of.
    """
    remedy = _remedy(path, projects, gateway)
    if gateway is not None and manifest.gateway is not None and gateway.lower() != manifest.gateway.lower():
        return f"The manifest {path} is of the gateway {manifest.gateway!r}, and {gateway!r} is asked for. {remedy}"
    if project_digest(projects) != manifest.digest:
        listed = ", ".join(map(str, projects))
        return f"The manifest {path} is stale: files of {listed} have changed since {manifest.created_at}. {remedy}"
    return None


def _remedy(path: Path, projects: Sequence[Path], gateway: str | None) -> str:
    projects = projects or (path.parent,)
    command = ["sqlmesh-runner", "manifest"]
    for project in projects:
        command += ["--project", str(project)]
    if gateway is not None:
        command += ["--gateway", gateway]
    if path != projects[0] / DEFAULT_MANIFEST_NAME:
        command += ["--output", str(path)]
    return f"Write it with: {shlex.join(command)}"


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    return dumps(manifest, orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Put the manifest in its place in one step: a reader sees the old one or the new one, whole.

    Raises:
        OSError: the directory does not exist or cannot be written to.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(dump_manifest(manifest))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
