"""The manifest says one thing, and what is deployed is another."""

from __future__ import annotations

from behaviour.case import Case, Step, executed, skipped

NEW = {
    "models/new.sql": "MODEL (name staging.new, kind FULL, audits (not_null(columns := (a))));\nSELECT 1 AS a"
}

CASES = [
    Case(
        name="a_model_that_is_not_deployed_is_skipped_whether_it_was_selected_or_all_were",
        models={"staging.old": "SELECT 1 AS a", "staging.other": "SELECT 1 AS a"},
        steps=(
            Step(
                files=NEW,
                manifest=True,
                select=("staging/new",),
                expected={"staging/new": skipped("not_deployed")},
            ),
            Step(
                expected={
                    "staging/new": skipped("not_deployed"),
                    "staging/old": executed(),
                    "staging/other": executed(),
                },
            ),
        ),
        postgres=True,
    ),
    Case(
        name="what_the_manifest_does_not_know_runs_and_is_a_warning",
        models=dict.fromkeys(("staging.old", "staging.gone", "staging.other"), "SELECT 1 AS a"),
        steps=(
            Step(
                files={
                    **NEW,
                    "models/staging.old.sql": "MODEL (name staging.old, kind FULL, audits ("
                    "not_null(columns := (a)), forall(criteria := (a < 0), blocking := false)));\nSELECT 1 AS a",
                    "models/below.sql": "MODEL (name marts.below, kind FULL);\nSELECT a FROM staging.old",
                    "audits/fits.sql": "AUDIT (name fits, standalone true);\nSELECT a FROM staging.other WHERE a > 1",
                },
                deploy=True,
                expected={
                    "staging/old": executed(),
                    "staging/gone": executed(),
                    "staging/other": executed(),
                },
                unknown=(
                    '"staging"."old": not_null',
                    '"staging"."old": forall',
                    '"staging"."new"',
                    '"marts"."below"',
                    "fits",
                ),
            ),
            Step(
                files={"models/staging.gone.sql": None},
                deploy=True,
                select=("staging/gone", "staging/other"),
                expected={"staging/other": skipped("cron_not_due"), "staging/gone": skipped("not_deployed")},
            ),
        ),
    ),
]
