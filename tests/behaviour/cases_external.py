"""External models with audits of their own."""

from __future__ import annotations

from behaviour.case import Case, contains, executed, in_one_run, skipped

CASES = [
    Case(
        name="a_blocking_audit_of_an_external_model_stops_what_reads_it_and_is_not_unknown",
        postgres=True,
        sql="CREATE SCHEMA raw; CREATE TABLE raw.events AS SELECT 1 AS id UNION ALL SELECT NULL",
        models={"staging.reads": "SELECT id FROM raw.events", "staging.apart": "SELECT 1 AS id"},
        files={
            "external_models.yaml": """\
            - name: raw.events
              columns: {id: int}
              audits:
              - name: not_null
                columns: '(id)'
        """,
        },
        steps=in_one_run(
            {
                "staging/reads": skipped("upstream_failed", blocked_by=contains("raw.events")),
                "staging/apart": executed(),
            },
            failure=("raw.events: Audit failed: not_null (1 row).",),
        ),
    )
]
