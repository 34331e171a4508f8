"""What the runner builds on in SQLMesh is as it was read; a SQLMesh in which it is not is refused before anything runs."""

from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement

from sqlmesh_pipes_runner.adapter import seams
from sqlmesh_pipes_runner.installation import DISTRIBUTION, READ_AGAINST, unmet_requirement

from .signatures import Declared, declared_for, spelled

READ: dict[str, Declared] = {
    "Context.__init__": {
        "0.224": "notification_targets=, state_sync=, paths=, config=, gateway=, concurrent_tasks=, loader=, load=, users=, config_loader_kwargs=, selector=",
        "0.236": "notification_targets=, state_sync=, paths=, config=, gateway=, concurrent_tasks=, loader=, load=, users=, config_loader_kwargs=, selector=, load_state=",
    },
    "Context._new_state_sync": "",
    "Context.state_sync": "",
    "Context.create_scheduler": "snapshots, snapshot_evaluator",
    "Context.run": "environment=, *, start=, end=, execution_time=, skip_janitor=, ignore_cron=, select_models=, exit_on_env_update=, no_auto_upstream=",
    "Context._select_models_for_run": "select_models, no_auto_upstream, snapshots",
    "load_configs": "config, config_type, paths, sqlmesh_path=, dotenv_path=, **kwargs",
    "PostgresConnectionConfig._connection_factory_with_kwargs": "",
    "Scheduler.__init__": "snapshots, snapshot_evaluator, state_sync, default_catalog, max_workers=, console=, notification_target_manager=",
    "Scheduler.run": "environment, start=, end=, execution_time=, restatements=, start_override_per_model=, end_override_per_model=, ignore_cron=, end_bounded=, selected_snapshots=, circuit_breaker=, deployability_index=, auto_restatement_enabled=, run_environment_statements=",
    "Scheduler.run_merged_intervals": "*, merged_intervals, deployability_index, environment_naming_info, execution_time=, circuit_breaker=, start=, end=, allow_destructive_snapshots=, selected_models=, allow_additive_snapshots=, selected_snapshot_ids=, run_environment_statements=, audit_only=, auto_restatement_triggers=, is_restatement=",
    "Scheduler.evaluate": "snapshot, start, end, execution_time, deployability_index, batch_index, environment_naming_info=, allow_destructive_snapshots=, allow_additive_snapshots=, target_table_exists=, **kwargs",
    "Scheduler._check_ready_intervals": "snapshot, intervals, context, environment_naming_info",
    "Scheduler.merged_missing_intervals": "start=, end=, execution_time=, deployability_index=, restatements=, start_override_per_model=, end_override_per_model=, ignore_cron=, end_bounded=, selected_snapshots=",
    "DeployabilityIndex.create": "snapshots, start=, start_override_per_model=",
    "SnapshotEvaluator._audit": "audit, audit_args, snapshot, snapshots, start, end, execution_time, deployability_index, **kwargs",
    "SnapshotEvaluator.get_adapter": "gateway=",
    "PythonModel.render": "*, context, start=, end=, execution_time=, **kwargs",
    "normalize_model_name": "table, default_catalog, dialect=",
    "EngineAdapterStateSync.get_versions": "validate=",
    "snapshot_name_version_filter": "engine_adapter, snapshot_name_versions, batch_size, version_column_name=, alias=, column_prefix=",
    "NoopConsole.start_evaluation_progress": "batched_intervals, environment_naming_info, default_catalog, audit_only=",
    "NoopConsole.start_snapshot_evaluation_progress": "snapshot, audit_only=",
    "NoopConsole.update_snapshot_evaluation_progress": "snapshot, interval, batch_idx, duration_ms, num_audits_passed, num_audits_failed, audit_only=, execution_stats=, auto_restatement_triggers=",
    "NoopConsole.update_signal_progress": "snapshot, signal_name, signal_idx, total_signals, ready_intervals, check_intervals, duration",
    "NoopConsole.log_skipped_models": "snapshot_names",
    "NoopConsole.log_failed_models": "errors",
}
"""The parameters of each; where SQLMesh's versions differ, by the version since which they are so."""

WHAT_TO_DO = """
Read each in SQLMesh, and what the runner does with it: runner/sqlmesh_pipes_runner/adapter, and console.py beside it. Mend what no
longer fits, by looking at what SQLMesh has and not at its version where that can be. Last, write the new parameters down in
tests/runner/test_seams.py, with the SQLMesh since which they are so, and the version in READ_AGAINST of installation.py."""


def test_what_the_runner_builds_on_is_as_it_was_read():
    changed = [
        f"{seam.path}({spelled(seam.found())}), which was read as {seam.path}({declared_for(READ[seam.path])})"
        for seam in seams.SEAMS
        if seam.found() is not None and spelled(seam.found()) != declared_for(READ[seam.path])
    ]
    found = [*seams.unknown_seams(), *changed]

    assert not found, "\n".join([f"SQLMesh {version('sqlmesh')} is otherwise:", *found, WHAT_TO_DO])


