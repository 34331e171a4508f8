"""What a manifest becomes in Dagster, whatever names a project has."""

import dataclasses
from datetime import timedelta

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import DuplicateAssetKeyError, SQLMeshTranslator
from dagster_sqlmesh_pipes.specs import SpecIndex, build_specs
from dagster_sqlmesh_pipes.translator import safe_tag, split_fqn
from sqlmesh_pipes_protocol.manifest import DeployedModel, Deployment


def load(specs) -> dg.AssetsDefinition:
    """As Dagster loads them: it refuses names that it cannot tell apart."""

    @dg.multi_asset(specs=specs.assets, check_specs=specs.checks, can_subset=True)
    def assets():
        yield from ()

    dg.Definitions([assets]).resolve_asset_graph()
    return assets


@pytest.mark.parametrize(
    "names",
    [
        [("db", "s", "b_c"), ("db", "s_b", "c")],
        [("db", "s", "b__c"), ("db", "s__b", "c")],
        [("db", "my-schema", "t"), ("db", "my_schema", "t"), ("db", "my.schema", "t")],
        [("one", "s", "t"), ("two", "s", "t")],
        [("db", "s", "a b"), ("db", "s", "a_b"), ("db", "s", "a$b")],
        [("db", "s", "Été"), ("db", "s", "Ete"), ("db", "s", "ete")],
        [("db", "s", 'quoted "name"'), ("db", "s", "quoted__name_")],
    ],
)
def test_names_that_look_alike_load_and_stay_apart(names, model, manifest):
    models = [model(*[part.replace('"', '""') for part in parts]) for parts in names]
    specs = build_specs(manifest(*models), SQLMeshTranslator())

    definition = load(specs)

    index = SpecIndex.of(definition.specs, definition.check_specs)
    assert set(index.keys) == {model.fqn for model in models}
    assert len({key.to_python_identifier() for key in index.keys.values()}) == len(models)


def test_a_plain_name_keeps_its_key_when_a_look_alike_joins_the_project(model, manifest):
    plain, strange = model("db", "my_schema", "t"), model("db", "my-schema", "t")
    alone = build_specs(manifest(plain), SQLMeshTranslator()).assets[0].key

    together = build_specs(manifest(strange, plain), SQLMeshTranslator())

    assert alone == dg.AssetKey(["db", "my_schema", "t"])
    assert alone in {spec.key for spec in together.assets}


class Custom(SQLMeshTranslator):
    def get_asset_key(self, model):
        return dg.AssetKey(["warehouse", model.table])

    def get_external_asset_key(self, external_fqn):
        return dg.AssetKey(["ingested", split_fqn(external_fqn)[-1]])


def test_a_translator_s_key_is_used_in_specs_dependencies_and_checks_alike(model, audit, manifest):
    upstream = model("db", "a", "first", depends_on=('"db"."raw"."source"',))
    downstream = model("db", "b", "second", depends_on=(upstream.fqn,), audits=(audit("not_null"),))
    specs = build_specs(manifest(upstream, downstream), Custom())

    first, second = specs.assets
    assert first.key == dg.AssetKey(["warehouse", "first"])
    assert [dep.asset_key for dep in first.deps] == [dg.AssetKey(["ingested", "source"])]
    assert [dep.asset_key for dep in second.deps] == [first.key]
    assert {check.asset_key for check in specs.checks} == {first.key, second.key}
    definition = load(specs)
    index = SpecIndex.of(definition.specs, definition.check_specs)
    assert index.checks == {(downstream.fqn, "not_null"): "not_null"}


def test_a_translator_that_gives_two_models_one_key_is_refused_naming_both(model, manifest):
    with pytest.raises(DuplicateAssetKeyError) as caught:
        build_specs(manifest(model("db", "a", "t"), model("db", "b", "t")), Custom())

    assert caught.value.models == ('"db"."a"."t"', '"db"."b"."t"')
    assert "warehouse/t" in str(caught.value)


def test_embedded_models_are_no_assets_and_dependencies_look_through_them(model, manifest):
    source = model("db", "s", "source")
    inner = model("db", "s", "inner", kind="EMBEDDED", depends_on=(source.fqn,))
    outer = model("db", "s", "outer", kind="EMBEDDED", depends_on=(inner.fqn,))
    reader = model("db", "s", "reader", depends_on=(outer.fqn,))
    specs = build_specs(manifest(source, inner, outer, reader), SQLMeshTranslator())

    assert [spec.key.path[-1] for spec in specs.assets] == ["source", "reader"]
    assert [dep.asset_key.path[-1] for dep in specs.assets[1].deps] == ["source"]


