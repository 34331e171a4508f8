"""Audits: what ran and how it came out, who is stopped by it, and whose check it is."""

from __future__ import annotations

from behaviour.case import (
    FAILED,
    PASSED,
    WARNED,
    Case,
    absent,
    contains,
    executed,
    failed,
    in_one_run,
    skipped,
)

NUMBERS = "SELECT a, b, word FROM (VALUES (1, 1, 'x'), (2, NULL, 'a,b'), (-3, NULL, 'it''s \"so\"')) AS t(a, b, word)"
"""One row whose ``a`` is negative, two whose ``b`` is null, words with what SQL must quote."""


def numbers(name: str, audits: str, more: str = "") -> dict[str, str]:
    return {
        f"models/{name}.sql": f"MODEL (name marts.{name}, kind FULL, audits ({audits}));\n{NUMBERS};\n{more}"
    }


def daily(name: str, audits: str) -> dict[str, str]:
    """Three batches, in order; the day in the middle has a negative amount."""
    return {
        f"models/{name}.sql": f"""\
            MODEL (
              name marts.{name},
              kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1, batch_concurrency 1),
              start '2026-01-01', end '2026-01-03', audits ({audits})
            );
            SELECT CAST(day AS DATE) AS day, amount FROM staging.amounts WHERE day BETWEEN @start_ds AND @end_ds
        """
    }


POSITIVE = "SELECT * FROM @this_model WHERE @column <= 0"
AUDITS = {
    "audits/positive.sql": f"AUDIT (name positive);\n{POSITIVE}",
    "audits/rather_positive.sql": f"AUDIT (name rather_positive, blocking false);\n{POSITIVE}",
    "audits/left_out.sql": "AUDIT (name left_out, skip true);\nSELECT * FROM @this_model",
}

