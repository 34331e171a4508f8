"""A stream of events survives its way: any pieces, foreign lines, parts, duplicates, gaps and a torn end."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
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
    LineSplitter,
    VersionMismatchError,
    encode,
    frame,
    framing,
    parse_line,
)
from sqlmesh_pipes_protocol.codec import header
from sqlmesh_pipes_protocol.events import Counts, Heartbeat, Log, RunFinished, Timestamp, UnknownEvent
from sqlmesh_pipes_protocol.framing import MAX_LINE_BYTES

AT = Timestamp("2026-01-31T06:30:00.000001Z")
NO_COUNTS = Counts(
    selected=0, executed=0, failed=0, skipped=0, audits_passed=0, audits_failed=0, audits_skipped=0
)
LARGE_LOGS = st.builds(
    lambda piece, times: Log(level="info", logger="large", message=piece * times),
    st.text(min_size=1, max_size=40),
    st.integers(min_value=500, max_value=2_000),
)
OVERHEADS = st.sampled_from([0, 1, 2, 93, 1_000, 7_000])
FOREIGN = st.one_of(
    st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")),
    st.sampled_from(
        [
            b"",
            b"\r",
            b"   ",
            b"{",
            b"}",
            b"{}",
            b"[]",
            b"null",
            b"2026-01-31 06:30:00 INFO {'kind': 'log', 'seq': 0} done }",
            b'{"level":"info","message":"{\\"kind\\":\\"log\\"}"}',
            b'{"kind":"log","v":"1.0","run_id":"run","seq":0}',
            b'{"kind":"log","v":"1.0","run_id":"run","seq":0,"at":"2026-01-31T06:30:00Z","level":"in',
            b'{"__dagster_pipes_version":"0.1","method":"log","params":{"message":"a","level":"INFO"}}',
            b'{"kind":"Pod","v":"v1","run_id":"another run","seq":null,"at":null}',
            b"\xff\xfe{\x00",
            b'{"a":' * 5_000,
        ]
    ),
)


def log(seq: int, message: str = "m", run_id: str = "run") -> Envelope:
    return Envelope(run_id=run_id, seq=seq, at=AT, event=Log(level="info", logger="l", message=message))


def finished(seq: int) -> Envelope:
    event = RunFinished(
        status="success", exit_code=0, counts=NO_COUNTS, duration_ms=1, last_seq=seq, digest=()
    )
    return Envelope(run_id="run", seq=seq, at=AT, event=event)


def received(stream: EventStream, lines: Iterable[bytes]) -> list[Envelope]:
    """The events that come out of a stream when these lines go in."""
    values = (parse_line(line) for line in lines)
    found = (stream.receive(value) for value in values if value is not None)
    return [envelope for envelope in found if envelope is not None]


def pieces(content: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(content)]
    return [content[start:end] for start, end in pairwise(places)]


def part(index: int, of: int, content: bytes | str, *, seq: int = 0, **changed: object) -> dict[str, object]:
    """A part as `parse_line` hands it on."""
    data = base64.b64encode(content).decode() if isinstance(content, bytes) else content
    envelope = {"kind": "part", "v": "1.0", "run_id": "run", "seq": seq, "at": AT}
    return {**envelope, "part": index, "parts": of, "data": data, **changed}


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_every_event_comes_out_once_and_in_order_whatever_surrounds_it_and_however_it_is_cut(
    any_event: Any, any_time: Any, data: Any
) -> None:
    events = data.draw(
        st.lists(any_event | LARGE_LOGS, min_size=1, max_size=5).filter(
            lambda drawn: (
                not any(isinstance(event, RunFinished) for event in drawn[:-1])
            )  # nothing comes after it
        )
    )
    sent = [
        Envelope(
            run_id="run",
            seq=seq,
            at=data.draw(any_time),
            event=replace(event, last_seq=seq) if isinstance(event, RunFinished) else event,
        )
        for seq, event in enumerate(events)
    ]
    overhead = data.draw(OVERHEADS)
    line_break = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    content = b""
    for envelope in sent:
        for line in frame(envelope, overhead=overhead):
            assert len(line) + overhead <= MAX_LINE_BYTES
            noise = data.draw(st.lists(FOREIGN, max_size=2))
            content += b"".join(item + line_break for item in (*noise, line))
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=30))

    splitter = LineSplitter()
    lines = [line for piece in pieces(content, cuts) for line in splitter.feed(piece)]
    stream = EventStream("run")

    assert splitter.close() is None
    assert received(stream, lines) == sent
    assert stream.duplicates == 0
    assert stream.missing() == []


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_stream_in_pieces_of_a_few_bytes_is_read_like_one_in_a_single_piece(size: int) -> None:
    sent = [log(0, "é😀"), log(1, "x" * 20_000), log(2)]
    content = b"".join(line + b"\n" for envelope in sent for line in frame(envelope))

    splitter = LineSplitter()
    chunks = [content[place : place + size] for place in range(0, len(content), size)]
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]

    assert received(EventStream(), lines) == sent


def test_a_stream_that_is_torn_at_any_byte_yields_the_events_before_the_tear_and_nothing_else() -> None:
    sent = [log(0, "a"), log(1, "é\n{}"), finished(2)]
    lines = [encode(envelope) for envelope in sent]
    content = b"".join(line + b"\n" for line in lines)
    breaks = [place for place, byte in enumerate(content) if byte == ord("\n")]

    for cut in range(len(content)):
        splitter = LineSplitter()
        stream = EventStream()
        whole = sum(place < cut for place in breaks)

        assert received(stream, splitter.feed(content[:cut])) == sent[:whole]
        torn = splitter.close()
        if cut in breaks:  # only the line break is missing
            assert received(stream, [torn or b""]) == [sent[whole]]
        else:
            assert torn is None or parse_line(torn) is None
        assert (stream.finished is not None) == (cut == breaks[-1])


@settings(deadline=None, max_examples=150)
@given(count=st.integers(1, 30), data=st.data())
def test_repeated_events_are_dropped_and_lost_ones_are_missing(count: int, data: Any) -> None:
    sent = [*(log(seq) for seq in range(count)), finished(count)]
    seqs = st.integers(0, count - 1)
    lost = data.draw(st.sets(seqs))
    repeated = [seq for seq in data.draw(st.lists(seqs, max_size=10)) if seq not in lost]
    order = data.draw(st.permutations([*(seq for seq in range(count) if seq not in lost), *repeated]))
    stream = EventStream("run")

    found = received(stream, [encode(sent[seq]) for seq in (*order, count)])

    assert found == [*(sent[seq] for seq in dict.fromkeys(order)), sent[count]]
    assert stream.duplicates == len(repeated)
    assert {seq for gap in stream.missing() for seq in gap} == lost
    assert all(len(gap) > 0 for gap in stream.missing())


def test_what_is_missing_is_known_up_to_the_highest_event_that_came() -> None:
    stream = EventStream("run")
    assert stream.missing() == []

    received(stream, [encode(log(seq)) for seq in (0, 1, 5, 7, 8)])

    assert stream.missing() == [range(2, 5), range(6, 7)]
    assert stream.finished is None

    received(stream, [encode(log(seq)) for seq in (3, 2, 4, 6)])

    assert stream.missing() == []


def test_an_event_of_which_only_some_parts_came_is_missing() -> None:
    stream = EventStream("run")
    first, *_ = frame(log(1, "x" * 20_000))

    received(stream, [encode(log(0)), first])

    assert stream.missing() == [range(1, 2)]


def test_nothing_is_missing_after_the_end_of_a_run() -> None:
    stream = EventStream("run")
    beyond, *_ = frame(log(9, "x" * 20_000))

    received(stream, [beyond, encode(finished(4))])

    assert stream.missing() == [range(4)]


def test_an_event_of_a_later_minor_may_have_no_keys_of_its_own() -> None:
    ping = Envelope(run_id="run", seq=0, at=AT, event=UnknownEvent(kind="ping"))

    assert received(EventStream("run"), [encode(ping)]) == [ping]


def test_of_several_events_of_which_only_some_parts_came_all_are_missing() -> None:
    stream = EventStream("run")

    received(stream, [next(iter(frame(log(seq, "x" * 20_000)))) for seq in (7, 3)])

    assert stream.missing() == [range(8)]


@pytest.mark.parametrize("seq", [None, "9", 9.5, [9], True])
def test_what_comes_after_the_end_with_no_number_is_refused_in_words(seq: object) -> None:
    stream = EventStream("run")
    received(stream, [encode(finished(4))])

    with pytest.raises(DecodeError) as caught:
        stream.receive({**orjson.loads(encode(log(5))), "seq": seq})

    assert caught.value.path == "$.seq"


def test_the_end_of_a_run_is_kept_and_tells_of_what_was_lost_just_before_it() -> None:
    stream = EventStream("run")
    end = finished(4)

    received(stream, [encode(log(0)), encode(end)])

    assert stream.finished == end.event
    assert stream.missing() == [range(1, 4)]


@settings(deadline=None, max_examples=100)
@given(data=st.data(), seed=st.integers(0, 1_000))
def test_parts_are_joined_in_any_order_among_those_of_other_events_and_repeated(data: Any, seed: int) -> None:
    sent = [
        Envelope(run_id="run", seq=seq, at=AT, event=event)
        for seq, event in enumerate(data.draw(st.lists(LARGE_LOGS, min_size=1, max_size=3)))
    ]
    lines = [line for envelope in sent for line in frame(envelope, overhead=data.draw(OVERHEADS))]
    repeated = [line for line in lines if data.draw(st.booleans())] if len(lines) < 20 else lines[::3]
    mixed = [*lines, *repeated]
    random.Random(seed).shuffle(mixed)
    stream = EventStream()

    found = received(stream, mixed)

    assert sorted(found, key=lambda envelope: envelope.seq) == sent
    assert stream.duplicates == len(repeated)
    assert stream.missing() == []


@given(overhead=st.integers(0, 8_000), size=st.integers(0, 40_000))
@settings(deadline=None)
def test_no_line_is_longer_than_a_pod_log_takes_and_small_events_go_in_one(overhead: int, size: int) -> None:
    envelope = log(0, "x" * size)
    whole = encode(envelope)

    lines = list(frame(envelope, overhead=overhead))

    assert max(map(len, lines)) + overhead <= MAX_LINE_BYTES
    assert (lines == [whole]) == (len(whole) + overhead <= MAX_LINE_BYTES)


@pytest.mark.parametrize("room", range(250, 258))
def test_no_line_is_longer_however_many_parts_there_are(room: int) -> None:
    lines = list(frame(log(0, "x" * 1_200_000), overhead=MAX_LINE_BYTES - room))

    assert len(lines) > 10_000
    assert max(map(len, lines)) <= room


def test_each_line_either_has_room_for_a_part_or_is_refused() -> None:
    envelope = log(0, "x" * 1_000)
    least = next(room for room in range(MAX_LINE_BYTES) if can_be_sent(envelope, room))

    assert not any(can_be_sent(envelope, room) for room in range(least))
    for room in range(least, least + 20):
        assert max(map(len, frame(envelope, overhead=MAX_LINE_BYTES - room))) <= room


def can_be_sent(envelope: Envelope, room: int) -> bool:
    """Whether lines of this length carry it."""
    try:
        return any(frame(envelope, overhead=MAX_LINE_BYTES - room))
    except EventTooLargeError:
        return False


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_the_line_limit_counts_the_line_break(spare: int) -> None:
    empty = len(encode(log(0, "")))
    envelope = log(0, "x" * (MAX_LINE_BYTES - 1 - empty - spare))

    assert len(list(frame(envelope))) == (1 if spare >= 0 else 2)


def test_an_event_larger_than_a_reader_accepts_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT_BYTES", 10_000)
    envelope = log(0, "x" * 10_000)

    with pytest.raises(EventTooLargeError) as caught:
        list(frame(envelope))

    assert caught.value.size == len(encode(envelope))
    assert caught.value.limit == 10_000

    just_accepted = log(0, "x" * (10_000 - len(encode(log(0, "")))))
    assert received(EventStream("run"), frame(just_accepted)) == [just_accepted]


def test_a_run_id_that_leaves_no_room_for_a_part_is_an_error_and_no_endless_stream() -> None:
    with pytest.raises(EventTooLargeError):
        list(frame(log(0, run_id="r" * MAX_LINE_BYTES)))


def test_parts_that_claim_more_than_a_reader_accepts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT_BYTES", 10_000)
    stream = EventStream("run")
    assert stream.receive(part(0, 9, b"x" * 6_000)) is None

    with pytest.raises(EventTooLargeError) as caught:
        stream.receive(part(1, 9, b"x" * 6_000))

    assert caught.value.size == 12_000
    assert caught.value.limit == 10_000


def test_an_event_that_was_too_large_does_not_keep_later_ones_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = EventStream("run")
    later = list(frame(log(1, "x" * 9_000)))
    monkeypatch.setattr(framing, "MAX_EVENT_BYTES", 10_000)
    stream.receive(part(0, 9, b"x" * 6_000))
    with pytest.raises(EventTooLargeError):
        stream.receive(part(1, 9, b"x" * 6_000))

    assert received(stream, later) == [log(1, "x" * 9_000)]
    assert stream.missing() == [range(1)]


def _nested() -> bytes:
    line = encode(log(0))
    data = base64.b64encode(line)
    return header("part", "run", 0, AT) + b'"part":0,"parts":1,"data":"%b"}' % data


@pytest.mark.parametrize(
    ("values", "path", "words"),
    [
        pytest.param([part(0, 1, "?")], "$.data", "Base64", id="no Base64"),
        pytest.param([part(0, 1, "YQ=")], "$.data", "Base64", id="bad padding"),
        pytest.param([part(0, 1, "é")], "$.data", "Base64", id="not ASCII"),
        pytest.param([part(2, 2, b"x")], "$.part", "a number below 2", id="part number beyond the parts"),
        pytest.param([part(-1, 2, b"x")], "$.part", "a number below 2", id="negative part number"),
        pytest.param([part(0, 0, b"x")], "$.part", "a number below 0", id="no parts"),
        pytest.param([part(0, 1, b"x", parts="1")], "$.parts", "an integer", id="parts is text"),
        pytest.param([part(0, 1, b"x", data=None)], "$.data", "a string", id="no data"),
        pytest.param([part(0, 1, b"x", at="now")], "$.at", "a UTC time", id="bad time"),
        pytest.param([part(0, 1, b"x", seq=-1)], "$.seq", "an integer from 0", id="negative seq"),
        pytest.param([part(0, 1, b'{"kind":')], "$", "a JSON object in parts", id="joined, it is no JSON"),
        pytest.param([part(0, 1, b"\xff")], "$", "a JSON object in parts", id="joined, it is no Unicode"),
        pytest.param([part(0, 1, b"[]")], "$.seq", "seq 0", id="joined, it is a list"),
        pytest.param([part(0, 1, encode(log(1)))], "$.seq", "seq 0", id="joined, it has another seq"),
        pytest.param(
            [part(0, 1, encode(log(0, run_id="b")))], "$.run_id", "run", id="joined, it is of another run"
        ),
        pytest.param([part(0, 1, _nested())], "$.kind", "event", id="joined, it is a part again"),
        pytest.param([part(2, 3, b"x"), part(1, 2, b"y")], "$.parts", "3", id="the number of parts changes"),
        pytest.param(
            [part(3, 4, b"x"), part(2, 4, b"x"), part(1, 2, b"y")],
            "$.parts",
            "4",
            id="too many parts for their number",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(values: list[dict[str, object]], path: str, words: str) -> None:
    *before, last = values
    stream = EventStream("run")
    assert [stream.receive(value) for value in before] == [None] * len(before)

    with pytest.raises(DecodeError) as caught:
        stream.receive(last)

    assert caught.value.path == path
    assert words in caught.value.expected


def test_a_line_that_was_refused_can_come_again_in_good_shape() -> None:
    stream = EventStream("run")
    line = encode(log(0))
    with pytest.raises(DecodeError):
        stream.receive({**orjson.loads(line), "level": "loud"})

    assert received(stream, [line]) == [log(0)]


def test_another_runs_events_are_foreign() -> None:
    stream = EventStream("run")
    other = [log(seq, run_id="other") for seq in range(3)]

    assert received(stream, map(encode, [other[0], log(0), *other[1:], log(1)])) == [log(0), log(1)]
    assert stream.foreign == 3
    assert stream.duplicates == 0
    assert stream.missing() == []


def test_another_runs_events_are_foreign_also_of_another_major() -> None:
    stream = EventStream("run")

    assert stream.receive({**orjson.loads(encode(log(0, run_id="other"))), "v": "9.0"}) is None
    assert stream.foreign == 1


def test_without_a_run_id_the_first_event_tells_which_run_it_is() -> None:
    stream = EventStream()

    assert received(stream, map(encode, [log(0, run_id="first"), log(0, run_id="second")])) == [
        log(0, run_id="first")
    ]
    assert stream.run_id == "first"
    assert stream.foreign == 1


def test_another_major_is_refused_on_the_stream() -> None:
    with pytest.raises(VersionMismatchError) as caught:
        EventStream("run").receive({**orjson.loads(encode(log(0))), "v": "2.0"})

    assert (caught.value.ours, caught.value.theirs) == ("1.0", "2.0")


def test_events_of_an_unknown_kind_are_received_and_counted_in() -> None:
    stream = EventStream("run")
    unknown = Envelope(
        run_id="run", seq=0, at=AT, v="1.3", event=UnknownEvent(kind="later", fields={"a": [1]})
    )

    assert received(stream, [encode(unknown), encode(log(1))]) == [unknown, log(1)]
    assert stream.missing() == []


def test_what_claims_to_come_after_the_last_event_is_dropped_and_what_comes_late_is_not() -> None:
    stream = EventStream("run")
    sent = [log(0), finished(2), log(3), finished(4), log(1)]
    lines = [line for envelope in sent for line in frame(envelope)]

    assert received(stream, lines) == [log(0), finished(2), log(1)]
    assert stream.late == 2
    assert stream.missing() == []


def test_a_line_longer_than_any_event_is_handed_on_in_bounded_pieces_and_the_next_line_whole() -> None:
    splitter = LineSplitter(limit=1_000)
    long_line = bytes(range(32, 127)) * 100
    chunks = pieces(long_line + b"\nnext\n", range(0, len(long_line), 300))

    *found, following = [line for chunk in chunks for line in splitter.feed(chunk)]

    assert b"".join(found) == long_line
    assert max(map(len, found)) < 1_300
    assert following == b"next"
    assert splitter.close() is None


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda line: line.translate(None, b"\r\n"))),
    size=st.integers(1, 9),
)
def test_lines_are_given_without_their_breaks_of_either_kind(lines: list[bytes], size: int) -> None:
    content = b"".join(line + (b"\n" if place % 2 else b"\r\n") for place, line in enumerate(lines))

    splitter = LineSplitter()
    chunks = [content[place : place + size] for place in range(0, len(content), size)]

    assert [line for chunk in chunks for line in splitter.feed(chunk)] == lines
    assert splitter.close() is None


def test_the_splitter_gives_a_torn_line_once() -> None:
    splitter = LineSplitter()

    assert list(splitter.feed(b"whole\nto")) == [b"whole"]
    assert list(splitter.feed(b"rn")) == []
    assert splitter.close() == b"torn"
    assert splitter.close() is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda line: line[:-1], id="torn"),
        pytest.param(lambda line: b" " + line, id="indented"),
        pytest.param(lambda line: b"INFO " + line, id="behind a log prefix"),
        pytest.param(lambda line: b"[" + line + b"]", id="in a list"),
        pytest.param(lambda line: line + line, id="twice on a line"),
        pytest.param(lambda line: line.replace(b'"at"', b'"when"'), id="a key of the envelope missing"),
        pytest.param(lambda line: line.replace(b"l", b"\xff"), id="no Unicode"),
    ],
)
def test_a_line_that_only_resembles_an_event_is_foreign(change: Callable[[bytes], bytes]) -> None:
    line = encode(log(0))
    assert parse_line(line) == orjson.loads(line)

    assert parse_line(change(line)) is None


def test_heartbeats_only_is_a_run_that_has_not_finished() -> None:
    stream = EventStream("run")
    received(stream, [encode(Envelope(run_id="run", seq=0, at=AT, event=Heartbeat(models=())))])

    assert stream.finished is None


def test_short_lines_are_never_cut_however_many_come() -> None:
    splitter = LineSplitter(limit=10)

    assert [line for _ in range(5) for piece in (b"abcdef", b"\n") for line in splitter.feed(piece)] == [
        b"abcdef"
    ] * 5


def test_events_in_parts_are_limited_one_by_one_and_not_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT_BYTES", 30_000)
    sent = [log(seq, "x" * 20_000) for seq in range(4)]

    assert received(EventStream(), [line for envelope in sent for line in frame(envelope)]) == sent
