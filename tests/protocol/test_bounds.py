"""What a reader takes of memory and time is bounded, whatever is sent: corrupt or hostile, it is data and nothing else."""

from __future__ import annotations

import base64
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlmesh_pipes_protocol import (
    DecodeError,
    Envelope,
    EventStream,
    EventTooLargeError,
    ManifestError,
    RunRequest,
    decode,
    frame,
    framing,
    from_wire,
    load_manifest,
    parse_line,
    read_due_report,
    read_reconcile_report,
    variables,
)
from sqlmesh_pipes_protocol.codec import MAX_SEQ, moment_of
from sqlmesh_pipes_protocol.digest import project_digest
from sqlmesh_pipes_protocol.errors import shown
from sqlmesh_pipes_protocol.events import Log
from sqlmesh_pipes_protocol.manifest import read_manifest

AT = "2026-01-31T06:30:00Z"
GOLDEN = Path(__file__).parent / "golden"


def log(seq: object, **more: object) -> dict[str, object]:
    return {
        "kind": "log",
        "v": "1.0",
        "run_id": "run",
        "seq": seq,
        "at": AT,
        "level": "info",
        "logger": "x",
        "message": "m",
        **more,
    }


def part(seq: int, number: int, parts: int, data: bytes = b"") -> dict[str, object]:
    text = base64.b64encode(data).decode()
    return {
        "kind": "part",
        "v": "1.0",
        "run_id": "run",
        "seq": seq,
        "at": AT,
        "part": number,
        "parts": parts,
        "data": text,
    }


def nested(depth: int) -> object:
    value: object = "deep"
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seq", [-1, MAX_SEQ + 1, 2**63, 2**64 - 1, 1e300, True, None, "0", [], nested(900)])
def test_a_number_that_no_event_can_have_is_refused(seq: object) -> None:
    with pytest.raises(DecodeError) as caught:
        EventStream("run").receive(log(seq))

    assert caught.value.path == "$.seq"


def test_the_highest_number_that_there_is_leaves_a_gap_that_can_be_counted() -> None:
    stream = EventStream("run")
    stream.receive(log(MAX_SEQ))
    stream.receive(part(MAX_SEQ - 1, 0, 2, b"x"))

    assert sum(len(gap) for gap in stream.missing()) == MAX_SEQ


def test_numbers_far_apart_cost_no_more_than_the_gaps_that_are_kept_in_mind() -> None:
    stream = EventStream("run")

    with memory_below(4_000_000):
        for seq in range(0, 200_000, 2):
            stream.receive(log(seq))

    assert len(stream.missing()) <= framing.MAX_GAPS
    assert stream.received == 100_000
    assert stream.missing()[-1] == range(199_997, 199_998)


def test_what_is_missing_takes_no_time_that_grows_with_how_much_it_is() -> None:
    stream = EventStream("run")
    for seq in (10**15, 5, 10**9):
        stream.receive(log(seq))

    assert stream.missing() == [range(5), range(6, 10**9), range(10**9 + 1, 10**15)]


@given(st.lists(st.integers(0, 60), max_size=200))
def test_what_has_been_seen_and_what_is_missing_is_as_sets_would_have_it(seqs: list[int]) -> None:
    stream, seen = EventStream("run"), set[int]()
    for seq in seqs:
        assert (stream.receive(log(seq)) is None) == (seq in seen)
        seen.add(seq)

    assert [seq for gap in stream.missing() for seq in gap] == sorted(set(range(max(seen, default=0))) - seen)
    assert all(len(gap) for gap in stream.missing())
    assert stream.duplicates == len(seqs) - len(seen)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 400), max_size=200))
def test_with_more_gaps_than_it_keeps_in_mind_it_waits_for_the_oldest_no_longer(seqs: list[int]) -> None:
    before, framing.MAX_GAPS = framing.MAX_GAPS, 3
    try:
        stream, seen = EventStream("run"), set[int]()
        for seq in seqs:
            if stream.receive(log(seq)) is not None:
                assert seq not in seen  # never twice
                seen.add(seq)
        gaps = stream.missing()
    finally:
        framing.MAX_GAPS = before

    assert len(gaps) <= 3
    assert not seen & {seq for gap in gaps for seq in gap}


def test_a_claim_of_many_parts_costs_what_came_and_not_what_was_claimed() -> None:
    stream = EventStream("run")

    with memory_below(1_000_000):
        assert stream.receive(part(0, 10**9 - 1, 10**9, b"x")) is None
        with pytest.raises(DecodeError):
            stream.receive(part(0, 5, 2**62, b"x"))

    assert stream.missing() == [range(1)]


