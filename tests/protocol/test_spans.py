"""Intervals are added and taken away as the sets of moments that they are."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlmesh_pipes_protocol.events import Interval
from sqlmesh_pipes_protocol.spans import Span, epoch_ms, interval, merged, moment, span_of, within, without

SPANS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 4)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=5
)


def moments(spans: Iterable[Span]) -> set[int]:
    return {moment for start, end in spans for moment in range(start, end)}


def apart(spans: Iterable[Span]) -> list[Span]:
    """Spans of which none touches another, each as long as before or shorter."""
    result: list[Span] = []
    for start, end in sorted(spans):
        start = max([start, *(last + 1 for _, last in result)])
        if start < end:
            result.append((start, end))
    return result


@pytest.mark.parametrize(
    ("time", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.001Z", 1),
        ("1970-01-01T00:00:01Z", 1_000),
        ("1969-12-31T23:59:59.999Z", -1),
        ("2026-01-31T06:30:00Z", 1_769_841_000_000),
        ("2026-01-31T06:30:00.5Z", 1_769_841_000_500),
        ("2026-01-31T06:30:00.25Z", 1_769_841_000_250),
        ("2026-01-31T06:30:00.123456Z", 1_769_841_000_123),
        ("2026-01-31T06:30:00.999999Z", 1_769_841_000_999),
    ],
)
def test_a_time_of_the_protocol_is_rounded_down_to_milliseconds(time: str, milliseconds: int) -> None:
    assert epoch_ms(time) == milliseconds


@pytest.mark.parametrize(
    ("milliseconds", "time"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999000Z"),
        (1_769_841_000_000, "2026-01-31T06:30:00Z"),
        (1_769_841_000_123, "2026-01-31T06:30:00.123000Z"),
    ],
)
def test_a_time_is_written_in_utc_without_a_fraction_that_is_nothing(milliseconds: int, time: str) -> None:
    assert moment(milliseconds) == time


@given(st.tuples(st.integers(0, 2**42), st.integers(0, 2**42)))
def test_a_span_is_read_from_the_interval_that_it_was_written_as(span: Span) -> None:
    assert span_of(interval(span)) == span


def test_a_span_ends_where_its_interval_does() -> None:
    assert interval((0, 86_400_000)) == Interval(start="1970-01-01T00:00:00Z", end="1970-01-02T00:00:00Z")


@settings(deadline=None)
@given(SPANS)
def test_merged_spans_are_the_same_moments_in_order_and_apart(spans: list[Span]) -> None:
    found = [span_of(each) for each in merged(spans)]

    assert moments(found) == moments(spans)
    assert all(end < start for (_, end), (start, _) in pairwise(found))


def test_a_span_within_one_that_is_not_the_first_adds_nothing() -> None:
    assert merged([(0, 1), (3, 9), (4, 5), (9, 10)]) == (interval((0, 1)), interval((3, 10)))


@settings(deadline=None)
@given(SPANS, SPANS)
def test_what_is_taken_away_is_gone_and_all_else_stays(spans: list[Span], taken: list[Span]) -> None:
    found = list(without(spans, taken))

    assert moments(found) == moments(spans) - moments(taken)
    assert all(start < end for start, end in found)


@settings(deadline=None)
@given(SPANS, SPANS)
def test_each_span_is_cut_by_itself_and_in_order(spans: list[Span], taken: list[Span]) -> None:
    assert list(without(spans, taken)) == [part for span in spans for part in without([span], taken)]


@settings(deadline=None)
@given(SPANS, SPANS)
def test_what_lies_in_others_is_what_is_in_both(spans: list[Span], others: list[Span]) -> None:
    found = list(within(spans, iter(others)))

    assert moments(found) == moments(spans) & moments(others)
    assert all(start < end for start, end in found)


@settings(deadline=None)
@given(SPANS.map(apart), SPANS.map(apart))
def test_spans_that_are_apart_stay_in_as_few_pieces_as_can_be(spans: list[Span], others: list[Span]) -> None:
    for found in (list(without(spans, others)), list(within(spans, others))):
        assert [span_of(each) for each in merged(found)] == found
