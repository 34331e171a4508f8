"""From a declaration to its reader and its JSON Schema.

A declaration is a frozen dataclass of plain values: str, int, bool, float, literals, timestamps, optional values,
``tuple[X, ...]``, ``Mapping[str, X]`` and other such dataclasses. Reading is strict in what it knows and blind to what it
does not: a wrong type or a missing key is an error that names the path, an unknown key is ignored.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from sqlmesh_pipes_protocol import compiled
from sqlmesh_pipes_protocol.errors import DecodeError, shown
from sqlmesh_pipes_protocol.events import Timestamp
from sqlmesh_pipes_protocol.times import TIMESTAMP_PATTERN as TIMESTAMP_PATTERN  # for the schema too
from sqlmesh_pipes_protocol.times import is_timestamp

T = TypeVar("T")
Reader = Callable[[Any], Any]


class _Mismatch(Exception):  # noqa: N818 - travels inside this module only
    """Carries the path up from where the value stood; turned into a DecodeError at the root."""

    def __init__(self, expected: str, value: object) -> None:
        self.steps: list[str] = []
        self.expected = expected
        self.got = "nothing" if value is _MISSING else f"{type(value).__name__} {shown(value)}"[:80]


_MISSING = object()


def read(declaration: type[T], value: object, root: str = "$") -> T:
    """Build a ``declaration`` from what a JSON parser returned.

    Raises:
        DecodeError: the value has another shape; it names the path.
    """
    read_as_declared = compiled.reader(declaration)
    try:
        return cast(T, read_as_declared(value))
    except LookupError:
        return read_in_words(declaration, value, root)  # no error where a key with a default was left out


def read_in_words(declaration: type[T], value: object, root: str = "$") -> T:
    """As `read`, the general way: slower, and it knows what is wrong."""
    try:
        return cast(T, _reader(cast(Any, declaration))(value))
    except _Mismatch as mismatch:
        path = root + "".join(reversed(mismatch.steps))
        raise DecodeError(path, mismatch.expected, mismatch.got) from None


@cache
def _reader(declaration: Any) -> Reader:
    if dataclasses.is_dataclass(declaration):
        return _object_reader(declaration)
    if declaration is Timestamp:
        return _timestamp
    if declaration in (str, int, bool, float):
        return _scalar_reader(declaration)
    origin, arguments = get_origin(declaration), get_args(declaration)
    if origin is Literal:
        return _literal_reader(arguments)
    if origin in (Union, types.UnionType) and type(None) in arguments:
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _optional_reader(_reader(inner))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _tuple_reader(_reader(arguments[0]))
    if origin is Mapping or origin is dict:
        return _mapping_reader(_reader(arguments[1]))
    raise TypeError(f"a declaration cannot hold {declaration!r}")


def _object_reader(declaration: Any) -> Reader:
    hints = get_type_hints(declaration)
    fields = []
    for field in dataclasses.fields(declaration):
        default: Any = field.default
        if default is dataclasses.MISSING:
            default = _MISSING
        fields.append((field.name, _reader(hints[field.name]), default))
    new = object.__new__
    slots = (
        "__slots__" in declaration.__dict__
    )  # objects without a dictionary each: many of them are sooner made
    setters = [getattr(declaration, name).__set__ for name, _, _ in fields] if slots else []

    def read_object(value: Any) -> Any:
        if type(value) is not dict:
            raise _Mismatch(f"an object ({declaration.__name__})", value)
        values = {}
        for name, reader, default in fields:
            item = value.get(name, _MISSING)
            if item is _MISSING:
                if default is _MISSING:
                    mismatch = _Mismatch("a value", _MISSING)
                    mismatch.steps.append(f".{name}")
                    raise mismatch
                values[name] = default
                continue
            try:
                values[name] = reader(item)
            except _Mismatch as mismatch:
                mismatch.steps.append(f".{name}")
                raise
        instance = new(declaration)
        if slots:
            for setter, item in zip(setters, values.values(), strict=True):
                setter(instance, item)
            return instance
        # The instance's own dictionary: a frozen dataclass refuses setattr, and its __init__ is ten times slower.
        instance.__dict__.update(values)
        return instance

    return read_object


def _timestamp(value: Any) -> Any:
    if type(value) is not str or not is_timestamp(value):
        raise _Mismatch("a UTC time such as 2026-01-31T06:30:00Z", value)
    return value


def _scalar_reader(declaration: type) -> Reader:
    expected = {str: "a string", int: "an integer", bool: "true or false", float: "a number"}[declaration]

    def read_scalar(value: Any) -> Any:
        # Compared by identity: a JSON true is no integer, although Python's bool is an int.
        if type(value) is not declaration:
            raise _Mismatch(expected, value)
        return value

    return read_scalar


def _literal_reader(choices: tuple[Any, ...]) -> Reader:
    allowed = frozenset(choices)
    expected = "one of " + ", ".join(map(str, choices))

    def read_literal(value: Any) -> Any:
        if type(value) is not str or value not in allowed:
            raise _Mismatch(expected, value)
        return value

    return read_literal


def _optional_reader(inner: Reader) -> Reader:
    def read_optional(value: Any) -> Any:
        return None if value is None else inner(value)

    return read_optional


def _tuple_reader(inner: Reader) -> Reader:
    def read_tuple(value: Any) -> Any:
        if type(value) is not list:
            raise _Mismatch("a list", value)
        items = []
        for index, item in enumerate(value):
            try:
                items.append(inner(item))
            except _Mismatch as mismatch:  # noqa: PERF203 - costs nothing unless raised
                mismatch.steps.append(f"[{index}]")
                raise
        return tuple(items)

    return read_tuple


def _mapping_reader(inner: Reader) -> Reader:
    def read_mapping(value: Any) -> Any:
        if type(value) is not dict:
            raise _Mismatch("an object", value)
        items = {}
        for key, item in value.items():
            try:
                items[key] = inner(item)
            except _Mismatch as mismatch:  # noqa: PERF203 - costs nothing unless raised
                mismatch.steps.append(f"[{shown(key)}]")
                raise
        return items

    return read_mapping


def json_schema(declaration: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a declaration.

    Args:
        declaration: a type as the module's docstring lists them.
        definitions: receives the schema of every dataclass met on the way, by class name.
    """
    if dataclasses.is_dataclass(declaration):
        name = cast(type, declaration).__name__
        if name not in definitions:
            definitions[name] = {}  # stands in while the fields are walked
            definitions[name] = object_schema(declaration, definitions)
        return {"$ref": f"#/$defs/{name}"}
    if declaration is Timestamp:
        return {"type": "string", "pattern": TIMESTAMP_PATTERN}
    if declaration in (str, int, bool, float):
        return {"type": {str: "string", int: "integer", bool: "boolean", float: "number"}[declaration]}
    origin, arguments = get_origin(declaration), get_args(declaration)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return {"anyOf": [json_schema(inner, definitions), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": json_schema(arguments[0], definitions)}
    if origin is Mapping or origin is dict:
        return {"type": "object", "additionalProperties": json_schema(arguments[1], definitions)}
    raise TypeError(f"a declaration cannot hold {declaration!r}")


def object_schema(declaration: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a dataclass itself, where `json_schema` gives a reference to it."""
    hints = get_type_hints(declaration)
    properties = {}
    required = []
    for field in dataclasses.fields(declaration):
        properties[field.name] = json_schema(hints[field.name], definitions)
        if field.default is dataclasses.MISSING:
            required.append(field.name)
    return {
        "type": "object",
        "description": (declaration.__doc__ or "").partition("\n")[0],
        "properties": properties,
        "required": required,
    }
