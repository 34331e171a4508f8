"""What a person sees at a terminal while a run goes on, and what is left there when it is over."""

import fcntl
import json
import os
import re
import sys
import textwrap
from types import MappingProxyType

import pytest

from support.terminal import Terminal

F_SETPIPE_SZ = 1031
GOOD = ("--select-model", "marts.slow", "--select-model", "marts.quick")


@pytest.fixture
def start(slow, gate):
    """Start `sqlmesh-runner run prod` at a terminal."""

    def start(*arguments, rows=24, columns=110, env=MappingProxyType({}), **streams):
        return Terminal(
            [
                sys.executable,
                "-m",
                "sqlmesh_pipes_runner",
                "run",
                "prod",
                "--project",
                str(slow.path),
                *arguments,
            ],
            env={"RUNNER_TEST_DATABASE": str(slow.database), "SLOW_GATE": str(gate), **env},
            rows=rows,
            columns=columns,
            **streams,
        )

    return start


def seconds_of(model):
    return lambda screen: re.search(rf"● +{re.escape(model)} +([\d.]+) s", screen)


IN_FLIGHT = seconds_of("db.marts.slow")
LINE = re.compile(r"\d\d:\d\d:\d\d ")


def assert_terminal_is_left_as_it_was(terminal):
    assert not terminal.cursor_hidden
    assert "●" not in terminal.text
    assert "━" not in terminal.text
    assert not re.search(r"\d+/\d+ models", terminal.text)


def test_models_in_flight_have_a_growing_time_and_are_gone_when_the_run_is_over(start, gate):
    with start() as terminal:
        screen = terminal.wait_until(lambda screen: IN_FLIGHT(screen) and "2/5 models" in screen)
        first = float(IN_FLIGHT(screen)[1])
        assert terminal.cursor_hidden
        assert "db.marts.quick" not in screen.splitlines()[-1]
        counts = [line for line in screen.splitlines() if "2/5 models" in line]
        assert re.fullmatch(
            r"━+ *╸?╺?━+  2/5 models  1 failed  0 skipped  audits: 0 passed, 1 failed  [\d.]+ s",
            counts[0].strip(),
        )
        later = terminal.wait_until(lambda screen: float(IN_FLIGHT(screen)[1]) > first + 0.5)
        assert len(re.findall("●", later)) == 1  # no view is left above the view
        gate.touch()
        assert terminal.wait() == 1

        assert_terminal_is_left_as_it_was(terminal)
        lines = terminal.text.splitlines()
        text = terminal.text
    assert re.search(r'executed  "db"\."marts"\."slow" in [\d.]+ s$', text, re.MULTILINE)
    closing = next(place for place, line in enumerate(lines) if " FAILED in " in line)
    assert re.fullmatch(
        r"FAILED in [\d.]+ s: 3 executed, 1 skipped, 1 failed; 1 audit, 1 failed\.", lines[closing][9:]
    )
    assert lines[closing + 1][9:].startswith('  failed  "db"."marts"."broken": [sql] Conversion Error')
    assert "  skipped 1 model: upstream failed" in text
    assert re.search(r'  slowest "db"\."marts"\."slow" [\d.]+ s, ', lines[-1])


def test_what_a_model_prints_stands_above_the_view_as_it_is(start, gate):
    with start(*GOOD, env={"SLOW_DOES": "print"}) as terminal:
        screen = terminal.wait_until(lambda screen: IN_FLIGHT(screen) and "no line yet" in screen)
        lines = screen.splitlines()
        view = next(place for place, line in enumerate(lines) if "●" in line)
        for said in ("on [/standard] output", "and on [red]error[/red]", "no line yet [/b]"):
            assert said in lines[:view]
        gate.touch()
        assert terminal.wait() == 0

        assert_terminal_is_left_as_it_was(terminal)
        assert terminal.text.count("on [/standard] output") == 1


