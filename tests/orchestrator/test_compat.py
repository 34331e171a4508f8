"""What is done in Dagster's place is what Dagster does. Annotations are not postponed: Dagster reads those of asset functions."""

import dagster as dg
import pytest
from dagster_shared.record import as_dict

from dagster_sqlmesh_pipes.compat import CheckResult, keep_output_asset_keys

KEYS = [dg.AssetKey(["db", name]) for name in ("orders", "customers", "payments")]
DAYS = dg.DailyPartitionsDefinition("2026-01-01")


def materialize(compute, *, partitions=None, selection=None, partition_key=None) -> dg.ExecuteInProcessResult:
    @dg.multi_asset(
        specs=[dg.AssetSpec(key, skippable=True, partitions_def=partitions) for key in KEYS],
        check_specs=[dg.AssetCheckSpec("not_null", asset=key) for key in KEYS],
        can_subset=True,
    )
    def shop(context: dg.AssetExecutionContext):
        yield from compute(context)

    return dg.materialize([shop], selection=selection, partition_key=partition_key)


@pytest.mark.parametrize("selected", [KEYS, KEYS[:1], KEYS[1:]])
def test_the_keys_that_dagster_keeps_are_those_that_it_gathers(selected):
    found = {}

    def compute(context):
        step = context.get_step_execution_context()
        found["gathered"] = step.get_output_asset_keys()
        keep_output_asset_keys(context)
        found["kept"] = step.get_output_asset_keys()
        yield from ()

    materialize(compute, selection=dg.AssetSelection.assets(*selected))

    assert found["kept"] == found["gathered"] == set(selected)


def test_results_in_another_order_than_that_of_their_dependencies_are_still_refused():
    @dg.multi_asset(
        specs=[dg.AssetSpec("first", skippable=True), dg.AssetSpec("second", deps=["first"], skippable=True)],
        can_subset=True,
    )
    def both(context: dg.AssetExecutionContext):
        keep_output_asset_keys(context)
        yield dg.MaterializeResult("second")
        yield dg.MaterializeResult("first")

    with pytest.raises(dg.DagsterInvariantViolationError, match="topological"):
        dg.materialize([both])


@pytest.mark.parametrize("day", [None, "2026-01-05"])
def test_a_check_result_is_recorded_as_one_of_dagsters_own(day):
    def evaluations(of: type[dg.AssetCheckResult]) -> list[dg.AssetCheckEvaluation]:
        def compute(context):
            for key in KEYS[:2]:
                check = of(
                    asset_key=key,
                    check_name="not_null",
                    passed=False,
                    severity=dg.AssetCheckSeverity.WARN,
                    description="2 rows failed",
                    metadata={"failing_rows": 2},
                )
                yield dg.MaterializeResult(asset_key=key, check_results=[check])

        result = materialize(compute, partitions=DAYS if day else None, partition_key=day)
        return result.get_asset_check_evaluations()

    def told(evaluation: dg.AssetCheckEvaluation) -> dict:
        fields = as_dict(evaluation)
        # Of another run.
        return {**fields, "target_materialization_data": fields["target_materialization_data"] is not None}

    ours = evaluations(CheckResult)

    assert list(map(told, ours)) == list(map(told, evaluations(dg.AssetCheckResult)))
    assert [evaluation.asset_key for evaluation in ours] == KEYS[:2]
    assert all(evaluation.target_materialization_data is not None for evaluation in ours)


def test_a_result_of_a_check_that_the_step_does_not_have_is_refused():
    def compute(context):
        yield CheckResult(asset_key=KEYS[0], check_name="unheard_of", passed=True)

    with pytest.raises(dg.DagsterInvariantViolationError, match="unheard_of"):
        materialize(compute)
