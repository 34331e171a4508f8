"""``due`` says what a run would do, exactly, and changes nothing."""

import json
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import duckdb
import pytest
from jsonschema import Draft202012Validator

from sqlmesh_pipes_protocol import due_schema, read_due_report

COLOURS, ORDERS, DAYS, DOUBLED, PAID = (
    '"db"."raw"."colours"',
    '"db"."staging"."orders"',
    '"db"."marts"."days"',
    '"db"."marts"."doubled"',
    '"db"."marts"."paid"',
)
MIDNIGHT = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = MIDNIGHT - timedelta(days=1)


def written(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def due(warehouse, *arguments):
    """What is due in prod, or in the environment named first, by model."""
    if not arguments or arguments[0].startswith("-"):
        arguments = ("prod", *arguments)
    result = warehouse.invoke("due", *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    report = read_due_report(result.stdout_bytes)
    assert report.environment == arguments[0]
    return {model.model: model for model in report.models}


def intervals(models):
    return {
        fqn: [(span.start, span.end) for span in model.intervals]
        for fqn, model in models.items()
        if model.intervals
    }


def evaluated(events):
    """The intervals that a run set out to fill, merged, by model."""
    found = {}
    for event in events:
        if event["kind"] == "evaluation_started":
            for batches in event["batches"]:
                spans = found.setdefault(batches["model"], [])
                for span in sorted((span["start"], span["end"]) for span in batches["intervals"]):
                    if spans and spans[-1][1] == span[0]:
                        spans[-1] = (spans[-1][0], span[1])
                    else:
                        spans.append(span)
    return found


def test_everything_is_due_before_the_first_run_and_nothing_after_it(warehouse):
    before = due(warehouse)
    warehouse.run()
    after = due(warehouse)

    assert list(before) == list(after)
    assert set(before) == {
        COLOURS,
        ORDERS,
        DAYS,
        DOUBLED,
        PAID,
    }  # and not the embedded one: SQLMesh never runs it
    assert list(before).index(COLOURS) < list(before).index(ORDERS) < list(before).index(DOUBLED)
    assert set(intervals(before)) == set(before)
    assert intervals(before)[DAYS] == [("2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z")]
    assert intervals(after) == {}
    assert {model.next_due for fqn, model in after.items() if fqn not in (COLOURS, DAYS)} == {
        written(MIDNIGHT + timedelta(days=1))
    }


def test_a_seed_and_a_model_past_its_end_have_no_next_turn(warehouse):
    models = due(warehouse)

    assert (models[COLOURS].next_due, models[DAYS].next_due) == (None, None)
    assert models[COLOURS].intervals  # it is yet to be loaded
    assert due(warehouse, "--execution-time", "2026-01-03T12:00:00")[DAYS].next_due == "2026-01-04T00:00:00Z"
    assert due(warehouse, "--execution-time", "2026-01-04T00:00:00")[DAYS].next_due is None


def test_after_a_day_the_dailies_are_due_for_that_day(warehouse):
    at = written(YESTERDAY + timedelta(hours=12))
    result, _ = warehouse.run("--execution-time", at)
    assert result.exit_code == 0, result.output

    assert intervals(due(warehouse, "--execution-time", at)) == {}
    assert intervals(due(warehouse)) == {
        fqn: [(written(YESTERDAY), written(MIDNIGHT))] for fqn in (ORDERS, DOUBLED, PAID)
    }


def test_a_model_that_failed_stays_due_and_so_does_what_it_held_back(warehouse):
    warehouse.write(
        {
            "models/broken.sql": "MODEL (name marts.broken, kind FULL); SELECT CAST(colour AS INT) AS n FROM staging.orders",
            "models/below.sql": "MODEL (name marts.below, kind FULL); SELECT n FROM marts.broken",
        }
    )
    warehouse.plan()
    result, _ = warehouse.run()

    assert result.exit_code == 1
    assert set(intervals(due(warehouse))) == {'"db"."marts"."broken"', '"db"."marts"."below"'}


@pytest.mark.parametrize(
    ("at", "turn"),
    [
        ("2026-01-10T03:00:00", "2026-01-10T05:00:00Z"),
        ("2026-01-10T05:00:00", "2026-01-11T05:00:00Z"),
        ("2026-07-10T03:00:00", "2026-07-10T04:00:00Z"),  # in summer the zone is two hours ahead
        ("2025-12-01T00:00:00", "2026-01-01T05:00:00Z"),  # not before the model's own start
    ],
)
def test_the_next_turn_is_told_by_the_cron_in_its_time_zone(make_warehouse, at, turn):
    warehouse = make_warehouse(
        {
            "models/m.sql": """
            MODEL (name s.m, kind FULL, cron '0 6 * * *', cron_tz 'Europe/Berlin', start '2026-01-01');
            SELECT 1 AS a
            """
        }
    )

    assert due(warehouse, "--execution-time", at)['"db"."s"."m"'].next_due == turn


def test_another_environment_has_what_is_due_in_it(warehouse):
    warehouse.run()
    orders = (warehouse.path / "models/orders.sql").read_text()
    warehouse.write({"models/orders.sql": orders.replace("SELECT 3::INT", "SELECT 4::INT")})
    warehouse.plan("dev")

    assert intervals(due(warehouse, "prod")) == {}
    assert set(intervals(due(warehouse, "dev"))) == {ORDERS, DOUBLED, DAYS}

    assert warehouse.invoke("run", "dev").exit_code == 0
    assert intervals(due(warehouse, "dev")) == {}


def test_only_what_is_selected_is_told_with_its_upstream_unless_told_not_to(warehouse):
    assert set(due(warehouse, "--select-model", "marts.doubled")) == {COLOURS, ORDERS, DOUBLED}
    assert set(due(warehouse, "--select-model", "marts.doubled", "--no-auto-upstream")) == {DOUBLED}
    assert set(due(warehouse, "--select-model", "tag:core", "--no-auto-upstream")) == {ORDERS}


RICH = {
    "models/hourly.sql": """
        MODEL (name s.hourly, kind INCREMENTAL_BY_TIME_RANGE (time_column at, lookback 3), cron '@hourly', start '3 days ago');
        SELECT CAST(@start_ts AS TIMESTAMP) AS at
    """,
    "models/weekly.sql": """
        MODEL (name s.weekly, kind INCREMENTAL_BY_TIME_RANGE (time_column d), cron '@weekly', start '40 days ago');
        SELECT CAST(@start_ds AS DATE) AS d FROM s.hourly LIMIT 1
    """,
    "models/partial.sql": """
        MODEL (name s.partial, kind INCREMENTAL_BY_TIME_RANGE (time_column d, batch_size 2), allow_partials true,
          start '5 days ago');
        SELECT CAST(@start_ds AS DATE) AS d
    """,
    "models/restated.sql": """
        MODEL (name s.restated, start '10 days ago', kind INCREMENTAL_BY_TIME_RANGE (
          time_column d, auto_restatement_cron '@daily', auto_restatement_intervals 3
        ));
        SELECT CAST(@start_ds AS DATE) AS d
    """,
    "models/below.sql": "MODEL (name s.below, kind VIEW, start '10 days ago'); SELECT d FROM s.restated",
    "models/later.sql": "MODEL (name s.later, kind FULL, start '2099-01-01'); SELECT 1 AS a",
    "audits/standalone.sql": "AUDIT (name standalone, standalone true); SELECT 1 FROM s.weekly WHERE FALSE",
}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--ignore-cron", "--execution-time", written(YESTERDAY + timedelta(hours=20, minutes=7))),
        ("--start", "4 days ago"),
        ("--start", "6 days ago", "--end", "3 days ago"),
        ("--execution-time", "2 days ago"),
        ("--select-model", "s.weekly"),
        ("--select-model", "+s.below", "--no-auto-upstream", "--ignore-cron"),
    ],
)
def test_a_run_evaluates_exactly_what_was_due(make_warehouse, arguments):
    warehouse = make_warehouse(RICH)
    result, _ = warehouse.run("--execution-time", written(YESTERDAY - timedelta(hours=30)))
    assert result.exit_code == 0, result.output

    expected = due(warehouse, *arguments)
    result, events = warehouse.run(*arguments)

    assert result.exit_code == 0, result.output
    batches = {fqn: spans for fqn, spans in evaluated(events).items() if fqn != "standalone"}
    assert intervals(expected) == batches
    selected = {event["model"] for event in events if event["kind"] in ("model_executed", "model_skipped")}
    assert set(expected) == selected


