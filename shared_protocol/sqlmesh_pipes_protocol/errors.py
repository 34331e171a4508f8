"""What can be wrong with a line, an event or a manifest, one class a cause."""

from __future__ import annotations

import reprlib

_SHOWN_CHARS = 80


class _Shown(reprlib.Repr):
    """A representation that costs little however large or deep the value is: a stream's data is nobody's to trust."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxother = self.maxlong = _SHOWN_CHARS + 2

    def repr_dict(self, value: dict[object, object], level: int) -> str:
        if level <= 0:
            return "{...}"
        # In its own order: the stock one sorts all the keys first.
        shown = [
            f"{self.repr1(key, level - 1)}: {self.repr1(item, level - 1)}"
            for (key, item), _ in zip(value.items(), range(self.maxdict), strict=False)
        ]
        return "{" + ", ".join(shown) + (", ...}" if len(value) > self.maxdict else "}")


_SHOWN = _Shown()


def shown(value: object) -> str:
    """A value for an error's text, in at most 80 characters."""
    if type(value) is str:
        return repr(value[:_SHOWN_CHARS])[:_SHOWN_CHARS]
    return _SHOWN.repr(value)[:_SHOWN_CHARS]


class ProtocolError(Exception):
    """Base of every error that this package raises."""


class DecodeError(ProtocolError):
    """A value does not have the declared shape.

    Attributes:
        path: where, from the root of the document, such as ``$.batches[0].model``.
        expected: what the declaration asks for, in words.
        got: what stands there, shortened to 80 characters.
    """

    def __init__(self, path: str, expected: str, got: str) -> None:
        self.path = path
        self.expected = expected
        self.got = got
        super().__init__(f"{path}: expected {expected}, got {got}")


class VersionMismatchError(ProtocolError):
    """The other side speaks another major version of the protocol.

    Attributes:
        ours: the version that this package speaks, such as ``1.0``.
        theirs: the version found on the wire.
    """

    def __init__(self, ours: str, theirs: str, subject: str = "event stream") -> None:
        self.ours = ours
        self.theirs = theirs
        super().__init__(
            f"the {subject} speaks protocol {theirs}, this side speaks {ours}: "
            "install releases of dagster-sqlmesh-pipes with the same protocol major on both sides"
        )


class EventTooLargeError(ProtocolError):
    """An event is larger than a reader accepts.

    Attributes:
        size: bytes that the event has, or claims to have.
        limit: bytes that are accepted.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"an event of {size:,} bytes was found, at most {limit:,} are accepted")


class ManifestError(ProtocolError):
    """A manifest cannot be read; the message says which file, why, and the command that mends it."""
