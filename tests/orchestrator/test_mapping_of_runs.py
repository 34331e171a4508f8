"""What the whole of a run comes to: what a materialization says, the digest's last word, standalone audits, runs that broke off."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import pytest

from dagster_sqlmesh_pipes.compat import NO_EVENT
from dagster_sqlmesh_pipes.mapping import ResultMapper
from dagster_sqlmesh_pipes.partitions import PartitionedRun
from dagster_sqlmesh_pipes.recovery import Recovered
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
    RunStarted,
    RunStatus,
    Storage,
    Versions,
)

A, B, EXTERNAL = '"db"."s"."a"', '"db"."s"."b"', '"db"."s"."external"'
KEY_A, KEY_B = dg.AssetKey(["db", "s", "a"]), dg.AssetKey(["db", "s", "b"])
STATUS = "sqlmesh_execution_status"
AUDITS = ("not_null", "unique_values")
ALONE = "alone"
DAY = Interval(start="2026-01-01T00:00:00Z", end="2026-01-02T00:00:00Z")
NEXT_DAY = Interval(start="2026-01-02T00:00:00Z", end="2026-01-03T00:00:00Z")
MOMENT = datetime(2026, 1, 3, 6, 30, tzinfo=timezone.utc)
WHY = "The runner died."
ERROR = ErrorInfo(error_class="duckdb.Error", message="no such column", category="sql", transient=False)
BY_AUDIT = replace(
    ERROR, category="audit", message="Audits failed", error_class="NodeAuditsErrors", traceback="t"
)
STORAGE = Storage(
    kind="FULL",
    snapshot_id="1234",
    version="5678",
    physical_table="sqlmesh__s.s__a__5678",
    view="db.s.a",
    data_version="9abc",
)
EXECUTED = ModelExecuted(model=A, intervals=(DAY,), batches=1, duration_ms=1500)
FAILED = ModelFailed(
    model=A, error=ERROR, interval=None, failed_audits=(), intervals=(), batches=0, duration_ms=None
)
SKIPPED = ModelSkipped(model=A, reason="cron_not_due", detail="Later.")
DONE_A = ModelOutcome(model=A, status="executed", intervals=(DAY,))
DONE_B = replace(DONE_A, model=B)
EVERY_CHECK = {dg.AssetCheckKey(key, name) for key in (KEY_A, KEY_B) for name in (STATUS, *AUDITS, ALONE)}


def make_mapper(**changes: Any) -> ResultMapper:
    index = SpecIndex(
        keys={A: KEY_A, B: KEY_B},
        checks={(fqn, name): name for fqn in (A, B) for name in AUDITS},
        standalone={"alone": [(KEY_A, ALONE), (KEY_B, ALONE)]},
        lineage={A: "lineage of a"},
    )
    return ResultMapper(
        **{"index": index, "selected_keys": {KEY_A, KEY_B}, "selected_checks": EVERY_CHECK, **changes}
    )


@pytest.fixture
def mapper() -> ResultMapper:
    return make_mapper()


def audit(name: str = "not_null", rows: int | None = 0, **changes: Any) -> AuditEvaluated:
    evaluation = AuditEvaluated(
        model=A,
        audit=name,
        name=name,
        arguments={},
        blocking=True,
        skipped=rows is None,
        passed=rows == 0,
        failing_rows=rows,
        query=None if rows is None else "SELECT 1",
        dialect="duckdb",
        interval=DAY,
    )
    return replace(evaluation, **changes)


def alone(rows: int = 0, **changes: Any) -> AuditEvaluated:
    return audit("alone", rows, **{"model": "alone", "standalone": True, "targets": (A, B), **changes})


def outcome_of(name: str = "not_null", rows: int | None = 0, *, blocking: bool = True) -> AuditOutcome:
    return AuditOutcome(
        audit=name, skipped=rows is None, passed=rows == 0, blocking=blocking, failing_rows=rows
    )


def finished(*outcomes: ModelOutcome, status: RunStatus = "success") -> RunFinished:
    counts = Counts(
        selected=1, executed=0, failed=0, skipped=0, audits_passed=0, audits_failed=0, audits_skipped=0
    )
    return RunFinished(
        status=status, exit_code=0, counts=counts, duration_ms=1, last_seq=9, digest=tuple(outcomes)
    )


def feed(mapper: ResultMapper, *events: Any) -> list[Any]:
    return [result for event in events for result in mapper.results(event)]


def plain(metadata: Any) -> dict[str, Any]:
    """Metadata without Dagster's classes around the values."""
    return {key: getattr(value, "value", value) for key, value in metadata.items()}


def checks_in(results: list[Any]) -> dict[tuple[str, str], dg.AssetCheckResult]:
    """By asset and name, of materializations as well; each may be there once."""
    found: dict[tuple[str, str], dg.AssetCheckResult] = {}
    for result in results:
        checks = (
            [result] if isinstance(result, dg.AssetCheckResult) else getattr(result, "check_results", None)
        )
        for check in checks or ():
            key = (check.asset_key.path[-1], check.check_name)
            assert key not in found
            found[key] = check
    return found


def statuses(results: list[Any]) -> dict[str, str]:
    """By asset: what its ``sqlmesh_execution_status`` says."""
    return {
        asset: plain(check.metadata)["status"]
        for (asset, name), check in checks_in(results).items()
        if name == STATUS
    }


