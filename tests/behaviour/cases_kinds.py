"""Every kind of model that SQLMesh knows and these engines have."""

from __future__ import annotations

from behaviour.case import PASSED, WARNED, Case, Step, absent, executed, skipped

EVENTS = (
    "CREATE SCHEMA raw; CREATE TABLE raw.events (id INT, region TEXT, changed TIMESTAMP); "
    "INSERT INTO raw.events VALUES (1, 'eu', '2026-01-31 10:00:00'), (2, 'us', '2026-02-01 10:00:00')"
)
READ = "SELECT id, region, changed FROM raw.events"


def of_kind(name: str, kind: str, query: str = READ, more: str = "") -> dict[str, str]:
    return {f"models/{name}.sql": f"MODEL (name marts.{name}, kind {kind}{more});\n{query}"}


CASES = [
    Case(
        name="each_kind_is_executed_when_due_and_a_seed_once",
        sql=EVENTS,
        files={
            "external_models.yaml": """\
                - name: raw.events
                  columns: {id: int, region: text, changed: timestamp}
            """,
            "seeds/regions.csv": "region,title\neu,Europe\nus,America\n",
            **of_kind(
                "regions",
                "SEED (path '$root/seeds/regions.csv')",
                "",
                ", audits (not_null(columns := (title)))",
            ),
            **of_kind("seen", "VIEW"),
            **of_kind("stored", "VIEW (materialized true)"),
            **of_kind("inlined", "EMBEDDED", "SELECT id, region FROM marts.seen"),
            **of_kind("reads_inlined", "FULL", "SELECT id FROM marts.inlined"),
            **of_kind(
                "forward",
                "INCREMENTAL_BY_TIME_RANGE (time_column changed, forward_only true)",
                f"{READ} WHERE changed BETWEEN @start_ts AND @end_ts",
            ),
            **of_kind("versions_by_time", "SCD_TYPE_2_BY_TIME (unique_key id, updated_at_name changed)"),
            **of_kind("versions_by_column", "SCD_TYPE_2_BY_COLUMN (unique_key id, columns [region])"),
            **of_kind(
                "by_key",
                "INCREMENTAL_BY_UNIQUE_KEY (unique_key id)",
                f"{READ} WHERE changed BETWEEN @start_ts AND @end_ts",
                ", audits (unique_values(columns := (id)))",
            ),
            **of_kind("by_partition", "INCREMENTAL_BY_PARTITION", READ, ", partitioned_by [region]"),
            **of_kind("appended", "INCREMENTAL_UNMANAGED"),
            "models/sales.sql": """\
                MODEL (
                  name marts.sales_@region, kind FULL,
                  blueprints ((region := eu, least := 1), (region := us, least := 5)),
                  audits (forall(criteria := (id >= @least), blocking := false))
                );
                SELECT id FROM raw.events WHERE region = @'@{region}'
            """,
        },
        steps=(
            Step(
                config={"execution_time": "2026-02-02 00:30:00"},
                expected={
                    "marts/regions": executed({"not_null": PASSED}, batches=1),
                    "marts/seen": executed(),
                    # DuckDB has no materialized views: SQLMesh makes a view, and says nothing of it.
                    "marts/stored": executed(),
                    "marts/reads_inlined": executed(),
                    "marts/forward": executed(intervals="2026-01-01 to 2026-02-02"),
                    "marts/versions_by_time": executed(),
                    "marts/versions_by_column": executed(),
                    "marts/by_key": executed({"unique_values": PASSED}),
                    "marts/by_partition": executed(),
                    "marts/appended": executed(),
                    "marts/sales_eu": executed({"forall": PASSED}),
                    "marts/sales_us": executed({"forall": WARNED}),
                },
            ),
            Step(
                config={"execution_time": "2026-02-03 00:30:00"},
                expected={
                    "marts/regions": skipped("up_to_date", next_due=absent),
                    "marts/seen": executed(),
                    "marts/stored": executed(),
                    "marts/reads_inlined": executed(),
                    "marts/forward": executed(intervals="2026-02-02 to 2026-02-03"),
                    "marts/versions_by_time": executed(),
                    "marts/versions_by_column": executed(),
                    "marts/by_key": executed({"unique_values": PASSED}),
                    "marts/by_partition": executed(),
                    "marts/appended": executed(),
                    "marts/sales_eu": executed({"forall": PASSED}),
                    "marts/sales_us": executed({"forall": WARNED}),
                },
            ),
        ),
        postgres=True,
    ),
]
