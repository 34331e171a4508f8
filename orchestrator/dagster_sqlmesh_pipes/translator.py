"""How a SQLMesh model looks in Dagster: subclass and override what should look different."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from sqlmesh_pipes_protocol.manifest import AuditUse, Model

EXECUTION_STATUS_CHECK = "sqlmesh_execution_status"

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"|([^."]+)')


class SQLMeshTranslator:
    """Turns what the manifest says of a model into what Dagster shows.

    Every method takes the manifest's typed model and is called once a model when definitions load.
    """

    def get_asset_key(self, model: Model) -> dg.AssetKey:
        """Catalog, schema and table; characters that Dagster cannot name an output with become ``_``."""
        return self.get_external_asset_key(model.fqn)

    def get_external_asset_key(self, external_fqn: str) -> dg.AssetKey:
        """The key of a table that SQLMesh reads and does not build: where your other assets write it.

        Args:
            external_fqn: quoted parts, such as ``"shop"."raw"."payments"``.
        """
        return dg.AssetKey([safe_name(part, allowed="-.") for part in split_fqn(external_fqn)])

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
        if not model.owner:
            return []
        is_legal = _EMAIL.fullmatch(model.owner) or model.owner.startswith("team:")
        return [model.owner if is_legal else f"team:{model.owner}"]

    def get_description(self, model: Model) -> str | None:
        return model.description

    def get_kinds(self, model: Model, engine: str) -> set[str]:
        """``sqlmesh``, the engine, and ``sql``, ``python`` or ``seed``."""
        return {"sqlmesh", engine, model.source}

    def get_code_version(self, model: Model) -> str | None:
        """SQLMesh's hash of everything that determines the model's data."""
        return model.data_hash

    def get_metadata(self, model: Model) -> Mapping[str, Any]:
        """What a reader of the asset's page wants to know before its first run."""
        facts = {
            "sqlmesh/kind": model.kind,
            "sqlmesh/cron": model.cron if not model.cron_tz else f"{model.cron} ({model.cron_tz})",
            "sqlmesh/dialect": model.dialect,
            "sqlmesh/partitioned_by": ", ".join(model.partitioned_by) or None,
            "sqlmesh/clustered_by": ", ".join(model.clustered_by) or None,
            "sqlmesh/grain": ", ".join(model.grain) or None,
            "sqlmesh/path": model.path,
            "dagster/table_name": ".".join(
                part for part in (model.catalog, model.schema, model.table) if part
            ),
        }
        metadata: dict[str, Any] = {key: value for key, value in facts.items() if value is not None}
        if model.query:
            metadata["sqlmesh/query"] = dg.MetadataValue.md(f"```sql\n{model.query}\n```")
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

    def get_check_name(self, model: Model, audit: AuditUse) -> str:
        """The audit's identity: unique in the model, and the same in the manifest and in a run."""
        return audit.audit


def split_fqn(fqn: str) -> list[str]:
    """The unquoted parts of a fully qualified name: catalog, schema, table."""
    return [quoted.replace('""', '"') or bare for quoted, bare in _QUOTED.findall(fqn)]


def safe_name(text: str, *, allowed: str = "") -> str:
    """The text with every character but letters, digits and underscores (and those allowed) as an underscore."""
    return re.sub(rf"[^A-Za-z0-9_{re.escape(allowed)}]", "_", text) or "_"


def safe_tag(text: str) -> str:
    """The text as a legal tag key of Dagster: at most 63 letters, digits, ``_``, ``-`` and ``.``."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-") or short_digest(text)
    return name if len(name) <= 63 else f"{name[:54]}_{short_digest(text)}"


def short_digest(text: str) -> str:
    """Eight hexadecimal digits that tell texts apart which look alike when made safe."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
