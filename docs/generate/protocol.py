"""The tables of the protocol's reference, from its declarations."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import orjson
from docs.generate.declarations import code, entries, summary, table, texts_below

from sqlmesh_pipes_protocol import (
    DueReport,
    Manifest,
    ReconcileReport,
    RunRequest,
    codec,
    events,
    framing,
    manifest,
    variables,
)
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION

GOLDEN = Path(__file__).parents[2] / "tests" / "protocol" / "golden" / "events-1.jsonl"

ENUMERATIONS: Mapping[str, Any] = {
    name: value for name, value in vars(events).items() if get_origin(value) is Literal
}
_LIMITS: tuple[tuple[types.ModuleType, tuple[str, ...]], ...] = (
    (framing, ("MAX_LINE_BYTES", "MAX_EVENT_BYTES", "MAX_FOREIGN_LINE_BYTES", "MAX_GAPS")),
    (codec, ("MAX_SEQ",)),
    (variables, ("MAX_VARIABLE_CHARS", "MAX_CONTEXT_CHARS")),
    (manifest, ("MAX_MANIFEST_BYTES",)),
)


def version() -> str:
    return f"This is protocol **{PROTOCOL_VERSION}**."


def limits() -> str:
    """The bounds that both sides keep to."""
    return table(
        ("Limit", "Value", ""),
        [
            (code(name), f"{getattr(module, name):,}", texts_below(module)[name])
            for module, names in _LIMITS
            for name in names
        ],
    )


def envelope() -> str:
    """The keys that every line has."""
    described = {"kind": "Which event the line is.", **entries(codec.Envelope, "Attributes")}
    hints: dict[str, Any] = {**get_type_hints(codec.Envelope), "kind": str}
    return table(
        ("Key", "Type", "Meaning"),
        [
            (code(key), _type(hints[key]), _meaning(described[key]))
            for key in ("kind", "v", "run_id", "seq", "at")
        ],
    )


def event_list() -> str:
    """Each event with its fields and a golden line."""
    examples = _golden_lines()
    return "\n\n".join(
        _event(kind, declaration, examples[kind]) for kind, declaration in codec.EVENT_TYPES.items()
    )


def part() -> str:
    """The piece of an event that is too large for a line."""
    return _fields(framing.Part)


def values() -> str:
    """What events hold that is no plain value."""
    return "\n\n".join(_object(declaration) for declaration in _nested(*codec.EVENT_TYPES.values()))


def enumerations() -> str:
    below = texts_below(events)
    return "\n\n".join(
        f"### {name}\n\n" + (below.get(name) or ", ".join(code(value) for value in get_args(choices)) + ".")
        for name, choices in ENUMERATIONS.items()
    )


def manifest_document() -> str:
    return _document(Manifest)


def due_document() -> str:
    return _document(DueReport)


def reconcile_document() -> str:
    return _document(ReconcileReport)


def request() -> str:
    """What Dagster asks for, in the extras of the Pipes context."""
    return _fields(RunRequest)


def _document(declaration: Any) -> str:
    of_events = set(_nested(*codec.EVENT_TYPES.values()))
    own = [nested for nested in _nested(declaration) if nested not in of_events]
    return "\n\n".join([_fields(declaration), *map(_object, own)])


def _event(kind: str, declaration: Any, example: bytes) -> str:
    shown = orjson.dumps(orjson.loads(example), option=orjson.OPT_INDENT_2).decode()
    fields = f"{summary(declaration)}\n\n{_fields(declaration)}"
    return f'### {kind}\n\n{fields}\n\n??? example "A line, spread out"\n\n' + "\n".join(
        f"    {line}" for line in ("```json", *shown.splitlines(), "```")
    )


def _object(declaration: Any) -> str:
    return f"#### {declaration.__name__}\n\n{summary(declaration)}\n\n{_fields(declaration)}"


def _fields(declaration: Any) -> str:
    """A table of the keys; what is said of none of them has no column."""
    hints = get_type_hints(declaration)
    described = {
        **entries(declaration, "Attributes"),
        **texts_below(sys.modules[declaration.__module__], declaration.__name__),
    }
    header = ("Key", "Type", "If left out", "Meaning")
    rows = [
        (code(field.name), _type(hints[field.name]), _default(field), _meaning(described.get(field.name, "")))
        for field in dataclasses.fields(declaration)
    ]
    said = [column for column in range(len(header)) if any(row[column] for row in rows)]
    return table(
        tuple(header[column] for column in said),
        [tuple(row[column] for column in said) for row in rows],
    )


def _meaning(text: str) -> str:
    """A field's text in the words of JSON."""
    return re.sub(r"\bNone\b", "`null`", text[:1].upper() + text[1:])


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return ""
    return code(orjson.dumps(field.default).decode())


def _type(annotation: Any) -> str:
    """A type in the words of JSON, with links to what the page declares."""
    for name, choices in ENUMERATIONS.items():
        if annotation == choices:
            return f"[{name}](#{name.lower()})"
    if dataclasses.is_dataclass(annotation):
        name = annotation.__name__  # type: ignore[union-attr]  # a class, as declarations hold
        return f"[{name}](#{name.lower()})"
    if annotation is events.Timestamp:
        return "time"
    plain = {str: "string", int: "integer", bool: "boolean", float: "number", object: "any"}
    if annotation in plain:
        return plain[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if each is type(None) else _type(each) for each in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    return f"object of {_type(arguments[1])}"


def _nested(*declarations: Any) -> list[Any]:
    """The dataclasses that declarations hold, each once, an outer one before what it holds."""
    found: dict[Any, None] = {}

    def walk(annotation: Any) -> Iterator[Any]:
        if dataclasses.is_dataclass(annotation):
            yield annotation
        for argument in get_args(annotation):
            yield from walk(argument)

    waiting = list(declarations)
    while waiting:
        for annotation in get_type_hints(waiting.pop(0)).values():
            for declaration in walk(annotation):
                if declaration not in found:
                    found[declaration] = None
                    waiting.append(declaration)
    return list(found)


def _golden_lines() -> dict[str, bytes]:
    """The first golden line of each kind."""
    first: dict[str, bytes] = {}
    for line in GOLDEN.read_bytes().splitlines():
        first.setdefault(orjson.loads(line)["kind"], line)
    return first


PARTS: Mapping[str, Callable[[], str]] = {
    "version": version,
    "limits": limits,
    "envelope": envelope,
    "events": event_list,
    "part": part,
    "values": values,
    "enumerations": enumerations,
    "manifest": manifest_document,
    "due": due_document,
    "reconcile": reconcile_document,
    "request": request,
}
