"""Realistic projects of any size, the same each time: layers of models, fan-in, mixed kinds and crons, audits, column docs, externals.

One description, and two things made of it: a manifest, without SQLMesh, and a SQLMesh project on DuckDB that can be deployed and run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

COLUMNS = {
    "id": ("INT", "Key of the row: one for each order."),
    "customer": ("INT", "Who ordered."),
    "day": ("DATE", "The day of the order, in UTC."),
    "amount": ("DOUBLE", "What was paid, in euros, taxes included."),
    "discount": ("DOUBLE", "What was deducted from the price, in euros."),
    "country": ("TEXT", "Two letters, as ISO 3166 has them."),
    "channel": ("TEXT", "Shop, web or phone."),
    "currency": ("TEXT", "What was paid with, as ISO 4217 has it."),
    "items": ("INT", "How many things were ordered."),
    "is_gift": ("BOOLEAN", "Whether it goes to somebody else."),
}
AUDITED = ("id", "customer", "country")
"""Columns that are audited: one audit each, of the same name."""
KINDS = {
    "FULL": "FULL",
    "VIEW": "VIEW",
    "INCREMENTAL_BY_TIME_RANGE": "INCREMENTAL_BY_TIME_RANGE (time_column day)",
    "INCREMENTAL_BY_UNIQUE_KEY": "INCREMENTAL_BY_UNIQUE_KEY (unique_key id)",
}
CRONS = ("@daily", "@hourly", "0 3 * * *", "30 */2 * * *", "0 6 * * *", "@weekly", "@monthly")
START = "2026-01-01"
AUDITS = len(AUDITED)
CHECKS = AUDITS + 1
"""Of each model in Dagster: its audits, and its status."""
_LAYER = 100
_RECENT = 200
"""How many models before it a model chooses what it reads from."""
_ROWS = 200

CONFIG = """\
gateways:
  local:
    connection:
      type: duckdb
      catalogs:
        db: "{database}"
default_gateway: local
model_defaults:
  dialect: duckdb
  start: {start}
  cron: '@daily'
