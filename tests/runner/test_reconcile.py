"""``reconcile`` tells what SQLMesh has done and a run's events do not say: exactly that, and changes nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from jsonschema import Draft202012Validator
from sqlmesh.core.console import NoopConsole

from sqlmesh_pipes_protocol import read_reconcile_report, reconcile_schema
from sqlmesh_pipes_protocol.spans import without
from sqlmesh_pipes_runner.adapter import console_replaced
from support.postgres import PASSWORD, PostgresServer
from support.waiting import WAITS, wait_for

FIRST, DAYS, WAITING, LAST = (
    f'"db"."{name}"' for name in ('staging"."first', 'marts"."days', 'marts"."waits', 'marts"."last')
)

DAY = 86_400_000

FILES = {
    "models/first.sql": "MODEL (name staging.first, kind FULL); SELECT 1 AS a",
    "models/days.sql": """
        MODEL (name marts.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1),
          start '2026-01-01', end '2026-01-06');
        SELECT CAST(@start_ds AS DATE) AS day, a FROM staging.first
    """,
    "models/last.sql": "MODEL (name marts.last, kind FULL); SELECT a FROM marts.waits",
    "external_models.yaml": "- name: db.landing.other\n",
    "models/embedded.sql": "MODEL (name marts.embedded, kind EMBEDDED); SELECT a FROM db.landing.other",
    "audits/standalone.sql": "AUDIT (name standalone, standalone true); SELECT 1 FROM staging.first WHERE FALSE",
}


@pytest.fixture
def waiting(make_warehouse, tmp_path):
    """A planned project with a model that blocks, when all others have run that do not read it."""
    waits = WAITS.format(started=str(tmp_path / "started"), released=str(tmp_path / "released"))
    # It also waits for the incremental model to be done: what is recorded when it starts is then known.
    waits = waits.replace('["staging.first"]', '["staging.first", "marts.days"]')
    return make_warehouse({**FILES, "models/waits.py": waits})


def reconciled(warehouse, *arguments):
    """The report, and its models by FQN."""
    result = warehouse.invoke("reconcile", *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    Draft202012Validator(reconcile_schema()).validate(json.loads(result.stdout))
    report = read_reconcile_report(result.stdout_bytes)
    return report, {model.model: model for model in report.models}


def spans(intervals):
    return [(span.start, span.end) for span in intervals]


def days(*numbers):
    """Days of January 2026, merged by hand: pairs of the first and the one after the last."""
    return [(f"2026-01-{a:02}T00:00:00Z", f"2026-01-{b:02}T00:00:00Z") for a, b in numbers]


def in_state(warehouse, *, is_dev=False):
    """All intervals in SQLMesh's table of them, by model, in milliseconds and merged."""
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        rows = connection.execute(
            "SELECT name, start_ts, end_ts FROM sqlmesh._intervals WHERE is_dev = ? AND NOT is_removed ORDER BY ALL",
            [is_dev],
        ).fetchall()
    return {name: merged(row[1:] for row in rows if row[0] == name) for name in {row[0] for row in rows}}


def merged(pairs):
    found = []
    for start, end in sorted(pairs):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def milliseconds(intervals):
    from sqlmesh.utils.date import to_timestamp

    return [(to_timestamp(span.start), to_timestamp(span.end)) for span in intervals]


def killed_in_the_middle(warehouse, tmp_path, keep):
    """A run that SIGKILL ends while a model blocks, its events read from a FIFO as long as ``keep`` says.

    The reader goes away in the middle, so SQLMesh goes on without anybody hearing of it.

    Returns:
        The file of the events that were read.
    """
    fifo, kept = tmp_path / "fifo", tmp_path / "kept.jsonl"
    os.mkfifo(fifo)
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sqlmesh_pipes_runner",
            "run",
            "prod",
            "--project",
            str(warehouse.path),
            "--events",
            str(fifo),
        ],
        env={**os.environ, "RUNNER_TEST_DATABASE": str(warehouse.database)},
        stderr=subprocess.PIPE,
    ) as runner:
        try:
            with fifo.open("rb") as events, kept.open("wb") as file:
                for line in events:
                    file.write(line)
                    if not keep(json.loads(line)):
                        break
            wait_for((tmp_path / "started").exists)
        finally:
            runner.kill()
            runner.wait(20)
            runner.stderr.close()
    assert runner.returncode == -signal.SIGKILL
    return kept


