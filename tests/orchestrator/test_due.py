"""When a model's next turn is, from what Dagster has on record of it."""

from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest

from dagster_sqlmesh_pipes.compat import CheckRecord
from dagster_sqlmesh_pipes.due import due_by_record, next_turn, status_records

AS_OF = datetime(2026, 5, 4, 6, 30, tzinfo=timezone.utc)
NOW = AS_OF + timedelta(hours=1)
MANIFEST = AS_OF - timedelta(days=1)
NEWER_MANIFEST = AS_OF + timedelta(minutes=1)
AT_ONCE = datetime(1970, 1, 1, tzinfo=timezone.utc)
MIDNIGHT = datetime(2026, 5, 5, tzinfo=timezone.utc)
ELSEWHEN = datetime(2026, 8, 1, tzinfo=timezone.utc)
LATER = datetime(2026, 5, 4, 8, tzinfo=timezone.utc)


def executed(**changes) -> CheckRecord:
    return CheckRecord(**{"status": "executed", "as_of": AS_OF, **changes})


def skipped(reason: str, **changes) -> CheckRecord:
    return CheckRecord(**{"status": "skipped", "reason": reason, "as_of": AS_OF, **changes})


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(None, AT_ONCE, id="no record"),
        pytest.param(CheckRecord(running_in="run"), AT_ONCE, id="about to be evaluated"),
        pytest.param(executed(), MIDNIGHT, id="executed"),
        pytest.param(executed(as_of=None), AT_ONCE, id="a run limited to a range of time"),
        pytest.param(CheckRecord(status="failed", reason="sql", as_of=AS_OF), AT_ONCE, id="failed"),
        pytest.param(
            CheckRecord(status="failed", reason="sql", as_of=AS_OF, next_due=ELSEWHEN),
            AT_ONCE,
            id="failed, with a time that a skip before it left",
        ),
        pytest.param(skipped("upstream_failed"), AT_ONCE, id="upstream failed"),
        pytest.param(skipped("signal_not_ready"), AT_ONCE, id="signal not ready"),
        pytest.param(skipped("interrupted"), AT_ONCE, id="interrupted"),
        pytest.param(skipped("up_to_date"), MIDNIGHT, id="up to date"),
        pytest.param(skipped("cron_not_due"), MIDNIGHT, id="cron not due"),
        pytest.param(skipped("cron_not_due", next_due=ELSEWHEN), ELSEWHEN, id="cron not due, with a time"),
        pytest.param(skipped("not_deployed"), MIDNIGHT, id="not deployed"),
        pytest.param(skipped("not_runnable"), MIDNIGHT, id="not runnable"),
        pytest.param(skipped("cron_not_due", as_of=None), AT_ONCE, id="skipped by a limited run"),
        pytest.param(CheckRecord(), AT_ONCE, id="a result of somebody else's"),
    ],
)
def test_the_next_turn_follows_from_the_record(record, expected, model):
    assert next_turn(model("db", "s", "t"), record, MANIFEST) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(skipped("not_deployed"), AT_ONCE, id="not deployed then"),
        pytest.param(skipped("cron_not_due", next_due=ELSEWHEN), MIDNIGHT, id="a cron that elapses sooner"),
        pytest.param(
            skipped("cron_not_due", next_due=AS_OF + timedelta(hours=2)),
            AS_OF + timedelta(hours=2),
            id="a cron that elapses later",
        ),
        pytest.param(executed(), MIDNIGHT, id="executed"),
    ],
)
def test_a_newer_manifest_may_bring_a_turn_forward_and_never_puts_it_off(record, expected, model):
    assert next_turn(model("db", "s", "t"), record, NEWER_MANIFEST) == expected


def test_the_next_turn_follows_the_cron_in_its_zone(model):
    model = model("db", "s", "t", cron="30 6 * * 1-5", cron_tz="Europe/Berlin")
    friday = datetime(2026, 5, 8, 12, 0, tzinfo=timezone.utc)

    assert next_turn(model, executed(as_of=friday), MANIFEST) == datetime(
        2026, 5, 11, 4, 30, tzinfo=timezone.utc
    )


def test_a_cron_that_dagster_cannot_read_is_asked_about_at_each_tick(model):
    assert next_turn(model("db", "s", "t", cron="cannot be read"), executed(), MANIFEST) == AT_ONCE


@pytest.mark.parametrize("kind", ["SEED", "MANAGED"])
@pytest.mark.parametrize("record", [executed(), skipped("up_to_date")])
def test_what_has_no_turns_waits_for_a_newer_manifest(kind, record, model):
    model = model("db", "s", "t", kind=kind)

    assert next_turn(model, record, MANIFEST) is None
    assert next_turn(model, record, NEWER_MANIFEST) == AT_ONCE


def test_a_model_with_an_end_has_turns_until_it_has_nothing_left(model):
    model = model("db", "s", "t", end="2026-12-31")

    assert next_turn(model, executed(), MANIFEST) == MIDNIGHT
    assert next_turn(model, skipped("up_to_date"), MANIFEST) is None
    assert next_turn(model, skipped("up_to_date"), NEWER_MANIFEST) == AT_ONCE


@pytest.fixture
def record(define, model):
    """Have it on record in an instance what became of models; say then what is due."""
    instance = dg.DagsterInstance.ephemeral()
    models = {
        dg.AssetKey(["db", "s", table]): model("db", "s", table, cron="@daily") for table in ("a", "b", "c")
    }

    def put(told: dict[str, dict[str, object]], now: datetime = NOW):
        for table, metadata in told.items():
            evaluation = dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(["db", "s", table]),
                check_name="sqlmesh_execution_status",
                passed=metadata.get("status") == "executed",
                metadata=metadata,
            )
            instance.report_runless_asset_event(evaluation)
        return due_by_record(status_records(instance, models), models, now, MANIFEST)

    with instance:
        yield put


def tables(due) -> str:
    return "".join(key.path[-1] for key in due.keys)


def test_an_empty_record_makes_everything_due(record):
    due = record({})

    assert (tables(due), due.next_due) == ("abc", None)


def test_what_is_not_due_says_when_the_first_of_it_will_be(record):
    done = {"status": "executed", "as_of": dg.MetadataValue.timestamp(AS_OF)}
    waits = {"status": "skipped", "reason": "cron_not_due", "next_due": dg.MetadataValue.timestamp(LATER)}

    due = record({"a": done, "b": waits, "c": done})

    assert tables(due) == ""
    assert due.next_due == LATER


def test_the_latest_result_counts(record):
    done = {"status": "executed", "as_of": dg.MetadataValue.timestamp(AS_OF)}
    record({"a": done, "b": done, "c": done})

    assert tables(record({"b": {"status": "failed", "reason": "sql"}})) == "b"
    assert tables(record({"b": done})) == ""


@pytest.mark.parametrize(("now", "due"), [(MIDNIGHT - timedelta(seconds=1), ""), (MIDNIGHT, "abc")])
def test_a_model_is_due_from_the_moment_at_which_its_cron_elapses(now, due, record):
    done = {"status": "executed", "as_of": dg.MetadataValue.timestamp(AS_OF)}

    assert tables(record({"a": done, "b": done, "c": done}, now)) == due
