"""What is done in Dagster's place is what Dagster does, in each release. Annotations are not postponed: Dagster reads those of asset functions."""

import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster_shared.record import as_dict, is_record

from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshProjectComponent
from dagster_sqlmesh_pipes.compat import (
    GROUPS_IN_GROUPS,
    HAS_COMPONENTS,
    MAX_KINDS,
    CheckResult,
    keep_output_asset_keys,
)

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

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
        fields = as_dict(evaluation) if is_record(evaluation) else evaluation._asdict()
        # Of another run.
        return {**fields, "target_materialization_data": fields["target_materialization_data"] is not None}

    ours, theirs = evaluations(CheckResult), evaluations(dg.AssetCheckResult)

    assert list(map(told, ours)) == list(map(told, theirs))
    assert [evaluation.asset_key for evaluation in ours] == KEYS[:2]
    has_target = [evaluation.target_materialization_data is not None for evaluation in ours]
    assert all(has_target) or not hasattr(dg.AssetCheckResult, "_get_target_materialization_data")


def test_a_result_of_a_check_that_the_step_does_not_have_is_refused():
    def compute(context):
        yield CheckResult(asset_key=KEYS[0], check_name="unheard_of", passed=True)

    with pytest.raises(dg.DagsterInvariantViolationError, match="unheard_of"):
        materialize(compute)


def test_an_asset_has_as_many_kinds_as_dagster_takes_and_no_more():
    assert len(dg.AssetSpec("orders", kinds={str(number) for number in range(MAX_KINDS)}).kinds) == MAX_KINDS
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="at most"):
        dg.AssetSpec("orders", kinds={str(number) for number in range(MAX_KINDS + 1)})


def test_a_model_s_own_kinds_go_before_others_where_there_is_no_room_for_all(spec_of, model):
    own = tuple(f"kind{number}" for number in range(MAX_KINDS - 1))

    spec = spec_of(model("db", "s", "t", tags=tuple(f"dagster:kind:{kind}" for kind in own)))

    assert spec.kinds == {*own, "sqlmesh"}


def test_a_group_within_a_group_is_one_of_its_own_where_dagster_has_none(spec_of, model):
    spec = spec_of(model("db", "s", "t", tags=("dagster:group_name:marts/sales",)))

    assert spec.group_name == ("marts/sales" if GROUPS_IN_GROUPS else "marts_sales")


def imported_with(version: str) -> subprocess.CompletedProcess[str]:
    """An import of the package, told that Dagster is of some version."""
    script = f"import dagster; dagster.__version__ = {version!r}; import dagster_sqlmesh_pipes"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_dagster_that_is_too_old_is_told_in_one_sentence():
    done = imported_with("1.11.16")

    assert done.stderr.splitlines()[-1] == (
        "ImportError: dagster_sqlmesh_pipes needs Dagster 1.12 or later, and finds 1.11.16: "
        "pip install --upgrade 'dagster-sqlmesh-pipes[dagster]'"
    )


@pytest.mark.parametrize("version", ["1.12.0", "1.13rc0", "2.0.0", "1!0+dev"])
def test_later_releases_and_working_copies_of_dagster_are_not_refused(version):
    done = imported_with(version)

    assert (done.returncode, done.stderr) == (0, "")


def test_the_oldest_release_that_is_accepted_is_the_oldest_that_is_asked_for():
    (oldest,) = re.findall(r'^dagster = \["dagster>=([0-9.]+)"\]', PYPROJECT.read_text(), re.MULTILINE)
    series, _, patch = oldest.rpartition(".")
    assert patch == "0"
    major, _, minor = series.partition(".")

    assert imported_with(oldest).returncode == 0
    assert imported_with(f"{major}.{int(minor) - 1}.99").returncode == 1


def test_the_component_says_which_dagster_it_needs():
    project = SQLMeshProject("/srv/warehouse")

    if HAS_COMPONENTS:
        assert SQLMeshProjectComponent(project=project).project == project
    else:
        with pytest.raises(
            dg.DagsterInvalidDefinitionError, match=r"needs Dagster 1\.13 or later, and finds 1\.12"
        ):
            SQLMeshProjectComponent(project=project)
