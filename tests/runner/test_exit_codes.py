"""The exit status says how a run ended, and the run's last event says the same."""

import signal
import time

import pytest

from runner.test_cli import locked

BROKEN = ("--select-model", "marts.broken", "--no-auto-upstream")
QUICK = ("--select-model", "marts.quick", "--no-auto-upstream")
SLOW = ("--select-model", "marts.slow", "--no-auto-upstream")
GATE = {
    "signals/__init__.py": """
        from sqlmesh import signal

        @signal()
        def landed(batch):
            return False
        """,
    "models/waits.sql": "MODEL (name s.waits, kind FULL, signals (landed())); SELECT 1 AS a",
}


def ended(warehouse, *arguments):
    """The exit status, which is the last event's as well, and the status in it."""
    result, events = warehouse.run(*arguments)
    assert (events[-1]["kind"], events[-1]["exit_code"]) == ("run_finished", result.exit_code)
    return result.exit_code, events[-1]["status"]


@pytest.fixture
def ready(slow, gate):
    gate.touch()
    return slow


def test_success_and_nothing_to_do_are_0(ready):
    assert ended(ready, *SLOW) == (0, "success")
    assert ended(ready, *SLOW) == (0, "nothing_to_do")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (1, "failed")),
        (["--fail-on", "skipped-upstream"], (1, "failed")),
        (["--fail-on", "nothing"], (0, "failed")),
    ],
)
def test_a_model_that_failed_is_1_unless_nothing_is_to_fail(ready, arguments, expected):
    assert ended(ready, *arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], 0),
        (["--fail-on", "warn-audit"], 1),
        (["--fail-on", "skipped-upstream"], 0),
        (["--fail-on", "nothing"], 0),
    ],
)
def test_an_audit_that_only_warns_is_0_unless_it_is_to_fail(ready, arguments, expected):
    assert ended(ready, *QUICK, *arguments) == (expected, "success")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], 0), (["--fail-on", "skipped-upstream"], 1), (["--fail-on", "warn-audit"], 0)],
)
def test_a_model_that_waits_for_a_signal_is_0_unless_it_is_to_fail(make_warehouse, arguments, expected):
    assert ended(make_warehouse(GATE), *arguments) == (expected, "nothing_to_do")


@pytest.mark.parametrize("arguments", [[], ["--fail-on", "nothing"]])
def test_what_does_not_exist_is_2_whatever_is_to_fail(ready, arguments):
    assert ended(ready, "--select-model", "marts.nothing", *arguments) == (2, "error")


@pytest.mark.parametrize("arguments", [[], ["--fail-on", "nothing"]])
def test_a_warehouse_out_of_reach_is_3_whatever_is_to_fail(ready, arguments):
    with locked(ready):
        assert ended(ready, *arguments) == (3, "error")


def test_a_run_that_is_stopped_is_130_whatever_is_to_fail(slow, tmp_path, gate):
    events = tmp_path / "events.jsonl"
    process = slow.start("run", "prod", "--events", str(events), "--fail-on", "nothing", *SLOW)
    try:
        deadline = time.monotonic() + 40
        while not (events.exists() and b'"kind":"model_started"' in events.read_bytes()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        gate.touch()
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
    assert b'"status":"interrupted","exit_code":130' in events.read_bytes().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], 1), (["--fail-on", "nothing"], 0), (["--select-model", "nowhere.at_all"], 2)],
)
def test_the_process_ends_with_the_status_of_the_last_event(ready, tmp_path, arguments, expected):
    events = tmp_path / "events.jsonl"
    done = ready.spawn("run", "prod", "--events", str(events), *arguments)

    assert done.returncode == expected
    assert b'"exit_code":%d,' % expected in events.read_bytes().splitlines()[-1]
