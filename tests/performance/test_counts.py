"""What speed comes down to, in numbers that are the same on every machine: queries, events, calls, bytes, imports. Never times."""

import gc
import json
import re
import sys
import textwrap
import weakref
from pathlib import Path

import dagster as dg
import pytest
from benchmarks import definitions, protocol
from benchmarks.places import LOADED, Project, call
from benchmarks.runs import step, through, tick

from dagster_sqlmesh_pipes.mapping import ResultMapper
from dagster_sqlmesh_pipes.specs import SpecIndex
from sqlmesh_pipes_protocol.events import AuditEvaluated
from sqlmesh_pipes_protocol.manifest import read_manifest

SMALL, LARGE = 8, 40
"""Models: what grows with a project is seen in the difference."""


@pytest.fixture(scope="module")
def counted(place) -> dict[tuple[str, int], dict]:
    """A run through Dagster, and bare Dagster with the same results, of a small project and of a larger one."""
    found = {}
    for models in (SMALL, LARGE):
        project = place.project(models)
        dump = project.path / "results.pickle"
        found["ours", models] = through(project, "--dump", str(dump))
        found["bare", models] = step("bare", project, str(dump))
    return found


def a_model(counted: dict[tuple[str, int], dict], side: str, what: str) -> float:
    """How many more of something a run has for each model more."""
    return (counted[side, LARGE][what] - counted[side, SMALL][what]) / (LARGE - SMALL)


def test_a_model_costs_as_many_storage_queries_as_dagster_needs_for_the_same_results(counted):
    assert a_model(counted, "bare", "statements") == pytest.approx(
        a_model(counted, "ours", "statements"), abs=0.5
    )


def test_beside_its_results_a_run_sends_the_same_few_queries_whatever_the_size_of_the_project(counted):
    extra = {n: counted["ours", n]["statements"] - counted["bare", n]["statements"] for n in (SMALL, LARGE)}

    assert max(extra.values()) <= 15


def test_beside_its_results_a_run_writes_four_lines_to_the_event_log(counted):
    # Who was started, which SQLMesh on which environment, how many models are due, how it ended.
    extra = {n: counted["ours", n]["log_entries"] - counted["bare", n]["log_entries"] for n in (SMALL, LARGE)}

    assert extra == {SMALL: 4, LARGE: 4}


def test_recording_a_result_takes_as_many_calls_in_a_large_project_as_in_a_small_one(place):
    calls = []
    for models in (SMALL, LARGE):
        project = place.project(models)
        project.renew()
        calls.append(step("calls", project)["calls"])

    assert calls[1] == pytest.approx(calls[0], rel=0.015)


def test_a_launch_asks_twice_whatever_is_selected_and_once_for_each_failed_run_before(place):
    models = 40
    project = Project(definitions.manifest_of(place, models).parent, models)

    statements = [
        step("launch", project, str(selected), str(failed), "1")["statements"]
        for selected, failed in ((1, 0), (models, 0), (1, 3))
    ]

    assert statements == [[2], [2], [2 + 3]]


def test_a_tick_with_nothing_due_asks_once_and_starts_no_run(place):
    found = tick(place.project(SMALL))

    assert (found["runs"], found["statements"]) == (0, 1), found["says"]


def test_a_code_location_imports_dagster_this_package_and_nothing_else(place):
    manifest = definitions.manifest_of(place, SMALL)
    modules = "\nprint(json.dumps(sorted(sys.modules)))"
    loaded = {
        name: set(
            json.loads(
                call(
                    [sys.executable, "-c", textwrap.dedent(program) + LOADED + modules, manifest],
                    manifest.parent,
                ).splitlines()[-1]
            )
        )
        for name, program in (("bare", definitions.BARE), ("ours", definitions.OURS))
    }

    more = loaded["ours"] - loaded["bare"]
    packages = {name.partition(".")[0] for name in more} - sys.stdlib_module_names

    assert packages == {"dagster_sqlmesh_pipes", "sqlmesh_pipes_protocol"}
    assert len(more) <= 90


def test_a_model_takes_seven_events_or_less_of_little_more_than_half_a_kilobyte(place):
    project = place.project(LARGE)
    project.renew()
    project.runner("--quiet")
    lines = (project.path / "events.jsonl").read_bytes().splitlines()

    assert project.status() == "success"
    assert len(lines) <= 7 * LARGE + 10  # how long it takes decides on the number of heartbeats
    assert sum(map(len, lines)) / len(lines) <= 800


def test_a_model_takes_six_kilobytes_in_the_manifest(place):
    size = {n: definitions.manifest_of(place, n).stat().st_size for n in (SMALL, LARGE)}

    assert (size[LARGE] - size[SMALL]) / (LARGE - SMALL) <= 6_000


def test_queries_of_audits_are_not_kept_when_their_model_is_over():
    events = [envelope.event for envelope in protocol.mix(20)]
    key = dg.AssetKey("model")
    index = SpecIndex(keys={event.model: key for event in events if hasattr(event, "model")}, checks={})
    mapper = ResultMapper(index, {key}, ())
    audits = [weakref.ref(event) for event in events if isinstance(event, AuditEvaluated)]
    for event in events[:-1]:  # but for the digest
        list(mapper.results(event))

    del events, event
    gc.collect()

    assert audits
    assert [ref() for ref in audits if ref() is not None] == []


def test_a_project_made_for_benchmarks_is_what_its_manifest_says(place):
    """One description, two things made of it: what SQLMesh says of the project is what the manifest without SQLMesh says."""
    of_sqlmesh = read_manifest((place.project(SMALL).path / "sqlmesh_manifest.json").read_bytes())
    without = read_manifest(definitions.manifest_of(place, SMALL).read_bytes())

    def told(model) -> tuple:
        docs = [(column.name, column.type, column.description) for column in model.columns]
        audits = [(audit.audit, audit.name, audit.blocking) for audit in model.audits]
        return (
            model.fqn,
            model.kind,
            model.cron,
            sorted(model.tags),
            model.owner,
            docs,
            audits,
            sorted(model.depends_on),
        )

    assert sorted(map(told, of_sqlmesh.models)) == sorted(map(told, without.models))
    assert [each.fqn for each in of_sqlmesh.external_models] == [each.fqn for each in without.external_models]


def test_kept_results_name_no_folder_of_a_machine():
    results = Path(__file__).parents[2] / "benchmarks" / "results"

    for path in results.glob("*"):
        assert not re.search("/(home|root|tmp|work|opt)/", path.read_text())