@pytest.mark.parametrize("after", ["evaluation_started", "run_started", "batch_finished"])
def test_what_a_killed_run_did_and_did_not_tell_is_exactly_what_is_missing(waiting, tmp_path, after):
    heard = []

    def keep(event):
        heard.append(event["kind"])
        # Of the incremental model's days some are told and some are not.
        return heard.count(after) < (3 if after == "batch_finished" else 1)

    kept = killed_in_the_middle(waiting, tmp_path, keep)
    events = [json.loads(line) for line in kept.read_bytes().splitlines()]
    report, models = reconciled(waiting, "--events", str(kept))

    assert report.run_id == events[0]["run_id"]
    # A heartbeat, or a word on whom it waits for, may come before.
    assert report.since == next(event["at"] for event in events if event["kind"] == "run_started")
    assert report.environment == "prod"
    assert set(models) == {FIRST, DAYS}  # and neither what blocked nor what came after it
    told = sum(event["kind"] == "batch_finished" for event in events)
    assert told == (3 if after == "batch_finished" else 0)
    for fqn, model in models.items():
        state = in_state(waiting)[fqn]
        assert (
            merged(milliseconds((*model.reported, *model.missing))) == state == milliseconds(model.recorded)
        )
        assert list(without(milliseconds(model.missing), milliseconds(model.reported))) == milliseconds(
            model.missing
        )
        assert model.uncertain == ()
    if after == "batch_finished":  # the first model's one, then two days
        assert spans(models[FIRST].missing) == []
        assert sum(end - start for start, end in milliseconds(models[DAYS].reported)) == 2 * DAY
        assert sum(end - start for start, end in milliseconds(models[DAYS].missing)) == 4 * DAY
    else:
        assert spans(models[DAYS].missing) == days((1, 7))
        assert models[FIRST].missing == models[FIRST].recorded


def test_of_a_killed_run_that_told_all_it_did_nothing_is_missing(waiting, tmp_path):
    kept = tmp_path / "events.jsonl"
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sqlmesh_pipes_runner",
            "run",
            "prod",
            "--project",
            str(waiting.path),
            "--events",
            str(kept),
        ],
        env={**os.environ, "RUNNER_TEST_DATABASE": str(waiting.database)},
        stderr=subprocess.DEVNULL,
    ) as runner:
        try:
            wait_for((tmp_path / "started").exists)
        finally:
            runner.kill()
            runner.wait(20)
    _, models = reconciled(waiting, "--events", str(kept))

    assert {fqn: model.missing for fqn, model in models.items()} == {FIRST: (), DAYS: ()}
    assert spans(models[DAYS].recorded) == spans(models[DAYS].reported) == days((1, 7))


@pytest.fixture
def whole(make_warehouse, tmp_path):
    """A project without a model that blocks."""
    files = {name: text for name, text in FILES.items() if name != "models/last.sql"}
    return make_warehouse(files)


def run(warehouse, *arguments):
    """A run that succeeds; the file of its events."""
    events = warehouse.path.parent / f"events-{time.monotonic_ns()}.jsonl"
    result = warehouse.invoke("run", *(arguments or ("prod",)), "--events", str(events))
    assert result.exit_code == 0, result.output
    return events


def test_of_a_whole_run_nothing_is_missing(whole):
    events = run(whole)
    _, models = reconciled(whole, "--events", str(events))

    assert set(models) == {FIRST, DAYS}
    assert all(model.missing == () for model in models.values())
    assert all(model.recorded == model.reported for model in models.values())


