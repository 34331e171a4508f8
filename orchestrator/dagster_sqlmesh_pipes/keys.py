"""Asset keys of models and of the tables that they read: distinct in Dagster, and the same everywhere."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping

import dagster as dg

from dagster_sqlmesh_pipes.errors import (
    DuplicateAssetKeyError,
    ExternalAssetKeyError,
    TranslationError,
)
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator, safe_name, short_digest, split_fqn
from sqlmesh_pipes_protocol.manifest import Model

_VARIABLE = re.compile(r"\{\{?\s*node\.(\w+)\s*\}\}?")


def asset_keys(
    models: Iterable[Model], translator: SQLMeshTranslator, asked_for: Mapping[str, dg.AssetKey] = {}
) -> dict[str, dg.AssetKey]:
    """Each model's key, by FQN, all of them distinct in Dagster.

    Dagster names outputs after keys, and there ``-`` and ``.`` are underscores too. Where the default keys of two models would
    meet, the later one in order of FQNs gets a short digest of its FQN. Of keys of a translator's own, and of those that a model's
    tags ask for, nothing is altered but characters that Dagster cannot take.

    Args:
        models: those that become assets.
        translator: gives the keys.
        asked_for: keys that go before the translator's, by FQN.

    Raises:
        DuplicateAssetKeyError: two keys that may not be altered meet.
        TranslationError: the translator gives no key.
    """
    own_keys = type(translator).get_asset_key is not SQLMeshTranslator.get_asset_key
    keys: dict[str, dg.AssetKey] = {}
    taken: dict[str, str] = {}
    # Keys that were asked for come first, then names that Dagster leaves as they are: these keep their keys whatever joins the
    # project later.
    for model in sorted(
        models, key=lambda model: (model.fqn not in asked_for, _strangeness(model), model.fqn)
    ):
        key = asked_for.get(model.fqn) or _key_of(model, translator)
        identifier = key.to_python_identifier()
        if identifier in taken and not own_keys and model.fqn not in asked_for:
            key = dg.AssetKey([*key.path[:-1], f"{key.path[-1]}_{short_digest(model.fqn)}"])
            identifier = key.to_python_identifier()
        if identifier in taken:
            raise DuplicateAssetKeyError(taken[identifier], model.fqn, key.to_user_string())
        taken[identifier] = model.fqn
        keys[model.fqn] = key
    return keys


def _key_of(model: Model, translator: SQLMeshTranslator) -> dg.AssetKey:
    try:
        key = translator.get_asset_key(model)
    except Exception as error:  # whatever a user's method raises, told with the model
        raise TranslationError(model.fqn, f"get_asset_key raised {error!r}.") from error
    if not isinstance(key, dg.AssetKey):
        raise TranslationError(model.fqn, f"get_asset_key must give a dagster.AssetKey, and gave {key!r}.")
    return dg.AssetKey([safe_name(part, allowed="-.") for part in key.path])


def external_key_function(
    translator: SQLMeshTranslator, template: str | None
) -> Callable[[str], dg.AssetKey]:
    """How an external table's FQN becomes a key: by the translator's method if it has one of its own, else by the template.

    Args:
        translator: its `get_external_asset_key` is the default.
        template: a key with ``/`` between its parts, such as ``target/main/{node.name}``.

    Raises:
        ValueError: the template names a variable that there is not, or holds none.
    """
    if template is None:
        return translator.get_external_asset_key
    if type(translator).get_external_asset_key is not SQLMeshTranslator.get_external_asset_key:
        warnings.warn(
            f"external_asset_mapping={template!r} is not used: {type(translator).__name__}.get_external_asset_key "
            "goes before it. Give one of the two.",
            stacklevel=2,
        )
        return translator.get_external_asset_key
    unknown = {name for name in _VARIABLE.findall(template) if name not in _PARTS}
    if unknown or not _VARIABLE.search(template):
        raise ValueError(
            f"external_asset_mapping={template!r} must hold one or more of "
            f"{', '.join(f'{{node.{name}}}' for name in _PARTS)}"
            + (f"; there is no {', '.join(sorted(unknown))}." if unknown else ".")
        )
    parts = template.split("/")

    def key_of(fqn: str) -> dg.AssetKey:
        values = _parts_of(fqn)
        filled = [_VARIABLE.sub(lambda match: values[match[1]], part).strip() for part in parts]
        # A part that a table does not have, such as the catalog of one that has none, is left out.
        return dg.AssetKey([safe_name(part, allowed="-.") for part in filled if part])

    return key_of


_PARTS = ("name", "table", "schema", "database", "catalog", "fqn")


def _parts_of(fqn: str) -> dict[str, str]:
    """An external table's FQN in parts: ``name`` and ``table`` are the table, ``database`` and ``catalog`` the catalog."""
    *_, catalog, schema, table = ("", "", *split_fqn(fqn))
    return {
        "name": table,
        "table": table,
        "schema": schema,
        "database": catalog,
        "catalog": catalog,
        "fqn": ".".join(split_fqn(fqn)),
    }


def check_external_keys(external: Mapping[str, dg.AssetKey], models: Mapping[str, dg.AssetKey]) -> None:
    """Refuse a key of an external table that is a model's: the edge would lead to the wrong asset.

    Raises:
        ExternalAssetKeyError: it names the table, the model and the key.
    """
    taken = {key: fqn for fqn, key in models.items()}
    for fqn, key in external.items():
        if not isinstance(key, dg.AssetKey):
            raise ExternalAssetKeyError(
                f"get_external_asset_key must give a dagster.AssetKey for {fqn}; it gave {key!r}."
            )
        if key in taken:
            raise ExternalAssetKeyError(
                f"The external table {fqn} and the model {taken[key]} both get the asset key "
                f"{key.to_user_string()}: give the table another one in get_external_asset_key or "
                "external_asset_mapping."
            )


def _strangeness(model: Model) -> int:
    """0 for a name that is an identifier, 1 for one that only has ``-`` and ``.`` besides, 2 for any other."""
    name = "".join(part for part in (model.catalog, model.schema, model.table) if part)
    if safe_name(name) == name:
        return 0
    return 1 if safe_name(name, allowed="-.") == name else 2
