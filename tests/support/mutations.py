"""Odd input for the targets of `support.fuzzing`: what is right, made wrong in one place or several."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, get_args

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from sqlmesh_pipes_protocol import Envelope, frame
from sqlmesh_pipes_protocol.events import Event, Timestamp
from support.anything import TEXTS, strategy
from support.fuzzing import golden_documents, golden_lines, golden_models

AT = Timestamp("2026-01-31T06:30:00Z")
PIPES = b'{"__dagster_pipes_version":"0.1","method":"%b","params":%b}'


def spelled(value: Any) -> bytes:
    """As JSON; ``"@deep 1000"`` stands for a list in so many others, which Python's own writer would not take."""
    text = json.dumps(value).encode()
    return re.sub(rb'"@deep (\d+)"', lambda match: b"[" * int(match[1]) + b"]" * int(match[1]), text)


ODD_VALUES = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            -1,
            0,
            1,
            2**31,
            2**53,
            2**63,
            2**64 - 1,
            2**64,
            10**30,
            1e308,
            -0.0,
            1.5,
            "",
            "\0",
            "\ud800",
            [],
            {},
            [[]],
        ]
    ),
    st.sampled_from(
        [
            "2026-02-30T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
            "1.0",
            "2.0",
            "part",
            "x" * 5_000,
        ]
    ),
    st.sampled_from([10, 500, 1_000, 1_023, 1_024]).map("@deep {}".format),
    st.text(max_size=10),
    st.integers(),
)
MESSAGES = st.builds(
    lambda method, params: PIPES % (method, params),
    st.sampled_from(
        [
            b"opened",
            b"closed",
            b"log",
            b"log_external_stream",
            b"report_asset_check",
            b"report_asset_materialization",
            b"x",
        ]
    ),
    st.one_of(
        st.sampled_from(
            [
                b"null",
                b"{}",
                b'{"exception":{"name":"a","message":1}}',
                b'{"message":"a","level":"INFO"}',
                b'{"extras":{}}',
            ]
        ),
        ODD_VALUES.map(lambda value: b'{"exception":%b}' % spelled(value)),
    ),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def put(value: Any, path: Sequence[Any], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


@st.composite
def altered(draw: Any, texts: Sequence[bytes]) -> bytes:
    """One of some JSON texts, with some of its values replaced by odd ones."""
    value = json.loads(draw(st.sampled_from(texts)))
    for _ in range(draw(st.integers(0, 3))):
        value = put(value, draw(st.sampled_from(places(value))), draw(ODD_VALUES))
    return spelled(value)


def frames(envelope: Envelope) -> list[bytes]:
    return list(frame(envelope, overhead=draw_overhead(envelope)))


def draw_overhead(envelope: Envelope) -> int:
    """Some events go in parts though they are small."""
    return 7_700 if envelope.seq % 3 == 0 else 1


EVENTS = st.lists(
    st.one_of(
        *(
            strategy(event, st.one_of(st.sampled_from([*golden_models(), "not_null"]), TEXTS))
            for event in get_args(Event)
        )
    ),
    max_size=12,
)
"""Valid events of every kind, most of them about models that there are."""

SENT = EVENTS.map(
    lambda events: [
        line
        for seq, event in enumerate(events)
        for line in frames(Envelope(run_id="run", seq=seq, at=AT, event=event))
    ]
)


@st.composite
def streams(draw: Any) -> bytes:
    """Lines of a run: in order or not, some twice, some missing, some altered, some foreign, torn anywhere."""
    lines: list[bytes] = draw(st.one_of(SENT, st.just(golden_lines())))
    if draw(st.booleans()):
        lines = draw(st.permutations(lines))
    if draw(st.booleans()) and lines:
        lines += draw(st.lists(st.sampled_from(lines), max_size=5))
    lines += draw(st.lists(st.one_of(altered(golden_lines()), MESSAGES, st.binary(max_size=40)), max_size=4))
    if draw(st.booleans()):
        lines = [PIPES % (b"report_custom_message", b'{"payload":%b}' % line) for line in lines]
    data = bytearray(b"\n".join(lines) + b"\n")
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return draw(st.binary(max_size=1)) + b"\n" + bytes(data)


INPUTS: dict[str, SearchStrategy[bytes]] = {
    "stream": st.one_of(streams(), st.binary(max_size=200)),
    "documents": st.one_of(altered(golden_documents()), altered(golden_lines()), st.binary(max_size=100)),
    "requests": st.one_of(
        altered(
            [
                b'{"sqlmesh_pipes":{"run_id":"a","models":["b"],"include_upstream":false,"v":"1.0"}}',
                b'{"sqlmesh_pipes":{"run_id":"a","models":null,"v":"1.7"}}',
                b'{"sqlmesh_pipes_parts":2}',
            ]
        ),
        st.binary(max_size=100),
    ),
    "messages": streams(),
    "results": streams(),
}
