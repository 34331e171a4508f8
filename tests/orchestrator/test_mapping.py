"""Events in, results out."""

from dataclasses import replace
from datetime import datetime, timezone

import dagster as dg
import pytest

from dagster_sqlmesh_pipes.compat import NO_EVENT
from dagster_sqlmesh_pipes.mapping import ResultMapper
from dagster_sqlmesh_pipes.partitions import PartitionedRun
from dagster_sqlmesh_pipes.specs import SpecIndex
from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    AuditOutcome,
    Counts,
    ErrorInfo,
    Interval,
    ModelExecuted,
    ModelFailed,
    ModelOutcome,
    ModelSkipped,
    RunFinished,
    UnknownEvent,
)

FQN = '"db"."s"."t"'
KEY = dg.AssetKey(["db", "s", "t"])
STATUS = "sqlmesh_execution_status"
DAY = Interval(start="2026-01-01T00:00:00Z", end="2026-01-02T00:00:00Z")
NEXT_DAY = Interval(start="2026-01-02T00:00:00Z", end="2026-01-03T00:00:00Z")
EXECUTED = ModelExecuted(model=FQN, intervals=(DAY,), batches=1, duration_ms=1500, rows=7)
ERROR = ErrorInfo(error_class="duckdb.Error", message="no such column", category="sql", transient=False)
FAILED = ModelFailed(
    model=FQN,
    error=ERROR,
    interval=NEXT_DAY,
    failed_audits=(),
    intervals=(DAY,),
    batches=1,
    duration_ms=5,
)
SKIPPED = ModelSkipped(model=FQN, reason="cron_not_due", detail="Later.", next_due="2026-01-02T00:00:00Z")


def audit(name: str = "not_null", *, rows: int | None = 0, blocking: bool = True, interval: Interval = DAY):
    skipped = rows is None
    return AuditEvaluated(
        model=FQN,
        audit=name,
        name=name,
        arguments={"columns": "(a)"},
        blocking=blocking,
        skipped=skipped,
        passed=rows == 0,
        failing_rows=rows,
        query=None if skipped else "SELECT 1",
        dialect="duckdb",
        interval=interval,
    )


def finished(*outcomes: ModelOutcome) -> RunFinished:
    counts = Counts(
        selected=1, executed=0, failed=0, skipped=0, audits_passed=0, audits_failed=0, audits_skipped=0
    )
    return RunFinished(
        status="success", exit_code=0, counts=counts, duration_ms=1, last_seq=9, digest=tuple(outcomes)
    )


@pytest.fixture
def mapper() -> ResultMapper:
    return make_mapper()


def make_mapper(**changes) -> ResultMapper:
    names = [STATUS, "not_null", "unique_values"]
    settings = {
        "index": SpecIndex(
            keys={FQN: KEY}, checks={(FQN, "not_null"): "not_null", (FQN, "unique_values"): "unique_values"}
        ),
        "selected_keys": {KEY},
        "selected_checks": {dg.AssetCheckKey(KEY, name) for name in names},
        **changes,
    }
    return ResultMapper(**settings)


def feed(mapper: ResultMapper, *events) -> list:
    return [result for event in events for result in mapper.results(event)]


def by_name(checks) -> dict[str, dg.AssetCheckResult]:
    return {check.check_name: check for check in checks}


def test_an_executed_model_is_one_materialization_with_all_its_checks(mapper):
    (result,) = feed(mapper, audit("not_null"), audit("unique_values"), EXECUTED)

    assert isinstance(result, dg.MaterializeResult)
    assert result.asset_key == KEY
    assert result.metadata["rows_processed"] == 7
    assert result.metadata["duration_seconds"] == 1.5
    assert result.metadata["intervals"] == "2026-01-01 to 2026-01-02"
    assert {name: check.passed for name, check in by_name(result.check_results).items()} == {
        STATUS: True,
        "not_null": True,
        "unique_values": True,
    }


