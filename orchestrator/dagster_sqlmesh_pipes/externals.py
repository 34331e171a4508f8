"""The tables that SQLMesh reads and does not build, against what Dagster has."""

from __future__ import annotations

import dagster as dg

from dagster_sqlmesh_pipes.compat import is_stub
from dagster_sqlmesh_pipes.specs import MODEL_KEY


def unprovided_externals(definitions: dg.Definitions) -> dict[dg.AssetKey, list[str]]:
    """The tables that models read and no asset of the definitions stands for, each with the FQNs of the models that read it.

    An empty dictionary says that every edge into the SQLMesh project begins at an asset of yours: worth a test. A table that is
    filled outside of Dagster can be declared with a bare `dagster.AssetSpec`.
    """
    specs = list(definitions.resolve_all_asset_specs())
    provided = {spec.key for spec in specs if not is_stub(spec)}
    missing: dict[dg.AssetKey, list[str]] = {}
    for spec in specs:
        if MODEL_KEY in spec.metadata:
            for dep in spec.deps:
                if dep.asset_key not in provided:
                    missing.setdefault(dep.asset_key, []).append(str(spec.metadata[MODEL_KEY]))
    return {key: sorted(missing[key]) for key in sorted(missing)}
