"""What SQLMesh tells its console becomes events; SQLMesh finds its own console again."""

import inspect

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

BECOME_EVENTS = {
    "log_error",
    "log_failed_models",
    "log_skipped_models",
    "log_status_update",
    "log_success",
    "log_warning",
    "start_evaluation_progress",
    "start_snapshot_evaluation_progress",
    "update_cleanup_progress",
    "update_signal_progress",
    "update_snapshot_evaluation_progress",
}
"""The callbacks that tell of a run."""

LEFT_OUT = {
    # Of a run, with nothing to add to the events above:
    "start_cleanup",
    "start_signal_progress",
    "stop_cleanup",
    "stop_evaluation_progress",
    "stop_signal_progress",
    # Of a plan, which this project never makes:
    "log_additive_change",
    "log_destructive_change",
    "log_models_updated_during_restatement",
    "log_test_results",
    "plan",
    "show_environment_difference_summary",
    "show_model_difference_summary",
    "start_creation_progress",
    "start_plan_evaluation",
    "start_promotion_progress",
    "stop_creation_progress",
    "stop_plan_evaluation",
    "stop_promotion_progress",
    "update_creation_progress",
    "update_promotion_progress",
    # Of other commands:
    "loading_start",
    "loading_stop",
    "log_migration_status",
    "print_environments",
    "show_intervals",
    "show_linter_violations",
    "show_row_diff",
    "show_schema_diff",
    "show_sql",
    "show_table_diff",
    "show_table_diff_details",
    "show_table_diff_summary",
    "start_destroy",
    "start_env_migration_progress",
    "start_snapshot_migration_progress",
    "start_state_export",
    "start_state_import",
    "start_table_diff_model_progress",
    "start_table_diff_progress",
    "stop_destroy",
    "stop_env_migration_progress",
    "stop_snapshot_migration_progress",
    "stop_state_export",
    "stop_state_import",
    "stop_table_diff_progress",
    "update_env_migration_progress",
    "update_snapshot_migration_progress",
    "update_state_export_progress",
    "update_state_import_progress",
    "update_table_diff_progress",
}
"""The callbacks that are deliberately inherited from `NoopConsole`."""

DAY = 86_400_000
ORDERS = '"db"."staging"."orders"'
DOUBLED = '"db"."marts"."doubled"'


def test_the_callbacks_of_sqlmesh_are_those_that_were_read():
    known = BECOME_EVENTS | LEFT_OUT
    added, gone = Console.__abstractmethods__ - known, known - Console.__abstractmethods__

    assert (added, gone) == (set(), set()), (
        f"SQLMesh's Console has gained {sorted(added)} and lost {sorted(gone)}. Read what each new callback tells and "
        "where SQLMesh calls it, decide whether it must become an event, implement it in "
        "SQLMeshEventCaptureConsole, and add it to BECOME_EVENTS, or to LEFT_OUT with the reason."
    )


def test_the_callbacks_that_become_events_are_those_that_the_console_has_of_its_own():
    own = {name for name in vars(SQLMeshEventCaptureConsole) if name in Console.__abstractmethods__}

    assert own == BECOME_EVENTS


@pytest.mark.parametrize("name", sorted(BECOME_EVENTS))
def test_the_arguments_of_the_callbacks_are_those_that_were_read(name):
    read = {
        "log_error": ["message"],
        "log_failed_models": ["errors"],
        "log_skipped_models": ["snapshot_names"],
        "log_status_update": ["message"],
        "log_success": ["message"],
        "log_warning": ["short_message", "long_message"],
        "start_evaluation_progress": [
            "batched_intervals",
            "environment_naming_info",
            "default_catalog",
            "audit_only",
        ],
        "start_snapshot_evaluation_progress": ["snapshot", "audit_only"],
        "update_cleanup_progress": ["object_name"],
        "update_signal_progress": [
            "snapshot",
            "signal_name",
            "signal_idx",
            "total_signals",
            "ready_intervals",
            "check_intervals",
            "duration",
        ],
        "update_snapshot_evaluation_progress": [
            "snapshot",
            "interval",
            "batch_idx",
            "duration_ms",
            "num_audits_passed",
            "num_audits_failed",
            "audit_only",
            "execution_stats",
            "auto_restatement_triggers",
        ],
    }
    parameters = list(inspect.signature(getattr(NoopConsole, name)).parameters)

    assert parameters == ["self", *read[name]], (
        "read what changed, and whether the callback still uses it right"
    )


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
