"""Names that Dagster or SQL could trip over; none is lost, and none is taken for another."""

from __future__ import annotations

from behaviour.case import PASSED, Case, PerEngine, contains, executed, failed, in_one_run, skipped

TWO_CATALOGS = """\
    gateways:
      local:
        connection:
          type: duckdb
          catalogs:
            db: "{{ env_var('TEST_DATABASE') }}"
            db2: "{{ env_var('TEST_DATABASE') }}-2"
    default_gateway: local
    model_defaults: {dialect: duckdb, start: 2026-01-01, cron: '@daily'}
    disable_anonymized_analytics: true
"""


def full(path: str, name: str, query: str, more: str = "") -> dict[str, str]:
    return {f"models/{path}.sql": f"MODEL (name {name}, kind FULL{more});\n{query}"}


CASES = [
    Case(
        name="names_that_must_be_quoted_and_names_that_look_alike",
        sql="CREATE SCHEMA raw; CREATE TABLE raw.undeclared AS SELECT 1 AS a",
        files={
            **full(
                "1", "staging.orders", "SELECT * FROM raw.undeclared", ", audits (not_null(columns := (a)))"
            ),
            **full("2", "marts.orders", "SELECT a FROM staging.orders"),
            **full("3", "s.b_c", "SELECT 1 AS a"),
            **full("4", "s_b.c", "SELECT 1 AS a"),
            **full(
                "5",
                '"my-schema"."order items"',
                'SELECT 1 AS "an item"',
                ', audits (not_null(columns := ("an item")))',
            ),
            **full("6", '"Upper"."Case"', 'SELECT "an item" FROM "my-schema"."order items"'),
            **full(
                "7", '"my-schema"."dotted.name"', "SELECT CAST(CAST(a AS TEXT) || 'x' AS INT) AS a FROM s.b_c"
            ),
            **full("8", '"my-schema"."it\'s ""so"""', 'SELECT a FROM "my-schema"."dotted.name"'),
            **full("9", "my_schema.order_items", "SELECT 1 AS a"),
        },
        steps=in_one_run(
            {
                "staging/orders": executed({"not_null": PASSED}),
                "marts/orders": executed(),
                "s/b_c": executed(),
                "s_b/c": executed(),
                # Its default key and that of the next would be one name to Dagster: it gets a digest.
                "my-schema/order_items_#": executed(
                    {"not_null": PASSED}, **{"sqlmesh/model": contains('"my-schema"."order items"')}
                ),
                "my_schema/order_items": executed(**{"sqlmesh/model": contains('"my_schema"."order_items"')}),
                # SQLMesh writes names in lower case for DuckDB, quoted or not.
                PerEngine(duckdb="upper/case", postgres="Upper/Case"): executed(
                    **{
                        "dagster/table_name": PerEngine(
                            duckdb="db.upper.case", postgres=contains("Upper.Case")
                        )
                    }
                ),
                "my-schema/dotted.name": failed("sql", message=contains("1x")),
                "my-schema/it_s__so_": skipped(
                    "upstream_failed",
                    blocked_by=contains('my-schema."dotted.name"'),
                ),
            },
            failure=('my-schema."dotted.name": ',),
        ),
        postgres=True,
    ),
    Case(
        name="one_name_in_two_catalogs",
        files={
            "config.yaml": TWO_CATALOGS,
            **full("1", "marts.orders", "SELECT 1 AS a"),
            **full(
                "2", "db2.marts.orders", "SELECT a FROM marts.orders", ", audits (not_null(columns := (a)))"
            ),
            **full("3", "db2.marts.broken", "SELECT CAST('x' || a AS INT) AS a FROM db2.marts.orders"),
            **full("4", "marts.below", "SELECT a FROM db2.marts.broken"),
        },
        steps=in_one_run(
            {
                "marts/orders": executed(**{"sqlmesh/model": '"db"."marts"."orders"'}),
                "db2/marts/orders": executed(
                    {"not_null": PASSED}, **{"sqlmesh/model": '"db2"."marts"."orders"'}
                ),
                "db2/marts/broken": failed("sql"),
                "marts/below": skipped("upstream_failed", blocked_by="db2.marts.broken"),
            },
            failure=("1 model failed: db2.marts.broken: ",),
        ),
        only_duckdb="a PostgreSQL connection sees one database",
    ),
]
