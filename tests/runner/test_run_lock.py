"""One run of an environment at a time: the second waits, says for whom, and goes on when the first has ended, however it did."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest

from runner.conftest import SLOW
from runner.test_cli import locked, of
from sqlmesh_pipes_runner.errors import LockUnavailableError, RunLockedError
from sqlmesh_pipes_runner.locks import AdvisoryLock, FileLock, Holder, RunLock, Waiting, host_lock
from support.postgres import PASSWORD, PostgresServer
from support.waiting import wait_for

ONLY_SLOW = ("--select-model", "marts.slow", "--no-auto-upstream")
POSTGRES = """\
gateways:
  local:
    connection:
      type: postgres
      host: 127.0.0.1
      port: {port}
      user: postgres
      password: {password}
      database: {database}
default_gateway: local
model_defaults:
  dialect: postgres
  start: 2026-01-01
disable_anonymized_analytics: true
"""
FORKS = """
    import os
    import time
    from pathlib import Path

    import pandas as pd
    from sqlmesh import model


    @model("marts.forks", kind="FULL", columns={"id": "int"})
    def execute(context, start, end, execution_time, **kwargs):
        if not Path(os.environ["SLOW_GATE"]).exists() and os.fork() == 0:
            time.sleep(120)
        while not Path(os.environ["SLOW_GATE"]).exists():
            time.sleep(0.02)
        return pd.DataFrame({"id": [1]})
    """
WAITING = re.compile(
    r"Waits for another run of environment '(\w+)': process (\d+) on host (\S+), (run|Dagster run) (\w{8}), "
    r"since \d\d:\d\d:\d\d UTC\."
)


class Runs:
    """Runners beside the test, and what they have told so far."""

    def __init__(self, warehouse, folder, arguments=()):
        self.warehouse = warehouse
        self.folder = folder
        self.arguments = arguments
        self.processes = []

    def start(self, *arguments, environment="prod", env=None):
        events = self.folder / f"run-{len(self.processes)}.jsonl"
        process = self.warehouse.start(
            *("run", environment, "--events", str(events), *self.arguments, *arguments),
            env=env or {},
            stderr=subprocess.PIPE,
        )
        process.events = events
        self.processes.append(process)
        return process

    def started(self, *arguments, **settings):
        """One that has the lock, and a model in flight."""
        process = self.start(*arguments, **settings)
        wait_for(lambda: of(told(process), "model_started"), what=lambda: f"a model in {told(process)}")
        return process

    def waiting(self, *arguments, **settings):
        """One that has said for whom it waits."""
        process = self.start(*arguments, **settings)
        wait_for(lambda: waits(process), what=lambda: f"the waiting in {told(process)}")
        return process

    def close(self):
        for process in self.processes:
            process.kill()
            process.communicate(timeout=20)


def told(process):
    """The events of a run so far; the last line may be half written."""
    lines = process.events.read_bytes().splitlines(keepends=True) if process.events.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def waits(process):
    """What the run's events say of those it waited for: the matches."""
    return [found for event in of(told(process), "log") if (found := WAITING.fullmatch(event["message"]))]