def test_an_audit_that_fails_in_one_batch_is_failed_and_shows_that_batch(mapper):
    (result,) = feed(mapper, audit(rows=0), audit(rows=3, interval=NEXT_DAY), audit(rows=0), EXECUTED)

    check = by_name(result.check_results)["not_null"]
    assert not check.passed
    assert check.metadata["failing_rows"].value == 3
    assert check.metadata["failed_intervals"].value == "2026-01-02 to 2026-01-03"
    assert check.description == "3 rows failed."


@pytest.mark.parametrize(
    ("blocking", "severity"), [(True, dg.AssetCheckSeverity.ERROR), (False, dg.AssetCheckSeverity.WARN)]
)
def test_an_audit_s_severity_is_whether_it_blocks(mapper, blocking, severity):
    (result,) = feed(mapper, audit(rows=1, blocking=blocking), EXECUTED)

    assert by_name(result.check_results)["not_null"].severity == severity


def test_an_audit_that_sqlmesh_skipped_has_no_result(mapper):
    (result,) = feed(mapper, audit(rows=None), EXECUTED)

    assert set(by_name(result.check_results)) == {STATUS}


def test_a_failed_model_has_its_audits_results_and_an_error_and_no_materialization(mapper):
    results = feed(mapper, audit(rows=2), FAILED)

    checks = by_name(results)
    assert set(checks) == {STATUS, "not_null"}
    assert not checks[STATUS].passed
    assert checks[STATUS].severity == dg.AssetCheckSeverity.ERROR
    assert checks[STATUS].metadata["reason"].value == "sql"
    assert checks[STATUS].metadata["failed_interval"].value == "2026-01-02 to 2026-01-03"
    assert checks[STATUS].metadata["intervals_done"].value == "2026-01-01 to 2026-01-02"
    assert mapper.failures == {FQN: ERROR}


def test_a_skipped_model_is_a_warning_with_its_reason(mapper):
    (check,) = feed(mapper, SKIPPED)

    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    values = {name: value.value for name, value in check.metadata.items()}
    assert values == {
        "status": "skipped",
        "reason": "cron_not_due",
        "next_due": datetime(2026, 1, 2, tzinfo=timezone.utc).timestamp(),
        "message": "Skipped. Later.",
    }


def test_a_model_is_told_once_whatever_comes_again(mapper):
    outcome = ModelOutcome(model=FQN, status="executed", intervals=(DAY,))

    assert len(feed(mapper, EXECUTED, EXECUTED, SKIPPED, finished(outcome))) == 1


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (ModelOutcome(model=FQN, status="executed", intervals=(DAY,)), "executed"),
        (ModelOutcome(model=FQN, status="failed", error=ERROR), "failed"),
        (ModelOutcome(model=FQN, status="skipped", reason="cron_not_due"), "skipped"),
    ],
)
def test_a_terminal_event_that_was_lost_is_rebuilt_from_the_digest(mapper, outcome, status):
    results = feed(mapper, finished(outcome))

    checks = results[0].check_results if status == "executed" else results
    assert by_name(checks)[STATUS].metadata["status"].value == status
    assert isinstance(results[0], dg.MaterializeResult) is (status == "executed")


