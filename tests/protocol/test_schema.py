"""The JSON Schema says what the reader accepts: for those who read the stream in another language."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sqlmesh_pipes_protocol import (
    DueReport,
    Envelope,
    EventStream,
    Manifest,
    ReconcileReport,
    due_schema,
    dump_due_report,
    dump_reconcile_report,
    encode,
    event_schema,
    frame,
    manifest_schema,
    reconcile_schema,
)
from sqlmesh_pipes_protocol.codec import EVENT_TYPES
from sqlmesh_pipes_protocol.events import Log, Timestamp
from sqlmesh_pipes_protocol.manifest import dump_manifest

EVENTS = Draft202012Validator(event_schema())
MANIFEST = Draft202012Validator(manifest_schema())
DUE = Draft202012Validator(due_schema())
RECONCILE = Draft202012Validator(reconcile_schema())
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("schema", [event_schema, manifest_schema, due_schema, reconcile_schema])
def test_it_is_a_schema_of_draft_2020_12(schema: Callable[[], dict[str, Any]]) -> None:
    document = schema()

    Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["title"]
    assert orjson.loads(orjson.dumps(document)) == document


@pytest.mark.parametrize("schema", [event_schema, manifest_schema, due_schema, reconcile_schema])
def test_every_reference_has_its_definition_and_every_definition_is_referred_to(
    schema: Callable[[], dict[str, Any]],
) -> None:
    document = schema()
    names: set[str] = set()
    waiting: list[Any] = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "$ref" in node:
                names.add(node["$ref"].removeprefix("#/$defs/"))
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)

    assert names == set(document["$defs"])
    assert all(definition["description"] for definition in document["$defs"].values())


def test_every_golden_line_is_valid(golden_lines: list[bytes]) -> None:
    assert {orjson.loads(line)["kind"] for line in golden_lines} == {*EVENT_TYPES, "part"}
    for line in golden_lines:
        EVENTS.validate(orjson.loads(line))


def test_every_golden_manifest_is_valid() -> None:
    found = sorted(GOLDEN.glob("manifest-*.json"))

    assert len(found) == 3
    for path in found:
        MANIFEST.validate(orjson.loads(path.read_bytes()))


def test_the_golden_due_report_is_valid() -> None:
    report = orjson.loads((GOLDEN / "due-1.json").read_bytes())

    DUE.validate(report)
    assert not DUE.is_valid({**report, "models": [{"model": "a", "intervals": []}]})


def test_the_golden_reconcile_report_is_valid() -> None:
    report = orjson.loads((GOLDEN / "reconcile-1.json").read_bytes())

    RECONCILE.validate(report)
    assert not RECONCILE.is_valid({**report, "models": [{"model": "a", "recorded": []}]})


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_event_is_valid_as_it_is_written(any_event: Any, any_time: Any, data: Any) -> None:
    envelope = Envelope(run_id="run", seq=0, at=data.draw(any_time), event=data.draw(any_event))

    EVENTS.validate(orjson.loads(encode(envelope)))


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_manifest_is_valid_as_it_is_written(any_of: Any, data: Any) -> None:
    MANIFEST.validate(orjson.loads(dump_manifest(data.draw(any_of(Manifest)))))


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_due_report_is_valid_as_it_is_written(any_of: Any, data: Any) -> None:
    DUE.validate(orjson.loads(dump_due_report(data.draw(any_of(DueReport)))))


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_reconcile_report_is_valid_as_it_is_written(any_of: Any, data: Any) -> None:
    RECONCILE.validate(orjson.loads(dump_reconcile_report(data.draw(any_of(ReconcileReport)))))


def test_every_part_of_an_event_is_valid() -> None:
    event = Log(level="info", logger="", message="x" * 30_000)
    lines = list(
        frame(Envelope(run_id="run", seq=0, at=Timestamp("2026-01-31T06:30:00Z"), event=event), overhead=500)
    )

    assert len(lines) > 4
    for line in lines:
        EVENTS.validate(orjson.loads(line))
    assert EventStream().receive(orjson.loads(lines[0])) is None


def test_the_kind_alone_tells_which_event_a_line_is(golden_lines: list[bytes]) -> None:
    line = orjson.loads(golden_lines[0])

    assert line["kind"] == "run_started"
    for kind in (*EVENT_TYPES, "part"):
        assert EVENTS.is_valid({**line, "kind": kind}) == (kind == "run_started")