@pytest.mark.parametrize("data", [b"", b"x" * 40])
def test_events_that_never_become_whole_do_not_fill_the_memory(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT_BYTES", 500_000)
    stream = EventStream("run")

    with memory_below(4_000_000):
        for seq in range(50_000):
            assert stream.receive(part(seq, 0, 2, data)) is None
    whole = orjson.dumps(log(60_000))

    assert stream.receive(part(60_000, 0, 2, whole[:50])) is None
    assert stream.receive(part(60_000, 1, 2, whole[50:])) is not None  # later events still find room
    assert stream.missing() == [range(60_000)]


def test_parts_without_data_are_not_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT_BYTES", 500_000)
    stream = EventStream("run")

    with memory_below(4_000_000):
        for number in range(50_000):
            stream.receive(part(0, number, 10**6))


def test_an_event_that_is_incomplete_goes_before_the_one_that_is_coming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT_BYTES", 10_000)
    stream = EventStream("run")
    whole = orjson.dumps(log(9, message="x" * 8_000))
    assert stream.receive(part(9, 0, 2, whole[:5_000])) is None
    stream.receive(part(1, 0, 9, b"x" * 9_000))
    stream.receive(part(2, 0, 9, b"x" * 9_000))  # now the oldest, 9, is given up

    assert stream.receive(part(9, 1, 2, whole[5_000:])) is None
    assert stream.receive(part(9, 0, 2, whole[:5_000])) is not None


@pytest.mark.parametrize("depth", [500, 1_000, 1_020])
def test_what_is_nested_deeply_is_refused_and_told_in_few_words(depth: int) -> None:
    deep = nested(depth)
    for value in (
        deep,
        log(deep),
        log(0, kind=deep),
        log(0, at=deep),
        log(0, message=deep),
        log(0, v=deep),
        log(0, run_id=deep),
    ):
        with pytest.raises(DecodeError) as caught:
            from_wire(value)
        assert len(str(caught.value)) < 300
    with pytest.raises(DecodeError):
        EventStream("run").receive(part(0, 0, 1, orjson.dumps([log(0)]) + b" " * 10))
    with pytest.raises(DecodeError):
        RunRequest.from_extras({"sqlmesh_pipes": deep})


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_what_the_parser_finds_too_deep_is_no_event_and_no_document(text: bytes) -> None:
    assert parse_line(text) is None
    for read in (decode, read_manifest, read_due_report, read_reconcile_report):
        with pytest.raises(DecodeError):
            read(text)


def test_an_event_in_parts_may_be_nested_no_deeper() -> None:
    with pytest.raises(DecodeError):
        EventStream("run").receive(part(0, 0, 1, b"[" * 5_000))
    with pytest.raises(DecodeError) as caught:
        EventStream("run").receive(part(0, 0, 1, b'{"seq":' + b"[" * 1_000 + b"]" * 1_000 + b"}"))
    assert len(str(caught.value)) < 300


def test_what_is_large_is_told_in_few_words_and_not_copied_first() -> None:
    large = "x" * 10_000_000
    many = dict.fromkeys(map(str, range(10_000)), large)
    keys = log(0, kind="audit_evaluated", arguments={large: 1})

    with memory_below(3_000_000):
        for value in (
            log(0, run_id=many),
            log(large),
            log(0, at=large),
            log(0, level=large),
            [large] * 1_000,
            keys,
        ):
            with pytest.raises(DecodeError) as caught:
                from_wire(value)
            assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "'a'"),
        (7, "7"),
        (None, "None"),
        ([], "[]"),
        ({"b": 1, "a": [2]}, "{'b': 1, 'a': [2]}"),
        ("x" * 200, "'" + "x" * 79),
        ({}, "{}"),
        ({"a": {"b": {"c": {"d": {"e": 1}}}}}, "{'a': {'b': {'c': {'d': {...}}}}}"),
        ({"a": {"b": {"c": {"d": 1}}}}, "{'a': {'b': {'c': {'d': 1}}}}"),
        (dict.fromkeys("abcd", 0), "{'a': 0, 'b': 0, 'c': 0, 'd': 0}"),
        (dict.fromkeys("abcde", 0), "{'a': 0, 'b': 0, 'c': 0, 'd': 0, ...}"),
    ],
)
def test_a_small_value_is_told_whole_and_a_deep_or_long_one_in_part(value: object, expected: str) -> None:
    assert shown(value) == expected


@pytest.mark.parametrize("day", ["2026-02-29", "2026-02-30", "2026-04-31", "0000-01-01", "1900-02-29"])
def test_a_day_that_no_calendar_has_is_refused(day: str) -> None:
    with pytest.raises(DecodeError) as caught:
        from_wire(log(0, at=f"{day}T00:00:00Z"))

    assert caught.value.path == "$.at"


