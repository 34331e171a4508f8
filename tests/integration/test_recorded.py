"""What the runner alone has recorded, played again in Dagster: what a user's own tests can rest on."""

from __future__ import annotations

import dagster as dg
import pytest

from dagster_sqlmesh_pipes.testing import ScriptedLauncher


@pytest.fixture
def recorded(shop, tmp_path):
    path = tmp_path / "run.jsonl"
    done = shop.runner("run", "prod", "--project", str(shop.path), "--events", str(path))
    assert done.returncode == 0, done.stderr
    return path


def test_a_recorded_run_is_played_as_it_was(shop, instance, recorded):
    outcome = shop.materialize(instance, launcher=ScriptedLauncher.recorded(recorded))

    assert outcome.success
    assert len(outcome.materialized) == 13
    assert {outcome.status(key) for key in outcome.materialized} == {("executed", None)}
    assert len(outcome.checks) == 13 + 27
    failed = {place: check for place, check in outcome.checks.items() if not check.passed}
    assert failed.keys() == {("marts/order_payments", "orders_have_a_payment")}
    assert "payment_count" in failed["marts/order_payments", "orders_have_a_payment"].metadata["query"].value


def test_of_a_recorded_run_what_dagster_selects_is_played(shop, instance, recorded):
    outcome = shop.materialize(
        instance,
        selection=dg.AssetSelection.assets(["shop", "marts", "orders"]),
        launcher=ScriptedLauncher.recorded(recorded),
    )

    assert (outcome.success, list(outcome.materialized)) == (True, ["marts/orders"])


def test_a_recording_that_was_broken_off_is_a_runner_that_died(shop, instance, recorded):
    lines = [
        line for line in recorded.read_bytes().splitlines() if b'"model":"\\"shop\\".\\"marts' not in line
    ]
    recorded.write_bytes(b"\n".join(line for line in lines if b'"run_finished"' not in line))

    outcome = shop.materialize(instance, launcher=ScriptedLauncher.recorded(recorded))

    assert not outcome.success
    assert "SIGKILL" in outcome.failure
    assert "raw/orders" in outcome.materialized
    assert "marts/orders" not in outcome.materialized
