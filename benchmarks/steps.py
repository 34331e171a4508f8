"""A Dagster run in a process of its own, with SQLite storage; what it took, as JSON on the last line. ``python -m benchmarks.steps KIND PROJECT``

    through  PROJECT [--dump FILE]   all of a project, by the runner; its results are kept for a bare step
    calls    PROJECT                 the same, and how many functions Python calls to record each of its results
    bare     PROJECT FILE            bare Dagster assets and checks, which yield kept results
    launch   PROJECT SELECTED FAILED LAUNCHES   from the asset function to the start of a runner, so many assets selected, so many times,
                                     after so many runs that failed
    read     PROJECT EVENTS          the events of one run, so many or some more, through the reader and the mapper; no project is read
    tick     PROJECT                 all of a project, and then a tick of its schedule

Annotations are not postponed: Dagster reads those of asset functions.
"""

import bisect
import ctypes
import gc
import pickle
import re
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import sqlalchemy

_OF_THE_SCHEMA = re.compile("alembic_version|sqlite_master")


def through(project_dir: Path, dump: Path | None = None, *, counts_calls: bool = False) -> dict[str, Any]:
    from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, sqlmesh_assets

    project = SQLMeshProject(project_dir)
    launcher = _launcher()
    kept: list[dict[str, Any]] = []
    control: list[tuple[float, float]] = []
    """When Dagster was given a result, and when it had recorded it."""
    yielded: list[tuple[str, float, float]] = []
    calls: list[int] = []
    called = [0]

    def count(frame: Any, event: str, argument: object) -> None:
        called[0] += event in ("call", "c_call")

    @sqlmesh_assets(project=project, name="warehouse")
    def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
        for result in sqlmesh.run(context):
            given, before = time.time(), called[0]
            sys.setprofile(count if counts_calls else None)
            yield result
            sys.setprofile(None)
            control.append((given, time.time()))
            if isinstance(result, dg.MaterializeResult):
                yielded.append((str((result.metadata or {})["sqlmesh/model"]), *control[-1]))
                calls.append(called[0] - before)
                if dump is not None:
                    kept.append(_in_words(result))

    found = _run([warehouse], {"sqlmesh": SQLMeshResource(project, launcher=launcher)})
    if dump is not None:
        specs = [(spec.key, [dep.asset_key for dep in spec.deps]) for spec in warehouse.specs]
        checks = [(check.asset_key, check.name) for check in warehouse.check_specs]
        with dump.open("wb") as file:
            pickle.dump((specs, checks), file)
            for result in kept:
                pickle.dump(result, file)
    if counts_calls:
        found["calls"] = statistics.median(calls)
    return {**found, **(_latencies(launcher.finished(), yielded, control) if len(yielded) > 1 else {})}


def _in_words(result: dg.MaterializeResult[Any]) -> dict[str, Any]:
    """What makes the same result again; Dagster's own classes cannot be pickled."""
    checks = [check._asdict() for check in result.check_results or ()]
    return {
        "asset_key": result.asset_key,
        "metadata": result.metadata,
        "data_version": result.data_version,
        "check_results": checks,
    }


def bare(dump: Path) -> dict[str, Any]:
    with dump.open("rb") as file:
        specs, checks = pickle.load(file)

        @dg.multi_asset(
            specs=[dg.AssetSpec(key, deps=deps, skippable=True) for key, deps in specs],
            check_specs=[dg.AssetCheckSpec(name, asset=key) for key, name in checks],
            can_subset=True,
        )
        def warehouse():
            yield from _kept(file)

        return _run([warehouse], {})


def _kept(file: Any) -> Iterator[dg.MaterializeResult[Any]]:
    while True:
        try:
            result = pickle.load(file)
        except EOFError:
            return
        checks = [dg.AssetCheckResult(**check) for check in result.pop("check_results")]
        yield dg.MaterializeResult(**result, check_results=checks)


