"""JSON Schema of the protocol, generated from the declarations."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlmesh_pipes_protocol import shapes
from sqlmesh_pipes_protocol.codec import EVENT_TYPES, MAX_SEQ
from sqlmesh_pipes_protocol.due import DueReport
from sqlmesh_pipes_protocol.framing import Part
from sqlmesh_pipes_protocol.manifest import Manifest
from sqlmesh_pipes_protocol.reconcile import ReconcileReport
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def event_schema() -> dict[str, Any]:
    """The schema of one line of an event stream: an event, or a part of one."""
    definitions: dict[str, Any] = {}
    lines = []
    for declaration in (*EVENT_TYPES.values(), Part):
        assert dataclasses.is_dataclass(declaration)  # noqa: S101 - narrows the type
        shape = shapes.object_schema(declaration, definitions)
        shape["properties"] = {
            "kind": {"const": declaration.kind},
            "v": {"type": "string", "pattern": r"^[0-9]{1,4}\.[0-9]{1,4}$"},
            "run_id": {"type": "string"},
            "seq": {"type": "integer", "minimum": 0, "maximum": MAX_SEQ},
            "at": {"type": "string", "pattern": shapes.TIMESTAMP_PATTERN},
            **shape["properties"],
        }
        shape["required"] = ["kind", "v", "run_id", "seq", "at", *shape["required"]]
        definitions[declaration.__name__] = shape
        lines.append({"$ref": f"#/$defs/{declaration.__name__}"})
    return {
        "$schema": _DIALECT,
        "title": f"A line of a SQLMesh run's event stream, protocol {PROTOCOL_VERSION}",
        "oneOf": lines,
        "$defs": definitions,
    }


def manifest_schema() -> dict[str, Any]:
    """The schema of a manifest."""
    return _document_schema(Manifest, "A SQLMesh project's manifest")


def due_schema() -> dict[str, Any]:
    """The schema of a report of what is due."""
    return _document_schema(DueReport, "What is due in a SQLMesh environment")


def reconcile_schema() -> dict[str, Any]:
    """The schema of a report of what has been recorded since."""
    return _document_schema(ReconcileReport, "What SQLMesh has recorded since a moment or a run's begin")


def _document_schema(declaration: type, title: str) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    return {
        "$schema": _DIALECT,
        "title": f"{title}, protocol {PROTOCOL_VERSION}",
        **shapes.object_schema(declaration, definitions),
        "$defs": definitions,
    }
