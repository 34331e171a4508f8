"""What a translator's methods say is what Dagster shows."""

import warnings
from datetime import timedelta

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import (
    DuplicateAssetKeyError,
    ExternalAssetKeyError,
    SQLMeshTranslator,
    TranslationError,
    build_sqlmesh_asset_selection,
)
from dagster_sqlmesh_pipes.translator import readable, split_fqn, with_readable_names

SOURCE = '"jaffle_db"."main"."raw_source_customers"'


def translator(**methods) -> SQLMeshTranslator:
    """An instance of a subclass with these methods."""
    return type("Custom", (SQLMeshTranslator,), methods)()


def test_each_method_of_a_subclass_takes_effect(spec_of, model):
    condition = dg.AutomationCondition.eager()
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=5))
    custom = translator(
        get_asset_key=lambda self, model: dg.AssetKey(["own", model.table]),
        get_external_asset_key=lambda self, external_fqn: dg.AssetKey(
            ["lake", external_fqn.count(".") * "x"]
        ),
        get_group_name=lambda self, context, model: f"group_of_{model.table}",
        get_tags=lambda self, context, model: {"tier": "gold"},
        get_owners=lambda self, model: ["team:own"],
        get_description=lambda self, model: f"All about {model.name}",
        get_kinds=lambda self, model, engine: {f"on_{engine}"},
        get_code_version=lambda self, model: f"v{model.data_hash}",
        get_automation_condition=lambda self, model: condition,
        get_freshness_policy=lambda self, model: policy,
    )

    spec = spec_of(
        model("db", "s", "t", owner="ann@example.com", tags=("a",), depends_on=(SOURCE,)), translator=custom
    )

    assert spec.key == dg.AssetKey(["own", "t"])
    assert [dep.asset_key for dep in spec.deps] == [dg.AssetKey(["lake", "xx"])]
    assert spec.group_name == "group_of_t"
    assert {name for name in spec.tags if not name.startswith("dagster/")} == {"tier"}
    assert spec.tags["tier"] == "gold"
    assert list(spec.owners) == ["team:own"]
    assert spec.description == "All about db.s.t"
    assert spec.kinds == {"on_duckdb"}
    assert spec.code_version == "v1"
    assert spec.automation_condition == condition
    assert spec.freshness_policy == policy


def test_a_method_can_say_nothing_at_all(spec_of, model):
    custom = translator(
        get_group_name=lambda self, context, model: None,
        get_description=lambda self, model: None,
        get_code_version=lambda self, model: None,
        get_freshness_policy=lambda self, model: None,
    )

    spec = spec_of(model("db", "s", "t", description="Something"), translator=custom)

    assert spec.group_name in (None, "default")
    assert (spec.description, spec.code_version, spec.freshness_policy) == (None, None, None)


def test_metadata_of_a_translator_s_own_stands_beside_what_a_run_needs(spec_of, model, column):
    upstream = model("db", "s", "up")
    custom = translator(
        get_metadata=lambda self, model, keys: {
            **SQLMeshTranslator.get_metadata(self, model, ["cron", "tags", "project"]),
            "asked_for": ", ".join(keys[:2]),
            "sqlmesh/model": "of the translator",
        }
    )
    down = model(
        "db",
        "s",
        "down",
        tags=("b", "a"),
        project="shop",
        columns=(column("id", "INT", (upstream.fqn, "id")),),
    )

    spec = spec_of(upstream, down, translator=custom)

    assert spec.metadata["sqlmesh/tags"] == "b, a"
    assert spec.metadata["sqlmesh/project"] == "shop"
    assert spec.metadata["asked_for"] == "kind, cron"
    assert "sqlmesh/query" not in spec.metadata
    assert "dagster/column_lineage" in spec.metadata
    # How a run finds the model again is nobody else's to say.
    assert spec.metadata["sqlmesh/model"] == down.fqn
    assert spec.metadata["sqlmesh/kind"] == "FULL"


def test_a_check_has_the_name_that_the_translator_gives(define, model, audit):
    custom = translator(get_check_name=lambda self, model, audit: f"{model.table}__{audit.audit}")

    definition = define(model("db", "s", "t", audits=(audit("not_null"),)), translator=custom)

    assert {check.name for check in definition.check_specs} == {"sqlmesh_execution_status", "t__not_null"}


def test_a_custom_key_is_the_one_that_selections_find(define, model):
    custom = translator(get_asset_key=lambda self, model: dg.AssetKey(["own", model.table.upper()]))
    first = model("db", "s", "first")
    definition = define(first, model("db", "s", "second", depends_on=(first.fqn,)), translator=custom)

    selection = build_sqlmesh_asset_selection(definition, select="s.first+")

    assert selection.resolve([definition]) == {
        dg.AssetKey(["own", "FIRST"]),
        dg.AssetKey(["own", "SECOND"]),
    }


