"""From the manifest to Dagster's specs, and from Dagster's specs back to models and audits.

The way back goes through the specs' own metadata: whatever key or check name a translator chose, a run finds the model and the
audit that it belongs to, in every process.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.compat import MAX_KINDS
from dagster_sqlmesh_pipes.crons import dagster_cron
from dagster_sqlmesh_pipes.errors import TranslationError
from dagster_sqlmesh_pipes.keys import asset_keys, check_external_keys, external_key_function
from dagster_sqlmesh_pipes.tags import ModelInstructions, instructions
from dagster_sqlmesh_pipes.translator import (
    EXECUTION_STATUS_CHECK,
    METADATA_KEYS,
    SQLMeshTranslator,
    legal_owner,
    safe_group,
    safe_name,
    safe_tag,
    safe_tag_value,
)
from sqlmesh_pipes_protocol.manifest import Deployment, Manifest, Model, StandaloneAudit

MODEL_KEY = "sqlmesh/model"
KIND_KEY = "sqlmesh/kind"
PROJECT_KEY = "sqlmesh/project"
"""Metadata: the name that a multi-repository project's configuration gives the repository."""
AUDIT_KEY = "sqlmesh/audit"
STANDALONE_AUDIT_KEY = "sqlmesh/standalone_audit"
LINEAGE_KEY = "dagster/column_lineage"
DEPLOYED_KEY = "sqlmesh/deployed"
"""Metadata: how the environment's version of a model compares to the project's. Tag: only where they differ."""
MODEL_COUNT_TAG = "sqlmesh/project_models"
"""Op tag: how many models the project has, so that a run can tell a whole selection from a part."""

EMBEDDED = "EMBEDDED"
"""The kind of models that exist in other models' queries only; they are no assets."""


@dataclass(frozen=True)
class ProjectSpecs:
    """A project's assets and checks, in the manifest's order.

    Attributes:
        externals: keys of the tables that the models read and SQLMesh does not build, by FQN.
    """

    assets: list[dg.AssetSpec]
    checks: list[dg.AssetCheckSpec]
    externals: Mapping[str, dg.AssetKey] = field(default_factory=dict)

    def checks_of(self, assets: Iterable[dg.AssetSpec]) -> list[dg.AssetCheckSpec]:
        """The checks of some of the assets."""
        keys = {spec.key for spec in assets}
        return [check for check in self.checks if check.asset_key in keys]