def launch(project_dir: Path, selected: int, failed: int, launches: int) -> dict[str, Any]:
    """Each launch is of a Dagster run of its own, the first one unmeasured: in it Dagster imports what it had not yet.

    Before them the job has failed so often, each time without starting a runner, which is the most to look through.
    """
    from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, SubprocessLauncher, sqlmesh_assets

    class Starting(SubprocessLauncher):
        """Starts a process that ends at once, by the launcher's own way."""

        def launch(self, call: Any) -> Any:
            runner = super().launch(call)
            started.append((time.perf_counter(), sum(sent.values())))
            return runner

    started: list[tuple[float, int]] = []
    taken: list[float] = []
    asked: list[int] = []
    failures = [failed]
    project = SQLMeshProject(project_dir)

    @sqlmesh_assets(project=project, name="warehouse")
    def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
        if failures[0]:
            raise RuntimeError("as it was meant to")
        entered, before = time.perf_counter(), sum(sent.values())
        try:
            yield from sqlmesh.run(context)
        except dg.Failure:  # it ended without a word, as it was meant to
            taken.append(started[-1][0] - entered)
            asked.append(started[-1][1] - before)

    resources = {"sqlmesh": SQLMeshResource(project, launcher=Starting(command=["true"]))}
    keys = [spec.key for spec in warehouse.specs]

    def run(instance: dg.DagsterInstance, count: int) -> None:
        selection = dg.AssetSelection.assets(*keys[:count]).without_checks()
        dg.materialize(
            [warehouse], instance=instance, resources=resources, selection=selection, raise_on_error=False
        )

    with (
        tempfile.TemporaryDirectory() as folder,
        dg.DagsterInstance.local_temp(folder) as instance,
        statements() as sent,
    ):
        while failures[0]:
            run(instance, 1)
            failures[0] -= 1
        for count in [1, *[selected] * launches]:
            run(instance, count)
    return {"milliseconds": [round(each * 1000, 2) for each in taken[1:]], "statements": asked[1:]}