def test_standard_output_that_goes_to_a_file_gets_what_models_print_there(start, gate, tmp_path):
    gate.touch()
    with (
        (tmp_path / "out").open("w") as out,
        start(*GOOD, env={"SLOW_DOES": "print"}, stdout=out) as terminal,
    ):
        assert terminal.wait() == 0
        assert "on [/standard] output" not in terminal.text
        assert "and on [red]error[/red]" in terminal.text
    assert (tmp_path / "out").read_text() == "on [/standard] output\nno line yet [/b]"


def test_a_model_that_closes_standard_error_does_not_take_the_view_along(start, gate):
    with start(*GOOD, env={"SLOW_DOES": "close"}) as terminal:
        terminal.wait_until(IN_FLIGHT)
        gate.touch()
        assert terminal.wait() == 0

        assert_terminal_is_left_as_it_was(terminal)
        assert "Finished in" in terminal.text


def test_a_run_that_is_stopped_leaves_the_terminal_as_it_was(start, gate):
    with start("--grace-period", "60") as terminal:
        terminal.wait_until(IN_FLIGHT)
        terminal.process.terminate()
        gate.touch()
        assert terminal.wait() == 130

        assert_terminal_is_left_as_it_was(terminal)
        assert "INTERRUPTED in" in terminal.text
        assert "skipped 1 model: interrupted" in terminal.text


def test_a_run_that_is_stopped_by_force_leaves_the_terminal_as_it_was(start):
    with start("--grace-period", "0") as terminal:
        terminal.wait_until(IN_FLIGHT)
        terminal.process.terminate()
        assert terminal.wait(10) == 130

        assert_terminal_is_left_as_it_was(terminal)
        assert "Stopped at once (SIGTERM)" in terminal.text
        assert '  failed  "db"."marts"."slow": [cancelled] The run was stopped (SIGTERM)' in terminal.text


def test_a_forced_end_that_waits_for_a_reader_of_events_leaves_the_cursor(start, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reading, F_SETPIPE_SZ, 4096)  # full before the end
    try:
        with start("--grace-period", "0", "--events", str(tmp_path / "fifo")) as terminal:
            terminal.wait_until(lambda screen: IN_FLIGHT(screen) and "2/5 models" in screen)
            terminal.process.terminate()
            assert terminal.wait(15) == 130

            assert_terminal_is_left_as_it_was(terminal)
    finally:
        os.close(reading)


@pytest.fixture
def start_in_vain():
    """Start a run of a project that is not there: it has its lines, and no need of SQLMesh."""

    def start(*arguments, **env):
        command = [sys.executable, "-m", "sqlmesh_pipes_runner", "run", "--project", "/nowhere", *arguments]
        return Terminal(command, env=env)

    return start


def test_a_run_that_could_not_be_leaves_the_terminal_as_it_was(start_in_vain):
    with start_in_vain() as terminal:
        assert terminal.wait() == 2

        assert b"\x1b[?25l" in terminal.raw
        assert_terminal_is_left_as_it_was(terminal)
        assert "There is no directory /nowhere" in terminal.text


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        ([], {"CI": "1"}),
        ([], {"CI": "true"}),
        ([], {"TERM": "dumb"}),
        ([], {"TERM": ""}),
        (["--quiet"], {}),
        ([], {"SQLMESH_RUNNER_QUIET": "1"}),
        (["--events", "-"], {}),  # a line of them has the terminal to itself
    ],
)
def test_where_there_is_no_view_there_are_plain_lines(start_in_vain, arguments, env):
    with start_in_vain(*arguments, **env) as terminal:
        assert terminal.wait() == 2
        assert b"\x1b" not in terminal.raw
        assert re.search(r"^\d\d:\d\d:\d\d ERROR in ", terminal.text, re.MULTILINE)


@pytest.mark.parametrize("env", [{"CI": ""}, {"CI": "false"}])
def test_a_ci_variable_that_denies_it_is_no_ci(start_in_vain, env):
    with start_in_vain(**env) as terminal:
        assert terminal.wait() == 2
        assert b"\x1b[?25l" in terminal.raw


def colours(raw):
    return [code for code in re.findall(rb"\x1b\[([\d;]*)m", raw) if re.search(rb"\b[349]\d\b", code)]


