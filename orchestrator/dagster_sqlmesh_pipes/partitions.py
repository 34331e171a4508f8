"""Dagster's partitions of models that SQLMesh fills interval by interval."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property

import dagster as dg

from dagster_sqlmesh_pipes.errors import PartitionsError
from sqlmesh_pipes_protocol.codec import moment_of
from sqlmesh_pipes_protocol.events import Interval
from sqlmesh_pipes_protocol.manifest import Model

PARTITIONED_KIND = "INCREMENTAL_BY_TIME_RANGE"
"""The kind of models whose data is a function of the interval: the only one that can be filled piece by piece."""

_CRONS = {
    "year": ("0 0 1 1 *", "%Y"),
    "month": ("0 0 1 * *", "%Y-%m"),
    "day": ("0 0 * * *", "%Y-%m-%d"),
    "hour": ("0 * * * *", "%Y-%m-%d-%H:%M"),
    "half_hour": ("*/30 * * * *", "%Y-%m-%d-%H:%M"),
    "quarter_hour": ("*/15 * * * *", "%Y-%m-%d-%H:%M"),
    "five_minute": ("*/5 * * * *", "%Y-%m-%d-%H:%M"),
}
"""SQLMesh's interval units, as crons in UTC and formats of partition keys. Intervals are in UTC whatever the cron's zone."""


def partitions_definition(models: Sequence[Model]) -> dg.TimeWindowPartitionsDefinition:
    """Time partitions for incremental-by-time models: one for each of their intervals, from the earliest of their starts on.

    Raises:
        PartitionsError: a model is of another kind or interval unit, or its start is missing or relative, so that partitions would
            have no beginning.
    """
    for model in models:
        if model.kind != PARTITIONED_KIND:
            raise PartitionsError(
                f"The model {model.fqn} cannot have partitions: it is {model.kind}, and {PARTITIONED_KIND} is needed. "
                "Leave it out with `select` or `exclude`, and give it assets of its own."
            )
    units = {model.interval_unit: model.fqn for model in models}
    if len(units) != 1:
        listed = ", ".join(f"{fqn} is filled by {unit}" for unit, fqn in sorted(units.items()))
        raise PartitionsError(
            f"Assets that are launched together must have the same partitions: {listed}. "
            "Give each interval unit assets of its own, with `select` or `exclude`."
        )
    (unit,) = units
    cron, format_ = _CRONS[unit]
    start = _FLOORS[unit](min(_start(model) for model in models).replace(second=0, microsecond=0))
    return dg.TimeWindowPartitionsDefinition(start=start, fmt=format_, cron_schedule=cron, timezone="UTC")


@dataclass(frozen=True)
class PartitionedRun:
    """The partitions that a run is for.

    Attributes:
        definition: of the run's assets.
        asked: the run's partitions, in order.
        known: the partitions of an asset that Dagster has as materialized. It is asked for where the run does not fill all: of many
            assets, before the run, that takes seconds.
    """

    definition: dg.TimeWindowPartitionsDefinition
    asked: Sequence[str]
    known: Callable[[dg.AssetKey], Collection[str]]

    @classmethod
    def of(cls, context: dg.AssetExecutionContext) -> PartitionedRun | None:
        """The partitions in a run's context; None where its assets have none.

        Raises:
            dagster.Failure: the assets have partitions and the run names none.
        """
        keys = context.selected_asset_keys
        specs = (spec for spec in context.assets_def.specs if spec.key in keys)
        definition = next((spec.partitions_def for spec in specs if spec.partitions_def), None)
        if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
            return None
        if not (context.has_partition_key or context.has_partition_key_range):
            raise dg.Failure(
                "These assets have partitions and the run names none: launch it with a partition or a range of partitions.",
                allow_retries=False,
            )
        asked = definition.get_partition_keys_in_range(context.partition_key_range)
        return cls(definition, asked, context.instance.get_materialized_partitions)

    @property
    def range(self) -> tuple[str, str]:
        """Start and end as SQLMesh takes them.

        The end is excluded: SQLMesh reads a time of day as that very moment, and a bare date as the whole day.
        """
        first, last = self.asked[0], self.asked[-1]
        start = self.definition.time_window_for_partition_key(first).start
        end = self.definition.time_window_for_partition_key(last).end
        return _spelled(start), _spelled(end)

    def filled(self, intervals: Iterable[Interval]) -> list[str]:
        """The partitions that lie within intervals that SQLMesh has done, in order; also those that were not asked for.

        Dagster has none before the first and after the last, and would count them up for as long as an interval is.
        """
        keys: list[str] = []
        first, last = self._reach
        for interval in intervals:
            start, end = max(moment_of(interval.start), first), min(moment_of(interval.end), last)
            if start < end:
                keys += self.definition.get_partition_keys_in_time_window(dg.TimeWindow(start, end))
        return list(dict.fromkeys(keys))

    @cached_property
    def _reach(self) -> tuple[datetime, datetime]:
        """Where the partitions begin, and where those end that Dagster has by now, or that were asked for."""
        start = self.definition.start
        last = self.definition.get_last_partition_window()
        asked = [self.definition.time_window_for_partition_key(key) for key in self.asked[-1:]]
        return start, max([start, *(window.end for window in (last, *asked) if window is not None)])

    def missing(self, key: dg.AssetKey, filled: Collection[str]) -> list[str]:
        """The partitions that were asked for, and that neither this run nor one before it has filled."""
        done = set(filled)
        if done.issuperset(self.asked):
            return []
        done.update(self.known(key))
        return [partition for partition in self.asked if partition not in done]


def _start(model: Model) -> datetime:
    try:
        start = datetime.fromisoformat(str(model.start))
    except ValueError:
        raise PartitionsError(
            f"The model {model.fqn} cannot have partitions: its start is {model.start!r}, and a date such as 2026-01-31 "
            "is needed. Give it one, or leave it out with `select` or `exclude`."
        ) from None
    return start.replace(tzinfo=start.tzinfo or timezone.utc).astimezone(timezone.utc)


_FLOORS: dict[str, Callable[[datetime], datetime]] = {
    "year": lambda time: time.replace(month=1, day=1, hour=0, minute=0),
    "month": lambda time: time.replace(day=1, hour=0, minute=0),
    "day": lambda time: time.replace(hour=0, minute=0),
    "hour": lambda time: time.replace(minute=0),
    "half_hour": lambda time: time - timedelta(minutes=time.minute % 30),
    "quarter_hour": lambda time: time - timedelta(minutes=time.minute % 15),
    "five_minute": lambda time: time - timedelta(minutes=time.minute % 5),
}


def _spelled(time: datetime) -> str:
    return time.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
