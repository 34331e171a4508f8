"""The stream between runner and Dagster, broken in every way that bytes can be: nothing is lost that came, nothing invented.

A real run is recorded once; what a scripted runner then writes is that, with a fault. All else is real: launcher, session, instance.
"""

import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import SubprocessLauncher
from dagster_sqlmesh_pipes.pipes import RunnerMessageHandler, RunnerOutputReader
from support.obedient import AUDITED, KEYS, obedient, planned_obedient  # noqa: F401 - fixtures
from support.recorded import assert_nothing_invented
from support.warehouse import Outcome, Warehouse

pytestmark = pytest.mark.xdist_group("stream")  # one recording

SCRIPTED = Path(__file__).parents[1] / "support/scripted_runner.py"
Event = dict[str, Any]
FQNS = {key: '"db".' + ".".join(f'"{part}"' for part in key.split("/")) for key in KEYS}
AUDITS = {(key, "not_null") for key in AUDITED}


@dataclass
class Recording:
    """A run's events, and the warehouse as it left it."""

    warehouse: Warehouse
    events: list[Event]


@pytest.fixture(scope="session")
def recording(planned_obedient: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Recording:  # noqa: F811 - the fixture
    import shutil

    folder = tmp_path_factory.mktemp("recording")
    shutil.copytree(planned_obedient.path, folder / "project")
    shutil.copy(planned_obedient.database, folder / "db.duckdb")
    warehouse = Warehouse(folder / "project", folder / "db.duckdb", planned_obedient.bin)
    done, events = warehouse.run()
    assert done.returncode == 0, done.stderr
    for event in events:
        event["run_id"] = "@RUN@"
    return Recording(warehouse, events)


def message(payload: object, method: str = "report_custom_message") -> bytes:
    params = {"payload": payload} if method == "report_custom_message" else payload
    return json.dumps({"__dagster_pipes_version": "0.1", "method": method, "params": params}).encode() + b"\n"


def stream(events: Sequence[Event]) -> bytes:
    return message({}, "opened") + b"".join(map(message, events)) + message({}, "closed")


@pytest.fixture
def told(recording: Recording, instance: dg.DagsterInstance, tmp_path: Path) -> Callable[..., Outcome]:
    """What Dagster makes of bytes, or of events."""

    def tell(what: Path | bytes | Sequence[Event], *, pieces: str = "at once", status: int = 0) -> Outcome:
        script = what if isinstance(what, Path) else tmp_path / f"bytes-{len(list(tmp_path.iterdir()))}"
        if not isinstance(what, Path):
            script.write_bytes(what if isinstance(what, bytes) else stream(what))
        command = [sys.executable, str(SCRIPTED), str(script), pieces, str(status)]
        return recording.warehouse.materialize(instance, launcher=Scripted.of(recording.warehouse, command))

    return tell


class Scripted(SubprocessLauncher):
    """The runner is scripted; questions go to the real one."""

    @classmethod
    def of(cls, warehouse: Warehouse, command: Sequence[str]) -> "Scripted":
        real = [str(warehouse.bin / "sqlmesh-runner")]
        script = f'if [ "$1" = run ]; then exec "$SCRIPTED" "$SCRIPT" "$BYTES" "$PIECES" "$STATUS"; else exec {real[0]} "$@"; fi'
        names = ("SCRIPTED", "SCRIPT", "BYTES", "PIECES", "STATUS")
        env = {**warehouse.launcher().env, **dict(zip(names, command, strict=True))}
        return cls(command=["sh", "-c", script, "runner"], env=env)


def assert_complete(outcome: Outcome, recording: Recording) -> None:
    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == KEYS
    assert {place for place in outcome.checks if place[1] != "sqlmesh_execution_status"} == AUDITS
    assert all(check.passed for check in outcome.checks.values())
    assert_nothing_invented(outcome, recording.warehouse)


def renumbered(events: Sequence[Event]) -> list[Event]:
    return [{**event, "seq": seq} for seq, event in enumerate(events)]


def of_model(events: Sequence[Event], kind: str, key: str) -> int:
    (place,) = [i for i, e in enumerate(events) if e["kind"] == kind and e.get("model") == FQNS[key]]
    return place


def test_a_stream_in_single_bytes_is_the_stream(recording, told):
    assert_complete(told(recording.events, pieces="1"), recording)


def test_a_stream_split_anywhere_is_the_stream(recording):
    """At every position, and each time in two pieces: through the reader alone, for there are thousands."""
    whole = stream(recording.events[:3]) + b"foreign\r\n" + stream(recording.events[-1:])

    def items(*pieces: bytes) -> list[object]:
        reader = RunnerOutputReader()
        context: Any = None
        handler = RunnerMessageHandler(context, reader)
        with reader.read_messages(handler):
            for piece in pieces:
                reader.feed(piece)
            reader.close()
        found = []
        while not handler.items.empty():
            found.append(handler.items.get())
        return found

    expected = items(whole)
    assert [type(item).__name__ for item in expected] == ["Payload"] * 3 + ["Closed", "Payload", "Closed"]
    for place in range(len(whole) + 1):
        assert items(whole[:place], whole[place:]) == expected


FOREIGN = b"".join(
    [
        b"a line\n",
        b"\0\0\0\n",
        b"\xff\xfe not UTF-8\n",
        b"\x1b[31mred\x1b[0m\r\n",
        b"\n\n",
        b"{\n",
        b'{"__dagster_pipes_version":"0.1","method":"report_custom_message"\n',
        b'{"__dagster_pipes_version":"0.1","method":7,"params":{}}\n',
        b'{"__dagster_pipes_version":"0.1","method":"report_custom_message","params":[1]}\n',
        b"[1, 2]\n",
        b"x" * (1 << 20) + b"\n",
        b"{" * (3 << 20) + b"\n",
        message("no event"),
        message(None),
        message([1]),
        message({"kind": "log"}),
        message({"kind": "model_executed", "run_id": "@RUN@"}),
        message(
            {"kind": "model_executed", "run_id": "@RUN@", "seq": -1, "v": "1.0", "at": "2026-01-01T00:00:00Z"}
        ),
    ]
)


@pytest.mark.parametrize("pieces", ["at once", "70000"])
def test_foreign_lines_between_events_are_passed_on_and_end_nothing(recording, told, pieces):
    lines = [message({}, "opened")]
    for event in recording.events:
        lines += [FOREIGN, message(event)] if event["kind"] == "model_started" else [message(event)]
    outcome = told(b"".join(lines), pieces=pieces)

    assert_complete(outcome, recording)
    assert any("no event" in line for line in outcome.log)


def test_an_event_of_a_megabyte_in_one_line_is_read(recording, told):
    events = list(recording.events)
    log = {"kind": "log", "level": "warning", "logger": "test", "message": "m" * 1_000_000}
    events.insert(1, {**events[0], **log})

    outcome = told(renumbered(events))

    assert_complete(outcome, recording)
    assert any(line.count("m") >= 1_000_000 for line in outcome.log)


def test_events_that_come_twice_count_once(recording, told):
    outcome = told([event for event in recording.events for _ in range(2)] + recording.events)

    assert_complete(outcome, recording)
    assert not [line for line in outcome.log if "lost" in line]


def test_events_that_are_missing_are_made_good_from_the_last_one_and_said_to_be_lost(recording, told):
    kinds = ("model_executed", "audit_evaluated", "run_started")
    kept = [event for event in recording.events if event["kind"] not in kinds]
    outcome = told(kept)

    assert_complete(outcome, recording)
    lost = len(recording.events) - len(kept)
    assert any(f"{lost} events were lost on the way" in line for line in outcome.log)


@pytest.mark.parametrize("order", ["backwards", "the last one first"])
def test_events_in_another_order_give_the_same_results(recording, told, order):
    events = (
        recording.events[::-1] if order == "backwards" else [recording.events[-1], *recording.events[:-1]]
    )
    outcome = told(events)

    assert_complete(outcome, recording)
    assert not [line for line in outcome.log if "lost" in line]


def test_what_comes_after_the_last_event_changes_nothing(recording, told):
    events, last = recording.events, len(recording.events)
    executed = events[of_model(events, "model_executed", "marts/last")]
    failed = {
        **{key: executed[key] for key in ("v", "run_id", "at", "model")},
        "kind": "model_failed",
        "error": {
            "error_class": "x",
            "message": "late",
            "category": "sql",
            "transient": False,
            "traceback": None,
        },
        "interval": None,
        "failed_audits": [],
        "intervals": [],
        "batches": 0,
        "duration_ms": None,
    }
    outcome = told(
        [*events, {**executed, "seq": last}, {**failed, "seq": last + 1}, {**events[-1], "seq": last + 2}]
    )

    assert_complete(outcome, recording)


def test_a_second_run_in_the_same_stream_is_not_this_one(recording, told):
    other = [{**event, "run_id": "another"} for event in recording.events]
    again = {**recording.events[0], "models_selected": 1}
    outcome = told(renumbered([*recording.events[:3], again, *recording.events[3:]]) + other)

    assert_complete(outcome, recording)
    alone = told(other)

    assert not alone.success
    assert alone.materialized == {}
    assert "exited with status 0 before it reported anything" in alone.failure


def test_kinds_keys_and_a_minor_version_of_the_future_are_let_pass(recording, told):
    events = [{**event, "v": "1.99", "mood": {"good": True}} for event in recording.events]
    events.insert(2, {**events[0], "kind": "model_contemplated", "model": FQNS["marts/last"]})

    assert_complete(told(renumbered(events)), recording)


def test_another_major_in_mid_stream_ends_the_run_and_what_came_before_stays(recording, told):
    place = of_model(recording.events, "model_executed", "marts/second") + 1
    events = recording.events[:place] + [{**event, "v": "2.0"} for event in recording.events[place:]]
    outcome = told(events)

    assert not outcome.success
    assert "speaks protocol 2.0, this side speaks 1.0" in outcome.failure
    assert set(outcome.materialized) >= {"staging/first", "marts/second"}
    assert_nothing_invented(outcome, recording.warehouse)


@pytest.mark.parametrize("status", [0, 3])
def test_a_torn_last_line_is_no_end_of_the_run(recording, told, status):
    whole = stream(recording.events).replace(message({}, "closed"), b"")
    outcome = told(whole[:-20], status=status)

    assert not outcome.success
    assert f"exited with status {status} in mid-run" in outcome.failure
    assert set(outcome.materialized) == KEYS  # every model's own event came
    assert {place for place in outcome.checks if place[1] != "sqlmesh_execution_status"} == AUDITS
    assert_nothing_invented(outcome, recording.warehouse)


def test_a_torn_last_line_with_all_of_the_last_event_in_it_is_the_end_of_the_run(recording, told):
    assert_complete(told(stream(recording.events).removesuffix(message({}, "closed"))[:-1]), recording)


def test_100_000_events_leave_no_memory_behind(recording, told, tmp_path):
    """Ten allocations each would be kept if they were. How much of it waits for a while is bounded by its size, elsewhere."""
    first, *rest = recording.events
    log = {**first, "kind": "log", "level": "debug", "logger": "test", "message": "m" * 300}
    script, number = tmp_path / "script", 100_000
    with script.open("wb") as file:  # not made in memory, which would hide what the reader takes
        file.write(message({}, "opened") + message(first))
        for seq in range(1, number + 1):
            file.write(message({**log, "seq": seq}))
        for event in rest:
            moved = {key: event[key] + number for key in ("seq", "last_seq") if key in event}
            file.write(message({**event, **moved}))
    gc.collect()
    before = sys.getallocatedblocks()
    outcome = told(script)
    gc.collect()

    assert sys.getallocatedblocks() - before < number
    assert_complete(outcome, recording)
    assert not [line for line in outcome.log if "lost" in line]
