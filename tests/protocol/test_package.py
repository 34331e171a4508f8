"""What the package offers, and what it may need: both are promises to those who install it beside anything else."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import sqlmesh_pipes_protocol as protocol
from sqlmesh_pipes_protocol import audits, codec, due, events, framing, manifest, reconcile, request

NAMES = [
    "AuditCall",
    "DecodeError",
    "DueReport",
    "Envelope",
    "EventStream",
    "EventTooLargeError",
    "LineSplitter",
    "Manifest",
    "ManifestError",
    "PROTOCOL_VERSION",
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

IMPORTS = """
import importlib, pkgutil, sys
before = set(sys.modules)
import sqlmesh_pipes_protocol as package
modules = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for module in modules:
    importlib.import_module(module)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
print(*modules)
"""


def test_the_public_names_are_these() -> None:
    assert sorted(protocol.__all__) == NAMES
    assert all(hasattr(protocol, name) for name in NAMES)


def test_the_protocol_is_of_version_1_0() -> None:
    assert protocol.PROTOCOL_VERSION == "1.0"


def test_it_imports_the_standard_library_and_orjson_and_nothing_else() -> None:
    result = subprocess.run([sys.executable, "-I", "-c", IMPORTS], capture_output=True, text=True, check=True)

    imported, modules = (line.split() for line in result.stdout.splitlines())
    assert {"sqlmesh_pipes_protocol.framing", "sqlmesh_pipes_protocol.manifest"} <= set(modules)
    # Of the library itself, under a name that differs by platform: orjson 3.10.0 has it looked up.
    imported = [name for name in imported if not name.startswith("_sysconfigdata_")]
    assert {name for name in imported if name not in sys.stdlib_module_names} == {
        "orjson",
        "sqlmesh_pipes_protocol",
    }


def test_what_is_sent_and_read_cannot_be_changed_and_can_be_a_key() -> None:
    declared = {
        value
        for module in (audits, codec, due, events, framing, manifest, reconcile, request)
        for value in vars(module).values()
        if dataclasses.is_dataclass(value) and isinstance(value, type) and not value.__name__.startswith("_")
    }

    assert len(declared) > 30
    assert [each for each in declared if not each.__dataclass_params__.frozen] == []


def test_every_error_is_a_protocol_error() -> None:
    errors = [value for name, value in vars(protocol).items() if name.endswith("Error")]

    assert len(errors) == 5
    assert all(issubclass(error, protocol.ProtocolError) for error in errors)
