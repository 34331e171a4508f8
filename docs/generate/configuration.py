"""The tables of the configuration's reference, from signatures, docstrings and models."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from docs.generate.declarations import (
    annotations_in,
    code,
    entries,
    summary,
    table,
    texts_below,
    type_in_words,
    value_in_words,
)
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import dagster_sqlmesh_pipes as package
from dagster_sqlmesh_pipes.arguments import LAUNCHERS
from dagster_sqlmesh_pipes.launchers import Launcher

_AS_IN = re.compile(r"(?:as in|see) `(\w+)`")
_DEPENDENCY = re.compile(r"dg\.ResourceDependency\[(.+)\]")
_OF_DAGSTER = {
    "translation": "How models look in Dagster: attributes of an asset, in whose templates `model` is the model.",
}
"""Attributes of the component that Dagster describes not at all."""


def about(name: str) -> str:
    """What a public name's docstring says, without its sections."""
    return summary(getattr(package, name))


def parameters(name: str) -> str:
    """A function's or a class's parameters."""
    return table(("Parameter", "Type", "Default", "Meaning"), list(_parameters(getattr(package, name))))


def settings(name: str) -> str:
    """The fields of a resource, of a run's configuration or of a launcher; those that all launchers have stand by themselves."""
    model = getattr(package, name)
    common = Launcher.model_fields if model is not Launcher and issubclass(model, Launcher) else {}
    described = _texts_below_fields(model)
    return table(
        ("Setting", "Type", "Default", "Meaning"),
        [
            (
                code(name),
                code(_hint(model, name, field)),
                _default(model, name, field),
                field.description or described[name],
            )
            for name, field in model.model_fields.items()
            if name not in common
        ],
    )


def component() -> str:
    """The attributes of the component in YAML."""
    declared = {
        field.name: field.default_factory()
        for field in dataclasses.fields(package.SQLMeshProjectComponent)
        if field.default_factory is not dataclasses.MISSING
    }
    return _attributes(package.SQLMeshProjectComponent.model(), declared)


def component_part(name: str) -> str:
    """The keys of one of the component's attributes that is a mapping."""
    members = _members(package.SQLMeshProjectComponent.model().model_fields[name].annotation)
    (model,) = [each for each in members if inspect.isclass(each) and issubclass(each, BaseModel)]
    return _attributes(model, {})


def component_launchers() -> str:
    """What each launcher is called in YAML."""
    return table(
        ("`type`", "Launcher"),
        [
            (code(get_args(args.model_fields["type"].annotation)[0]), f"[{name}](#{name.lower()})")
            for args in LAUNCHERS
            for name in [args.__name__.removesuffix("Args")]
        ],
    )


PARTS: Mapping[str, Callable[..., str]] = {
    "about": about,
    "parameters": parameters,
    "settings": settings,
    "component": component,
    "component-part": component_part,
    "component-launchers": component_launchers,
}


def _parameters(documented: Any) -> Iterator[tuple[str, ...]]:
    function = documented.__init__ if inspect.isclass(documented) else documented
    hints, described = get_type_hints(function), _described(documented)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        default = code(value_in_words(parameter.default))
        if parameter.default is parameter.empty:
            default = "" if parameter.kind is parameter.VAR_KEYWORD else "required"
        name = f"**{parameter.name}" if parameter.kind is parameter.VAR_KEYWORD else parameter.name
        yield code(name), code(type_in_words(hints[parameter.name])), default, described[parameter.name]


def _described(documented: Any) -> dict[str, str]:
    """What docstrings say of each parameter; one that leaves it to another function's says what that one does."""
    found = entries(documented)
    if inspect.isclass(documented) and not found:
        found = entries(documented.__init__)
    for name, text in found.items():
        match = _AS_IN.search(text)
        other = getattr(package, match[1], None) if match else None
        text = _described(other)[name] if other is not None else text
        found[name] = text[:1].upper() + text[1:]
    return found


def _texts_below_fields(model: type) -> dict[str, str]:
    """The strings below a model's fields, and below those of its bases that are this project's."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if owner.__module__.startswith(package.__name__):
            found |= texts_below(sys.modules[owner.__module__], owner.__name__)
    return found


def _hint(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """A field's type; of a dependency on a resource, which Dagster makes anything, what it is declared to hold."""
    for owner in model.__mro__:
        if field.annotation is Any and owner.__module__.startswith(package.__name__):
            declared = annotations_in(sys.modules[owner.__module__], owner.__name__).get(name, "")
            if match := _DEPENDENCY.fullmatch(declared):
                return match[1].replace("dg.", "")
    return type_in_words(field.annotation)


def _default(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """What a field is by default: of those that a class fills when it is made, that parameter's."""
    parameter = inspect.signature(model.__init__).parameters.get(name)
    if parameter is not None and parameter.default is not parameter.empty:
        return code(value_in_words(parameter.default))
    return "required" if field.is_required() else code(value_in_words(field.default))


def _attributes(model: type[BaseModel], declared: Mapping[str, Any]) -> str:
    """A table of a mapping in YAML.

    Args:
        declared: defaults that Dagster keeps out of the model.
    """
    rows = []
    for name, field in model.model_fields.items():
        examples = ", ".join(code(json.dumps(example)) for example in field.examples or [])
        described = field.description or _OF_DAGSTER[name]
        default = "required" if field.is_required() else code(_yaml(declared.get(name, field.default)))
        rows.append(
            (
                code(name),
                _yaml_type(name, field),
                default,
                f"{described} Example: {examples}" if examples else described,
            )
        )
    return table(("Key", "Type", "Default", "Meaning"), rows)


def _yaml(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True, mode="json")
    return json.dumps(value, ensure_ascii=False)


def _yaml_type(name: str, field: FieldInfo) -> str:
    members = _members(field.annotation)
    if len(members) > 1 and members[-1] is str:
        members.pop()  # Dagster adds it to everything, for templates
    return " or ".join(dict.fromkeys(_yaml_types(name, members)))


def _yaml_types(name: str, members: list[Any]) -> Iterator[str]:
    plain = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
        type(None): "null",
        False: "`false`",
    }
    for member in members:
        if isinstance(member, str):
            yield code(member)
        elif member in plain:
            yield plain[member]
        elif inspect.isclass(member) and issubclass(member, enum.Enum):
            yield from (code(choice.name) for choice in member)
        elif inspect.isclass(member) and issubclass(member, BaseModel):
            # Dagster makes models of this project's declarations, which have its name, in a module of its own.
            own = member in LAUNCHERS or member.__name__.startswith(("SQLMesh", "RetryPolicyArgs"))
            yield f"[mapping](#{name.replace('_', '-')}-in-yaml)" if own else "mapping"
        else:
            text = type_in_words(member)
            yield "list" if text.startswith("list") else "mapping"


def _members(annotation: Any) -> list[Any]:
    """The types of a union, and the choices of a literal."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _members(arguments[0])
    if origin in (Union, types.UnionType):
        return [member for argument in arguments for member in _members(argument)]
    return list(arguments) if origin is Literal else [annotation]
