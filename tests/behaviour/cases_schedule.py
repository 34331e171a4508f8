"""What is due, what is not, and what is run anyway."""

from __future__ import annotations

from behaviour.case import Case, PerEngine, Step, absent, contains, executed, skipped

CRONS = {
    "models/daily.sql": "MODEL (name marts.daily, kind FULL, cron '@daily'); SELECT 1 AS a",
    "models/weekly.sql": "MODEL (name marts.weekly, kind FULL, cron '@weekly'); SELECT a FROM marts.daily",
    "models/monthly.sql": "MODEL (name marts.monthly, kind FULL, cron '0 6 1 * *'); SELECT a FROM marts.daily",
    "models/hourly.sql": """\
        MODEL (
          name marts.hourly, kind INCREMENTAL_BY_TIME_RANGE (time_column ds), cron '@hourly',
          start '2026-02-01', audits (not_null(columns := (ds)))
        );
        SELECT CAST(@start_ts AS TIMESTAMP) AS ds
    """,
}
"""Four crons; run on Monday 2026-02-02 all are due."""

CASES = [
    Case(
        name="all_is_executed_once_then_nothing_is_due",
        models={"staging.first": "SELECT 1 AS a", "marts.second": "SELECT a FROM staging.first"},
        steps=(
            Step(
                expected={
                    "staging/first": executed(
                        batches=1, **{"dagster/row_count": PerEngine(duckdb=None, postgres=1)}
                    ),
                    "marts/second": executed(batches=1),
                },
            ),
            Step(
                expected={
                    "staging/first": skipped("cron_not_due", next_due=contains("T00:00:00Z")),
                    "marts/second": skipped("cron_not_due"),
                },
            ),
        ),
        postgres=True,
    ),
    Case(
        name="of_mixed_crons_those_run_that_have_elapsed",
        files=CRONS,
        steps=(
            Step(
                config={"execution_time": "2026-02-02 00:30:00"},
                expected={
                    "marts/daily": executed(),
                    "marts/weekly": executed(),
                    "marts/monthly": executed(),
                    "marts/hourly": executed({"not_null": "passed"}, intervals="2026-02-01 to 2026-02-02"),
                },
            ),
            Step(
                config={"execution_time": "2026-02-03 00:00:00"},
                expected={
                    "marts/daily": executed(),
                    "marts/weekly": skipped("cron_not_due", next_due="2026-02-08T00:00:00Z"),
                    "marts/monthly": skipped("cron_not_due", next_due="2026-03-01T06:00:00Z"),
                    "marts/hourly": executed({"not_null": "passed"}, intervals="2026-02-02 to 2026-02-03"),
                },
            ),
            Step(
                config={"execution_time": "2026-02-04 00:00:00", "ignore_cron": True},
                expected={
                    "marts/daily": executed(intervals="2026-02-03 to 2026-02-04"),
                    "marts/weekly": executed(intervals="2026-02-01 to 2026-02-04"),
                    # A monthly cron makes the month the interval, and this one is not over.
                    "marts/monthly": skipped("up_to_date", next_due=absent),
                    "marts/hourly": executed({"not_null": "passed"}),
                },
            ),
        ),
    ),
]