CASES = [
    Case(
        name="each_use_of_an_audit_blocks_or_warns_as_it_says",
        files={
            **AUDITS,
            **numbers(
                "stops", "not_null(columns := (a)), not_null(columns := (b)), rather_positive(column := a)"
            ),
            **numbers("warns", "rather_positive(column := a), positive(column := a + 10)"),
            **numbers("is_softened", "positive(column := a, blocking := false)"),
            **numbers("is_hardened", "rather_positive(column := a, blocking := true)"),
            **numbers("leaves_out", "left_out, not_null(columns := (a))"),
            **numbers(
                "has_its_own",
                "own_stops_nothing",
                "AUDIT (name own_stops_nothing, blocking false);\nSELECT * FROM @this_model WHERE b IS NULL;\n"
                # Defined, but not among the model's audits: SQLMesh does not evaluate it.
                "AUDIT (name own_unused);\nSELECT * FROM @this_model WHERE a > 100",
            ),
            **numbers(
                "quotes",
                "accepted_values(column := word, is_in := ('x', 'a,b', 'it''s \"so\"')), "
                "forall(criteria := (a < 10, word <> 'no, \"never\"', word = 'x')), "
                "accepted_range(column := a, min_v := -5, max_v := 5, inclusive := false)",
            ),
            "models/below.sql": "MODEL (name marts.below, kind FULL);\nSELECT a FROM marts.stops",
        },
        steps=in_one_run(
            {
                "marts/stops": failed(
                    "audit",
                    {"not_null_a": PASSED, "not_null_b": FAILED, "rather_positive": WARNED},
                    failed_audits="not_null_b",
                    message=contains("not_null"),
                    **{
                        "not_null_b.failing_rows": 2,
                        "not_null_b.blocking": True,
                        "not_null_b.query": contains("IS NULL"),
                        "rather_positive.failing_rows": 1,
                        "rather_positive.blocking": False,
                    },
                ),
                "marts/below": skipped("upstream_failed", blocked_by=contains("marts.stops")),
                "marts/warns": executed({"rather_positive": WARNED, "positive": PASSED}),
                "marts/is_softened": executed(
                    {"positive": WARNED}, **{"positive.blocking": False, "positive.failing_rows": 1}
                ),
                "marts/is_hardened": failed(
                    "audit", {"rather_positive": FAILED}, failed_audits="rather_positive"
                ),
                # What SQLMesh skipped did not run: it has no result.
                "marts/leaves_out": executed({"not_null": PASSED}),
                "marts/has_its_own": executed(
                    {"own_stops_nothing": WARNED}, **{"own_stops_nothing.failing_rows": 2}
                ),
                "marts/quotes": failed(
                    "audit",
                    {"accepted_values": PASSED, "forall": FAILED, "accepted_range": PASSED},
                    **{
                        "forall.failing_rows": 2,
                        "forall.arguments": """criteria := (a < 10, word <> 'no, "never"', word = 'x')""",
                        "accepted_values.arguments": """column := word, is_in := ('x', 'a,b', 'it''s "so"')""",
                        "accepted_values.intervals": contains(" to "),
                        "accepted_values.failed_intervals": absent,
                    },
                ),
            },
            failure=("3 models failed",),
        ),
        postgres=True,
    ),
    Case(
        name="of_three_batches_the_second_fails",
        models={
            "staging.amounts": "SELECT day, amount FROM (VALUES "
            "('2026-01-01', 1), ('2026-01-02', -2), ('2026-01-03', 3)) AS t(day, amount)"
        },
        files={
            **AUDITS,
            **daily("stops", "positive(column := amount), not_null(columns := (day))"),
            **daily("warns", "rather_positive(column := amount), not_null(columns := (day))"),
            **daily("is_softened", "positive(column := amount, blocking := false)"),
            **daily("is_hardened", "rather_positive(column := amount, blocking := true)"),
        },
        steps=in_one_run(
            {
                "staging/amounts": executed(),
                "marts/stops": failed(
                    "audit",
                    {"positive": FAILED, "not_null": PASSED},
                    intervals_done="2026-01-01 to 2026-01-02",
                    failed_interval="2026-01-02 to 2026-01-03",
                    failed_audits="positive",
                    **{
                        "positive.failing_rows": 1,
                        "positive.failed_intervals": "2026-01-02 to 2026-01-03",
                        "not_null.intervals": "2026-01-01 to 2026-01-03",
                    },
                ),
                "marts/warns": executed(
                    {"rather_positive": WARNED, "not_null": PASSED},
                    batches=3,
                    intervals="2026-01-01 to 2026-01-04",
                    **{
                        "rather_positive.failing_rows": 1,
                        "rather_positive.failed_intervals": "2026-01-02 to 2026-01-03",
                    },
                ),
                "marts/is_softened": executed({"positive": WARNED}, batches=3),
                "marts/is_hardened": failed(
                    "audit", {"rather_positive": FAILED}, intervals_done="2026-01-01 to 2026-01-02"
                ),
            },
        ),
    ),
    Case(
        name="a_standalone_audit_is_a_check_of_each_model_that_it_reads_and_stops_nothing",
        models={
            "staging.orders": "SELECT 1 AS id, 5 AS amount",
            "staging.payments": "SELECT 1 AS order_id, 4 AS amount",
            "marts.broken": "SELECT CAST(CAST(id AS VARCHAR) || 'x' AS INT) AS id FROM staging.orders",
            "marts.apart": "SELECT 1 AS a, 'x' AS word",
        },
        files={
            "audits/ids_are_known.sql": """\
                AUDIT (name ids_are_known, standalone true);
                SELECT o.id FROM staging.orders AS o LEFT JOIN staging.payments AS p ON p.order_id = o.id
                WHERE p.order_id IS NULL
            """,
            "audits/amounts_fit.sql": """\
                AUDIT (name amounts_fit, standalone true);
                SELECT o.id FROM staging.orders AS o JOIN staging.payments AS p ON p.order_id = o.id
                WHERE p.amount <> o.amount
            """,
            # It reads a model that fails: SQLMesh skips it.
            "audits/never_evaluated.sql": """\
                AUDIT (name never_evaluated, standalone true);
                SELECT b.id FROM marts.broken AS b JOIN staging.orders AS o ON o.id = b.id
            """,
            # The engine refuses it.
            "audits/words_are_numbers.sql": """\
                AUDIT (name words_are_numbers, standalone true);
                SELECT a FROM marts.apart WHERE CAST(word AS INT) > 0
            """,
            "audits/left_out.sql": "AUDIT (name left_out, standalone true, skip true);\nSELECT a FROM marts.apart",
        },
        steps=in_one_run(
            {
                "staging/orders": executed(
                    {"ids_are_known": PASSED, "amounts_fit": WARNED},
                    **{"amounts_fit.failing_rows": 1, "amounts_fit.query": contains("staging")},
                ),
                "staging/payments": executed({"ids_are_known": PASSED, "amounts_fit": WARNED}),
                # Those that were not evaluated have no result.
                "marts/broken": failed("sql"),
                "marts/apart": executed(),
            },
            failure=("1 model failed",),
            log=("The standalone audit words_are_numbers could not be evaluated",),
        ),
    ),
    Case(
        name="a_standalone_audit_that_cannot_be_evaluated_fails_the_step_and_no_model",
        models={"staging.words": "SELECT 'x' AS word"},
        files={
            "audits/words_are_numbers.sql": """\
                AUDIT (name words_are_numbers, standalone true);
                SELECT word FROM staging.words WHERE CAST(word AS INT) > 0
            """,
        },
        steps=in_one_run({"staging/words": executed()}, failure=("words_are_numbers", "x")),
    ),
]
