"""Dagster's side: how soon a runner is started, how soon a result is seen, what memory it takes, what a tick writes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.definitions import manifest_of
from benchmarks.places import Place, Project, say
from benchmarks.rows import Row
from benchmarks.runs import step, through, tick

LAUNCH_LIMIT_MS = 50.0
LATENCY_LIMITS_MS = {50: 50.0, 95: 200.0}
FAILED_RUNS = 20
"""As many as are looked through."""
EVENTS = 100_000
FLAT_LIMIT_MIB = 20.0
RSS_LIMIT_MIB = 30.0


def measure_launch(place: Place) -> Iterator[Row]:
    models = 20 if place.quick else 5000
    project = Project(manifest_of(place, models).parent, models)
    for selected, failed in ((1, 0), (models, 0), (1, FAILED_RUNS)):
        say(f"starts runners for {selected:,} of {models:,} models")
        # To plan a run of 5,000 assets takes Dagster half a minute.
        launches = 1 if place.quick else 9 if selected == 1 else 3
        taken = step("launch", project, str(selected), str(failed), str(launches))["milliseconds"]
        before = f", after {failed} failed runs" if failed else ""
        yield Row(
            what="launch: asset function entered → runner started",
            size=f"{selected:,} of {models:,} selected{before}",
            value=statistics.median(taken),
            spread=(min(taken), max(taken)),
            unit="ms",
            limit=LAUNCH_LIMIT_MS,
        )


def measure_latency(place: Place) -> Iterator[Row]:
    project = place.project(10 if place.quick else 100)
    say(f"looks how soon results of {project.models:,} models are seen")
    rounds = [through(project) for _ in range(1 if place.quick else 3)]
    for percent, limit in LATENCY_LIMITS_MS.items():
        taken = [each[f"ours_{percent}_ms"] for each in rounds]
        visible = [each[f"visible_{percent}_ms"] for each in rounds]
        yield Row(
            what=f"model finished → visible, without Dagster's writes, p{percent}",
            size=project.size,
            value=statistics.median(taken),
            spread=(min(taken), max(taken)),
            unit="ms",
            limit=limit,
            details={"with Dagster's writes of this and of others": visible},
        )


def measure_memory(place: Place) -> Iterator[Row]:
    events = 2000 if place.quick else EVENTS
    say(f"reads {events:,} events")
    found = step("read", Project(place.folder, 0), str(events))
    yield Row(
        what="memory: events through reader and mapper",
        size=f"{found['events']:,} events",
        value=found["grown_mib"],
        unit="MiB",
        limit=FLAT_LIMIT_MIB,
        details=found,
    )
    project = place.project(10 if place.quick else 1000)
    say(f"looks at the memory of a run of {project.models:,} models")
    dump = project.path / "results.pickle"
    through(project, "--dump", str(dump))
    floor = step("bare", project, str(dump))
    ran = through(project)
    yield Row(
        what="memory: Dagster's process, at most",
        size=project.size,
        against="a bare step",
        value=ran["peak_mib"] - floor["peak_mib"],
        unit="MiB more",
        limit=RSS_LIMIT_MIB,
        details={"bare": floor["peak_mib"], "ours": ran["peak_mib"]},
    )


def measure_tick(place: Place) -> Iterator[Row]:
    project = place.project(10 if place.quick else 100)
    say("evaluates a tick with nothing due")
    found = tick(project)
    yield Row(
        what="a tick with nothing due",
        size=project.size,
        value=found["runs"],
        unit="runs",
        limit=0,
        details=found,
    )
