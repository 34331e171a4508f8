"""An incremental model over many batches: what was done is told, and only once."""

from __future__ import annotations

from behaviour.case import PASSED, Case, Step, absent, contains, executed, failed, skipped

DAYS = ", ".join(f"('2026-01-0{day}', '{day}')" for day in range(1, 7)).replace("'3')", "'three')")


def daily(name: str, batches: str) -> dict[str, str]:
    return {
        f"models/{name}.sql": f"""\
            MODEL (
              name marts.{name}, kind INCREMENTAL_BY_TIME_RANGE (time_column day, {batches}),
              start '2026-01-01', end '2026-01-06', audits (not_null(columns := (day)))
            );
            SELECT CAST(day AS DATE) AS day, CAST(amount AS INT) AS amount FROM raw.amounts
            WHERE day BETWEEN @start_ds AND @end_ds
        """
    }


CASES = [
    Case(
        name="what_was_done_before_and_beside_a_failed_batch_is_told_and_the_next_run_tells_the_rest",
        sql="CREATE SCHEMA raw; CREATE TABLE raw.amounts (day TEXT, amount TEXT); "
        f"INSERT INTO raw.amounts VALUES {DAYS}",
        files={
            **daily("in_order", "batch_size 1, batch_concurrency 1"),
            **daily("at_once", "batch_size 1"),
            **daily("in_pairs", "batch_size 2, batch_concurrency 1"),
            "models/below.sql": "MODEL (name marts.below, kind FULL);\nSELECT day FROM marts.in_order",
        },
        steps=(
            Step(
                expected={
                    "marts/in_order": failed(
                        "sql",
                        {"not_null": PASSED},
                        message=contains("three"),
                        intervals_done="2026-01-01 to 2026-01-03",
                        failed_interval="2026-01-03 to 2026-01-04",
                    ),
                    "marts/at_once": failed(
                        "sql",
                        {"not_null": PASSED},
                        intervals_done="2026-01-01 to 2026-01-03, 2026-01-04 to 2026-01-07",
                        failed_interval="2026-01-03 to 2026-01-04",
                    ),
                    "marts/in_pairs": failed(
                        "sql",
                        {"not_null": PASSED},
                        intervals_done="2026-01-01 to 2026-01-03",
                        failed_interval="2026-01-03 to 2026-01-05",
                    ),
                    "marts/below": skipped("upstream_failed", blocked_by=contains(".in_order")),
                },
                failure=("3 models failed",),
            ),
            Step(
                sql="UPDATE raw.amounts SET amount = '3' WHERE amount = 'three'",
                expected={
                    "marts/in_order": executed(
                        {"not_null": PASSED}, batches=4, intervals="2026-01-03 to 2026-01-07"
                    ),
                    "marts/at_once": executed(
                        {"not_null": PASSED}, batches=1, intervals="2026-01-03 to 2026-01-04"
                    ),
                    "marts/in_pairs": executed(
                        {"not_null": PASSED}, batches=2, intervals="2026-01-03 to 2026-01-07"
                    ),
                    "marts/below": executed(),
                },
            ),
            Step(
                expected={
                    "marts/in_order": skipped("up_to_date", next_due=absent),
                    "marts/at_once": skipped("up_to_date"),
                    "marts/in_pairs": skipped("up_to_date"),
                    "marts/below": skipped("cron_not_due"),
                },
            ),
        ),
        postgres=True,
    ),
]