def test_a_preview_in_a_development_environment_is_due_as_its_run_finds_it(make_warehouse):
    warehouse = make_warehouse(RICH)
    warehouse.run()
    path = warehouse.path / "models/restated.sql"
    path.write_text(path.read_text().replace("time_column d,", "time_column d, forward_only true,"))
    warehouse.plan("dev")
    arguments = ("--start", "4 days ago")

    expected = intervals(due(warehouse, "dev", *arguments))
    log = warehouse.path.parent / "dev.jsonl"
    assert warehouse.invoke("run", "dev", *arguments, "--events", str(log)).exit_code == 0

    events = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert '"db"."s"."restated"' in expected
    assert expected == evaluated(events)


def state_of(warehouse):
    with duckdb.connect(str(warehouse.database)) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables ORDER BY ALL"
        ).fetchall()
        return {
            table: connection.execute(f'SELECT * FROM "{schema}"."{table}" ORDER BY ALL').fetchall()
            for schema, table in tables
        }


def test_nothing_is_written(make_warehouse):
    warehouse = make_warehouse(RICH)
    warehouse.run("--execution-time", written(YESTERDAY - timedelta(hours=30)))
    before = state_of(warehouse)

    assert '"db"."s"."restated"' in intervals(due(warehouse))
    assert before["_intervals"]
    assert state_of(warehouse) == before