def children_of(pid):
    """Processes that any thread of a process has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for found in lists for child in found.read_text().split()]


def ended(process, seconds=60):
    """Exit status and last event."""
    process.wait(seconds)
    return process.returncode, told(process)[-1]


@pytest.fixture
def runs_of(tmp_path):
    """Runners on a project."""
    opened = []

    def make(warehouse, *arguments):
        runs = Runs(warehouse, tmp_path, arguments)
        opened.append(runs)
        return runs

    yield make
    for runs in opened:
        runs.close()


@pytest.fixture
def on_postgres(make_warehouse, request):
    """A project with a model that waits for the gate."""

    def make():
        server: PostgresServer = request.getfixturevalue("postgres_server")
        config = POSTGRES.format(port=server.port, password=PASSWORD, database=server.new_database())
        return make_warehouse({"models/slow.py": SLOW}, config=config)

    return make


@pytest.fixture(params=["duckdb", "postgres"])
def runs(request, gate, runs_of, on_postgres):
    """Runners of a model that waits for the gate, on either engine."""
    if request.param == "duckdb":
        return runs_of(request.getfixturevalue("slow"), *ONLY_SLOW)
    return runs_of(on_postgres())


def test_the_second_run_waits_for_the_first_and_says_for_whom(runs, gate):
    first = runs.started()
    second = runs.waiting()

    first_id = told(first)[0]["run_id"]
    assert waits(second)[0].groups() == ("prod", str(first.pid), socket.gethostname(), "run", first_id[:8])
    assert [event["level"] for event in of(told(second), "log")] == ["warning"]
    assert of(told(second), "run_started") == []

    gate.touch()
    assert ended(first)[1]["status"] == "success"
    # What is due was read when the first had ended: nothing is left.
    code, last = ended(second)
    assert (code, last["status"], last["counts"]["skipped"]) == (0, "nothing_to_do", 1)
    assert len(waits(second)) == 1
    assert "WARNING Waits for another run" in second.stderr.read().decode()


def test_heartbeats_go_on_while_a_run_waits(runs):
    runs.started()
    second = runs.waiting()

    wait_for(lambda: of(told(second), "heartbeat"), seconds=15)
    assert of(told(second), "run_started") == []


def test_who_comes_third_is_told_when_the_second_has_its_turn(runs, gate):
    first = runs.started()
    others = [runs.waiting(), runs.waiting()]
    gate.touch()

    assert ended(first)[0] == 0
    assert [ended(other)[1]["status"] for other in others] == ["nothing_to_do"] * 2
    for other in others:
        holders = [found[2] for found in waits(other)]
        assert holders[0] == str(first.pid)
        assert len(holders) == len(set(holders))  # each holder is told once


@pytest.mark.parametrize("seconds", ["0", "1.5"])
def test_a_run_that_cannot_wait_any_longer_is_locked_out(runs, seconds):
    first = runs.started()
    began = time.monotonic()
    second = runs.start("--lock-timeout", seconds)
    code, last = ended(second)

    assert (code, last["kind"], last["status"], last["exit_code"]) == (3, "run_finished", "error", 3)
    error = last["error"]
    assert (error["category"], error["transient"], error.get("traceback")) == ("lock", True, None)
    assert f"process {first.pid} on host {socket.gethostname()}" in error["message"]
    assert "--lock-timeout" in error["message"]
    assert bool(waits(second)) == (seconds != "0")
    assert time.monotonic() - began >= float(seconds)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_that_waits_at_once(runs, number):
    first = runs.started()
    second = runs.waiting()
    began = time.monotonic()
    second.send_signal(number)
    code, last = ended(second)

    assert time.monotonic() - began < 5
    assert (code, last["kind"], last["status"], last["exit_code"]) == (
        130,
        "run_finished",
        "interrupted",
        130,
    )
    assert last["last_seq"] == last["seq"]
    assert [event["seq"] for event in told(second)] == list(range(len(told(second))))
    assert first.poll() is None


def test_a_holder_that_is_killed_frees_the_lock(runs, gate):
    first = runs.started()
    second = runs.waiting()
    first.kill()

    wait_for(lambda: of(told(second), "model_started"), seconds=20)
    gate.touch()
    assert ended(second)[1]["status"] == "success"


def test_what_a_dead_holder_had_forked_does_not_keep_the_lock(runs, gate):
    runs.warehouse.write({"models/forks.py": FORKS})
    runs.warehouse.plan()
    runs.arguments = ("--select-model", "marts.forks")
    first = runs.started()
    wait_for(lambda: children_of(first.pid), what=lambda: "the forked process")
    (child,) = children_of(first.pid)
    try:
        first.kill()
        first.wait(20)
        gate.touch()
        code, last = ended(runs.start("--lock-timeout", "20"))
        os.kill(child, 0)  # it lives
        assert (code, last["status"]) == (0, "success")
        assert waits(runs.processes[-1]) == []
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_an_error_before_the_run_gives_the_lock_back(runs, gate):
    code, last = ended(runs.start("--start", "no time"))
    assert (code, last["status"]) == (2, "error")

    gate.touch()
    assert ended(runs.start("--lock-timeout", "0"))[0] == 0


def test_environments_are_apart_on_postgresql(on_postgres, runs_of, gate):
    warehouse = on_postgres()
    warehouse.write({"models/other.sql": "MODEL (name marts.other, kind FULL); SELECT 1 AS a"})
    warehouse.plan("dev")
    runs = runs_of(warehouse)
    runs.started()
    code, last = ended(runs.start("--lock-timeout", "0", "--select-model", "marts.other", environment="dev"))

    assert (code, last["counts"]["executed"]) == (0, 1)


def test_environments_in_one_duckdb_file_wait_for_each_other(slow, runs_of, gate):
    slow.write({"models/other.sql": "MODEL (name marts.other, kind FULL); SELECT 1 AS a"})
    slow.plan("dev")
    runs = runs_of(slow)
    first = runs.started(*ONLY_SLOW)
    second = runs.waiting("--select-model", "marts.other", environment="dev")
    assert waits(second)[0][1] == "prod"
    gate.touch()

    assert ended(first)[0] == 0
    assert ended(second)[1]["counts"]["executed"] == 1


def test_a_database_that_another_program_has_is_not_waited_for(slow, runs_of, gate):
    with locked(slow):
        code, last = ended(runs_of(slow).start())

    assert (code, last["error"]["category"], last["error"]["transient"]) == (3, "lock", True)
    assert "Could not set lock" in last["error"]["message"]


def test_in_memory_there_is_nothing_to_lock(make_warehouse, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    config = "gateways:\n  local:\n    connection: {type: duckdb}\ndefault_gateway: local\nmodel_defaults: {dialect: duckdb}\n"
    warehouse = make_warehouse({}, config=config, plan=False)
    done = warehouse.spawn("run", "prod")

    assert done.returncode == 2
    assert "There is no environment 'prod'" in done.stderr
    assert list((tmp_path / "temporary").glob("**/*.run-lock")) == []


def test_the_lock_is_no_reason_to_fail_where_its_file_cannot_be_made(slow, gate, tmp_path):
    gate.touch()
    (tmp_path / "db.duckdb.run-lock").mkdir()
    result, events = slow.run(*ONLY_SLOW)

    assert (result.exit_code, events[-1]["status"]) == (0, "success")
    (event,) = (event for event in of(events, "log") if event["logger"] == "sqlmesh-runner")
    assert event["level"] == "info"
    assert event["message"].startswith("Nothing keeps another run of environment 'prod' out: the file ")


def test_the_option_is_a_variable_too(runs):
    runs.started()
    code, last = ended(runs.start(env={"SQLMESH_RUNNER_LOCK_TIMEOUT": "0"}))

    assert (code, last["error"]["category"]) == (3, "lock")


def test_asking_what_is_due_takes_no_lock(on_postgres, runs_of, gate):
    runs = runs_of(on_postgres())
    runs.started()

    done = runs.warehouse.spawn("due", "prod")
    assert (done.returncode, "marts.slow" in done.stdout.replace('"', "")) == (0, True), done.stderr


# Reconciliation.


def test_reconciling_waits_for_a_run_that_goes_on(runs, gate):
    first = runs.started()
    arguments = ("reconcile", "prod", "--since", "1 hour ago", "--format", "json", "--wait-for-run")
    in_vain = runs.warehouse.spawn(*arguments, "0.5")
    assert in_vain.returncode == 3
    assert re.search(
        rf"^Error: what has been recorded cannot be told: There is still another run of environment 'prod' after 0.5 s: "
        rf"process {first.pid} ",
        in_vain.stderr,
        re.M,
    )

    reading = runs.warehouse.start(*arguments, "60", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    runs.processes.append(reading)
    assert b"Waits for another run of environment 'prod'" in reading.stderr.readline()
    gate.touch()
    output, _ = reading.communicate(timeout=40)
    assert [model["model"].count("slow") for model in json.loads(output)["models"]] == [1]
    assert ended(first)[0] == 0


def test_reconciling_where_nothing_runs_waits_for_nobody_and_makes_nothing(slow, tmp_path):
    before = sorted(tmp_path.iterdir())
    done = slow.spawn("reconcile", "prod", "--since", "1 hour ago", "--wait-for-run", "5")

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(tmp_path.iterdir()) == before


# The locks themselves.


def me(**changes):
    return Holder(
        **{
            "who": "run",
            "run": "1a2b3c4d",
            "environment": "prod",
            "host": "here",
            "pid": os.getpid(),
            **changes,
        }
    )


@contextmanager
def in_another_process(code, *arguments):
    """A process that runs the code, says a line when it has, and stays until it is ended."""
    text = f"{code}\nprint('ready', flush=True)\nimport sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


HOLD = """
import sys, pathlib
from sqlmesh_pipes_runner.locks import FileLock, Holder
lock = FileLock(pathlib.Path(sys.argv[1]), Holder.here("run", "abcdefghij", "prod"))
assert lock.attempt()
"""


def test_a_file_is_locked_by_one_process_and_names_it(tmp_path):
    path = tmp_path / "lock"
    with in_another_process(HOLD, path) as other:
        lock = FileLock(path, me())
        assert not lock.attempt()
        holder = lock.holder()
        assert (holder.run, holder.environment, holder.pid) == ("abcdefgh", "prod", other.pid)
        assert abs(holder.since - time.time()) < 30
        other.kill()
        other.wait(10)
        assert lock.attempt()
        assert Holder.of_json(path.read_bytes()).pid == os.getpid()
        lock.release()
    assert path.read_bytes() == b""


def test_a_process_forked_from_the_holder_does_not_hold_a_file(tmp_path):
    forks = (
        f"{HOLD}\nimport os, time\nchild = os.fork()\nif child == 0: time.sleep(60)\nprint(child, flush=True)"
    )
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", forks, str(path)], stdout=subprocess.PIPE) as other:
        child = int(other.stdout.readline())
        try:
            assert other.wait(10) == 0
            os.kill(child, 0)
            lock = FileLock(path, me())
            assert lock.attempt()
            lock.release()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_process_that_ends_leaves_the_lock_to_its_parent(tmp_path):
    forks = f"{HOLD}\nimport os\nchild = os.fork()\nif child == 0: lock.release(); sys.exit()\nos.waitpid(child, 0)"
    path = tmp_path / "lock"
    with in_another_process(forks, path) as other:
        lock = FileLock(path, me())
        assert not lock.attempt()
        assert lock.holder().pid == other.pid
        lock.release()


def test_a_lock_file_that_is_removed_is_never_held_twice(tmp_path):
    path = tmp_path / "lock"
    with in_another_process(HOLD, path) as first:
        waiting = FileLock(path, me())
        assert not waiting.attempt()
        path.unlink()
        with in_another_process(HOLD, path):  # has the new file
            first.kill()
            first.wait(10)
            assert not waiting.attempt()  # the old one is free, and worth nothing
            assert not waiting.attempt()
        waiting.release()


def test_many_processes_at_once_hold_a_file_one_after_the_other(tmp_path):
    """Each removes the file as well, which nobody should: the lock still lets one in at a time."""
    code = """
