"""The wire format, byte for byte: what protocol 1 writes is what protocol 1 has always written.

``UPDATE_GOLDEN=1 pytest tests/protocol/test_golden.py`` rewrites the files. A line that changes, other than by a key
that is added, breaks readers of the same major.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import orjson
import pytest

from sqlmesh_pipes_protocol import Envelope, EventStream, Manifest, decode, encode, frame, load_manifest
from sqlmesh_pipes_protocol import events as declarations
from sqlmesh_pipes_protocol.codec import EVENT_TYPES
from sqlmesh_pipes_protocol.due import DueReport, ModelDue, dump_due_report, read_due_report
from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    AuditOutcome,
    BatchFinished,
    Counts,
    ErrorInfo,
    EvaluationStarted,
    Event,
    FailureCategory,
    Heartbeat,
    Interval,
    Log,
    LogLevel,
    ModelBatches,
    ModelExecuted,
    ModelFailed,
    ModelInFlight,
    ModelOutcome,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunStarted,
    RunStatus,
    SkipReason,
    Storage,
    Timestamp,
    Versions,
)
from sqlmesh_pipes_protocol.manifest import (
    AuditUse,
    Column,
    ColumnSource,
    DeployedModel,
    Deployment,
    ExternalModel,
    Model,
    StandaloneAudit,
    dump_manifest,
)
from sqlmesh_pipes_protocol.reconcile import (
    ModelReconciled,
    ReconcileReport,
    dump_reconcile_report,
    read_reconcile_report,
)

ORDERS = '"warehouse"."shop"."orders"'
REVENUE = '"warehouse"."shop"."revenue \\"net\\" — Umsatz 😀"'
MONDAY = Interval(start=Timestamp("2026-01-05T00:00:00Z"), end=Timestamp("2026-01-06T00:00:00Z"))
TUESDAY = Interval(start=Timestamp("2026-01-06T00:00:00Z"), end=Timestamp("2026-01-07T00:00:00.000000Z"))
VERSIONS = Versions(runner="0.1.0", sqlmesh="0.236.4", python="3.11.7")
COUNTS = Counts(
    selected=20, executed=1, failed=10, skipped=9, audits_passed=4, audits_failed=2, audits_skipped=1
)
ERROR = ErrorInfo(
    error_class="duckdb.duckdb.ParserException",
    message='Parser Error: syntax error at or near "slect"\nLINE 1: slect 1\n        ^',
    category="sql",
    transient=False,
    traceback='Traceback (most recent call last):\n  File "evaluator.py", line 1, in <module>\n',
)
LARGE_MESSAGE = "".join(f'{number}: "é" 😀 \\ \t\n' for number in range(750))


def _digest() -> tuple[ModelOutcome, ...]:
    executed = ModelOutcome(
        model=ORDERS,
        status="executed",
        intervals=(MONDAY, TUESDAY),
        audits=(
            AuditOutcome(audit="not_null_id", skipped=False, passed=True, blocking=True, failing_rows=0),
            AuditOutcome(audit="unique_values", skipped=True, passed=False, blocking=False),
        ),
    )
    skipped = tuple(
        ModelOutcome(model=f'"shop"."{reason}"', status="skipped", reason=reason)
        for reason in get_args(SkipReason)
    )
    failed = tuple(
        ModelOutcome(
            model=f'"shop"."{category}"',
            status="failed",
            error=ErrorInfo(
                error_class="builtins.Exception",
                message=f"failed: {category}",
                category=category,
                transient=category in ("connection", "lock"),
            ),
        )
        for category in get_args(FailureCategory)
    )
    return (executed, *skipped, *failed)


def _run_finished(status: RunStatus, exit_code: int, error: ErrorInfo | None) -> Callable[[int], Event]:
    return lambda seq: RunFinished(
        status=status,
        exit_code=exit_code,
        counts=COUNTS,
        duration_ms=61_250,
        last_seq=seq,
        digest=_digest() if status == "failed" else (),
        error=error,
    )


CASES: dict[str, Event | Callable[[int], Event]] = {
    "run_started": RunStarted(
        environment="prod",
        gateway="warehouse",
        versions=VERSIONS,
        selection=("tag:finance", '+"warehouse"."shop"."orders"'),
        models_deployed=42,
        models_selected=20,
        start="2026-01-01",
        end="1 day ago",
        execution_time="2026-01-07 06:30:00",
        ignore_cron=True,
        correlation_id="SQLMESH_RUN: 1234",
    ),
    "run_started, all left to SQLMesh": RunStarted(
        environment="dev__ü",
        gateway=None,
        versions=VERSIONS,
        selection=None,
        models_deployed=0,
        models_selected=0,
        start=None,
        end=None,
        execution_time=None,
        ignore_cron=False,
    ),
    "evaluation_started": EvaluationStarted(
        attempt=1,
        batches=(
            ModelBatches(model=ORDERS, intervals=(MONDAY, TUESDAY)),
            ModelBatches(model=REVENUE, intervals=()),
        ),
    ),
    "evaluation_started, nothing due": EvaluationStarted(attempt=2, batches=()),
    "model_started": ModelStarted(model=REVENUE, batches=2),
    "batch_finished": BatchFinished(
        model=ORDERS, interval=MONDAY, index=0, total=2, duration_ms=1_500, rows=1_000_000, bytes=2**40
    ),
    "batch_finished, engine reports nothing": BatchFinished(
        model=ORDERS, interval=TUESDAY, index=1, total=2, duration_ms=0
    ),
    "audit_evaluated": AuditEvaluated(
        model=ORDERS,
        audit="not_null_id",
        name="not_null",
        arguments={"columns": "[\"id\", 'ü']", "condition": "a > 1"},
        blocking=True,
        skipped=False,
        passed=False,
        failing_rows=3,
        query='SELECT *\nFROM "orders" WHERE "id" IS NULL',
        dialect="duckdb",
        interval=MONDAY,
    ),
    "audit_evaluated, standalone": AuditEvaluated(
        model="assert_totals",
        audit="assert_totals",
        name="assert_totals",
        arguments={},
        blocking=False,
        skipped=False,
        passed=True,
        failing_rows=0,
        query="SELECT 1",
        dialect="duckdb",
        interval=TUESDAY,
        standalone=True,
        targets=(ORDERS, REVENUE),
    ),
    "audit_evaluated, skipped": AuditEvaluated(
        model=REVENUE,
        audit="number_of_rows",
        name="number_of_rows",
        arguments={"threshold": "10"},
        blocking=False,
        skipped=True,
        passed=False,
        failing_rows=None,
        query=None,
        dialect=None,
        interval=None,
    ),
    "model_executed": ModelExecuted(
        model=ORDERS,
        intervals=(MONDAY, TUESDAY),
        batches=2,
        duration_ms=3_000,
        rows=7,
        bytes=0,
        storage=Storage(
            kind="INCREMENTAL_BY_TIME_RANGE",
            snapshot_id="123456789",
            version="987654321",
            physical_table="warehouse.sqlmesh__shop.shop__orders__987654321",
            view="warehouse.shop.orders",
            data_version="987654321-0123456789ab",
        ),
        restated_for=(REVENUE,),
    ),
    "model_executed, engine reports nothing": ModelExecuted(
        model=REVENUE, intervals=(), batches=0, duration_ms=0
    ),
    "model_failed": ModelFailed(
        model=ORDERS,
        error=ERROR,
        interval=TUESDAY,
        failed_audits=("not_null_id", "unique_values"),
        intervals=(MONDAY,),
        batches=1,
        duration_ms=2_000,
    ),
    "model_failed, before any interval": ModelFailed(
        model=REVENUE,
        error=dataclasses.replace(ERROR, category="timeout", transient=True, traceback=None),
        interval=None,
        failed_audits=(),
        intervals=(),
        batches=0,
        duration_ms=None,
    ),
    **{
        f"model_skipped, {reason}": ModelSkipped(
            model=REVENUE,
            reason=reason,
            detail=f"{reason}, in a sentence.",
            blocked_by=(ORDERS,) if reason == "upstream_failed" else (),
            next_due=Timestamp("2026-01-08T00:00:00.5Z") if reason == "cron_not_due" else None,
        )
        for reason in get_args(SkipReason)
    },
    **{
        f"log, {level}": Log(
            level=level, logger="sqlmesh.core", message='quote " slash \\ nul \0 tab \t é 😀\n'
        )
        for level in get_args(LogLevel)
    },
    "log, in parts": Log(level="info", logger="", message=LARGE_MESSAGE),
    "heartbeat": Heartbeat(models=(ModelInFlight(model=ORDERS, elapsed_ms=10_000),)),
    "heartbeat, idle": Heartbeat(models=()),
    "run_finished, success": _run_finished("success", 0, None),
    "run_finished, nothing_to_do": _run_finished("nothing_to_do", 0, None),
    "run_finished, failed": _run_finished("failed", 1, None),
    "run_finished, interrupted": _run_finished("interrupted", 130, None),
    "run_finished, error": _run_finished("error", 3, dataclasses.replace(ERROR, category="connection")),
}

EXPECTED = {
    name: Envelope(
        run_id="0192-run é",
        seq=seq,
        at=Timestamp(f"2026-01-07T06:30:{seq:02}.000001Z"),
        event=case(seq) if isinstance(case, types.FunctionType) else case,
        v="1.0",
    )
    for seq, (name, case) in enumerate(CASES.items())
}

BARE_MODEL = Model(
    fqn='"scratch"',
    name="scratch",
    catalog=None,
    schema=None,
    table="scratch",
    kind="EMBEDDED",
    source="sql",
    dialect=None,
    cron="@daily",
    cron_tz=None,
    interval_unit="day",
    start=None,
    tags=(),
    owner=None,
    description=None,
    columns=(),
    depends_on=(),
    audits=(),
    partitioned_by=(),
    clustered_by=(),
    grain=(),
    data_hash="0",
    query=None,
    path=None,
)
FULL_MODEL = Model(
    fqn=ORDERS,
    name="shop.orders",
    catalog="warehouse",
    schema="shop",
    table="orders",
    kind="INCREMENTAL_BY_TIME_RANGE",
    source="sql",
    dialect="duckdb",
    cron="0 6 * * *",
    cron_tz="Europe/Berlin",
    interval_unit="hour",
    start="2024-01-01",
    tags=("finance", "a tag with spaces"),
    owner="päul@example.com",
    description='One row an order.\n"Quoted" — 😀',
    columns=(
        Column(
            name="id",
            type="BIGINT",
            description="The key.",
            sources=(
                ColumnSource(model='"lake"."raw"."orders"', column="id"),
                ColumnSource(model='"scratch"', column="x y"),
            ),
        ),
        Column(name="x y", type=None),
    ),
    depends_on=('"scratch"', '"lake"."raw"."orders"'),
    audits=(
        AuditUse(
            audit="not_null_id",
            name="not_null",
            arguments={"columns": "[id]"},
            blocking=True,
            skip=False,
            query="SELECT * FROM @this_model WHERE id IS NULL",
            dialect="duckdb",
        ),
        AuditUse(
            audit="unknown",
            name="unknown",
            arguments={},
            blocking=False,
            skip=True,
            query=None,
            dialect=None,
        ),
    ),
    partitioned_by=("DATE_TRUNC('day', ds)",),
    clustered_by=("id",),
    grain=("id", "ds"),
    data_hash="1234567890",
    query="SELECT 1 AS id",
    path="models/orders.sql",
    time_column="ds",
    project="shop",
    end="2026-12-31",
    metadata_hash="987654321",
)
MANIFEST = Manifest(
    v="1.0",
    created_at=Timestamp("2026-01-07T06:30:00.000001Z"),
    versions=VERSIONS,
    projects=("shop", "shared"),
    gateway="warehouse",
    engine="duckdb",
    default_catalog="warehouse",
    digest="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    models=(BARE_MODEL, FULL_MODEL),
    external_models=(
        ExternalModel(
            fqn='"lake"."raw"."orders"',
            name="lake.raw.orders",
            catalog="lake",
            schema="raw",
            table="orders",
            description="From the shop.",
            columns=(Column(name="id", type="INT"),),
            declared=True,
        ),
        ExternalModel(
            fqn='"nowhere"',
            name="nowhere",
            catalog=None,
            schema=None,
            table="nowhere",
            description=None,
            columns=(),
            declared=False,
        ),
    ),
    standalone_audits=(
        StandaloneAudit(
            name="assert_totals",
            depends_on=(ORDERS,),
            cron="@daily",
            blocking=True,
            skip=False,
            query="SELECT 1",
            dialect="duckdb",
            description="Totals agree.",
            owner="paul",
            tags=("finance",),
        ),
        StandaloneAudit(
            name="bare",
            depends_on=(),
            cron="@hourly",
            blocking=False,
            skip=True,
            query=None,
            dialect=None,
            description=None,
            owner=None,
            tags=(),
        ),
    ),
    deployment=Deployment(
        environment="prod",
        finalized_at=Timestamp("2026-01-06T22:15:00.5Z"),
        models={
            ORDERS: DeployedModel(data_hash="1234567890", metadata_hash="987654321"),
            REVENUE: DeployedModel(data_hash="0", metadata_hash="1"),
        },
    ),
)
BARE_MANIFEST = dataclasses.replace(
    MANIFEST,
    gateway=None,
    default_catalog=None,
    models=(),
    external_models=(),
    standalone_audits=(),
    deployment=None,
)
PLANNED_MANIFEST = dataclasses.replace(
    BARE_MANIFEST, deployment=Deployment(environment="dev__ü", finalized_at=None, models={})
)
MANIFESTS = {
    "manifest-1.json": MANIFEST,
    "manifest-1-empty.json": BARE_MANIFEST,
    "manifest-1-being-planned.json": PLANNED_MANIFEST,
}

DUE = DueReport(
    v="1.0",
    environment="prod",
    execution_time=Timestamp("2026-01-07T06:30:00.000001Z"),
    models=(
        ModelDue(model=ORDERS, intervals=(MONDAY, TUESDAY), next_due=Timestamp("2026-01-08T00:00:00Z")),
        ModelDue(model=REVENUE, intervals=(), next_due=None),
    ),
)

RECONCILED = ReconcileReport(
    v="1.0",
    environment="prod",
    since=Timestamp("2026-01-07T06:30:00.000001Z"),
    run_id="run é 1",
    models=(
        ModelReconciled(
            model=ORDERS,
            recorded=(MONDAY, TUESDAY),
            reported=(MONDAY,),
            missing=(TUESDAY,),
            uncertain=(),
        ),
        ModelReconciled(model=REVENUE, recorded=(), reported=(), missing=(), uncertain=(MONDAY,)),
    ),
)
RECONCILED_REPORTS = {
    "reconcile-1.json": RECONCILED,
    "reconcile-1-since.json": dataclasses.replace(RECONCILED, run_id=None, models=()),
}


@pytest.fixture(scope="module")
def lines(golden: Any) -> dict[int, list[bytes]]:
    """The lines of the golden stream by their seq."""
    written = golden(
        "events-1.jsonl",
        lambda: b"".join(line + b"\n" for envelope in EXPECTED.values() for line in frame(envelope)),
    )
    by_seq = defaultdict(list)
    for line in written.removesuffix(b"\n").split(b"\n"):
        by_seq[orjson.loads(line)["seq"]].append(line)
    return by_seq


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "log, in parts"])
def test_a_golden_line_is_read_as_the_event_and_written_back_byte_for_byte(
    name: str, lines: dict[int, list[bytes]]
) -> None:
    expected = EXPECTED[name]
    (line,) = lines[expected.seq]

    assert decode(line) == expected
    assert encode(expected) == line
    assert encode(decode(line)) == line


def test_golden_parts_are_joined_to_the_event_and_split_again_byte_for_byte(
    lines: dict[int, list[bytes]],
) -> None:
    expected = EXPECTED["log, in parts"]
    parts = lines[expected.seq]

    stream = EventStream()
    received = [stream.receive(orjson.loads(part)) for part in parts]

    assert len(parts) == 3
    assert [orjson.loads(part)["part"] for part in parts] == [0, 1, 2]
    assert received == [None, None, expected]
    assert list(frame(expected)) == parts


def test_the_golden_stream_has_these_lines_and_no_other(lines: dict[int, list[bytes]]) -> None:
    assert list(lines) == [envelope.seq for envelope in EXPECTED.values()]


def test_every_event_that_is_declared_is_in_the_union_and_has_a_golden_line(
    lines: dict[int, list[bytes]],
) -> None:
    declared = {
        member.kind
        for _, member in inspect.getmembers(declarations, dataclasses.is_dataclass)
        if isinstance(getattr(member, "kind", None), str)
    }
    golden_kinds = {orjson.loads(line)["kind"] for group in lines.values() for line in group}

    assert declared == set(EVENT_TYPES)
    assert golden_kinds == declared | {"part"}


def test_every_optional_field_is_golden_with_a_value_and_without_and_every_literal_in_each_of_its_values() -> (
    None
):
    documents = [*(envelope.event for envelope in EXPECTED.values()), *MANIFESTS.values(), DUE]
    wanted: set[tuple[str, str, object]] = set()
    seen: set[tuple[str, str, object]] = set()
    for declaration in _declarations(*get_args(Event), Manifest, DueReport):
        hints = get_type_hints(declaration)
        for field in dataclasses.fields(declaration):
            for example in _examples(hints[field.name]):
                wanted.add((declaration.__name__, field.name, example))
    for instance in _instances(documents):
        hints = get_type_hints(type(instance))
        for field in dataclasses.fields(instance):
            value = getattr(instance, field.name)
            example = value if value is None or value in _literals(hints[field.name]) else "a value"
            seen.add((type(instance).__name__, field.name, example))

    assert wanted - seen == set()


def _literals(hint: Any) -> tuple[Any, ...]:
    inner = [argument for argument in get_args(hint) if get_origin(argument) is Literal] or [hint]
    return get_args(inner[0]) if get_origin(inner[0]) is Literal else ()


def _examples(hint: Any) -> tuple[Any, ...]:
    optional = get_origin(hint) in (Union, types.UnionType)
    return (*(_literals(hint) or ("a value",)), *((None,) if optional else ()))


def _declarations(*found: type) -> set[type]:
    declared: set[type] = set()
    waiting: list[Any] = list(found)
    while waiting:
        hint = waiting.pop()
        if dataclasses.is_dataclass(hint) and hint not in declared:
            declared.add(hint)  # type: ignore[arg-type]  # is_dataclass of a type
            waiting.extend(get_type_hints(hint).values())
        waiting.extend(get_args(hint))
    return declared


def _instances(value: Any) -> list[Any]:
    if dataclasses.is_dataclass(value):
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return [value, *(found for item in fields for found in _instances(item))]
    if isinstance(value, (list, tuple)):
        return [found for item in value for found in _instances(item)]
    if isinstance(value, Mapping):
        return _instances(list(value.values()))
    return []


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_golden_manifest_is_read_as_the_project_and_written_back_byte_for_byte(
    name: str, golden: Any, tmp_path: Any
) -> None:
    expected = MANIFESTS[name]
    content = golden(name, lambda: dump_manifest(expected))
    path = tmp_path / name
    path.write_bytes(content)

    assert load_manifest(path) == expected
    assert dump_manifest(expected) == content


def test_the_golden_due_report_is_read_and_written_back_byte_for_byte(golden: Any) -> None:
    content = golden("due-1.json", lambda: dump_due_report(DUE))

    assert read_due_report(content) == DUE
    assert dump_due_report(DUE) == content


@pytest.mark.parametrize("name", RECONCILED_REPORTS)
def test_a_golden_reconcile_report_is_read_and_written_back_byte_for_byte(name: str, golden: Any) -> None:
    expected = RECONCILED_REPORTS[name]
    content = golden(name, lambda: dump_reconcile_report(expected))

    assert read_reconcile_report(content) == expected
    assert dump_reconcile_report(expected) == content
