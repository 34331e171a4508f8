"""One event, one JSON object: encoding with orjson, decoding with validation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar, get_args

import orjson

from sqlmesh_pipes_protocol import compiled, shapes
from sqlmesh_pipes_protocol.errors import DecodeError, shown
from sqlmesh_pipes_protocol.events import Event, Timestamp, UnknownEvent
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION, check_version

T = TypeVar("T")
_FRACTION = re.compile(r"\.[0-9]{1,6}")

EVENT_TYPES: Mapping[str, type[Event]] = {event.kind: event for event in get_args(Event)}
"""Each kind of event and its class, derived from the union `Event`."""

ENVELOPE_KEYS = frozenset({"kind", "v", "run_id", "seq", "at"})

MAX_SEQ = 2**53 - 1
"""The largest integer that every JSON parser keeps; no run has as many events."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """An event with its place in the run.

    Attributes:
        run_id: names the run; lines of another run in the same stream are foreign.
        seq: 0, 1, 2 … within the run, without gaps.
        at: when the event was written.
        event: the event itself, `UnknownEvent` for a kind of a later minor version.
        v: the protocol version of the writer.
    """

    run_id: str
    seq: int
    at: Timestamp
    event: Event | UnknownEvent
    v: str = PROTOCOL_VERSION


def timestamp(moment: datetime) -> Timestamp:
    """An aware datetime as the protocol writes it, in UTC with microseconds."""
    return Timestamp(
        moment.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )


def moment_of(text: str) -> datetime:
    """The aware datetime of a time of the protocol."""
    text = text.replace("Z", "+00:00")
    if "." in text:  # Python 3.10 reads three or six decimals, the protocol has one to six
        text = _FRACTION.sub(lambda match: match[0].ljust(7, "0"), text)
    return datetime.fromisoformat(text)


def header(kind: str, run_id: str, seq: int, at: Timestamp, v: str = PROTOCOL_VERSION) -> bytes:
    """The envelope's keys as the beginning of a JSON object, up to and with the comma."""
    return b'{"kind":%b,"v":"%b","run_id":%b,"seq":%d,"at":"%b",' % (
        dumps(kind),
        v.encode(),
        dumps(run_id),
        seq,
        at.encode(),
    )


def encode(envelope: Envelope) -> bytes:
    """The event as one JSON object without a line break.

    Strings that are no Unicode (lone surrogates, as in undecodable file names) are sent with replacement characters:
    an event is never lost for a character.

    Raises:
        TypeError: the event holds what JSON cannot.
    """
    event = envelope.event
    fields = event.fields if isinstance(event, UnknownEvent) else event.__dict__
    whole = {
        "kind": event.kind,
        "v": envelope.v,
        "run_id": envelope.run_id,
        "seq": envelope.seq,
        "at": envelope.at,
        **fields,
    }
    return dumps(whole)


def decode(line: bytes | str) -> Envelope:
    """The event that a line holds.

    Raises:
        DecodeError: the line is no JSON object, or the event has not the declared shape.
        VersionMismatchError: the line is of another protocol major.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DecodeError("$", "a JSON object", f"{error}: {line[:40]!r}"[:80]) from None
    return from_wire(value)


def from_wire(value: object) -> Envelope:
    """The event in an object that a JSON parser returned; raises as `decode` does."""
    if type(value) is dict and type(kind := value.get("kind")) is str:
        read = _READERS[kind]
        try:
            envelope = read(value)
        except LookupError:
            pass
        else:
            if envelope.v != PROTOCOL_VERSION:
                check_version(envelope.v)
            if 0 <= envelope.seq <= MAX_SEQ:
                return envelope
    return from_wire_in_words(value)


class _Readers(dict[str, Callable[[Any], Envelope]]):
    """By kind, compiled when its first event comes. Kinds that are not known have one that reads none, and are not kept."""

    def __missing__(self, kind: str) -> Callable[[Any], Envelope]:
        if kind not in EVENT_TYPES:
            return compiled.unlike
        self[kind] = compiled.reader_within(Envelope, "event", EVENT_TYPES[kind])
        return self[kind]


_READERS = _Readers()


def from_wire_in_words(value: object) -> Envelope:
    """As `from_wire`, the general way: slower, and it knows what is wrong."""
    if not isinstance(value, dict):
        raise DecodeError("$", "a JSON object", shown(value))
    check_version(value.get("v"))
    kind = value.get("kind")
    if type(kind) is not str:
        raise DecodeError("$.kind", "a string", shown(kind))
    seq = value.get("seq")
    if type(seq) is not int or not 0 <= seq <= MAX_SEQ:
        raise DecodeError("$.seq", f"an integer from 0 to {MAX_SEQ}", shown(seq))
    run_id = value.get("run_id")
    if type(run_id) is not str:
        raise DecodeError("$.run_id", "a string", shown(run_id))
    at = shapes.read(Timestamp, value.get("at"), "$.at")
    event_type = EVENT_TYPES.get(kind)
    event: Event | UnknownEvent
    if event_type is None:
        fields = {key: item for key, item in value.items() if key not in ENVELOPE_KEYS}
        event = UnknownEvent(kind=kind, fields=fields)
    else:
        event = shapes.read_in_words(event_type, value)
    return Envelope(run_id=run_id, seq=seq, at=at, event=event, v=value["v"])


def dumps(value: object, option: int = 0) -> bytes:
    """As JSON, with replacement characters for what is no Unicode.

    Raises:
        TypeError: the value holds what JSON cannot.
    """
    try:
        return orjson.dumps(value, option=option)
    except TypeError:  # orjson.JSONEncodeError is a TypeError
        return orjson.dumps(_as_unicode(value), option=option)


def _as_unicode(value: Any) -> Any:
    """A copy with every string made encodable; anything that JSON cannot hold still raises."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_unicode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_as_unicode(key): _as_unicode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_unicode(item) for item in value]
    return value


def read_report(declaration: type[T], text: bytes, subject: str) -> T:
    """Read and validate a document that says its version in ``v``.

    Raises:
        DecodeError: it is no JSON, or has another shape.
        VersionMismatchError: it is of another protocol major; it names the subject.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DecodeError("$", "a report as JSON", f"{error}: {text[:40]!r}"[:80]) from None
    if isinstance(value, dict):
        check_version(value.get("v"), subject=subject)
    return shapes.read(declaration, value)
