"""Manifests made by hand: the unit tests of this side need no SQLMesh."""

from collections.abc import Callable

import pytest

from sqlmesh_pipes_protocol.events import Timestamp, Versions
from sqlmesh_pipes_protocol.manifest import AuditUse, Manifest, Model


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


def make_manifest(*models: Model) -> Manifest:
    return Manifest(
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


@pytest.fixture
def model() -> Callable[..., Model]:
    return make_model


@pytest.fixture
def audit() -> Callable[..., AuditUse]:
    return make_audit


@pytest.fixture
def manifest() -> Callable[..., Manifest]:
    return make_manifest