def test_failures_have_a_colour_unless_no_color_is_set(start_in_vain):
    with start_in_vain("--verbose") as coloured, start_in_vain("--verbose", NO_COLOR="1") as plain:
        assert (coloured.wait(), plain.wait()) == (2, 2)
        assert colours(coloured.raw) != []
        assert colours(plain.raw) == []
        assert b"\x1b[?25l" in plain.raw  # the view is there all the same


def test_a_narrow_terminal_shows_a_view_that_fits(start, gate):
    with start("--select-model", "marts.slow", columns=34, rows=8, env={"NO_COLOR": "1"}) as terminal:
        terminal.wait_until(lambda screen: re.search(r"● +db\.\S+ +[\d.]+ s", screen))
        screen = terminal.wait_until(lambda screen: re.search(r"● .* 1\.\d s$", screen, re.MULTILINE))
        assert len(re.findall("●", screen)) == 1
        assert re.search(r"^0/1 models  0 failed", screen, re.MULTILINE)
        gate.touch()
        assert terminal.wait() == 0

        assert_terminal_is_left_as_it_was(terminal)
        assert colours(terminal.raw) == []


@pytest.mark.parametrize("events_at_terminal", [True, False])
def test_events_on_standard_output_are_whole_though_a_person_watches(
    start, gate, tmp_path, events_at_terminal
):
    gate.touch()
    with (tmp_path / "out").open("w") as out:
        streams = {} if events_at_terminal else {"stdout": out}
        with start(*GOOD, "--events", "-", env={"SLOW_DOES": "say"}, columns=9000, **streams) as terminal:
            assert terminal.wait() == 0
            shown = terminal.raw.decode()
            lines = shown.splitlines()
    if not events_at_terminal:
        lines = (tmp_path / "out").read_text().splitlines()
        assert "\x1b[?25l" in shown  # the view is on, and has standard error to itself
    # At one terminal, what a model prints may stand before an event on its line; the event is whole.
    events = [json.loads(line[line.index('{"kind"') :]) for line in lines if '{"kind"' in line]
    assert [event["seq"] for event in events] == list(range(len(events))), shown
    assert events[-1]["kind"] == "run_finished"
    if events_at_terminal:
        assert "\x1b" not in shown


def test_a_terminal_that_goes_away_does_not_fail_the_run(start, gate, tmp_path):
    path = tmp_path / "events.jsonl"
    with start(*GOOD, "--events", str(path)) as terminal:
        terminal.wait_until(IN_FLIGHT)
        terminal.hang_up()
        gate.touch()
        assert terminal.wait() == 0
    assert json.loads(path.read_bytes().splitlines()[-1])["status"] == "success"


MANY = """
    import sys, threading, time
    from concurrent.futures import ThreadPoolExecutor
    from sqlmesh_pipes_protocol.events import Counts, ModelExecuted, ModelStarted, RunFinished
    from sqlmesh_pipes_runner.live import LiveProgress
    from sqlmesh_pipes_runner.progress import Verbosity

    progress, turn = LiveProgress(Verbosity.NORMAL, stream=sys.stderr), threading.Lock()

    def show(event):
        with turn:
            progress.show(event)

    def work(worker):
        for number in range(25):
            name = f"db.s.m{worker}_{number}"
            show(ModelStarted(model=name, batches=1))
            print(f"said by {name}")
            show(ModelExecuted(model=name, intervals=(), batches=1, duration_ms=1, rows=None, bytes=None))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    counts = Counts(selected=0, executed=0, failed=0, skipped=0, audits_passed=0, audits_failed=0, audits_skipped=0)
    progress.show(RunFinished(status="success", exit_code=0, counts=counts, duration_ms=1, last_seq=0, digest=()))
    """


def test_a_view_that_many_threads_print_above_leaves_no_line_of_itself():
    with Terminal([sys.executable, "-c", textwrap.dedent(MANY)], env={}) as terminal:
        assert terminal.wait() == 0

        assert_terminal_is_left_as_it_was(terminal)
        assert len(set(re.findall(r"^said by (\S+)$", terminal.text, re.MULTILINE))) == 200
        assert len(re.findall(r" executed  db\.s\.m", terminal.text)) == 200
