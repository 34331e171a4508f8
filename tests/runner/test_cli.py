"""The command line on a real project: exit statuses, what people read, and what goes to a file."""

import json
import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from sqlmesh_pipes_protocol.manifest import DEFAULT_MANIFEST_NAME, load_manifest
from sqlmesh_pipes_runner.cli import main

COLOURS, ORDERS, DAYS, DOUBLED, PAID = (
    f'"db"."{schema}"."{name}"'
    for schema, name in [
        ("raw", "colours"),
        ("staging", "orders"),
        ("marts", "days"),
        ("marts", "doubled"),
        ("marts", "paid"),
    ]
)
BRIGHT = '"db"."staging"."bright"'
TERMINAL = {"model_executed", "model_failed", "model_skipped"}


def terminal(events):
    found = [event for event in events if event["kind"] in TERMINAL]
    assert max(Counter(event["model"] for event in found).values(), default=1) == 1
    return {event["model"]: event for event in found}


@contextmanager
def locked(warehouse):
    """Another process has the database open."""
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(warehouse.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            yield
        finally:
            holder.stdin.close()
            holder.wait(20)


def of(events, kind):
    return [event for event in events if event["kind"] == kind]


def break_orders(warehouse):
    """The common project, with a model that fails and one below it."""
    warehouse.write(
        {
            "models/broken.sql": "MODEL (name marts.broken, kind FULL); SELECT CAST(colour AS INT) AS n FROM staging.orders",
            "models/below.sql": "MODEL (name marts.below, kind FULL); SELECT n FROM marts.broken",
        }
    )
    warehouse.plan()


def test_a_run_executes_what_is_due_and_exits_with_0(warehouse):
    result, events = warehouse.run()

    assert result.exit_code == 0, result.output
    assert {fqn: event["kind"] for fqn, event in terminal(events).items()} == {
        COLOURS: "model_executed",
        BRIGHT: "model_skipped",
        ORDERS: "model_executed",
        DAYS: "model_executed",
        DOUBLED: "model_executed",
        PAID: "model_executed",
    }
    assert terminal(events)[BRIGHT]["reason"] == "not_runnable"
    assert terminal(events)[DAYS]["batches"] == 3
    assert terminal(events)[DAYS]["intervals"] == [
        {"start": "2026-01-01T00:00:00Z", "end": "2026-01-04T00:00:00Z"}
    ]
    assert [event["seq"] for event in events] == list(range(len(events)))
    started, finished = events[0], events[-1]
    assert (started["kind"], started["environment"], started["gateway"]) == ("run_started", "prod", "local")
    assert (started["models_deployed"], started["models_selected"], started["selection"]) == (6, 6, None)
    assert (finished["kind"], finished["status"], finished["exit_code"]) == ("run_finished", "success", 0)
    assert finished["last_seq"] == len(events) - 1


def test_a_second_run_has_nothing_to_do_and_exits_with_0(warehouse):
    warehouse.run()
    result, events = warehouse.run()

    assert result.exit_code == 0
    assert events[-1]["status"] == "nothing_to_do"
    assert {fqn: event["reason"] for fqn, event in terminal(events).items()} == {
        COLOURS: "up_to_date",
        BRIGHT: "not_runnable",
        ORDERS: "cron_not_due",
        DAYS: "up_to_date",  # its end lies in the past
        DOUBLED: "cron_not_due",
        PAID: "cron_not_due",
    }
    assert terminal(events)[ORDERS]["next_due"].endswith("T00:00:00Z")


def test_audits_are_told_with_their_rows_and_whether_they_block(warehouse):
    _, events = warehouse.run()

    audits = {
        audit["audit"]: (audit["passed"], audit["failing_rows"], audit["blocking"])
        for audit in of(events, "audit_evaluated")
        if audit["model"] == ORDERS
    }
    assert audits == {
        "not_null_id": (True, 0, True),
        "not_null_colour": (False, 1, False),
        "unique_values": (True, 0, True),
        "unique_values_2": (True, 0, True),
        "few_rows": (False, 1, False),
    }
    (standalone,) = [audit for audit in of(events, "audit_evaluated") if audit["standalone"]]
    assert (standalone["model"], standalone["passed"], standalone["targets"]) == (
        "orders_exist",
        True,
        [ORDERS],
    )


def test_a_model_that_fails_makes_the_exit_status_1_and_holds_back_what_is_below(warehouse):
    break_orders(warehouse)
    result, events = warehouse.run()

    assert result.exit_code == 1
    failed, below = terminal(events)['"db"."marts"."broken"'], terminal(events)['"db"."marts"."below"']
    assert failed["error"]["category"] == "sql"
    assert failed["error"]["transient"] is False
    assert "Could not convert string" in failed["error"]["message"]
    assert (below["reason"], below["blocked_by"]) == ("upstream_failed", ['"db"."marts"."broken"'])
    assert terminal(events)[DOUBLED]["kind"] == "model_executed"
    assert (events[-1]["status"], events[-1]["exit_code"]) == ("failed", 1)


def test_a_blocking_audit_that_fails_makes_the_exit_status_1(make_warehouse):
    warehouse = make_warehouse(
        {
            "models/m.sql": """
            MODEL (name s.m, kind FULL, audits (
              not_null(columns := (a)), not_null(columns := (b)), unique_values(columns := (a), blocking := false)
            ));
            SELECT 1 AS a, NULL::INT AS b UNION ALL SELECT 1, 2
            """
        }
    )
    result, events = warehouse.run()

    assert result.exit_code == 1
    failed = terminal(events)['"db"."s"."m"']
    assert (failed["error"]["category"], failed["failed_audits"]) == ("audit", ["not_null_b"])
    assert {audit["audit"]: audit["passed"] for audit in of(events, "audit_evaluated")} == {
        "not_null_a": True,
        "not_null_b": False,
        "unique_values": False,
    }


def test_a_signal_that_is_not_ready_holds_a_model_and_what_reads_it_back(make_warehouse):
    warehouse = make_warehouse(
        {
            "signals/__init__.py": """
            from sqlmesh import signal

            @signal()
            def landed(batch):
                return False
            """,
            "models/held.sql": "MODEL (name s.held, kind FULL, signals (landed())); SELECT 1 AS a",
            "models/below.sql": "MODEL (name s.below, kind FULL); SELECT a FROM s.held",
        }
    )
    result, events = warehouse.run()

    assert result.exit_code == 0
    held, below = terminal(events)['"db"."s"."held"'], terminal(events)['"db"."s"."below"']
    assert (held["reason"], held["blocked_by"]) == ("signal_not_ready", ["landed"])
    assert (below["reason"], below["blocked_by"]) == ("signal_not_ready", ['"db"."s"."held"'])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["run", "nowhere"],
            "There is no environment 'nowhere' in the state of gateway 'local' (it has prod)",
        ),
        (["run", "prod", "--gateway", "x"], "There is no gateway 'x'"),
        (["run", "prod", "--start", "someday"], "--start 'someday' is no time"),
        (["run", "prod", "--start", "2026-02-01", "--end", "2026-01-01"], "--start and --end do not fit"),
        (["run", "prod", "--select-model", "staging.ordres"], "Did you mean 'staging.orders'?"),
        (
            ["run", "prod", "--select-model", "tag:nothing"],
            "No model in the environment matches the selection",
        ),
        (["run", "prod", "--events", "missing/events.jsonl"], "Events cannot be written to"),
        (["run", "prod", "-v", "-q"], "exclude each other"),
        (["run", "prod", "--grace-period", "-1"], "--grace-period"),
        (["manifest", "--gateway", "x"], "There is no gateway 'x'"),
        (
            ["manifest", "--output", "missing/m.json"],
            "The manifest cannot be written to missing/m.json: No such",
        ),
        (
            ["manifest", "--environment", "nowhere"],
            "There is no environment 'nowhere' in the state of gateway 'local' (it has prod)",
        ),
    ],
)
def test_what_does_not_exist_is_said_in_one_sentence_with_exit_status_2(warehouse, arguments, says):
    result = warehouse.invoke(*arguments)

    assert result.exit_code == 2, result.output
    assert says in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["run", "manifest"])
