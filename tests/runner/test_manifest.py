"""The manifest says what SQLMesh loads, and names audits as a run does."""

import json

import pytest
from sqlmesh.core.console import NoopConsole

from sqlmesh_pipes_protocol.digest import project_digest
from sqlmesh_pipes_protocol.manifest import AuditUse, Column, ColumnSource, dump_manifest
from sqlmesh_pipes_runner.adapter import console_replaced
from sqlmesh_pipes_runner.manifest import build_manifest, describe
from sqlmesh_pipes_runner.options import RunOptions


def no_warning(warning):
    raise AssertionError(warning)


def described(warehouse, *, warn=no_warning, **options):
    with console_replaced(NoopConsole()):
        context = warehouse.context()
        try:
            return describe(context, [warehouse.path], warn=warn, **options)
        finally:
            context.close()


@pytest.fixture(scope="module")
def manifest(planned):
    return described(planned)


@pytest.fixture(scope="module")
def models(manifest):
    return {model.name: model for model in manifest.models}


def test_it_says_what_it_was_made_of(manifest, planned):
    assert manifest.projects == ("project",)
    assert (manifest.gateway, manifest.engine, manifest.default_catalog) == ("local", "duckdb", "db")
    assert manifest.digest == project_digest([planned.path])
    assert manifest.versions.sqlmesh


def test_models_stand_after_what_they_read(manifest):
    places = {model.fqn: place for place, model in enumerate(manifest.models)}

    for model in manifest.models:
        assert all(places[parent] < places[model.fqn] for parent in model.depends_on if parent in places)
    assert list(places) != sorted(places)  # or the order would show nothing


def test_models_of_every_kind_are_there_with_kind_and_source(models):
    assert {name: (model.kind, model.source) for name, model in models.items()} == {
        "raw.colours": ("SEED", "seed"),
        "staging.bright": ("EMBEDDED", "sql"),
        "staging.orders": ("FULL", "sql"),
        "marts.days": ("INCREMENTAL_BY_TIME_RANGE", "sql"),
        "marts.doubled": ("FULL", "python"),
        "marts.paid": ("VIEW", "sql"),
    }


def test_a_model_has_what_people_wrote_about_it(models):
    orders = models["staging.orders"]

    assert (orders.catalog, orders.schema, orders.table) == ("db", "staging", "orders")
    assert orders.fqn == '"db"."staging"."orders"'
    assert (orders.description, orders.owner) == ("Orders with their colour.", "shop")
    assert sorted(orders.tags) == ["core", "daily"]
    assert [(column.name, column.type, column.description) for column in orders.columns] == [
        ("id", "INT", "The order."),
        ("colour", "TEXT", None),
    ]
    assert (orders.cron, orders.interval_unit, orders.cron_tz) == ("@daily", "day", None)
    assert len(orders.grain) == 1
    assert "id" in orders.grain[0]
    assert orders.path == "models/orders.sql"
    # An embedded model is part of the query: what it reads is read.
    assert '"db"."staging"."bright"' in orders.depends_on


def test_an_incremental_model_names_its_time_column(models):
    assert '"day"' in (models["marts.days"].time_column or "")
    assert models["staging.orders"].time_column is None


def test_an_end_is_told_where_there_is_one(models):
    assert (models["marts.days"].start, models["marts.days"].end) == ("2026-01-01", "2026-01-03")
    assert models["staging.orders"].end is None


def sources_of(manifest):
    """By model's name and column, what it is computed from, names without quotes."""
    return {
        (model.name, column.name): [
            f"{source.model}.{source.column}".replace('"', "") for source in column.sources
        ]
        for model in manifest.models
        for column in model.columns
    }


def test_columns_name_what_they_are_computed_from_through_embedded_models(manifest, models):
    assert models["staging.bright"].columns[0].sources == (
        ColumnSource(model='"db"."raw"."colours"', column="id"),
    )
    assert sources_of(manifest) == {
        ("raw.colours", "id"): [],
        ("raw.colours", "colour"): [],
        ("staging.bright", "id"): ["db.raw.colours.id"],
        ("staging.bright", "colour"): ["db.raw.colours.colour"],
        ("staging.orders", "id"): ["db.raw.colours.id"],  # staging.bright is part of the query
        ("staging.orders", "colour"): ["db.raw.colours.colour"],
        ("marts.days", "day"): [],
        ("marts.days", "orders"): [],
        ("marts.doubled", "id"): [],
        ("marts.paid", "id"): ["db.landing.payments.id"],  # and not of the table in its filter
    }