def materialized(results: list[Any]) -> list[str]:
    return [
        result.asset_key.path[-1]
        for result in results
        if isinstance(result, dg.MaterializeResult) and result.metadata != NO_EVENT
    ]


# What a materialization says


def test_a_materialization_says_all_that_the_runner_told_in_this_order(mapper: ResultMapper) -> None:
    started = RunStarted(
        environment="prod",
        gateway=None,
        versions=Versions(runner="1", sqlmesh="1", python="3"),
        selection=None,
        models_deployed=2,
        models_selected=2,
        start=None,
        end=None,
        execution_time=None,
        ignore_cron=False,
        correlation_id="run 1",
    )
    event = replace(EXECUTED, rows=7, bytes=100, storage=STORAGE, restated_for=(B, '"db"."S t"."c"'))

    (result,) = feed(mapper, started, event)

    assert list(result.metadata.items()) == [
        ("intervals", "2026-01-01 to 2026-01-02"),
        ("batches", 1),
        ("duration_seconds", 1.5),
        ("rows_processed", 7),
        ("bytes_processed", 100),
        ("restated_for", 'db.s.b, db."S t".c'),
        ("dagster/table_name", "db.s.a"),
        ("dagster/row_count", 7),
        ("physical_table", "sqlmesh__s.s__a__5678"),
        ("snapshot_version", "5678"),
        ("snapshot_id", "1234"),
        ("sqlmesh_correlation_id", "run 1"),
        ("dagster/column_lineage", "lineage of a"),
        ("sqlmesh/model", A),
    ]
    assert result.data_version == dg.DataVersion("9abc")
    status = checks_in([result])["a", STATUS]
    assert (status.passed, status.severity) == (True, dg.AssetCheckSeverity.WARN)
    assert status.description == "SQLMesh ran the model."
    assert plain(status.metadata) == {"status": "executed"}


def test_a_materialization_says_nothing_of_what_the_runner_did_not_tell(mapper: ResultMapper) -> None:
    (result,) = feed(mapper, replace(EXECUTED, model=B))

    assert result.metadata == {
        "intervals": "2026-01-01 to 2026-01-02",
        "batches": 1,
        "duration_seconds": 1.5,
        "sqlmesh/model": B,
    }
    assert result.data_version is None


@pytest.mark.parametrize(
    ("kind", "batches", "rows", "counted"),
    [
        ("FULL", 1, 7, True),
        ("FULL", 1, 0, True),
        ("FULL", 1, None, False),
        ("FULL", 2, 7, False),
        ("VIEW", 1, 7, False),
        ("INCREMENTAL_BY_TIME_RANGE", 1, 7, False),
    ],
)
def test_rows_processed_are_the_rows_of_the_table_only_where_one_batch_wrote_it_whole(
    mapper: ResultMapper, kind: str, batches: int, rows: int | None, counted: bool
) -> None:
    (result,) = feed(
        mapper, replace(EXECUTED, storage=replace(STORAGE, kind=kind), batches=batches, rows=rows)
    )

    assert ("dagster/row_count" in result.metadata) is counted


# What a check says


def test_a_failure_says_all_that_is_known_of_it(mapper: ResultMapper) -> None:
    error = replace(ERROR, traceback="Traceback\nline", transient=True)
    event = replace(
        FAILED, error=error, interval=NEXT_DAY, intervals=(DAY,), failed_audits=("not_null", "other")
    )

    (check,) = feed(mapper, event)

    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert check.description == "no such column"
    assert plain(check.metadata) == {
        "status": "failed",
        "message": "no such column",
        "reason": "sql",
        "transient": True,
        "error_class": "duckdb.Error",
        "failed_interval": "2026-01-02 to 2026-01-03",
        "intervals_done": "2026-01-01 to 2026-01-02",
        "failed_audits": "not_null, other",
        "traceback": "```\nTraceback\nline\n```",
    }


def test_a_failure_of_which_little_is_known_says_little(mapper: ResultMapper) -> None:
    (check,) = feed(mapper, replace(FAILED, error=replace(ERROR, error_class="")))

    assert plain(check.metadata) == {
        "status": "failed",
        "message": "no such column",
        "reason": "sql",
        "transient": False,
    }


def test_a_failure_by_audits_names_each_with_the_rows_of_all_its_batches(mapper: ResultMapper) -> None:
    event = replace(FAILED, error=BY_AUDIT, failed_audits=("not_null", "untold", "unique_values"))

    results = feed(
        mapper,
        audit(rows=2),
        audit(rows=1, interval=NEXT_DAY),
        audit("unique_values", rows=1),
        event,
    )

    status = checks_in(results)["a", STATUS]
    assert status.description == "Audits failed: not_null (3 rows), untold, unique_values (1 row)."
    assert mapper.failures == {
        A: replace(BY_AUDIT, error_class="", message=status.description, traceback=None)
    }


@pytest.mark.parametrize(
    "event",
    [
        replace(FAILED, error=BY_AUDIT),
        replace(FAILED, error=replace(BY_AUDIT, category="sql"), failed_audits=("not_null",)),
    ],
    ids=["no audit is named", "of another kind"],
)
def test_any_other_failure_speaks_with_its_own_words(mapper: ResultMapper, event: ModelFailed) -> None:
    (check,) = feed(mapper, event)

    assert check.description == "Audits failed"
    assert plain(check.metadata)["traceback"] == "```\nt\n```"