import os, pathlib, sys, time
from sqlmesh_pipes_runner.locks import FileLock, Holder
folder = pathlib.Path(sys.argv[1])
lock = FileLock(folder / "lock", Holder.here("run", "x", "prod"))
for turn in range(40):
    while not lock.attempt():
        time.sleep(0.0005)
    inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL | os.O_WRONLY)  # fails if another is inside
    os.close(inside)
    os.unlink(folder / "inside")
    if turn % 5 == 0:
        os.unlink(folder / "lock")
    lock.release()
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [
        (b"", 0)
    ] * 4


def test_a_lock_file_may_be_taken_by_whoever_may_write_the_database(tmp_path):
    database = tmp_path / "db"
    database.touch()
    database.chmod(0o664)
    before = os.umask(0o077)
    try:
        lock = FileLock(tmp_path / "db.run-lock", me(), beside=database)
        assert lock.attempt()
        lock.release()
    finally:
        os.umask(before)
    assert (tmp_path / "db.run-lock").stat().st_mode & 0o777 == 0o664


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "target").touch()
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(LockUnavailableError):
        FileLock(tmp_path / "lock", me()).attempt()


def test_a_directory_on_the_host_that_others_may_write_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lock = host_lock("state", me())
    assert lock.attempt()
    lock.release()
    (directory,) = tmp_path.iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700

    directory.chmod(0o770)
    with pytest.raises(LockUnavailableError):
        host_lock("state", me())


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"who": "run"}', b'{"who": "nobody", "run": "", "pid": 1}', b"\xff"]
)
def test_a_file_that_does_not_say_who_holds_it_names_nobody(text):
    assert Holder.of_json(text) is None


