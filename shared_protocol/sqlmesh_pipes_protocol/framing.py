"""Events as lines, and lines as events again, whatever happens on the way.

Writing: a line is at most `MAX_LINE_BYTES` long, its break included, because pod logs are cut at 16 KiB and a pipe is
shared. A larger event goes as numbered parts (`Part`) that carry the event's own seq.

Reading: bytes come in any pieces. `LineSplitter` makes lines of them, `EventStream` makes events of those that are ours:
it joins parts, drops what it has seen, and knows what is missing.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import orjson

from sqlmesh_pipes_protocol import shapes
from sqlmesh_pipes_protocol.codec import ENVELOPE_KEYS, Envelope, encode, from_wire, header
from sqlmesh_pipes_protocol.errors import DecodeError, EventTooLargeError, shown
from sqlmesh_pipes_protocol.events import RunFinished

MAX_LINE_BYTES = 8192
"""Of a written line, its break and the envelope of Dagster Pipes included. A larger event goes in parts."""
MAX_EVENT_BYTES = 64 * 1024 * 1024
"""Larger events are refused on both sides: a reader's memory is bounded."""
MAX_FOREIGN_LINE_BYTES = 1024 * 1024
"""A longer line is nobody's event: it is handed on in pieces of this size."""
MAX_GAPS = 10_000
"""Gaps in the numbers that a reader keeps in mind; with more, it no longer waits for the oldest."""
_PART_COST = 256
"""Bytes that a reader's memory has of a part beside its data: parts without any must not come for nothing."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of an event that is too large for one line."""

    kind: ClassVar[str] = "part"

    part: int
    """Counts from 0."""
    parts: int
    """How many there are of the event."""
    data: str
    """Base64 of a slice of the event's JSON object."""


@dataclass(slots=True)
class _Incomplete:
    """An event of which parts are still to come."""

    parts: int
    pieces: dict[int, bytes] = field(default_factory=dict)
    size: int = 0

    @property
    def cost(self) -> int:
        return self.size + _PART_COST * (len(self.pieces) + 1)


