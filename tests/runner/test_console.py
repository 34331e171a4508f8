"""What SQLMesh tells its console becomes events; SQLMesh finds its own console again."""

import inspect
from importlib.metadata import version

import pytest
from sqlmesh.core.console import Console, NoopConsole, get_console
from sqlmesh.core.scheduler import EvaluateNode
from sqlmesh.core.snapshot import SnapshotIdBatch
from sqlmesh.core.snapshot.execution_tracker import QueryExecutionStats
from sqlmesh.utils.concurrency import NodeExecutionFailedError
from sqlmesh.utils.errors import CircuitBreakerError

from sqlmesh_pipes_protocol.events import (
    BatchFinished,
    EvaluationStarted,
    Log,
    ModelFailed,
    ModelSkipped,
    ModelStarted,
)
from sqlmesh_pipes_runner.adapter import console_replaced
from sqlmesh_pipes_runner.console import SQLMeshEventCaptureConsole
from sqlmesh_pipes_runner.errors import RunInterruptedError
from sqlmesh_pipes_runner.recorder import RunRecorder

from .signatures import Declared, declared_for, spelled

BECOME_EVENTS: dict[str, Declared] = {
    "log_error": "message, *args, **kwargs",
    "log_failed_models": "errors",
    "log_skipped_models": "snapshot_names",
    "log_status_update": "message",
    "log_success": "message",
    "log_warning": "short_message, long_message=, *args, **kwargs",
    "start_evaluation_progress": "batched_intervals, environment_naming_info, default_catalog, audit_only=",
    "start_snapshot_evaluation_progress": "snapshot, audit_only=",
    "update_cleanup_progress": "object_name",
    "update_signal_progress": "snapshot, signal_name, signal_idx, total_signals, ready_intervals, check_intervals, duration",
    "update_snapshot_evaluation_progress": "snapshot, interval, batch_idx, duration_ms, num_audits_passed, num_audits_failed, audit_only=, execution_stats=, auto_restatement_triggers=",
}
"""The callbacks that tell of a run, and their parameters: handled by `SQLMeshEventCaptureConsole`."""

LEFT_OUT: dict[str, Declared] = {
    # Of a run, with nothing to add to the events above:
    "start_cleanup": "ignore_ttl",
    "start_signal_progress": "snapshot, default_catalog, environment_naming_info",
    "stop_cleanup": "success=",
    "stop_evaluation_progress": "success=",
    "stop_signal_progress": "",
    # Of a plan, which this project never makes:
    "log_additive_change": "snapshot_name, alter_operations, dialect, error=",
    "log_destructive_change": "snapshot_name, alter_operations, dialect, error=",
    "log_models_updated_during_restatement": "snapshots, environment_naming_info, default_catalog",
    "log_test_results": "result, target_dialect",
    "plan": "plan_builder, auto_apply, default_catalog, no_diff=, no_prompts=",
    "show_environment_difference_summary": "context_diff, no_diff=",
    "show_model_difference_summary": "context_diff, environment_naming_info, default_catalog, no_diff=",
    "start_creation_progress": "snapshots, environment_naming_info, default_catalog",
    "start_plan_evaluation": "plan",
    "start_promotion_progress": "snapshots, environment_naming_info, default_catalog",
    "stop_creation_progress": "success=",
    "stop_plan_evaluation": "",
    "stop_promotion_progress": "success=",
    "update_creation_progress": "snapshot",
    "update_promotion_progress": "snapshot, promoted",
    # Of other commands:
    "loading_start": "message=",
    "loading_stop": "id",
    "log_migration_status": "success=",
    "print_environments": "environments_summary",
    "show_intervals": "snapshot_intervals",
    "show_linter_violations": "violations, model, is_error=",
    "show_row_diff": "row_diff, show_sample=, skip_grain_check=",
    "show_schema_diff": "schema_diff",
    "show_sql": "sql",
    "show_table_diff": "table_diffs, show_sample=, skip_grain_check=, temp_schema=",
    "show_table_diff_details": "models_to_diff",
    "show_table_diff_summary": "table_diff",
    "start_destroy": "schemas_to_delete=, views_to_delete=, tables_to_delete=",
    "start_env_migration_progress": "total_tasks",
    "start_snapshot_migration_progress": "total_tasks",
    "start_state_export": "output_file, gateway=, state_connection_config=, environment_names=, local_only=, confirm=",
    "start_state_import": "input_file, gateway, state_connection_config, clear=, confirm=",
    "start_table_diff_model_progress": "model",
    "start_table_diff_progress": "models_to_diff",
    "stop_destroy": "success=",
    "stop_env_migration_progress": "success=",
    "stop_snapshot_migration_progress": "success=",
    "stop_state_export": "success, output_file",
    "stop_state_import": "success, input_file",
    "stop_table_diff_progress": "success",
    "update_env_migration_progress": "num_tasks",
    "update_snapshot_migration_progress": "num_tasks",
    "update_state_export_progress": "version_count=, versions_complete=, snapshot_count=, snapshots_complete=, environment_count=, environments_complete=",
    "update_state_import_progress": "timestamp=, state_file_version=, versions=, snapshot_count=, snapshots_complete=, environment_count=, environments_complete=",
    "update_table_diff_progress": "model",
}
"""The callbacks that are deliberately inherited from `NoopConsole`, and their parameters."""

