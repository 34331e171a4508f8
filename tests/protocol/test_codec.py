"""One event, one JSON object: nothing that an event can hold is changed on the way."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlmesh_pipes_protocol import DecodeError, Envelope, decode, encode, frame
from sqlmesh_pipes_protocol.codec import ENVELOPE_KEYS, MAX_SEQ, timestamp
from sqlmesh_pipes_protocol.events import AuditEvaluated, Log, ModelSkipped, Timestamp, UnknownEvent

AT = Timestamp("2026-01-31T06:30:00Z")
SEQS = st.integers(min_value=0, max_value=MAX_SEQ)
SURROGATES = st.text(st.characters(categories=["Cs", "Lu", "So"]), min_size=1)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def replaced(text: str) -> str:
    """The text with a question mark for each lone surrogate."""
    return "".join("?" if "\ud800" <= character <= "\udfff" else character for character in text)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), run_id=st.text(), seq=SEQS)
def test_any_event_is_read_as_it_was_written(
    any_event: Any, any_time: Any, data: Any, run_id: str, seq: int
) -> None:
    envelope = Envelope(run_id=run_id, seq=seq, at=data.draw(any_time), event=data.draw(any_event))

    line = encode(envelope)

    assert decode(line) == envelope
    assert decode(line.decode()) == envelope
    assert b"\n" not in line
    assert b"\r" not in line


@settings(deadline=None, max_examples=200)
@given(kind=st.text(), fields=st.dictionaries(st.text().filter(lambda key: key not in ENVELOPE_KEYS), JSON))
def test_an_event_of_a_later_minor_version_is_kept_whole(kind: str, fields: dict[str, Any]) -> None:
    unknown = Envelope(run_id="r", seq=0, at=AT, v="1.9", event=UnknownEvent(kind=f"x{kind}", fields=fields))

    line = encode(unknown)

    assert decode(line) == unknown
    assert b"\n" not in line


@settings(deadline=None)
@given(message=SURROGATES, key=SURROGATES, run_id=SURROGATES)
def test_lone_surrogates_are_replaced_and_never_raise(message: str, key: str, run_id: str) -> None:
    audit = AuditEvaluated(
        model=message,
        audit="a",
        name="a",
        arguments={key: message},
        blocking=True,
        skipped=False,
        passed=True,
        failing_rows=0,
        query=message,
        dialect=None,
        interval=None,
        targets=(message, "whole"),
    )

    received = decode(encode(Envelope(run_id=run_id, seq=0, at=AT, event=audit)))

    event = received.event
    assert isinstance(event, AuditEvaluated)
    assert received.run_id == replaced(run_id)
    assert event.model == event.query == replaced(message)
    assert event.arguments == {replaced(key): replaced(message)}
    assert event.targets == (replaced(message), "whole")


def test_an_undecodable_file_name_in_a_large_event_is_sent_in_parts() -> None:
    name = b"caf\xe9.sql".decode("utf-8", "surrogateescape")

    lines = list(
        frame(Envelope(run_id="r", seq=0, at=AT, event=Log(level="info", logger="", message=name * 2_000)))
    )

    assert len(lines) > 1


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"null", b"[]", b'"text"', b"{} {}", b"\xff\xfe", b"{'kind': 1}", b"[" * 100_000, "\ud800"],
    ids=["empty", "torn", "null", "list", "text", "two objects", "no Unicode", "Python", "deep", "surrogate"],
)
def test_what_is_no_json_object_is_refused_at_the_root(line: bytes | str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(line)

    assert caught.value.path == "$"
    assert caught.value.expected == "a JSON object"
    assert len(caught.value.got) <= 80


@given(
    moment=st.datetimes(
        min_value=datetime(1, 1, 3),  # noqa: DTZ001 - hypothesis adds the zone
        max_value=datetime(9999, 12, 29),  # noqa: DTZ001
        timezones=st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours))),
    )
)
def test_a_timestamp_is_the_same_moment_in_utc_and_sorts_as_text(moment: datetime) -> None:
    written = timestamp(moment)

    assert len(written) == len("2026-01-31T06:30:00.000000Z")
    assert datetime.strptime(written, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc) == moment
    assert timestamp(moment + timedelta(microseconds=1)) > written


def test_the_highest_number_is_read_with_keys_left_out_as_well() -> None:
    line = b'{"kind":"model_skipped","v":"1.0","run_id":"r","seq":%d,"at":"%b",' % (MAX_SEQ, AT.encode())
    line += b'"model":"m","reason":"up_to_date","detail":"d"}'

    assert decode(line) == Envelope(
        run_id="r", seq=MAX_SEQ, at=AT, event=ModelSkipped(model="m", reason="up_to_date", detail="d")
    )


def test_the_body_of_a_line_comes_after_its_envelope() -> None:
    line = encode(Envelope(run_id="r", seq=3, at=AT, event=Log(level="info", logger="a", message="b")))

    assert list(orjson.loads(line)) == ["kind", "v", "run_id", "seq", "at", "level", "logger", "message"]
