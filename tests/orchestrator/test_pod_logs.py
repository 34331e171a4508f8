"""A log that is asked for again gives each event at least once and any other line exactly once, however its stream was cut."""

from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from dagster_sqlmesh_pipes.launchers.pod_logs import LogUnavailableError, PodLog

BEGAN = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


class Response:
    """What urllib3 gives of a stream: chunks, then perhaps a failure."""

    def __init__(self, chunks: list[bytes], failure: Exception | None, now: datetime) -> None:
        self.chunks, self.failure = chunks, failure
        self.headers = {"Date": format_datetime(now, usegmt=True)}
        self.is_closed = False

    def stream(self, size: int, decode_content: bool):
        yield from self.chunks
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self.is_closed = True

    def release_conn(self) -> None:
        assert self.is_closed


def stamped(*lines: bytes, every: float = 0.1, zone: str = "Z", first: float = 0) -> bytes:
    """A log as a kubelet gives it."""
    log = b""
    for number, line in enumerate(lines):
        moment = BEGAN + timedelta(seconds=first + number * every)
        log += moment.strftime(f"%Y-%m-%dT%H:%M:%S.%f000{zone} ").encode() + line + b"\n"
    return log


def message(number: int) -> bytes:
    return b'{"__dagster_pipes_version":"0.1","params":{"seq":%d}}' % number


class Node:
    """A log that is cut at the given places, a try for each, and the seconds that were asked for."""

    def __init__(self, log: bytes, *cuts: int | None, failure: Exception | None = None) -> None:
        self.log, self.cuts, self.failure = log, list(cuts), failure
        self.asked: list[int | None] = []

    def __call__(self, since: int | None) -> Response:
        self.asked.append(since)
        cut = self.cuts.pop(0)
        piece = self.log[:cut]
        return Response(
            [piece[at : at + 7] for at in range(0, len(piece), 7)],
            self.failure if self.cuts else None,
            datetime.now(timezone.utc),
        )


LINES = [message(0), b"one", message(1), b"one", b"two", message(2), b"three"]


@pytest.mark.parametrize("failure", [None, ConnectionError("reset")])
@pytest.mark.parametrize("every", [0, 0.1])
def test_wherever_a_stream_is_cut_nothing_is_lost_and_no_line_is_doubled(failure, every):
    log = stamped(*LINES, every=every)
    for cut in range(1, len(log)):
        reader = PodLog(Node(log, cut, None, failure=failure))
        got: list[bytes] = []
        for _ in range(2):
            with suppress(ConnectionError):
                got.extend(reader.follow())

        events = [line for line in got if line.startswith(b"{")]
        assert list(dict.fromkeys(events)) == [message(number) + b"\n" for number in range(3)], cut
        lines = [line for line in got if not line.startswith(b"{")]
        expected = [b"one\n", b"one\n", b"two\n", b"three\n"]
        # Equal lines of one instant cannot be told apart: a second one may be taken for the first.
        assert lines == (expected if every else expected[len(expected) - len(lines) :]), cut


def test_it_is_asked_for_from_a_little_before_the_last_line_by_the_servers_clock():
    now = datetime.now(timezone.utc).replace(microsecond=0)
    ahead = timedelta(hours=3)  # of this clock
    stamp = (now + ahead - timedelta(seconds=100)).strftime("%Y-%m-%dT%H:%M:%S.5Z")
    asked: list[int | None] = []

    def open_stream(since: int | None) -> Response:
        asked.append(since)
        return Response([f"{stamp} line\n".encode()], None, now + ahead)

    reader = PodLog(open_stream)
    assert list(reader.follow()) == [b"line\n"]
    assert list(reader.follow()) == []

    assert asked[0] is None
    assert 155 <= asked[1] <= 165  # 100 seconds ago, and 60 for clocks that differ


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (b"2026-03-01T12:00:00.1Z", b"2026-03-01T12:00:00.12Z"),
        (b"2026-03-01T12:00:00Z", b"2026-03-01T12:00:00.000000001Z"),
        (b"2026-03-01T14:00:00.5+02:00", b"2026-03-01T12:00:00.6Z"),
        (b"2026-03-01T12:00:00.999999999Z", b"2026-03-01T12:00:01Z"),
    ],
)
def test_times_are_compared_however_many_digits_and_whichever_zone_they_have(earlier, later):
    log = earlier + b" first\n" + later + b" second\n"
    reader = PodLog(Node(log, None, None))

    assert list(reader.follow()) == [b"first\n", b"second\n"]
    assert list(reader.follow()) == []


def test_a_last_line_without_a_break_is_not_lost():
    reader = PodLog(Node(stamped(b"one", b"two")[:-1], None, None))

    assert [*reader.follow(), reader.rest()] == [b"one\n", b"two"]
    assert [*reader.follow(), reader.rest()] == [b"two"]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_what_a_kubelet_says_in_place_of_a_log_is_no_line_of_it(end):
    log = stamped(b"one") + b"rpc error: code = Unknown desc = Error: No such container: 7d33" + end
    reader = PodLog(Node(log, None))
    got = []

    with pytest.raises(LogUnavailableError, match="No such container"):
        got.extend(reader.follow())
    assert got == [b"one\n"]
    assert reader.rest() == b""