LINEAGE = {
    "external_models.yaml": """\
        - name: db.landing.payments
          columns: {id: int, amount: int, order_id: int}
        """,
    "models/base.sql": """
        MODEL (name s.base, kind FULL);
        SELECT id, amount AS a, amount * 2 AS b, order_id FROM db.landing.payments
    """,
    "models/part.sql": "MODEL (name s.part, kind EMBEDDED); SELECT a + b AS ab, id, 1 AS one FROM s.base",
    "models/whole.sql": """
        MODEL (name s.whole, kind EMBEDDED);
        SELECT part.ab, part.one, p.amount FROM s.part JOIN db.landing.payments AS p ON part.id = p.id
    """,
    "models/top.sql": """
        MODEL (name s.top, kind FULL);
        SELECT ab + amount AS mixed, one, (SELECT MAX(b) FROM s.base) AS largest, COUNT(*) OVER () AS n
        FROM s.whole
    """,
    "models/both.sql": """
        MODEL (name s.both, kind FULL);
        WITH x AS (SELECT * FROM s.base), y AS (SELECT id, SUM(amount) AS v FROM db.landing.payments GROUP BY id)
        SELECT x.id, CASE WHEN x.a > 1 THEN y.v END AS v FROM x JOIN y ON x.id = y.id
        UNION ALL SELECT order_id, 0 FROM db.landing.payments
    """,
    "models/running.sql": """
        MODEL (name s.running, kind INCREMENTAL_BY_TIME_RANGE (time_column d), columns (d date, total int));
        SELECT CAST(@start_ds AS DATE) AS d, before.total + base.a AS total
        FROM s.base LEFT JOIN s.running AS before ON TRUE
    """,
    "models/history.sql": """
        MODEL (name s.history, kind SCD_TYPE_2_BY_COLUMN (unique_key id, columns [a]));
        SELECT id, a FROM s.base
    """,
    "models/undeclared.sql": """
        MODEL (name s.undeclared, kind FULL);
        SELECT u.ID, u."W x", p.amount FROM db.Landing.Unknown AS u JOIN db.landing.payments AS p ON u.id = p.id
    """,
    "models/everything.sql": "MODEL (name s.everything, kind FULL); SELECT * FROM db.landing.unknown",
    "models/templated.sql": """
        MODEL (name s.templated, kind FULL);
        JINJA_QUERY_BEGIN; SELECT {{ 'id' }}, b AS jj FROM s.base; JINJA_END;
    """,
    "models/elsewhere.sql": """
        MODEL (name s.elsewhere, kind FULL, dialect snowflake);
        SELECT "id" AS "k k" FROM "db"."s"."base"
    """,
}


def test_lineage_follows_every_kind_of_query(make_warehouse):
    manifest = described(make_warehouse(LINEAGE, plan=False))

    assert sources_of(manifest) == {
        ("s.base", "id"): ["db.landing.payments.id"],
        ("s.base", "a"): ["db.landing.payments.amount"],
        ("s.base", "b"): ["db.landing.payments.amount"],
        ("s.base", "order_id"): ["db.landing.payments.order_id"],
        ("s.part", "ab"): ["db.s.base.a", "db.s.base.b"],
        ("s.part", "id"): ["db.s.base.id"],
        ("s.part", "one"): [],
        ("s.whole", "ab"): ["db.s.base.a", "db.s.base.b"],
        ("s.whole", "one"): [],
        ("s.whole", "amount"): ["db.landing.payments.amount"],
        ("s.top", "mixed"): ["db.landing.payments.amount", "db.s.base.a", "db.s.base.b"],
        ("s.top", "one"): [],
        ("s.top", "largest"): ["db.s.base.b"],
        ("s.top", "n"): [],
        ("s.both", "id"): ["db.landing.payments.order_id", "db.s.base.id"],
        ("s.both", "v"): ["db.landing.payments.amount", "db.s.base.a"],
        ("s.running", "d"): [],
        ("s.running", "total"): ["db.s.base.a"],  # and not of itself
        ("s.history", "id"): ["db.s.base.id"],
        ("s.history", "a"): ["db.s.base.a"],
        ("s.history", "valid_from"): [],
        ("s.history", "valid_to"): [],
        ("s.undeclared", "id"): ["db.landing.unknown.id"],
        ("s.undeclared", "w x"): ["db.landing.unknown.w x"],
        ("s.undeclared", "amount"): ["db.landing.payments.amount"],
        ("s.templated", "id"): ["db.s.base.id"],
        ("s.templated", "jj"): ["db.s.base.b"],
        ("s.elsewhere", "k k"): ["db.s.base.id"],
    }
    known = {model.fqn for model in manifest.models} | {table.fqn for table in manifest.external_models}
    embedded = {model.fqn for model in manifest.models if model.kind == "EMBEDDED"}
    sources = {
        source.model for model in manifest.models for column in model.columns for source in column.sources
    }
    assert sources <= known - embedded