def test_a_holder_fits_into_an_application_name():
    holder = me(
        who="dagster", host="a-pod-with-a-name-as-long-as-kubernetes-allows-for-0123456789-abc", pid=4194304
    )
    name = holder.now().as_application_name()
    found = Holder.of_application_name(name, "prod")

    assert len(name.encode()) == 63
    assert (found.who, found.run, found.pid) == ("dagster", "1a2b3c4d", 4194304)
    assert holder.host.startswith(found.host)
    assert len(found.host) > 15
    assert abs(found.since - time.time()) < 5


@pytest.mark.parametrize(
    "name", ["", "psql", "sqlmesh/x", "sqlmesh/run:1/2/x/host", "sqlmesh/who:1/2/3/host", "a/run:1/2/3/h"]
)
def test_other_application_names_name_nobody(name):
    assert Holder.of_application_name(name, "prod") is None


def test_a_holder_of_another_day_is_told_with_it():
    assert str(me(pid=4711, since=1767312184)) == (
        "process 4711 on host here, run 1a2b3c4d, since 2026-01-02 00:03:04 UTC"
    )


class Scripted:
    """A lock that others hold as a script says: one holder, or None for an unknown one, at each attempt in vain."""

    def __init__(self, *holders):
        self.holders = list(holders)
        self.current = None
        self.released = 0

    def attempt(self):
        if not self.holders:
            return True
        self.current = self.holders.pop(0)
        return False

    def holder(self):
        return self.current

    def is_kept(self):
        return True

    def release(self):
        self.released += 1