def frame(envelope: Envelope, *, overhead: int = 1) -> Iterator[bytes]:
    """The lines, without their breaks, that carry an event.

    Args:
        envelope: the event.
        overhead: bytes that the transport adds to each line: the line break, the envelope of Dagster Pipes.

    Raises:
        EventTooLargeError: the event is larger than `MAX_EVENT_BYTES`.
    """
    line = encode(envelope)
    room = MAX_LINE_BYTES - overhead
    if len(line) <= room:
        yield line
        return
    if len(line) > MAX_EVENT_BYTES:
        raise EventTooLargeError(len(line), MAX_EVENT_BYTES)
    head = header(Part.kind, envelope.run_id, envelope.seq, envelope.at, envelope.v)
    fixed = len(head) + len(b'"part":,"parts":,"data":""}') + 2 * len(str(MAX_EVENT_BYTES))
    step = (room - fixed) // 4 * 3
    if step <= 0:
        raise EventTooLargeError(len(head), room)
    parts = -(-len(line) // step)
    for index in range(parts):
        data = base64.b64encode(line[index * step : (index + 1) * step])
        yield head + b'"part":%d,"parts":%d,"data":"%b"}' % (index, parts, data)


class LineSplitter:
    """Lines out of bytes that come in any pieces. Not thread-safe."""

    def __init__(self, limit: int = MAX_FOREIGN_LINE_BYTES) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, without their breaks, in order."""
        *complete, rest = chunk.split(b"\n")
        lines = []
        for piece in complete:
            self._pieces.append(piece)
            lines.append(self._take())
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size >= self._limit:
                lines.append(self._take())
        return lines

    def close(self) -> bytes | None:
        """What came after the last line break: a torn line, or nothing."""
        return self._take() if self._pieces else None

    def _take(self) -> bytes:
        line = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return line.removesuffix(b"\r")


def parse_line(line: bytes) -> dict[str, object] | None:
    """The JSON object of a line that looks like an event of ours; None for a foreign line."""
    if not line.startswith(b"{"):
        return None
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and value.keys() >= ENVELOPE_KEYS else None


class EventStream:
    """The events of one run, each once, in the order of their arrival. Not thread-safe.

    What it keeps in mind is bounded, whatever comes: `MAX_GAPS` gaps, and incomplete events of twice `MAX_EVENT_BYTES`. With more, the
    oldest are given up, and dropped if they come after all: the run's last event has a digest of what they said.

    Attributes:
        run_id: the run; where it was not given, that of the first event received.
        finished: the run's last event, once it has come.
        duplicates: objects dropped because their seq had been seen.
        foreign: objects dropped because they belong to another run.
        late: objects dropped because they claim to come after the run's last event, whose word on each model stands.
        received: events received.
    """

    def __init__(self, run_id: str | None = None) -> None:
        self.run_id = run_id
        self.finished: RunFinished | None = None
        self.duplicates = 0
        self.foreign = 0
        self.late = 0
        self.received = 0
        self._contiguous = 0  # every seq below it has been seen
        self._ahead: tuple[list[int], list[int]] = [], []  # beyond a gap: where runs of seqs begin, and end
        self._last: int | None = None
        self._parts: dict[int, _Incomplete] = {}  # by seq, the oldest first
        self._parts_cost = 0

    def receive(self, value: dict[str, object]) -> Envelope | None:
        """Take in an object that `parse_line` found, or the payload of a Pipes message.

        Returns:
            The event, or None where there is nothing new: a duplicate, another run's event, a part of more to come.

        Raises:
            DecodeError: the object is no event of the declared shape.
            VersionMismatchError: it is of another protocol major.
            EventTooLargeError: its parts claim more than `MAX_EVENT_BYTES`.
        """
        if self.run_id is None:
            self.run_id = from_wire(value).run_id
        if value.get("run_id") != self.run_id:
            self.foreign += 1
            return None
        seq = value.get("seq")
        if type(seq) is int and seq >= 0 and self._seen(seq):
            self.duplicates += 1
            return None
        if type(seq) is int and self._last is not None and seq > self._last:
            self.late += 1
            return None
        if value.get("kind") == Part.kind:
            joined = self._join(value)
            if joined is None:
                return None
            value = joined
        envelope = from_wire(value)
        self._mark(envelope.seq)
        self.received += 1
        if isinstance(envelope.event, RunFinished):
            self.finished = envelope.event
            self._last = envelope.seq
        return envelope

    def missing(self) -> list[range]:
        """The seqs that have not come, up to the highest one known, as ranges."""
        begins, ends = self._ahead
        known = max(self._parts, default=-1)
        last = known if self._last is None else self._last
        gaps = []
        expected = self._contiguous
        for begin, end in zip(begins, ends, strict=True):
            gaps.append(range(expected, begin))
            expected = end
        if last >= expected:
            gaps.append(range(expected, last + 1))
        return gaps

    def _seen(self, seq: int) -> bool:
        if seq <= self._contiguous:
            return seq < self._contiguous
        begins, ends = self._ahead
        place = bisect_right(begins, seq) - 1
        return place >= 0 and seq < ends[place]

    def _mark(self, seq: int) -> None:
        begins, ends = self._ahead
        if seq == self._contiguous:
            self._contiguous += 1
            if begins and begins[0] == self._contiguous:
                self._close_gap()
            return
        place = bisect_right(begins, seq)
        meets_before = place > 0 and ends[place - 1] == seq
        meets_after = place < len(begins) and begins[place] == seq + 1
        if meets_before and meets_after:
            ends[place - 1] = ends.pop(place)
            begins.pop(place)
        elif meets_before:
            ends[place - 1] = seq + 1
        elif meets_after:
            begins[place] = seq
        else:
            begins.insert(place, seq)
            ends.insert(place, seq + 1)
            if len(begins) > MAX_GAPS:
                self._close_gap()

    def _close_gap(self) -> None:
        """Go on behind the first run of seqs that was ahead."""
        begins, ends = self._ahead
        begins.pop(0)
        self._contiguous = ends.pop(0)

    def _join(self, value: dict[str, object]) -> dict[str, object] | None:
        envelope = from_wire(value)  # checks version, seq and time
        part = shapes.read(Part, value)
        if not 0 <= part.part < part.parts:
            raise DecodeError("$.part", f"a number below {part.parts}", str(part.part))
        try:
            data = base64.b64decode(part.data, validate=True)
        except (binascii.Error, ValueError):
            raise DecodeError("$.data", "Base64", shown(part.data)) from None
        event = self._parts.get(envelope.seq)
        if event is None:
            event = self._parts[envelope.seq] = _Incomplete(part.parts)
            self._parts_cost += event.cost
        if part.parts != event.parts:
            raise DecodeError("$.parts", f"{event.parts}, as in the event's other parts", str(part.parts))
        if part.part in event.pieces:
            self.duplicates += 1
            return None
        event.pieces[part.part] = data
        event.size += len(data)
        self._parts_cost += len(data) + _PART_COST
        if event.size > MAX_EVENT_BYTES:
            self._forget(envelope.seq)  # so that later events still find room
            raise EventTooLargeError(event.size, MAX_EVENT_BYTES)
        if len(event.pieces) < part.parts:
            self._make_room(envelope.seq)
            return None
        self._forget(envelope.seq)
        joined = b"".join(event.pieces[index] for index in range(part.parts))
        try:
            whole = orjson.loads(joined)
        except orjson.JSONDecodeError as error:
            raise DecodeError("$", "a JSON object in parts", str(error)) from None
        if not isinstance(whole, dict) or whole.get("seq") != envelope.seq:
            raise DecodeError("$.seq", f"the parts' own seq {envelope.seq}", shown(whole))
        if whole.get("run_id") != envelope.run_id:
            raise DecodeError(
                "$.run_id", f"the parts' own run {shown(envelope.run_id)}", shown(whole.get("run_id"))
            )
        if whole.get("kind") == Part.kind:
            raise DecodeError("$.kind", "an event in parts", "a part in parts")
        return whole

    def _make_room(self, current: int) -> None:
        """Give up the oldest events that are incomplete, the current one last."""
        while self._parts_cost > 2 * MAX_EVENT_BYTES:
            self._forget(next((seq for seq in self._parts if seq != current), current))

    def _forget(self, seq: int) -> None:
        self._parts_cost -= self._parts.pop(seq).cost
