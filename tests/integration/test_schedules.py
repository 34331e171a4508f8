"""What a tick of the adaptive schedule asks for, after real runs on a real instance.

Annotations are not postponed: Dagster reads those of asset functions.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import (
    SQLMeshProject,
    SQLMeshResource,
    SQLMeshRunConfig,
    build_sqlmesh_asset_selection,
    build_sqlmesh_schedule,
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_assets,
    sqlmesh_assets_factory,
    sqlmesh_definitions_factory,
)
from support.daemon import daemon
from support.waiting import wait_for
from support.warehouse import CONFIG, DUCKDB, Outcome, Warehouse, write

MODELS = {"staging.first": "SELECT 1 AS a", "marts.second": "SELECT a FROM staging.first"}
ALL = {"staging/first", "marts/second"}


@dataclass
class Scheduled:
    """Definitions of a project, its job and its schedule."""

    defs: dg.Definitions
    instance: dg.DagsterInstance
    name: str = "sqlmesh_adaptive_schedule"
    job: str = "sqlmesh_job"

    def tick(self) -> dg.RunRequest | str:
        """What a tick asks for now, or why it is skipped."""
        repository = self.defs.get_repository_def()
        with dg.build_schedule_context(
            instance=self.instance,
            repository_def=repository,
            scheduled_execution_time=datetime.now(timezone.utc),
        ) as context:
            data = repository.get_schedule_def(self.name).evaluate_tick(context)
        if data.run_requests:
            (request,) = data.run_requests
            return request
        assert data.skip_message is not None
        return data.skip_message

    def asked(self) -> set[str] | None:
        """The assets that a tick asks for, without their catalog; None for the whole job."""
        request = self.tick()
        assert isinstance(request, dg.RunRequest), request
        if request.asset_selection is None:
            return None
        return {"/".join(key.path[1:]) for key in request.asset_selection}

    def follow(self) -> Outcome:
        """Run what a tick asks for."""
        request = self.tick()
        assert isinstance(request, dg.RunRequest), request
        result = self.defs.resolve_job_def(self.job).execute_in_process(
            instance=self.instance,
            asset_selection=list(request.asset_selection) if request.asset_selection else None,
            tags=dict(request.tags),
            raise_on_error=False,
        )
        return Outcome.read(self.instance, result.run_id)


@pytest.fixture(scope="module")
def planned(tmp_path_factory, runner_bin) -> Warehouse:
    """Two models, planned, with everything due. Not to be changed."""
    home = tmp_path_factory.mktemp("planned")
    warehouse = Warehouse(path=home / "project", database=home / "db.duckdb", bin=runner_bin)
    config = CONFIG.replace("@connection@\n", DUCKDB).replace("@dialect@", "duckdb")
    write(warehouse.path / "config.yaml", config)
    for name, query in MODELS.items():
        write(warehouse.path / "models" / f"{name}.sql", f"MODEL (name {name}, kind FULL);\n{query}")
    warehouse.deploy()
    return warehouse


@pytest.fixture
def warehouse(planned, tmp_path) -> Warehouse:
    """A copy of the two models' warehouse."""
    shutil.copytree(planned.path, tmp_path / "project")
    shutil.copy(planned.database, tmp_path / "db.duckdb")
    return replace(planned, path=tmp_path / "project", database=tmp_path / "db.duckdb")


@pytest.fixture
def scheduled(request, instance) -> Callable[..., Scheduled]:
    def make(warehouse: Warehouse | None = None, **settings: object) -> Scheduled:
        warehouse = warehouse or request.getfixturevalue("warehouse")
        defs = sqlmesh_definitions_factory(
            project_dir=warehouse.path, launcher=warehouse.launcher(), **settings
        )
        return Scheduled(defs, instance)

    return make


def midnight() -> datetime:
    today = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=1)


def test_the_first_tick_asks_for_the_whole_job(scheduled):
    request = scheduled().tick()

    assert request.asset_selection is None
    assert request.run_key is None
    assert request.tags["sqlmesh/environment"] == "prod"


def test_after_a_run_a_tick_starts_none_and_says_when_the_next_model_is_due(scheduled, instance):
    schedule = scheduled()
    outcome = schedule.follow()
    assert set(outcome.materialized) == ALL
    runs = instance.get_runs_count()

    skipped = schedule.tick()

    assert skipped == f"Nothing is due; the next model is due at {midnight():%Y-%m-%d %H:%M} UTC."
    assert instance.get_runs_count() == runs


