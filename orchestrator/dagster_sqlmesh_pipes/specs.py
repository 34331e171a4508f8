"""From the manifest to Dagster's specs, and from Dagster's specs back to models and audits.

The way back goes through the specs' own metadata: whatever key or check name a translator chose, a run finds the model and the
audit that it belongs to, in every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from dagster_sqlmesh_pipes.errors import DuplicateAssetKeyError
from dagster_sqlmesh_pipes.translator import (
    EXECUTION_STATUS_CHECK,
    SQLMeshTranslator,
    safe_name,
    short_digest,
)
from sqlmesh_pipes_protocol.manifest import Manifest, Model, StandaloneAudit

MODEL_KEY = "sqlmesh/model"
AUDIT_KEY = "sqlmesh/audit"
STANDALONE_AUDIT_KEY = "sqlmesh/standalone_audit"
MODEL_COUNT_TAG = "sqlmesh/project_models"
"""Op tag: how many models the project has, so that a run can tell a whole selection from a part."""

EMBEDDED = "EMBEDDED"
"""The kind of models that exist in other models' queries only; they are no assets."""


@dataclass(frozen=True)
class ProjectSpecs:
    """A project's assets and checks, in the manifest's order."""

    assets: list[dg.AssetSpec]
    checks: list[dg.AssetCheckSpec]


