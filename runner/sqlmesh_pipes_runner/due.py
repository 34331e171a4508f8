"""What a run would do now: asked of SQLMesh's state, and shown to people."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlmesh_pipes_protocol.due import DueReport, ModelDue
from sqlmesh_pipes_protocol.events import Timestamp
from sqlmesh_pipes_runner.adapter import DueContext
from sqlmesh_pipes_runner.answers import answer
from sqlmesh_pipes_runner.options import RunOptions


def due_report(options: RunOptions) -> DueReport:
    """What a run with these options would find missing. Nothing is written, neither data nor state.

    Raises:
        UsageError: a project, its gateway, the environment or a model does not exist, or a time is none.
        NoAnswerError: the state is out of reach, or not one that this SQLMesh can read.
    """

    def ask(configs: Mapping[Path, Any]) -> DueReport:
        # As `sqlmesh run` does: with one project nothing is loaded, models come from the state.
        with closing(DueContext(options, configs, load=len(options.projects) > 1)) as context:
            return context.due()

    return answer(options, ask, otherwise="what is due cannot be told")


def table(report: DueReport) -> str:
    """The report for people, times in UTC. What is due stands first."""
    due = [model for model in report.models if model.intervals]
    rest = [model for model in report.models if not model.intervals]
    lines = [
        f"{len(due)} of {len(report.models)} models due in {report.environment!r} at {_shown(report.execution_time)} UTC."
    ]
    rows = [("MODEL", "DUE", "NEXT"), *map(_row, due), *map(_row, rest)]
    first, second = (max(len(row[place]) for row in rows) for place in (0, 1))
    if report.models:
        lines += ["", *(f"{a:<{first}}  {b:<{second}}  {c}" for a, b, c in rows)]
    return "\n".join(lines) + "\n"


def _row(model: ModelDue) -> tuple[str, str, str]:
    spans = model.intervals
    missing = f"{_shown(spans[0].start)} to {_shown(spans[-1].end)}" if spans else "-"
    if len(spans) > 1:
        missing += f", {len(spans)} intervals"
    return model.model, missing, _shown(model.next_due) if model.next_due else "never"


def _shown(moment: Timestamp) -> str:
    """To the second, and midnight as the day alone."""
    day, _, time = moment.removesuffix("Z").partition("T")
    time = time.partition(".")[0]
    return day if time == "00:00:00" else f"{day} {time}"