def test_where_there_is_no_state_none_is_made(make_warehouse):
    warehouse = make_warehouse({"models/m.sql": "MODEL (name s.m, kind FULL); SELECT 1 AS a"}, plan=False)
    result = warehouse.invoke("due")

    assert result.exit_code == 2
    assert "There is no environment 'prod' in the state of gateway 'local' (it has none)" in result.stderr
    assert state_of(warehouse) == {}


def test_people_read_a_table_with_what_is_due_first(warehouse):
    warehouse.run("--execution-time", "2026-02-01T12:00:00")
    result = warehouse.invoke("due", "prod", "--execution-time", "2026-02-03T06:30:00")

    assert result.exit_code == 0
    assert result.stderr == ""
    assert [re.split(r"  +", line) for line in result.stdout.splitlines()] == [
        ["3 of 5 models due in 'prod' at 2026-02-03 06:30:00 UTC."],
        [""],
        ["MODEL", "DUE", "NEXT"],
        *(
            [fqn, "2026-02-01 to 2026-02-03", "2026-02-04"]
            for fqn in due(warehouse)
            if fqn in (ORDERS, DOUBLED, PAID)
        ),
        *([fqn, "-", "never"] for fqn in due(warehouse) if fqn in (COLOURS, DAYS)),
    ]


def test_the_report_is_alone_on_standard_output_whatever_a_configuration_prints(warehouse):
    warehouse.write(
        {
            "config.py": """
            import os
            from sqlmesh.core.config import Config, DuckDBConnectionConfig, GatewayConfig, ModelDefaultsConfig

            print("a configuration prints")
            config = Config(
                gateways={"local": GatewayConfig(connection=DuckDBConnectionConfig(
                    catalogs={"db": os.environ["RUNNER_TEST_DATABASE"]}
                ))},
                default_gateway="local",
                model_defaults=ModelDefaultsConfig(dialect="duckdb", start="2026-01-01", cron="@daily"),
            )
            """
        }
    )
    (warehouse.path / "config.yaml").unlink()
    done = warehouse.spawn("due", "prod", "--format", "json")

    assert done.returncode == 0, done.stderr
    assert "a configuration prints" in done.stderr
    report = json.loads(done.stdout)
    Draft202012Validator(due_schema()).validate(report)
    assert len(report["models"]) == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "There is no environment 'nowhere' in the state of gateway 'local' (it has prod)"),
        (["prod", "--gateway", "x"], "There is no gateway 'x'"),
        (["prod", "--execution-time", "someday"], "--execution-time 'someday' is no time"),
        (["prod", "--start", "2026-02-01", "--end", "2026-01-01"], "--start and --end do not fit"),
        (["prod", "--select-model", "staging.ordres"], "Did you mean 'staging.orders'?"),
        (["prod", "--select-model", "tag:nothing"], "No model in the environment matches the selection"),
        (["prod", "--format", "xml"], "'xml' is not one of"),
    ],
)
def test_what_does_not_exist_is_said_with_exit_status_2(warehouse, arguments, says):
    result = warehouse.invoke("due", *arguments)

    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stdout == ""


def test_a_database_that_is_locked_by_another_process_makes_the_exit_status_3(warehouse):
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(warehouse.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            result = warehouse.invoke("due")
        finally:
            holder.stdin.close()
            holder.wait(20)

    assert result.exit_code == 3
    assert re.search(r"^Error: what is due cannot be told: .*lock", result.stderr)
    assert result.stdout == ""
