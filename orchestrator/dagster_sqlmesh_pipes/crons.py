"""Arithmetic with SQLMesh's crons, without SQLMesh."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

from dagster_sqlmesh_pipes.compat import cron_ticks, is_valid_cron

_SAMPLE = 2_100
"""Ticks to look at, at most: a week of the finest cron that SQLMesh allows, every five minutes."""
_PATTERNS = ((5, timedelta(days=63)), (200, timedelta(days=8)))
"""Ticks and time that show a cron's pattern: two months of one that elapses rarely, a week of one that elapses often."""
_HORIZON = timedelta(days=4 * 366)
_SAMPLE_START = datetime(2025, 1, 1, tzinfo=timezone.utc)


def dagster_cron(cron: str) -> str | None:
    """A cron as Dagster takes it: five fields, or an alias such as ``@daily``. None for one that it cannot take."""
    fields = cron.split()
    short = " ".join(fields[:5])  # a sixth field counts seconds; SQLMesh's finest unit is five minutes
    return short if is_valid_cron(short) else None


def next_tick(cron: str, zone: str | None, after: datetime) -> datetime:
    """When a cron elapses next, strictly after a moment; in UTC.

    Raises:
        ValueError: Dagster cannot read the cron.
    """
    readable = dagster_cron(cron)
    if readable is None:
        raise ValueError(f"Dagster cannot read the cron {cron!r}.")
    return next(tick for tick in cron_ticks(readable, zone, after) if tick > after).astimezone(timezone.utc)


@lru_cache(maxsize=1024)
def longest_gap(cron: str, zone: str | None) -> timedelta:
    """The longest time between two ticks."""
    return max(_gaps(cron, zone))


@lru_cache(maxsize=1024)
def shortest_gap(cron: str, zone: str | None) -> timedelta:
    """The shortest time between two ticks."""
    return min(_gaps(cron, zone))


def _gaps(cron: str, zone: str | None) -> list[timedelta]:
    """At least one. A cron that does not elapse twice in four years has that as its gap; one that cannot be read, a day."""
    readable = dagster_cron(cron)
    if readable is None:
        return [timedelta(days=1)]
    ticks: list[datetime] = []
    for tick in _sample(readable, zone):
        ticks.append(
            tick.astimezone(timezone.utc)
        )  # two times of one zone are subtracted by what its clocks show
        time = tick - _SAMPLE_START
        # Ends after the tick that is too late: a cron of one month a year shows its pause.
        if any(len(ticks) > number and time > enough for number, enough in _PATTERNS):
            break
    return [later - earlier for earlier, later in itertools.pairwise(ticks)] or [_HORIZON]


def _sample(cron: str, zone: str | None) -> Iterator[datetime]:
    ticks = itertools.islice(cron_ticks(cron, zone, _SAMPLE_START), _SAMPLE)
    return itertools.takewhile(lambda tick: tick - _SAMPLE_START <= _HORIZON, ticks)


def union(crons: Collection[tuple[str, str | None]]) -> tuple[list[str], str]:
    """Cron strings in one time zone that fire whenever one of the crons elapses.

    A Dagster schedule has one time zone: that of most of the crons. Its own crons stand as they are. A cron of another zone becomes
    one in this zone that fires at each of its hours and minutes, every day, for each difference that there is between
    the zones over the year: more often than the cron itself, and whoever is asked then what is due says no. One that elapses on
    some days is left out where another elapses at the same time every day.

    Args:
        crons: cron and time zone (None: UTC), once each or more often.

    Returns:
        The cron strings, sorted, and the time zone.
    """
    zones = [zone or "UTC" for _, zone in crons]
    if not zones:
        return [], "UTC"
    here = max(sorted(set(zones)), key=zones.count)
    found: set[str] = set()
    for cron, zone in set(crons):
        readable = dagster_cron(cron)
        if readable is None:
            found.add("*/5 * * * *")  # told exactly by whoever is asked what is due
        elif (zone or "UTC") == here:
            found.add(_unaliased(readable))
        else:
            found.update(_elsewhere(readable, zone, here))
    return sorted(cron for cron in found if _daily(cron) == cron or _daily(cron) not in found), here


def _daily(cron: str) -> str:
    """The cron that elapses every day at the times of day at which this one does."""
    return " ".join([*cron.split()[:2], "*", "*", "*"])


def _elsewhere(cron: str, zone: str | None, here: str) -> Iterable[str]:
    """Crons that fire daily, at each minute of the day at which a cron of another zone can elapse here."""
    there, target = ZoneInfo(zone or "UTC"), ZoneInfo(here)
    ticks = (tick.astimezone(there) for tick in _sample(cron, zone))
    minutes = {tick.hour * 60 + tick.minute for tick in ticks}
    hours_by_minute: dict[int, set[int]] = {}
    for difference in _differences(there, target):
        for minute in minutes:
            hour, minute_of_hour = divmod((minute + difference) % 1440, 60)
            hours_by_minute.setdefault(minute_of_hour, set()).add(hour)
    twice = _hours_shown_twice(target)
    return [
        # Dagster fires once in an hour that comes twice, unless it fires each hour.
        f"{minute} {','.join(map(str, sorted(hours))) if len(hours) < 24 and not hours & twice else '*'} * * *"
        for minute, hours in hours_by_minute.items()
    ]


@lru_cache(maxsize=64)
def _hours_shown_twice(zone: ZoneInfo) -> frozenset[int]:
    """The hours of the day in which a zone's clocks are put back, wholly or in part."""
    half_hours = [timedelta(minutes=30 * number) for number in range(366 * 48)]
    times = ((_SAMPLE_START + passed).astimezone(zone) for passed in half_hours)
    found: set[int] = set()
    for before, after in itertools.pairwise(times):
        put_back = (before.utcoffset() or timedelta()) - (after.utcoffset() or timedelta())
        found.update((after.replace(tzinfo=None) + more).hour for more in half_hours[:4] if more < put_back)
    return frozenset(found)


def _differences(there: ZoneInfo, here: ZoneInfo) -> set[int]:
    """By how many minutes the clocks of two zones differ, over a year."""
    days = (_SAMPLE_START + timedelta(days=day) for day in range(366))
    offsets = ((day.astimezone(here).utcoffset(), day.astimezone(there).utcoffset()) for day in days)
    return {
        int((one - other).total_seconds() // 60)
        for one, other in offsets
        if one is not None and other is not None
    }


_ALIASES = {
    "@midnight": "0 0 * * *",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def _unaliased(cron: str) -> str:
    return _ALIASES.get(cron, cron)
