"""A report of what has been recorded is read whole or refused with the place that is wrong."""

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
    ReconcileReport,
    VersionMismatchError,
    dump_reconcile_report,
    read_reconcile_report,
)

GOLDEN = (Path(__file__).parent / "golden" / "reconcile-1.json").read_bytes()


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_report_is_read_as_it_was_written_on_one_line(any_of: Any, data: Any) -> None:
    report = dataclasses.replace(data.draw(any_of(ReconcileReport)), v="1.0")

    written = dump_reconcile_report(report)

    assert read_reconcile_report(written) == report
    assert written.count(b"\n") == 1
    assert written.endswith(b"\n")


@pytest.mark.parametrize("version", ["1.0", "1.8"])
def test_any_minor_of_our_major_is_read_and_its_unknown_keys_ignored(version: str) -> None:
    written = orjson.dumps({**orjson.loads(GOLDEN), "v": version, "later": 1})

    assert read_reconcile_report(written) == dataclasses.replace(read_reconcile_report(GOLDEN), v=version)


def test_a_model_looks_back_only_where_the_report_says_so() -> None:
    report = orjson.loads(GOLDEN)
    del report["models"][0]["looks_back"]
    report["models"][1]["looks_back"] = True

    assert [model.looks_back for model in read_reconcile_report(orjson.dumps(report)).models] == [False, True]


@pytest.mark.parametrize(
    ("written", "path", "expected"),
    [
        pytest.param(b"", "$", "a report as JSON", id="empty"),
        pytest.param(GOLDEN[:-10], "$", "a report as JSON", id="torn"),
        pytest.param(b"Nothing is missing.", "$", "a report as JSON", id="for people"),
        pytest.param(b"[]", "$", "an object (ReconcileReport)", id="a list"),
        pytest.param(b"{}", "$.v", "a version such as 1.0", id="no version"),
        pytest.param(b'{"v": "1.0"}', "$.environment", "a value", id="nothing but a version"),
    ],
)
def test_what_is_no_report_is_refused(written: bytes, path: str, expected: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read_reconcile_report(written)

    assert (caught.value.path, caught.value.expected) == (path, expected)


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("since", "2026-01-07", "$.since"),
        ("run_id", 1, "$.run_id"),
        ("models", None, "$.models"),
        ("models", [{"model": "a", "recorded": []}], "$.models[0].reported"),
        (
            "models",
            [{"model": "a", "recorded": [], "reported": [], "missing": [{}], "uncertain": []}],
            "$.models[0].missing[0].start",
        ),
    ],
)
def test_a_report_of_another_shape_is_refused_with_the_place(key: str, value: object, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read_reconcile_report(orjson.dumps({**orjson.loads(GOLDEN), key: value}))

    assert caught.value.path == path


def test_another_major_is_refused_with_both_versions_before_its_shape_is_looked_at() -> None:
    with pytest.raises(VersionMismatchError, match=r"the reconcile report speaks protocol 2\.0") as caught:
        read_reconcile_report(b'{"v": "2.0"}')

    assert (caught.value.ours, caught.value.theirs) == ("1.0", "2.0")