def test_an_audit_that_passed_says_what_it_looked_at(mapper: ResultMapper) -> None:
    (result,) = feed(mapper, audit(arguments={"column": "id", "least": "0"}, blocking=False), EXECUTED)

    check = checks_in([result])["a", "not_null"]
    assert (check.passed, check.description) == (True, None)
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert plain(check.metadata) == {
        "failing_rows": 0,
        "blocking": False,
        "arguments": "column := id, least := 0",
        "query": "```sql\nSELECT 1\n```",
        "intervals": "2026-01-01 to 2026-01-02",
    }


def test_an_audit_that_failed_on_some_batches_shows_the_first_of_them_and_counts_all_rows(
    mapper: ResultMapper,
) -> None:
    third = Interval(start="2026-01-03T00:00:00Z", end="2026-01-04T00:00:00Z")

    (result,) = feed(
        mapper,
        audit(rows=0, query="first"),
        audit(rows=2, query="second", interval=NEXT_DAY),
        audit(rows=3, query="third", interval=third),
        EXECUTED,
    )

    check = checks_in([result])["a", "not_null"]
    assert (check.passed, check.description) == (False, "5 rows failed.")
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert plain(check.metadata) == {
        "failing_rows": 5,
        "blocking": True,
        "query": "```sql\nsecond\n```",
        "failed_intervals": "2026-01-02 to 2026-01-03, 2026-01-03 to 2026-01-04",
    }


def test_an_audit_that_was_skipped_on_some_batches_speaks_of_the_others(mapper: ResultMapper) -> None:
    (result,) = feed(mapper, audit(rows=None), audit(rows=0, interval=NEXT_DAY), EXECUTED)

    check = checks_in([result])["a", "not_null"]
    assert check.passed
    assert plain(check.metadata)["intervals"] == "2026-01-02 to 2026-01-03"


def test_an_audit_without_an_interval_names_none(mapper: ResultMapper) -> None:
    (result,) = feed(mapper, audit(rows=1, interval=None), EXECUTED)

    assert plain(checks_in([result])["a", "not_null"].metadata).keys() == {
        "failing_rows",
        "blocking",
        "query",
    }


def test_audits_of_a_skipped_model_that_did_run_have_their_results(mapper: ResultMapper) -> None:
    assert checks_in(feed(mapper, audit(rows=1), SKIPPED)).keys() == {("a", STATUS), ("a", "not_null")}


# What Dagster did not select, and what it has already


def test_all_is_told_where_somebody_else_records_it() -> None:
    mapper = make_mapper(selected_keys={KEY_A}, selected_checks=set(), tell_all=True)

    results = feed(mapper, audit(), EXECUTED, audit(model=B), replace(EXECUTED, model=B))

    assert materialized(results) == ["a", "b"]
    assert checks_in(results).keys() == {("b", STATUS), ("b", "not_null")}


def test_only_the_selected_assets_are_told_otherwise() -> None:
    results = feed(make_mapper(selected_keys={KEY_A}), EXECUTED, replace(EXECUTED, model=B))

    assert materialized(results) == ["a"]


@pytest.mark.parametrize("reason", ["up_to_date", "cron_not_due"])
def test_an_asset_that_other_steps_wait_for_has_an_output_though_nothing_was_to_do(reason: Any) -> None:
    results = feed(make_mapper(awaited={KEY_A}), replace(SKIPPED, reason=reason))

    assert statuses(results) == {"a": "skipped"}
    assert [result for result in results if isinstance(result, dg.MaterializeResult)] == [
        dg.MaterializeResult(asset_key=KEY_A, metadata=NO_EVENT)
    ]


@pytest.mark.parametrize("reason", ["upstream_failed", "signal_not_ready", "interrupted", "not_deployed"])
def test_other_steps_do_not_go_on_from_a_model_that_ought_to_have_run(reason: Any) -> None:
    results = feed(make_mapper(awaited={KEY_A}), replace(SKIPPED, reason=reason))

    assert [type(result).__name__ for result in results] == ["CheckResult"]


def test_other_steps_go_on_from_what_an_earlier_attempt_has_done() -> None:
    mapper = make_mapper(awaited={KEY_B}, read_elsewhere={KEY_A}, already_materialized={KEY_A, KEY_B})

    assert feed(mapper, SKIPPED, replace(SKIPPED, model=B)) == [
        dg.MaterializeResult(asset_key=KEY_A, metadata=NO_EVENT)
    ]


def test_what_an_earlier_attempt_has_done_is_told_if_it_is_done_again() -> None:
    assert materialized(feed(make_mapper(already_materialized={KEY_A}), EXECUTED)) == ["a"]


@pytest.mark.parametrize("reason", ["up_to_date", "cron_not_due"])
@pytest.mark.parametrize("skips_pass", [True, False])
def test_a_skip_passes_only_if_it_is_to(reason: Any, skips_pass: bool) -> None:
    (check,) = feed(make_mapper(skips_pass=skips_pass), replace(SKIPPED, reason=reason))

    assert check.passed is skips_pass