def test_models_that_sqlmesh_skipped_have_their_turn_when_it_says(scheduled):
    schedule = scheduled()
    schedule.follow()
    result = schedule.defs.resolve_job_def("sqlmesh_job").execute_in_process(instance=schedule.instance)
    outcome = Outcome.read(schedule.instance, result.run_id)
    assert outcome.status("marts/second") == ("skipped", "cron_not_due")

    assert schedule.tick() == f"Nothing is due; the next model is due at {midnight():%Y-%m-%d %H:%M} UTC."


def test_what_failed_and_what_waited_for_it_is_asked_for_again_alone(make_warehouse, scheduled, tmp_path):
    mended = tmp_path / "mended"
    picky = f"""\
    import pathlib
    import typing as t
    import pandas as pd
    from sqlmesh import ExecutionContext, model

    @model("marts.picky", columns={{"a": "int"}}, kind="full", depends_on=["staging.first"])
    def execute(context: ExecutionContext, **kwargs: t.Any):
        if not pathlib.Path({str(mended)!r}).exists():
            raise ValueError("not yet")
        return pd.DataFrame({{"a": [1]}})
    """
    models = {"staging.first": "SELECT 1 AS a", "marts.below": "SELECT a FROM marts.picky"}
    schedule = scheduled(make_warehouse(models, {"models/picky.py": picky}))
    outcome = schedule.follow()
    assert not outcome.success
    assert outcome.status("marts/below") == ("skipped", "upstream_failed")

    assert schedule.asked() == {"marts/picky", "marts/below"}
    assert schedule.asked() == {"marts/picky", "marts/below"}, "a tick alone changes nothing"
    mended.touch()
    outcome = schedule.follow()

    assert outcome.success
    assert set(outcome.materialized) == {"marts/picky", "marts/below"}
    assert str(schedule.tick()).startswith("Nothing is due")


UNFINISHED = ["NOT_STARTED", "STARTING", "STARTED", "CANCELING"]


@pytest.mark.parametrize("status", UNFINISHED)
def test_a_tick_is_skipped_while_a_run_of_the_job_is_not_over(scheduled, instance, status):
    schedule = scheduled()
    job = schedule.defs.resolve_job_def("sqlmesh_job")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus[status])

    assert schedule.tick() == (
        f"A run of these assets is not over: {run.run_id}. What is due is left to the next tick."
    )


def test_a_tick_is_skipped_while_a_run_by_hand_of_one_of_the_assets_is_not_over(scheduled, instance):
    schedule = scheduled()
    schedule.follow()
    by_hand = schedule.defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={dg.AssetKey(["db", "marts", "second"])}
    )
    run = instance.create_run_for_job(by_hand, status=dg.DagsterRunStatus.STARTED)

    assert schedule.tick() == (
        f"A run of these assets is not over: {run.run_id}. What is due is left to the next tick."
    )


def test_what_a_canceled_run_had_before_it_is_due(scheduled, instance):
    schedule = scheduled()
    schedule.follow()
    by_hand = schedule.defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={dg.AssetKey(["db", "marts", "second"])}
    )
    run = instance.create_run_for_job(by_hand, status=dg.DagsterRunStatus.STARTED)
    instance.report_run_canceled(run)

    assert schedule.asked() == {"marts/second"}


def test_a_run_of_other_assets_does_not_hold_the_schedule_up(scheduled, instance):
    schedule = scheduled()

    @dg.asset
    def other(): ...

    elsewhere = dg.Definitions([other]).resolve_implicit_global_asset_job_def()
    instance.create_run_for_job(elsewhere, status=dg.DagsterRunStatus.STARTED)

    assert schedule.asked() is None


def test_a_run_that_is_limited_to_a_range_of_time_leaves_models_due(warehouse, instance):
    project = SQLMeshProject(warehouse.path)
    resource = SQLMeshResource(project, launcher=warehouse.launcher())

    @sqlmesh_assets(project=project)
    def jaffle(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource, config: SQLMeshRunConfig):
        yield from sqlmesh.run(context, config=config)

    job = dg.define_asset_job("by_hand", selection=dg.AssetSelection.assets(jaffle))
    defs = dg.Definitions(
        [jaffle],
        jobs=[job],
        schedules=[build_sqlmesh_schedule([jaffle], resource, job=job, name="adaptive")],
        resources={"sqlmesh": resource},
    )
    schedule = Scheduled(defs, instance, name="adaptive", job="by_hand")
    limited = {"ops": {"jaffle": {"config": {"start": "2026-01-01", "end": "2026-01-02"}}}}

    result = defs.resolve_job_def("by_hand").execute_in_process(instance=instance, run_config=limited)

    assert result.success
    assert schedule.asked() is None
    schedule.follow()
    assert str(schedule.tick()).startswith("Nothing is due")


