"""A model whose SQL the engine refuses, and who suffers for it."""

from __future__ import annotations

from behaviour.case import Case, absent, contains, executed, failed, in_one_run, skipped

CASES = [
    Case(
        name="a_sql_error_skips_two_levels_below_and_leaves_siblings_alone",
        models={
            "staging.words": "SELECT 'one' AS word",
            "staging.sibling": "SELECT word FROM staging.words",
            "marts.broken": "SELECT CAST(word AS INT) AS number FROM staging.words",
            "marts.also_broken": "SELECT CAST(word AS DATE) AS day FROM staging.sibling",
            "marts.below": "SELECT number FROM marts.broken",
            "marts.further_below": "SELECT b.number FROM marts.below AS b CROSS JOIN staging.sibling",
            "marts.below_both": "SELECT b.number, d.day FROM marts.broken AS b CROSS JOIN marts.also_broken AS d",
        },
        steps=in_one_run(
            {
                "staging/words": executed(),
                "staging/sibling": executed(),
                "marts/broken": failed(
                    "sql", message=contains("one"), failed_interval=contains(" to "), intervals_done=absent
                ),
                "marts/also_broken": failed("sql", message=contains("one")),
                "marts/below": skipped("upstream_failed", blocked_by=contains("marts.broken")),
                "marts/further_below": skipped("upstream_failed", blocked_by=contains("marts.broken")),
                "marts/below_both": skipped(
                    "upstream_failed", blocked_by=contains("marts.also_broken", "marts.broken")
                ),
            },
            failure=("2 models failed", "marts.broken: ", "marts.also_broken: "),
        ),
        postgres=True,
    ),
]
