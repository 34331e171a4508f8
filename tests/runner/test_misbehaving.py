"""What users write may leave, close, or be broken: on a real SQLMesh, it is told, and the exit status is the runner's."""

import json
from collections import Counter

import duckdb
import pytest

TERMINAL = ("model_executed", "model_failed", "model_skipped")
OTHER = '"db"."s"."other"'
DAYS = '"db"."s"."days"'
PAYMENTS = '"db"."landing"."payments"'
OTHER_MODEL = {"models/other.sql": "MODEL (name s.other, kind FULL); SELECT 1 AS a"}

CONFIG = """\
gateways:
  local:
    connection:
      type: duckdb
      catalogs:
        db: "{{ env_var('RUNNER_TEST_DATABASE') }}"
      concurrent_tasks: %(tasks)s
default_gateway: local
model_defaults:
  dialect: %(dialect)s
  start: 2026-01-01
  cron: '@daily'
disable_anonymized_analytics: true
%(more)s
"""


def config(*, tasks=4, dialect="duckdb", more=""):
    return CONFIG % {"tasks": tasks, "dialect": dialect, "more": more}


def python_model(statement):
    """A model of three daily batches, one after the other, that runs a statement of Python in each."""
    return {
        "models/days.py": f"""
        import sys
        import typing as t

        import pandas as pd
        from sqlmesh import ExecutionContext, model
        from sqlmesh.core.model import ModelKindName


        @model(
            "s.days",
            kind=dict(
                name=ModelKindName.INCREMENTAL_BY_TIME_RANGE, time_column="day", batch_size=1, batch_concurrency=1
            ),
            start="2026-01-01",
            end="2026-01-03",
            columns={{"day": "date"}},
        )
        def execute(context: ExecutionContext, start, end, execution_time, **kwargs: t.Any) -> pd.DataFrame:
            {statement}
            return pd.DataFrame({{"day": [start.date()]}})
        """
    }


def terminal(events):
    found = [event for event in events if event["kind"] in TERMINAL]
    assert max(Counter(event["model"] for event in found).values(), default=1) == 1
    return {event["model"]: event for event in found}


def of(events, kind):
    return [event for event in events if event["kind"] == kind]


