"""Standalone audits: whose checks they are, whatever they read."""

from __future__ import annotations

from behaviour.case import WARNED, Case, Step, executed, in_one_run, skipped

CASES = [
    Case(
        name="one_that_reads_an_embedded_model_is_a_check_of_what_that_reads",
        postgres=True,
        models={"staging.orders": "SELECT 1 AS id"},
        files={
            "models/inlined.sql": "MODEL (name staging.inlined, kind EMBEDDED);\nSELECT id FROM staging.orders",
            "audits/fits.sql": "AUDIT (name fits, standalone true);\nSELECT id FROM staging.inlined WHERE id > 0",
        },
        steps=in_one_run({"staging/orders": executed({"fits": WARNED})}),
    ),
    Case(
        name="one_that_reads_no_asset_has_no_check_and_is_not_unknown",
        sql="CREATE SCHEMA raw; CREATE TABLE raw.events AS SELECT 1 AS id",
        models={"staging.orders": "SELECT id FROM raw.events"},
        files={
            "audits/fits.sql": "AUDIT (name fits, standalone true);\nSELECT id FROM raw.events WHERE id > 0"
        },
        steps=in_one_run({"staging/orders": executed()}, log=("'fits' audit error: 1 row failed",)),
    ),
    Case(
        name="one_runs_with_a_part_of_the_project_that_has_all_it_reads_and_not_without",
        postgres=True,
        models={
            "staging.orders": "SELECT 1 AS id",
            "staging.items": "SELECT 1 AS id",
            "staging.other": "SELECT 1 AS id",
        },
        files={
            "audits/fits.sql": "AUDIT (name fits, standalone true);\n"
            "SELECT o.id FROM staging.orders AS o JOIN staging.items AS i USING (id)"
        },
        steps=(
            Step(expected={"staging/orders": executed()}, select=("staging/orders",)),
            Step(
                expected={
                    "staging/orders": skipped("cron_not_due", {"fits": WARNED}),
                    "staging/items": executed({"fits": WARNED}),
                },
                select=("staging/orders", "staging/items"),
            ),
        ),
    ),
]
