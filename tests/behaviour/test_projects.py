"""The shapes that a SQLMesh project takes: several gateways, several repositories, a configuration in Python."""

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, sqlmesh_assets
from support.warehouse import Outcome, Warehouse, write

STATUS = "sqlmesh_execution_status"
TWO_GATEWAYS = """\
gateways:
  first:
    connection: {{type: duckdb, catalogs: {{one: {one}}}}}
  second:
    connection: {{type: duckdb, catalogs: {{two: {two}}}}}
default_gateway: first
gateway_managed_virtual_layer: true
model_defaults: {{dialect: duckdb, start: 2026-01-01}}
disable_anonymized_analytics: true
"""


def two_gateways(tmp_path) -> str:
    return TWO_GATEWAYS.format(one=tmp_path / "one.duckdb", two=tmp_path / "two.duckdb")


def test_a_run_uses_the_gateway_that_the_project_names(make_warehouse, instance, tmp_path):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, deploy=False)
    write(warehouse.path / "config.yaml", two_gateways(tmp_path))
    warehouse.deploy(gateway="second")
    project = SQLMeshProject(warehouse.path, gateway="second")

    outcome = materialize(project, warehouse, instance)

    assert outcome.success
    table = outcome.materialized["staging/first"].metadata["dagster/table_name"].value
    assert table == "two.staging.first"


def test_models_of_one_project_run_on_the_gateways_that_they_name(make_warehouse, instance, tmp_path):
    files = {
        "models/one.sql": "MODEL (name staging.here, kind FULL);\nSELECT 1 AS a",
        "models/two.sql": "MODEL (name staging.there, kind FULL, gateway second);\nSELECT 2 AS a",
    }
    warehouse = make_warehouse(files=files, deploy=False)
    write(warehouse.path / "config.yaml", two_gateways(tmp_path))
    warehouse.deploy()

    outcome = materialize(SQLMeshProject(warehouse.path), warehouse, instance)

    assert outcome.success
    tables = {key: m.metadata["dagster/table_name"].value for key, m in outcome.materialized.items()}
    assert tables == {"staging/here": "one.staging.here", "staging/there": "two.staging.there"}


def test_a_configuration_in_python_works_as_one_in_yaml(make_warehouse, instance, tmp_path):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, deploy=False)
    (warehouse.path / "config.yaml").unlink()
    write(
        warehouse.path / "config.py",
        f"""\
from sqlmesh.core.config import Config, DuckDBConnectionConfig, GatewayConfig, ModelDefaultsConfig

config = Config(
    gateways={{"local": GatewayConfig(
        connection=DuckDBConnectionConfig(catalogs={{"db": {str(tmp_path / "db.duckdb")!r}}})
    )}},
    default_gateway="local",
    model_defaults=ModelDefaultsConfig(dialect="duckdb", start="2026-01-01"),
    disable_anonymized_analytics=True,
)
""",
    )
    warehouse.deploy()

    outcome = materialize(SQLMeshProject(warehouse.path), warehouse, instance)

    assert outcome.success
    assert set(outcome.materialized) == {"staging/first"}


def test_a_project_with_one_connection_and_no_gateway_by_name_works(make_warehouse, instance, tmp_path):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, deploy=False)
    write(
        warehouse.path / "config.yaml",
        f"""\
gateways:
  connection: {{type: duckdb, catalogs: {{db: {tmp_path / "db.duckdb"}}}}}
model_defaults: {{dialect: duckdb, start: 2026-01-01}}
disable_anonymized_analytics: true
""",
    )
    warehouse.deploy()

    outcome = materialize(SQLMeshProject(warehouse.path), warehouse, instance)

    assert outcome.success
    assert set(outcome.materialized) == {"staging/first"}


def test_the_state_may_be_elsewhere_than_the_warehouse(make_warehouse, instance, tmp_path):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, deploy=False)
    write(
        warehouse.path / "config.yaml",
        f"""\
gateways:
  local:
    connection: {{type: duckdb, catalogs: {{db: {tmp_path / "db.duckdb"}}}}}
    state_connection: {{type: duckdb, database: {tmp_path / "state.duckdb"}}}
model_defaults: {{dialect: duckdb, start: 2026-01-01}}
disable_anonymized_analytics: true
""",
    )
    warehouse.deploy()

    outcome = materialize(SQLMeshProject(warehouse.path), warehouse, instance)

    assert outcome.success
    assert set(outcome.materialized) == {"staging/first"}


@pytest.mark.parametrize("engine", ["duckdb", "postgres"])
def test_repositories_that_read_each_other_run_as_one(make_warehouse, instance, tmp_path, engine):
    first = make_warehouse({"staging.first": "SELECT 1 AS a"}, deploy=False, engine=engine)
    config = (first.path / "config.yaml").read_text()
    other = tmp_path / "other project"
    write(first.path / "config.yaml", "project: first\n" + config)
    write(other / "config.yaml", "project: second\n" + config)
    write(other / "models/second.sql", "MODEL (name marts.second, kind FULL);\nSELECT a FROM staging.first")
    first.deploy(others=[other])
    project = SQLMeshProject([first.path, other])

    outcome = materialize(project, first, instance)

    assert outcome.success
    assert set(outcome.materialized) == {"staging/first", "marts/second"}


def materialize(project: SQLMeshProject, warehouse: Warehouse, instance: dg.DagsterInstance) -> Outcome:
    @sqlmesh_assets(project=project, name="warehouse")
    def assets(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
        yield from sqlmesh.run(context)

    resource = SQLMeshResource(project, launcher=warehouse.launcher())
    result = dg.materialize(
        [assets], instance=instance, resources={"sqlmesh": resource}, raise_on_error=False
    )
    return Outcome.read(instance, result.run_id)


def test_a_dbt_project_runs_with_its_models_as_assets_and_its_tests_as_checks(
    make_warehouse, instance, tmp_path
):
    warehouse = make_warehouse(deploy=False)
    (warehouse.path / "config.yaml").unlink()
    files = {
        "sqlmesh.yaml": "model_defaults: {start: 2026-01-01}\ndisable_anonymized_analytics: true\n",
        "dbt_project.yml": "name: jaffle\nversion: '1.0'\nprofile: jaffle\nmodels: {jaffle: {+materialized: table}}\n",
        "profiles.yml": "jaffle: {target: dev, outputs: {dev: {type: duckdb, schema: main, path: "
        f"{tmp_path / 'jaffle.duckdb'}}}}}}}\n",
        "models/first.sql": "SELECT 1 AS id",
        "models/second.sql": "SELECT id FROM {{ ref('first') }}",
        "models/schema.yml": "models:\n- {name: second, columns: [{name: id, data_tests: [not_null]}]}\n",
    }
    for name, text in files.items():
        write(warehouse.path / name, text)
    warehouse.deploy()

    outcome = materialize(SQLMeshProject(warehouse.path), warehouse, instance)

    assert outcome.success
    assert set(outcome.materialized) == {"main/first", "main/second"}
    audits = {place: check.passed for place, check in outcome.checks.items() if place[1] != STATUS}
    assert audits == {("main/second", "not_null_second_id"): True}
