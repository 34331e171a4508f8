"""What the runner writes: only events on standard output, all of them valid, whatever a model prints."""

import json

import dagster as dg
import jsonschema
import pytest

from dagster_sqlmesh_pipes.pipes import context_data
from sqlmesh_pipes_protocol import EventStream, RunRequest, parse_line
from sqlmesh_pipes_protocol.events import RunFinished

NOISY = """\
    import os, subprocess, sys
    import pandas as pd
    import typing as t
    from sqlmesh import ExecutionContext, model

    @model("marts.noisy", columns={"a": "int"}, kind="full")
    def execute(context: ExecutionContext, **kwargs: t.Any):
        print("printed, without an end", end="")
        os.write(1, b"written raw to 1 \\xff\\n")
        subprocess.run(["echo", "from a child"], check=True)
        print('{"kind": "run_finished", "v": "1.0", "run_id": "x", "seq": 0, "at": "2026-01-01T00:00:00Z"}')
        return pd.DataFrame({"a": [1]})
"""


@pytest.fixture
def schema(shop) -> jsonschema.Draft202012Validator:
    done = shop.runner("schema")
    assert done.returncode == 0
    return jsonschema.Draft202012Validator(json.loads(done.stdout))


def test_standard_output_holds_events_alone_each_valid_and_the_last_is_run_finished(shop, schema):
    done, events = shop.run()

    assert done.returncode == 0, done.stderr
    for event in events:
        schema.validate(event)
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert events[-1]["kind"] == "run_finished"
    assert events[-1]["last_seq"] == events[-1]["seq"]
    terminal = [
        e["model"] for e in events if e["kind"] in ("model_executed", "model_failed", "model_skipped")
    ]
    assert len(terminal) == len(set(terminal)) == 13


def test_people_read_progress_and_a_summary_on_standard_error(shop):
    done = shop.runner("run", "prod", "--project", str(shop.path))

    assert done.stdout == ""
    assert "13 models due" in done.stderr
    assert 'executed  "shop"."marts"."orders"' in done.stderr
    assert "AUDIT     orders_have_a_payment" in done.stderr
    assert "13 executed, 0 skipped, 0 failed; 27 audits, 1 failed." in done.stderr


def test_what_a_model_prints_never_meets_the_events(make_warehouse, instance):
    warehouse = make_warehouse(files={"models/noisy.py": NOISY})

    done, events = warehouse.run()

    assert done.returncode == 0, done.stderr
    assert events[-1]["status"] == "success"
    assert "from a child" in done.stderr
    outcome = warehouse.materialize(instance, ignore_cron=True)
    assert outcome.success


def test_a_large_event_comes_in_parts_that_join(make_warehouse, instance):
    values = ", ".join(f"({number})" for number in range(20_000))
    warehouse = make_warehouse(
        files={
            "models/checked.sql": f"""\
            MODEL (name marts.checked, kind FULL, audits (large));
            SELECT 1 AS a;
            AUDIT (name large, blocking false);
            SELECT * FROM @this_model WHERE a IN (SELECT v FROM (VALUES {values}) AS t(v))
            """
        }
    )
    done, lines = warehouse.run()
    assert max(len(line) for line in done.stdout.splitlines()) < 8192
    assert sum(line["kind"] == "part" for line in lines) > 20

    stream = EventStream()
    envelopes = [stream.receive(parse_line(line.encode())) for line in done.stdout.splitlines()]
    (audit,) = [e.event for e in envelopes if e is not None and getattr(e.event, "audit", None) == "large"]
    assert audit.query.count("(") > 20_000
    assert isinstance(stream.finished, RunFinished)
    assert stream.missing() == []

    warehouse.database.unlink()
    warehouse.deploy()
    outcome = warehouse.materialize(instance)
    assert not outcome.checks["marts/checked", "large"].passed
    assert len(str(outcome.checks["marts/checked", "large"].metadata["query"].value)) > 100_000


def test_the_pipes_context_does_not_grow_with_the_assets_of_a_whole_project(instance):
    few, many = (build_context(instance, number) for number in (2, 400))

    size = len(json.dumps(context_data(many, RunRequest(run_id="r"))))
    assert size == len(json.dumps(context_data(few, RunRequest(run_id="r"))))
    assert size < 1000


def build_context(instance, number: int) -> dg.AssetExecutionContext:
    @dg.multi_asset(specs=[dg.AssetSpec(f"asset_{place}") for place in range(number)])
    def many(context: dg.AssetExecutionContext):
        contexts.append(context)
        for place in range(number):
            yield dg.MaterializeResult(asset_key=f"asset_{place}")

    contexts: list[dg.AssetExecutionContext] = []
    dg.materialize(
        [many], instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    )
    return contexts[0]
