"""A runner's output is data: whatever stands in it, Dagster's process keeps its memory, its time and its other results."""

import queue
from datetime import datetime, timezone

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import SubprocessLauncher
from dagster_sqlmesh_pipes.errors import LaunchError, SQLMeshPipesError
from dagster_sqlmesh_pipes.launchers import RunnerCall, answer
from dagster_sqlmesh_pipes.launchers import launcher as launcher_module
from dagster_sqlmesh_pipes.partitions import PartitionedRun
from dagster_sqlmesh_pipes.pipes import (
    Closed,
    Items,
    Notice,
    Payload,
    RunnerMessageHandler,
    RunnerOutputReader,
)
from sqlmesh_pipes_protocol.events import Interval


@pytest.fixture(scope="module")
def context():
    return dg.build_asset_context()


@pytest.fixture
def handler(context):
    return RunnerMessageHandler(context, RunnerOutputReader())


def message(method, params):
    return {"__dagster_pipes_version": "0.1", "method": method, "params": params}


def taken(handler):
    items = []
    while not handler.items.empty():
        items.append(handler.items.get())
    return items


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("log", {}),
        ("log", None),
        ("log", {"message": 1}),
        ("log", {"message": "a", "level": "no level", "more": 1}),
        ("log_external_stream", {"stream": "nowhere", "text": "a"}),
        ("report_asset_materialization", {"asset_key": "a"}),
        ("report_asset_check", {}),
        ("no such method", {"a": "b" * 10_000}),
        ("x" * 10_000, None),
    ],
)
def test_what_only_resembles_a_message_is_told_once_and_ends_nothing(handler, method, params):
    for _ in range(1_000):
        handler.handle_message(message(method, params))
    handler.handle_message(message("report_custom_message", {"payload": {"a": 1}}))

    notice, payload = taken(handler)
    assert isinstance(notice, Notice)
    assert method[:20] in notice.sentence
    assert len(notice.sentence) < 500
    assert payload == Payload({"a": 1})


def test_however_many_kinds_of_messages_are_made_up_few_are_told(handler):
    for number in range(1_000):
        handler.handle_message(message(f"method {number}", {}))

    assert len(taken(handler)) == 5


def test_materializations_that_are_reported_past_the_events_are_not_kept(handler):
    for _ in range(100):
        handler.handle_message(
            message(
                "report_asset_materialization", {"asset_key": "a", "metadata": None, "data_version": None}
            )
        )

    assert handler.get_reported_results() == ()


@pytest.mark.parametrize(
    ("params", "error"),
    [
        (None, None),
        ({}, None),
        ({"exception": None}, None),
        ({"exception": {"name": "ValueError", "message": "no"}}, "ValueError: no"),
        ({"exception": {}}, None),
        ({"exception": {"name": "ValueError"}}, "ValueError: None"),
        ({"exception": 7}, "7"),
        ({"exception": ["a"]}, "['a']"),
    ],
)
def test_whatever_a_session_is_closed_with_is_told(handler, params, error):
    handler.handle_message(message("closed", params))

    assert taken(handler) == [Closed(error)]


def test_a_flood_of_messages_ends_the_reading_before_it_takes_the_memory():
    items = Items(limit=1_000)
    for number in range(10):
        items.put(Payload(number), 100)

    with pytest.raises(SQLMeshPipesError, match="1,000 bytes of its messages wait already"):
        items.put(Payload(10), 100)
    items.put(Notice("what has no size always finds room"))

    assert [items.get() for _ in range(11)] == [
        *map(Payload, range(10)),
        Notice("what has no size always finds room"),
    ]
    items.put(Payload(11), 1_000)  # room again
    assert items.get() == Payload(11)
    with pytest.raises(queue.Empty):
        items.get(timeout=0.01)


def test_the_size_of_a_message_counts(handler):
    handler.items = Items(limit=10_000)

    large = message("report_custom_message", {"payload": {"message": "x" * 1_000}})

    for _ in range(9):
        handler.handle_message(large)
    with pytest.raises(SQLMeshPipesError):
        handler.handle_message(large)


def test_a_payload_that_is_nested_too_deeply_to_be_shown_is_told_in_words(handler):
    deep = []
    for _ in range(1_000):
        deep = [deep]
    handler.handle_message(message("report_custom_message", {"payload": deep}))
    handler.handle_message(message("report_custom_message", {"payload": None}))

    assert taken(handler) == [Payload("[[[[[...]]]]]"), Payload("None")]


def test_a_message_with_a_number_beyond_json_is_taken(handler):
    handler.handle_message(message("report_custom_message", {"payload": {"seq": 10**30}}))

    assert taken(handler) == [Payload({"seq": 10**30})]


def run_of(cron, form, *asked):
    definition = dg.TimeWindowPartitionsDefinition(
        start=datetime(2026, 1, 1, tzinfo=timezone.utc), fmt=form, cron_schedule=cron, timezone="UTC"
    )
    return PartitionedRun(definition, asked, lambda key: ())


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("0001-01-01T00:00:00Z", "2026-01-01T02:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z"),
        ("9999-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
        ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
    ],
)
def test_an_interval_however_long_fills_only_partitions_that_there_are(start, end):
    run = run_of("0 * * * *", "%Y-%m-%d-%H:%M", "2026-01-01-00:00")
    expected = ["2026-01-01-00:00", "2026-01-01-01:00"] if end == "2026-01-01T02:00:00Z" else []

    assert run.filled([Interval(start=start, end=end)]) == expected


@pytest.mark.timeout(30)
def test_an_interval_without_an_end_fills_what_there_is_and_nothing_after():
    run = run_of("0 0 1 * *", "%Y-%m", "2026-01")

    filled = run.filled([Interval(start="2026-01-01T00:00:00Z", end="9999-12-31T00:00:00Z")])

    assert filled[0] == "2026-01"
    assert filled[-1] == run.definition.get_last_partition_key()


def test_a_partition_that_was_asked_for_is_filled_though_its_time_has_not_come():
    run = run_of("0 0 1 1 *", "%Y", "2090")

    assert run.filled([Interval(start="2090-01-01T00:00:00Z", end="2091-01-01T00:00:00Z")]) == ["2090"]


@pytest.mark.timeout(60)
def test_an_answer_without_an_end_is_ended_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher_module, "MAX_ANSWER_BYTES", 1_000_000)
    path = tmp_path / "endless"
    path.write_text("#!/bin/sh\nexec yes 'no answer'\n")
    path.chmod(0o755)
    call = RunnerCall(arguments=["due", "prod"], env={}, project_dir=tmp_path)

    with pytest.raises(LaunchError, match="wrote more than 1,000,000 bytes"):
        answer(SubprocessLauncher(command=[str(path)]), call, 50)
