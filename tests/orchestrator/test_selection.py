"""Which models an expression selects."""

import dagster as dg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dagster_sqlmesh_pipes import SelectionError, build_sqlmesh_asset_selection, sqlmesh_assets
from dagster_sqlmesh_pipes.selection import select_specs


@pytest.fixture
def models(model):
    """raw → stg (staging) → orders, revenue (marts); customers (crm) stands alone."""

    def fqn(schema: str, table: str) -> tuple[str]:
        return (f'"db"."{schema}"."{table}"',)

    return [
        model("db", "raw", "orders", kind="SEED", source="seed", owner="loader"),
        model("db", "staging", "stg", tags=("finance", "weekly report"), depends_on=fqn("raw", "orders")),
        model(
            "db",
            "marts",
            "orders",
            kind="INCREMENTAL_BY_TIME_RANGE",
            tags=("dagster:tag:tier:gold", "Finance"),
            owner="ann@example.com",
            depends_on=fqn("staging", "stg"),
        ),
        model(
            "db",
            "marts",
            "revenue",
            kind="VIEW",
            source="python",
            tags=("dagster:tag:tier:silver", "dagster:group_name:reports"),
            owner="team:data",
            depends_on=fqn("marts", "orders"),
        ),
        model("crm", "s", "customers", tags=("pii",)),
    ]


@pytest.fixture
def specs(define, models):
    return list(define(*models).specs)


ALL = "raw.orders staging.stg marts.orders marts.revenue s.customers"


def chosen(specs, select, exclude=None) -> str:
    return " ".join(".".join(spec.key.path[1:]) for spec in select_specs(specs, select, exclude))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # names
        ("marts.orders", "marts.orders"),
        ("db.marts.orders", "marts.orders"),
        ('"db"."marts"."orders"', "marts.orders"),
        ("MARTS.Orders", "marts.orders"),
        ("marts.*", "marts.orders marts.revenue"),
        ("*.orders", "raw.orders marts.orders"),
        ("db.*", "raw.orders staging.stg marts.orders marts.revenue"),
        ("crm.*", "s.customers"),
        ("marts.?rders", "marts.orders"),
        ("[mr]*.orders", "raw.orders marts.orders"),
        ("*", ALL),
        # methods
        ("tag:finance", "staging.stg marts.orders"),
        ("tag:FINANCE", "staging.stg marts.orders"),
        ("tag:fin*", "staging.stg marts.orders"),
        ('tag:"weekly report"', "staging.stg"),
        ("tag:weekly_report", "staging.stg"),
        ("tag:tier", "marts.orders marts.revenue"),
        ("tag:tier=gold", "marts.orders"),
        ("tag:tier=*", "marts.orders marts.revenue"),
        ("group:marts", "marts.orders"),
        ("group:reports", "marts.revenue"),
        ("owner:team:data", "marts.revenue"),
        ("owner:data", "marts.revenue"),
        ("owner:ann@example.com", "marts.orders"),
        ("owner:*@example.com", "marts.orders"),
        ("owner:loader", "raw.orders"),
        ("kind:seed", "raw.orders"),
        ("kind:incremental_*", "marts.orders"),
        ("kind:INCREMENTAL_BY_TIME_RANGE", "marts.orders"),
        ("kind:view", "marts.revenue"),
        ("kind:python", "marts.revenue"),
        ("kind:duckdb", ALL),
        # place in the graph
        ("+marts.orders", "raw.orders staging.stg marts.orders"),
        ("staging.stg+", "staging.stg marts.orders marts.revenue"),
        ("+staging.stg+", "raw.orders staging.stg marts.orders marts.revenue"),
        ("+tag:pii", "s.customers"),
        ("+(staging.stg | s.customers)", "raw.orders staging.stg s.customers"),
        ("(raw.orders)+", "raw.orders staging.stg marts.orders marts.revenue"),
        ("+(staging.stg)+", "raw.orders staging.stg marts.orders marts.revenue"),
        ("+(+marts.orders & kind:full)", "raw.orders staging.stg"),
        # operators
        ("raw.orders | s.customers", "raw.orders s.customers"),
        ("raw.orders|s.customers", "raw.orders s.customers"),
        ("raw.orders s.customers", "raw.orders s.customers"),
        ("tag:finance & kind:full", "staging.stg"),
        ("tag:finance&kind:full", "staging.stg"),
        ("tag:finance,kind:full", "staging.stg"),
        ("^tag:finance", "raw.orders marts.revenue s.customers"),
        ("^^tag:pii", "s.customers"),
        ("^(marts.* | raw.*)", "staging.stg s.customers"),
        ("marts.* & ^kind:view", "marts.orders"),
        ("^+marts.orders", "marts.revenue s.customers"),
        ("tag:pii | marts.* & kind:view", "marts.revenue s.customers"),
        ("(tag:pii | marts.*) & kind:view", "marts.revenue"),
        ("((marts.orders))", "marts.orders"),
        ("  marts.orders\t\n", "marts.orders"),
        # several, each of which adds to the others
        (["raw.orders", "s.customers"], "raw.orders s.customers"),
        (["marts.* & kind:view", "tag:pii"], "marts.revenue s.customers"),
    ],
)
def test_an_expression_selects_these_models_in_the_project_s_order(expression, expected, specs):
    assert chosen(specs, expression) == expected


