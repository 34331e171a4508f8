"""A pod's log as a stream of lines that does not break off: each event once or more, each other line once.

Kubernetes puts a time before each line, and closes the stream when it likes: after hours, when the API server restarts, when the log
is rotated. The stream is then asked for again from a little before the last line seen. An event that comes again is dropped by its
``seq``, which decides; any other line by its time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from urllib3 import HTTPResponse

_CHUNK = 64 * 1024
_OVERLAP_SECONDS = 60
"""How far a node's clock may be from the API server's, and how long a line may take to the log."""
_MESSAGE = b'{"__dagster_pipes_version"'
_STAMP_CHARS = 36


class LogUnavailableError(Exception):
    """The node has no such log, not yet or not any more; it says so in the stream, in a line without a time."""


class PodLog:
    """The log of one container.

    Args:
        open_stream: asks for the log, of the given number of seconds or all of it, to be followed. The response is not read yet.
    """

    def __init__(self, open_stream: Callable[[int | None], HTTPResponse]) -> None:
        self._open = open_stream
        self._last: bytes = b""
        self._same: set[bytes] = set()
        """Lines of the last line's time."""
        self._torn: list[bytes] = []
        self._server_ahead = 0.0
        """Seconds by which the API server's clock is ahead of this one's."""

    def follow(self) -> Iterator[bytes]:
        """Lines from where the last call left off, without their times, until the stream ends.

        Raises:
            LogUnavailableError: the node does not have it.
            urllib3.exceptions.HTTPError, kubernetes.client.ApiException: the stream broke off.
        """
        again = self._last
        seen = frozenset(self._same)
        since = None
        if again:
            age = time.time() + self._server_ahead - _moment(again).timestamp()
            since = max(1, math.ceil(age) + _OVERLAP_SECONDS)
        response = self._open(since)
        try:
            date = response.headers.get("Date")
            if date:
                self._server_ahead = parsedate_to_datetime(date).timestamp() - time.time()
            self._torn.clear()
            for line in _lines(response, self._torn):
                stamp, space, text = line.partition(b" ")
                if not space or not _is_stamp(stamp):
                    raise LogUnavailableError(line.decode("utf-8", "replace").strip())
                is_event = text.startswith(_MESSAGE)
                if again and not is_event and (_is_before(stamp, again) or (stamp == again and text in seen)):
                    continue
                if not self._last or _is_before(self._last, stamp):
                    self._last = stamp
                    self._same.clear()
                if stamp == self._last:
                    self._same.add(text)
                yield text
            for line in self._torn:
                stamp, space, _ = line.partition(b" ")
                if space and not _is_stamp(stamp):  # not a time that was cut off
                    self._torn.clear()
                    raise LogUnavailableError(line.decode("utf-8", "replace").strip())
        finally:
            response.close()
            response.release_conn()

    def position(self) -> tuple[bytes, int]:
        """Where the reading is: another value, if there were lines that are news."""
        return self._last, len(self._same)

    def rest(self) -> bytes:
        """The last line, where it has no break: known when the log is at its end, for otherwise it comes again, whole."""
        return b"".join(line.partition(b" ")[2] for line in self._torn)


def _lines(response: HTTPResponse, torn_end: list[bytes]) -> Iterator[bytes]:
    """Whole lines with their breaks; what follows the last break is put aside."""
    torn: list[bytes] = []
    for chunk in response.stream(_CHUNK, decode_content=False):
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            yield b"".join([*torn, line, b"\n"])
            torn.clear()
        if rest:
            torn.append(rest)
    if torn:
        torn_end.append(b"".join(torn))


def _is_stamp(word: bytes) -> bool:
    return 20 <= len(word) <= _STAMP_CHARS and word[4:5] == b"-" and word[10:11] == b"T"


def _moment(stamp: bytes) -> datetime:
    return datetime.fromtimestamp(_nanoseconds(stamp) / 1e9, timezone.utc)


def _is_before(stamp: bytes, other: bytes) -> bool:
    if len(stamp) == len(other) and stamp.endswith(b"Z") and other.endswith(b"Z"):
        return stamp < other
    return _nanoseconds(stamp) < _nanoseconds(other)


def _nanoseconds(stamp: bytes) -> int:
    """Of RFC 3339, with up to nine digits after the point, since the epoch."""
    text = stamp.decode("ascii", "replace").replace("Z", "+00:00")
    seconds, zone = text[:19], text[-6:]
    digits = text[20:-6] if text[19:20] == "." else ""
    whole = int(datetime.fromisoformat(seconds + zone).timestamp())
    return whole * 10**9 + int(digits.ljust(9, "0")[:9] or 0)