@dataclass(frozen=True)
class SpecIndex:
    """What a run has to know of the specs it runs.

    Attributes:
        keys: asset key of each model, by FQN.
        checks: check name of each audit, by FQN and identity.
        standalone: asset key and check name of each standalone audit's checks, by the audit's name.
        lineage: where the columns come from, by FQN: Dagster reads it from materializations.
    """

    keys: Mapping[str, dg.AssetKey]
    checks: Mapping[tuple[str, str], str]
    standalone: Mapping[str, Sequence[tuple[dg.AssetKey, str]]] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, assets: Iterable[dg.AssetSpec], checks: Iterable[dg.AssetCheckSpec]) -> SpecIndex:
        specs = {str(spec.metadata[MODEL_KEY]): spec for spec in assets if MODEL_KEY in spec.metadata}
        keys = {fqn: spec.key for fqn, spec in specs.items()}
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
            lineage={
                fqn: spec.metadata[LINEAGE_KEY] for fqn, spec in specs.items() if LINEAGE_KEY in spec.metadata
            },
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
    manifest: Manifest,
    translator: SQLMeshTranslator,
    *,
    group_name: str | None = None,
    owners: str | Sequence[str] | None = None,
    external_asset_mapping: str | None = None,
    project_dirs: Sequence[Path] = (),
) -> ProjectSpecs:
    """The specs of all runnable models and of their audits.

    What a model's ``dagster:…`` tags say goes before the parameters, and these before the translator.

    Args:
        manifest: the project.
        translator: how models look in Dagster.
        group_name: for all assets.
        owners: for all assets: e-mail addresses or teams.
        external_asset_mapping: a template for keys of external tables, such as ``target/main/{node.name}``.
        project_dirs: where the models' files are, for links to them; files that are not there get none.

    Raises:
        DuplicateAssetKeyError: two models get keys that Dagster cannot tell apart; it names both.
        ExternalAssetKeyError: a table that is read gets no key, or a model's.
        TranslationError: what the translator gives for a model cannot be an asset.
        ValueError: external_asset_mapping cannot be read.
    """
    models = runnable(manifest)
    asked = {model.fqn: instructions(model.fqn, model.tags) for model in models}
    keys = asset_keys(
        models, translator, {fqn: own.asset_key for fqn, own in asked.items() if own.asset_key is not None}
    )
    embedded = {model.fqn: model for model in manifest.models if model.kind == EMBEDDED}
    read = {model.fqn: _read_by(model, embedded) for model in models}
    external_key = external_key_function(translator, external_asset_mapping)
    externals = {fqn: external_key(fqn) for fqn in sorted(set().union(*read.values()) - keys.keys())}
    check_external_keys(externals, keys)
    known = {**externals, **keys}
    defaults = _Defaults(
        group_name=safe_group(group_name) if group_name else None,
        owners=[legal_owner(owner) for owner in ([owners] if isinstance(owners, str) else owners or ())],
        engine=manifest.engine,
        deployment=manifest.deployment,
        project_dirs=project_dirs,
    )
    assets: list[dg.AssetSpec] = []
    checks: list[dg.AssetCheckSpec] = []
    for model in models:
        deps = {known[fqn] for fqn in read[model.fqn]} - {keys[model.fqn]}
        try:
            assets.append(_asset_spec(model, known, deps, asked[model.fqn], translator, defaults))
            checks.extend(_check_specs(model, keys[model.fqn], translator))
        except (
            Exception
        ) as error:  # whatever a user's method raises, or Dagster of what it gave, told with the model
            raise TranslationError(model.fqn, error) from error
    taken = {check.key for check in checks}
    for audit in manifest.standalone_audits:
        checks.extend(_standalone_check_specs(audit, _read_by(audit, embedded), keys, taken))
    return ProjectSpecs(assets, checks, externals)


@dataclass(frozen=True, kw_only=True)
class _Defaults:
    """What all assets have that do not say otherwise, and what is known of all."""

    group_name: str | None
    owners: list[str]
    engine: str
    deployment: Deployment | None
    project_dirs: Sequence[Path]


def _asset_spec(
    model: Model,
    keys: Mapping[str, dg.AssetKey],
    deps: Collection[dg.AssetKey],
    own: ModelInstructions,
    translator: SQLMeshTranslator,
    defaults: _Defaults,
) -> dg.AssetSpec:
    """A model as an asset: what its tags say, then the defaults, then the translator."""
    differs = _deployed_state(defaults.deployment, model)
    translated = translator.get_group_name(None, model)
    return dg.AssetSpec(
        keys[model.fqn],
        deps=sorted(deps),
        description=translator.get_description(model),
        metadata={
            **translator.get_metadata(model, METADATA_KEYS),
            **_links(model, keys, defaults.project_dirs),
            **({DEPLOYED_KEY: differs[1]} if differs else {}),
            **({PROJECT_KEY: model.project} if model.project else {}),
            KIND_KEY: model.kind,
            MODEL_KEY: model.fqn,
        },
        skippable=True,
        group_name=(safe_group(own.group_name) if own.group_name else None)
        or defaults.group_name
        or (safe_group(translated) if translated else None),
        code_version=translator.get_code_version(model),
        owners=[legal_owner(owner) for owner in own.owners]
        or defaults.owners
        or translator.get_owners(model),
        tags={
            **translator.get_tags(None, model),
            **({DEPLOYED_KEY: differs[0]} if differs and differs[0] != "same" else {}),
            **{_tag_key(name): safe_tag_value(value) for name, value in own.tags.items()},
        },
        kinds=_kinds({safe_tag(kind) for kind in own.kinds}, translator.get_kinds(model, defaults.engine)),
        automation_condition=_automation(own, model) or translator.get_automation_condition(model),
        freshness_policy=translator.get_freshness_policy(model),
    )