@pytest.mark.parametrize(
    ("reason", "is_told"),
    [
        ("up_to_date", True),
        ("cron_not_due", True),
        ("not_deployed", True),
        ("not_runnable", True),
        ("upstream_failed", False),
        ("signal_not_ready", False),
        ("interrupted", False),
    ],
)
def test_a_skip_says_up_to_when_the_model_is_brought_unless_it_is_still_due(
    reason: Any, is_told: bool
) -> None:
    (check,) = feed(make_mapper(as_of=MOMENT), replace(SKIPPED, reason=reason))

    assert (check.metadata.get("as_of") == dg.MetadataValue.timestamp(MOMENT)) is is_told
    assert ("as_of" in check.metadata) is is_told


def test_only_a_partitioned_model_that_is_up_to_date_says_how_it_is_done_again(mapper: ResultMapper) -> None:
    (up_to_date,) = feed(mapper, replace(SKIPPED, reason="up_to_date"))
    (not_due,) = feed(for_days("2026-01-01"), SKIPPED)

    assert up_to_date.description == not_due.description == "Skipped. Later."


def test_a_run_that_began_earlier_brings_models_up_to_then() -> None:
    mapper, limited = make_mapper(as_of=datetime(2026, 1, 9, tzinfo=timezone.utc)), make_mapper()
    mapper.began_at(MOMENT)
    limited.began_at(MOMENT)

    assert checks_in(feed(mapper, EXECUTED))["a", STATUS].metadata["as_of"] == dg.MetadataValue.timestamp(
        MOMENT
    )
    assert "as_of" not in checks_in(feed(limited, EXECUTED))["a", STATUS].metadata


def test_a_models_asset_is_known_selected_or_not() -> None:
    mapper = make_mapper(selected_keys=set())

    assert (mapper.key_of(A), mapper.key_of(EXTERNAL)) == (KEY_A, None)


def test_a_failure_without_an_asset_is_kept_for_the_steps_failure(mapper: ResultMapper) -> None:
    assert feed(mapper, replace(FAILED, model=EXTERNAL)) == []
    assert mapper.failures == {EXTERNAL: ERROR}
    assert mapper.unknown == {}


def test_only_an_embedded_model_is_skipped_without_a_word(mapper: ResultMapper) -> None:
    feed(mapper, replace(SKIPPED, model=EXTERNAL, reason="not_runnable"))
    assert mapper.unknown == {}

    feed(mapper, replace(SKIPPED, model=EXTERNAL))
    assert list(mapper.unknown) == [EXTERNAL]


# The digest


@pytest.mark.parametrize("status", ["success", "nothing_to_do", "failed"])
def test_a_model_that_the_environment_does_not_have_is_told_at_the_end(
    mapper: ResultMapper, status: RunStatus
) -> None:
    results = feed(mapper, EXECUTED, finished(DONE_A, status=status))

    assert statuses(results) == {"a": "executed", "b": "skipped"}
    check = checks_in(results)["b", STATUS]
    assert plain(check.metadata)["reason"] == "not_deployed"
    assert check.description == (
        "Skipped. The model is not in the environment: deploy it with `sqlmesh plan`."
    )


@pytest.mark.parametrize("status", ["interrupted", "error"])
def test_of_a_run_that_broke_off_nobody_knows_what_is_deployed(
    mapper: ResultMapper, status: RunStatus
) -> None:
    assert feed(mapper, finished(status=status)) == []


def test_models_that_were_told_or_are_not_selected_are_not_looked_for() -> None:
    mapper = make_mapper(selected_keys={KEY_A})

    assert statuses(feed(mapper, EXECUTED, finished())) == {"a": "executed"}


def test_what_the_digest_says_of_a_strange_model_is_said_once(mapper: ResultMapper) -> None:
    strange = replace(EXECUTED, model=EXTERNAL)

    assert feed(mapper, strange, finished(replace(DONE_A, model=EXTERNAL), DONE_A, DONE_B)) == feed(
        make_mapper(), finished(DONE_A, DONE_B)
    )
    assert list(mapper.unknown) == [EXTERNAL]


def test_a_strange_model_that_failed_after_it_ran_is_a_failure_of_the_step(mapper: ResultMapper) -> None:
    strange = replace(EXECUTED, model=EXTERNAL)

    feed(
        mapper, strange, finished(ModelOutcome(model=EXTERNAL, status="failed", error=ERROR), DONE_A, DONE_B)
    )

    assert mapper.failures == {EXTERNAL: ERROR}


def test_an_execution_that_was_lost_is_told_with_what_the_digest_has(mapper: ResultMapper) -> None:
    (result, _) = feed(mapper, finished(replace(DONE_A, intervals=(DAY, NEXT_DAY)), DONE_B))

    assert plain(result.metadata) == {
        "intervals": "2026-01-01 to 2026-01-02, 2026-01-02 to 2026-01-03",
        "batches": 2,
        "duration_seconds": 0,
        "dagster/column_lineage": "lineage of a",
        "sqlmesh/model": A,
    }