def test_of_a_run_that_had_nothing_to_do_there_is_nothing_to_tell(whole):
    run(whole)
    events = run(whole)

    assert reconciled(whole, "--events", str(events))[1] == {}


def test_what_another_run_did_meanwhile_is_not_this_runs(whole):
    first = run(whole, "prod", "--select-model", "staging.first")
    run(whole)

    assert set(reconciled(whole, "--events", str(first))[1]) == {FIRST}


def test_the_run_is_named_where_the_file_has_several(whole, tmp_path):
    first, second = run(whole, "prod", "--select-model", "staging.first"), run(whole)
    both = tmp_path / "both.jsonl"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    ids = [json.loads(path.read_bytes().splitlines()[0])["run_id"] for path in (first, second)]

    assert reconciled(whole, "--events", str(both))[0].run_id == ids[1]
    report, models = reconciled(whole, "--events", str(both), "--run-id", ids[0])
    assert (report.run_id, set(models)) == (ids[0], {FIRST})


def test_since_a_moment_is_told_what_was_recorded_then_and_later(whole):
    run(whole, "prod", "--select-model", "staging.first")
    time.sleep(0.01)
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06}"
    run(whole)

    report, models = reconciled(
        whole,
        "prod",
        "--since",
        moment,
    )
    assert set(models) == {DAYS}
    assert models[DAYS].missing == models[DAYS].recorded
    assert (models[DAYS].reported, report.run_id) == ((), None)
    assert report.since[:23] == moment[:23]
    assert set(reconciled(whole, "prod", "--since", "1 hour ago")[1]) == {FIRST, DAYS}
    assert reconciled(whole, "prod", "--since", "2099-01-01")[1] == {}


def compact(warehouse):
    """What SQLMesh's janitor does before each run of production."""
    with console_replaced(NoopConsole()):
        context = warehouse.context()
        context.state_sync.compact_intervals()
        context.close()


def test_what_was_compacted_since_is_uncertain_since_a_moment_and_certain_of_a_run(whole):
    events = run(whole)
    compact(whole)

    _, models = reconciled(whole, "prod", "--since", "1 hour ago")
    assert spans(models[DAYS].uncertain) == days((1, 7))
    assert (models[DAYS].recorded, models[DAYS].missing) == ((), ())

    _, models = reconciled(whole, "--events", str(events))
    assert spans(models[DAYS].recorded) == days((1, 7))
    assert (models[DAYS].missing, models[DAYS].uncertain) == ((), ())


def test_what_was_altered_before_the_moment_is_older_however_late_it_was_compacted(whole):
    run(whole)
    time.sleep(0.01)
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06}"
    time.sleep(0.01)
    compact(whole)

    assert reconciled(whole, "prod", "--since", moment)[1] == {}


def test_of_a_model_that_looks_back_what_was_compacted_stays_uncertain(make_warehouse):
    lookback = FILES["models/days.sql"].replace("time_column day,", "time_column day, lookback 2,")
    lookback = lookback.replace("start '2026-01-01', end '2026-01-06'", "start '6 days ago'")
    warehouse = make_warehouse({"models/first.sql": FILES["models/first.sql"], "models/days.sql": lookback})
    run(warehouse, "prod", "--execution-time", "2 days ago")
    events = run(warehouse)

    _, models = reconciled(warehouse, "--events", str(events))
    assert models[DAYS].recorded == models[DAYS].reported
    compact(warehouse)
    _, models = reconciled(warehouse, "--events", str(events))
    assert (models[DAYS].recorded, models[DAYS].missing) == ((), ())
    assert models[DAYS].uncertain == models[DAYS].reported


