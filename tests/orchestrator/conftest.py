"""Manifests made by hand: the unit tests of this side need no SQLMesh."""

import dataclasses
from collections.abc import Callable

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import SQLMeshProject, sqlmesh_assets
from sqlmesh_pipes_protocol.events import Timestamp, Versions
from sqlmesh_pipes_protocol.manifest import (
    DEFAULT_MANIFEST_NAME,
    AuditUse,
    Column,
    ColumnSource,
    Manifest,
    Model,
    StandaloneAudit,
    write_manifest,
)


def make_model(*parts: str, **changes: object) -> Model:
    """A model by the parts of its name: catalog, schema, table."""
    fqn = ".".join(f'"{part}"' for part in parts)
    *_, catalog, schema, table = (None, None, *parts)
    values: dict = {
        "fqn": fqn,
        "name": ".".join(parts),
        "catalog": catalog,
        "schema": schema,
        "table": table,
        "kind": "FULL",
        "source": "sql",
        "dialect": "duckdb",
        "cron": "@daily",
        "cron_tz": None,
        "interval_unit": "day",
        "start": None,
        "tags": (),
        "owner": None,
        "description": None,
        "columns": (),
        "depends_on": (),
        "audits": (),
        "partitioned_by": (),
        "clustered_by": (),
        "grain": (),
        "data_hash": "1",
        "query": "SELECT 1",
        "path": None,
    }
    return Model(**{**values, **changes})


def make_audit(audit: str, *, blocking: bool = True, **arguments: str) -> AuditUse:
    return AuditUse(
        audit=audit,
        name=audit,
        arguments=arguments,
        blocking=blocking,
        skip=False,
        query="SELECT 1",
        dialect="duckdb",
    )


def make_standalone_audit(name: str, **changes: object) -> StandaloneAudit:
    values: dict = {
        "name": name,
        "depends_on": (),
        "cron": "@daily",
        "blocking": False,
        "skip": False,
        "query": "SELECT 1",
        "dialect": "duckdb",
        "description": None,
        "owner": None,
        "tags": (),
    }
    return StandaloneAudit(**{**values, **changes})


def make_column(name: str, type_: str | None = "INT", *sources: tuple[str, str], **changes: object) -> Column:
    """A column, and the models and columns that it is computed from."""
    return Column(
        name=name,
        type=type_,
        sources=tuple(ColumnSource(model=model, column=column) for model, column in sources),
        **changes,  # type: ignore[arg-type]
    )


def make_manifest(*models: Model, **changes: object) -> Manifest:
    manifest = Manifest(
        v="1.0",
        created_at=Timestamp("2026-01-01T00:00:00Z"),
        versions=Versions(runner="0", sqlmesh="0", python="3"),
        projects=("project",),
        gateway=None,
        engine="duckdb",
        default_catalog="db",
        digest="",
        models=models,
        external_models=(),
        standalone_audits=(),
    )
    return dataclasses.replace(manifest, **changes)  # type: ignore[arg-type]


@pytest.fixture
def model() -> Callable[..., Model]:
    return make_model


@pytest.fixture
def audit() -> Callable[..., AuditUse]:
    return make_audit


@pytest.fixture
def column() -> Callable[..., Column]:
    return make_column


@pytest.fixture
def standalone_audit() -> Callable[..., StandaloneAudit]:
    return make_standalone_audit


@pytest.fixture
def manifest() -> Callable[..., Manifest]:
    return make_manifest


@pytest.fixture
def project(tmp_path) -> Callable[..., SQLMeshProject]:
    """A project directory in which nothing stands but a manifest."""

    def make(made: Manifest | Model, *others: Model) -> SQLMeshProject:
        manifest = made if isinstance(made, Manifest) else make_manifest(made, *others)
        write_manifest(manifest, tmp_path / DEFAULT_MANIFEST_NAME)
        return SQLMeshProject(tmp_path)

    return make


@pytest.fixture
def define(project) -> Callable[..., dg.AssetsDefinition]:
    """The assets of a manifest, or of models, as Dagster has loaded and accepted them."""

    def make(*made: Manifest | Model, **parameters: object) -> dg.AssetsDefinition:
        @sqlmesh_assets(project=project(*made), **parameters)
        def warehouse(context: dg.AssetExecutionContext):
            yield from ()

        dg.Definitions([warehouse]).resolve_asset_graph()
        return warehouse

    return make


@pytest.fixture
def spec_of(define) -> Callable[..., dg.AssetSpec]:
    """The asset of the last of some models, as Dagster has loaded and accepted it."""

    def make(*models: Model, **parameters: object) -> dg.AssetSpec:
        definition = define(*models, **parameters)
        return next(s for s in definition.specs if s.metadata["sqlmesh/model"] == models[-1].fqn)

    return make