@pytest.mark.parametrize(
    ("select", "exclude", "expected"),
    [
        (None, None, ALL),
        (None, "marts.*", "raw.orders staging.stg s.customers"),
        ("+marts.orders", "raw.*", "staging.stg marts.orders"),
        ("marts.*", ["marts.revenue", "s.customers"], "marts.orders"),
        ("marts.*", "tag:of_nobody", "marts.orders marts.revenue"),
    ],
)
def test_what_is_excluded_is_taken_away(select, exclude, expected, specs):
    assert chosen(specs, select, exclude) == expected


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("(marts.orders", "a parenthesis is not closed"),
        ("marts.orders)", "')' was not expected"),
        ("()", "')' was not expected"),
        ("marts.orders &", "it ends where a model was expected"),
        ("| marts.orders", "'|' was not expected"),
        ("marts.orders & | raw.orders", "'|' was not expected"),
        ("^", "it ends where a model was expected"),
        ("   ", "it ends where a model was expected"),
        ("path:marts/*", "there is no 'path': tag:, group:, owner:, kind:, project: are known"),
        ("marts.order", "there is no model 'marts.order'; there is marts.orders"),
        ("nothing.like_it_at_all", "there is no model 'nothing.like_it_at_all'."),
        ("marts.orders | marts.oders", "there is no model 'marts.oders'; there is marts.orders"),
        ('tag:"weekly report', "a quotation mark is not closed"),
        ('"', "a quotation mark is not closed"),
        ("+", "there is no model ''"),
        (["marts.orders", "(marts.orders"], "a parenthesis is not closed"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_expression_and_the_problem(expression, problem, specs):
    with pytest.raises(SelectionError) as caught:
        select_specs(specs, expression, None)

    text = expression if isinstance(expression, str) else expression[-1]
    assert repr(text) in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("select", "exclude"), [("tag:of_nobody", None), ("nothing.*", None), ("marts.*", "marts.*"), (None, "*")]
)
def test_a_selection_that_leaves_nothing_is_refused(select, exclude, specs):
    with pytest.raises(SelectionError, match="leaves none of 5 models"):
        select_specs(specs, select, exclude)


def test_a_name_in_two_catalogs_selects_both_and_with_the_catalog_one(define, model):
    specs = list(define(model("one", "s", "t"), model("two", "s", "t")).specs)

    assert [spec.key.path[0] for spec in select_specs(specs, "s.t", None)] == ["one", "two"]
    assert [spec.key.path[0] for spec in select_specs(specs, "two.s.t", None)] == ["two"]