@pytest.mark.parametrize(
    ("place", "says"),
    [("missing", "There is no directory"), ("file", "is no directory"), ("", "is not a SQLMesh project")],
)
def test_a_directory_that_is_no_project_is_said_before_sqlmesh_is_loaded(tmp_path, command, place, says):
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, [command, "--project", str(tmp_path / place)])

    assert result.exit_code == 2
    assert says in result.output


def test_a_run_that_could_not_be_still_ends_with_its_last_event(warehouse):
    result, events = warehouse.run("--select-model", "staging.ordres")

    assert result.exit_code == 2
    assert [event["kind"] for event in events] == ["run_finished"]
    assert (events[0]["status"], events[0]["exit_code"], events[0]["last_seq"]) == ("error", 2, 0)
    assert events[0]["error"]["category"] == "config"
    assert events[0]["digest"] == []


def test_a_database_that_is_locked_by_another_process_makes_the_exit_status_3(warehouse):
    with locked(warehouse):
        result, events = warehouse.run()

    assert result.exit_code == 3
    assert (events[-1]["error"]["category"], events[-1]["error"]["transient"]) == ("lock", True)


def test_a_manifest_of_what_is_deployed_needs_the_state_and_exits_with_3_without_it(warehouse):
    with locked(warehouse):
        result = warehouse.invoke("manifest", "--environment", "prod")

    assert result.exit_code == 3
    assert re.search(r"^Error: the manifest cannot be made: .*lock", result.stderr)
    assert result.stderr.count("\n") == 1
    assert not (warehouse.path / DEFAULT_MANIFEST_NAME).exists()


