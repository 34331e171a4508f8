"""What a model says of itself to Dagster: SQLMesh tags of the form ``dagster:property:value``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import dagster as dg

from dagster_sqlmesh_pipes.translator import safe_name

PREFIX = "dagster:"
AUTOMATIONS = ("on_cron", "eager")


class TagConventionWarning(UserWarning):
    """A model has a tag ``dagster:…`` that says nothing to Dagster."""


@dataclass
class ModelInstructions:
    """What a model's tags ask for; they go before parameters and the translator.

    Attributes:
        asset_key: from ``dagster:asset_key:raw/orders``.
        group_name: from ``dagster:group_name:marts``.
        owners: from ``dagster:owner:ann@example.com`` or ``dagster:owner:team:data``, each one.
        kinds: from ``dagster:kind:iceberg``, each one; besides those that the translator gives.
        tags: from ``dagster:tag:tier:gold``, or ``dagster:tag:pii`` for a tag without a value.
        automation: from ``dagster:automation:on_cron`` or ``dagster:automation:eager``.
    """

    asset_key: dg.AssetKey | None = None
    group_name: str | None = None
    owners: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    automation: str | None = None


def instructions(fqn: str, tags: Sequence[str]) -> ModelInstructions:
    """Read a model's tags. Tags of other forms are left alone; an instruction that is not understood is a warning.

    Warns:
        TagConventionWarning: an unknown property, no value, or one that Dagster cannot take.
    """
    result = ModelInstructions()
    for tag in tags:
        if tag.startswith(PREFIX):
            name, _, value = tag.removeprefix(PREFIX).partition(":")
            problem = _apply(result, name, value)
            if problem:
                warnings.warn(f"The tag {tag!r} of model {fqn} {problem}", TagConventionWarning, stacklevel=2)
    return result


def _apply(result: ModelInstructions, name: str, value: str) -> str | None:
    """Take one instruction in; what is wrong with it, if anything."""
    if name not in ("asset_key", "group_name", "owner", "kind", "tag", "automation"):
        return (
            "has no meaning: dagster:asset_key, group_name, owner, kind, tag and automation are understood."
        )
    if not value:
        return f"has no value: dagster:{name}:value is expected."
    match name:
        case "asset_key":
            parts = [safe_name(part, allowed="-.") for part in value.split("/") if part]
            if not parts:
                return "has no part of a key: dagster:asset_key:raw/orders is expected."
            result.asset_key = dg.AssetKey(parts)
        case "group_name":
            result.group_name = value
        case "owner":
            result.owners.append(value)
        case "kind":
            result.kinds.add(value)
        case "tag":
            key, _, text = value.partition(":")
            result.tags[key] = text
        case "automation" if value in AUTOMATIONS:
            result.automation = value
        case "automation":
            return f"is not understood: {' or '.join(AUTOMATIONS)} is expected."
    return None