class Told:
    """Notes what is said, and keeps the time."""

    def __init__(self):
        self.said = []
        self.now = 0.0

    def waiting(self, seconds=100.0, **settings):
        return Waiting(
            seconds=seconds,
            option="--option",
            say=lambda level, message: self.said.append((level, message)),
            clock=lambda: self.now,
            sleep=self.sleep,
            **settings,
        )

    def sleep(self, seconds):
        self.now += seconds


def test_a_holder_is_told_once_and_the_next_one_again():
    told, first, second = Told(), me(pid=1), me(pid=2, environment="dev")
    RunLock("prod", [Scripted(first, first, first, second, second)]).acquire(told.waiting())

    assert [message.partition(" on host")[0] for level, message in told.said if level == "warning"] == [
        "Waits for another run of environment 'prod': process 1",
        "Waits for another run of environment 'dev': process 2",
    ]
    assert told.said[-1] == ("info", "Has waited 1 s for another run.")


def test_an_unknown_holder_has_a_moment_to_say_who_it_is():
    told = Told()
    RunLock("prod", [Scripted(None, None, me(pid=1), me(pid=1))]).acquire(told.waiting())
    assert [level for level, _ in told.said] == ["warning", "info"]

    told = Told()
    RunLock("prod", [Scripted(*[None] * 9)]).acquire(told.waiting())
    assert told.said[0] == (
        "warning",
        "Waits for another run of environment 'prod': it does not say who it is.",
    )
    assert [level for level, _ in told.said] == ["warning", "info"]