def test_a_failure_that_was_lost_is_told_with_the_blocking_audits_that_failed(mapper: ResultMapper) -> None:
    audits = (
        outcome_of("not_null", 2),
        outcome_of("unique_values", 2, blocking=False),
        outcome_of("passed", 0),
        outcome_of("skipped", None),
    )

    results = feed(
        mapper,
        finished(
            ModelOutcome(model=A, status="failed", intervals=(DAY,), audits=audits, error=ERROR), DONE_B
        ),
    )

    status = plain(checks_in(results)["a", STATUS].metadata)
    assert status["failed_audits"] == "not_null"
    assert status["intervals_done"] == "2026-01-01 to 2026-01-02"
    assert "failed_interval" not in status
    assert mapper.failures == {A: ERROR}


def test_a_failure_of_which_the_digest_does_not_know_why_says_so(mapper: ResultMapper) -> None:
    results = feed(mapper, finished(ModelOutcome(model=A, status="failed"), DONE_B))

    check = checks_in(results)["a", STATUS]
    assert check.description == "The runner did not say why."
    assert (mapper.failures[A].category, mapper.failures[A].transient) == ("internal", False)


@pytest.mark.parametrize(("reason", "told"), [("up_to_date", "up_to_date"), (None, "interrupted")])
def test_a_skip_that_was_lost_is_told_with_its_reason(mapper: ResultMapper, reason: Any, told: str) -> None:
    results = feed(mapper, finished(ModelOutcome(model=A, status="skipped", reason=reason), DONE_B))

    check = checks_in(results)["a", STATUS]
    assert check.description == f"Skipped. Reason: {told}."
    assert plain(check.metadata)["reason"] == told


@pytest.mark.parametrize(
    ("seen", "last_word", "passed"),
    [
        ((), outcome_of(rows=0), True),
        ((), outcome_of(rows=2), False),
        ((), outcome_of(rows=None), None),
        ((audit(rows=0),), outcome_of(rows=2), False),
        ((audit(rows=2),), outcome_of(rows=0), True),
        ((audit(rows=0),), outcome_of(rows=0), True),
        ((audit(rows=2),), outcome_of(rows=2), False),
        ((audit(rows=None),), outcome_of(rows=0), True),
        ((audit(rows=None),), outcome_of(rows=2), False),
        ((audit(rows=0),), outcome_of(rows=None), None),
        ((audit(rows=None),), outcome_of(rows=None), None),
    ],
)
def test_the_digest_has_the_last_word_on_an_audit_whose_model_is_not_told(
    mapper: ResultMapper, seen: tuple[AuditEvaluated, ...], last_word: AuditOutcome, passed: bool | None
) -> None:
    results = feed(mapper, *seen, finished(replace(DONE_A, audits=(last_word,)), DONE_B))

    check = checks_in(results).get(("a", "not_null"))
    assert (check.passed if check else None) is passed


@pytest.mark.parametrize("rows", [0, 2])
def test_an_audit_on_which_all_agree_keeps_its_details(mapper: ResultMapper, rows: int) -> None:
    results = feed(
        mapper, audit(rows=rows), finished(replace(DONE_A, audits=(outcome_of(rows=rows),)), DONE_B)
    )

    assert "query" in checks_in(results)["a", "not_null"].metadata


def test_an_audit_whose_event_was_lost_has_its_result_after_the_models(mapper: ResultMapper) -> None:
    results = feed(
        mapper,
        audit(rows=0),
        EXECUTED,
        finished(
            replace(DONE_A, audits=(outcome_of(rows=0), outcome_of("unique_values", 2, blocking=False))),
            DONE_B,
        ),
    )

    assert not checks_in(results)["a", "unique_values"].passed
    assert mapper.corrections == []


@pytest.mark.parametrize(("first", "then"), [(0, 2), (2, 0)])
def test_a_result_that_is_out_and_wrong_is_corrected(mapper: ResultMapper, first: int, then: int) -> None:
    results = feed(
        mapper,
        audit(rows=first),
        EXECUTED,
        finished(replace(DONE_A, audits=(outcome_of(rows=then),)), DONE_B),
    )

    assert checks_in(results)["a", "not_null"].passed is (first == 0)
    assert [(each.check_name, each.passed) for each in mapper.corrections] == [("not_null", then == 0)]


def test_a_model_that_failed_after_it_was_told_is_a_failure_of_the_step(mapper: ResultMapper) -> None:
    results = feed(mapper, EXECUTED, finished(ModelOutcome(model=A, status="failed", error=ERROR), DONE_B))

    assert statuses(results) == {"a": "executed", "b": "executed"}
    assert mapper.failures == {A: ERROR}


def test_a_failure_keeps_the_words_that_were_told_first(mapper: ResultMapper) -> None:
    later = replace(ERROR, message="another")

    feed(mapper, FAILED, finished(ModelOutcome(model=A, status="failed", error=later), DONE_B))

    assert mapper.failures == {A: ERROR}


def test_a_failure_told_late_and_without_words_is_one_all_the_same(mapper: ResultMapper) -> None:
    feed(mapper, EXECUTED, finished(ModelOutcome(model=A, status="failed"), DONE_B))

    assert mapper.failures[A].message == "The runner did not say why."


def test_a_model_that_failed_and_ran_after_a_restart_is_materialized_and_no_failure(
    mapper: ResultMapper,
) -> None:
    results = feed(mapper, FAILED, finished(DONE_A, DONE_B))

    assert materialized(results) == ["a", "b"]
    assert plain(results[1].metadata) == {"intervals": "2026-01-01 to 2026-01-02", "sqlmesh/model": A}
    assert mapper.failures == {}


