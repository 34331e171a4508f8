"""The short way and the general way of reading are one: what one accepts the other does, alike, and they refuse in the same words."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlmesh_pipes_protocol import DecodeError, Envelope, ProtocolError, compiled, encode, from_wire, shapes
from sqlmesh_pipes_protocol.codec import EVENT_TYPES, from_wire_in_words
from sqlmesh_pipes_protocol.events import AuditEvaluated, Event, Interval
from sqlmesh_pipes_protocol.manifest import Manifest, dump_manifest
from sqlmesh_pipes_protocol.times import is_timestamp

LEFT_OUT = object()
VALUES = [
    LEFT_OUT,
    None,
    True,
    0,
    -1,
    2**53,
    1.5,
    "",
    "info",
    "1.1",
    "2.0",
    "2026-01-31T06:30:00Z",
    "2026-02-30T06:30:00Z",
    "2024-02-29T06:30:00.5Z",
    [],
    [None],
    ["a"],
    [{}],
    {},
    {"a": 1},
    {"a": "b"},
    {"start": "2026-01-31T06:30:00Z", "end": "tomorrow"},
]

Place = tuple[Any, ...]


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Where something stands in a document, everything inside of everything included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*place, key)
        yield from places(item, (*place, key))


def with_value(document: Any, place: Place, to: object) -> Any:
    changed = copy.deepcopy(document)
    target = changed
    for step in place[:-1]:
        target = target[step]
    if to is LEFT_OUT:
        del target[place[-1]]
    else:
        target[place[-1]] = to
    return changed


def outcome(read: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    """What was read, or all that the error says."""
    try:
        made = read(value)
    except ProtocolError as error:
        return (type(error), str(error), vars(error))
    return (made, repr(made))  # 1 and True are equal, and are not written alike


@pytest.fixture(scope="module")
def documents(golden_lines: list[bytes]) -> list[dict[str, Any]]:
    found = [orjson.loads(line) for line in golden_lines]
    return [document for document in found if document["kind"] in EVENT_TYPES]


def test_every_kind_of_event_is_read_the_short_way(documents: list[dict[str, Any]]) -> None:
    assert {document["kind"] for document in documents} == set(EVENT_TYPES)
    for document in documents:
        read = compiled.reader_within(Envelope, "event", EVENT_TYPES[document["kind"]])

        assert outcome(read, document) == outcome(from_wire_in_words, document)


def test_what_is_read_is_as_frozen_and_as_whole_as_what_its_class_makes(
    documents: list[dict[str, Any]],
) -> None:
    for document in documents:
        envelope = from_wire(document)
        made = dataclasses.replace(envelope, event=dataclasses.replace(envelope.event))

        assert type(envelope) is Envelope
        assert type(envelope.event) is EVENT_TYPES[document["kind"]]
        assert (envelope, repr(envelope)) == (made, repr(made))
        assert list(vars(envelope.event)) == list(vars(made.event))
        for instance, field in (
            (envelope, "seq"),
            (envelope.event, dataclasses.fields(envelope.event)[0].name),
        ):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(instance, field, 1)


def test_keys_that_were_left_out_are_there_as_if_they_had_been_sent(documents: list[dict[str, Any]]) -> None:
    for document in documents:
        defaults = {
            field.name: field.default
            for field in dataclasses.fields(EVENT_TYPES[document["kind"]])
            if field.default is not dataclasses.MISSING
        }
        short = {key: value for key, value in document.items() if key not in defaults}

        assert vars(from_wire(short).event) == {**vars(from_wire(document).event), **defaults}


def test_any_wrong_value_at_any_place_is_told_as_by_the_general_way(documents: list[dict[str, Any]]) -> None:
    refused = 0
    for document in documents:
        for place in places(document):
            for value in VALUES:
                changed = with_value(document, place, value)
                told = outcome(from_wire, changed)

                assert told == outcome(from_wire_in_words, changed), (place, value)
                refused += told[0] is DecodeError
    assert refused > 1_000


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_event_with_anything_anywhere_is_told_as_by_the_general_way(
    any_event: Any, any_time: Any, data: Any
) -> None:
    event = data.draw(any_event)
    document = orjson.loads(encode(Envelope(run_id="r", seq=0, at=data.draw(any_time), event=event)))
    assert outcome(from_wire, document) == outcome(from_wire_in_words, document)

    place = data.draw(st.sampled_from(list(places(document))))
    changed = with_value(document, place, data.draw(st.sampled_from(VALUES) | st.text() | st.integers()))
    assert outcome(from_wire, changed) == outcome(from_wire_in_words, changed)


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_manifest_with_anything_anywhere_is_told_as_by_the_general_way(any_of: Any, data: Any) -> None:
    document = orjson.loads(dump_manifest(data.draw(any_of(Manifest))))
    place = data.draw(st.sampled_from(list(places(document))))
    changed = with_value(document, place, data.draw(st.sampled_from(VALUES)))

    for value in (document, changed):
        assert outcome(lambda value: shapes.read(Manifest, value), value) == outcome(
            lambda value: shapes.read_in_words(Manifest, value), value
        )


def test_what_was_read_does_not_change_with_what_it_was_read_from(documents: list[dict[str, Any]]) -> None:
    document = copy.deepcopy(next(one for one in documents if one.get("arguments")))
    event = from_wire(document).event
    before = repr(event)

    document["arguments"]["columns"] = document["model"] = "other"
    document["interval"]["start"] = "2020-01-01T00:00:00Z"

    assert isinstance(event, AuditEvaluated)
    assert repr(event) == before


def test_intervals_that_are_alike_are_one_object() -> None:
    value = {"start": "2026-01-31T00:00:00Z", "end": "2026-02-01T00:00:00Z"}

    assert shapes.read(Interval, value) is shapes.read(Interval, dict(value))


def test_a_text_that_is_no_str_is_refused_though_it_is_like_one_that_was_read() -> None:
    class Text(str):
        __slots__ = ()

    value = {"start": "2026-01-31T00:00:00Z", "end": "2026-02-01T00:00:00Z"}
    shapes.read(Interval, value)

    with pytest.raises(DecodeError) as caught:
        shapes.read(Interval, {**value, "end": Text(value["end"])})

    assert caught.value.path == "$.end"


@pytest.mark.parametrize("year", [0, 1, 4, 100, 400, 1900, 1999, 2000, 2024, 2026, 2100, 9999])
def test_a_time_is_one_that_the_calendar_has(year: int) -> None:
    for month in range(15):
        for day in range(40):
            try:
                exists = bool(date(year, month, day))
            except ValueError:
                exists = False

            assert is_timestamp(f"{year:04}-{month:02}-{day:02}T23:59:59.5Z") == exists


def test_a_declaration_that_cannot_be_held_is_refused_when_it_is_read() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Odd:
        members: set[str]

    Odd.__annotations__["members"] = set[str]
    with pytest.raises(TypeError, match=r"a declaration cannot hold set\[str\]"):
        shapes.read(Odd, {"members": []})
    with pytest.raises(TypeError, match=r"a declaration cannot hold set\[str\]"):
        shapes.read_in_words(Odd, {"members": []})
    with pytest.raises(TypeError, match=r"a declaration cannot hold set\[str\]"):
        shapes.json_schema(Odd, {})


def test_an_event_shares_no_key_with_its_envelope() -> None:
    own = {field.name for field in dataclasses.fields(Envelope)} - {"event"}
    for event_type in get_args(Event):
        assert not own & {field.name for field in dataclasses.fields(event_type)}


def test_more_intervals_than_are_kept_are_read_alike():
    start = date(2000, 1, 1).toordinal()
    days = [date.fromordinal(start + day).isoformat() for day in range(2500)]
    intervals = [
        {"start": f"{day}T00:00:00Z", "end": f"{after}T00:00:00Z"} for day, after in itertools.pairwise(days)
    ]
    read = compiled.reader(Interval)

    made = [read(interval) for interval in intervals * 2]

    assert made == [shapes.read_in_words(Interval, interval) for interval in intervals * 2]
    assert {type(interval) for interval in made} == {Interval}
    with pytest.raises(dataclasses.FrozenInstanceError):
        made[0].start = "2026-01-01T00:00:00Z"  # type: ignore[misc]  # that is the question
    with pytest.raises(LookupError):
        read({"start": "2026-01-01T00:00:00Z", "end": "tomorrow"})