@dataclass(frozen=True)
class SpecIndex:
    """What a run has to know of the specs it runs.

    Attributes:
        keys: asset key of each model, by FQN.
        checks: check name of each audit, by FQN and identity.
        standalone: asset key and check name of each standalone audit's checks, by the audit's name.
    """

    keys: Mapping[str, dg.AssetKey]
    checks: Mapping[tuple[str, str], str]
    standalone: Mapping[str, Sequence[tuple[dg.AssetKey, str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, assets: Iterable[dg.AssetSpec], checks: Iterable[dg.AssetCheckSpec]) -> SpecIndex:
        keys = {str(spec.metadata[MODEL_KEY]): spec.key for spec in assets if MODEL_KEY in spec.metadata}
        models = {key: fqn for fqn, key in keys.items()}
        checks = list(checks)
        standalone: dict[str, list[tuple[dg.AssetKey, str]]] = {}
        for check in checks:
            if STANDALONE_AUDIT_KEY in check.metadata:
                audit = str(check.metadata[STANDALONE_AUDIT_KEY])
                standalone.setdefault(audit, []).append((check.asset_key, check.name))
        return cls(
            keys=keys,
            standalone=standalone,
            checks={
                (models[check.asset_key], str(check.metadata[AUDIT_KEY])): check.name
                for check in checks
                if check.asset_key in models and AUDIT_KEY in check.metadata
            },
        )


def runnable(manifest: Manifest) -> list[Model]:
    """The models that SQLMesh evaluates: those that become assets."""
    return [model for model in manifest.models if model.kind != EMBEDDED]


def build_specs(
    manifest: Manifest, translator: SQLMeshTranslator, *, group_name: str | None = None
) -> ProjectSpecs:
    """The specs of all runnable models and of their audits.

    Args:
        manifest: the project.
        translator: how models look in Dagster.
        group_name: for all assets, instead of the translator's.

    Raises:
        DuplicateAssetKeyError: two models get keys that Dagster cannot tell apart; it names both.
    """
    models = runnable(manifest)
    keys = asset_keys(models, translator)
    embedded = {model.fqn: model for model in manifest.models if model.kind == EMBEDDED}
    assets: list[dg.AssetSpec] = []
    checks: list[dg.AssetCheckSpec] = []
    for model in models:
        key = keys[model.fqn]
        upstream = {
            keys.get(fqn) or translator.get_external_asset_key(fqn) for fqn in _read_by(model, embedded)
        }
        assets.append(
            dg.AssetSpec(
                key,
                deps=sorted(upstream - {key}),
                description=translator.get_description(model),
                metadata={**translator.get_metadata(model), MODEL_KEY: model.fqn},
                skippable=True,
                group_name=group_name or translator.get_group_name(None, model),
                code_version=translator.get_code_version(model),
                owners=translator.get_owners(model),
                tags=translator.get_tags(None, model),
                kinds=translator.get_kinds(model, manifest.engine),
            )
        )
        checks.extend(_check_specs(model, key, translator))
    taken = {check.key for check in checks}
    for audit in manifest.standalone_audits:
        checks.extend(_standalone_check_specs(audit, _read_by(audit, embedded), keys, taken))
    return ProjectSpecs(assets, checks)


def _standalone_check_specs(
    audit: StandaloneAudit,
    read: Iterable[str],
    keys: Mapping[str, dg.AssetKey],
    taken: set[dg.AssetCheckKey],
) -> Iterable[dg.AssetCheckSpec]:
    """A check on each model that the audit reads."""
    for fqn in sorted(read):
        if fqn not in keys:
            continue
        name = safe_name(audit.name)
        while dg.AssetCheckKey(keys[fqn], name) in taken:
            name += "_standalone"
        taken.add(dg.AssetCheckKey(keys[fqn], name))
        yield dg.AssetCheckSpec(
            name,
            asset=keys[fqn],
            description=audit.description or f"Standalone SQLMesh audit {audit.name}.",
            metadata={STANDALONE_AUDIT_KEY: audit.name, **_query(audit.query)},
        )


def _query(query: str | None) -> dict[str, dg.MetadataValue]:
    return {"query": dg.MetadataValue.md(f"```sql\n{query}\n```")} if query else {}


def asset_keys(models: Iterable[Model], translator: SQLMeshTranslator) -> dict[str, dg.AssetKey]:
    """Each model's key, by FQN, all of them distinct in Dagster.

    Dagster names outputs after keys, and there ``-`` and ``.`` are underscores too. Where the default keys of two models would
    meet, the later one in order of FQNs gets a short digest of its FQN. Keys of a translator's own are never altered.

    Raises:
        DuplicateAssetKeyError: a translator's own keys meet.
    """
    own_keys = type(translator).get_asset_key is not SQLMeshTranslator.get_asset_key
    keys: dict[str, dg.AssetKey] = {}
    taken: dict[str, str] = {}
    # Names that Dagster leaves as they are come first: they keep their keys whatever joins the project later.
    for model in sorted(models, key=lambda model: (_strangeness(model), model.fqn)):
        key = translator.get_asset_key(model)
        identifier = key.to_python_identifier()
        if identifier in taken and not own_keys:
            key = dg.AssetKey([*key.path[:-1], f"{key.path[-1]}_{short_digest(model.fqn)}"])
            identifier = key.to_python_identifier()
        if identifier in taken:
            raise DuplicateAssetKeyError(taken[identifier], model.fqn, key.to_user_string())
        taken[identifier] = model.fqn
        keys[model.fqn] = key
    return keys


def _strangeness(model: Model) -> int:
    """0 for a name that is an identifier, 1 for one that only has ``-`` and ``.`` besides, 2 for any other."""
    name = "".join(part for part in (model.catalog, model.schema, model.table) if part)
    if safe_name(name) == name:
        return 0
    return 1 if safe_name(name, allowed="-.") == name else 2


def _read_by(node: Model | StandaloneAudit, embedded: Mapping[str, Model]) -> set[str]:
    """What a model or an audit reads, looking through embedded models."""
    found: set[str] = set()
    waiting, seen = list(node.depends_on), set()
    while waiting:
        fqn = waiting.pop()
        if fqn in seen:
            continue
        seen.add(fqn)
        if fqn in embedded:
            waiting.extend(embedded[fqn].depends_on)
        else:
            found.add(fqn)
    return found


def _check_specs(
    model: Model, key: dg.AssetKey, translator: SQLMeshTranslator
) -> Iterable[dg.AssetCheckSpec]:
    yield dg.AssetCheckSpec(
        EXECUTION_STATUS_CHECK,
        asset=key,
        description="Whether SQLMesh ran the model: passed if it did, a warning with the reason if it skipped it, "
        "an error if it failed.",
    )
    for audit in model.audits:
        arguments = ", ".join(f"{name} := {value}" for name, value in audit.arguments.items())
        yield dg.AssetCheckSpec(
            translator.get_check_name(model, audit),
            asset=key,
            description=f"SQLMesh audit {audit.name}({arguments}). "
            + (
                "If it fails, the model fails."
                if audit.blocking
                else "If it fails, SQLMesh warns and goes on."
            ),
            # Never blocking in Dagster: SQLMesh blocks, and a failed model is not materialized.
            metadata={AUDIT_KEY: audit.audit, **_query(audit.query)},
        )