def test_a_model_that_ran_is_not_materialized_twice_for_a_failure_that_was_none(mapper: ResultMapper) -> None:
    results = feed(mapper, EXECUTED, FAILED, finished(DONE_A, DONE_B))

    assert materialized(results) == ["a", "b"]
    assert mapper.failures == {}


def test_a_model_that_failed_and_was_skipped_after_a_restart_stays_a_failure(mapper: ResultMapper) -> None:
    results = feed(
        mapper, FAILED, finished(ModelOutcome(model=A, status="skipped", reason="up_to_date"), DONE_B)
    )

    assert materialized(results) == ["b"]
    assert mapper.failures == {A: ERROR}


def test_what_an_audit_says_of_another_interval_after_a_restart_takes_the_place_of_all_before(
    mapper: ResultMapper,
) -> None:
    feed(
        mapper,
        audit(rows=2),
        EXECUTED,
        audit(rows=0, interval=NEXT_DAY),
        finished(replace(DONE_A, audits=(outcome_of(rows=0),)), DONE_B),
    )

    (correction,) = mapper.corrections
    assert plain(correction.metadata)["intervals"] == "2026-01-02 to 2026-01-03"


# Standalone audits


@pytest.mark.parametrize(("rows", "passed"), [(0, True), (2, False)])
def test_a_standalone_audit_is_a_check_on_each_model_that_it_reads_when_the_run_is_over(
    mapper: ResultMapper, rows: int, passed: bool
) -> None:
    assert feed(mapper, alone(rows)) == []

    results = feed(mapper, finished(DONE_A, DONE_B))

    checks = checks_in(results)
    assert {asset: check.passed for (asset, name), check in checks.items() if name == ALONE} == {
        "a": passed,
        "b": passed,
    }
    assert mapper.unknown == {}


def test_a_standalone_audit_is_a_check_only_where_that_was_asked_for() -> None:
    mapper = make_mapper(selected_checks={dg.AssetCheckKey(KEY_B, ALONE)})

    assert checks_in(feed(mapper, alone(), finished(DONE_A, DONE_B))).keys() == {("b", ALONE)}


def test_a_standalone_audit_that_was_skipped_has_no_result(mapper: ResultMapper) -> None:
    skipped = alone(skipped=True, passed=False, failing_rows=None, query=None)

    results = feed(mapper, skipped, alone(1, model="other", audit="other"), finished(DONE_A, DONE_B))

    assert {name for _, name in checks_in(results)} == {STATUS}


@pytest.mark.parametrize(("targets", "unknown"), [((EXTERNAL, B), ["new"]), ((EXTERNAL,), []), ((), [])])
def test_a_standalone_audit_without_a_check_is_strange_if_it_reads_a_model_of_ours(
    mapper: ResultMapper, targets: tuple[str, ...], unknown: list[str]
) -> None:
    feed(mapper, alone(model="new", audit="new", targets=targets), alone(), finished(DONE_A, DONE_B))

    assert list(mapper.unknown) == unknown


def test_a_models_own_audit_is_no_standalone_one(mapper: ResultMapper) -> None:
    results = feed(mapper, audit("alone"), EXECUTED, alone(1), finished(DONE_A, DONE_B))

    assert {key for key in checks_in(results) if key[1] == ALONE} == {("a", ALONE), ("b", ALONE)}
    assert list(mapper.unknown) == [f"{A}: alone"]


# Partitions


DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", timezone="UTC")


def for_days(*asked: str, known: tuple[str, ...] = (), **changes: Any) -> ResultMapper:
    return make_mapper(partitions=PartitionedRun(DAYS, asked, lambda key: known), **changes)


def partitions(results: list[Any]) -> list[tuple[str | None, dict[str, Any]]]:
    return [
        (result.partition, plain(result.metadata))
        for result in results
        if isinstance(result, dg.AssetMaterialization)
    ]


def test_where_partitions_are_missing_those_that_are_there_are_told_with_the_checks() -> None:
    results = feed(for_days("2026-01-01", "2026-01-02", "2026-01-03"), audit(), EXECUTED)

    ((partition, metadata),) = partitions(results)
    assert (partition, metadata["sqlmesh/model"], metadata["batches"]) == ("2026-01-01", A, 1)
    assert materialized(results) == []
    checks = checks_in(results)
    assert checks.keys() == {("a", STATUS), ("a", "not_null")}
    assert plain(checks["a", STATUS].metadata)["partitions_not_filled"] == "2026-01-02, 2026-01-03"


def test_a_failure_tells_of_the_partitions_that_are_filled_and_with_which_interval() -> None:
    results = feed(for_days("2026-01-01"), replace(FAILED, intervals=(DAY,)))

    assert partitions(results) == [
        ("2026-01-01", {"intervals": "2026-01-01 to 2026-01-02", "sqlmesh/model": A})
    ]
    assert statuses(results) == {"a": "failed"}


# Runs that broke off


def left(**changes: Any) -> Recovered:
    return Recovered(
        **{"model": A, "intervals": (DAY, NEXT_DAY), "is_complete": True, "has_begun": True, **changes}
    )


