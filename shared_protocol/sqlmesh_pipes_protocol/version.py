"""The version of the protocol: not the version of the package.

Within a major, events and keys are only added; readers ignore those they do not know. Sets of literal values
(statuses, reasons, categories) are closed within a major, so that a reader can match them exhaustively.
"""

from __future__ import annotations

import re

from sqlmesh_pipes_protocol.errors import DecodeError, VersionMismatchError, shown

PROTOCOL_VERSION = "1.0"

_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")
_MAJOR = PROTOCOL_VERSION.partition(".")[0]


def check_version(theirs: object, *, path: str = "$.v", subject: str = "event stream") -> None:
    """Accept any minor of our major.

    Raises:
        DecodeError: ``theirs`` is not ``<major>.<minor>``.
        VersionMismatchError: the majors differ; it names both versions.
    """
    if theirs == PROTOCOL_VERSION:
        return
    match = _VERSION.fullmatch(theirs) if isinstance(theirs, str) else None
    if match is None:
        raise DecodeError(path, "a version such as 1.0", shown(theirs))
    if match[1] != _MAJOR:
        raise VersionMismatchError(PROTOCOL_VERSION, match[0], subject)