READ = {**BECOME_EVENTS, **LEFT_OUT}
"""All as in SQLMesh 0.224.0 to 0.236.4. Where versions differ, a callback has its parameters by the version since which they are so,
``{"0.224": "message", "0.300": "message, style="}``; a callback that an older one has not is there ``None``."""

DAY = 86_400_000
ORDERS = '"db"."staging"."orders"'
DOUBLED = '"db"."marts"."doubled"'


WHAT_TO_DO = """
In sqlmesh/core/console.py read what each of these tells, and where SQLMesh calls it. Then decide, in
runner/sqlmesh_pipes_runner/console.py, whether SQLMeshEventCaptureConsole has to make of it
  an event (it tells of a model, a batch, an audit or a signal: implement it and call the recorder),
  a log line (people want to read it: implement it and call recorder.log), or
  nothing (it is of a plan or another command, or told already: leave it to NoopConsole).
Last, in tests/runner/test_console.py, write it down in BECOME_EVENTS or LEFT_OUT, with the SQLMesh since which it is so."""


def unread(console, installed=None):
    """What the callbacks of a console of SQLMesh's are not as they were read, a line each."""
    seen = {
        name: spelled(function)
        for name, function in inspect.getmembers(console, inspect.isfunction)
        if not name.startswith("_")
    }
    read = {
        name: parameters
        for name, declared in READ.items()
        if (parameters := declared_for(declared, installed)) is not None
    }
    return [
        *(f"new: {name}({seen[name]})" for name in sorted(seen.keys() - read.keys())),
        *(f"gone: {name}({read[name]})" for name in sorted(read.keys() - seen.keys())),
        *(
            f"changed: {name}({seen[name]}), which was read as {name}({read[name]})"
            for name in sorted(seen.keys() & read.keys())
            if seen[name] != read[name]
        ),
    ]


def test_the_callbacks_of_sqlmesh_are_those_that_were_read():
    found = unread(Console)

    assert not found, "\n".join(
        [f"SQLMesh {version('sqlmesh')} calls its console otherwise:", *found, WHAT_TO_DO]
    )


def test_a_callback_that_is_new_changed_or_gone_is_named_with_what_it_takes():
    class Later(Console):
        def log_model_paused(self, snapshot, *, reason=None): ...

        def update_snapshot_evaluation_progress(self, snapshot, interval, batch, duration_ms): ...

    remaining = {
        name: function
        for name, function in inspect.getmembers(Console, inspect.isfunction)
        if name != "stop_cleanup"
    }

    assert unread(Later) == [
        "new: log_model_paused(snapshot, *, reason=)",
        "changed: update_snapshot_evaluation_progress(snapshot, interval, batch, duration_ms), which was read as "
        "update_snapshot_evaluation_progress(snapshot, interval, batch_idx, duration_ms, num_audits_passed, "
        "num_audits_failed, audit_only=, execution_stats=, auto_restatement_triggers=)",
    ]
    assert unread(type("Earlier", (), remaining)) == ["gone: stop_cleanup(success=)"]


def test_a_difference_between_versions_is_declared_by_the_version_since_which_it_is_so():
    declared = {"0.224": "message", "0.300.1": "message, style="}

    assert declared_for(declared, "0.300.0") == "message"
    assert declared_for(declared, "0.300.1") == "message, style="
    assert declared_for({"0.224": None, "0.230": "message"}, "0.229.9") is None


def test_sqlmeshs_own_empty_console_takes_what_its_interface_declares():
    """The arguments of a callback are told apart by the names that `NoopConsole` gives them."""
    for name in READ:
        declared = spelled(getattr(Console, name))
        assert spelled(getattr(NoopConsole, name)) == declared.removesuffix(", *args, **kwargs")


def test_the_callbacks_that_become_events_are_those_that_the_console_has_of_its_own():
    own = {name for name in vars(SQLMeshEventCaptureConsole) if name in READ}

    assert own == set(BECOME_EVENTS)


@pytest.fixture
def events():
    return []


@pytest.fixture
def recorder(events):
    return RunRecorder(events.append)


