"""Every parameter of the factories and of the decorator shows in definitions, or in a real run.

Annotations are not postponed: Dagster reads those of asset functions.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from behaviour.case import execute_in_duckdb
from dagster_sqlmesh_pipes import (
    SQLMeshProject,
    SQLMeshResource,
    SQLMeshTranslator,
    SubprocessLauncher,
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_assets,
    sqlmesh_assets_factory,
    sqlmesh_definitions_factory,
    unprovided_externals,
)
from support.warehouse import Outcome, Warehouse, write

CONFIG = """\
gateways:
  postgres:
    connection:
      type: duckdb
      catalogs: {{jaffle_db: "{{{{ env_var('JAFFLE_DATABASE', '{database}') }}}}"}}
default_gateway: postgres
model_defaults: {{dialect: duckdb, start: 2026-01-01, cron: '@daily'}}
disable_anonymized_analytics: true
"""
MODELS = {
    "stg_customers": "MODEL (name main.stg_customers, kind FULL, cron '@hourly', tags (staging));\n"
    "SELECT id, name FROM jaffle_db.main.raw_source_customers",
    "mart_customers": "MODEL (name main.mart_customers, kind FULL, audits (not_null(columns := (id))));\n"
    "SELECT id, name FROM main.stg_customers",
    "other": "MODEL (name main.other, kind FULL, tags ('dagster:group_name:tagged'));\nSELECT 1 AS id",
}
EXTERNALS = "- name: jaffle_db.main.raw_source_customers\n  columns: {id: INT, name: TEXT}\n"
SOURCE_TABLE = "CREATE SCHEMA IF NOT EXISTS main; CREATE TABLE main.raw_source_customers AS SELECT 1 AS id, 'Ann' AS name"
ALL = {"main/stg_customers", "main/mart_customers", "main/other"}
EXTERNAL_KEY = dg.AssetKey(["jaffle_db", "main", "raw_source_customers"])


@pytest.fixture(scope="module")
def planned(tmp_path_factory, runner_bin) -> Warehouse:
    """The project of the examples, planned into prod and dev, with everything due. Not to be changed."""
    home = tmp_path_factory.mktemp("jaffle")
    warehouse = Warehouse(
        path=home / "sqlmesh_project",
        database=home / "jaffle.duckdb",
        bin=runner_bin,
        catalog="jaffle_db",
    )
    write(warehouse.path / "config.yaml", CONFIG.format(database=warehouse.database))
    write(warehouse.path / "external_models.yaml", EXTERNALS)
    for name, text in MODELS.items():
        write(warehouse.path / "models" / f"{name}.sql", text)
    execute_in_duckdb(warehouse, SOURCE_TABLE)
    warehouse.deploy("dev")
    warehouse.deploy("prod")
    return warehouse


@dataclass
class Jaffle:
    """A copy of the project, beside it a runner that writes down how it was called."""

    path: Path
    database: Path
    calls_file: Path
    launcher: SubprocessLauncher

    @property
    def calls(self) -> list[list[str]]:
        if not self.calls_file.exists():
            return []
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]


@pytest.fixture
def jaffle(planned, tmp_path, monkeypatch) -> Jaffle:
    """Stands in the current directory, with ``sqlmesh-runner`` on the PATH, as where a user starts."""
    shutil.copytree(planned.path, tmp_path / "sqlmesh_project")
    database = tmp_path / "jaffle.duckdb"
    shutil.copy(planned.database, database)
    recorder, calls = tmp_path / "bin/recording-runner", tmp_path / "calls"
    write(
        recorder,
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        f"with open({str(calls)!r}, 'a') as file:\n    print(json.dumps(sys.argv[1:]), file=file)\n"
        f"os.execv({str(planned.bin / 'sqlmesh-runner')!r}, ['sqlmesh-runner', *sys.argv[1:]])\n",
    )
    recorder.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAFFLE_DATABASE", str(database))
    monkeypatch.setenv("PATH", f"{planned.bin}{os.pathsep}{os.environ['PATH']}")
    return Jaffle(
        path=tmp_path / "sqlmesh_project",
        database=database,
        calls_file=calls,
        launcher=SubprocessLauncher(command=[str(recorder)]),
    )


@pytest.fixture
def run_job(instance) -> Callable[..., Outcome]:
    """Run a job of definitions, for real."""

    def run(defs: dg.Definitions, job: str = "sqlmesh_job") -> Outcome:
        result = defs.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False)
        return Outcome.read(instance, result.run_id)

    return run


def assets_of(defs: dg.Definitions) -> dg.AssetsDefinition:
    (definition,) = defs.assets
    return definition


def spec_of(defs: dg.Definitions, table: str) -> dg.AssetSpec:
    return next(spec for spec in assets_of(defs).specs if spec.key.path[-1] == table)


# What users of the in-process integration have: the code blocks of its README, on this package.


class SlingToSqlmeshTranslator(SQLMeshTranslator):
    def get_external_asset_key(self, external_fqn: str) -> dg.AssetKey:
        parts = external_fqn.replace('"', "").split(".")
        if len(parts) >= 3:
            _, _, table = parts[0], parts[1], parts[2]
            return dg.AssetKey(["target", "main", table])
        return dg.AssetKey(["external"] + parts[1:])  # noqa: RUF005 - as users have it


class MyCustomTranslator(SQLMeshTranslator):
    def get_external_asset_key(self, external_fqn: str) -> dg.AssetKey:
        parts = external_fqn.replace('"', "").split(".")
        return dg.AssetKey(["target"] + parts[1:])  # noqa: RUF005 - as users have it

    def get_group_name(self, context, model) -> str:
        model_name = getattr(model, "view_name", "")
        if model_name.startswith("stg_"):
            return "staging"
        elif model_name.startswith("mart_"):  # noqa: RET505 - as users have it
            return "marts"
        return super().get_group_name(context, model)


def test_the_simple_factory_of_an_in_process_integration_runs_as_it_is(jaffle, run_job):
    defs = sqlmesh_definitions_factory(
        project_dir="sqlmesh_project",
        gateway="postgres",
        translator=SlingToSqlmeshTranslator(),
        concurrency_limit=1,
        name="sqlmesh_multi_asset",
        group_name="sqlmesh",
        op_tags={"team": "data", "env": "prod"},
        retry_policy=dg.RetryPolicy(max_retries=1, delay=30.0, backoff=dg.Backoff.EXPONENTIAL),
    )
    dg.Definitions.validate_loadable(defs)

    outcome = run_job(defs)

    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == ALL
    assert outcome.checks["main/mart_customers", "not_null"].passed
    op = assets_of(defs).op
    assert op.name == "sqlmesh_multi_asset"
    assert (op.tags["team"], op.tags["env"]) == ("data", "prod")
    assert op.retry_policy == dg.RetryPolicy(max_retries=1, delay=30.0, backoff=dg.Backoff.EXPONENTIAL)
    staging = spec_of(defs, "stg_customers")
    assert staging.group_name == "sqlmesh"
    assert [dep.asset_key.path for dep in staging.deps] == [["target", "main", "raw_source_customers"]]
    # Of a tag it is known that the model itself wants it.
    assert spec_of(defs, "other").group_name == "tagged"


def test_the_advanced_configuration_of_an_in_process_integration_runs_as_it_is(jaffle, run_job):
    sqlmesh_resource = SQLMeshResource(
        project_dir="sqlmesh_project",
        gateway="postgres",
        translator=SlingToSqlmeshTranslator(),
        concurrency_limit=1,
        ignore_cron=True,
    )
    sqlmesh_assets = sqlmesh_assets_factory(
        sqlmesh_resource=sqlmesh_resource,
        name="sqlmesh_multi_asset",
        group_name="sqlmesh",
        op_tags={"team": "data", "env": "prod"},
        retry_policy=dg.RetryPolicy(max_retries=1, delay=30.0, backoff=dg.Backoff.EXPONENTIAL),
    )
    sqlmesh_adaptive_schedule, sqlmesh_job, _ = sqlmesh_adaptive_schedule_factory(
        sqlmesh_resource=sqlmesh_resource
    )
    defs = dg.Definitions(
        assets=[sqlmesh_assets],
        jobs=[sqlmesh_job],
        schedules=[sqlmesh_adaptive_schedule],
        resources={"sqlmesh": sqlmesh_resource},
    )
    dg.Definitions.validate_loadable(defs)

    outcome = run_job(defs)

    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == ALL
    (dep,) = spec_of(defs, "stg_customers").deps
    assert dep.asset_key.path == ["target", "main", "raw_source_customers"]


def test_the_custom_translator_of_an_in_process_integration_works_as_it_is(jaffle):
    defs = sqlmesh_definitions_factory(
        project_dir="sqlmesh_project", gateway="postgres", translator=MyCustomTranslator()
    )

    groups = {spec.key.path[-1]: spec.group_name for spec in assets_of(defs).specs}
    assert groups == {"stg_customers": "staging", "mart_customers": "marts", "other": "tagged"}
    (dep,) = spec_of(defs, "stg_customers").deps
    assert dep.asset_key.path == ["target", "main", "raw_source_customers"]


# The all-in-one factory.


def test_the_factory_gives_resource_assets_job_and_a_stopped_schedule_under_names_that_are_known(jaffle):
    defs = sqlmesh_definitions_factory(project_dir="sqlmesh_project")

    repository = defs.get_repository_def()
    assert assets_of(defs).op.name == "sqlmesh_assets"
    job = defs.resolve_job_def("sqlmesh_job")
    assert job.asset_layer.selected_asset_keys == assets_of(defs).keys
    schedule = repository.get_schedule_def("sqlmesh_adaptive_schedule")
    assert schedule.job_name == "sqlmesh_job"
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule.cron_schedule == ["0 * * * *", "0 0 * * *"]
    assert set(defs.resources) == {"sqlmesh"}


def test_names_of_everything_can_be_chosen(jaffle, run_job):
    defs = sqlmesh_definitions_factory(
        project_dir="sqlmesh_project",
        name="jaffle_assets",
        job_name="jaffle_job",
        schedule_name="jaffle_schedule",
        resource_key="jaffle",
    )

    assert assets_of(defs).op.name == "jaffle_assets"
    assert defs.get_repository_def().get_schedule_def("jaffle_schedule").job_name == "jaffle_job"
    assert set(run_job(defs, "jaffle_job").materialized) == ALL


def test_two_projects_stand_beside_each_other_in_one_code_location(jaffle):
    one = sqlmesh_definitions_factory(project_dir="sqlmesh_project", select="main.other")
    two = sqlmesh_definitions_factory(
        project_dir="sqlmesh_project",
        exclude="main.other",
        name="second",
        job_name="second_job",
        schedule_name="second_schedule",
        resource_key="second",
    )

    defs = dg.Definitions.merge(one, two)

    dg.Definitions.validate_loadable(defs)
    assert defs.resolve_job_def("sqlmesh_job").asset_layer.selected_asset_keys == assets_of(one).keys
    assert defs.resolve_job_def("second_job").asset_layer.selected_asset_keys == assets_of(two).keys


@pytest.mark.parametrize("shape", ["path", "string", "sequence"])
def test_the_project_s_directory_may_be_a_path_a_string_or_several(jaffle, shape):
    given = {"path": jaffle.path, "string": str(jaffle.path), "sequence": [jaffle.path]}[shape]

    defs = sqlmesh_definitions_factory(project_dir=given)

    assert len(assets_of(defs).keys) == 3


def test_the_manifest_may_stand_elsewhere(jaffle, tmp_path):
    (jaffle.path / "sqlmesh_manifest.json").rename(tmp_path / "elsewhere.json")

    defs = sqlmesh_definitions_factory(project_dir=jaffle.path, manifest="elsewhere.json")

    assert len(assets_of(defs).keys) == 3


@pytest.mark.parametrize(
    ("settings", "pool"),
    [
        ({}, "sqlmesh_{name}_prod"),
        ({"environment": "dev", "gateway": "my gate"}, "sqlmesh_{name}_my_gate_dev"),
        ({"pool": "ours"}, "ours"),
        ({"pool": False}, None),
        ({"op_tags": {"dagster/concurrency_key": "ours"}}, "ours"),
    ],
)
def test_the_step_has_the_pool_of_its_project_and_environment(jaffle, settings, pool):
    op = assets_of(sqlmesh_definitions_factory(project_dir=jaffle.path, **settings)).op

    assert (op.pool or op.tags.get("dagster/concurrency_key")) == (
        pool and pool.format(name=jaffle.path.name)
    )


def test_the_pool_is_that_of_the_environment_which_the_resource_runs(jaffle):
    resource = SQLMeshResource(SQLMeshProject(jaffle.path), environment="dev")

    assert sqlmesh_assets_factory(sqlmesh_resource=resource).op.pool == f"sqlmesh_{jaffle.path.name}_dev"


def test_settings_of_the_step_are_those_of_the_factory(jaffle):
    retry = dg.RetryPolicy(max_retries=3)
    defs = sqlmesh_definitions_factory(
        project_dir=jaffle.path,
        owners=["team:data"],
        op_tags={"team": "data"},
        retry_policy=retry,
        pool="warehouse",
        external_asset_mapping="target/{node.name}",
    )

    assets = assets_of(defs)
    assert assets.op.tags["team"] == "data"
    assert assets.op.retry_policy == retry
    assert assets.op.pool == "warehouse"
    assert {tuple(spec.owners) for spec in assets.specs} == {("team:data",)}
    (dep,) = spec_of(defs, "stg_customers").deps
    assert dep.asset_key.path == ["target", "raw_source_customers"]


def test_required_resources_are_there_in_the_run(jaffle, run_job):
    defs = sqlmesh_definitions_factory(project_dir=jaffle.path, required_resource_keys={"vault"})
    opened = []

    @dg.resource
    def vault(_):
        opened.append(True)

    merged = dg.Definitions.merge(defs, dg.Definitions(resources={"vault": vault}))

    assert assets_of(defs).required_resource_keys >= {"sqlmesh", "vault"}
    assert run_job(merged).success
    assert opened == [True]


def test_the_schedule_s_settings_are_those_of_the_factory(jaffle):
    def schedule(**settings):
        defs = sqlmesh_definitions_factory(project_dir=jaffle.path, **settings)
        return defs.get_repository_def().get_schedule_def("sqlmesh_adaptive_schedule")

    assert schedule(enable_schedule=True).default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule(granularity="finest").cron_schedule == ["0 * * * *"]
    assert schedule(select="main.mart_customers").cron_schedule == ["0 0 * * *"]


def test_what_is_due_can_be_asked_of_sqlmesh_s_state(jaffle, instance):
    defs = sqlmesh_definitions_factory(
        project_dir=jaffle.path, launcher=jaffle.launcher, gateway="postgres", due="state"
    )
    repository = defs.get_repository_def()
    with dg.build_schedule_context(instance=instance, repository_def=repository) as context:
        tick = repository.get_schedule_def("sqlmesh_adaptive_schedule").evaluate_tick(context)

    assert len(tick.run_requests) == 1
    assert jaffle.calls == [
        ["due", "prod", "--project", str(jaffle.path), "--gateway", "postgres", "--format", "json"]
    ]


def test_a_run_is_of_the_environment_and_gateway_with_the_launcher_that_were_named(jaffle, run_job):
    defs = sqlmesh_definitions_factory(
        project_dir=jaffle.path, environment="dev", gateway="postgres", launcher=jaffle.launcher
    )

    outcome = run_job(defs)

    assert outcome.success, outcome.failure
    tables = {m.metadata["dagster/table_name"].value for m in outcome.materialized.values()}
    assert tables == {f"jaffle_db.main__dev.{name}" for name in MODELS}
    (call,) = jaffle.calls
    assert call[:6] == ["run", "dev", "--project", str(jaffle.path), "--gateway", "postgres"]


def test_by_default_a_run_has_no_more_settings_than_the_runner_s_own(jaffle, run_job):
    outcome = run_job(sqlmesh_definitions_factory(project_dir=jaffle.path, launcher=jaffle.launcher))

    assert outcome.success
    assert jaffle.calls == [["run", "prod", "--project", str(jaffle.path), "--grace-period", "25"]]


def test_a_limit_of_concurrency_reaches_sqlmesh(jaffle, run_job):
    defs = sqlmesh_definitions_factory(project_dir=jaffle.path, launcher=jaffle.launcher, concurrency_limit=3)

    outcome = run_job(defs)

    (call,) = jaffle.calls
    assert call[call.index("--concurrent-tasks") + 1] == "3"
    assert outcome.success, outcome.failure


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_concurrency_that_lets_nothing_run_is_refused(jaffle, limit):
    with pytest.raises(Exception, match="concurrency_limit"):
        sqlmesh_definitions_factory(project_dir=jaffle.path, concurrency_limit=limit)


def test_a_run_that_ignores_crons_finds_models_up_to_date_that_would_wait_for_theirs(jaffle, run_job):
    by_cron = sqlmesh_definitions_factory(project_dir=jaffle.path)
    ignoring = sqlmesh_definitions_factory(project_dir=jaffle.path, ignore_cron=True)
    run_job(by_cron)

    assert run_job(by_cron).status("main/mart_customers") == ("skipped", "cron_not_due")
    assert run_job(ignoring).status("main/mart_customers") == ("skipped", "up_to_date")


def test_models_that_had_nothing_to_do_can_pass(jaffle, run_job):
    status = ("main/mart_customers", "sqlmesh_execution_status")
    strict = sqlmesh_definitions_factory(project_dir=jaffle.path)
    lenient = sqlmesh_definitions_factory(project_dir=jaffle.path, skips_pass=True)
    run_job(strict)

    assert not run_job(strict).checks[status].passed
    outcome = run_job(lenient)
    assert outcome.checks[status].passed
    assert outcome.status("main/mart_customers") == ("skipped", "cron_not_due")


def test_one_run_can_be_told_what_to_do_in_its_config(jaffle, instance):
    defs = sqlmesh_definitions_factory(project_dir=jaffle.path, launcher=jaffle.launcher)
    config = {"start": "2026-01-01", "end": "2026-01-02", "execution_time": "2026-02-01", "ignore_cron": True}

    result = defs.resolve_job_def("sqlmesh_job").execute_in_process(
        instance=instance, run_config={"ops": {"sqlmesh_assets": {"config": config}}}, raise_on_error=False
    )

    (call,) = jaffle.calls
    expected = ["--start", "2026-01-01", "--end", "2026-01-02", "--execution-time", "2026-02-01"]
    assert call[4:11] == [*expected, "--ignore-cron"]
    assert result.success
    other = Outcome.read(instance, result.run_id).materialized["main/other"]
    assert other.metadata["intervals"].value == "2026-01-01 to 2026-01-03"


# The factory of assets, and the decorator.


def test_the_factory_of_assets_has_every_parameter_of_the_decorator(jaffle):
    resource = SQLMeshResource(
        SQLMeshProject(jaffle.path), launcher=jaffle.launcher, translator=MyCustomTranslator()
    )
    retry = dg.RetryPolicy(max_retries=2)

    assets = sqlmesh_assets_factory(
        sqlmesh_resource=resource,
        name="jaffle",
        select=["main.stg_customers+", "main.other"],
        exclude="main.other",
        translator=SQLMeshTranslator(),
        external_asset_mapping="lake/{node.schema}/{node.name}",
        group_name="grouped",
        owners=["ann@example.com", "data"],
        op_tags={"team": "data"},
        retry_policy=retry,
        pool="warehouse",
        required_resource_keys={"vault"},
        resource_key="jaffle",
    )

    specs = {spec.key.path[-1]: spec for spec in assets.specs}
    assert set(specs) == {"stg_customers", "mart_customers"}
    assert [d.asset_key.path for d in specs["stg_customers"].deps] == [
        ["lake", "main", "raw_source_customers"]
    ]
    assert {spec.group_name for spec in specs.values()} == {"grouped"}
    assert {tuple(spec.owners) for spec in specs.values()} == {("ann@example.com", "team:data")}
    op = assets.op
    assert (op.name, op.tags["team"], op.retry_policy, op.pool) == ("jaffle", "data", retry, "warehouse")
    assert assets.required_resource_keys >= {"jaffle", "vault"}
    # Without one of its own it takes the resource's translator.
    (staging,) = sqlmesh_assets_factory(sqlmesh_resource=resource, select="main.stg_customers").specs
    assert staging.group_name == "staging"


def test_the_decorator_s_parameters_show_in_the_assets(jaffle):
    retry = dg.RetryPolicy(max_retries=2)

    @sqlmesh_assets(
        project=SQLMeshProject(jaffle.path),
        select="main.*",
        exclude="tag:staging",
        translator=MyCustomTranslator(),
        group_name="grouped",
        owners=["team:data"],
        op_tags={"team": "data"},
        retry_policy=retry,
        pool="warehouse",
        required_resource_keys={"sqlmesh", "vault"},
    )
    def named_by_its_function(context: dg.AssetExecutionContext):
        yield from context.resources.sqlmesh.run(context)

    assets = named_by_its_function
    assert {key.path[-1] for key in assets.keys} == {"mart_customers", "other"}
    op = assets.op
    assert (op.name, op.tags["team"], op.retry_policy, op.pool) == (
        "named_by_its_function",
        "data",
        retry,
        "warehouse",
    )
    assert assets.required_resource_keys >= {"sqlmesh", "vault"}
    assert {tuple(spec.owners) for spec in assets.specs} == {("team:data",)}


def test_the_schedule_s_factory_makes_the_assets_unless_it_is_given_them(jaffle):
    resource = SQLMeshResource(SQLMeshProject(jaffle.path), launcher=jaffle.launcher)
    given = sqlmesh_assets_factory(sqlmesh_resource=resource, select="main.mart_customers")

    schedule, job, assets = sqlmesh_adaptive_schedule_factory(
        sqlmesh_resource=resource,
        name="nightly",
        job_name="nightly_job",
        assets=[given],
        enable_schedule=True,
        granularity="finest",
        due="state",
    )
    _, _, whole = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)

    assert (schedule.name, schedule.job_name, schedule.cron_schedule) == (
        "nightly",
        "nightly_job",
        ["0 0 * * *"],
    )
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert assets == [given]
    defs = dg.Definitions(assets, jobs=[job], schedules=[schedule], resources={"sqlmesh": resource})
    assert defs.resolve_job_def("nightly_job").asset_layer.selected_asset_keys == given.keys
    assert {key.path[-1] for definition in whole for key in definition.keys} == set(MODELS)


def test_a_project_split_over_two_assets_with_a_launcher_each_runs_every_model_once(
    jaffle, instance, tmp_path
):
    project = SQLMeshProject(jaffle.path)
    plain = SubprocessLauncher(env={"MARK": "plain"})
    resources = {
        "small": SQLMeshResource(project, launcher=jaffle.launcher),
        "large": SQLMeshResource(project, launcher=plain),
    }
    parts = [
        sqlmesh_assets_factory(
            sqlmesh_resource=resources["small"], name="small", exclude="main.mart_*", resource_key="small"
        ),
        sqlmesh_assets_factory(
            sqlmesh_resource=resources["large"], name="large", select="main.mart_*", resource_key="large"
        ),
    ]
    result = dg.materialize(parts, instance=instance, resources=resources, raise_on_error=False)

    outcome = Outcome.read(instance, result.run_id)  # which says that nothing is there twice
    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == ALL
    steps = {
        event.asset_key.path[-1]: event.step_key
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION
    }
    assert steps == {"stg_customers": "small", "other": "small", "mart_customers": "large"}
    assert len(jaffle.calls) == 1


def test_tables_that_no_asset_stands_for_are_listed_with_their_readers(jaffle):
    defs = sqlmesh_definitions_factory(project_dir=jaffle.path)

    assert unprovided_externals(defs) == {EXTERNAL_KEY: ['"jaffle_db"."main"."stg_customers"']}
    declared = dg.Definitions.merge(defs, dg.Definitions([dg.AssetSpec(EXTERNAL_KEY)]))
    assert unprovided_externals(declared) == {}


def test_a_table_that_an_asset_of_another_name_stands_for_is_still_not_provided(jaffle):
    defs = sqlmesh_definitions_factory(
        project_dir=jaffle.path, external_asset_mapping="target/{node.schema}/{node.name}"
    )

    @dg.asset(key=["target", "main", "raw_source_customer"])
    def ingested(): ...

    @dg.asset(deps=[["nowhere"]])
    def somebody_else_s(): ...

    merged = dg.Definitions.merge(defs, dg.Definitions([ingested, somebody_else_s]))

    assert set(unprovided_externals(merged)) == {dg.AssetKey(["target", "main", "raw_source_customers"])}


def test_a_function_whose_models_wait_for_those_of_another_runs_though_there_was_nothing_to_do_for_these(
    make_warehouse, instance
):
    warehouse = make_warehouse(
        {"marts.reader": "SELECT id FROM raw.seed"},
        {
            "seeds/seed.csv": "id\n1\n",
            "models/seed.sql": "MODEL (name raw.seed, kind SEED (path '../seeds/seed.csv'), columns (id INT));",
        },
    )
    resource = warehouse.resource()
    sources = sqlmesh_assets_factory(sqlmesh_resource=resource, name="sources", select="raw.*")
    marts = sqlmesh_assets_factory(sqlmesh_resource=resource, name="marts", select="marts.*")

    @dg.asset(deps=[dg.AssetKey(["db", "raw", "seed"])])
    def report() -> None: ...

    defs = dg.Definitions([sources, marts, report], resources={"sqlmesh": resource})
    job = defs.resolve_implicit_global_asset_job_def()
    first = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(["db", "raw", "seed"])])

    result = job.execute_in_process(instance=instance)

    outcome = Outcome.read(instance, result.run_id)
    assert first.success
    assert outcome.success
    assert outcome.status("raw/seed") == ("skipped", "up_to_date")
    assert outcome.status("marts/reader") == ("executed", None)
    assert "raw/seed" not in outcome.materialized
    assert "marts/reader" in outcome.materialized