def test_a_selection_runs_its_upstream_too_unless_told_not_to(warehouse):
    result, events = warehouse.run("--select-model", "staging.orders", "--no-auto-upstream")
    assert result.exit_code == 0, result.output
    assert set(terminal(events)) == {ORDERS}
    assert events[0]["selection"] == ["staging.orders"]

    result, events = warehouse.run("--select-model", "marts.doubled")
    assert set(terminal(events)) == {COLOURS, BRIGHT, ORDERS, DOUBLED}
    assert events[0]["models_selected"] == 4


def test_people_read_what_matters_and_a_summary(warehouse):
    break_orders(warehouse)
    result, _ = warehouse.run()

    said = [line[9:] for line in result.output.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]
    text = "\n".join(said)
    assert "runs environment 'prod' on gateway 'local': 8 of 8 models selected." in said[0]
    assert said[1] == "7 models due, 9 batches."
    assert re.search(rf"executed  {DAYS} in [\d.]+ s, 3 batches; audits: 1 passed", text)
    assert f"AUDIT     not_null_colour of {ORDERS} failed: 1 row, not blocking" in text
    assert 'FAILED    "db"."marts"."broken": Conversion Error' in text
    assert 'skipped   "db"."marts"."below": Upstream "db"."marts"."broken" failed.' in text
    assert re.search(r"\nFAILED in [\d.]+ s: 5 executed, 2 skipped, 1 failed; 7 audits, 2 failed\.\n", text)
    assert '  failed  "db"."marts"."broken": [sql] Conversion Error' in text
    assert "  skipped 1 model: not runnable" in text
    assert "  skipped 1 model: upstream failed" in text
    assert "  slowest " in text
    assert "batch 1/3" not in text  # that is for --verbose


