"""Realistic manifests of any size, made without SQLMesh: layers of models, fan-in, mixed kinds and crons, audits, column docs."""

from __future__ import annotations

import random
from pathlib import Path

from sqlmesh_pipes_protocol.events import Timestamp, Versions
from sqlmesh_pipes_protocol.manifest import (
    AuditUse,
    Column,
    ColumnSource,
    ExternalModel,
    Manifest,
    Model,
    write_manifest,
)
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION

KINDS = ("FULL", "VIEW", "INCREMENTAL_BY_TIME_RANGE", "INCREMENTAL_BY_UNIQUE_KEY")
CRONS = ("@daily", "@hourly", "0 3 * * *", "30 */2 * * *", "0 6 * * 1-5", "@weekly", "@monthly")
COLUMNS = 10


def make_manifest(models: int, audits: int = 3) -> Manifest:
    """A project of so many models, each with so many audits and ten documented columns; the same each time."""
    chance = random.Random(models)
    externals = [_external(number) for number in range(max(models // 50, 1))]
    made: list[Model] = []
    for number in range(models):
        earlier = made[-200:]
        parents = chance.sample(earlier, min(len(earlier), chance.randint(1, 4)))
        read = [parent.fqn for parent in parents] or [chance.choice(externals).fqn]
        made.append(_model(number, read, audits, chance))
    return Manifest(
        v=PROTOCOL_VERSION,
        created_at=Timestamp("2026-01-01T00:00:00Z"),
        versions=Versions(runner="0", sqlmesh="0", python="3"),
        projects=("benchmark",),
        gateway="local",
        engine="duckdb",
        default_catalog="db",
        digest="",
        models=tuple(made),
        external_models=tuple(externals),
        standalone_audits=(),
    )


def write(path: Path, models: int) -> Path:
    write_manifest(make_manifest(models), path)
    return path


def _model(number: int, read: list[str], audits: int, chance: random.Random) -> Model:
    schema, table = f"layer_{number // 100}", f"model_{number}"
    columns = tuple(
        Column(
            name=f"column_{place}",
            type=chance.choice(("INT", "TEXT", "DATE", "DECIMAL(18, 2)")),
            description=f"What column {place} of this model means to its readers.",
            sources=(ColumnSource(model=chance.choice(read), column=f"column_{place}"),),
        )
        for place in range(COLUMNS)
    )
    query = (
        "SELECT\n"
        + ",\n".join(f"  {column.name} AS {column.name}" for column in columns)
        + f"\nFROM {read[0]}"
    )
    return Model(
        fqn=f'"db"."{schema}"."{table}"',
        name=f"{schema}.{table}",
        catalog="db",
        schema=schema,
        table=table,
        kind=chance.choice(KINDS),
        source="sql",
        dialect="duckdb",
        cron=chance.choice(CRONS),
        cron_tz=None,
        interval_unit="day",
        start="2026-01-01",
        tags=(f"team_{number % 7}", "nightly"),
        owner="analytics@example.com",
        description=f"Model {number}: one row per key of its inputs, cleaned and typed.",
        columns=columns,
        depends_on=tuple(read),
        audits=tuple(
            AuditUse(
                audit=f"not_null_column_{place}",
                name="not_null",
                arguments={"columns": f"(column_{place})"},
                blocking=True,
                skip=False,
                query=f"SELECT * FROM @this_model WHERE column_{place} IS NULL",
                dialect="duckdb",
            )
            for place in range(audits)
        ),
        partitioned_by=(),
        clustered_by=(),
        grain=("column_0",),
        data_hash=str(number),
        query=query,
        path=f"models/{schema}/{table}.sql",
    )


def _external(number: int) -> ExternalModel:
    return ExternalModel(
        fqn=f'"db"."raw"."source_{number}"',
        name=f"raw.source_{number}",
        catalog="db",
        schema="raw",
        table=f"source_{number}",
        description=None,
        columns=(),
        declared=True,
    )
