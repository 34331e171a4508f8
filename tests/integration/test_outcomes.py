"""What SQLMesh does is what Dagster's event log shows."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest

DAILY_BATCHES = """\
    MODEL (
      name marts.daily,
      kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1, batch_concurrency 1),
      start '2026-01-01', end '2026-01-03'
    );
    SELECT CAST(day AS DATE) AS day, CAST(amount AS INT) AS amount FROM staging.amounts
    WHERE day BETWEEN @start_ds AND @end_ds
"""


def test_every_model_that_ran_is_materialized_with_the_results_of_its_audits(shop, instance):
    outcome = shop.materialize(instance)

    assert outcome.success
    assert len(outcome.materialized) == 13
    assert {outcome.status(key) for key in outcome.materialized} == {("executed", None)}
    audits = {
        place: check for place, check in outcome.checks.items() if place[1] != "sqlmesh_execution_status"
    }
    failed = {place for place, check in audits.items() if not check.passed}
    assert len(audits) == 27
    assert failed == {("marts/order_payments", "orders_have_a_payment")}


def test_a_failing_audit_that_does_not_block_is_a_warning_with_query_and_rows(shop, instance):
    check = shop.materialize(instance).checks["marts/order_payments", "orders_have_a_payment"]

    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.metadata["failing_rows"].value == 1
    assert check.metadata["blocking"].value is False
    assert "payment_count" in check.metadata["query"].value


def test_two_audits_of_one_kind_are_two_checks_each_with_its_own_severity(shop, instance):
    checks = shop.materialize(instance).checks

    always = checks["staging/stg_payments", "not_null_payment_id_order_id_amount"]
    optional = checks["staging/stg_payments", "not_null_paid_at"]
    assert always.passed
    assert optional.passed
    assert always.severity == dg.AssetCheckSeverity.ERROR
    assert optional.severity == dg.AssetCheckSeverity.WARN


def test_what_is_not_due_is_skipped_with_a_reason_and_not_materialized(shop, instance):
    shop.materialize(instance)
    second = shop.materialize(instance)

    assert second.success
    assert second.materialized == {}
    assert second.status("marts/orders") == ("skipped", "cron_not_due")
    assert second.status("raw/orders") == ("skipped", "up_to_date")
    status = second.checks["marts/orders", "sqlmesh_execution_status"]
    assert not status.passed
    assert status.severity == dg.AssetCheckSeverity.WARN
    assert isinstance(status.metadata["next_due"], dg.TimestampMetadataValue)
    assert status.metadata["next_due"].value % timedelta(days=1).total_seconds() == 0
    # No audit ran, so none has a result.
    assert {name for _, name in second.checks} == {"sqlmesh_execution_status"}


def test_exactly_the_selected_models_run(shop, instance):
    selected = dg.AssetSelection.assets(["shop", "raw", "orders"], ["shop", "raw", "products"])

    outcome = shop.materialize(instance, selection=selected)

    assert outcome.success
    assert set(outcome.materialized) == {"raw/orders", "raw/products"}
    assert {key for key, _ in outcome.checks} == {"raw/orders", "raw/products"}


def test_a_check_alone_cannot_be_evaluated_and_says_what_to_do(shop, instance):
    checks = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(["shop", "marts", "orders"]), "not_null"))

    outcome = shop.materialize(instance, selection=checks)

    assert not outcome.success
    assert "to have a check evaluated, materialize its asset" in outcome.failure


def test_a_sql_error_fails_its_model_skips_what_is_downstream_and_leaves_siblings_alone(
    make_warehouse, instance
):
    warehouse = make_warehouse(
        {
            "staging.words": "SELECT 'one' AS word",
            "staging.sibling": "SELECT word FROM staging.words",
            "marts.broken": "SELECT CAST(word AS INT) AS number FROM staging.words",
            "marts.below": "SELECT number FROM marts.broken",
            "marts.further_below": "SELECT number FROM marts.below",
        }
    )
    outcome = warehouse.materialize(instance)

    assert not outcome.success
    assert set(outcome.materialized) == {"staging/words", "staging/sibling"}
    assert outcome.status("marts/broken") == ("failed", "sql")
    failed = outcome.checks["marts/broken", "sqlmesh_execution_status"]
    assert failed.severity == dg.AssetCheckSeverity.ERROR
    assert "Could not convert string 'one' to INT32" in str(failed.metadata["message"].value)
    for below in ("marts/below", "marts/further_below"):
        assert outcome.status(below) == ("skipped", "upstream_failed")
        check = outcome.checks[below, "sqlmesh_execution_status"]
        assert check.metadata["blocked_by"].value == "db.marts.broken"
    assert "1 model failed: db.marts.broken: Conversion Error" in outcome.failure


def test_a_blocking_audit_that_fails_is_an_error_and_its_model_is_not_materialized(make_warehouse, instance):
    warehouse = make_warehouse(
        files={
            "models/numbers.sql": """\
            MODEL (name marts.numbers, kind FULL, audits (
              not_null(columns := (a)), not_null(columns := (b)), unique_values(columns := (a))
            ));
            SELECT 1 AS a, NULL::INT AS b
            """
        }
    )
    outcome = warehouse.materialize(instance)

    assert not outcome.success
    assert outcome.materialized == {}
    assert outcome.status("marts/numbers") == ("failed", "audit")
    passed = {name: check.passed for (_, name), check in outcome.checks.items()}
    assert passed == {
        "sqlmesh_execution_status": False,
        "not_null_a": True,
        "not_null_b": False,
        "unique_values": True,
    }
    assert outcome.checks["marts/numbers", "not_null_b"].severity == dg.AssetCheckSeverity.ERROR


def test_audits_that_ran_before_one_that_cannot_be_evaluated_keep_their_results(make_warehouse, instance):
    warehouse = make_warehouse(
        files={
            "models/numbers.sql": """\
            MODEL (name marts.numbers, kind FULL, audits (not_null(columns := (a)), broken));
            SELECT 'x' AS a;
            AUDIT (name broken);
            SELECT * FROM @this_model WHERE CAST(a AS INT) > 0
            """
        }
    )
    outcome = warehouse.materialize(instance)

    assert outcome.status("marts/numbers") == ("failed", "sql")
    assert outcome.checks["marts/numbers", "not_null"].passed
    assert ("marts/numbers", "broken") not in outcome.checks


def test_a_batch_that_fails_in_the_middle_tells_what_was_done_before(make_warehouse, instance):
    warehouse = make_warehouse(
        {
            "staging.amounts": "SELECT day, amount FROM (VALUES "
            "('2026-01-01', '1'), ('2026-01-02', 'two'), ('2026-01-03', '3')) AS t(day, amount)"
        },
        {"models/daily.sql": DAILY_BATCHES},
    )
    outcome = warehouse.materialize(instance)

    assert outcome.status("marts/daily") == ("failed", "sql")
    metadata = outcome.checks["marts/daily", "sqlmesh_execution_status"].metadata
    assert metadata["intervals_done"].value == "2026-01-01 to 2026-01-02"
    assert metadata["failed_interval"].value == "2026-01-02 to 2026-01-03"
    assert "marts/daily" not in outcome.materialized


def test_a_python_model_that_raises_fails_with_its_own_error(make_warehouse, instance):
    warehouse = make_warehouse(
        files={
            "models/picky.py": """\
            import typing as t
            from sqlmesh import ExecutionContext, model

            @model("marts.picky", columns={"a": "int"}, kind="full")
            def execute(context: ExecutionContext, **kwargs: t.Any):
                print("printed by a model")
                raise ValueError("these numbers do not add up")
            """
        }
    )
    outcome = warehouse.materialize(instance)

    assert outcome.status("marts/picky") == ("failed", "python")
    metadata = outcome.checks["marts/picky", "sqlmesh_execution_status"].metadata
    assert metadata["message"].value == "these numbers do not add up"
    assert metadata["error_class"].value == "builtins.ValueError"


def test_a_model_that_is_not_deployed_is_told_and_does_not_fail_the_others(make_warehouse, instance):
    warehouse = make_warehouse({"staging.old": "SELECT 1 AS a"})
    (warehouse.path / "models/new.sql").write_text("MODEL (name staging.new, kind FULL);\nSELECT 1 AS a")
    warehouse.manifest()

    outcome = warehouse.materialize(instance)

    assert outcome.success
    assert set(outcome.materialized) == {"staging/old"}
    assert outcome.status("staging/new") == ("skipped", "not_deployed")


def test_a_model_that_the_manifest_does_not_know_is_a_warning(make_warehouse, instance):
    warehouse = make_warehouse({"staging.old": "SELECT 1 AS a"})
    assets = warehouse.assets()
    (warehouse.path / "models/new.sql").write_text("MODEL (name staging.new, kind FULL);\nSELECT 1 AS a")
    warehouse.deploy()

    outcome = warehouse.materialize(instance, assets=assets)

    assert outcome.success
    assert set(outcome.materialized) == {"staging/old"}
    assert any('"db"."staging"."new"' in line and "manifest is older" in line for line in outcome.log)


@pytest.mark.parametrize("transient", [True, False])
def test_a_step_is_retried_only_when_that_can_help(make_warehouse, instance, transient, tmp_path):
    error = "ConnectionError('the warehouse hung up')" if transient else "ValueError('never right')"
    marker = tmp_path / "tried"
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS a"},
        {
            "models/flaky.py": f"""\
            import os, pathlib
            import pandas as pd
            import typing as t
            from sqlmesh import ExecutionContext, model

            @model("marts.flaky", columns={{"a": "int"}}, kind="full", depends_on=["staging.first"])
            def execute(context: ExecutionContext, **kwargs: t.Any):
                marker = pathlib.Path({str(marker)!r})
                if not marker.exists():
                    marker.touch()
                    raise {error}
                return pd.DataFrame({{"a": [1]}})
            """
        },
    )
    outcome = warehouse.materialize(
        instance, assets=warehouse.assets(retry_policy=dg.RetryPolicy(max_retries=2))
    )

    assert outcome.retried == (1 if transient else 0)
    assert outcome.success is transient
    assert set(outcome.materialized) == ({"staging/first", "marts/flaky"} if transient else {"staging/first"})
