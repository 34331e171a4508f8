"""The vocabulary of the behaviour suite: a tiny project, what is run of it, and the whole of what Dagster then shows.

Annotations are not postponed: Dagster reads those of asset functions.
"""

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes import (
    Launcher,
    SQLMeshProject,
    SQLMeshResource,
    SQLMeshRunConfig,
    sqlmesh_assets,
)
from sqlmesh_pipes_protocol.manifest import DEFAULT_MANIFEST_NAME
from sqlmesh_pipes_protocol.spans import moment
from support.warehouse import Warehouse, write

_DIGEST = re.compile(r"_[0-9a-f]{8}$")
STATUS_CHECK = "sqlmesh_execution_status"
PASSED, WARNED, FAILED = "passed", "warned", "failed"
"""A check's result: it passed; it did not, with severity WARN; it did not, with severity ERROR."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What Dagster is to show of one asset.

    Attributes:
        status: of the model, which says as well whether it is materialized and how its status check came out.
        reason: of the skip, or the failure's category.
        audits: all results of its audits by check name: PASSED, WARNED or FAILED.
        metadata: values that must be there: of the materialization where the model was executed, of the status check where
            it was not, and of an audit's check as ``audit.entry``. A function is asked whether the value is right.
    """

    status: str
    reason: str | None = None
    audits: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def shown(self) -> dict[str, object]:
        """As `Seen` describes an asset."""
        check = {"executed": PASSED, "skipped": WARNED, "failed": FAILED}[self.status]
        return {
            "materialized": self.status == "executed",
            "status": self.status,
            "reason": self.reason,
            "checks": {STATUS_CHECK: check, **self.audits},
        }


def executed(audits: Mapping[str, str] = {}, **metadata: object) -> Told:
    return Told(status="executed", audits=audits, metadata=metadata)


def skipped(reason: str, audits: Mapping[str, str] = {}, **metadata: object) -> Told:
    return Told(status="skipped", reason=reason, audits=audits, metadata=metadata)


