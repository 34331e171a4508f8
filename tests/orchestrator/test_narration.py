"""The lines of a run in Dagster's log."""

import logging

import pytest

from dagster_sqlmesh_pipes import narration
from sqlmesh_pipes_protocol.events import (
    Counts,
    ErrorInfo,
    EvaluationStarted,
    Log,
    ModelFailed,
    ModelStarted,
    RunFinished,
    RunStarted,
    Versions,
)

FQN = '"db"."marts"."orders"'
NOTHING = Counts(
    selected=13, executed=0, failed=0, skipped=13, audits_passed=0, audits_failed=0, audits_skipped=0
)


def failed(category: str, message: str, *audits: str) -> ModelFailed:
    return ModelFailed(
        model=FQN,
        error=ErrorInfo(error_class="x", message=message, category=category, transient=False),
        interval=None,
        failed_audits=audits,
        intervals=(),
        batches=0,
        duration_ms=None,
    )


def finished(status: str) -> RunFinished:
    return RunFinished(status=status, exit_code=0, counts=NOTHING, duration_ms=1, last_seq=1, digest=())


@pytest.mark.parametrize(
    ("event", "level", "line"),
    [
        pytest.param(
            RunStarted(
                environment="prod",
                gateway=None,
                versions=Versions(runner="1", sqlmesh="0.236.4", python="3.12"),
                selection=None,
                models_deployed=13,
                models_selected=2,
                start=None,
                end=None,
                execution_time=None,
                ignore_cron=False,
            ),
            logging.INFO,
            "SQLMesh 0.236.4 runs environment prod: 2 of 13 models selected.",
            id="a run starts",
        ),
        pytest.param(
            EvaluationStarted(attempt=2, batches=()),
            logging.INFO,
            "SQLMesh starts the evaluation again: the environment changed.",
            id="the evaluation starts again",
        ),
        pytest.param(
            failed("sql", "no such column: a"),
            logging.ERROR,
            "db.marts.orders failed: no such column: a",
            id="a model fails",
        ),
        pytest.param(
            failed("audit", "Audits failed: a, b", "a", "b"),
            logging.ERROR,
            "db.marts.orders failed its audits: a, b.",
            id="a model's audits fail",
        ),
        pytest.param(
            Log(
                level="warning",
                logger="sqlmesh",
                message="'not_null' audit error: 2 rows failed. Audit query:\nSELECT *\nFROM t",
            ),
            logging.WARNING,
            "sqlmesh: 'not_null' audit error: 2 rows failed.",
            id="an audit's warning comes without the query, which its check has",
        ),
        pytest.param(
            Log(level="error", logger="sqlmesh", message="one\ntwo"),
            logging.ERROR,
            "sqlmesh: one\ntwo",
            id="other messages are whole",
        ),
        pytest.param(
            finished("nothing_to_do"),
            logging.INFO,
            "SQLMesh had nothing to do: 0 executed, 13 skipped, 0 failed.",
            id="a run ends",
        ),
    ],
)
def test_an_event_is_worth_one_line(event, level, line):
    assert list(narration.lines(event)) == [(level, line)]


@pytest.mark.parametrize(
    "event",
    [
        EvaluationStarted(attempt=1, batches=()),
        ModelStarted(model=FQN, batches=1),
        Log(level="info", logger="sqlmesh", message="Created a table."),
    ],
    ids=lambda event: event.kind,
)
def test_what_checks_materializations_and_standard_error_tell_is_worth_no_line(event):
    assert list(narration.lines(event)) == []


@pytest.mark.parametrize("status", ["success", "nothing_to_do", "failed", "interrupted", "error"])
def test_every_ending_has_a_sentence(status):
    ((level, line),) = narration.lines(finished(status))

    assert (level, line.partition(":")[0].startswith("SQLMesh ")) == (logging.INFO, True)