def test_a_model_that_the_state_has_as_done_is_materialized_and_says_who_told(mapper: ResultMapper) -> None:
    (result,) = mapper.recovered(left(), WHY)

    assert isinstance(result, dg.MaterializeResult)
    assert result.asset_key == KEY_A
    assert plain(result.metadata) == {
        "intervals": "2026-01-01 to 2026-01-02, 2026-01-02 to 2026-01-03",
        "told_by": "SQLMesh's state",
        "sqlmesh/model": A,
    }
    status = checks_in([result])["a", STATUS]
    assert status.passed
    assert status.description == "SQLMesh has recorded the model as done. The runner died."


def test_a_model_that_had_begun_failed_and_may_be_tried_again(mapper: ResultMapper) -> None:
    results = list(mapper.recovered(left(is_complete=False), WHY))

    status = checks_in(results)["a", STATUS]
    assert plain(status.metadata) == {
        "status": "failed",
        "message": WHY,
        "reason": "cancelled",
        "transient": True,
        "intervals_done": "2026-01-01 to 2026-01-02, 2026-01-02 to 2026-01-03",
    }
    assert mapper.failures == {
        A: ErrorInfo(error_class="", message=WHY, category="cancelled", transient=True)
    }


def test_a_model_that_had_not_begun_was_interrupted(mapper: ResultMapper) -> None:
    results = list(mapper.recovered(left(is_complete=False, has_begun=False, intervals=()), WHY))

    status = checks_in(results)["a", STATUS]
    assert status.description == "Skipped. The runner died."
    assert (plain(status.metadata)["status"], plain(status.metadata)["reason"]) == ("skipped", "interrupted")
    assert mapper.failures == {}


def test_what_was_told_is_not_told_again_by_the_state(mapper: ResultMapper) -> None:
    feed(mapper, EXECUTED)

    assert list(mapper.recovered(left(), WHY)) == []


def test_selected_models_of_which_nothing_is_told_were_interrupted() -> None:
    mapper = make_mapper(selected_keys={KEY_A})
    results = list(mapper.untold(WHY))

    assert statuses(results) == {"a": "skipped"}
    assert plain(checks_in(results)["a", STATUS].metadata)["reason"] == "interrupted"
    assert checks_in(results)["a", STATUS].description == "Skipped. The runner died."


def test_models_that_are_told_or_of_which_nobody_knows_are_not_called_interrupted(
    mapper: ResultMapper,
) -> None:
    feed(mapper, EXECUTED)

    assert list(mapper.untold(WHY, [B])) == []
    assert statuses(list(mapper.untold(WHY))) == {"b": "skipped"}


