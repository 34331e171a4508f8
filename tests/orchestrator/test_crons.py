"""When crons elapse, and a schedule that fires whenever one of them does."""

import itertools
from datetime import datetime, timedelta, timezone

import pytest

from dagster_sqlmesh_pipes.compat import cron_ticks
from dagster_sqlmesh_pipes.crons import dagster_cron, longest_gap, next_tick, shortest_gap, union

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
END = START + timedelta(days=366)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("@daily", None, "2026-01-01 00:00", "2026-01-02 00:00"),
        ("@daily", None, "2025-12-31 23:59:59.999999", "2026-01-01 00:00"),
        ("@daily", None, "2026-01-01 00:00:00.000001", "2026-01-02 00:00"),
        ("@midnight", None, "2026-01-01 12:00", "2026-01-02 00:00"),
        ("@hourly", None, "2026-01-01 12:00", "2026-01-01 13:00"),
        ("@weekly", None, "2026-01-01 00:00", "2026-01-04 00:00"),
        ("@monthly", None, "2026-01-01 00:00", "2026-02-01 00:00"),
        ("@yearly", None, "2026-01-01 00:00", "2027-01-01 00:00"),
        ("@annually", None, "2026-01-01 00:00", "2027-01-01 00:00"),
        ("*/5 * * * *", None, "2026-01-01 00:01", "2026-01-01 00:05"),
        ("0 6 * * 1-5", None, "2026-01-02 06:00", "2026-01-05 06:00"),
        ("0 0 29 2 *", None, "2026-01-01 00:00", "2028-02-29 00:00"),
        # A sixth field counts seconds.
        ("30 6 * * * 15", None, "2026-01-01 06:00", "2026-01-01 06:30"),
        ("0 9 * * *", "America/New_York", "2026-01-01 00:00", "2026-01-01 14:00"),
        # The day before the clocks go forward in Berlin, the day itself, on which there is no 02:30, and the day after.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 00:00", "2026-03-28 01:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 01:30", "2026-03-29 01:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29 01:00", "2026-03-30 00:30"),
        # The night in which the clocks go back has 02:30 twice: once is enough.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", "2026-10-25 01:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 01:30", "2026-10-26 01:30"),
    ],
)
def test_the_next_tick_is_the_first_one_strictly_after(cron, zone, after, expected):
    assert next_tick(cron, zone, utc(after)) == utc(expected)


def test_a_moment_in_any_zone_is_understood():
    berlin_noon = datetime.fromisoformat("2026-01-01T12:00:00+01:00")

    assert next_tick("@hourly", None, berlin_noon) == utc("2026-01-01 12:00")


@pytest.mark.parametrize("cron", ["", "every day", "0 0", "@fortnightly", "61 * * * *", "0 0 30 2 *"])
def test_a_cron_that_dagster_cannot_read_is_none_and_has_no_next_tick(cron):
    assert dagster_cron(cron) is None
    with pytest.raises(ValueError, match="Dagster cannot read the cron"):
        next_tick(cron, None, START)


@pytest.mark.parametrize(
    ("cron", "zone", "shortest", "longest"),
    [
        ("@hourly", None, HOUR, HOUR),
        ("@daily", None, DAY, DAY),
        ("@weekly", None, 7 * DAY, 7 * DAY),
        ("@monthly", None, 28 * DAY, 31 * DAY),
        ("*/5 * * * *", None, HOUR / 12, HOUR / 12),
        ("0 6 * * 1-5", None, DAY, 3 * DAY),
        ("0 8-17 * * 1-5", None, HOUR, 2 * DAY + 15 * HOUR),
        ("0 0 1,15 * *", None, 14 * DAY, 17 * DAY),
        ("0 0 * 1 *", None, DAY, 335 * DAY),
        ("*/30 * 1 * *", None, HOUR / 2, 30 * DAY + HOUR / 2),
        ("0 0 29 2 *", None, 4 * 366 * DAY, 4 * 366 * DAY),
        ("0 6 * * 1-5", "Europe/Berlin", DAY, 3 * DAY),
        ("cannot be read", None, DAY, DAY),
    ],
)
def test_gaps_are_the_shortest_and_the_longest_time_between_two_ticks(cron, zone, shortest, longest):
    assert shortest_gap(cron, zone) == shortest
    assert longest_gap(cron, zone) == longest


