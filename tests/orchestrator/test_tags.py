"""What a model's ``dagster:…`` tags ask for is what Dagster has."""

import warnings

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import DuplicateAssetKeyError, SQLMeshTranslator, TagConventionWarning
from dagster_sqlmesh_pipes.compat import GROUPS_IN_GROUPS, MAX_KINDS


class Opinionated(SQLMeshTranslator):
    """Says something of everything that a tag can ask for."""

    def get_asset_key(self, model):
        return dg.AssetKey(["translator", model.table])

    def get_group_name(self, context, model):
        return "translator"

    def get_owners(self, model):
        return ["team:translator"]

    def get_tags(self, context, model):
        return {"tier": "translator", "kept": "yes"}

    def get_kinds(self, model, engine):
        return {"translator"}

    def get_automation_condition(self, model):
        return dg.AutomationCondition.on_missing()


def first_kinds(*kinds: str) -> set[str]:
    """As many as this release of Dagster takes."""
    return set(kinds[:MAX_KINDS])


PARAMETERS = {"group_name": "parameter", "owners": ["team:parameter"]}


def test_every_instruction_is_followed_and_none_is_a_tag(spec_of, model):
    tags = (
        "finance",
        "dagster:asset_key:raw/orders",
        "dagster:group_name:marts",
        "dagster:owner:ann@example.com",
        "dagster:kind:iceberg",
        "dagster:tag:tier:gold",
        "dagster:automation:eager",
    )

    with warnings.catch_warnings():
        warnings.simplefilter("error", TagConventionWarning)
        spec = spec_of(model("db", "s", "t", tags=tags))

    assert spec.key == dg.AssetKey(["raw", "orders"])
    assert spec.group_name == "marts"
    assert list(spec.owners) == ["ann@example.com"]
    assert spec.kinds == first_kinds("iceberg", "sqlmesh", "duckdb", "sql")
    assert {n: v for n, v in spec.tags.items() if not n.startswith("dagster/")} == {
        "finance": "",
        "tier": "gold",
    }
    assert spec.automation_condition == dg.AutomationCondition.eager()


def test_owners_kinds_and_tags_may_come_several_times(spec_of, model):
    tags = (
        "dagster:owner:ann@example.com",
        "dagster:owner:team:data",
        "dagster:owner:analytics",
        "dagster:kind:iceberg",
        "dagster:kind:s3",
        "dagster:tag:tier:gold",
        "dagster:tag:pii",
        "dagster:tag:sla:9:00",
    )

    spec = spec_of(model("db", "s", "t", tags=tags))

    assert list(spec.owners) == ["ann@example.com", "team:data", "team:analytics"]
    assert spec.kinds >= {"iceberg", "s3", "sqlmesh"}
    assert {n: v for n, v in spec.tags.items() if not n.startswith("dagster/")} == {
        "tier": "gold",
        "pii": "",
        "sla": "9_00",
    }


def test_tags_go_before_parameters_and_these_before_the_translator(spec_of, model):
    tags = ("dagster:group_name:tag", "dagster:owner:team:tag", "dagster:asset_key:tag/t")

    asked = spec_of(model("db", "s", "t", tags=tags), translator=Opinionated(), **PARAMETERS)
    unasked = spec_of(model("db", "s", "t"), translator=Opinionated(), **PARAMETERS)
    bare = spec_of(model("db", "s", "t"), translator=Opinionated())

    def shown(spec):
        return spec.key.to_user_string(), spec.group_name, list(spec.owners)

    assert shown(asked) == ("tag/t", "tag", ["team:tag"])
    assert shown(unasked) == ("translator/t", "parameter", ["team:parameter"])
    assert shown(bare) == ("translator/t", "translator", ["team:translator"])


def test_tags_and_kinds_add_to_the_translator_s_and_an_automation_takes_its_place(spec_of, model):
    tags = ("dagster:tag:tier:tag", "dagster:kind:own", "dagster:automation:eager")

    spec = spec_of(model("db", "s", "t", tags=tags), translator=Opinionated())

    assert (spec.tags["tier"], spec.tags["kept"]) == ("tag", "yes")
    assert spec.kinds == {"translator", "own"}
    assert spec.automation_condition == dg.AutomationCondition.eager()


