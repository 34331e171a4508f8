"""What an event costs on the wire, against orjson's bare dictionaries, over the events of realistic runs.

Both take turns, so that what else the machine does meets both, and each round is compared with its own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson

from benchmarks.places import Place, interleaved, say
from benchmarks.rows import Rounds, Row
from sqlmesh_pipes_protocol import Envelope, decode, encode
from sqlmesh_pipes_protocol.codec import timestamp
from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    AuditOutcome,
    BatchFinished,
    Counts,
    ErrorInfo,
    EvaluationStarted,
    Event,
    Heartbeat,
    Interval,
    Log,
    ModelBatches,
    ModelExecuted,
    ModelFailed,
    ModelInFlight,
    ModelOutcome,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunStarted,
    Storage,
    Versions,
)

LIMIT = 3.0
RATE = 100_000
ROUNDS = 15
RUN_ID = "6575ebd4-de2e-429c-99c7-000000000000"
MODELS_A_RUN = 1_000
MIX_OF = 2_000
"""Models whose events are measured: two runs."""
DAY = datetime(2026, 11, 20, tzinfo=timezone.utc)
BEGIN = datetime(2026, 11, 21, 6, 30, tzinfo=timezone.utc)
BETWEEN_EVENTS = timedelta(milliseconds=290, microseconds=17)
MARTS = ("staging", "finance", "marketing", "logistics")
NAMES = (
    "orders",
    "customers",
    "order_payments",
    "customer_lifetime_value",
    "daily_revenue",
    "product_ranking",
)
AUDITS = (
    ("not_null", {"columns": "(order_id, customer_id)"}, '(\n    "order_id" IS NULL OR "customer_id" IS NULL\n  ) AND TRUE'),
    ("accepted_values", {"column": "channel", "is_in": "('web', 'app')"}, "NOT \"channel\" IN ('web', 'app') AND TRUE"),
    ("amount_is_positive", {"column": "amount"}, '"amount" <= 0'),
)  # fmt: skip
TRACEBACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "/opt/venv/lib/python3.11/site-packages/sqlmesh/core/{module}.py", line {line}, in {function}\n'
    f"    return self.{function}(snapshot, start=start, end=end, execution_time=execution_time)\n"
    for line, (module, function) in enumerate(
        [("scheduler", "run_node"), ("scheduler", "evaluate"), ("snapshot/evaluator", "evaluate")] * 4, 300
    )
)


def mix(models: int) -> list[Envelope]:
    """The events of runs of 1,000 models each, the last one of what is left; the same at each call."""
    return [
        envelope
        for first in range(0, models, MODELS_A_RUN)
        for envelope in events(min(MODELS_A_RUN, models - first))
    ]


def events(models: int, batches: int | None = None) -> Iterator[Envelope]:
    """The events of one run.

    Args:
        models: which of them are skipped or fail is the same at each call.
        batches: of each model, each with its audits; by default one, and two for each third model.
    """
    for seq, event in enumerate(_run(models, batches)):
        yield Envelope(run_id=RUN_ID, seq=seq, at=timestamp(BEGIN + seq * BETWEEN_EVENTS), event=event)


def models(count: int) -> list[str]:
    """FQNs of a run's models, in order."""
    return [f'"shop"."{MARTS[n % 4]}"."{NAMES[n % 6]}_{n:04}"' for n in range(count)]


def measure(place: Place) -> Iterator[Row]:
    say("encodes and decodes events")
    rounds = 1 if place.quick else ROUNDS
    lines = [encode(event) for event in mix(MIX_OF)]
    # First, while no event is kept: what is looked through for garbage in between is this side's cost, and would grow with them.
    decoding = _compare(decode, lines, orjson.loads, lines, rounds)
    envelopes, objects = mix(MIX_OF), [orjson.loads(line) for line in lines]
    encoding = _compare(encode, envelopes, orjson.dumps, objects, rounds)
    size = f"{len(lines):,} events"
    for what, found in (("encode", encoding), ("decode and validate", decoding)):
        yield found.row(
            what=f"protocol: {what}",
            size=size,
            against="orjson, the bare dict",
            of=["ours"],
            to=["orjson"],
            limit=LIMIT,
        )
    yield Row(
        what="protocol: decode and validate",
        size=size,
        value=len(lines) / statistics.median(decoding.seconds["ours"]),
        unit="events/s",
        limit=RATE,
        at_least=True,
    )


def _compare(
    ours: Callable[[Any], object],
    our_values: Sequence[object],
    theirs: Callable[[Any], object],
    their_values: Sequence[object],
    rounds: int,
) -> Rounds:
    return interleaved(
        rounds, {"ours": lambda: _time(ours, our_values), "orjson": lambda: _time(theirs, their_values)}
    )


def _time(function: Callable[[Any], object], values: Sequence[object]) -> float:
    start = time.perf_counter()
    for value in values:
        function(value)
    return time.perf_counter() - start


