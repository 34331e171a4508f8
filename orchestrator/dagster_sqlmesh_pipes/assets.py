"""The decorator that makes a SQLMesh project's models assets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import dagster as dg

from dagster_sqlmesh_pipes.partitions import partitions_definition
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.selection import Select, select_specs
from dagster_sqlmesh_pipes.specs import MODEL_COUNT_TAG, MODEL_KEY, build_specs, runnable
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator
from sqlmesh_pipes_protocol.manifest import collector_paused

_CONCURRENCY_KEY = "dagster/concurrency_key"
"""A tag by which ops were given a pool before there was a parameter for it; Dagster refuses both together."""


def sqlmesh_assets(
    *,
    project: SQLMeshProject,
    name: str | None = None,
    select: Select | None = None,
    exclude: Select | None = None,
    translator: SQLMeshTranslator | None = None,
    external_asset_mapping: str | None = None,
    group_name: str | None = None,
    owners: str | Sequence[str] | None = None,
    partitions: bool = False,
    op_tags: Mapping[str, Any] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | Literal[False] | None = None,
    required_resource_keys: set[str] | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Make each model of a project an asset, each of its audits a check; the decorated function runs them.

    .. code-block:: python

        @sqlmesh_assets(project=project)
        def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
            yield from sqlmesh.run(context)

    All models are one step, of which any part can be selected: one run of SQLMesh a step. A model's ``dagster:…`` tags go before
    the parameters, and these before the translator.

    Args:
        project: the project; its manifest is read here.
        name: of the op; by default the function's.
        select: the models, as `dagster_sqlmesh_pipes.selection` describes it; all by default. The others can be assets of another
            function, with another launcher.
        exclude: models to leave out.
        translator: how models look in Dagster.
        external_asset_mapping: a template for keys of tables that SQLMesh does not build, such as ``target/main/{node.name}``.
        group_name: for all assets.
        owners: for all assets: e-mail addresses, or teams.
        partitions: give the assets Dagster's time partitions, one for each interval that SQLMesh fills. All models must be
            incremental by time, of one interval unit. A run is then for a partition or a range of them, and fills that range.
        op_tags: for the op, as in `dagster.multi_asset`.
        retry_policy: of the step; a failure that no retry can mend is not retried.
        pool: a Dagster pool for the step. By default one for the project and its environment, `SQLMeshProject.pool_name`; with a
            limit of 1 in Dagster, runs wait there for each other instead of in the runner. False: none.
        required_resource_keys: as in `dagster.multi_asset`.

    Raises:
        ManifestError: the project's manifest is missing or cannot be used.
        DuplicateAssetKeyError: two models get one asset key.
        ExternalAssetKeyError: a table that is read gets no key, or a model's.
        SelectionError: the selection cannot be read, or leaves no model.
        PartitionsError: partitions were asked for where there can be none.
    """
    manifest = project.manifest
    with collector_paused():
        specs = build_specs(
            manifest,
            translator or SQLMeshTranslator(),
            group_name=group_name,
            owners=owners,
            external_asset_mapping=external_asset_mapping,
            project_dirs=project.project_dirs,
        )
        chosen = select_specs(specs.assets, select, exclude)
        checks = specs.checks_of(chosen)
        if partitions:
            models = {model.fqn: model for model in runnable(manifest)}
            definition = partitions_definition([models[str(spec.metadata[MODEL_KEY])] for spec in chosen])
            chosen = [spec.replace_attributes(partitions_def=definition) for spec in chosen]

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        with collector_paused(for_life=True):
            return dg.multi_asset(
                name=name or re.sub(r"\W", "_", function.__name__),
                specs=chosen,
                check_specs=checks,
                can_subset=True,
                op_tags={**(op_tags or {}), MODEL_COUNT_TAG: str(len(specs.assets))},
                retry_policy=retry_policy,
                pool=pool_of(project, pool, op_tags),
                required_resource_keys=required_resource_keys,
                backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
            )(function)

    return decorate


def pool_of(
    project: SQLMeshProject,
    pool: str | Literal[False] | None,
    op_tags: Mapping[str, Any] | None,
    environment: str | None = None,
) -> str | None:
    """The Dagster pool of a project's step: what is given, or else the project's own."""
    if pool is None and _CONCURRENCY_KEY not in (op_tags or {}):
        return project.pool_name(environment)
    return pool or None