@pytest.mark.parametrize(
    ("is_same_work", "is_complete", "told"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_what_an_earlier_run_has_done_counts_as_done_where_this_one_goes_on_with_it(
    is_same_work: bool, is_complete: bool, told: bool
) -> None:
    mapper = make_mapper(as_of=MOMENT)

    found = list(mapper.recovered_of_earlier_run(left(is_complete=is_complete), is_same_work=is_same_work))

    assert partitions(found) == [
        (
            None,
            {
                "intervals": "2026-01-01 to 2026-01-02, 2026-01-02 to 2026-01-03",
                "told_by": "SQLMesh's state",
                "sqlmesh/model": A,
            },
        )
    ]
    checks = [each for each in found if isinstance(each, dg.AssetCheckResult)]
    assert [each.check_name for each in checks] == [STATUS] * told
    for check in checks:
        assert (check.passed, plain(check.metadata)) == (
            True,
            {"status": "executed", "as_of": MOMENT.timestamp()},
        )
        assert check.description == (
            "SQLMesh has recorded the model as done. An earlier attempt's process died before it said so."
        )
    assert (feed(mapper, SKIPPED) == []) is told


def test_an_earlier_runs_model_that_this_one_did_not_select_is_materialized_and_no_more() -> None:
    mapper = make_mapper(selected_keys={KEY_B})

    (found,) = mapper.recovered_of_earlier_run(left(), is_same_work=True)

    assert found.asset_key == KEY_A


def test_an_earlier_runs_partitions_are_materialized_each_by_itself() -> None:
    found = list(for_days("2026-01-01").recovered_of_earlier_run(left(), is_same_work=False))

    assert [partition for partition, _ in partitions(found)] == ["2026-01-01", "2026-01-02"]
    assert {metadata["told_by"] for _, metadata in partitions(found)} == {"SQLMesh's state"}


# Where more than one thing happens


@pytest.mark.parametrize("event", [EXECUTED, FAILED, SKIPPED], ids=["executed", "failed", "skipped"])
@pytest.mark.parametrize("selected", [{KEY_A}, set()], ids=["selected", "not selected"])
def test_where_all_is_told_it_is_told_once(event: Any, selected: set[dg.AssetKey]) -> None:
    mapper = make_mapper(tell_all=True, selected_keys=selected)

    assert list(statuses(feed(mapper, event, event, event))) == ["a"]


def test_a_failure_that_nobody_selected_tells_of_no_partition() -> None:
    mapper = for_days("2026-01-01", selected_keys={KEY_B})

    assert feed(mapper, replace(FAILED, intervals=(DAY,))) == []
    assert mapper.failures == {A: ERROR}


def test_where_all_is_told_only_what_was_selected_is_looked_for_at_the_end() -> None:
    mapper = make_mapper(tell_all=True, selected_keys={KEY_A})
    assert statuses(feed(mapper, finished())) == {"a": "skipped"}

    mapper = make_mapper(tell_all=True, selected_keys={KEY_A})
    assert statuses(list(mapper.untold(WHY))) == {"a": "skipped"}


def test_a_standalone_audit_says_nothing_of_an_asset_that_was_not_selected_unless_all_is_told() -> None:
    only_a = {check for check in EVERY_CHECK if check.asset_key == KEY_A}

    for tell_all, told in ((False, {"a"}), (True, {"a", "b"})):
        mapper = make_mapper(selected_keys={KEY_A}, selected_checks=only_a, tell_all=tell_all)
        results = feed(mapper, alone(), finished(DONE_A, DONE_B))
        assert {asset for asset, name in checks_in(results) if name == ALONE} == told


def test_a_model_names_all_that_block_it(mapper: ResultMapper) -> None:
    (check,) = feed(mapper, replace(SKIPPED, reason="upstream_failed", blocked_by=(B, EXTERNAL)))

    assert plain(check.metadata)["blocked_by"] == "db.s.b, db.s.external"


def test_a_partition_that_is_up_to_date_says_so_and_what_does_it_again() -> None:
    (check,) = feed(
        for_days("2026-01-01"), replace(SKIPPED, reason="up_to_date", detail="Nothing is missing.")
    )

    assert check.description == (
        "Skipped. Nothing is missing. "
        "SQLMesh does not do it again without a restatement: `sqlmesh plan --restate-model`."
    )


def test_a_strange_audit_does_not_keep_the_next_one_from_being_told() -> None:
    for selected in ({KEY_A}, set()):
        mapper = make_mapper(tell_all=True, selected_keys=selected)

        results = feed(mapper, audit("brand_new"), audit(), EXECUTED)

        assert checks_in(results).keys() == {("a", STATUS), ("a", "not_null")}
        assert list(mapper.unknown) == [f"{A}: brand_new"]


def test_the_rows_of_a_failure_are_counted_though_the_audit_was_skipped_on_some_batch(
    mapper: ResultMapper,
) -> None:
    event = replace(FAILED, error=BY_AUDIT, failed_audits=("not_null",))

    results = feed(mapper, audit(rows=None), audit(rows=3, interval=NEXT_DAY), event)

    assert checks_in(results)["a", STATUS].description == "Audit failed: not_null (3 rows)."


def test_an_evaluation_without_an_interval_counts_beside_those_with_one(mapper: ResultMapper) -> None:
    (result,) = feed(mapper, audit(rows=2, interval=None), audit(rows=0), EXECUTED)

    assert not checks_in([result])["a", "not_null"].passed


def test_an_audit_that_passed_on_all_batches_shows_the_last_one(mapper: ResultMapper) -> None:
    (result,) = feed(mapper, audit(query="first"), audit(query="last", interval=NEXT_DAY), EXECUTED)

    assert plain(checks_in([result])["a", "not_null"].metadata)["query"] == "```sql\nlast\n```"


@pytest.mark.parametrize(("last_word", "passed", "has_details"), [(2, False, True), (0, True, False)])
def test_batches_that_differ_are_held_against_the_digest_as_a_whole(
    mapper: ResultMapper, last_word: int, passed: bool, has_details: bool
) -> None:
    digest = replace(DONE_A, audits=(outcome_of(rows=last_word),))

    results = feed(mapper, audit(rows=0), audit(rows=2, interval=NEXT_DAY), finished(digest, DONE_B))

    check = checks_in(results)["a", "not_null"]
    assert check.passed is passed
    assert ("query" in check.metadata) is has_details


def test_an_audit_of_which_only_the_digest_tells_says_no_more_than_that(mapper: ResultMapper) -> None:
    lost = AuditOutcome(audit="not_null", skipped=False, passed=False, blocking=True, failing_rows=None)

    results = feed(mapper, finished(replace(DONE_A, audits=(lost,)), DONE_B))

    check = checks_in(results)["a", "not_null"]
    assert plain(check.metadata) == {"failing_rows": 0, "blocking": True}
    assert not check.passed


def test_after_a_restart_nothing_is_left_of_what_an_audit_of_a_failed_model_said(
    mapper: ResultMapper,
) -> None:
    digest = replace(DONE_A, audits=(outcome_of(rows=0),))

    feed(mapper, audit(rows=2), FAILED, audit(rows=0, interval=NEXT_DAY), finished(digest, DONE_B))

    (correction,) = mapper.corrections
    assert correction.passed
    assert plain(correction.metadata)["intervals"] == "2026-01-02 to 2026-01-03"


@pytest.mark.parametrize("event", [EXECUTED, FAILED], ids=["executed", "failed"])
def test_the_queries_of_a_model_that_is_over_take_no_memory(mapper: ResultMapper, event: Any) -> None:
    tracemalloc.start()
    try:
        for number in range(20):
            day = Interval(start=DAY.start, end=f"2026-02-{number + 1:02}T00:00:00Z")
            feed(mapper, audit(query=f"{number}" + "x" * 100_000, interval=day))
        feed(mapper, event)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 100_000