def test_what_is_looked_at_is_what_was_read():
    assert [seam.path for seam in seams.SEAMS] == list(READ)


def test_the_oldest_version_that_was_read_is_the_oldest_that_can_be_installed():
    (asked,) = (
        requirement
        for text in requires(DISTRIBUTION) or ()
        if (requirement := Requirement(text)).name == "sqlmesh"
    )

    assert READ_AGAINST[0] in asked.specifier
    assert {str(one) for one in asked.specifier} == {f">={READ_AGAINST[0].removesuffix('.0')}"}


@pytest.mark.parametrize(
    ("installed", "unmet"),
    [("0.236.4", None), ("0.240.0", None), ("0.236.3", "sqlmesh>=0.236.4"), ("0.236.5.dev1", None)],
)
def test_an_installed_version_is_held_against_what_is_asked_for(installed, unmet):
    asked = ["click>=8.1", "sqlmesh>=0.236.4; extra == 'sqlmesh'", "sqlmesh-plugin>=9"]

    assert unmet_requirement("sqlmesh", installed, asked) == unmet


ANOTHER_SQLMESH = """
    import importlib.metadata, sys

    what, *arguments = sys.argv[1:]
    if what == "an old one":
        found = importlib.metadata.version
        importlib.metadata.version = lambda name: "0.100.0" if name == "sqlmesh" else found(name)
    if what == "without a name":
        import sqlmesh.core.scheduler
        del sqlmesh.core.scheduler.Scheduler
    if what == "without a callback":
        from sqlmesh.core.console import NoopConsole
        for base in NoopConsole.__mro__:
            if "log_success" in vars(base):
                del base.log_success
    if what == "without a method":
        from sqlmesh.core.snapshot import SnapshotEvaluator
        del SnapshotEvaluator._audit
    if what == "with other parameters":
        from sqlmesh.core.scheduler import Scheduler
        Scheduler.evaluate = lambda self, snapshots, start, end: None
    if what == "broken":
        sys.modules["sqlmesh.core.context"] = None
    from sqlmesh_pipes_runner.cli import main
    main(arguments)
"""
INSTALL = "Install it in the runner's environment: pip install 'dagster-sqlmesh-pipes[sqlmesh]'"
INSTALL_ANOTHER = (
    f"Install a later dagster-sqlmesh-pipes, or a SQLMesh from {READ_AGAINST[0]} to {READ_AGAINST[1]}."
)
REFUSALS = {
    "an old one": f"SQLMesh 0.100.0 is installed, and dagster-sqlmesh-pipes needs sqlmesh>=0.224. {INSTALL}",
    "broken": f"SQLMesh {version('sqlmesh')} cannot be imported: import of sqlmesh.core.context halted; "
    f"None in sys.modules. {INSTALL}",
    **{
        what: f"SQLMesh {version('sqlmesh')} is installed, which this runner does not know: {unknown}. {INSTALL_ANOTHER}"
        for what, unknown in {
            "without a callback": "type object 'NoopConsole' has no attribute 'log_success'",
            "without a method": "there is no SnapshotEvaluator._audit",
            "with other parameters": "Scheduler.evaluate has no parameter snapshot",
        }.items()
    },
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_sqlmesh_that_the_runner_cannot_work_with_is_refused_in_a_sentence(warehouse, python, what):
    before = warehouse.database.read_bytes()
    done = python(
        ANOTHER_SQLMESH,
        what,
        "run",
        "prod",
        "--project",
        str(warehouse.path),
        env={"RUNNER_TEST_DATABASE": str(warehouse.database)},
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert REFUSALS[what] in done.stderr
    assert "Traceback" not in done.stderr
    assert warehouse.database.read_bytes() == before


@pytest.mark.parametrize("command", ["manifest", "due", "reconcile", "doctor"])
def test_every_command_refuses_it_likewise(warehouse, python, command):
    arguments = [command, "--project", str(warehouse.path)]
    if command == "reconcile":
        arguments += ["--since", "2026-01-01"]
    done = python(ANOTHER_SQLMESH, "without a method", *arguments)

    assert done.returncode == 2
    for sentence in ("does not know: there is no SnapshotEvaluator._audit.", INSTALL_ANOTHER):
        assert sentence in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_the_adapter_imports_and_sqlmesh_has_not_is_named(warehouse, python):
    done = python(ANOTHER_SQLMESH, "without a name", "run", "prod", "--project", str(warehouse.path))

    assert done.returncode == 2
    assert "cannot import name 'Scheduler' from 'sqlmesh.core.scheduler'" in done.stderr
    assert "Traceback" not in done.stderr