disable_anonymized_analytics: true
"""


@dataclass(frozen=True, kw_only=True)
class Described:
    """A model, whatever is made of it. `reads` names models and tables from outside."""

    number: int
    kind: str
    cron: str
    reads: tuple[str, ...]

    @property
    def schema(self) -> str:
        return f"layer_{self.number // _LAYER}"

    @property
    def table(self) -> str:
        return f"model_{self.number}"

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def description(self) -> str:
        return f"Model {self.number}: one row for each order, of {' and '.join(self.reads)}."

    @property
    def tags(self) -> tuple[str, ...]:
        return f"team_{self.number % 7}", "nightly"

    @property
    def query(self) -> str:
        first, *others = self.reads
        columns = [f"  a.{column} AS {column}" for column in COLUMNS]
        columns[3] = (
            f"  {' + '.join(f'COALESCE({letter}.amount, 0)' for letter in 'abcd'[: len(self.reads)])} AS amount"
        )
        joins = [
            f"LEFT JOIN {other} AS {letter}\n  ON {letter}.id = a.id"
            for letter, other in zip("bcd", others, strict=False)
        ]
        within = ["WHERE\n  a.day BETWEEN @start_date AND @end_date"] * (
            self.kind == "INCREMENTAL_BY_TIME_RANGE"
        )
        return "\n".join(["SELECT", ",\n".join(columns), f"FROM {first} AS a", *joins, *within])


def describe(models: int) -> list[Described]:
    """So many models. Each reads one to four of those before it, or a table from outside."""
    chance = random.Random(models)
    outside = externals(models)
    made: list[Described] = []
    for number in range(models):
        parents = [each.name for each in chance.sample(made[-_RECENT:], min(number, chance.randint(1, 4)))]
        reads = parents if number % 20 and parents else [chance.choice(outside)]
        made.append(
            Described(
                number=number, kind=chance.choice(list(KINDS)), cron=chance.choice(CRONS), reads=tuple(reads)
            )
        )
    return made


def externals(models: int) -> list[str]:
    return [f"raw.source_{number}" for number in range(max(models // 50, 1))]


def write_project(path: Path, models: int) -> Path:
    """A SQLMesh project of so many models, on a DuckDB database that need not be there yet; `seed` fills what it reads from outside."""
    database = path / "warehouse.duckdb"
    (path / "models").mkdir(parents=True)
    (path / "config.yaml").write_text(CONFIG.format(database=database, start=START))
    (path / "external_models.yaml").write_text("".join(_external_entries(externals(models))))
    for model in describe(models):
        file = path / "models" / model.schema / f"{model.table}.sql"
        file.parent.mkdir(exist_ok=True)
        file.write_text(_model_file(model))
    return path


def seed(models: int) -> str:
    """SQL that makes what a project of so many models reads from outside, in its database."""
    query = f"""
        SELECT i::INT AS id, (i % 37)::INT AS customer, DATE '{START}' + (i % 300)::INT AS day, i * 1.5::DOUBLE AS amount,
            0.5::DOUBLE AS discount, 'DE' AS country, 'web' AS channel, 'EUR' AS currency, (i % 5)::INT AS items, i % 9 = 0 AS is_gift
        FROM range({_ROWS}) AS t(i)
    """
    tables = (f"CREATE TABLE {name} AS {query};" for name in externals(models))
    return "\n".join(["CREATE SCHEMA IF NOT EXISTS raw;", *tables])


def _external_entries(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield f"- name: {name}\n  columns:\n"
        yield from (f"    {column}: {type_}\n" for column, (type_, _) in COLUMNS.items())


def _model_file(model: Described) -> str:
    docs = ",\n".join(f"    {column} = '{words}'" for column, (_, words) in COLUMNS.items())
    audits = ",\n".join(f"    not_null(columns := ({column}))" for column in AUDITED)
    return (
        f"MODEL (\n  name {model.name},\n  kind {KINDS[model.kind]},\n  cron '{model.cron}',\n  owner 'analytics@example.com',\n"
        f"  tags ({', '.join(model.tags)}),\n  grain id,\n  description '{model.description}',\n"
        f"  column_descriptions (\n{docs}\n  ),\n  audits (\n{audits}\n  )\n);\n\n{model.query}\n"
    )


def make_manifest(models: int) -> Manifest:
    """What `sqlmesh-runner manifest` would write of the project, but for what only SQLMesh can know: hashes, the query as parsed."""
    return Manifest(
        v=PROTOCOL_VERSION,
        created_at=Timestamp("2026-01-01T00:00:00Z"),
        versions=Versions(runner="0", sqlmesh="0", python="3"),
        projects=("benchmark",),
        gateway="local",
        engine="duckdb",
        default_catalog="db",
        digest="",
        models=tuple(_model(model) for model in describe(models)),
        external_models=tuple(_external(name) for name in externals(models)),
        standalone_audits=(),
    )


def write(path: Path, models: int) -> Path:
    write_manifest(make_manifest(models), path)
    return path


def fqn(name: str) -> str:
    schema, table = name.split(".")
    return f'"db"."{schema}"."{table}"'


def _model(model: Described) -> Model:
    read = [fqn(name) for name in model.reads]
    columns = tuple(
        Column(name=name, type=type_, description=words, sources=(ColumnSource(model=read[0], column=name),))
        for name, (type_, words) in COLUMNS.items()
    )
    return Model(
        fqn=fqn(model.name),
        name=model.name,
        catalog="db",
        schema=model.schema,
        table=model.table,
        kind=model.kind,
        source="sql",
        dialect="duckdb",
        cron=model.cron,
        cron_tz=None,
        interval_unit="day",
        start=START,
        tags=model.tags,
        owner="analytics@example.com",
        description=model.description,
        columns=columns,
        depends_on=tuple(sorted(read)),
        audits=tuple(
            AuditUse(
                audit=f"not_null_{column}",
                name="not_null",
                arguments={"columns": f"({column})"},
                blocking=True,
                skip=False,
                query=f"SELECT * FROM @this_model WHERE {column} IS NULL",
                dialect="duckdb",
            )
            for column in AUDITED
        ),
        partitioned_by=(),
        clustered_by=(),
        grain=("id",),
        data_hash=str(model.number),
        query=model.query,
        path=f"models/{model.schema}/{model.table}.sql",
    )


def _external(name: str) -> ExternalModel:
    schema, table = name.split(".")
    return ExternalModel(
        fqn=fqn(name),
        name=name,
        catalog="db",
        schema=schema,
        table=table,
        description=None,
        columns=(),
        declared=True,
    )
