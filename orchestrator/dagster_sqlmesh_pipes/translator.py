"""How a SQLMesh model looks in Dagster: subclass and override what should look different."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.compat import GROUPS_IN_GROUPS
from dagster_sqlmesh_pipes.crons import longest_gap
from sqlmesh_pipes_protocol.manifest import AuditUse, Model

EXECUTION_STATUS_CHECK = "sqlmesh_execution_status"

WITHOUT_TURNS = {"SEED", "EXTERNAL", "EMBEDDED", "MANAGED"}
"""Kinds that a cron does not run again and again: SQLMesh loads a seed once a version, and engines refresh managed tables."""

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
"""What Dagster takes for an e-mail address: no top-level domain of more than seven letters, no letter beyond ASCII."""
_QUOTED = re.compile(r'"((?:[^"]|"")*)"|([^."]+)')
_PLAIN = re.compile(r"[\w$-]+")
_QUOTED_COLUMN = re.compile(r'\A"([A-Za-z_]\w*)"\Z')
_FQN_IN_TEXT = re.compile(r'"(?:[^"]|"")*"(?:\."(?:[^"]|"")*")+')


class SQLMeshTranslator:
    """Turns what the manifest says of a model into what Dagster shows.

    Every method takes the manifest's typed model and is called once a model when definitions load. A model's own
    ``dagster:…`` tags go before the methods, and parameters such as ``group_name`` as well.
    """

    def get_asset_key(self, model: Model) -> dg.AssetKey:
        """Catalog, schema and table; characters that Dagster cannot name an output with become ``_``."""
        return default_key(model.fqn)

    def get_external_asset_key(self, external_fqn: str) -> dg.AssetKey:
        """The key of a table that SQLMesh reads and does not build: where your other assets write it.

        Args:
            external_fqn: quoted parts, such as ``"shop"."raw"."payments"``.
        """
        return default_key(external_fqn)

    def get_group_name(self, context: Any, model: Model) -> str | None:
        """The schema.

        Args:
            context: always None; kept for translators written for in-process integrations.
        """
        return safe_name(model.schema) if model.schema else None

    def get_tags(self, context: Any, model: Model) -> Mapping[str, str]:
        """The model's tags as keys without a value. Tags of the form ``dagster:…`` are instructions, not tags."""
        return {safe_tag(tag): "" for tag in model.tags if not tag.startswith("dagster:")}

    def get_owners(self, model: Model) -> Sequence[str]:
        """The owner: an e-mail address, or ``team:`` and a name."""
        return [legal_owner(model.owner)] if model.owner else []

    def get_description(self, model: Model) -> str | None:
        return model.description

    def get_kinds(self, model: Model, engine: str) -> set[str]:
        """``sqlmesh``, the engine, and ``sql``, ``python`` or ``seed``."""
        return {"sqlmesh", engine, model.source}

    def get_code_version(self, model: Model) -> str | None:
        """SQLMesh's hash of everything that determines the model's data."""
        return model.data_hash

    def get_metadata(self, model: Model, keys: Sequence[str]) -> Mapping[str, Any]:
        """What a reader of the asset's page wants to know before its first run.

        The column schema and the table's name come with any keys. What leads to other assets and files (column lineage, code
        references) is added to whatever this method gives.

        Args:
            keys: which facts to give, of those in `METADATA_KEYS`.
        """
        metadata: dict[str, Any] = {}
        for key in keys:
            value = _FACTS[key](model) if key in _FACTS else getattr(model, key, None)
            if value:
                metadata[f"sqlmesh/{key}"] = value
        metadata["dagster/table_name"] = ".".join(
            part for part in (model.catalog, model.schema, model.table) if part
        )
        if model.columns:
            metadata["dagster/column_schema"] = dg.TableSchema(
                columns=[
                    dg.TableColumn(
                        name=column.name, type=column.type or "unknown", description=column.description
                    )
                    for column in model.columns
                ]
            )
        return metadata

    def get_automation_condition(self, model: Model) -> dg.AutomationCondition[Any] | None:
        """None: the adaptive schedule runs the models. The tag ``dagster:automation:on_cron`` or ``eager`` asks for one."""
        return None

    def get_freshness_policy(self, model: Model) -> dg.FreshnessPolicy | None:
        """From the cron: a warning when a run is late by a quarter of the longest time between two, a failure when it is left out.

        None for what no cron runs again and again: seeds, managed tables, models with an end.
        """
        if model.kind in WITHOUT_TURNS or model.end:
            return None
        gap = longest_gap(model.cron, model.cron_tz)
        return dg.FreshnessPolicy.time_window(fail_window=gap * 2, warn_window=gap * 1.25)

    def get_check_name(self, model: Model, audit: AuditUse) -> str:
        """The audit's identity: unique in the model, and the same in the manifest and in a run."""
        return audit.audit