@pytest.fixture
def console(recorder):
    return SQLMeshEventCaptureConsole(recorder, lambda fqn, failed: tuple(sorted(failed - {fqn})))


@pytest.fixture(scope="module")
def snapshots(planned):
    """Real snapshots of the planned project, by name."""
    with console_replaced(NoopConsole()):
        context = planned.context()
        found = {snapshot.name: snapshot for snapshot in context.snapshots.values()}
        context.close()
    return found


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def begin(console, batches):
    console.start_evaluation_progress(batches, None, "db")
    for snapshot in batches:
        console.start_snapshot_evaluation_progress(snapshot)


def node(snapshot, error):
    failed = NodeExecutionFailedError(EvaluateNode(snapshot.name, (0, DAY), 0))
    failed.__cause__ = error
    return failed


def test_a_console_is_put_back_after_success_and_after_an_exception(console):
    before = get_console()

    with console_replaced(console):
        assert get_console() is console
    assert get_console() is before
    with pytest.raises(LookupError), console_replaced(console):
        raise LookupError
    assert get_console() is before


def test_sqlmeshs_console_is_back_after_a_run_that_succeeds_and_one_that_breaks(warehouse):
    before = get_console()

    result, _ = warehouse.run("--quiet")
    assert result.exit_code == 0
    assert get_console() is before

    result, _ = warehouse.run("--gateway", "nowhere")
    assert result.exit_code == 2
    assert get_console() is before
    warehouse.database.write_bytes(b"no database")
    result = warehouse.invoke("run", "other")
    assert result.exit_code != 0
    assert get_console() is before


def test_positional_and_keyword_calls_tell_the_same(console, snapshots, events):
    orders, doubled = snapshots[ORDERS], snapshots[DOUBLED]
    batches = {orders: [(0, DAY)], doubled: [(0, DAY)]}
    stats = QueryExecutionStats(
        snapshot_id_batch=SnapshotIdBatch(snapshot_id=orders.snapshot_id, batch_id=0),
        total_rows_processed=3,
        total_bytes_processed=12,
    )
    begin(console, batches)
    console.update_snapshot_evaluation_progress(orders, (0, DAY), 0, 7, 1, 0, False, stats)
    console.update_snapshot_evaluation_progress(
        execution_stats=stats,
        num_audits_failed=0,
        num_audits_passed=1,
        duration_ms=7,
        batch_idx=0,
        interval=(0, DAY),
        snapshot=doubled,
    )

    first, second = of(events, BatchFinished)
    assert (first.model, second.model) == (ORDERS, DOUBLED)
    assert (first.interval, first.index, first.total, first.duration_ms, first.rows, first.bytes) == (
        second.interval,
        second.index,
        second.total,
        second.duration_ms,
        second.rows,
        second.bytes,
    )
    assert (first.total, first.duration_ms, first.rows, first.bytes) == (1, 7, 3, 12)


def test_an_argument_that_the_installed_version_does_not_declare_ends_no_run(console, snapshots, events):
    """SQLMesh calls some callbacks with more than `NoopConsole` names: its own `Console` lets it."""
    console.log_error("bad", "more", style="red")
    console.log_warning("careful", None, "more", style="red")
    console.log_status_update(message="fine", of_a_later_version=True)
    console.start_evaluation_progress({snapshots[ORDERS]: []}, None, None, of_a_later_version=True)

    assert [(event.level, event.message) for event in of(events, Log)] == [
        ("error", "bad"),
        ("warning", "careful"),
        ("info", "fine"),
    ]
    assert len(of(events, EvaluationStarted)) == 1


@pytest.mark.parametrize("name", sorted(BECOME_EVENTS))
def test_a_callback_that_cannot_be_told_raises_nothing_and_says_so(console, events, name):
    """SQLMesh calls from within its batches: a fault of ours would fail a model that is done."""
    getattr(console, name)()  # as a later version might, with other names

    (event,) = events
    assert (event.kind, event.level) == ("log", "error")
    assert event.message.startswith(f"{name} could not be told: KeyError(")


def test_a_fault_in_what_the_console_asks_raises_nothing(recorder, snapshots, events):
    def blocked_by(fqn, failed):
        raise LookupError("no such model")

    console = SQLMeshEventCaptureConsole(recorder, blocked_by)
    orders, doubled = snapshots[ORDERS], snapshots[DOUBLED]
    console.start_evaluation_progress({orders: [(0, DAY)], doubled: [(0, DAY)]}, None, "db")
    console.log_skipped_models({DOUBLED})
    console.log_failed_models([node(orders, ValueError("no table"))])

    assert [event.model for event in of(events, ModelFailed)] == [ORDERS]
    assert "log_failed_models could not be told: LookupError('no such model')" in of(events, Log)[-1].message


