"""What a Python model may do to the process that it runs in, without a word to SQLMesh: the run is told all the same, once."""

from support.obedient import AUDITED, BEFORE, KEYS, obedient, obeying, planned_obedient  # noqa: F401 - fixtures
from support.processes import processes_of
from support.recorded import assert_nothing_invented, rows
from support.warehouse import Outcome, Warehouse


def assert_all_ran(outcome: Outcome, warehouse: Warehouse) -> None:
    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == KEYS
    assert set(assert_nothing_invented(outcome, warehouse)) == KEYS
    assert set(outcome.checks) == {(key, "sqlmesh_execution_status") for key in KEYS} | {
        (key, "not_null") for key in AUDITED
    }
    assert all(check.passed for check in outcome.checks.values())
    assert not [line for line in outcome.log if "lost" in line or "could not be read" in line]


SHOUTS = r"""
    import os, subprocess, sys
    megabyte = b"\xff\xfe\x00" + b"x" * ((1 << 20) - 3)
    for _ in range(5):
        for number in (1, 2):
            view = memoryview(megabyte)
            while view:
                view = view[os.write(number, view):]
    os.write(1, b"no line yet")
    print("nor here", end="", flush=True)
    subprocess.run([sys.executable, "-c", "import os; os.write(1, b'{' * 100_000); os.write(2, b'}' * 100_000)"], check=True)
    os.write(1, b'{"__dagster_pipes_version":"0.1","method":"closed","params":null}\n')
    os.write(1, b'{"kind":"run_finished","v":"1.0","run_id":"x","seq":0,"at":"2026-01-01T00:00:00Z"}\n')
"""


def test_ten_megabytes_without_a_line_break_meet_no_event_and_the_failure_after_them_is_short(
    obedient,  # noqa: F811 - the fixture
    instance,
    capfd,
):
    launcher = obedient.launcher(env=obeying(obedient, SHOUTS + "\n    os._exit(7)\n"))
    died = obedient.materialize(instance, launcher=launcher)

    assert "exited with status 7 in mid-run" in died.failure
    assert len(died.failure) < 30_000  # it goes into the event log
    assert set(died.materialized) == BEFORE == set(assert_nothing_invented(died, obedient))
    capfd.readouterr()

    launcher = obedient.launcher(env=obeying(obedient, SHOUTS))
    outcome = obedient.materialize(instance, launcher=launcher)
    shown = capfd.readouterr()

    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == KEYS - BEFORE
    assert_nothing_invented(outcome, obedient)
    assert (shown.out + shown.err).count("x") >= 10 * ((1 << 20) - 3)  # all of it is in Dagster's compute log
    assert "no line yet" in shown.err


CLOSES = """
    import os
    os.close(1)
    os.close(2)
"""


def test_a_model_that_closes_the_standard_streams_has_them_opened_again_before_a_database_gets_their_numbers(
    obedient,  # noqa: F811 - the fixture
    instance,
    capfd,
):
    outcome = obedient.materialize(instance, launcher=obedient.launcher(env=obeying(obedient, CLOSES)))

    assert_all_ran(outcome, obedient)
    assert rows(obedient, "db.marts.obeys") == rows(obedient, "db.marts.last") == 1
    shown = capfd.readouterr().err
    assert 'executed  "db"."marts"."last"' in shown  # said after the streams were closed


FORKS = """
    import multiprocessing, os, pathlib, sys, time

    def note(name):
        pathlib.Path(os.environ["NOTES"], name).write_text(str(os.getpid()))

    ended = []
    if not (child := os.fork()):
        note("returns")
        values = [2, 3]
    else:
        ended.append(child)
        if not (child := os.fork()):
            note("exits")
            sys.exit(3)
        ended.append(child)
        if not (child := os.fork()):
            note("raises")
            raise LookupError("of a child")
        ended.append(child)
        if not os.fork():
            note("goes on")
            time.sleep(120)
            os._exit(0)
        worker = multiprocessing.get_context("fork").Process(target=note, args=("works",))
        worker.start()
        worker.join()
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ended]
        assert statuses == [0, 3, 1], statuses
        assert worker.exitcode == 0
"""


def test_children_that_a_model_forks_tell_nothing_write_nothing_and_do_not_outlive_the_run(
    obedient,  # noqa: F811 - the fixture
    instance,
    tmp_path,
):
    notes = tmp_path / "notes"
    notes.mkdir()
    env = obeying(obedient, FORKS, NOTES=str(notes))
    outcome = obedient.materialize(instance, launcher=obedient.launcher(env=env))

    assert {note.name for note in notes.iterdir()} == {"returns", "exits", "raises", "goes on", "works"}
    assert_all_ran(outcome, obedient)
    assert rows(obedient, "db.marts.obeys") == 1  # the parent's; the child had two
    assert processes_of(tmp_path) == {}