def test_every_model_has_a_status_check_and_no_check_blocks_in_dagster(model, audit, manifest):
    checked = model("db", "s", "t", audits=(audit("not_null"), audit("unique_values", blocking=False)))
    specs = build_specs(manifest(checked, model("db", "s", "bare")), SQLMeshTranslator())

    names = [(check.asset_key.path[-1], check.name, check.blocking) for check in specs.checks]
    assert names == [
        ("t", "sqlmesh_execution_status", False),
        ("t", "not_null", False),
        ("t", "unique_values", False),
        ("bare", "sqlmesh_execution_status", False),
    ]


@pytest.mark.parametrize(
    ("owner", "owners"),
    [
        ("ann@example.com", ["ann@example.com"]),
        ("team:data", ["team:data"]),
        ("analytics", ["team:analytics"]),
        (None, []),
    ],
)
def test_owners_are_addresses_or_teams(owner, owners, model, manifest):
    specs = build_specs(manifest(model("db", "s", "t", owner=owner)), SQLMeshTranslator())

    assert list(load(specs).specs_by_key[specs.assets[0].key].owners) == owners


def test_tags_of_any_spelling_load_and_instructions_are_no_tags(model, manifest):
    tags = ("weekly report", "dagster:group_name:marts", "ß" * 3, "x" * 90, "a/b:c")
    specs = build_specs(manifest(model("db", "s", "t", tags=tags)), SQLMeshTranslator())

    loaded = load(specs).specs_by_key[specs.assets[0].key].tags
    own = {tag for tag in loaded if not tag.startswith("dagster/")}
    assert "weekly_report" in own
    assert len(own) == 4
    assert not any("group_name" in tag for tag in own)


def test_tags_made_safe_stay_apart_when_they_are_long():
    assert safe_tag("x" * 90 + "1") != safe_tag("x" * 90 + "2")
    assert len(safe_tag("x" * 90)) <= 63


def own_tags(spec: dg.AssetSpec) -> dict[str, str]:
    return {name: value for name, value in spec.tags.items() if not name.startswith("dagster/")}


def test_a_model_is_an_asset_with_all_that_the_manifest_says_of_it(spec_of, model):
    spec = spec_of(
        model(
            "db",
            "marts",
            "orders",
            description="What was ordered.",
            tags=("finance",),
            owner="ann@example.com",
            data_hash="4711",
        )
    )

    assert spec.key == dg.AssetKey(["db", "marts", "orders"])
    assert spec.description == "What was ordered."
    assert spec.group_name == "marts"
    assert spec.kinds == {"sqlmesh", "duckdb", "sql"}
    assert list(spec.owners) == ["ann@example.com"]
    assert own_tags(spec) == {"finance": ""}
    assert spec.code_version == "4711"
    assert spec.skippable
    assert spec.automation_condition is None
    assert spec.partitions_def is None


@pytest.mark.parametrize("source", ["sql", "python", "seed"])
def test_kinds_are_sqlmesh_the_engine_and_what_the_model_is_written_in(source, define, model, manifest):
    (spec,) = define(manifest(model("db", "s", "t", source=source), engine="snowflake")).specs

    assert spec.kinds == {"sqlmesh", "snowflake", source}


def test_facts_of_the_model_are_metadata_and_what_it_does_not_have_is_left_out(spec_of, model):
    full = spec_of(
        model(
            "db",
            "s",
            "t",
            kind="INCREMENTAL_BY_TIME_RANGE",
            cron="@hourly",
            cron_tz="Europe/Berlin",
            start="2026-01-01",
            end="2026-12-31",
            dialect="spark",
            time_column='"day"',
            partitioned_by=('"day"', "bucket(id)"),
            clustered_by=("id",),
            grain=("day", "id"),
            path="models/t.sql",
            query="SELECT day",
        )
    )
    bare = spec_of(model("db", "s", "t", query=None, dialect=None))

    def facts(spec: dg.AssetSpec) -> dict[str, object]:
        values = {name: getattr(value, "value", value) for name, value in spec.metadata.items()}
        return {name: value for name, value in values.items() if name.startswith("sqlmesh/")}

    assert facts(full) == {
        "sqlmesh/model": '"db"."s"."t"',
        "sqlmesh/kind": "INCREMENTAL_BY_TIME_RANGE",
        "sqlmesh/cron": "@hourly (Europe/Berlin)",
        "sqlmesh/start": "2026-01-01",
        "sqlmesh/end": "2026-12-31",
        "sqlmesh/dialect": "spark",
        "sqlmesh/time_column": "day",
        "sqlmesh/partitioned_by": "day, bucket(id)",
        "sqlmesh/clustered_by": "id",
        "sqlmesh/grain": "day, id",
        "sqlmesh/path": "models/t.sql",
        "sqlmesh/query": "```sql\nSELECT day\n```",
    }
    assert facts(bare) == {
        "sqlmesh/model": '"db"."s"."t"',
        "sqlmesh/kind": "FULL",
        "sqlmesh/cron": "@daily",
    }