def test_an_interrupt_is_not_swallowed_with_the_faults(events):
    class Interrupted(RunRecorder):
        def log(self, *_):
            raise KeyboardInterrupt

    console = SQLMeshEventCaptureConsole(Interrupted(events.append), lambda fqn, failed: ())
    with pytest.raises(KeyboardInterrupt):
        console.log_error("bad")


def test_a_warning_is_told_in_its_long_form_where_it_has_one(console, events):
    console.log_warning("short", "the whole story\n")
    console.log_warning("short alone")
    console.log_success("done")
    console.update_cleanup_progress("db.s.old")

    assert [(event.level, event.message) for event in of(events, Log)] == [
        ("warning", "the whole story"),
        ("warning", "short alone"),
        ("info", "done"),
        ("info", "The janitor has deleted db.s.old."),
    ]


def test_standalone_audits_are_no_models(console, snapshots, events):
    begin(console, {snapshots["orders_exist"]: [(0, DAY)]})
    console.update_snapshot_evaluation_progress(snapshots["orders_exist"], (0, DAY), 0, 7, 1, 0)

    assert [type(event) for event in events] == [EvaluationStarted]
    assert events[0].batches == ()


def test_a_batch_without_a_duration_has_raised_and_is_not_told_as_finished(
    console, recorder, snapshots, events
):
    from sqlmesh_pipes_runner.failures import error_info

    orders = snapshots[ORDERS]
    begin(console, {orders: [(0, DAY)]})
    recorder.batch_failed(ORDERS, (0, DAY), error_info(ValueError("no")))
    console.update_snapshot_evaluation_progress(orders, (0, DAY), 0, None, 0, 0)

    assert of(events, BatchFinished) == []
    assert [event.error.message for event in of(events, ModelFailed)] == ["no"]


def test_a_model_skipped_by_sqlmesh_names_the_failed_ones_it_depends_on(console, snapshots, events):
    orders, doubled = snapshots[ORDERS], snapshots[DOUBLED]
    console.start_evaluation_progress({orders: [(0, DAY)], doubled: [(0, DAY)]}, None, "db")
    console.log_skipped_models({DOUBLED})
    assert of(events, ModelSkipped) == []  # SQLMesh tells the failed ones next

    console.log_failed_models([node(orders, ValueError("no table"))])

    (failed,) = of(events, ModelFailed)
    (skipped,) = of(events, ModelSkipped)
    assert (failed.model, failed.error.message, failed.interval) == (ORDERS, "no table", None)
    assert (skipped.model, skipped.reason, skipped.blocked_by) == (DOUBLED, "upstream_failed", (ORDERS,))
    assert ORDERS in skipped.detail


@pytest.mark.parametrize("cause", [RunInterruptedError("SIGTERM"), CircuitBreakerError()])
def test_a_batch_that_was_stopped_has_not_failed(console, snapshots, events, cause):
    console.start_evaluation_progress({snapshots[ORDERS]: [(0, DAY)]}, None, "db")
    console.log_failed_models([node(snapshots[ORDERS], cause)])

    assert of(events, ModelFailed) == []


def test_a_model_without_batches_waits_for_its_signal_or_for_one_upstream(console, snapshots, events):
    orders, doubled = snapshots[ORDERS], snapshots[DOUBLED]
    console.update_signal_progress(orders, "landed", 0, 1, [], [(0, DAY)], 0.1)
    console.update_signal_progress(doubled, "ready", 0, 1, [(0, DAY)], [(0, DAY)], 0.1)
    console.start_evaluation_progress({orders: [], doubled: []}, None, "db")

    own, waiting = console.held_back(ORDERS), console.held_back(DOUBLED)
    assert (own.reason, own.blocked_by, own.detail) == (
        "signal_not_ready",
        ("landed",),
        "Not ready: landed.",
    )
    assert (waiting.reason, waiting.blocked_by) == ("signal_not_ready", (ORDERS,))
    assert of(events, ModelStarted) == []


def test_what_is_due_is_known_only_once_sqlmesh_has_said_so(console, snapshots):
    assert console.is_due(ORDERS) is None

    console.start_evaluation_progress({snapshots[ORDERS]: [(0, DAY)], snapshots[DOUBLED]: []}, None, "db")

    assert console.is_due(ORDERS) is True
    assert console.is_due(DOUBLED) is False
    assert console.is_due('"db"."marts"."paid"') is False


def test_a_model_that_has_batches_or_was_not_due_is_not_held_back(console, snapshots):
    console.start_evaluation_progress({snapshots[ORDERS]: [(0, DAY)]}, None, "db")

    assert console.held_back(ORDERS) is None
    assert console.held_back(DOUBLED) is None
