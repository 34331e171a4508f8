"""The decorator that makes a SQLMesh project's models assets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.specs import MODEL_COUNT_TAG, build_specs
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator


def sqlmesh_assets(
    *,
    project: SQLMeshProject,
    name: str | None = None,
    translator: SQLMeshTranslator | None = None,
    group_name: str | None = None,
    op_tags: Mapping[str, Any] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    required_resource_keys: set[str] | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Make each model of a project an asset, each of its audits a check; the decorated function runs them.

    .. code-block:: python

        @sqlmesh_assets(project=project)
        def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
            yield from sqlmesh.run(context)

    All models are one step, of which any part can be selected: one run of SQLMesh a step.

    Args:
        project: the project; its manifest is read here.
        name: of the op; by default the function's.
        translator: how models look in Dagster.
        group_name: for all assets, instead of the translator's.
        op_tags: for the op, as in `dagster.multi_asset`.
        retry_policy: of the step; a failure that no retry can mend is not retried.
        pool: a Dagster pool for the step, to keep runs of one environment apart.
        required_resource_keys: as in `dagster.multi_asset`.

    Raises:
        ManifestError: the project's manifest is missing or cannot be used.
        DuplicateAssetKeyError: two models get one asset key.
    """
    specs = build_specs(project.manifest, translator or SQLMeshTranslator(), group_name=group_name)

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        return dg.multi_asset(
            name=name or re.sub(r"\W", "_", function.__name__),
            specs=specs.assets,
            check_specs=specs.checks,
            can_subset=True,
            op_tags={**(op_tags or {}), MODEL_COUNT_TAG: str(len(specs.assets))},
            retry_policy=retry_policy,
            pool=pool,
            required_resource_keys=required_resource_keys,
        )(function)

    return decorate
