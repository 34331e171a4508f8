"""How long a run takes: the runner against plain ``sqlmesh run``, and a run through Dagster against the sum of its two parts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from benchmarks.places import Place, Project, call, interleaved, say
from benchmarks.rows import Row

_ROUNDS = {10: 7, 100: 5, 500: 3}
_ROUNDS_WITHOUT_WORK = 9
_ROUNDS_THROUGH_DAGSTER = {10: 5, 100: 3, 500: 2}
RUNNER_LIMIT = 1.03
IDLE_LIMIT = 1.0
DAGSTER_LIMIT = 1.05


def measure_runner(place: Place) -> Iterator[Row]:
    for models in (10,) if place.quick else _ROUNDS:
        project = place.project(models)
        say(f"runs {models:,} models by the runner and by plain SQLMesh")
        rounds = interleaved(
            1 if place.quick else _ROUNDS[models],
            {
                "sqlmesh": partial(_with_work, project, "sqlmesh"),
                "runner": partial(_with_work, project, "runner"),
            },
        )
        yield rounds.row(
            what="run with work, the runner",
            size=project.size,
            against="sqlmesh run",
            of=["runner"],
            to=["sqlmesh"],
            limit=RUNNER_LIMIT,
        )


def measure_idle(place: Place) -> Iterator[Row]:
    for models in (10,) if place.quick else _ROUNDS:
        project = place.project(models)
        say(f"runs {models:,} models of which none is due")
        project.renew()
        project.runner()
        idle = Idle(project)
        rounds = interleaved(
            1 if place.quick else _ROUNDS_WITHOUT_WORK,
            {"sqlmesh": partial(idle.taken, "sqlmesh"), "runner": partial(idle.taken, "runner")},
        )
        yield rounds.row(
            what="run with nothing due, the runner",
            size=project.size,
            against="sqlmesh run",
            of=["runner"],
            to=["sqlmesh"],
            limit=IDLE_LIMIT,
        )


def measure_through_dagster(place: Place) -> Iterator[Row]:
    for models in (10,) if place.quick else _ROUNDS_THROUGH_DAGSTER:
        project = place.project(models)
        dump = project.path / "results.pickle"
        say(f"runs {models:,} models through Dagster")
        through(project, "--dump", str(dump))
        rounds = interleaved(
            1 if place.quick else _ROUNDS_THROUGH_DAGSTER[models],
            {
                "sqlmesh": partial(_with_work, project, "sqlmesh"),
                "bare step": partial(_step_seconds, "bare", project, str(dump)),
                "through Dagster": partial(_through_seconds, project),
            },
        )
        yield rounds.row(
            what="run with work, through Dagster",
            size=project.size,
            against="sqlmesh run + a step with the same results",
            of=["through Dagster"],
            to=["sqlmesh", "bare step"],
            limit=DAGSTER_LIMIT,
        )


def through(project: Project, *arguments: str) -> dict[str, Any]:
    """Run all that is due through Dagster, in a process of its own; raises `RuntimeError` where a model is not materialized."""
    project.renew()
    found = step("through", project, *arguments)
    if found["materialized"] != project.models:
        raise RuntimeError(f"{project.size} were to be materialized, and {found['materialized']} were")
    return found


def step(kind: str, project: Project, *arguments: str) -> dict[str, Any]:
    """What `benchmarks.steps` says of a kind of step."""
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.steps", kind, project.path, *arguments]
    said: dict[str, Any] = orjson.loads(call(command, project.path).splitlines()[-1])
    return said


def _step_seconds(kind: str, project: Project, *arguments: str) -> float:
    return float(step(kind, project, *arguments)["seconds"])


def _through_seconds(project: Project) -> float:
    return float(through(project)["seconds"])


def _with_work(project: Project, side: str) -> float:
    project.renew()
    return _taken(project, side, "success")


class Idle:
    """A project of which nothing is due, until the next cron elapses: none does but at a full or half hour."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._since = _half_hours()

    def taken(self, side: str) -> float:
        """Seconds of a run with nothing to do. A run for which a cron has elapsed does its work, and does not count."""
        while True:
            begun = _half_hours()
            taken = _taken(self._project, side)
            was_idle = side == "sqlmesh" or self._project.status() == "nothing_to_do"
            if begun == self._since == _half_hours() and was_idle:
                return taken
            self._since = begun


def tick(project: Project) -> dict[str, Any]:
    """A tick after a run, both in one half hour: no cron has elapsed between them."""
    while True:
        begun = _half_hours()
        project.renew()
        found = step("tick", project)
        if begun == _half_hours():
            return found


def _half_hours() -> int:
    return int(time.time() // 1800)


def _taken(project: Project, side: str, status: str | None = None) -> float:
    if side == "sqlmesh":
        return project.sqlmesh()
    taken = project.runner("--quiet")
    if status is not None and project.status() != status:
        raise RuntimeError(f"the runner was to end in {status}, and its run is {project.status()}")
    return taken