def test_two_models_with_one_key_are_refused_naming_both(define, model):
    custom = translator(get_asset_key=lambda self, model: dg.AssetKey(["own", model.table]))

    with pytest.raises(DuplicateAssetKeyError) as caught:
        define(model("db", "a", "t"), model("db", "b", "t"), translator=custom)

    assert caught.value.models == ('"db"."a"."t"', '"db"."b"."t"')


def test_keys_that_dagster_cannot_tell_apart_are_refused_as_well(define, model):
    custom = translator(get_asset_key=lambda self, model: dg.AssetKey([model.schema, model.table]))

    with pytest.raises(DuplicateAssetKeyError):
        define(model("db", "a-b", "t"), model("db", "a_b", "t"), translator=custom)


def test_a_table_with_a_model_s_key_is_refused_naming_both(define, model):
    custom = translator(get_external_asset_key=lambda self, external_fqn: dg.AssetKey(["db", "s", "t"]))

    # The default get_asset_key asks get_external_asset_key: give models keys of their own here.
    custom.get_asset_key = lambda model: dg.AssetKey(["db", model.schema, model.table])

    with pytest.raises(ExternalAssetKeyError) as caught:
        define(model("db", "s", "t", depends_on=(SOURCE,)), translator=custom)

    assert SOURCE in str(caught.value)
    assert '"db"."s"."t"' in str(caught.value)
    assert "db/s/t" in str(caught.value)


@pytest.mark.parametrize("key", [None, "target/main", ["target"]])
def test_a_table_with_no_key_is_refused(key, define, model):
    custom = translator(
        get_asset_key=lambda self, model: dg.AssetKey(model.table),
        get_external_asset_key=lambda self, external_fqn: key,
    )

    with pytest.raises(
        ExternalAssetKeyError, match=r"must give a dagster\.AssetKey for .*raw_source_customers"
    ):
        define(model("db", "s", "t", depends_on=(SOURCE,)), translator=custom)


def external_key(define, model, template: str, fqn: str = SOURCE, **parameters) -> str:
    definition = define(
        model("db", "s", "t", depends_on=(fqn,)), external_asset_mapping=template, **parameters
    )
    (dep,) = next(iter(definition.specs)).deps
    return dep.asset_key.to_user_string()


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("target/main/{node.name}", "target/main/raw_source_customers"),
        ("target/main/{node.table}", "target/main/raw_source_customers"),
        ("{node.schema}/{node.name}", "main/raw_source_customers"),
        ("{node.database}/{node.schema}/{node.name}", "jaffle_db/main/raw_source_customers"),
        ("{node.catalog}/x", "jaffle_db/x"),
        ("target/{{ node.schema }}/{{node.name}}", "target/main/raw_source_customers"),
        ("raw_{node.name}_v2", "raw_raw_source_customers_v2"),
        ("{ node.name }", "raw_source_customers"),
    ],
)
def test_an_external_key_follows_the_template(template, key, define, model):
    assert external_key(define, model, template) == key


def takes_dots() -> bool:
    """Whether this release of Dagster reads from an asset whose key has a dot in it. Since 1.13.4."""
    try:
        dg.asset(name="reader", deps=[dg.AssetKey("a.b")])(lambda: None)
    except dg.DagsterInvalidDefinitionError:
        return False
    return True


@pytest.mark.skipif(not takes_dots(), reason="this release of Dagster reads from no key with a dot in it")
def test_the_template_may_ask_for_a_whole_name(define, model):
    assert external_key(define, model, "{node.fqn}") == "jaffle_db.main.raw_source_customers"


@pytest.mark.parametrize(
    ("fqn", "key"),
    [('"main"."customers"', "target/main/customers"), ('"customers"', "target/customers")],
)
def test_a_part_of_the_template_that_a_table_does_not_have_is_left_out(fqn, key, define, model):
    assert external_key(define, model, "target/{node.catalog}/{node.schema}/{node.name}", fqn) == key


