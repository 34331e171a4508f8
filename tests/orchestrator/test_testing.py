"""A user's own tests, without SQLMesh. Annotations are not postponed: Dagster reads those of asset functions."""

from dataclasses import replace

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import LaunchError, SQLMeshResource, sqlmesh_assets
from dagster_sqlmesh_pipes.due import due_by_state
from dagster_sqlmesh_pipes.testing import A_DAY, ScriptedLauncher, executed, failed, skipped

ORDERS, REVENUE, DAILY = (
    f'"db"."{name}"' for name in ('staging"."orders', 'marts"."revenue', 'marts"."daily')
)
KEYS = {
    ORDERS: dg.AssetKey(["db", "staging", "orders"]),
    REVENUE: dg.AssetKey(["db", "marts", "revenue"]),
    DAILY: dg.AssetKey(["db", "marts", "daily"]),
}
STATUS = "sqlmesh_execution_status"


@pytest.fixture
def shop(project, model, audit):
    return project(
        model("db", "staging", "orders", audits=(audit("not_null"),)),
        model("db", "marts", "revenue", depends_on=(ORDERS,), audits=(audit("positive"),)),
        model("db", "marts", "daily", depends_on=(REVENUE,)),
    )


@pytest.fixture
def materialize(shop):
    def run(launcher: ScriptedLauncher, **settings) -> dg.ExecuteInProcessResult:
        @sqlmesh_assets(project=shop, retry_policy=settings.pop("retry_policy", None))
        def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
            yield from sqlmesh.run(context)

        resources = {"sqlmesh": SQLMeshResource(shop, launcher=launcher)}
        return dg.materialize([warehouse], resources=resources, raise_on_error=False, **settings)

    return run


def checks(result: dg.ExecuteInProcessResult) -> dict[tuple[dg.AssetKey, str], bool]:
    return {(each.asset_key, each.check_name): each.passed for each in result.get_asset_check_evaluations()}


def materialized(result: dg.ExecuteInProcessResult) -> list[dg.AssetKey]:
    return [event.asset_key for event in result.get_asset_materialization_events()]


def test_what_a_script_says_of_models_is_what_dagster_has(materialize):
    launcher = ScriptedLauncher(
        [
            *executed(ORDERS, rows=3, audits={"not_null": 2}),
            *failed(REVENUE, "division by zero", audits={"positive": 1}),
            *skipped(DAILY, "upstream_failed", blocked_by=[REVENUE]),
        ]
    )

    result = materialize(launcher)

    assert not result.success
    assert materialized(result) == [KEYS[ORDERS]]
    assert checks(result) == {
        (KEYS[ORDERS], STATUS): True,
        (KEYS[ORDERS], "not_null"): False,
        (KEYS[REVENUE], STATUS): False,
        (KEYS[REVENUE], "positive"): False,
        (KEYS[DAILY], STATUS): False,
    }
    assert "division by zero" in str(result.failure_data_for_node("warehouse").error)


def test_models_that_dagster_did_not_select_are_not_told(materialize):
    launcher = ScriptedLauncher([*executed(ORDERS), *executed(REVENUE), *executed(DAILY)])

    result = materialize(launcher, selection=dg.AssetSelection.assets(KEYS[REVENUE]))

    assert (result.success, materialized(result)) == (True, [KEYS[REVENUE]])


def test_models_that_a_script_does_not_have_are_not_deployed(materialize):
    result = materialize(ScriptedLauncher(executed(ORDERS)))

    reasons = {
        each.asset_key: each.metadata["reason"].value
        for each in result.get_asset_check_evaluations()
        if not each.passed
    }
    assert reasons == {KEYS[REVENUE]: "not_deployed", KEYS[DAILY]: "not_deployed"}


def test_a_script_without_models_is_a_run_with_nothing_to_do(materialize):
    assert materialize(ScriptedLauncher()).success


def test_a_runner_that_dies_is_told_as_such(materialize):
    result = materialize(ScriptedLauncher(executed(ORDERS), dies=True))

    assert materialized(result) == [KEYS[ORDERS]]
    assert "SIGKILL" in str(result.failure_data_for_node("warehouse").error)


@pytest.mark.parametrize(("transient", "attempts"), [(True, 3), (False, 1)])
def test_a_step_is_tried_again_where_that_can_help(materialize, transient, attempts):
    launcher = ScriptedLauncher(failed(ORDERS, "connection reset", transient=transient))

    materialize(launcher, retry_policy=dg.RetryPolicy(max_retries=2))

    assert [call.arguments[:2] for call in launcher.calls] == [["run", "prod"]] * attempts


def test_what_a_runner_was_asked_for_is_to_be_seen(shop):
    launcher = ScriptedLauncher(executed(ORDERS))

    @sqlmesh_assets(project=shop)
    def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
        yield from sqlmesh.run(context)

    dg.materialize(
        [warehouse],
        resources={"sqlmesh": SQLMeshResource(shop, launcher=launcher, ignore_cron=True, environment="dev")},
    )

    assert launcher.calls[0].arguments[:2] == ["run", "dev"]
    assert "--ignore-cron" in launcher.calls[0].arguments


def test_what_is_no_run_is_refused_in_a_sentence(shop):
    launcher = ScriptedLauncher(executed(ORDERS))
    resource = SQLMeshResource(shop, launcher=launcher)

    with pytest.raises(LaunchError, match="sqlmesh-runner due"):
        due_by_state(resource, KEYS)


def test_an_audit_that_fails_in_one_of_several_batches_has_failed(materialize):
    first, *rest = executed(ORDERS, audits={"not_null": 2})
    failing, done = rest
    passing = replace(failing, passed=True, failing_rows=0, interval=A_DAY)

    result = materialize(ScriptedLauncher([first, failing, passing, done]))

    assert [
        each.passed for each in result.get_asset_check_evaluations() if each.check_name == "not_null"
    ] == [False]