def test_audits_that_were_lost_are_rebuilt_from_the_digest(mapper):
    lost = AuditOutcome(audit="not_null", skipped=False, passed=False, blocking=False, failing_rows=4)
    outcome = ModelOutcome(model=FQN, status="executed", intervals=(DAY,), audits=(lost,))

    (result,) = feed(mapper, finished(outcome))

    check = by_name(result.check_results)["not_null"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.metadata["failing_rows"].value == 4


def test_what_an_audit_says_after_sqlmesh_has_restarted_the_run_corrects_what_was_told_before(mapper):
    told = by_name(feed(mapper, audit(rows=2, blocking=False), EXECUTED)[0].check_results)
    outcome = AuditOutcome(audit="not_null", skipped=False, passed=True, blocking=False, failing_rows=0)

    feed(
        mapper,
        audit(rows=0, blocking=False),
        finished(ModelOutcome(model=FQN, status="executed", intervals=(DAY,), audits=(outcome,))),
    )

    (corrected,) = mapper.corrections
    assert (told["not_null"].passed, corrected.check_name, corrected.passed) == (False, "not_null", True)
    assert corrected.metadata["arguments"].value == "columns := (a)"
    assert {"query", "intervals"} <= corrected.metadata.keys()


def test_what_dagster_did_not_select_yields_nothing():
    assert feed(make_mapper(selected_keys=set()), audit(), EXECUTED) == []

    (result,) = feed(make_mapper(selected_checks={dg.AssetCheckKey(KEY, "not_null")}), audit(), EXECUTED)
    assert set(by_name(result.check_results)) == {"not_null"}


def test_what_an_earlier_attempt_materialized_is_not_told_as_skipped():
    mapper = make_mapper(already_materialized={KEY})

    assert feed(mapper, SKIPPED) == []


def test_what_an_earlier_attempt_materialized_lets_the_steps_that_read_it_run(mapper):
    (output,) = feed(make_mapper(already_materialized={KEY}, read_elsewhere={KEY}), SKIPPED)

    assert (output.asset_key, output.metadata, output.check_results) == (KEY, NO_EVENT, [])


def test_models_and_audits_without_a_spec_are_kept_for_a_warning(mapper):
    stranger = ModelExecuted(model='"db"."s"."new"', intervals=(), batches=1, duration_ms=1)

    (result,) = feed(mapper, audit("brand_new"), EXECUTED, stranger)

    assert set(by_name(result.check_results)) == {STATUS}
    assert list(mapper.unknown) == [f"{FQN}: brand_new", '"db"."s"."new"']


def test_an_embedded_model_is_no_stranger(mapper):
    skipped = ModelSkipped(model='"db"."s"."inner"', reason="not_runnable", detail="Embedded.")

    assert feed(mapper, skipped) == []
    assert not mapper.unknown


def test_an_event_of_a_later_version_means_nothing_yet(mapper):
    assert feed(mapper, UnknownEvent(kind="model_paused", fields={"model": FQN})) == []


DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", timezone="UTC")


def for_partitions(*asked: str, known: tuple[str, ...] = ()) -> ResultMapper:
    return make_mapper(
        partitions=PartitionedRun(DAYS, asked, lambda key: set(known) if key == KEY else set())
    )


def plain(results) -> list[str | None]:
    """Partitions that are materialized beside the step's result."""
    return [result.partition for result in results if isinstance(result, dg.AssetMaterialization)]


def whole(results) -> bool:
    """Whether the step has a result, which Dagster takes for all partitions that were asked for."""
    return any(isinstance(result, dg.MaterializeResult) for result in results)


def executed(*intervals: Interval) -> ModelExecuted:
    return ModelExecuted(model=FQN, intervals=intervals, batches=1, duration_ms=1)


def test_a_run_that_filled_all_partitions_has_one_result_for_them():
    results = feed(for_partitions("2026-01-01", "2026-01-02"), executed(DAY, NEXT_DAY))

    assert whole(results)
    assert plain(results) == []


def test_a_partition_that_was_filled_and_not_asked_for_is_materialized_besides():
    results = feed(for_partitions("2026-01-02"), executed(DAY, NEXT_DAY))

    assert whole(results)
    assert plain(results) == ["2026-01-01"]


def test_a_partition_that_was_not_filled_is_not_claimed_and_named():
    results = feed(for_partitions("2026-01-01", "2026-01-02"), executed(DAY))

    assert not whole(results)
    assert plain(results) == ["2026-01-01"]
    assert by_name(results_of_checks(results))[STATUS].metadata["partitions_not_filled"].value == "2026-01-02"


def test_a_partition_that_was_filled_before_counts():
    results = feed(for_partitions("2026-01-01", "2026-01-02", known=("2026-01-02",)), executed(DAY))

    assert whole(results)


def test_a_model_that_failed_has_the_partitions_that_it_filled_before():
    results = feed(for_partitions("2026-01-01", "2026-01-02"), FAILED)

    assert not whole(results)
    assert plain(results) == ["2026-01-01"]
    assert by_name(results_of_checks(results))[STATUS].metadata["status"].value == "failed"


def test_a_partition_that_is_up_to_date_says_what_does_it_again():
    skipped = ModelSkipped(model=FQN, reason="up_to_date", detail="Nothing to do.")

    (check,) = feed(for_partitions("2026-01-01"), skipped)

    assert check.description.endswith("without a restatement: `sqlmesh plan --restate-model`.")


def results_of_checks(results) -> list[dg.AssetCheckResult]:
    return [result for result in results if isinstance(result, dg.AssetCheckResult)]


def test_the_moment_that_a_run_brings_models_up_to_is_on_record_unless_the_run_is_limited():
    moment = datetime(2026, 1, 3, 6, 30, tzinfo=timezone.utc)

    (result,) = feed(make_mapper(as_of=moment), EXECUTED)
    (limited,) = feed(make_mapper(as_of=None), EXECUTED)

    status = by_name(result.check_results)[STATUS]
    assert status.metadata["as_of"] == dg.MetadataValue.timestamp(moment)
    assert "as_of" not in by_name(limited.check_results)[STATUS].metadata


@pytest.mark.parametrize(
    ("reason", "passed"), [("cron_not_due", True), ("up_to_date", True), ("upstream_failed", False)]
)
def test_a_skip_because_nothing_was_to_do_can_pass_and_no_other(reason, passed):
    skipped = ModelSkipped(model=FQN, reason=reason, detail="Later.")

    (check,) = feed(make_mapper(skips_pass=True), skipped)

    assert check.passed is passed


def test_a_model_that_its_audits_fail_says_which_and_on_how_many_rows_and_no_traceback(mapper):
    error = ErrorInfo(
        error_class="sqlmesh.utils.errors.NodeAuditsErrors",
        message="Audits failed: not_null",
        category="audit",
        transient=False,
        traceback="Traceback …",
    )

    results = feed(mapper, audit(rows=1200), replace(FAILED, error=error, failed_audits=("not_null",)))

    status = by_name(results)[STATUS]
    assert status.description == "Audit failed: not_null (1,200 rows)."
    assert not {"error_class", "traceback"} & status.metadata.keys()
    assert mapper.failures[FQN].message == status.description


def test_a_skipped_model_names_what_blocks_it_as_people_write_it(mapper):
    blocked = ModelSkipped(
        model=FQN,
        reason="upstream_failed",
        detail='Upstream "db"."s"."up" failed.',
        blocked_by=('"db"."s"."up"',),
    )

    (check,) = feed(mapper, blocked)

    assert check.description == "Skipped. Upstream db.s.up failed."
    assert check.metadata["blocked_by"].value == "db.s.up"


@pytest.mark.parametrize(
    "event", [FAILED, replace(SKIPPED, reason="interrupted")], ids=["failed", "interrupted"]
)
def test_a_model_that_is_still_due_was_brought_up_to_no_moment(event):
    results = feed(make_mapper(as_of=datetime(2026, 1, 3, tzinfo=timezone.utc)), event)

    assert "as_of" not in by_name(results)[STATUS].metadata


def test_the_intervals_that_an_audit_passed_on_are_shown_as_few_as_possible(mapper):
    (result,) = feed(
        mapper, replace(audit(rows=0), interval=NEXT_DAY), replace(audit(rows=0), interval=DAY), EXECUTED
    )

    check = by_name(result.check_results)["not_null"]
    assert check.metadata["intervals"].value == "2026-01-01 to 2026-01-03"


def test_the_most_wanted_facts_of_a_materialization_come_first_and_its_name_last(mapper):
    (result,) = feed(mapper, EXECUTED)

    names = list(result.metadata)
    assert names[:3] == ["intervals", "batches", "duration_seconds"]
    assert names[-1] == "sqlmesh/model"
