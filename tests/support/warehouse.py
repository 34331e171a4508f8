"""Real SQLMesh projects on DuckDB or PostgreSQL, real runners in their own environment, a real Dagster instance.

Annotations are not postponed: Dagster reads those of asset functions.
"""

import json
import os
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, SubprocessLauncher, sqlmesh_assets
from support.postgres import PASSWORD, PostgresServer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
DUCKDB = """\
      type: duckdb
      catalogs:
        db: "{{ env_var('TEST_DATABASE') }}"
"""
POSTGRES = """\
      type: postgres
      host: 127.0.0.1
      port: {{ env_var('TEST_PORT') }}
      user: postgres
      password: @password@
      database: {{ env_var('TEST_DATABASE') }}
"""
CONFIG = """\
gateways:
  local:
    connection:
@connection@
default_gateway: local
model_defaults:
  dialect: @dialect@
  start: 2026-01-01
  cron: '@daily'
disable_anonymized_analytics: true
"""


@pytest.fixture(scope="session")
def runner_bin() -> Path:
    """The commands of the runner's environment."""
    path = Path(os.environ.get("SQLMESH_RUNNER_VENV", ROOT / ".venv-runner")) / "bin"
    assert (path / "sqlmesh-runner").exists(), f"no runner in {path}: make it with `make install`"
    return path


@dataclass
class Warehouse:
    """A SQLMesh project with a database of its own."""

    path: Path
    database: Path | str
    bin: Path
    catalog: str = "db"
    env: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "TEST_DATABASE": str(self.database), **self.env}

    def deploy(
        self,
        environment: str = "prod",
        *,
        gateway: str = "",
        others: Sequence[Path] = (),
        timeout: float = 120,
    ) -> None:
        """Plan into an environment, leave all the work to the next run, and write the manifest."""
        projects = os.pathsep.join(map(str, [self.path, *others]))
        done = subprocess.run(
            [str(self.bin / "python"), str(HERE / "deploy.py"), projects, environment, gateway],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def runner(self, *arguments: str, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "sqlmesh-runner"), *arguments],
            env={**self.environ, **env},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            cwd=self.path.parent,
            check=False,
        )

    def run(self, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[dict]]:
        """`sqlmesh-runner run prod` and the events on its standard output."""
        done = self.runner("run", "prod", "--project", str(self.path), "--events", "-", *arguments)
        return done, [json.loads(line) for line in done.stdout.splitlines()]

    def manifest(self) -> None:
        done = self.runner("manifest", "--project", str(self.path))
        assert done.returncode == 0, done.stderr

    def launcher(self, **settings: object) -> SubprocessLauncher:
        env = {"TEST_DATABASE": str(self.database), **self.env}
        return SubprocessLauncher(
            **{"command": [str(self.bin / "sqlmesh-runner")], "env": env, **settings}  # type: ignore[arg-type]
        )

    def assets(self, **settings: object) -> dg.AssetsDefinition:
        @sqlmesh_assets(project=SQLMeshProject(self.path), name="warehouse", **settings)
        def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
            yield from sqlmesh.run(context)

        return warehouse

    def resource(self, **settings: object) -> SQLMeshResource:
        settings.setdefault("launcher", self.launcher())
        return SQLMeshResource(SQLMeshProject(self.path), **settings)

    def materialize(
        self,
        instance: dg.DagsterInstance,
        *,
        selection: object = None,
        assets: dg.AssetsDefinition | None = None,
        **resource: object,
    ) -> "Outcome":
        result = dg.materialize(
            [assets or self.assets()],
            instance=instance,
            resources={"sqlmesh": self.resource(**resource)},
            selection=selection,
            raise_on_error=False,
        )
        return Outcome.read(instance, result.run_id)