def test_an_external_key_of_strange_names_is_made_safe(define, model):
    assert external_key(define, model, "target/{node.name}", '"d"."s"."my table"') == "target/my_table"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("target/{node.nane}", "there is no nane"),
        ("target/main", "must hold one or more of {node.name}"),
        ("{name}", "must hold one or more of {node.name}"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused(template, words, define, model):
    with pytest.raises(ValueError, match="external_asset_mapping") as caught:
        external_key(define, model, template)

    assert words in str(caught.value)


def test_two_tables_that_a_template_gives_one_key_are_one_dependency(define, model):
    reader = model("db", "s", "t", depends_on=('"a"."x"."raw"', '"b"."x"."raw"'))

    (spec,) = define(reader, external_asset_mapping="target/{node.name}").specs

    assert [dep.asset_key.to_user_string() for dep in spec.deps] == ["target/raw"]


def test_a_translator_with_a_method_of_its_own_goes_before_the_template_with_a_warning(define, model):
    custom = translator(
        get_asset_key=lambda self, model: dg.AssetKey(model.table),
        get_external_asset_key=lambda self, external_fqn: dg.AssetKey("own"),
    )

    with pytest.warns(UserWarning, match=r"Custom\.get_external_asset_key goes before it"):
        key = external_key(define, model, "target/{node.name}", translator=custom)

    assert key == "own"


def test_a_translator_without_that_method_takes_the_template_without_a_warning(define, model):
    custom = translator(get_group_name=lambda self, context, model: "own")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert external_key(define, model, "target/{node.name}", translator=custom) == (
            "target/raw_source_customers"
        )


def test_parameters_go_before_the_translator(spec_of, model):
    spec = spec_of(
        model("db", "s", "t", owner="ann@example.com"),
        group_name="of the parameter",
        owners=["bob@example.com", "data"],
    )

    assert spec.group_name == "of_the_parameter"
    assert list(spec.owners) == ["bob@example.com", "team:data"]


def test_a_method_of_external_tables_alone_leaves_the_models_keys_as_they_are(define, model):
    class External(SQLMeshTranslator):
        def get_external_asset_key(self, external_fqn):
            return dg.AssetKey(["ingested", external_fqn.replace('"', "").split(".")[-1]])

    definition = define(model("db", "s", "t", depends_on=('"db"."raw"."source"',)), translator=External())

    (spec,) = definition.specs
    assert spec.key == dg.AssetKey(["db", "s", "t"])
    assert [dep.asset_key for dep in spec.deps] == [dg.AssetKey(["ingested", "source"])]


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        ("get_asset_key", None, "get_asset_key must give a dagster.AssetKey, and gave None"),
        ("get_asset_key", ["a", "b"], "get_asset_key must give a dagster.AssetKey"),
        ("get_asset_key", ValueError("no such thing"), "get_asset_key raised ValueError('no such thing')"),
        ("get_tags", None, "'NoneType' object is not a mapping"),
        ("get_metadata", ValueError("no such thing"), "no such thing"),
        ("get_owners", ["no owner at all"], "no owner at all"),
        ("get_kinds", {str(number) for number in range(11)}, "Assets can have at most"),
    ],
)
def test_what_a_translator_gives_that_is_no_asset_is_told_with_the_model(define, model, method, given, words):
    def give(self, *arguments):
        if isinstance(given, Exception):
            raise given
        return given

    translator = type("Own", (SQLMeshTranslator,), {method: give})()

    with pytest.raises(TranslationError) as caught:
        define(model("db", "s", "t"), translator=translator)

    assert caught.value.model == '"db"."s"."t"'
    assert '"db"."s"."t"' in str(caught.value)
    assert words in str(caught.value)


def test_a_key_and_a_group_of_a_translator_s_own_are_made_safe(define, model):
    class Own(SQLMeshTranslator):
        def get_asset_key(self, model):
            return dg.AssetKey(["warehouse", model.schema, model.table])

        def get_group_name(self, context, model):
            return model.schema

    (spec,) = define(model("db", "my schema", "köln b"), translator=Own()).specs

    assert spec.key == dg.AssetKey(["warehouse", "my_schema", "k_ln_b"])
    assert spec.group_name == "my_schema"


@pytest.mark.parametrize(
    ("fqn", "text"),
    [
        ('"db"."marts"."orders"', "db.marts.orders"),
        ("a_signal", "a_signal"),
        ('"my-schema"."dotted.name"', 'my-schema."dotted.name"'),
        ('"db"."it""s"', 'db."it""s"'),
        ('"a b"."größe"', '"a b".größe'),
    ],
)
def test_a_name_is_written_with_quotes_only_where_a_part_needs_them(fqn, text):
    assert readable(fqn) == text
    assert split_fqn(text) == split_fqn(fqn)


def test_names_in_a_sentence_are_written_as_people_do_and_other_quotes_left():
    text = 'It reads "db"."s"."a", "db"."s"."b" and the column "c".'

    assert with_readable_names(text) == 'It reads db.s.a, db.s.b and the column "c".'