def failed(category: str, audits: Mapping[str, str] = {}, **metadata: object) -> Told:
    return Told(status="failed", reason=category, audits=audits, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One run of a Dagster job, and what comes before it.

    Attributes:
        expected: by asset key (or one for each engine) without the default catalog; the whole of it.
        config: of `SQLMeshRunConfig`.
        select: asset keys; None for all.
        sql: executed in the warehouse before the run.
        files: written into the project before the run; None deletes.
        deploy: plan the project again before the run, after the files are written, and leave the manifest as it is.
        manifest: write the manifest again before the run, after the files are written.
        resource: settings of `SQLMeshResource`.
        failure: parts of the step's failure; a step with a failed model, or with any part here, must fail.
        log: parts of lines in Dagster's log.
        unknown: parts of the warning that something ran which the manifest does not know; there must be none otherwise.
    """

    expected: "Mapping[str | PerEngine, Told]"
    config: Mapping[str, Any] = field(default_factory=dict)
    select: tuple[str, ...] | None = None
    sql: str | None = None
    files: Mapping[str, str | None] = field(default_factory=dict)
    deploy: bool = False
    manifest: bool = False
    resource: Mapping[str, Any] = field(default_factory=dict)
    failure: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def succeeds(self) -> bool:
        return not self.failure and all(told.status != "failed" for told in self.expected.values())


@dataclass(frozen=True, kw_only=True)
class Case:
    """A situation.

    Attributes:
        name: states what is the case.
        models: queries of FULL models by name.
        files: of the project, by path.
        sql: executed before the project is planned.
        steps: what is run, in order, in one Dagster instance.
        postgres: run on PostgreSQL too, always: one case of each family is.
        only_duckdb: why it cannot run on PostgreSQL.
    """

    name: str
    steps: tuple[Step, ...]
    models: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    sql: str | None = None
    postgres: bool = False
    only_duckdb: str | None = None


def in_one_run(expected: "Mapping[str | PerEngine, Told]", **step: Any) -> tuple[Step, ...]:
    """Everything, once, as it was planned."""
    return (Step(expected=expected, **step),)


@dataclass(frozen=True)
class Seen:
    """What the event log of one Dagster run holds.

    `support.warehouse.Outcome` leaves the catalog out of asset keys; here only the default one is. The digest that ends a key
    which had to be told from another is a ``#``: it comes of the model's FQN, and so of the database's name.
    """

    success: bool
    assets: dict[str, dict[str, Any]]
    metadata: dict[tuple[str, str | None], Mapping[str, Any]]
    """Values of a materialization (key, None) or a check (key, name)."""
    failure: str
    log: list[str]

    @classmethod
    def read(cls, instance: dg.DagsterInstance, run_id: str, catalog: str) -> "Seen":
        assets: dict[str, dict[str, Any]] = {}
        metadata: dict[tuple[str, str | None], Mapping[str, Any]] = {}
        failures, log = [], []

        def asset(asset_key: dg.AssetKey | None) -> tuple[str, dict[str, Any]]:
            assert asset_key is not None
            path = asset_key.path
            key = _DIGEST.sub("_#", "/".join(path[1:] if path[0] == catalog else path))
            nothing: dict[str, Any] = {"materialized": False, "status": None, "reason": None, "checks": {}}
            return key, assets.setdefault(key, nothing)

        for entry in instance.all_logs(run_id):
            event = entry.dagster_event
            if event is None:
                log.append(entry.user_message)
            elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
                data = event.step_failure_data
                failures += [data.error.message if data.error else ""]
                failures += [(data.user_failure_data.description or "") if data.user_failure_data else ""]
            elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
                key, shown = asset(event.asset_key)
                assert not shown["materialized"], f"{key} is materialized twice"
                shown["materialized"] = True
                metadata[key, None] = _plain(event.materialization.metadata)
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                check = event.asset_check_evaluation_data
                key, shown = asset(check.asset_key)
                assert check.check_name not in shown["checks"], f"{key} has {check.check_name} twice"
                severe = check.severity == dg.AssetCheckSeverity.ERROR
                shown["checks"][check.check_name] = PASSED if check.passed else FAILED if severe else WARNED
                metadata[key, check.check_name] = _plain(check.metadata)
                if check.check_name == STATUS_CHECK:
                    shown["status"] = metadata[key, STATUS_CHECK]["status"]
                    shown["reason"] = metadata[key, STATUS_CHECK].get("reason")
        run = instance.get_run_by_id(run_id)
        assert run is not None
        return cls(run.status == dg.DagsterRunStatus.SUCCESS, assets, metadata, "\n".join(failures), log)

    def value(self, key: str, told: Told, entry: str) -> Any:
        """One entry of the metadata that `Told` speaks of."""
        check, dot, name = entry.rpartition(".")
        source = check if dot else None if told.status == "executed" else STATUS_CHECK
        return self.metadata[key, source].get(name)


def _plain(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, Any]:
    """Values; times as SQLMesh's side writes them."""
    return {
        name: moment(round(value.value * 1000))
        if isinstance(value, dg.TimestampMetadataValue)
        else value.value
        for name, value in metadata.items()
    }


def contains(*parts: str) -> Callable[[object], bool]:
    """A predicate for metadata: the value holds each of these."""
    return lambda value: all(part in str(value) for part in parts)


def absent(value: object) -> bool:
    """A predicate for metadata: there is no such entry."""
    return value is None


@dataclass(frozen=True)
class PerEngine:
    """A value, or an asset key, that differs: DuckDB, for one, tells SQLMesh no numbers of rows."""

    duckdb: Any
    postgres: Any


def on(engine: str, value: Any) -> Any:
    """The value on an engine, whether it is the same on each or not."""
    return getattr(value, engine) if isinstance(value, PerEngine) else value


@dataclass(frozen=True)
class Stage:
    """Where a case is played: its warehouse, a Dagster instance, and how runners are started; by default on this host."""

    warehouse: Warehouse
    instance: dg.DagsterInstance
    execute: Callable[[str], object]
    """Executes SQL in the warehouse."""
    engine: str
    launcher: Launcher | None = None

    def play(self, step: Step) -> Seen:
        warehouse = self.warehouse
        for path, text in step.files.items():
            if text is None:
                (warehouse.path / path).unlink()
            else:
                write(warehouse.path / path, text)
        if step.sql:
            self.execute(step.sql)
        if step.deploy:
            manifest = warehouse.path / DEFAULT_MANIFEST_NAME
            before = manifest.read_text()
            warehouse.deploy()
            manifest.write_text(before)
        if step.manifest:
            warehouse.manifest()

        @sqlmesh_assets(project=SQLMeshProject(warehouse.path), name="warehouse")
        def assets(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
            yield from sqlmesh.run(context, config=SQLMeshRunConfig(**step.config))

        selection = None
        if step.select is not None:
            chosen = [[warehouse.catalog, *key.split("/")] for key in step.select]
            selection = dg.AssetSelection.assets(*chosen)
        result = dg.materialize(
            [assets],
            instance=self.instance,
            resources={
                "sqlmesh": warehouse.resource(launcher=self.launcher or warehouse.launcher(), **step.resource)
            },
            selection=selection,
            raise_on_error=False,
        )
        return Seen.read(self.instance, result.run_id, warehouse.catalog)


def execute_in_duckdb(warehouse: Warehouse, sql: str) -> None:
    """In a process of its own: DuckDB lets one process write."""
    code = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute(sys.argv[2])"
    command = [str(warehouse.bin / "python"), "-c", code, str(warehouse.database), sql]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