def test_what_was_taken_back_again_is_not_recorded(whole):
    events = run(whole)
    with console_replaced(NoopConsole()):
        context = whole.context()
        snapshot = next(s for s in context.snapshots.values() if s.name == DAYS)
        start = snapshot.intervals[0][0]
        context.state_sync.remove_intervals([(snapshot, (start, start + 2 * DAY))])
        context.close()
    _, models = reconciled(whole, "--events", str(events))

    assert spans(models[DAYS].recorded) == days((3, 7))
    assert spans(models[DAYS].reported) == days((1, 7))
    assert models[DAYS].missing == ()


def test_in_a_development_environment_a_preview_counts_and_productions_run_does_not(whole):
    run(whole)
    path = whole.path / "models/days.sql"
    path.write_text(
        path.read_text()
        .replace("time_column day,", "time_column day, forward_only true,")
        .replace("a FROM", "a + 1 AS a FROM")
    )
    whole.plan("dev")
    events = run(whole, "dev", "--start", "2026-01-04")
    before_production = reconciled(whole, "--events", str(events))
    run(whole, "prod", "--ignore-cron")

    report, models = reconciled(whole, "--events", str(events))
    assert report.environment == "dev"
    assert spans(models[DAYS].recorded) == spans(models[DAYS].reported) != []
    # The plan has recorded the days before as done: it was told to skip them.
    assert list(without(milliseconds(models[DAYS].recorded), in_state(whole, is_dev=True)[DAYS])) == []
    assert (report, models) == before_production