def test_a_model_whose_lineage_cannot_be_computed_is_named_and_the_others_have_theirs(make_warehouse):
    warehouse = make_warehouse(
        {
            "models/a.sql": "MODEL (name s.a, kind FULL); SELECT 1 AS id, 2 AS n",
            "models/unmatched.sql": """
            MODEL (name s.unmatched, kind FULL);
            SELECT id, n FROM s.a UNION ALL SELECT * FROM db.landing.unknown
            """,
            "models/late.sql": """
            MODEL (name s.late, kind FULL, columns (id int), depends_on (s.a));
            JINJA_QUERY_BEGIN; {% if execution_dt is none %} {% endif %} JINJA_END;
            """,
            "models/b.sql": "MODEL (name s.b, kind FULL); SELECT id FROM s.a",
        },
        plan=False,
    )
    warnings = []
    manifest = described(warehouse, warn=warnings.append)

    late, unmatched = sorted(warnings)
    assert late == 'The columns of "db"."s"."late" have no lineage: its query is only known when it runs'
    assert unmatched.startswith(
        'The columns of "db"."s"."unmatched" have no lineage: '
    )  # the rest is sqlglot's
    assert {place: sources for place, sources in sources_of(manifest).items() if sources} == {
        ("s.b", "id"): ["db.s.a.id"]
    }


def test_without_lineage_no_column_has_sources_and_the_rest_is_the_same(planned, manifest):
    without = described(planned, column_lineage=False)

    assert not any(sources_of(without).values())
    assert [model.fqn for model in without.models] == [model.fqn for model in manifest.models]
    assert without.models[0].columns == manifest.models[0].columns


def test_a_python_model_has_no_query_and_its_declared_columns(models):
    doubled = models["marts.doubled"]

    assert doubled.query is None
    assert doubled.columns == (Column(name="id", type="INT"),)
    assert doubled.depends_on == ('"db"."staging"."orders"',)
    assert doubled.path == "models/doubled.py"
    assert [audit.audit for audit in doubled.audits] == ["not_null"]


def test_external_tables_are_there_declared_or_not(manifest):
    external = {table.fqn: table for table in manifest.external_models}

    assert set(external) == {'"db"."landing"."payments"', '"db"."landing"."refunds"'}
    payments, refunds = external['"db"."landing"."payments"'], external['"db"."landing"."refunds"']
    assert (payments.declared, payments.description) == (True, "Payments as they arrive.")
    assert payments.columns == (Column(name="id", type="INT"),)
    assert (refunds.declared, refunds.columns) == (False, ())
    assert (refunds.catalog, refunds.schema, refunds.table) == ("db", "landing", "refunds")


def test_a_standalone_audit_is_no_models_audit(manifest):
    (audit,) = manifest.standalone_audits

    assert (audit.name, audit.blocking, audit.description) == ("orders_exist", False, "There is an order.")
    assert audit.depends_on == ('"db"."staging"."orders"',)
    assert "HAVING" in (audit.query or "")


def test_audits_of_one_kind_are_told_apart_and_the_use_decides_whether_it_blocks(models):
    audits = models["staging.orders"].audits

    assert [(audit.audit, audit.name, dict(audit.arguments), audit.blocking) for audit in audits] == [
        ("not_null_id", "not_null", {"columns": "(id)"}, True),
        ("not_null_colour", "not_null", {"columns": "(colour)"}, False),
        ("unique_values", "unique_values", {"columns": "(id)"}, True),
        ("few_rows", "few_rows", {"maximum": "1"}, False),
        ("unique_values_2", "unique_values", {"columns": "(id)"}, True),
    ]