def _kinds(own: set[str], others: set[str]) -> set[str]:
    """Both; where Dagster does not take as many, the model's own go first, then ``sqlmesh``, then the others by name."""
    if not own or len(own | others) <= MAX_KINDS:
        return own | others
    ranked = sorted(others - own, key=lambda kind: (kind != "sqlmesh", kind))
    return own | set(ranked[: max(MAX_KINDS - len(own), 0)])


def _tag_key(name: str) -> str:
    """A tag's key as Dagster takes it, with one namespace if it has one: ``team/tier``."""
    namespace, slash, key = name.partition("/")
    return f"{safe_tag(namespace)}/{safe_tag(key)}" if slash and key else safe_tag(name)


def _automation(own: ModelInstructions, model: Model) -> dg.AutomationCondition[Any] | None:
    if own.automation == "eager":
        return dg.AutomationCondition.eager()
    cron = dagster_cron(model.cron)
    if own.automation == "on_cron" and cron is not None:
        return dg.AutomationCondition.on_cron(cron, model.cron_tz or "UTC")
    return None


def _links(
    model: Model, keys: Mapping[str, dg.AssetKey], project_dirs: Sequence[Path]
) -> dict[str, dg.MetadataValue[Any]]:
    """Where the model's columns come from, and where its file is."""
    links: dict[str, dg.MetadataValue[Any]] = {}
    lineage = {
        column.name: [
            dg.TableColumnDep(asset_key=keys[source.model], column_name=source.column)
            for source in column.sources
            if source.model in keys
        ]
        for column in model.columns
    }
    lineage = {name: sources for name, sources in lineage.items() if sources}
    if lineage:
        links[LINEAGE_KEY] = dg.MetadataValue.column_lineage(dg.TableColumnLineage(lineage))
    root = project_dirs[model.project_index] if model.project_index < len(project_dirs) else None
    path = root / model.path if root is not None and model.path is not None else None
    if path is not None and path.is_file():
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", dg.BetaWarning
            )  # of two classes that this metadata key is made of
            reference = dg.LocalFileCodeReference(file_path=str(path), line_number=1, label=model.name)
            links["dagster/code_references"] = dg.CodeReferencesMetadataValue(code_references=[reference])
    return links


def _deployed_state(deployment: Deployment | None, model: Model) -> tuple[str, str] | None:
    """``same``, ``differs`` or ``absent``, and in words; None where the manifest was not asked to tell it."""
    if deployment is None:
        return None
    environment, deployed = deployment.environment, deployment.models.get(model.fqn)
    if deployed is None:
        return "absent", f"{environment} does not have the model: it runs after `sqlmesh plan {environment}`"
    if deployed.data_hash != model.data_hash:
        return "differs", f"{environment} has another version of the model, and runs that one"
    if model.metadata_hash is not None and deployed.metadata_hash != model.metadata_hash:
        return "differs", f"{environment} has the same query with other metadata or audits, and runs those"
    return "same", f"{environment} has this version"


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


def spelled(arguments: Mapping[str, str]) -> str:
    """An audit's arguments as a model has them."""
    return ", ".join(f"{name} := {value}" for name, value in arguments.items())


def _query(query: str | None) -> dict[str, dg.MetadataValue]:
    return {"query": dg.MetadataValue.md(f"```sql\n{query}\n```")} if query else {}


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
        yield dg.AssetCheckSpec(
            translator.get_check_name(model, audit),
            asset=key,
            description=f"SQLMesh audit {audit.name}({spelled(audit.arguments)}). "
            + (
                "SQLMesh blocks: if it fails, the model fails, and what is downstream does not run."
                if audit.blocking
                else "If it fails, SQLMesh warns and goes on."
            ),
            # Never blocking in Dagster: SQLMesh blocks, and a failed model is not materialized.
            metadata={AUDIT_KEY: audit.audit, **_query(audit.query)},
        )
