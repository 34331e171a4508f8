"""What a manifest becomes in Dagster, whatever names a project has."""

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import DuplicateAssetKeyError, SQLMeshTranslator
from dagster_sqlmesh_pipes.specs import SpecIndex, build_specs
from dagster_sqlmesh_pipes.translator import safe_tag, split_fqn


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
