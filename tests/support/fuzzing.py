"""What must hold whatever a runner, a file or a variable says: properties over bytes, for hypothesis and for atheris.

Each target takes bytes and returns nothing. It raises AssertionError where a property does not hold, and lets through any exception that
is not declared; both are findings.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import orjson

from dagster_sqlmesh_pipes.mapping import ResultMapper
from dagster_sqlmesh_pipes.partitions import PartitionedRun
from dagster_sqlmesh_pipes.pipes import (
    Payload,
    RunnerMessageHandler,
    RunnerOutputReader,
    parse_message,
)
from dagster_sqlmesh_pipes.specs import SpecIndex
from sqlmesh_pipes_protocol import (
    DecodeError,
    EventStream,
    EventTooLargeError,
    LineSplitter,
    RunRequest,
    VersionMismatchError,
    decode,
    dump_due_report,
    dump_reconcile_report,
    encode,
    framing,
    parse_line,
    read_due_report,
    read_reconcile_report,
    variables,
)
from sqlmesh_pipes_protocol.codec import Envelope
from sqlmesh_pipes_protocol.events import (
    Event,
    UnknownEvent,
)
from sqlmesh_pipes_protocol.manifest import dump_manifest, read_manifest
from sqlmesh_pipes_protocol.told import RunTold

GOLDEN = Path(__file__).parents[1] / "protocol/golden"
OF_EVENTS = (DecodeError, VersionMismatchError, EventTooLargeError)
OF_DOCUMENTS = (DecodeError, VersionMismatchError)
STATUS = "sqlmesh_execution_status"
DAYS = dg.TimeWindowPartitionsDefinition(
    start=datetime(2026, 1, 1, tzinfo=timezone.utc), fmt="%Y-%m-%d", cron_schedule="0 0 * * *", timezone="UTC"
)


def golden_lines() -> list[bytes]:
    return (GOLDEN / "events-1.jsonl").read_bytes().splitlines()


def golden_documents() -> list[bytes]:
    return [path.read_bytes() for path in sorted(GOLDEN.glob("*.json"))]


@cache
def golden_models() -> list[str]:
    """Every name that stands for a model in the golden events."""
    events = [json.loads(line) for line in golden_lines()]
    found = {
        outcome["model"]
        for event in events
        for outcome in [event, *event.get("digest", ())]
        if "model" in outcome
    }
    return sorted(found)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


# Of the protocol


def received(data: bytes, size: int) -> tuple[list[Envelope], EventStream]:
    """The events in bytes that come in pieces of a size."""
    splitter, stream, envelopes = LineSplitter(), EventStream(), []
    lines = [line for piece in pieces(data, size) for line in splitter.feed(piece)]
    torn = splitter.close()
    for line in [*lines, *([torn] if torn is not None else [])]:
        value = parse_line(line)
        if value is None:
            continue
        with contextlib.suppress(*OF_EVENTS):
            envelope = stream.receive(value)
            if envelope is not None:
                envelopes.append(envelope)
    return envelopes, stream


def stream(data: bytes) -> None:
    """Lines, parts and events: each event once, whatever the pieces, and what is missing is what did not come."""
    size = 1 + (data[0] if data else 0)
    envelopes, state = received(data, size)
    again, _ = received(data, max(len(data), 1))
    assert envelopes == again
    seqs = [envelope.seq for envelope in envelopes]
    assert len(set(seqs)) == len(seqs) == state.received
    assert all(envelope.run_id == state.run_id for envelope in envelopes)
    missing = state.missing()
    assert all(len(gap) > 0 for gap in missing)
    assert len(missing) <= framing.MAX_GAPS + 1
    assert not any(seq in gap for gap in missing for seq in seqs)
    told = None
    for envelope in envelopes:
        assert decode(encode(envelope)) == envelope
        told = told or RunTold(envelope.run_id)
        told.take(envelope)


def documents(data: bytes) -> None:
    """What is read of a manifest or an answer is what was written."""
    readers: tuple[tuple[Callable[[bytes], Any], Callable[[Any], bytes]], ...] = (
        (read_manifest, dump_manifest),
        (read_due_report, dump_due_report),
        (read_reconcile_report, dump_reconcile_report),
    )
    for read, dump in readers:
        with contextlib.suppress(*OF_DOCUMENTS):
            value = read(data)
            assert read(dump(value)) == value


def requests(data: bytes) -> None:
    """What an orchestrator asks, and the variables that it is in."""
    with contextlib.suppress(orjson.JSONDecodeError):
        value = orjson.loads(data)
        if isinstance(value, dict):
            RunRequest.run_id_in(value)
            with contextlib.suppress(ValueError):
                variables.join(value, {})
            with contextlib.suppress(*OF_DOCUMENTS):
                request = RunRequest.from_extras(value)
                assert request is None or RunRequest.from_extras(request.to_extras()) == request
    encoded = base64.b64encode(zlib.compress(data * (1 + data[0] if data else 1), 0)).decode()
    with contextlib.suppress(ValueError):
        params, env = variables.split(encoded)
        assert variables.join(params, env) == (encoded if params else None)
        assert all(len(text) <= variables.MAX_VARIABLE_CHARS for text in env.values())


# Of the orchestrator


class Seen:
    """A handler that keeps messages."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def handle_message(self, message: Any) -> None:
        self.messages.append(message)


