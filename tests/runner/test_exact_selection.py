"""A run of exactly the models that are named, as Dagster asks for one, with the standalone audits that go with them."""

import io

import pytest

from sqlmesh_pipes_runner.options import RunOptions
from sqlmesh_pipes_runner.progress import Progress, Verbosity
from sqlmesh_pipes_runner.run import Run
from sqlmesh_pipes_runner.writer import EventWriter

FILES = {
    "external_models.yaml": "- name: db.landing.payments\n  columns: {id: int}\n",
    "models/a.sql": "MODEL (name s.a, kind FULL); SELECT 1 AS id",
    "models/b.sql": "MODEL (name s.b, kind FULL); SELECT id FROM s.a",
    "models/part.sql": "MODEL (name s.part, kind EMBEDDED); SELECT id FROM s.a",
    "models/c.sql": "MODEL (name s.c, kind FULL); SELECT 3 AS id",
    "audits/of_a.sql": "AUDIT (name of_a, standalone true); SELECT * FROM s.a WHERE id > 1",
    "audits/of_both.sql": "AUDIT (name of_both, standalone true); SELECT * FROM s.a JOIN s.b USING (id) WHERE id > 1",
    "audits/through.sql": "AUDIT (name through, standalone true); SELECT * FROM s.part WHERE id > 1",
    "audits/of_landing.sql": "AUDIT (name of_landing, standalone true); SELECT 1 FROM db.landing.payments WHERE FALSE",
    "audits/failing.sql": "AUDIT (name failing, standalone true, blocking false); SELECT * FROM s.c",
}


@pytest.fixture
def exactly(make_warehouse, monkeypatch):
    """Run these models of the project above: the events, by kind."""
    warehouse = make_warehouse(FILES)
    monkeypatch.setenv("RUNNER_TEST_DATABASE", str(warehouse.database))

    class Recording(Progress):
        def show(self, event):
            events.append(event)

    events = []

    def run(*names, upstream=False):
        events.clear()
        options = RunOptions(
            projects=(warehouse.path,),
            environment="prod",
            exact_models=tuple(f'"db"."s"."{name}"' for name in names),
            auto_upstream=upstream,
        )
        writer = EventWriter("run-1", None, on_broken=print)
        progress = Recording(Verbosity.QUIET, stream=io.StringIO())
        assert Run(options, writer, progress, grace_seconds=10.0).execute() == 0
        assert events[-1].kind == "run_finished"
        return list(events)

    return run


def executed(events):
    return {event.model.split('"')[-2] for event in events if event.kind == "model_executed"}


def audits(events):
    return {event.audit for event in events if event.kind == "audit_evaluated"}


def test_a_standalone_audit_runs_along_where_all_its_models_do(exactly):
    events = exactly("a", "b")

    assert executed(events) == {"a", "b"}
    assert audits(events) == {"of_a", "of_both", "through"}
    assert events[0].models_selected == 2  # an audit is no model
    assert {outcome.model for outcome in events[-1].digest} == {'"db"."s"."a"', '"db"."s"."b"'}


def test_it_does_not_where_one_of_its_models_is_left_out(exactly):
    assert audits(exactly("a")) == {"of_a", "through"}
    events = exactly("b")
    assert executed(events) == {"b"}
    assert audits(events) == set()


def test_what_is_run_as_upstream_counts_as_selected(exactly):
    events = exactly("b", upstream=True)

    assert executed(events) == {"a", "b"}
    assert audits(events) == {"of_a", "of_both", "through"}


def test_it_has_its_own_turns_and_its_failure_is_told(exactly):
    first = exactly("c")
    (audit,) = [event for event in first if event.kind == "audit_evaluated"]
    again = exactly("c")

    assert (audit.audit, audit.passed, audit.failing_rows, audit.targets) == (
        "failing",
        False,
        1,
        ('"db"."s"."c"',),
    )
    assert (audit.standalone, first[-1].status) == (True, "success")
    assert (audits(again), again[-1].status) == (set(), "nothing_to_do")


def test_a_model_that_is_not_deployed_is_told_so_and_takes_no_audit_along(exactly):
    events = exactly("nowhere")

    (skipped,) = [event for event in events if event.kind == "model_skipped"]
    assert (skipped.model, skipped.reason) == ('"db"."s"."nowhere"', "not_deployed")
    assert audits(events) == set()