def read(events: int) -> dict[str, Any]:
    """How much the process grows from when it has read what is due, the largest event, to after the last: of 1,000 models, in batches."""
    from benchmarks import protocol
    from dagster_sqlmesh_pipes.mapping import ResultMapper
    from dagster_sqlmesh_pipes.pipes import Payload, RunnerMessageHandler, RunnerOutputReader
    from dagster_sqlmesh_pipes.specs import SpecIndex
    from dagster_sqlmesh_pipes.testing import lines
    from sqlmesh_pipes_protocol.framing import EventStream
    from sqlmesh_pipes_protocol.told import RunTold

    sizes: list[float] = []
    """After the second event, after each tenth of them, and after the last."""
    counts = {"events": 0, "results": 0}
    run = protocol.events(protocol.MODELS_A_RUN, events // protocol.MODELS_A_RUN // 4 + 2)
    models, audits = protocol.models(protocol.MODELS_A_RUN), [name for name, *_ in protocol.AUDITS]

    @dg.multi_asset(specs=[dg.AssetSpec("reader", skippable=True)], can_subset=True)
    def reader(context: dg.AssetExecutionContext):
        output = RunnerOutputReader()
        handler = RunnerMessageHandler(context, output)
        stream, told = EventStream(), RunTold(protocol.RUN_ID)
        keys = {fqn: dg.AssetKey(fqn.replace('"', "").split(".")) for fqn in models}
        index = SpecIndex(keys=keys, checks={(fqn, name): name for fqn in models for name in audits})
        checks = [dg.AssetCheckKey(key, name) for key in keys.values() for name in audits]
        mapper = ResultMapper(index, set(keys.values()), checks)
        with output.read_messages(handler):
            for line in lines((each.event for each in run), protocol.RUN_ID):
                output.feed(line)
                while not handler.items.empty():
                    item = handler.items.get()
                    envelope = stream.receive(item.value) if isinstance(item, Payload) else None
                    if envelope is None:
                        continue
                    told.take(envelope)
                    counts["results"] += sum(1 for _ in mapper.results(envelope.event))
                    counts["events"] += 1
                    if counts["events"] == 2 or counts["events"] % (events // 10) == 0:
                        sizes.append(_resident_mib())
            sizes.append(_resident_mib())
        yield from ()

    _run([reader], {})
    return {**counts, "grown_mib": round(max(sizes) - sizes[0], 1), "mib": sizes}


def tick(project_dir: Path) -> dict[str, Any]:
    from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshResource, sqlmesh_assets
    from dagster_sqlmesh_pipes.schedules import build_sqlmesh_schedule

    project = SQLMeshProject(project_dir)

    @sqlmesh_assets(project=project, name="warehouse")
    def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
        yield from sqlmesh.run(context)

    resource_ = SQLMeshResource(project, launcher=_launcher())
    job = dg.define_asset_job("job", selection=[warehouse])
    schedule = build_sqlmesh_schedule([warehouse], resource_, job=job)
    found = {}

    def look(instance: dg.DagsterInstance) -> None:
        before = time.perf_counter()
        with dg.build_schedule_context(instance=instance) as context, statements() as sent:
            data = schedule.evaluate_tick(context)
        found["seconds"] = time.perf_counter() - before
        found["statements"] = sum(sent.values())
        found["runs"] = len(data.run_requests or ())
        found["says"] = data.skip_message

    _run([warehouse], {"sqlmesh": resource_}, then=look)
    return found


def _launcher() -> Any:
    from benchmarks.places import RUNNER_BIN  # not for all: a bare step is to have nothing of ours
    from dagster_sqlmesh_pipes import SubprocessLauncher
    from dagster_sqlmesh_pipes.launchers import Runner, RunnerCall
    from dagster_sqlmesh_pipes.pipes import parse_message
    from sqlmesh_pipes_protocol.codec import moment_of

    class Listening(SubprocessLauncher):
        """Keeps a copy of what its runner writes: when it says that a model is done stands there."""

        def launch(self, call: RunnerCall) -> Runner:
            runner = super().launch(call)
            output = runner.output

            def copied() -> Iterator[bytes]:
                for chunk in output():
                    written.append(chunk)
                    yield chunk

            runner.output = copied  # type: ignore[method-assign]  # of this one runner
            return runner

        def finished(self) -> dict[str, float]:
            """When each model was done, by the runner's word, in seconds since the epoch."""
            messages = filter(None, map(parse_message, b"".join(written).splitlines()))
            events = [(message["params"] or {}).get("payload") for message in messages]
            return {
                event["model"]: moment_of(event["at"]).timestamp()
                for event in events
                if isinstance(event, dict) and event["kind"] == "model_executed"
            }

    written: list[bytes] = []
    return Listening(command=[str(RUNNER_BIN / "sqlmesh-runner")])


@contextmanager
def statements() -> Iterator[Counter[str]]:
    """Counts queries and writes that are sent to databases meanwhile, by their first word. What makes a database is none of them."""
    sent: Counter[str] = Counter()

    def count(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        verb = statement.split(maxsplit=1)[0].upper()
        if verb in ("SELECT", "INSERT", "UPDATE", "DELETE") and not _OF_THE_SCHEMA.search(statement):
            sent[verb] += 1

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", count)
    try:
        yield sent
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", count)


def _resident_mib() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free is not to hide what grows
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)


def _run(
    assets: list[Any],
    resources: dict[str, Any],
    selection: Any = None,
    then: Callable[[dg.DagsterInstance], None] = lambda instance: None,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        with statements() as sent:
            started = time.perf_counter()
            result = dg.materialize(assets, instance=instance, resources=resources, selection=selection)
            taken = time.perf_counter() - started
        events = result.all_events
        then(instance)
        return {
            "seconds": taken,
            "statements": sum(sent.values()),
            "log_entries": len(instance.all_logs(result.run_id)),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "materialized": sum(event.is_step_materialization for event in events),
            "checks": sum(event.event_type_value == "ASSET_CHECK_EVALUATION" for event in events),
        }


def _latencies(
    finished: dict[str, float], yielded: list[tuple[str, float, float]], control: list[tuple[float, float]]
) -> dict[str, Any]:
    """Percentiles in milliseconds, over models, from their last event to Dagster.

    ``ours`` is what is beyond Dagster's own writes: the time until a result is given to Dagster, without that in which Dagster was
    recording others. ``visible`` is all of it.
    """
    ends = [end for _, end in control]
    ours: list[float] = []
    visible: list[float] = []
    for model, given, recorded in yielded:
        done = finished[model]
        first = bisect.bisect_right(ends, done)
        busy = sum(
            max(min(end, given) - max(begin, done), 0.0) for begin, end in control[first:] if begin < given
        )
        ours.append((given - done - busy) * 1000)
        visible.append((recorded - done) * 1000)
    return {
        f"{name}_{percent}_ms": round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 2)
        for name, values in (("ours", ours), ("visible", visible))
        for percent in (50, 95)
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["through", path]:
            said = through(Path(path))
        case ["through", path, "--dump", file]:
            said = through(Path(path), Path(file))
        case ["calls", path]:
            said = through(Path(path), counts_calls=True)
        case ["bare", _, file]:
            said = bare(Path(file))
        case ["launch", path, count, failed, launches]:
            said = launch(Path(path), int(count), int(failed), int(launches))
        case ["read", _, count]:
            said = read(int(count))
        case ["tick", path]:
            said = tick(Path(path))
        case _:
            sys.exit(__doc__)
    print(orjson.dumps(said).decode())
