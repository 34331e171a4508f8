"""A runner of one release under an orchestrator of another: of the same protocol major they work, else they refuse each other."""

from __future__ import annotations

import dagster as dg
import orjson
import pytest

from dagster_sqlmesh_pipes import ManifestError, SQLMeshProject
from sqlmesh_pipes_protocol import PROTOCOL_VERSION
from sqlmesh_pipes_protocol.codec import EVENT_TYPES, decode
from sqlmesh_pipes_protocol.due import read_due_report
from sqlmesh_pipes_protocol.events import UnknownEvent
from sqlmesh_pipes_protocol.manifest import DEFAULT_MANIFEST_NAME, load_manifest

MODELS = {"staging.one": "SELECT 1 AS a", "marts.wrong": "SELECT CAST('x' AS INT) AS a FROM staging.one"}
BELOW = "MODEL (name marts.below, kind FULL); SELECT a FROM marts.wrong"
AUDITED = """
    MODEL (name marts.audited, kind FULL, audits (not_null(columns := (a)), not_null(columns := (b), blocking := false)));
    SELECT a, NULL::INT AS b FROM staging.one
    """
FILES = {"models/below.sql": BELOW, "models/audited.sql": AUDITED}


def is_newer(theirs: str) -> bool:
    return int(theirs.partition(".")[2]) > int(PROTOCOL_VERSION.partition(".")[2])


def test_dagster_has_every_outcome_of_a_runner_of_another_minor(other_minor, make_warehouse, instance):
    outcome = make_warehouse(MODELS, FILES).materialize(instance)

    assert not outcome.success
    assert set(outcome.materialized) == {"staging/one", "marts/audited"}
    assert {
        key: outcome.status(key) for key, name in outcome.checks if name == "sqlmesh_execution_status"
    } == {
        "staging/one": ("executed", None),
        "marts/audited": ("executed", None),
        "marts/wrong": ("failed", "sql"),
        "marts/below": ("skipped", "upstream_failed"),
    }
    audits = {
        check.passed for (key, name), check in outcome.checks.items() if name != "sqlmesh_execution_status"
    }
    assert audits == {True, False}


def test_a_part_of_the_models_is_asked_of_a_runner_of_another_minor(other_minor, shop, instance):
    outcome = shop.materialize(
        instance, selection=dg.AssetSelection.assets(["shop", "staging", "stg_orders"])
    )

    assert (outcome.success, list(outcome.materialized)) == (True, ["staging/stg_orders"])


def test_what_a_manifest_of_another_minor_adds_is_passed_over(other_minor, shop):
    path = shop.path / DEFAULT_MANIFEST_NAME
    written = orjson.loads(path.read_bytes())
    manifest = load_manifest(path)

    assert manifest.v == written["v"] == other_minor
    assert {model.fqn for model in manifest.models} == {model["fqn"] for model in written["models"]}
    added = {key for model in written["models"] for key in model if not hasattr(manifest.models[0], key)}
    assert added == ({"said_since_1_1"} if is_newer(other_minor) else set())


def test_what_a_stream_of_another_minor_adds_is_passed_over(other_minor, make_warehouse):
    done, lines = make_warehouse({"staging.one": "SELECT 1 AS a"}).run()
    envelopes = [decode(orjson.dumps(line)) for line in lines]

    assert done.returncode == 0, done.stderr
    assert {envelope.v for envelope in envelopes} == {other_minor}
    unknown = {each.event.kind for each in envelopes if isinstance(each.event, UnknownEvent)}
    assert unknown == ({"run_welcomed"} if is_newer(other_minor) else set())
    assert {each.event.kind for each in envelopes} - unknown <= EVENT_TYPES.keys()
    started = next(each.event for each in envelopes if each.event.kind == "run_started")
    # A newer reader has the default for what an older writer does not say.
    assert hasattr(started, "said_since_1_1") == (not is_newer(other_minor))


def test_what_is_due_is_asked_of_a_runner_of_another_minor(other_minor, shop):
    done = shop.runner("due", "prod", "--project", str(shop.path), "--format", "json")

    assert done.returncode == 0, done.stderr
    report = read_due_report(done.stdout.encode())
    assert report.v == other_minor
    assert any(model.intervals for model in report.models)


def refusal(subject: str, theirs: str) -> str:
    return (
        f"the {subject} speaks protocol {theirs}, this side speaks {PROTOCOL_VERSION}: "
        "install releases of dagster-sqlmesh-pipes with the same protocol major on both sides"
    )


def test_a_manifest_of_another_major_is_refused_with_both_versions(other_major, make_warehouse):
    warehouse = make_warehouse({"staging.one": "SELECT 1 AS a"})

    with pytest.raises(ManifestError) as caught:
        SQLMeshProject(warehouse.path).manifest  # noqa: B018 - it is read then

    assert refusal("manifest", other_major) in str(caught.value)
    assert "Write it with: sqlmesh-runner manifest" in str(caught.value)


def test_a_run_with_a_runner_of_another_major_is_refused_with_both_versions(
    other_major, make_warehouse, instance
):
    warehouse = make_warehouse({"staging.one": "SELECT 1 AS a"})
    path = warehouse.path / DEFAULT_MANIFEST_NAME
    # As where it is written by one image, and the runs are done by another.
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "v": PROTOCOL_VERSION}))

    outcome = warehouse.materialize(instance)

    assert not outcome.success
    assert outcome.materialized == {}
    said = f"the orchestrator speaks protocol {PROTOCOL_VERSION}, this side speaks {other_major}"
    assert said in outcome.failure or refusal("event stream", other_major) in outcome.failure