def test_a_schedule_that_ignores_crons_asks_for_everything_at_each_tick(scheduled):
    schedule = scheduled(ignore_cron=True)
    schedule.follow()

    assert schedule.asked() is None


def test_a_seed_is_due_again_when_a_newer_manifest_comes(make_warehouse, scheduled):
    seed = "MODEL (name raw.colours, kind SEED (path '../seeds/colours.csv'), columns (name TEXT));"
    warehouse = make_warehouse(
        {"staging.first": "SELECT name FROM raw.colours"},
        {"models/colours.sql": seed, "seeds/colours.csv": "name\nred\n"},
    )
    schedule = scheduled(warehouse)
    schedule.follow()
    assert str(schedule.tick()).startswith("Nothing is due")

    warehouse.manifest()

    assert scheduled(warehouse).asked() == {"raw/colours"}


@pytest.mark.parametrize(
    ("granularity", "crons"),
    [("union", ["*/30 * * * *", "0 * * * *", "0 6 * * *"]), ("finest", ["*/30 * * * *"])],
)
def test_a_schedule_fires_at_every_cron_or_at_the_finest(make_warehouse, scheduled, granularity, crons):
    files = {
        f"models/m{number}.sql": f"MODEL (name s.m{number}, kind FULL, cron '{cron}');\nSELECT 1 AS a"
        for number, cron in enumerate(["*/30 * * * *", "@hourly", "0 6 * * *"])
    }
    schedule = scheduled(make_warehouse(files=files), granularity=granularity)

    definition = schedule.defs.get_repository_def().get_schedule_def(schedule.name)
    assert definition.cron_schedule == crons
    assert definition.execution_timezone == "UTC"


# Asking SQLMesh's state.


def test_the_state_knows_what_ran_without_dagster(warehouse, scheduled):
    exact, by_record = scheduled(warehouse, due="state"), scheduled(warehouse)
    assert exact.asked() is None

    done, _ = warehouse.run()

    assert done.returncode == 0
    assert exact.tick() == f"Nothing is due; the next model is due at {midnight():%Y-%m-%d %H:%M} UTC."
    assert by_record.asked() is None


def test_the_state_names_a_part_of_the_models(warehouse, scheduled):
    warehouse.run("--select-model", "staging.first")

    assert scheduled(warehouse, due="state").asked() == {"marts/second"}


def test_models_that_are_not_assets_of_the_schedule_do_not_make_it_fire(warehouse, scheduled):
    warehouse.run("--select-model", "staging.first")

    assert str(scheduled(warehouse, due="state", select="staging.first").tick()).startswith("Nothing is due")


def test_settings_from_environment_variables_are_read_at_each_tick(warehouse, instance, monkeypatch):
    resource = SQLMeshResource(
        SQLMeshProject(warehouse.path),
        environment=dg.EnvVar("SQLMESH_ENVIRONMENT"),
        launcher=warehouse.launcher(),
    )
    schedule, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource, due="state")
    defs = dg.Definitions(assets, jobs=[job], schedules=[schedule], resources={"sqlmesh": resource})
    scheduled = Scheduled(defs, instance)

    monkeypatch.setenv("SQLMESH_ENVIRONMENT", "prod")
    request = scheduled.tick()

    assert request.tags["sqlmesh/environment"] == "prod"
    monkeypatch.setenv("SQLMESH_ENVIRONMENT", "elsewhere")
    with pytest.raises(dg.Failure, match="There is no environment 'elsewhere'"):
        scheduled.tick()


