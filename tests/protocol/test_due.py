"""A report of what is due is read whole or refused with the place that is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlmesh_pipes_protocol import (
    DecodeError,
    DueReport,
    VersionMismatchError,
    dump_due_report,
    read_due_report,
)

GOLDEN = (Path(__file__).parent / "golden" / "due-1.json").read_bytes()


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_report_is_read_as_it_was_written_on_one_line(any_of: Any, data: Any) -> None:
    report = dataclasses.replace(data.draw(any_of(DueReport)), v="1.0")

    written = dump_due_report(report)

    assert read_due_report(written) == report
    assert written.count(b"\n") == 1
    assert written.endswith(b"\n")


def test_a_report_with_what_is_no_unicode_is_one_line_too() -> None:
    report = dataclasses.replace(read_due_report(GOLDEN), environment="caf\udce9")

    written = dump_due_report(report)

    assert read_due_report(written) == dataclasses.replace(report, environment="caf?")
    assert (written.count(b"\n"), written[-1:]) == (1, b"\n")


@pytest.mark.parametrize("version", ["1.0", "1.8"])
def test_any_minor_of_our_major_is_read_and_its_unknown_keys_ignored(version: str) -> None:
    written = orjson.dumps({**orjson.loads(GOLDEN), "v": version, "later": 1})

    assert read_due_report(written) == dataclasses.replace(read_due_report(GOLDEN), v=version)


@pytest.mark.parametrize(
    ("written", "path", "expected"),
    [
        pytest.param(b"", "$", "a report as JSON", id="empty"),
        pytest.param(GOLDEN[:-10], "$", "a report as JSON", id="torn"),
        pytest.param(b"Nothing is due.", "$", "a report as JSON", id="for people"),
        pytest.param(b"[]", "$", "an object (DueReport)", id="a list"),
        pytest.param(b"{}", "$.v", "a version such as 1.0", id="no version"),
        pytest.param(b'{"v": "1.0"}', "$.environment", "a value", id="nothing but a version"),
    ],
)
def test_what_is_no_report_is_refused(written: bytes, path: str, expected: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read_due_report(written)

    assert (caught.value.path, caught.value.expected) == (path, expected)
    assert len(caught.value.got) <= 80


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("execution_time", "2026-01-07", "$.execution_time"),
        ("models", None, "$.models"),
        ("models", [{"model": "a", "intervals": []}], "$.models[0].next_due"),
        ("models", [{"model": "a", "intervals": [{}], "next_due": None}], "$.models[0].intervals[0].start"),
    ],
)
def test_a_report_of_another_shape_is_refused_with_the_place(key: str, value: object, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read_due_report(orjson.dumps({**orjson.loads(GOLDEN), key: value}))

    assert caught.value.path == path


def test_another_major_is_refused_with_both_versions_before_its_shape_is_looked_at() -> None:
    with pytest.raises(VersionMismatchError, match=r"the due report speaks protocol 2\.0") as caught:
        read_due_report(b'{"v": "2.0"}')

    assert (caught.value.ours, caught.value.theirs) == ("1.0", "2.0")