@pytest.mark.parametrize(
    ("parts", "name"), [(("db", "s", "t"), "db.s.t"), (("s", "t"), "s.t"), (("t",), "t")]
)
def test_the_table_s_name_is_that_of_the_view_that_readers_query(parts, name, spec_of, model):
    assert spec_of(model(*parts)).metadata["dagster/table_name"] == name


def test_columns_are_a_schema_with_types_and_descriptions(spec_of, model, column):
    columns = (column("id", "BIGINT", description="Key."), column("note", None))

    spec = spec_of(model("db", "s", "t", columns=columns))

    schema = spec.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableColumn | dg.TableSchema | dg.TableSchemaMetadataValue)
    shown = getattr(schema, "value", schema).columns
    assert [(c.name, c.type, c.description) for c in shown] == [
        ("id", "BIGINT", "Key."),
        ("note", "unknown", None),
    ]
    assert "dagster/column_schema" not in spec_of(model("db", "s", "t")).metadata


def test_column_lineage_leads_to_models_and_to_tables_that_sqlmesh_does_not_build(spec_of, model, column):
    upstream = model("db", "s", "up", depends_on=('"db"."raw"."source"',))
    columns = (
        column("id", "INT", (upstream.fqn, "id"), ('"db"."raw"."source"', "key")),
        column("constant", "INT"),
        column("lost", "INT", ('"db"."s"."of_nobody"', "x")),
    )
    down = model("db", "s", "down", depends_on=(upstream.fqn, '"db"."raw"."source"'), columns=columns)

    lineage = spec_of(upstream, down).metadata["dagster/column_lineage"].value.deps_by_column

    assert set(lineage) == {"id"}
    assert {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage["id"]} == {
        ("db/s/up", "id"),
        ("db/raw/source", "key"),
    }


def test_column_lineage_follows_the_keys_of_translator_mapping_and_tags(spec_of, model, column):
    upstream = model("db", "s", "up", tags=("dagster:asset_key:lake/up",))
    columns = (column("id", "INT", (upstream.fqn, "id"), ('"db"."raw"."source"', "key")),)
    down = model("db", "s", "down", depends_on=(upstream.fqn, '"db"."raw"."source"'), columns=columns)

    lineage = spec_of(upstream, down, external_asset_mapping="target/main/{node.name}").metadata[
        "dagster/column_lineage"
    ]

    assert {dep.asset_key.to_user_string() for dep in lineage.value.deps_by_column["id"]} == {
        "lake/up",
        "target/main/source",
    }


def test_a_code_reference_leads_to_the_model_s_file_where_there_is_one(spec_of, model, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/t.sql").write_text("SELECT 1")

    there = spec_of(model("db", "s", "t", path="models/t.sql"))
    gone = spec_of(model("db", "s", "t", path="models/gone.sql"))

    (reference,) = there.metadata["dagster/code_references"].code_references
    assert reference.file_path == str(tmp_path / "models/t.sql")
    assert "dagster/code_references" not in gone.metadata
    assert "dagster/code_references" not in spec_of(model("db", "s", "t", path=None)).metadata


DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("cron", "cron_tz", "longest"),
    [
        ("@hourly", None, timedelta(hours=1)),
        ("@daily", None, DAY),
        ("@weekly", None, 7 * DAY),
        ("@monthly", None, 31 * DAY),
        ("0 6 * * 1-5", None, 3 * DAY),
        ("0 0 * * *", "Europe/Berlin", DAY),
        ("0 0 * 1 *", None, 335 * DAY),
    ],
)
def test_freshness_follows_the_longest_time_between_two_turns(cron, cron_tz, longest, spec_of, model):
    policy = spec_of(model("db", "s", "t", cron=cron, cron_tz=cron_tz)).freshness_policy

    assert policy.fail_window.to_timedelta() == 2 * longest
    assert policy.warn_window.to_timedelta() == 1.25 * longest