def _run(count: int, batches: int | None) -> Iterator[Event]:
    """As the runner tells it: what is true of models in general is so by their number."""
    fqns = models(count)
    ends = {fqn: _ending(number) for number, fqn in enumerate(fqns)}
    seq = 0

    def counted(event: Event) -> Event:
        nonlocal seq
        seq += 1
        return event

    yield counted(
        RunStarted(
            environment="prod",
            gateway="warehouse",
            versions=Versions(runner="0.1.0", sqlmesh="0.236.4", python="3.11.7"),
            selection=None,
            models_deployed=count,
            models_selected=count,
            start=None,
            end=None,
            execution_time=None,
            ignore_cron=False,
            correlation_id="SQLMESH_RUN: 31d59ca81800450cadbfdbb81968c1f6",
        )
    )
    due = tuple(
        ModelBatches(model=fqn, intervals=_intervals(number, batches))
        for number, fqn in enumerate(fqns)
        if ends[fqn] != "skipped"
    )
    yield counted(EvaluationStarted(attempt=1, batches=due))
    outcomes = []
    for number, fqn in enumerate(fqns):
        for event in _model(number, fqn, ends[fqn], _intervals(number, batches)):
            yield counted(event)
        outcomes.append(_outcome(fqn, ends[fqn], _intervals(number, batches)))
        if number % 5 == 4:
            yield counted(Log(level="info", logger="sqlmesh", message=f"Evaluated {fqn} in 1.42s"))
        if number % 8 == 7:
            in_flight = tuple(
                ModelInFlight(model=other, elapsed_ms=4_210) for other in fqns[number - 3 : number + 1]
            )
            yield counted(Heartbeat(models=in_flight))
    of = list(ends.values())
    yield RunFinished(
        status="failed" if "failed" in of else "success",
        exit_code=1 if "failed" in of else 0,
        counts=Counts(
            selected=count,
            executed=of.count("executed"),
            failed=of.count("failed"),
            skipped=of.count("skipped"),
            audits_passed=3 * of.count("executed"),
            audits_failed=0,
            audits_skipped=0,
        ),
        duration_ms=1_508_000,
        last_seq=seq,
        digest=tuple(outcomes),
    )


def _ending(number: int) -> Any:
    return "failed" if number % 100 == 41 else "skipped" if number % 25 == 13 else "executed"


def _intervals(number: int, batches: int | None) -> tuple[Interval, ...]:
    """Of the last days, a day each. By default two for each third model, and one for the others."""
    days = [DAY - timedelta(days=back) for back in reversed(range(batches or (2 if number % 3 == 0 else 1)))]
    return tuple(Interval(start=_midnight(day), end=_midnight(day + timedelta(days=1))) for day in days)


def _midnight(day: datetime) -> Any:
    return f"{day:%Y-%m-%d}T00:00:00Z"


def _model(number: int, fqn: str, end: str, intervals: tuple[Interval, ...]) -> Iterator[Event]:
    if end == "skipped":
        yield ModelSkipped(
            model=fqn,
            reason="cron_not_due",
            detail="Its cron has not elapsed since the last run.",
            next_due=_midnight(DAY + timedelta(days=2)),
        )
        return
    yield ModelStarted(model=fqn, batches=len(intervals))
    if end == "failed":
        yield ModelFailed(
            model=fqn,
            error=_error(fqn, TRACEBACK),
            interval=intervals[0],
            failed_audits=(),
            intervals=(),
            batches=0,
            duration_ms=731,
        )
        return
    _, schema, name = fqn.replace('"', "").split(".")
    table = f"{schema}__{name}__{2_635_101_511 + number}"
    for index, interval in enumerate(intervals):
        for audit, arguments, condition in AUDITS:
            query = (
                f'SELECT\n  *\nFROM "shop"."sqlmesh__{schema}"."{table}" AS "{table}"\nWHERE\n  {condition}'
            )
            yield AuditEvaluated(
                model=fqn,
                audit=audit,
                name=audit,
                arguments=arguments,
                blocking=True,
                skipped=False,
                passed=True,
                failing_rows=0,
                query=query,
                dialect="duckdb",
                interval=interval,
            )
        yield BatchFinished(
            model=fqn,
            interval=interval,
            index=index,
            total=len(intervals),
            duration_ms=1_340 + number,
            rows=18_231 + number,
        )
    yield ModelExecuted(
        model=fqn,
        intervals=(Interval(start=intervals[0].start, end=intervals[-1].end),),
        batches=len(intervals),
        duration_ms=1_410 + number,
        rows=18_231 + number,
        storage=Storage(
            kind="INCREMENTAL_BY_TIME_RANGE",
            snapshot_id=str(501_454_805 + number),
            version=str(2_635_101_511 + number),
            physical_table=f"shop.sqlmesh__{schema}.{table}",
            view=f"shop.{schema}.{name}",
            data_version=f"{2_635_101_511 + number}-014cbf48e6c6",
        ),
    )


def _outcome(fqn: str, end: Any, intervals: tuple[Interval, ...]) -> ModelOutcome:
    if end == "skipped":
        return ModelOutcome(model=fqn, status=end, reason="cron_not_due")
    if end == "failed":
        return ModelOutcome(model=fqn, status=end, error=_error(fqn, None))
    return ModelOutcome(
        model=fqn,
        status=end,
        intervals=(Interval(start=intervals[0].start, end=intervals[-1].end),),
        audits=tuple(
            AuditOutcome(audit=audit, skipped=False, passed=True, blocking=True, failing_rows=0)
            for audit, _, _ in AUDITS
        ),
    )


def _error(fqn: str, traceback: str | None) -> ErrorInfo:
    return ErrorInfo(
        error_class="duckdb.duckdb.ConversionException",
        message=f"Conversion Error: Could not convert string 'n/a' to DOUBLE in {fqn}\nLINE 14: CAST(amount AS DOUBLE)",
        category="sql",
        transient=False,
        traceback=traceback,
    )
