"""The protocol between a SQLMesh runner and its readers: typed events, their lines, and the project's manifest."""

from sqlmesh_pipes_protocol.audits import AuditCall, audit_identities
from sqlmesh_pipes_protocol.codec import Envelope, decode, encode, from_wire
from sqlmesh_pipes_protocol.due import DueReport, dump_due_report, read_due_report
from sqlmesh_pipes_protocol.errors import (
    DecodeError,
    EventTooLargeError,
    ManifestError,
    ProtocolError,
    VersionMismatchError,
)
from sqlmesh_pipes_protocol.framing import EventStream, LineSplitter, frame, parse_line
from sqlmesh_pipes_protocol.manifest import (
    Manifest,
    load_manifest,
    staleness,
    write_manifest,
)
from sqlmesh_pipes_protocol.reconcile import (
    ReconcileReport,
    dump_reconcile_report,
    read_reconcile_report,
)
from sqlmesh_pipes_protocol.request import RunRequest
from sqlmesh_pipes_protocol.schema import due_schema, event_schema, manifest_schema, reconcile_schema
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION

__all__ = [
    "PROTOCOL_VERSION",
    "AuditCall",
    "DecodeError",
    "DueReport",
    "Envelope",
    "EventStream",
    "EventTooLargeError",
    "LineSplitter",
    "Manifest",
    "ManifestError",
    "ProtocolError",
    "ReconcileReport",
    "RunRequest",
    "VersionMismatchError",
    "audit_identities",
    "decode",
    "due_schema",
    "dump_due_report",
    "dump_reconcile_report",
    "encode",
    "event_schema",
    "frame",
    "from_wire",
    "load_manifest",
    "manifest_schema",
    "parse_line",
    "read_due_report",
    "read_reconcile_report",
    "reconcile_schema",
    "staleness",
    "write_manifest",
]
