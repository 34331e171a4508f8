"""Which partitions models get, and which they cannot have."""

from datetime import datetime, timezone

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import (
    PartitionsError,
    SQLMeshResource,
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_assets_factory,
)


@pytest.fixture
def incremental(model):
    def make(*parts: str, **changes: object):
        values = {"kind": "INCREMENTAL_BY_TIME_RANGE", "start": "2026-01-01", **changes}
        return model(*(parts or ("db", "s", "t")), **values)

    return make


@pytest.mark.parametrize(
    ("unit", "start", "keys"),
    [
        ("year", "2024-05-01", ["2024", "2025"]),
        ("month", "2026-01-15", ["2026-01", "2026-02"]),
        ("day", "2026-01-31", ["2026-01-31", "2026-02-01"]),
        ("day", "2026-01-31 13:00:00", ["2026-01-31", "2026-02-01"]),
        ("hour", "2026-01-31", ["2026-01-31-00:00", "2026-01-31-01:00"]),
        ("hour", "2026-01-31 22:30:00", ["2026-01-31-22:00", "2026-01-31-23:00"]),
        ("half_hour", "2026-01-31 22:45:00", ["2026-01-31-22:30", "2026-01-31-23:00"]),
        ("quarter_hour", "2026-01-31", ["2026-01-31-00:00", "2026-01-31-00:15"]),
        ("five_minute", "2026-01-31", ["2026-01-31-00:00", "2026-01-31-00:05"]),
        ("hour", "2026-01-31T00:00:00+02:00", ["2026-01-30-22:00", "2026-01-30-23:00"]),
    ],
)
def test_partitions_are_the_intervals_of_the_unit_from_the_start_on(unit, start, keys, spec_of, incremental):
    spec = spec_of(incremental(interval_unit=unit, start=start), partitions=True)

    assert isinstance(spec.partitions_def, dg.TimeWindowPartitionsDefinition)
    now = datetime(2026, 11, 1, tzinfo=timezone.utc)
    assert list(spec.partitions_def.get_partition_keys(now))[:2] == keys


def test_partitions_are_in_utc_whatever_the_cron_s_zone(spec_of, incremental):
    spec = spec_of(incremental(cron="0 6 * * *", cron_tz="Europe/Berlin"), partitions=True)

    window = spec.partitions_def.time_window_for_partition_key("2026-07-01")
    assert window.start.timestamp() == datetime(2026, 7, 1, tzinfo=timezone.utc).timestamp()
    assert window.end.timestamp() == datetime(2026, 7, 2, tzinfo=timezone.utc).timestamp()


def test_models_that_are_launched_together_begin_with_the_earliest(define, incremental):
    late = incremental("db", "s", "late", start="2026-03-01")
    early = incremental("db", "s", "early", start="2026-02-01")

    definition = define(late, early, partitions=True)

    assert {spec.partitions_def.get_first_partition_key() for spec in definition.specs} == {"2026-02-01"}


def test_without_partitions_being_asked_for_there_are_none(spec_of, incremental):
    assert spec_of(incremental()).partitions_def is None


def test_models_of_several_interval_units_are_refused_naming_them(define, incremental):
    daily, hourly = incremental("db", "s", "daily"), incremental("db", "s", "hourly", interval_unit="hour")

    with pytest.raises(PartitionsError) as caught:
        define(daily, hourly, partitions=True)

    assert '"db"."s"."daily" is filled by day' in str(caught.value)
    assert '"db"."s"."hourly" is filled by hour' in str(caught.value)


@pytest.mark.parametrize("kind", ["FULL", "VIEW", "SEED", "INCREMENTAL_BY_UNIQUE_KEY", "SCD_TYPE_2"])
def test_a_model_that_is_not_filled_by_time_is_refused_by_name(kind, define, model):
    with pytest.raises(PartitionsError) as caught:
        define(model("db", "s", "t", kind=kind, start="2026-01-01"), partitions=True)

    assert '"db"."s"."t"' in str(caught.value)
    assert kind in str(caught.value)


def test_a_model_that_cannot_have_partitions_may_be_left_out(define, incremental, model):
    definition = define(incremental(), model("db", "s", "full"), partitions=True, exclude="kind:full")

    assert [key.path[-1] for key in definition.keys] == ["t"]


@pytest.mark.parametrize("start", [None, "1 week ago", "yesterday", "soon"])
def test_a_start_that_is_missing_or_relative_is_refused_saying_what_is_needed(start, define, incremental):
    with pytest.raises(PartitionsError) as caught:
        define(incremental(start=start), partitions=True)

    assert f"its start is {start!r}" in str(caught.value)
    assert "a date such as 2026-01-31 is needed" in str(caught.value)


def test_the_adaptive_schedule_refuses_assets_with_partitions_by_name(project, incremental):
    resource = SQLMeshResource(project(incremental()))
    assets = sqlmesh_assets_factory(sqlmesh_resource=resource, partitions=True)

    with pytest.raises(PartitionsError, match="db/s/t has partitions"):
        sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource, assets=[assets])


def test_a_range_of_partitions_is_one_run(define, incremental):
    definition = define(incremental(), partitions=True)

    assert definition.backfill_policy == dg.BackfillPolicy.single_run()