@contextmanager
def writing(warehouse: Warehouse) -> Iterator[None]:
    """Another process has the database: DuckDB lets one in."""
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [str(warehouse.bin / "python"), "-c", code, str(warehouse.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            yield
        finally:
            process.kill()


def test_a_state_that_is_locked_fails_the_tick_with_one_sentence(warehouse, scheduled):
    schedule = scheduled(warehouse, due="state")

    with writing(warehouse), pytest.raises(dg.Failure) as caught:
        schedule.tick()

    text = str(caught.value.description)
    assert text.startswith("SQLMesh was asked for what is due: ")
    assert "lock" in text.lower()
    assert len(text.splitlines()) == 1
    assert "Traceback" not in text


def test_a_runner_that_is_not_there_fails_the_tick_with_one_sentence(warehouse, instance):
    defs = sqlmesh_definitions_factory(
        project_dir=warehouse.path,
        launcher=warehouse.launcher(command=["/nowhere/sqlmesh-runner"]),
        due="state",
    )

    with pytest.raises(dg.Failure) as caught:
        Scheduled(defs, instance).tick()

    assert "'/nowhere/sqlmesh-runner' was not found" in str(caught.value.description)


# The daemon.

LOCATION = """\
from dagster_sqlmesh_pipes import SubprocessLauncher, sqlmesh_definitions_factory

defs = sqlmesh_definitions_factory(
    project_dir={project!r},
    launcher=SubprocessLauncher(command=[{runner!r}], env={env!r}),
    enable_schedule=True,
)
"""


def test_under_the_daemon_a_tick_starts_a_run_and_its_assets_are_there(warehouse, tmp_path):
    # SQLMesh has no cron finer than five minutes: the test would wait that long for a tick.
    manifest = warehouse.path / "sqlmesh_manifest.json"
    content = json.loads(manifest.read_text())
    for model in content["models"]:
        model["cron"] = "* * * * *"
    manifest.write_text(json.dumps(content))
    location = LOCATION.format(
        project=str(warehouse.path),
        runner=str(warehouse.bin / "sqlmesh-runner"),
        env={"TEST_DATABASE": str(warehouse.database)},
    )
    finished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])

    with daemon(tmp_path / "home", location) as instance:
        wait_for(lambda: instance.get_runs(finished), seconds=180)
        (run,) = instance.get_runs()
        outcome = Outcome.read(instance, run.run_id)
        ticks = [
            tick
            for state in instance.all_instigator_state()
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
        ]

    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == ALL
    assert outcome.status("marts/second") == ("executed", None)
    assert run.tags["dagster/schedule_name"] == "sqlmesh_adaptive_schedule"
    assert run.tags["sqlmesh/environment"] == "prod"
    assert [run.run_id] in [list(tick.run_ids) for tick in ticks]
    assert re.fullmatch(r"[0-9a-f-]{36}", run.run_id)


@pytest.mark.parametrize("settings", [{"due": "state"}, {"ignore_cron": True}], ids=["state", "ignore_cron"])
def test_a_run_by_hand_holds_the_schedule_up_whoever_is_asked_what_is_due(scheduled, instance, settings):
    schedule = scheduled(**settings)
    by_hand = schedule.defs.resolve_implicit_global_asset_job_def()
    run = instance.create_run_for_job(by_hand, status=dg.DagsterRunStatus.STARTED)

    assert schedule.tick() == (
        f"A run of these assets is not over: {run.run_id}. What is due is left to the next tick."
    )


def test_a_run_of_another_job_of_the_same_name_does_not_hold_the_schedule_up(scheduled, instance):
    schedule = scheduled()

    @dg.asset
    def other(): ...

    elsewhere = dg.Definitions([other], jobs=[dg.define_asset_job("sqlmesh_job", selection=[other])])
    instance.create_run_for_job(elsewhere.resolve_job_def("sqlmesh_job"), status=dg.DagsterRunStatus.STARTED)

    assert schedule.asked() is None


def test_a_job_of_a_part_of_the_assets_is_asked_for_that_part_alone(warehouse, instance):
    resource = warehouse.resource()
    assets = sqlmesh_assets_factory(sqlmesh_resource=resource)
    selection = build_sqlmesh_asset_selection(assets, "marts.*")
    job = dg.define_asset_job("part", selection=selection)
    schedule = build_sqlmesh_schedule([assets], resource, job=job, name="sqlmesh_adaptive_schedule")
    defs = dg.Definitions([assets], jobs=[job], schedules=[schedule], resources={"sqlmesh": resource})

    assert set(Scheduled(defs, instance, job="part").follow().materialized) == {"marts/second"}


def test_a_schedule_can_fire_to_catch_up(scheduled):
    repository = scheduled(catch_up="30 * * * *").defs.get_repository_def()

    crons = repository.get_schedule_def("sqlmesh_adaptive_schedule").cron_schedule
    assert crons == ["0 0 * * *", "30 * * * *"]