def test_the_time_counts_for_all_locks_together():
    told = Told()
    lock = RunLock("prod", [Scripted(*[me()] * 4), Scripted(*[me()] * 1000)])
    with pytest.raises(RunLockedError):
        lock.acquire(told.waiting(seconds=5))

    assert told.now == pytest.approx(5)


def test_what_was_taken_is_given_back_where_the_next_is_not_to_be_had():
    locks = [Scripted(), Scripted(*[me()] * 1000)]
    with pytest.raises(RunLockedError), RunLock("prod", locks).held(Told().waiting(1), on_taken=print):
        raise AssertionError

    assert [lock.released for lock in locks] == [1, 1]


# PostgreSQL.


@pytest.fixture
def connect(postgres_server):
    """Makes the function that an advisory lock connects with, on a database of the test's own."""
    database = postgres_server.new_database()

    def connect(port=postgres_server.port, **settings):
        return psycopg2.connect(
            host="127.0.0.1", port=port, user="postgres", password=PASSWORD, dbname=database, **settings
        )

    connect.database = database
    return connect


def sessions(server, database):
    """Application names of the sessions in a database, and their process ids in the server."""
    found = server.execute(
        f"SELECT pid || ' ' || application_name FROM pg_stat_activity WHERE datname = '{database}'"
    )
    return [(int(pid), name) for pid, _, name in (line.partition(" ") for line in found.splitlines())]


def test_an_advisory_lock_is_one_connections_and_names_it(connect, postgres_server):
    first, second = (AdvisoryLock(connect, "prod", me(run=run)) for run in ("first", "second"))
    other = AdvisoryLock(connect, "dev", me())
    try:
        assert first.attempt()
        assert not second.attempt()
        assert second.holder().run == "first"
        assert other.attempt()
        first.release()
        assert second.attempt()
        assert not first.attempt()
        assert first.holder().run == "second"
    finally:
        for lock in (first, second, other):
            lock.release()
            lock.release()


def test_the_session_of_a_lock_notices_within_a_minute_that_its_client_has_gone(connect):
    lock = AdvisoryLock(connect, "prod", me())
    assert lock.attempt()
    names = "tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "idle_session_timeout"
    idle, interval, count, session = (lock._ask(f"SHOW {name}", [])[0][0] for name in names)
    lock.release()

    assert int(idle) + int(interval) * int(count) <= 60
    assert session == "0"


def test_a_lock_that_was_lost_is_taken_again(connect, postgres_server):
    told = Told()
    lock = AdvisoryLock(connect, "prod", me())
    run_lock = RunLock("prod", [lock])
    run_lock.acquire(told.waiting())
    assert run_lock.keep(told.waiting().say, on_taken=print)
    assert told.said == []

    ((session, _),) = sessions(postgres_server, connect.database)
    postgres_server.execute(f"SELECT pg_terminate_backend({session}, 10000)")
    assert run_lock.keep(told.waiting().say, on_taken=print)
    assert told.said == [("warning", "The run lock was lost with its connection, and is held again.")]
    other = AdvisoryLock(connect, "prod", me())
    assert not other.attempt()
    other.release()
    run_lock.release()


def test_a_lock_that_another_run_has_taken_meanwhile_is_told(connect, postgres_server):
    taken = []
    run_lock = RunLock("prod", [AdvisoryLock(connect, "prod", me(run="first"))])
    run_lock.acquire(Told().waiting())
    ((session, _),) = sessions(postgres_server, connect.database)
    postgres_server.execute(f"SELECT pg_terminate_backend({session}, 10000)")
    other = AdvisoryLock(connect, "prod", me(run="second"))
    assert other.attempt()

    assert not run_lock.keep(print, on_taken=taken.append)
    assert len(taken) == 1
    assert "another run of environment 'prod' has it" in taken[0]
    assert "run second" in taken[0]
    other.release()
    run_lock.release()