@dataclass
class Outcome:
    """What Dagster's event log holds of a run; of checks the latest result, where the step was retried."""

    run_id: str
    success: bool
    materialized: dict[str, dg.AssetMaterialization]
    checks: dict[tuple[str, str], dg.AssetCheckEvaluation]
    failure: str
    retried: int
    log: list[str]
    recovered: dict[str, dg.AssetMaterialization] = field(default_factory=dict)
    """What an attempt did that died before it said so, of models that are materialized as well."""

    @classmethod
    def read(cls, instance: dg.DagsterInstance, run_id: str) -> "Outcome":
        """Asset keys are given without the catalog: ``staging/orders``."""
        entries = instance.all_logs(run_id)
        events = [entry.dagster_event for entry in entries if entry.dagster_event is not None]
        run = instance.get_run_by_id(run_id)
        assert run is not None
        failures = [
            event.step_failure_data
            for event in events
            if event.event_type == dg.DagsterEventType.STEP_FAILURE
        ]
        retried = sum(event.event_type == dg.DagsterEventType.STEP_RESTARTED for event in events)
        materialized: dict[str, dg.AssetMaterialization] = {}
        recovered: dict[str, dg.AssetMaterialization] = {}
        checks: dict[tuple[str, str], dg.AssetCheckEvaluation] = {}
        for event in events:
            if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
                key = short(event.asset_key)
                found = materialized.setdefault(key, event.materialization)
                if found is not event.materialization:
                    # Of a worker that was killed while Dagster wrote it may be in the run's log and in no asset's: told again then.
                    pair = sorted((found, event.materialization), key=lambda each: "told_by" in each.metadata)
                    assert "told_by" in pair[1].metadata, f"{key} is materialized twice"
                    assert key not in recovered
                    materialized[key], recovered[key] = pair
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluation = event.asset_check_evaluation_data
                place = (short(evaluation.asset_key), evaluation.check_name)
                assert place not in checks or retried, f"{place} is reported twice"
                checks[place] = evaluation
        return cls(
            run_id=run_id,
            success=run.status == dg.DagsterRunStatus.SUCCESS,
            materialized=materialized,
            recovered=recovered,
            checks=checks,
            failure=" ".join(
                data.error.message
                + (data.user_failure_data.description or "" if data.user_failure_data else "")
                for data in failures
                if data.error
            ),
            retried=retried,
            log=[entry.user_message for entry in entries if entry.dagster_event is None],
        )

    def status(self, key: str) -> tuple[str, str | None]:
        """Status and reason, as ``sqlmesh_execution_status`` has them."""
        metadata = self.checks[key, "sqlmesh_execution_status"].metadata
        reason = metadata.get("reason")
        return str(metadata["status"].value), str(reason.value) if reason else None


def short(key: dg.AssetKey | None) -> str:
    assert key is not None
    return "/".join(key.path[1:])


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        yield instance


@pytest.fixture
def make_warehouse(
    tmp_path: Path, runner_bin: Path, request: pytest.FixtureRequest
) -> Callable[..., Warehouse]:
    """Write a project: files by path, and a FULL model for each entry of ``models``."""

    def make(
        models: Mapping[str, str] = {},
        files: Mapping[str, str] = {},
        *,
        deploy: bool = True,
        engine: str = "duckdb",
        **env: str,
    ) -> Warehouse:
        path = tmp_path / "project"
        database: Path | str = tmp_path / "db.duckdb"
        connection, catalog = DUCKDB, "db"
        if engine == "postgres":
            server: PostgresServer = request.getfixturevalue("postgres_server")
            database = catalog = server.new_database()
            env["TEST_PORT"] = str(server.port)
            connection = POSTGRES.replace("@password@", PASSWORD)
        config = CONFIG.replace("@connection@\n", connection).replace("@dialect@", engine)
        write(path / "config.yaml", config)
        for name, query in models.items():
            write(path / "models" / f"{name}.sql", f"MODEL (name {name}, kind FULL);\n{query}")
        for name, text in files.items():
            write(path / name, textwrap.dedent(text))
        warehouse = Warehouse(path=path, database=database, bin=runner_bin, catalog=catalog, env=env)
        if deploy:
            warehouse.deploy()
        return warehouse

    return make


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture(scope="session")
def planned_shop(tmp_path_factory: pytest.TempPathFactory, runner_bin: Path) -> Warehouse:
    """The example's warehouse, planned once a worker; tests get a copy."""
    path = tmp_path_factory.mktemp("shop") / "warehouse"
    shutil.copytree(ROOT / "examples/shop/warehouse", path, ignore=shutil.ignore_patterns(".cache", "logs"))
    database = path.parent / "shop.duckdb"
    warehouse = Warehouse(path=path, database=database, bin=runner_bin, env={"SHOP_DATABASE": str(database)})
    load = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); c.execute('create schema raw'); "
        "c.execute('create table raw.payments as select * from read_csv(?)', [sys.argv[2]])"
    )
    payments = ROOT / "examples/shop/data/payments.csv"
    subprocess.run(
        [str(runner_bin / "python"), "-c", load, str(database), str(payments)], check=True, timeout=60
    )
    warehouse.deploy()
    return warehouse


@pytest.fixture
def shop(planned_shop: Warehouse, tmp_path: Path) -> Warehouse:
    """The example's warehouse, planned, with everything due."""
    shutil.copytree(planned_shop.path, tmp_path / "warehouse")
    database = tmp_path / "shop.duckdb"
    shutil.copy(planned_shop.database, database)
    return Warehouse(
        path=tmp_path / "warehouse",
        database=database,
        bin=planned_shop.bin,
        env={"SHOP_DATABASE": str(database)},
    )
