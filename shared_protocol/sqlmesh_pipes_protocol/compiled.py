"""A declaration's reader as straight code, for what is just as declared: nearly all that is ever read.

To read an event is to look at a dozen types and to copy as many references. Where a reader calls a reader for each field, the calls
cost several times that. So the looking is written out, one function a declaration, at its first use: as dataclasses write ``__init__``.

Nothing here explains. What is not just as declared, a key that was left out included, is a LookupError without words, and
`sqlmesh_pipes_protocol.shapes` reads it again in the general way, which knows the words, the path, and the defaults.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from sqlmesh_pipes_protocol.events import Timestamp
from sqlmesh_pipes_protocol.times import ORDINARY_TIMESTAMP, is_timestamp

Reader = Callable[[Any], Any]

_PLAIN = (str, int, bool, float)
_INTERVALS_KEPT = 1024


class Unlike(LookupError):  # noqa: N818 - no error yet: the general way says whether it is one
    """The value is not just as declared. For a key that is missing it is Python's own KeyError."""


def unlike(value: object) -> NoReturn:
    """The reader that reads nothing."""
    raise Unlike


def reader(declaration: Any) -> Reader:
    """The function that builds a ``declaration`` from what a JSON parser returned, or raises a LookupError."""
    return _reader(declaration)


@cache
def _reader(declaration: Hashable) -> Reader:
    names: dict[str, Any] = {}
    if dataclasses.is_dataclass(declaration):
        return _compiled(_object(declaration, names), names)
    return _compiled(_value(declaration, "", names), names)


def reader_within(outer: Any, field: str, inner: Any) -> Reader:
    """As `reader`, of an ``outer`` whose ``field`` is an ``inner`` of which the keys stand in the same object as its own."""
    names: dict[str, Any] = {}
    statements = [
        "whole = value",
        *_filled(inner, names),
        f"within_{field} = value",
        *_filled(outer, names, field),
    ]
    return _compiled(statements, names)


def _compiled(statements: Iterable[str], names: dict[str, Any]) -> Reader:
    source = "\n    ".join(["def read(value):", *statements, "return value"])
    names.update(Unlike=Unlike, is_timestamp=is_timestamp, matched=ORDINARY_TIMESTAMP.fullmatch)
    exec(compile(source, "<reader>", "exec"), names)  # noqa: S102 - made of our own declarations
    return names["read"]  # type: ignore[no-any-return]  # exec has put it there


def _object(declaration: Any, names: dict[str, Any]) -> Iterator[str]:
    """Statements that make an instance of ``value``. What they need goes into ``names``."""
    yield "if type(value) is not dict: raise Unlike"
    hints = get_type_hints(declaration)
    fields = [field.name for field in dataclasses.fields(declaration)]
    if any(hints[field] is not Timestamp for field in fields):
        yield "whole = value"
        yield from _filled(declaration, names)
        return
    # An interval comes again with each batch, audit and outcome: each is made once, and shared, until there are too many to keep.
    names.update(kept={}, Made=declaration, Open=_open(declaration))
    times = [f"at_{field}" for field in fields]
    for time, field in zip(times, fields, strict=True):
        yield f"{time} = value[{field!r}]"
        yield f"if type({time}) is not str: raise Unlike"
    yield f"key = ({', '.join(times)})"
    yield "value = kept.get(key)"
    yield "if value is None:"
    for time in times:
        yield f"    if matched({time}) is None and not is_timestamp({time}): raise Unlike"
    yield "    value = Open()"
    for time, field in zip(times, fields, strict=True):
        yield f"    value.{field} = {time}"
    yield "    value.__class__ = Made"
    yield f"    if len(kept) >= {_INTERVALS_KEPT}: kept.clear()"
    yield "    kept[key] = value"


def _open(declaration: Any) -> type:
    """A class that is laid out as a frozen one, and is not frozen."""
    slots = declaration.__dict__.get("__slots__")
    return type(declaration.__name__, (), {} if slots is None else {"__slots__": slots})


def _filled(declaration: Any, names: dict[str, Any], within: str | None = None) -> Iterator[str]:
    """Statements that make an instance of the keys of ``whole``; the field ``within`` has been made before.

    A frozen class refuses to be filled, and its ``__init__`` goes round that at several times the cost. So it is filled as one of a
    class that is laid out alike, and then becomes what was declared.
    """
    name = declaration.__name__
    names.update({name: declaration, f"Open{name}": _open(declaration)})
    hints = get_type_hints(declaration)
    yield f"made = Open{name}()"
    for field in dataclasses.fields(declaration):
        if field.name == within:
            yield f"made.{within} = within_{within}"
            continue
        yield f"value = whole[{field.name!r}]"
        yield from _value(hints[field.name], field.name, names)
        yield f"made.{field.name} = value"
    yield f"made.__class__ = {name}"
    yield "value = made"


def _value(declaration: Any, field: str, names: dict[str, Any]) -> Iterator[str]:
    """Statements that look at ``value``, and put what is made of it in its place. What they need goes into ``names``."""
    origin, arguments = get_origin(declaration), get_args(declaration)
    if declaration is Timestamp:
        yield "if type(value) is not str or (matched(value) is None and not is_timestamp(value)): raise Unlike"
    elif declaration in _PLAIN:
        yield f"if type(value) is not {declaration.__name__}: raise Unlike"
    elif dataclasses.is_dataclass(declaration):
        names[f"read_{field}"] = reader(declaration)
        yield f"value = read_{field}(value)"
    elif origin is Literal:
        names[f"choices_{field}"] = frozenset(arguments)
        yield f"if type(value) is not str or value not in choices_{field}: raise Unlike"
    elif origin in (Union, types.UnionType) and type(None) in arguments:
        (inner,) = (argument for argument in arguments if argument is not type(None))
        yield "if value is not None:"
        yield from (f"    {statement}" for statement in _value(inner, field, names))
    elif origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        yield "if type(value) is not list: raise Unlike"
        if arguments[0] in _PLAIN:  # without a call for each
            yield "for each in value:"
            yield f"    if type(each) is not {arguments[0].__name__}: raise Unlike"
            yield "value = tuple(value)"
        else:
            names[f"read_{field}"] = reader(arguments[0])
            yield f"value = tuple([read_{field}(each) for each in value])"
    elif origin is Mapping or origin is dict:
        yield "if type(value) is not dict: raise Unlike"
        if arguments[1] in _PLAIN:
            yield "for each in value.values():"
            yield f"    if type(each) is not {arguments[1].__name__}: raise Unlike"
            yield "value = value.copy()"
        else:
            names[f"read_{field}"] = reader(arguments[1])
            yield f"value = dict(zip(value, map(read_{field}, value.values())))"
    else:
        raise TypeError(f"a declaration cannot hold {declaration!r}")
