"""The manifest tells the project's versions from those that an environment has."""

import duckdb
import pytest

from sqlmesh_pipes_protocol.manifest import DeployedModel, load_manifest
from sqlmesh_pipes_runner.errors import UsageError
from sqlmesh_pipes_runner.manifest import build_manifest
from sqlmesh_pipes_runner.options import RunOptions


@pytest.fixture
def manifest_of(monkeypatch):
    """The manifest of a project, with what an environment holds."""

    def build(warehouse, environment="prod"):
        monkeypatch.setenv("RUNNER_TEST_DATABASE", str(warehouse.database))
        return build_manifest(RunOptions(projects=(warehouse.path,), environment=environment))

    return build


def of_the_project(manifest):
    return {
        model.fqn: DeployedModel(data_hash=model.data_hash, metadata_hash=model.metadata_hash)
        for model in manifest.models
    }


def test_what_is_deployed_and_unchanged_has_the_hashes_of_the_project(warehouse, manifest_of):
    manifest = manifest_of(warehouse)

    assert manifest.deployment.environment == "prod"
    assert manifest.deployment.finalized_at.endswith("Z")
    assert len(manifest.models) == 6
    # The external table that is declared is no model, and the standalone audit is none either.
    assert dict(manifest.deployment.models) == of_the_project(manifest)


def test_a_change_of_data_one_of_metadata_a_new_model_and_one_that_is_gone_are_told_apart(
    warehouse, manifest_of
):
    doubled = (warehouse.path / "models/doubled.py").read_text()
    orders = (warehouse.path / "models/orders.sql").read_text()
    warehouse.write(
        {
            "models/doubled.py": doubled.replace("[2, 4]", "[2, 4, 6]"),
            "models/orders.sql": orders.replace("owner shop", "owner sales"),
            "models/added.sql": "MODEL (name marts.added, kind FULL); SELECT id FROM staging.orders",
        }
    )
    (warehouse.path / "models/paid.sql").unlink()
    manifest = manifest_of(warehouse)

    project, deployed = of_the_project(manifest), manifest.deployment.models
    assert set(project) - set(deployed) == {'"db"."marts"."added"'}
    assert set(deployed) - set(project) == {'"db"."marts"."paid"'}
    both = set(project) & set(deployed)
    assert {fqn for fqn in both if project[fqn].data_hash != deployed[fqn].data_hash} == {
        '"db"."marts"."doubled"'
    }
    assert {fqn for fqn in both if project[fqn].metadata_hash != deployed[fqn].metadata_hash} == {
        '"db"."staging"."orders"'
    }

    warehouse.plan()
    assert dict(manifest_of(warehouse).deployment.models) == project


def test_a_development_environment_has_its_own_versions(warehouse, manifest_of):
    before = of_the_project(manifest_of(warehouse))
    orders = (warehouse.path / "models/orders.sql").read_text()
    warehouse.write({"models/orders.sql": orders.replace("SELECT 3::INT", "SELECT 4::INT")})
    warehouse.plan("dev")

    dev, prod = manifest_of(warehouse, "dev"), manifest_of(warehouse, "prod")

    assert dict(prod.deployment.models) == before
    assert dict(dev.deployment.models) == of_the_project(dev) != before


def test_an_environment_that_does_not_exist_is_refused_with_those_that_do(warehouse, manifest_of):
    with pytest.raises(UsageError, match=r"no environment 'dev' .* \(it has prod\)"):
        manifest_of(warehouse, "dev")


def test_reading_makes_no_state_where_there_is_none(make_warehouse, manifest_of):
    warehouse = make_warehouse({"models/m.sql": "MODEL (name s.m, kind FULL); SELECT 1 AS a"}, plan=False)

    with pytest.raises(UsageError, match=r"\(it has none\): create it with `sqlmesh plan prod`"):
        manifest_of(warehouse)

    with duckdb.connect(str(warehouse.database)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM information_schema.tables").fetchone() == (0,)


def test_the_command_says_how_many_are_deployed_and_writes_nothing_else_unasked(warehouse):
    asked = warehouse.invoke("manifest", "--environment", "prod")
    path = warehouse.path / "sqlmesh_manifest.json"

    assert asked.exit_code == 0, asked.output
    assert asked.stderr == f"{path}: 6 models, 2 external, 6 deployed in prod.\n"
    assert load_manifest(path).deployment.environment == "prod"
    assert warehouse.invoke("manifest").exit_code == 0
    assert load_manifest(path).deployment is None