@pytest.mark.parametrize("time", ["T24:00:00Z", "T00:00:00", "T00:00:00.Z", " 00:00:00Z", ""])
@pytest.mark.parametrize("day", ["2024-02-29", "2024-02-28"])
def test_a_time_that_no_clock_has_is_refused_on_a_leap_day_as_on_any_other(day: str, time: str) -> None:
    with pytest.raises(DecodeError) as caught:
        from_wire(log(0, at=f"{day}{time}"))

    assert caught.value.path == "$.at"


@pytest.mark.parametrize("day", ["2024-02-29", "2026-12-31", "0001-01-01", "9999-12-31", "2000-02-29"])
def test_a_day_at_the_edge_is_accepted(day: str) -> None:
    assert from_wire(log(0, at=f"{day}T23:59:59.999999Z")).at == f"{day}T23:59:59.999999Z"


@pytest.mark.parametrize("decimals", range(1, 7))
def test_a_time_is_read_with_as_many_decimals_as_the_protocol_admits(decimals: int) -> None:
    expected = datetime(2026, 1, 31, 6, 30, 0, int("123456"[:decimals].ljust(6, "0")), timezone.utc)

    assert moment_of(f"2026-01-31T06:30:00.{'123456'[:decimals]}Z") == expected
    assert moment_of(f"2026-01-31T06:30:00.{'123456'[:decimals]}+00:00") == expected


@pytest.mark.parametrize("count", [-1, 0, 1_025, 10**12])
def test_a_context_in_more_variables_than_can_be_is_refused_at_once(count: int) -> None:
    with memory_below(1_000_000), pytest.raises(ValueError, match=f"in {count} variables"):
        variables.join({"sqlmesh_pipes_parts": count}, {})


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 * 2**30)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_fifo, "is no regular file"),
        (_endless, "is no regular file"),
        (_sparse, "is larger than 536,870,912 bytes"),
    ],
    ids=["a FIFO", "endless", "two gigabytes"],
)
def test_what_cannot_be_a_manifest_is_not_read_and_told_so(make: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "sqlmesh_manifest.json"
    make(path)

    with memory_below(1_000_000), pytest.raises(ManifestError) as caught:
        load_manifest(path)

    assert words in str(caught.value)
    assert "Write it with: sqlmesh-runner manifest" in str(caught.value)


def test_a_manifest_behind_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "sqlmesh_manifest.json").symlink_to(GOLDEN / "manifest-1.json")

    assert load_manifest(tmp_path / "sqlmesh_manifest.json").models


def test_a_large_seed_is_counted_in_without_being_held_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "seed.csv").open("wb") as file:
        file.truncate(50_000_000)
    os.mkfifo(tmp_path / "waits.sql")  # is not waited for

    with memory_below(10_000_000):
        assert len(project_digest([tmp_path])) == 64


def test_an_event_that_is_whole_leaves_nothing_behind() -> None:
    stream = EventStream("run")
    lines = [line for seq in range(20) for line in frame(large(seq, 500_000))]

    with memory_below(10_000_000):
        for line in lines:
            stream.receive(orjson.loads(line))

    assert stream.received == 20


def test_two_events_as_large_as_can_be_may_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = EventStream("run")
    first, second = (list(map(orjson.loads, frame(large(seq, 90_000)))) for seq in (0, 1))
    monkeypatch.setattr(framing, "MAX_EVENT_BYTES", 100_000)

    for value in (*first[:-1], *second[:-1], first[-1], second[-1]):
        stream.receive(value)

    assert stream.received == 2


def test_events_that_became_whole_leave_no_more_room_to_those_that_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT_BYTES", 10_000)
    stream = EventStream("run")
    for seq in range(200):
        for line in frame(large(seq, 9_000)):
            stream.receive(orjson.loads(line))
    *begun, end = map(orjson.loads, frame(large(200, 9_000)))
    for value in begun:
        stream.receive(value)
    for seq in range(201, 206):
        stream.receive(part(seq, 0, 2, b"x" * 9_000))

    assert stream.received == 200
    assert stream.receive(end) is None  # its beginning has been given up


def large(seq: int, size: int) -> Envelope:
    return Envelope(run_id="run", seq=seq, at=AT, event=Log(level="info", logger="l", message="x" * size))


def test_an_event_that_claims_more_than_is_accepted_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT_BYTES", 1_000)
    stream = EventStream("run")
    for _ in range(1_000):
        with pytest.raises(EventTooLargeError):
            stream.receive(part(3, 0, 2, b"x" * 1_001))

    assert stream.receive(log(0)) is not None
    assert stream.missing() == []