def _columns(expressions: Sequence[str]) -> str:
    """Columns, or what is computed of them; a column's name without the quotes that it does not need."""
    return ", ".join(_QUOTED_COLUMN.sub(r"\1", expression) for expression in expressions)


def _query(model: Model) -> dg.MetadataValue[Any] | None:
    return dg.MetadataValue.md(f"```sql\n{model.query}\n```") if model.query else None


_FACTS: Mapping[str, Callable[[Model], Any]] = {
    "cron": lambda model: model.cron if not model.cron_tz else f"{model.cron} ({model.cron_tz})",
    "tags": lambda model: ", ".join(model.tags),
    "time_column": lambda model: _columns([model.time_column]) if model.time_column else None,
    "partitioned_by": lambda model: _columns(model.partitioned_by),
    "clustered_by": lambda model: _columns(model.clustered_by),
    "grain": lambda model: _columns(model.grain),
    "query": _query,
}
METADATA_KEYS = (
    "kind",
    "cron",
    "start",
    "end",
    "dialect",
    "time_column",
    "partitioned_by",
    "clustered_by",
    "grain",
    "path",
    "query",
)
"""The facts that `SQLMeshTranslator.get_metadata` is asked for: names of the manifest's fields. Others may be asked for too."""


def default_key(fqn: str) -> dg.AssetKey:
    """Catalog, schema and table of a fully qualified name."""
    return dg.AssetKey([safe_name(part, allowed="-.") for part in split_fqn(fqn)])


def split_fqn(fqn: str) -> list[str]:
    """The unquoted parts of a fully qualified name: catalog, schema, table."""
    return [quoted.replace('""', '"') or bare for quoted, bare in _QUOTED.findall(fqn)]


def readable(fqn: str) -> str:
    """A fully qualified name as people write it: ``shop.marts.orders``, with quotes where a part of it needs them."""
    return ".".join(
        part if _PLAIN.fullmatch(part) else '"{}"'.format(part.replace('"', '""')) for part in split_fqn(fqn)
    )


def with_readable_names(text: str) -> str:
    """A text with each fully qualified name in it as people write it."""
    return _FQN_IN_TEXT.sub(lambda found: readable(found[0]), text)


def legal_owner(owner: str) -> str:
    """An owner as Dagster takes it: what it knows as an e-mail address as it is, anything else as a team."""
    if _EMAIL.fullmatch(owner):
        return owner
    return f"team:{safe_name(owner.removeprefix('team:'), allowed='-.')}"


def safe_name(text: str, *, allowed: str = "") -> str:
    """The text with every character but letters, digits and underscores (and those allowed) as an underscore."""
    return re.sub(rf"[^A-Za-z0-9_{re.escape(allowed)}]", "_", text) or "_"


def safe_group(text: str) -> str:
    """The text as a legal group name of Dagster. It may have groups in it, ``marts/sales``; else that is ``marts_sales``."""
    parts = [safe_name(part) for part in text.split("/") if part]
    return ("/" if GROUPS_IN_GROUPS else "_").join(parts) or "_"


def safe_tag(text: str) -> str:
    """The text as a legal tag key of Dagster: at most 63 letters, digits, ``_``, ``-`` and ``.``."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-") or short_digest(text)
    return name if len(name) <= 63 else f"{name[:54]}_{short_digest(text)}"


def safe_tag_value(text: str) -> str:
    """The text as a legal tag value of Dagster: nothing, or as a key."""
    return safe_tag(text) if text else ""


def short_digest(text: str) -> str:
    """Eight hexadecimal digits that tell texts apart which look alike when made safe."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