@cache
def context() -> dg.AssetExecutionContext:
    atexit.register(
        context.cache_clear
    )  # its instance is disposed of while there are modules left to do it with
    return dg.build_asset_context()


def messages(data: bytes) -> None:
    """A runner's output: whatever is a message is handled, whatever is none is passed on, in any pieces."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        reader = RunnerOutputReader()
        handler = RunnerMessageHandler(context(), reader)
        size = 1 + (data[0] if data else 0)
        with reader.read_messages(handler):
            for piece in pieces(data, size):
                reader.feed(piece)
            reader.close()
        events, result_mapper = EventStream(), mapper()
        while not handler.items.empty():
            item = handler.items.get()
            if isinstance(item, Payload) and isinstance(item.value, dict):
                with contextlib.suppress(*OF_EVENTS):
                    envelope = events.receive(item.value)
                    if envelope is not None:
                        list(result_mapper.results(envelope.event))
        for line in data.split(b"\n"):
            message = parse_message(line)
            assert message is None or isinstance(message["method"], str)


def key_of(fqn: str) -> dg.AssetKey:
    return dg.AssetKey([f"m{golden_models().index(fqn)}"])


def mapper(partitioned: bool = False, *, tell_all: bool = False) -> ResultMapper:
    """Of all models of the golden events but the last, which Dagster did not select."""
    names = golden_models()
    keys = {fqn: key_of(fqn) for fqn in names}
    selected = {key_of(fqn) for fqn in names[:-1]}
    checks = {(fqn, audit): audit for fqn in names for audit in ("not_null", "unique_values")}
    every = [STATUS, "not_null", "unique_values", "standing"]
    standalone = {"standing": [(key_of(fqn), "standing") for fqn in names]}
    return ResultMapper(
        SpecIndex(keys=keys, checks=checks, standalone=standalone),
        selected,
        {dg.AssetCheckKey(key, name) for key in selected for name in every},
        tell_all=tell_all,
        partitions=PartitionedRun(DAYS, ["2026-01-05", "2026-01-06"], lambda key: ())
        if partitioned
        else None,
        as_of=datetime(2026, 1, 31, tzinfo=timezone.utc),
        awaited=selected,
    )


def check_results(events: Iterable[Event | UnknownEvent], *, partitioned: bool, tell_all: bool) -> None:
    """No result of what was not selected, no model materialized twice, no check told twice, all of it as Dagster can keep it."""
    followed = mapper(partitioned, tell_all=tell_all)
    selected = {key_of(fqn) for fqn in golden_models()[: None if tell_all else -1]}
    materialized: list[dg.AssetKey] = []
    filled: list[tuple[dg.AssetKey, str | None]] = []
    checks: list[tuple[dg.AssetKey | None, str | None]] = []
    for event in events:
        for result in followed.results(event):
            assert result.asset_key in selected
            assert result.asset_key is not None
            if isinstance(result, dg.MaterializeResult):
                materialized.append(result.asset_key)
                checks += [(check.asset_key, check.check_name) for check in result.check_results or ()]
            elif isinstance(result, dg.AssetMaterialization):
                filled.append((result.asset_key, result.partition))
                assert result.partition is not None
                assert result.partition >= "2026-01-01"
            else:
                checks.append((result.asset_key, result.check_name))
                storable(result.metadata or {})
    assert len(set(materialized)) == len(materialized), "a model is materialized twice"
    assert len(set(filled)) == len(filled), "a partition is materialized twice"
    assert len(set(checks)) == len(checks), "a check is told twice"
    assert {key for key, _ in checks} <= selected


def storable(metadata: Mapping[str, Any]) -> None:
    from dagster._serdes import serialize_value

    serialize_value(dg.AssetMaterialization("x", metadata=metadata))


def results(data: bytes) -> None:
    """Events in whatever order and shape, as Dagster's results."""
    envelopes, _ = received(data, max(len(data), 1))
    choice = data[0] if data else 0
    check_results(
        [envelope.event for envelope in envelopes], partitioned=bool(choice & 1), tell_all=bool(choice & 2)
    )


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (stream, documents, requests, messages, results)
}