def test_nothing_is_written_and_no_state_is_made(whole, make_warehouse, tmp_path):
    events = run(whole)
    with duckdb.connect(str(whole.database)) as connection:
        connection.execute("CHECKPOINT")
    before = whole.database.read_bytes()
    reconciled(whole, "--events", str(events))
    with duckdb.connect(str(whole.database)) as connection:
        connection.execute("CHECKPOINT")
    assert whole.database.read_bytes() == before

    whole.database = tmp_path / "empty.duckdb"
    result = whole.invoke("reconcile", "prod", "--since", "1 hour ago")
    assert result.exit_code == 2
    with duckdb.connect(str(whole.database)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM information_schema.tables").fetchone() == (0,)


def test_people_read_a_table_with_what_is_missing_first(waiting, tmp_path):
    kept = killed_in_the_middle(waiting, tmp_path, lambda event: event["kind"] != "model_executed")
    result = waiting.invoke("reconcile", "--events", str(kept))
    run_id = json.loads(kept.read_bytes().splitlines()[0])["run_id"]

    assert result.exit_code == 0
    assert result.stderr == ""
    headline, empty, *rows = result.stdout.splitlines()
    assert re.fullmatch(
        rf"1 model recorded in 'prod' since .* UTC, and not reported by the run {re.escape(run_id)}\.",
        headline,
    )
    assert empty == ""
    cells = [re.split(r"  +", row) for row in rows]
    assert cells[0] == ["MODEL", "MISSING", "REPORTED", "UNCERTAIN"]
    assert cells[1] == [DAYS, "2026-01-01 to 2026-01-07", "-", "-"]
    assert (cells[2][0], cells[2][1], cells[2][3]) == (FIRST, "-", "-")


def test_a_state_on_postgresql_is_asked_likewise(make_warehouse, postgres_server: PostgresServer):
    config = f"""
        gateways:
          local:
            connection: {{type: postgres, host: 127.0.0.1, port: {postgres_server.port}, user: postgres,
              password: {PASSWORD}, database: {(database := postgres_server.new_database())}}}
        default_gateway: local
        model_defaults: {{dialect: postgres, start: 2026-01-01}}
        disable_anonymized_analytics: true
    """
    files = {name: FILES[name] for name in ("models/first.sql", "models/days.sql")}
    warehouse = make_warehouse(files, config=config)
    events = run(warehouse)
    lines = events.read_bytes().splitlines(keepends=True)
    # What a runner wrote that was killed after its first batch.
    batch = next(place for place, line in enumerate(lines) if b'"kind":"batch_finished"' in line)
    events.write_bytes(b"".join(lines[: batch + 1]))
    _, models = reconciled(warehouse, "--events", str(events))

    first, filled = (fqn.replace('"db"', f'"{database}"') for fqn in (FIRST, DAYS))
    assert (models[first].missing, spans(models[filled].missing)) == ((), days((1, 7)))
    assert set(reconciled(warehouse, "prod", "--since", "1 hour ago")[1]) == {first, filled}


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """An event file with nothing but the beginning of a run, of 'dev' on the gateway 'remote'."""
    path = tmp_path_factory.mktemp("events") / "run.jsonl"
    golden = Path(__file__).parents[1] / "protocol/golden/events-1.jsonl"
    line = next(line for line in golden.read_bytes().splitlines() if b'"run_started"' in line)
    started = json.loads(line) | {"environment": "dev", "gateway": "remote"}
    path.write_text(json.dumps(started, separators=(",", ":")) + "\n")
    return path, started["run_id"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prod"], "Give either --since TIME or --events FILE."),
        (["prod", "--since", "today", "--events", "{file}"], "Give either --since TIME or --events FILE."),
        (["prod", "--since", "today", "--run-id", "x"], "--run-id names a run in a file"),
        (["prod", "--since", "someday"], "--since 'someday' is no time"),
        (
            ["nowhere", "--since", "today"],
            "There is no environment 'nowhere' in the state of gateway 'local' (it has prod)",
        ),
        (["prod", "--since", "today", "--gateway", "x"], "There is no gateway 'x'"),
        (["prod", "--events", "/no/such/file"], "The events of /no/such/file cannot be read: No such file"),
        (["--events", "{file}", "--run-id", "no-such-run"], "no run no-such-run in {file}"),
        (["prod", "--events", "{file}"], "was of the environment 'dev', and 'prod' is asked for"),
        (
            ["--events", "{file}"],
            "was on the gateway 'remote', and 'local' is asked: give the run's with --gateway.",
        ),
        (["--events", "{config}"], "no events of a run in {config}"),
        (["--events", "{other}"], "speaks protocol 2.0, this side speaks 1.0"),
    ],
)
def test_what_does_not_exist_is_said_with_exit_status_2(warehouse, a_run, tmp_path, arguments, says):
    path, _ = a_run
    other = tmp_path / "other.jsonl"
    other.write_text(path.read_text().replace('"v":"1.0"', '"v":"2.0"'))
    names = {"file": path, "config": warehouse.path / "config.yaml", "other": other}
    result = warehouse.invoke("reconcile", *(argument.format(**names) for argument in arguments))

    assert result.exit_code == 2, result.output
    assert says.format(**names) in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_database_that_is_locked_makes_the_exit_status_3(warehouse):
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(warehouse.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            result = warehouse.invoke("reconcile", "prod", "--since", "today")
        finally:
            holder.stdin.close()
            holder.wait(20)

    assert result.exit_code == 3
    assert re.search(r"^Error: what has been recorded cannot be told: .*lock", result.stderr)


@pytest.mark.parametrize(
    ("spans", "taken", "left"),
    [
        ([(0, 10)], [], [(0, 10)]),
        ([(0, 10)], [(0, 10)], []),
        ([(0, 10)], [(2, 4), (6, 8)], [(0, 2), (4, 6), (8, 10)]),
        ([(0, 10)], [(6, 8), (2, 4)], [(0, 2), (4, 6), (8, 10)]),
        ([(0, 10)], [(-5, 3), (9, 20)], [(3, 9)]),
        ([(0, 10), (20, 30)], [(5, 25)], [(0, 5), (25, 30)]),
        ([(0, 10)], [(10, 20), (-10, 0)], [(0, 10)]),
        ([(0, 10)], [(2, 8), (4, 6)], [(0, 2), (8, 10)]),
        ([(0, 10)], [(2, 3), (0, 9)], [(9, 10)]),
    ],
)
def test_what_is_taken_away_from_spans_leaves_the_rest(spans, taken, left):
    assert list(without(spans, taken)) == left