def test_crons_of_one_zone_stand_as_they_are():
    assert union([("0 3 * * *", None), ("30 */2 * * *", None), ("0 3 * * *", "UTC")]) == (
        ["0 3 * * *", "30 */2 * * *"],
        "UTC",
    )


def test_a_cron_of_some_days_is_left_out_where_another_elapses_then_every_day():
    crons = [("@daily", None), ("@weekly", None), ("0 0 1 * *", None), ("30 6 * * 1-5", None)]

    assert union(crons)[0] == ["0 0 * * *", "30 6 * * 1-5"]


def test_an_alias_and_its_cron_are_one():
    assert union([("@daily", "Asia/Tokyo"), ("0 0 * * *", "Asia/Tokyo"), ("@hourly", "Asia/Tokyo")]) == (
        ["0 * * * *", "0 0 * * *"],
        "Asia/Tokyo",
    )


def test_the_zone_is_that_of_most_models():
    crons = [("@daily", "Europe/Berlin"), ("0 6 * * *", "Europe/Berlin"), ("@daily", None)]

    assert union(crons)[1] == "Europe/Berlin"


def test_without_crons_there_is_nothing_to_fire_for():
    assert union([]) == ([], "UTC")


def test_a_cron_that_cannot_be_read_is_asked_about_at_the_finest_unit():
    assert "*/5 * * * *" in union([("@daily", None), ("cannot be read", None)])[0]


def ticks(cron: str, zone: str | None) -> set[datetime]:
    found = itertools.takewhile(lambda tick: tick < END, cron_ticks(dagster_cron(cron), zone, START))
    return {tick.astimezone(timezone.utc) for tick in found}


@pytest.mark.parametrize(
    "crons",
    [
        [("0 3 * * *", None), ("30 */2 * * *", None)],
        [("@daily", None), ("@hourly", None), ("30 6 * * *", "Europe/Berlin")],
        [("@daily", "Europe/Berlin"), ("@daily", "Europe/Berlin"), ("@daily", None)],
        [("@daily", None), ("@daily", None), ("15 8 * * 1-5", "America/New_York")],
        [("@daily", None), ("@daily", None), ("@daily", "Asia/Kolkata"), ("0 3 1 * *", "Asia/Kathmandu")],
        [("@daily", None), ("@daily", None), ("*/5 * * * *", "Asia/Kathmandu")],
        [("@daily", None), ("@daily", None), ("0 0 29 2 *", "Europe/Berlin"), ("@yearly", "Asia/Tokyo")],
        [("@daily", None), ("@daily", None), ("30 2 * * *", "Europe/Berlin")],
        [("@daily", None), ("@daily", None), ("0 22 * * *", "Australia/Lord_Howe")],
        # 01:30 in New York and 02:30 in Berlin come twice in the night in which the clocks go back.
        [("@daily", "Europe/Berlin"), ("@daily", "Europe/Berlin"), ("30 0 * * *", None)],
        [("@daily", "Australia/Lord_Howe"), ("@daily", "Australia/Lord_Howe"), ("45 14 * * *", None)],
        [("@daily", "America/New_York"), ("@daily", "America/New_York"), ("30 6 * * *", "Europe/Berlin")],
        [("@daily", "Europe/Berlin"), ("@daily", "Europe/Berlin"), ("@hourly", "America/New_York")],
        [("30 2 * * *", "Europe/Berlin"), ("30 2 * * 0", "Europe/Berlin"), ("30 2 25 10 *", "Europe/Berlin")],
    ],
    ids=str,
)
def test_over_a_year_with_summer_time_the_union_fires_whenever_a_cron_elapses(crons):
    strings, zone = union(crons)
    fired = set().union(*(ticks(string, zone) for string in strings))

    for cron in crons:
        assert ticks(*cron) - fired == set(), cron


def test_the_union_does_not_fire_much_more_often_than_the_crons_elapse():
    crons = [("@daily", None), ("@daily", None), ("30 6 * * *", "Europe/Berlin")]
    strings, zone = union(crons)

    fired = set().union(*(ticks(string, zone) for string in strings))

    assert len(fired) <= 3 * 367