def in_database(tmp_path, *statements):
    with duckdb.connect(str(tmp_path / "db.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("tasks", [1, 4])
@pytest.mark.parametrize("status", ["0", "7"])
def test_a_model_that_exits_in_its_last_batch_has_failed_and_the_run_goes_on(make_warehouse, tasks, status):
    files = {**python_model(f"if start.day == 3: sys.exit({status})"), **OTHER_MODEL}
    result, events = make_warehouse(files, config=config(tasks=tasks)).run()

    assert result.exit_code == 1, result.output
    told = terminal(events)
    assert {fqn: event["kind"] for fqn, event in told.items()} == {
        DAYS: "model_failed",
        OTHER: "model_executed",
    }
    failed = told[DAYS]
    assert (failed["error"]["error_class"], failed["error"]["category"]) == (
        "sqlmesh.utils.errors.PythonModelEvalError",
        "python",
    )
    assert failed["error"]["transient"] is False
    assert f"SystemExit was raised: {status}" in failed["error"]["traceback"]
    assert failed["batches"] == 2
    assert failed["intervals"] == [{"start": "2026-01-01T00:00:00Z", "end": "2026-01-03T00:00:00Z"}]
    assert failed["interval"] == {"start": "2026-01-03T00:00:00Z", "end": "2026-01-04T00:00:00Z"}
    assert (events[-1]["status"], events[-1]["exit_code"]) == ("failed", 1)
    assert events[-1]["error"] is None


def test_a_model_that_exits_is_said_to_have_done_so(make_warehouse):
    _, events = make_warehouse(python_model("sys.exit(0)")).run()

    assert "SystemExit" in terminal(events)[DAYS]["error"]["message"]


def test_what_was_done_before_an_exit_is_not_done_again(make_warehouse):
    warehouse = make_warehouse(python_model("if start.day == 3: sys.exit(0)"))
    warehouse.run()
    _, events = warehouse.run()

    (due,) = of(events, "evaluation_started")[0]["batches"]
    assert [span["start"] for span in due["intervals"]] == ["2026-01-03T00:00:00Z"]
    assert terminal(events)[DAYS]["kind"] == "model_failed"


@pytest.mark.parametrize("status", ["0", "7"])
def test_the_process_of_a_model_that_exits_ends_with_the_status_of_the_runner(make_warehouse, status):
    done = make_warehouse(python_model(f"sys.exit({status})")).spawn("run", "prod")

    assert done.returncode == 1, done.stderr
    assert "FAILED in " in done.stderr


def test_a_model_that_closes_standard_error_silences_it_and_nothing_else(make_warehouse):
    warehouse = make_warehouse({**python_model("sys.stderr.close()"), **OTHER_MODEL})
    path = warehouse.path.parent / "events.jsonl"
    done = warehouse.spawn("run", "prod", "--events", str(path))

    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert done.returncode == 0, done.stderr
    assert {fqn: event["kind"] for fqn, event in terminal(events).items()} == {
        DAYS: "model_executed",
        OTHER: "model_executed",
    }
    assert terminal(events)[DAYS]["batches"] == 3
    assert [event["message"] for event in of(events, "log") if event["level"] == "error"] == []
    assert (events[-1]["kind"], events[-1]["status"]) == ("run_finished", "success")
    assert "runs environment 'prod'" in done.stderr  # what was said before
    assert "Finished in" not in done.stderr


LATER = {
    "models/later.sql": "MODEL (name s.later, kind FULL, start '2999-01-01'); SELECT 1 AS a",
    "models/embedded.sql": "MODEL (name s.embedded, kind EMBEDDED); SELECT 1 AS a",
}


def test_a_statement_after_all_that_fails_leaves_every_model_its_true_outcome(make_warehouse, tmp_path):
    in_database(tmp_path, "CREATE TABLE done AS SELECT 1 AS a")
    warehouse = make_warehouse(
        {**OTHER_MODEL, **LATER}, config=config(more="after_all:\n- SELECT * FROM done\n")
    )
    in_database(tmp_path, "DROP TABLE done")
    result, events = warehouse.run()

    assert result.exit_code == 1, result.output
    told = terminal(events)
    assert told[OTHER]["kind"] == "model_executed"
    assert told['"db"."s"."later"']["reason"] == "cron_not_due"
    assert told['"db"."s"."embedded"']["reason"] == "not_runnable"
    assert (events[-1]["status"], events[-1]["exit_code"]) == ("error", 1)
    assert events[-1]["error"]["category"] == "sql"
    assert "after_all" in events[-1]["error"]["message"]
    assert "Table with name done does not exist" in events[-1]["error"]["message"]


def test_a_statement_before_all_that_fails_interrupts_only_what_was_due(make_warehouse, tmp_path):
    in_database(tmp_path, "CREATE TABLE ready AS SELECT 1 AS a")
    warehouse = make_warehouse(
        {**OTHER_MODEL, **LATER}, config=config(more="before_all:\n- SELECT * FROM ready\n")
    )
    in_database(tmp_path, "DROP TABLE ready")
    _, events = warehouse.run()

    assert {fqn: event["reason"] for fqn, event in terminal(events).items()} == {
        OTHER: "interrupted",
        '"db"."s"."later"': "cron_not_due",
        '"db"."s"."embedded"': "not_runnable",
    }
    assert events[-1]["status"] == "error"


def external_with_audit(make_warehouse, tmp_path, value):
    in_database(tmp_path, "CREATE SCHEMA landing", f"CREATE TABLE landing.payments AS SELECT {value} AS id")
    return make_warehouse(
        {
            "external_models.yaml": """
            - name: db.landing.payments
              columns:
                id: int
              audits:
              - name: not_null
                columns: "(id)"
            """,
            "models/other.sql": "MODEL (name s.other, kind FULL); SELECT id AS a FROM db.landing.payments",
        }
    )


def test_an_external_model_with_audits_has_its_audits_told_and_is_no_model(make_warehouse, tmp_path):
    result, events = external_with_audit(make_warehouse, tmp_path, "1").run()

    assert result.exit_code == 0, result.output
    (audit,) = of(events, "audit_evaluated")
    assert (audit["model"], audit["audit"], audit["passed"]) == (PAYMENTS, "not_null", True)
    for kind in (*TERMINAL, "model_started", "batch_finished"):
        assert {event["model"] for event in of(events, kind)} <= {OTHER}
    assert set(terminal(events)) == {OTHER}
    assert [due["model"] for due in of(events, "evaluation_started")[0]["batches"]] == [OTHER]
    assert [outcome["model"] for outcome in events[-1]["digest"]] == [OTHER]
    assert events[0]["models_selected"] == events[-1]["counts"]["selected"] == 1


def test_an_external_model_whose_audit_fails_holds_back_what_reads_it(make_warehouse, tmp_path):
    result, events = external_with_audit(make_warehouse, tmp_path, "NULL::INT").run()

    assert result.exit_code == 1, result.output
    (audit,) = of(events, "audit_evaluated")
    assert (audit["model"], audit["passed"], audit["failing_rows"]) == (PAYMENTS, False, 1)
    other = terminal(events)[OTHER]
    assert (other["reason"], other["blocked_by"]) == ("upstream_failed", [PAYMENTS])
    assert (events[-1]["status"], events[-1]["exit_code"]) == ("failed", 1)


def test_an_external_model_whose_audit_fails_is_told_as_failed_for_it_holds_back_others(
    make_warehouse, tmp_path
):
    _, events = external_with_audit(make_warehouse, tmp_path, "NULL::INT").run()

    assert set(terminal(events)) == {OTHER, PAYMENTS}
    assert terminal(events)[PAYMENTS]["kind"] == "model_failed"
    assert terminal(events)[PAYMENTS]["error"]["category"] == "audit"


def test_a_standalone_audit_with_a_broken_query_is_no_model_and_fails_the_run(make_warehouse):
    warehouse = make_warehouse(
        {
            **OTHER_MODEL,
            "audits/broken.sql": "AUDIT (name broken, standalone true); SELECT * FROM s.other WHERE nope = 1",
        }
    )
    result, events = warehouse.run()

    assert result.exit_code == 1, result.output
    assert set(terminal(events)) == {OTHER}
    assert terminal(events)[OTHER]["kind"] == "model_executed"
    assert of(events, "audit_evaluated") == []
    (log,) = [event for event in of(events, "log") if event["level"] == "error"]
    assert log["message"].startswith("The standalone audit broken could not be evaluated: Binder Error")
    finished = events[-1]
    assert (finished["status"], finished["exit_code"]) == ("failed", 1)
    assert finished["error"]["message"] == log["message"]
    assert (finished["error"]["error_class"], finished["error"]["category"]) == (
        "duckdb.BinderException",
        "sql",
    )
    assert [outcome["model"] for outcome in finished["digest"]] == [OTHER]
    assert finished["counts"]["failed"] == 0


@pytest.mark.parametrize("command", ["run", "manifest"])
@pytest.mark.parametrize(
    "text",
    [
        "gateways: [",
        "- a\n- list\n",
        "model_defaults:\n  dialect: duckdb\nnonsense: 3\n",
        "model_defaults:\n  dialect: duckdb\ngateways:\n  local:\n    connection:\n      type: nothing\n",
    ],
    ids=["torn", "list", "unknown-key", "unknown-type"],
)
def test_a_configuration_that_cannot_be_read_names_the_project_with_exit_status_2(
    make_warehouse, command, text
):
    warehouse = make_warehouse({}, config=text, plan=False)
    result = warehouse.invoke(command)

    assert result.exit_code == 2, result.output
    assert f"SQLMesh cannot read the configuration of {warehouse.path}: " in result.output
    assert result.output.count("SQLMesh cannot read") == 1
    assert "Traceback" not in result.output


def test_a_configuration_that_cannot_be_read_is_the_error_of_the_run(make_warehouse):
    _, events = make_warehouse({}, config="gateways: [", plan=False).run()

    assert [event["kind"] for event in events] == ["run_finished"]
    assert (events[0]["status"], events[0]["exit_code"]) == ("error", 2)
    assert (events[0]["error"]["category"], events[0]["error"]["traceback"]) == ("config", None)


@pytest.mark.parametrize(
    ("dialect", "expression", "fqn"),
    [
        ("snowflake", "s.other", '"DB"."S"."OTHER"'),
        ("snowflake", "S.OTHER", '"DB"."S"."OTHER"'),
        ("snowflake", "db.s.other", '"DB"."S"."OTHER"'),
        ("snowflake", "+s.other", '"DB"."S"."OTHER"'),
        ("bigquery", "s.other", OTHER),
    ],
)
def test_a_selected_model_is_named_in_the_dialect_of_the_project_and_not_of_the_engine(
    make_warehouse, dialect, expression, fqn
):
    files = {**OTHER_MODEL, "models/more.sql": "MODEL (name s.more, kind FULL); SELECT 1 AS a"}
    result, events = make_warehouse(files, config=config(dialect=dialect)).run("--select-model", expression)

    assert result.exit_code == 0, result.output
    assert {model: event["kind"] for model, event in terminal(events).items()} == {fqn: "model_executed"}
    assert events[0]["selection"] == [expression]


def test_a_model_that_does_not_exist_is_said_so_in_the_dialect_of_the_project(make_warehouse):
    result, _ = make_warehouse(OTHER_MODEL, config=config(dialect="snowflake")).run(
        "--select-model", "s.othr"
    )

    assert result.exit_code == 2
    assert "There is no model 's.othr' in the environment. Did you mean 's.other'?" in result.output