@pytest.mark.parametrize(
    "changes",
    [{"kind": "SEED", "source": "seed"}, {"kind": "MANAGED"}, {"kind": "EXTERNAL"}, {"end": "2026-06-30"}],
)
def test_what_no_cron_runs_again_and_again_has_no_freshness(changes, spec_of, model):
    assert spec_of(model("db", "s", "t", **changes)).freshness_policy is None


@pytest.mark.parametrize(
    ("deployed", "tag", "words"),
    [
        (("1", "m"), None, "prod has this version"),
        (("2", "m"), "differs", "prod has another version of the model"),
        (("1", "n"), "differs", "prod has the same query with other metadata or audits"),
        (None, "absent", "prod does not have the model: it runs after `sqlmesh plan prod`"),
    ],
)
def test_an_asset_says_how_the_environment_s_version_compares(deployed, tag, words, define, model, manifest):
    models = (
        {'"db"."s"."t"': DeployedModel(data_hash=deployed[0], metadata_hash=deployed[1])} if deployed else {}
    )
    deployment = Deployment(environment="prod", finalized_at=None, models=models)

    (spec,) = define(
        manifest(model("db", "s", "t", data_hash="1", metadata_hash="m"), deployment=deployment)
    ).specs

    assert spec.tags.get("sqlmesh/deployed") == tag
    assert spec.metadata["sqlmesh/deployed"].startswith(words)


def test_an_asset_says_nothing_of_the_environment_where_the_manifest_does_not(spec_of, model):
    spec = spec_of(model("db", "s", "t"))

    assert "sqlmesh/deployed" not in spec.tags
    assert "sqlmesh/deployed" not in spec.metadata


def test_dependencies_are_models_and_tables_each_once_and_never_the_model_itself(spec_of, model):
    upstream = model("db", "s", "up")
    fqn = '"db"."s"."down"'
    down = model("db", "s", "down", depends_on=(upstream.fqn, '"db"."raw"."source"', fqn))

    spec = spec_of(upstream, down)

    assert [dep.asset_key.to_user_string() for dep in spec.deps] == ["db/raw/source", "db/s/up"]


def test_a_check_describes_its_audit_and_shows_its_query(define, model, audit):
    audits = (audit("at_least", column="a", n="3"), audit("not_null", blocking=False))

    definition = define(model("db", "s", "t", audits=audits))

    checks = {check.name: check for check in definition.check_specs}
    assert checks["at_least"].description == (
        "SQLMesh audit at_least(column := a, n := 3). "
        "SQLMesh blocks: if it fails, the model fails, and what is downstream does not run."
    )
    assert checks["not_null"].description.endswith("If it fails, SQLMesh warns and goes on.")
    assert checks["at_least"].metadata["query"].value == "```sql\nSELECT 1\n```"


def test_a_standalone_audit_is_a_check_on_each_model_that_it_reads(
    define, model, audit, manifest, standalone_audit
):
    one = model("db", "s", "one", audits=(audit("totals match"),))
    inner = model("db", "s", "inner", kind="EMBEDDED", depends_on=(one.fqn,))
    two, other = model("db", "s", "two"), model("db", "s", "other")
    standalone = standalone_audit("totals match", depends_on=(inner.fqn, two.fqn, '"db"."raw"."source"'))

    # The audit of `one` has a name that Dagster takes; the standalone one is given another where they would meet.
    one = dataclasses.replace(one, audits=(audit("totals_match"),))
    definition = define(manifest(one, inner, two, other, standalone_audits=(standalone,)))

    found = {
        (check.asset_key.path[-1], check.name)
        for check in definition.check_specs
        if "sqlmesh/standalone_audit" in check.metadata
    }
    assert found == {("one", "totals_match_standalone"), ("two", "totals_match")}


@pytest.mark.parametrize(
    "owner",
    ["ann@example.technology", "jürgen@exämple.com", "a@b@c.de", "team:", "team:R & D", "Ann B.", "x", "@"],
)
def test_an_owner_of_any_spelling_loads(owner, spec_of, model):
    assert len(spec_of(model("db", "s", "t", owner=owner)).owners) == 1


@pytest.mark.parametrize("schema", ["my schema", "my-schema", "Été", "a/b", "1"])
def test_a_schema_of_any_spelling_is_a_group(schema, spec_of, model):
    assert spec_of(model("db", schema, "t")).group_name


def test_a_model_without_a_schema_is_in_dagster_s_default_group(spec_of, model):
    assert spec_of(model("t")).group_name in (None, "default")