def test_a_server_that_is_gone_for_a_while_is_told_once(connect):
    down = []

    def sometimes():
        if down:
            raise psycopg2.OperationalError("connection refused\n")
        return connect()

    told = Told()
    lock = AdvisoryLock(sometimes, "prod", me())
    run_lock = RunLock("prod", [lock])
    run_lock.acquire(told.waiting())
    lock.forget()
    down.append(True)
    for _ in range(3):
        assert run_lock.keep(told.waiting().say, on_taken=print)
    assert told.said == [
        ("warning", "The run lock is lost for now, and another run can begin: connection refused")
    ]
    down.clear()
    assert run_lock.keep(told.waiting().say, on_taken=print)
    assert told.said[1:] == [("warning", "The run lock was lost with its connection, and is held again.")]
    run_lock.release()


def test_a_database_without_advisory_locks_is_no_reason_to_fail(connect):
    def without():
        connection = connect()
        with connection.cursor() as cursor:  # as what speaks PostgreSQL's protocol and is another database
            cursor.execute(
                "CREATE SCHEMA own; CREATE FUNCTION own.pg_try_advisory_lock(bigint) RETURNS boolean LANGUAGE plpgsql AS "
                "$$BEGIN RAISE feature_not_supported USING MESSAGE = 'not here'; END$$; SET search_path = own, pg_catalog"
            )
        connection.commit()
        return connection

    told = Told()
    RunLock("prod", [AdvisoryLock(without, "prod", me())]).acquire(told.waiting())

    ((level, message),) = told.said
    assert level == "info"
    assert message.startswith(
        "Nothing keeps another run of environment 'prod' out: the database has no advisory locks: "
    )


@pytest.fixture
def pooler(postgres_server, tmp_path):
    """PgBouncer before the server, which lends a session for one transaction."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path("/tmp") / f"pgbouncer-{port}"
    folder.mkdir()
    (folder / "users.txt").write_text(f'"postgres" "{PASSWORD}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={postgres_server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = plain\nauth_file = {folder}/users.txt\npool_mode = transaction\n"
        "unix_socket_dir =\nserver_login_retry = 1\n"
    )
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "postgres")
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [*as_user, program, str(folder / "pgbouncer.ini")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(listens, seconds=20)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def test_behind_a_pooler_that_shares_sessions_the_lock_is_still_one_clients(connect, pooler):
    def pooled():
        return connect(port=pooler)

    first, second = (AdvisoryLock(pooled, "prod", me(run=run)) for run in ("first", "second"))
    direct = AdvisoryLock(connect, "prod", me(run="direct"))
    try:
        assert first.attempt()
        # Clients that come and go have the first one's session if it is free.
        for _ in range(3):
            assert not second.attempt()
            assert second.holder().run == "first"
            assert first.is_kept()
        assert not direct.attempt()
        assert direct.holder().run == "first"
        first.release()
        assert second.attempt()
        second.release()
        assert direct.attempt()
    finally:
        for lock in (first, second, direct):
            lock.release()


def test_without_anybody_in_the_way_the_lock_costs_next_to_nothing(connect, tmp_path):
    def seconds(make):
        best = []
        for _ in range(5):
            lock = RunLock("prod", [make()])
            began = time.monotonic()
            lock.acquire(Told().waiting())
            best.append(time.monotonic() - began)
            lock.release()
        return min(best)

    assert seconds(lambda: FileLock(tmp_path / "lock", me())) < 0.01
    connecting = time.monotonic()
    connect().close()
    connecting = time.monotonic() - connecting
    assert seconds(lambda: AdvisoryLock(connect, "prod", me())) < connecting + 0.05