def test_quiet_leaves_the_failures_and_the_summary(warehouse):
    break_orders(warehouse)
    result, _ = warehouse.run("--quiet")

    said = [line[9:] for line in result.output.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert len(said) == 3
    assert 'FAILED    "db"."marts"."broken"' in said[0]
    assert said[1].startswith("FAILED in ")
    assert said[2].startswith('  failed  "db"."marts"."broken"')


def test_verbose_adds_batches_and_audits_that_pass(warehouse):
    result, _ = warehouse.run("--verbose")

    assert result.exit_code == 0
    assert f"batch 2/3 of {DAYS}" in result.output
    assert f"audit     not_null_id of {ORDERS} passed" in result.output
    assert f"skipped   {BRIGHT}: SQLMesh never runs a model of kind EMBEDDED." in result.output


def test_a_file_of_events_is_appended_to_and_each_run_has_its_own_id(warehouse, tmp_path):
    path = tmp_path / "all.jsonl"
    for _ in range(2):
        assert warehouse.invoke("run", "prod", "--events", str(path)).exit_code == 0

    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    runs = list(dict.fromkeys(event["run_id"] for event in events))
    assert len(runs) == 2
    for run in runs:
        assert [e["seq"] for e in events if e["run_id"] == run] == list(
            range(sum(e["run_id"] == run for e in events))
        )
    assert [event["status"] for event in of(events, "run_finished")] == ["success", "nothing_to_do"]


def test_events_on_standard_output_are_alone_there_and_people_read_standard_error(warehouse):
    done = warehouse.spawn("run", "prod", "--events", "-")

    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert events[-1]["kind"] == "run_finished"
    assert "a model prints" in done.stderr
    assert "Finished in" in done.stderr


def test_without_events_nothing_goes_to_standard_output_but_what_models_print(warehouse):
    done = warehouse.spawn("run", "prod", "--quiet")

    assert done.returncode == 0
    assert done.stdout == "a model prints\n"


@pytest.mark.parametrize("subject", ["events", "manifest", "due"])
def test_the_schema_is_a_valid_json_schema(subject):
    result = CliRunner().invoke(main, ["schema", subject])

    assert result.exit_code == 0
    Draft202012Validator.check_schema(json.loads(result.stdout))


def test_the_events_of_a_run_and_its_manifest_fit_their_schemas(warehouse):
    events_schema = Draft202012Validator(json.loads(CliRunner().invoke(main, ["schema"]).stdout))
    manifest_schema = Draft202012Validator(
        json.loads(CliRunner().invoke(main, ["schema", "manifest"]).stdout)
    )
    break_orders(warehouse)
    _, events = warehouse.run()
    manifest = json.loads(warehouse.invoke("manifest", "--output", "-").stdout)

    assert [error.message for event in events for error in events_schema.iter_errors(event)] == []
    assert [error.message for error in manifest_schema.iter_errors(manifest)] == []
    assert not events_schema.is_valid({**events[0], "seq": "0"})
    assert not manifest_schema.is_valid({**manifest, "models": None})


def test_the_manifest_goes_into_the_project_unless_told_otherwise(warehouse, tmp_path):
    result = warehouse.invoke("manifest")
    elsewhere = warehouse.invoke("manifest", "--output", str(tmp_path / "m.json"))

    assert (result.exit_code, elsewhere.exit_code) == (0, 0)
    assert result.output.endswith(f"{DEFAULT_MANIFEST_NAME}: 6 models, 2 external.\n")
    assert len(load_manifest(warehouse.path / DEFAULT_MANIFEST_NAME).models) == 6
    assert len(load_manifest(tmp_path / "m.json").models) == 6


def test_lineage_that_is_not_known_is_a_warning_on_standard_error_unless_it_is_not_asked_for(warehouse):
    warehouse.write(
        {
            "models/late.sql": """
            MODEL (name s.late, kind FULL, columns (id int), depends_on (staging.orders));
            JINJA_QUERY_BEGIN; {% if execution_dt is none %} {% endif %} JINJA_END;
            """
        }
    )
    asked = warehouse.invoke("manifest", "--output", "-")
    unasked = warehouse.invoke("manifest", "--output", "-", "--no-column-lineage")

    assert (asked.exit_code, unasked.exit_code) == (0, 0)
    assert asked.stderr == (
        'Warning: The columns of "db"."s"."late" have no lineage: its query is only known when it runs\n'
    )
    assert unasked.stderr == ""
    with_sources, without = (
        {model["name"] for model in json.loads(result.stdout)["models"] if model["columns"][0]["sources"]}
        for result in (asked, unasked)
    )
    assert with_sources == {"staging.bright", "staging.orders", "marts.paid"}
    assert without == set()


def test_a_manifest_that_cannot_be_made_is_said_in_one_sentence(warehouse):
    warehouse.write({"models/torn.sql": "MODEL (name s.torn, kind FULL); SELEC FROM ("})
    result = warehouse.invoke("manifest")

    assert result.exit_code in (1, 2)
    assert "the manifest cannot be made: Failed to load model" in result.output
    assert "torn.sql" in result.output
    assert "Traceback" not in result.output
    assert not (warehouse.path / DEFAULT_MANIFEST_NAME).exists()


def test_version_names_the_release_the_protocol_and_sqlmesh():
    result = CliRunner().invoke(main, ["--version"])

    assert re.fullmatch(r"sqlmesh-runner \d+\.\d+\.\d+\S*, protocol \d+\.\d+, SQLMesh \d\S*\n", result.output)


def test_help_tells_every_exit_status():
    result = CliRunner().invoke(main, ["run", "--help"])

    for code in (0, 1, 2, 3, 130):
        assert re.search(rf"\b{code} \w", result.output)