def test_the_query_of_an_audit_is_in_the_dialect_that_it_names(make_warehouse):
    warehouse = make_warehouse(
        {
            "models/m.sql": "MODEL (name s.m, kind FULL, audits (odd)); SELECT 'a' AS a",
            "audits/odd.sql": "AUDIT (name odd, dialect bigquery); SELECT * FROM @this_model WHERE a = `b`",
        },
        plan=False,
    )
    (audit,) = described(warehouse).models[0].audits

    assert isinstance(audit, AuditUse)
    assert audit.dialect == "bigquery"
    assert "`b`" in (audit.query or "")


def test_the_digest_and_the_names_do_not_depend_on_how_the_project_is_named(planned, manifest, monkeypatch):
    monkeypatch.setenv("RUNNER_TEST_DATABASE", str(planned.database))
    monkeypatch.chdir(planned.path.parent)
    from pathlib import Path

    built = build_manifest(RunOptions(projects=(Path("project"),)), warn=no_warning)

    assert built.models == manifest.models
    assert built.digest == manifest.digest
    assert built.projects == manifest.projects


def identities(manifest):
    return {
        (model["fqn"], use["audit"]): (use["name"], use["arguments"], use["blocking"])
        for model in manifest["models"]
        for use in model["audits"]
    }


def evaluated(events):
    return {
        (event["model"], event["audit"]): (event["name"], event["arguments"], event["blocking"])
        for event in events
        if event["kind"] == "audit_evaluated" and not event["standalone"]
    }


def test_manifest_and_run_name_the_same_audits_with_the_same_arguments_and_settings(warehouse):
    manifest = json.loads(dump_manifest(described(warehouse)))
    result, events = warehouse.run()

    assert result.exit_code == 0
    assert evaluated(events) == identities(manifest)
    assert len(identities(manifest)) == 7
    standalone = {
        event["audit"] for event in events if event["kind"] == "audit_evaluated" and event["standalone"]
    }
    assert standalone == {audit["name"] for audit in manifest["standalone_audits"]}


DIFFICULT = {
    "models/m.sql": """
        MODEL (
          name s.m, kind FULL,
          audits (
            accepted_values(column := status, is_in := ('a', 'b c', 'it''s')),
            accepted_values(column := other, is_in := ('a', 'ä ö ü', 'x')),
            forall(criteria := (id > 0, LENGTH(status) < 100)),
            forall(criteria := (id > 0, LENGTH(status) < 101), blocking := false),
            number_of_rows(threshold := 0),
            number_of_rows(threshold := 0, blocking := false),
            not_null(columns := (id)),
            skipped_one,
            with_default(minimum := @VAR('least', 0)),
            with_default
          )
        );
        SELECT 1::INT AS id, 'a'::TEXT AS status, 'x'::TEXT AS other
    """,
    "models/n.sql": """
        MODEL (name s."N-1", kind FULL, audits (not_null_non_blocking(columns := (id)), not_null(columns := (ID))));
        SELECT id FROM s.m
    """,
    "audits/skipped_one.sql": "AUDIT (name skipped_one, skip true); SELECT 1 FROM @this_model",
    "audits/with_default.sql": """
        AUDIT (name with_default, defaults (minimum = 0), blocking false);
        SELECT * FROM @this_model WHERE id < @minimum
    """,
}


def test_manifest_and_run_agree_on_difficult_audits_too(make_warehouse):
    warehouse = make_warehouse(DIFFICULT)
    manifest = json.loads(dump_manifest(described(warehouse)))
    result, events = warehouse.run()

    assert result.exit_code == 0, result.output
    names = identities(manifest)
    assert len(names) == 12
    assert set(evaluated(events)) == set(names)
    for place, (name, arguments, blocking) in evaluated(events).items():
        assert (name, arguments) == names[place][:2]
        if name != "skipped_one":  # SQLMesh does not say for one that it skips
            assert blocking == names[place][2]
    assert len([event for event in events if event["kind"] == "audit_evaluated"]) == 12