def test_a_name_with_strange_characters_is_selected_in_quotes(define, model):
    specs = list(define(model("db", "my schema:1", "a|b"), model("db", "s", "t")).specs)

    (spec,) = select_specs(specs, '"my schema:1"."a|b"', None)

    assert spec.metadata["sqlmesh/model"] == '"db"."my schema:1"."a|b"'


PIECES = st.lists(
    st.sampled_from(
        [*'()|&,^+" :*?[', "tag:", "kind:", "owner:", "group:", "marts.orders", "raw.*", "finance", "full"]
    ),
    max_size=30,
).map("".join)


@given(text=st.text(max_size=40) | PIECES)
@example(text="(" * 5_000)
@example(text="^" * 20_000 + "marts.orders")
@example(text="(" * 5_000 + "marts.orders" + ")" * 5_000)
@example(text="[")
@example(text="[!]")
@example(text="\x00")
def test_any_text_selects_models_or_is_refused(text):
    try:
        selected = select_specs(SPECS, text, None)
    except SelectionError as error:
        assert repr(text) in str(error)  # noqa: PT017 - either is right
    else:
        assert [spec for spec in SPECS if spec in selected] == selected
        assert selected


SPECS = [
    dg.AssetSpec(
        ["db", "raw", "orders"],
        metadata={"sqlmesh/model": '"db"."raw"."orders"', "sqlmesh/kind": "FULL"},
        tags={"finance": ""},
        group_name="raw",
    ),
    dg.AssetSpec(
        ["db", "marts", "orders"],
        deps=[["db", "raw", "orders"]],
        metadata={"sqlmesh/model": '"db"."marts"."orders"', "sqlmesh/kind": "VIEW"},
        owners=["team:data"],
        group_name="marts",
    ),
]


def test_assets_are_made_of_the_selected_models_with_their_checks_alone(define, models, audit, model):
    extra = model("db", "marts", "extra", audits=(audit("not_null"),))

    definition = define(*models, extra, select="marts.*", exclude="marts.revenue")

    assert {key.to_user_string() for key in definition.keys} == {"db/marts/orders", "db/marts/extra"}
    assert {(check.asset_key.path[-1], check.name) for check in definition.check_specs} == {
        ("orders", "sqlmesh_execution_status"),
        ("extra", "sqlmesh_execution_status"),
        ("extra", "not_null"),
    }
    deps = {s.key.path[-1]: [d.asset_key.to_user_string() for d in s.deps] for s in definition.specs}
    assert deps == {"orders": ["db/staging/stg"], "extra": []}


def test_a_selection_reaches_over_assets_that_are_split(project, models):
    made = project(*models)

    @sqlmesh_assets(project=made, select="marts.*")
    def marts(context: dg.AssetExecutionContext):
        yield from ()

    @sqlmesh_assets(project=made, exclude="marts.*")
    def rest(context: dg.AssetExecutionContext):
        yield from ()

    @dg.asset
    def other(): ...

    selection = build_sqlmesh_asset_selection([marts, rest, other], select="staging.stg+ | tag:pii")

    definitions = dg.Definitions(
        [marts, rest, other], jobs=[dg.define_asset_job("some", selection=selection)]
    )
    keys = definitions.resolve_job_def("some").asset_layer.selected_asset_keys
    assert {key.to_user_string() for key in keys} == {
        "db/staging/stg",
        "db/marts/orders",
        "db/marts/revenue",
        "crm/s/customers",
    }
    everything = build_sqlmesh_asset_selection([marts, rest, other]).resolve([marts, rest, other])
    assert everything == {*marts.keys, *rest.keys}
    with pytest.raises(SelectionError, match=r"there is no model 'staging\.stg'"):
        build_sqlmesh_asset_selection(marts, select="staging.stg")