@pytest.mark.parametrize(
    ("cron", "cron_tz", "condition"),
    [
        ("@daily", None, dg.AutomationCondition.on_cron("@daily", "UTC")),
        ("30 6 * * *", "Europe/Berlin", dg.AutomationCondition.on_cron("30 6 * * *", "Europe/Berlin")),
        ("30 6 * * * 15", None, dg.AutomationCondition.on_cron("30 6 * * *", "UTC")),
        ("cannot be read", None, None),
    ],
)
def test_automation_on_cron_is_the_model_s_own_cron(cron, cron_tz, condition, spec_of, model):
    spec = spec_of(model("db", "s", "t", tags=("dagster:automation:on_cron",), cron=cron, cron_tz=cron_tz))

    assert spec.automation_condition == condition


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("dagster:colour:red", "has no meaning"),
        ("dagster:owners:ann", "has no meaning"),
        ("dagster:", "has no meaning"),
        ("dagster:group_name", "has no value: dagster:group_name:value is expected"),
        ("dagster:group_name:", "has no value"),
        ("dagster:asset_key:", "has no value"),
        ("dagster:tag:", "has no value"),
        ("dagster:automation:weekly", "is not understood: on_cron or eager is expected"),
    ],
)
def test_an_instruction_that_is_not_understood_is_a_warning_and_changes_nothing(tag, words, spec_of, model):
    with pytest.warns(TagConventionWarning) as caught:
        spec = spec_of(model("db", "s", "t", tags=(tag,)))

    (warning,) = [str(w.message) for w in caught if w.category is TagConventionWarning]
    assert repr(tag) in warning
    assert '"db"."s"."t"' in warning
    assert words in warning
    plain = spec_of(model("db", "s", "t"))
    assert (spec.key, spec.group_name, list(spec.owners), dict(spec.tags), spec.automation_condition) == (
        plain.key,
        plain.group_name,
        list(plain.owners),
        dict(plain.tags),
        plain.automation_condition,
    )


@pytest.mark.parametrize(
    "tag",
    [
        "dagster:group_name:my marts",
        "dagster:group_name:/",
        "dagster:owner:Ann B.",
        "dagster:owner:team:",
        "dagster:owner:ann@example.technology",
        "dagster:kind:Apache Iceberg",
        "dagster:kind:" + "x" * 90,
        "dagster:kind:ß",
        "dagster:tag:business unit:sales & marketing",
        "dagster:tag:" + "x" * 90 + ":" + "y" * 90,
        "dagster:tag::value",
        "dagster:tag:a/b/c:value",
        "dagster:tag:/b:value",
        "dagster:asset_key:raw/my orders",
        "dagster:asset_key:/raw//orders/",
        "dagster:asset_key:ß",
    ],
)
def test_a_value_that_dagster_does_not_take_is_made_safe(tag, define, model):
    definition = define(model("db", "s", "t", tags=(tag,)))

    assert len(list(definition.specs)) == 1


def test_a_tag_may_have_a_namespace(spec_of, model):
    spec = spec_of(model("db", "s", "t", tags=("dagster:tag:team/cost center:finance",)))

    assert spec.tags["team/cost_center"] == "finance"


def test_a_group_may_have_groups_in_it(spec_of, model):
    spec = spec_of(model("db", "s", "t", tags=("dagster:group_name:marts/daily sales",)))

    assert spec.group_name == ("marts/daily_sales" if GROUPS_IN_GROUPS else "marts_daily_sales")


def test_a_key_that_a_tag_asks_for_leads_dependencies_and_checks(define, model, audit):
    first = model("db", "s", "first", tags=("dagster:asset_key:lake/first",), audits=(audit("not_null"),))

    definition = define(first, model("db", "s", "second", depends_on=(first.fqn,)))

    specs = {spec.metadata["sqlmesh/model"]: spec for spec in definition.specs}
    assert [dep.asset_key for dep in specs['"db"."s"."second"'].deps] == [dg.AssetKey(["lake", "first"])]
    assert {check.asset_key for check in definition.check_specs} == {
        dg.AssetKey(["lake", "first"]),
        dg.AssetKey(["db", "s", "second"]),
    }


def test_two_models_whose_tags_ask_for_one_key_are_refused_naming_both(define, model):
    tags = ("dagster:asset_key:raw/orders",)

    with pytest.raises(DuplicateAssetKeyError) as caught:
        define(model("db", "a", "t", tags=tags), model("db", "b", "t", tags=tags))

    assert caught.value.models == ('"db"."a"."t"', '"db"."b"."t"')


def test_a_model_gives_way_to_one_whose_tag_asks_for_its_key(define, model):
    asks = model("db", "z", "t", tags=("dagster:asset_key:db/a/t",))

    definition = define(model("db", "a", "t"), asks)

    keys = {spec.metadata["sqlmesh/model"]: spec.key for spec in definition.specs}
    assert keys['"db"."z"."t"'] == dg.AssetKey(["db", "a", "t"])
    assert keys['"db"."a"."t"'] != dg.AssetKey(["db", "a", "t"])
