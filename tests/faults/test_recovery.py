"""What SQLMesh did and no event told, because somebody died: Dagster has it all the same."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import (
    RunnerCall,
    SQLMeshProject,
    SQLMeshResource,
    SubprocessLauncher,
    sqlmesh_assets,
)
from dagster_sqlmesh_pipes.launchers import Runner
from support.daemon import finished, kill_step_worker, launched_run
from support.intervals import in_dagster, in_state
from support.processes import processes_of
from support.waiting import wait_for
from support.warehouse import Outcome, Warehouse

DAYS = '"db"."marts"."days"'

DAILY = """
    import os, pathlib, signal, time
    import pandas as pd
    from sqlmesh import model
    from sqlmesh.core.model import ModelKindName

    @model(
        "marts.days",
        kind=dict(name=ModelKindName.INCREMENTAL_BY_TIME_RANGE, time_column="day", batch_size=1, batch_concurrency=1),
        start="2026-01-01",
        end="2026-01-03",
        columns={{"day": "date"}},
        depends_on=["staging.first"],
    )
    def execute(context, start, end, execution_time, **kwargs):
"""
"""The beginning of a model of three daily batches, one after the other."""

KILLED_AFTER_COMMIT = (
    DAILY
    + """
        from sqlmesh.core.state_sync import EngineAdapterStateSync

        commit = EngineAdapterStateSync.add_snapshots_intervals

        def commit_and_die(self, intervals):
            commit(self, intervals)
            if intervals[0].name.endswith('"days"') and not os.path.exists({marker!r}):
                open({marker!r}, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)

        if start.day == {day}:
            EngineAdapterStateSync.add_snapshots_intervals = commit_and_die
        return pd.DataFrame({{"day": [start.date()]}})
"""
)


def days(make_warehouse, tmp_path: Path, *, dies_on: int) -> Warehouse:
    """A model of three daily batches; its runner is killed when SQLMesh has committed the one of a day, once."""
    code = KILLED_AFTER_COMMIT.format(day=dies_on, marker=str(tmp_path / "died"))
    return make_warehouse(
        {"staging.first": "SELECT 1 AS a", "marts.after": "SELECT day FROM marts.days"},
        {"models/days.py": code},
    )


@pytest.mark.parametrize("day", [2, 3])
def test_an_interval_that_was_committed_and_not_told_is_in_dagster(make_warehouse, tmp_path, instance, day):
    warehouse = days(make_warehouse, tmp_path, dies_on=day)
    outcome = warehouse.materialize(instance)

    assert not outcome.success
    assert "was killed by SIGKILL in mid-run. " in outcome.failure
    assert ". Of what it had not reported" in outcome.failure
    assert in_dagster(outcome) == in_state(warehouse)
    assert len(in_state(warehouse)) == 2
    if day == 3:
        assert outcome.status("marts/days") == ("executed", None)
        assert outcome.materialized["marts/days"].metadata["told_by"].value == "SQLMesh's state"
    else:
        assert outcome.status("marts/days") == ("failed", "cancelled")
        assert "marts/days" not in outcome.materialized
    assert outcome.status("marts/after") == ("skipped", "interrupted")


def test_a_retry_does_the_rest_and_tells_nothing_twice(make_warehouse, tmp_path, instance):
    warehouse = days(make_warehouse, tmp_path, dies_on=2)
    assets = warehouse.assets(retry_policy=dg.RetryPolicy(max_retries=1))
    outcome = warehouse.materialize(instance, assets=assets)

    assert outcome.success, outcome.failure
    assert outcome.retried == 1
    assert set(outcome.materialized) == {"staging/first", "marts/days", "marts/after"}
    assert outcome.status("marts/days") == ("executed", None)


def test_where_the_state_cannot_be_asked_the_next_run_asks_it(make_warehouse, tmp_path, instance):
    warehouse = days(make_warehouse, tmp_path, dies_on=3)
    command = [
        "sh",
        "-c",
        f'[ "$1" != reconcile ] || [ -e {tmp_path}/may ] && exec {warehouse.bin}/sqlmesh-runner "$@"; echo away >&2; exit 3',
        "runner",
    ]
    first = warehouse.materialize(instance, launcher=warehouse.launcher(command=command))
    (tmp_path / "may").touch()
    second = warehouse.materialize(instance)

    assert set(first.materialized) == {"staging/first"}
    assert "what it had not reported is unknown. " in first.failure
    assert (
        " What SQLMesh has done without saying so could not be asked of its state, and is asked again later: "
        in first.failure
    )
    assert "away" in first.failure
    assert second.success, second.failure
    assert in_dagster(first, second) == in_state(warehouse)
    assert second.materialized["marts/days"].metadata["told_by"].value == "SQLMesh's state"
    assert second.status("marts/days")[0] == "skipped"  # by this run
    third = warehouse.materialize(instance)
    assert third.materialized == {}


def away(warehouse: Warehouse, condition: str) -> list[str]:
    """A runner's command that does not answer `reconcile` where a shell's condition holds."""
    script = f'[ "$1" = reconcile ] && {condition} && {{ echo away >&2; exit 3; }}; exec {warehouse.bin}/sqlmesh-runner "$@"'
    return ["sh", "-c", script, "runner"]


def test_a_run_of_other_models_tells_what_was_done_of_all(make_warehouse, tmp_path, instance):
    warehouse = days(make_warehouse, tmp_path, dies_on=3)
    first = warehouse.materialize(instance, launcher=warehouse.launcher(command=away(warehouse, "true")))
    after = [key for key in warehouse.assets().keys if key.path[-1] == "after"]
    second = warehouse.materialize(instance, selection=after)

    assert set(second.materialized) == {"marts/days", "marts/after"}
    assert in_dagster(first, second) == in_state(warehouse)


def test_a_retry_that_cannot_ask_at_first_asks_when_its_own_work_is_done(make_warehouse, tmp_path, instance):
    warehouse = days(make_warehouse, tmp_path, dies_on=3)
    count = f"{tmp_path}/asked"
    command = away(warehouse, f"echo >> {count} && [ $(wc -l < {count}) -lt 3 ]")
    outcome = warehouse.materialize(
        instance,
        launcher=warehouse.launcher(command=command),
        assets=warehouse.assets(retry_policy=dg.RetryPolicy(max_retries=1)),
    )

    assert outcome.success, outcome.failure
    assert outcome.retried == 1
    assert in_dagster(outcome) == in_state(warehouse)


def test_what_another_job_did_and_told_in_between_is_not_told_again(make_warehouse, tmp_path, instance):
    warehouse = days(make_warehouse, tmp_path, dies_on=2)
    assets = warehouse.assets()

    def run(job: str, **settings: object) -> Outcome:
        definitions = dg.Definitions(
            [assets],
            jobs=[dg.define_asset_job("one"), dg.define_asset_job("two")],
            resources={"sqlmesh": warehouse.resource(launcher=warehouse.launcher(**settings))},
        )
        done = definitions.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False)
        return Outcome.read(instance, done.run_id)

    first = run("one", command=away(warehouse, "true"))
    second = run("two")
    third = run("one")

    assert set(second.materialized) == {"marts/days", "marts/after"}  # the days that were left
    assert set(third.materialized) == {"marts/days"}  # those that were done and not told
    assert in_dagster(first, third)['"db"."marts"."days"'] == [(1767225600000, 1767398400000)]
    assert in_dagster(first, second, third) == in_state(warehouse)


def test_what_was_compacted_before_somebody_asked_is_told_all_the_same(make_warehouse, tmp_path, instance):
    warehouse = days(make_warehouse, tmp_path, dies_on=3)
    first = warehouse.materialize(instance, launcher=warehouse.launcher(command=away(warehouse, "true")))
    by_hand = warehouse.runner("run", "prod", "--project", str(warehouse.path))  # its janitor compacts
    second = warehouse.materialize(instance)

    assert by_hand.returncode == 0, by_hand.stderr
    assert in_dagster(first, second) == in_state(warehouse)


def test_a_run_whose_sqlmesh_succeeded_is_not_asked_about_whatever_became_of_it(make_warehouse, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"})
    assets = warehouse.assets()

    @dg.asset(deps=list(assets.keys))
    def fails():
        raise ValueError("not SQLMesh's doing")

    def run() -> list[str]:
        resources = {"sqlmesh": warehouse.resource()}
        done = dg.materialize([assets, fails], instance=instance, resources=resources, raise_on_error=False)
        return [entry.message for entry in instance.all_logs(done.run_id)]

    run()
    assert not [message for message in run() if "earlier attempt" in message]


def test_messages_that_nobody_could_read_are_made_good_from_the_state(make_warehouse, tmp_path, instance):
    class Deaf(dg.PipesMessageReader):
        @contextmanager
        def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[dict[str, str]]:
            yield {"path": str(tmp_path / "messages")}

        def no_messages_debug_text(self) -> str:
            return "Nobody read."

    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"})

    @sqlmesh_assets(project=SQLMeshProject(warehouse.path), name="warehouse")
    def assets(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
        yield from sqlmesh.run(context, message_reader=Deaf())

    outcome = warehouse.materialize(instance, assets=assets)

    assert not outcome.success
    assert "Nobody read." in outcome.failure
    assert in_dagster(outcome) == in_state(warehouse)


class ReadToTheEnd(Runner):
    """A runner whose end is known when all of its output is read, as a pod's is."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._is_read = runner, False

    def output(self) -> Iterator[bytes]:
        yield from self._runner.output()
        self._is_read = True

    def exit_code(self) -> int | None:
        return self._runner.exit_code() if self._is_read else None

    def terminate(self) -> None:
        self._runner.terminate()

    def kill(self) -> None:
        self._runner.kill()

    def close(self, *, succeeded: bool) -> None:
        self._runner.close(succeeded=succeeded)

    def describe(self) -> str:
        return self._runner.describe()

    def last_words(self) -> str:
        return self._runner.last_words()


class InterruptedLauncher(SubprocessLauncher):
    """Dagster is told to end while it starts a runner."""

    def launch(self, call: RunnerCall) -> Runner:
        runner = super().launch(call)
        os.kill(os.getpid(), signal.SIGINT)
        return ReadToTheEnd(runner)


@pytest.mark.timeout(120)
def test_an_interrupt_while_a_runner_is_started_ends_it(make_warehouse, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"})
    launcher = warehouse.launcher()

    launcher = InterruptedLauncher(command=launcher.command, env=launcher.env, grace_period_seconds=3)
    outcome = warehouse.materialize(instance, launcher=launcher)

    assert not outcome.success
    assert outcome.status("staging/first") == ("skipped", "interrupted")
    assert in_state(warehouse) == {}


SLOW = (
    DAILY
    + """
        pathlib.Path({started!r}).touch()
        time.sleep(2)
        return pd.DataFrame({{"day": [start.date()]}})
"""
)


@pytest.mark.parametrize("retries", [1, 0])
def test_what_a_runner_did_after_its_step_worker_was_killed_is_in_dagster(make_warehouse, tmp_path, retries):
    started = tmp_path / "started"
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS a", "marts.after": "SELECT day FROM marts.days"},
        {"models/days.py": SLOW.format(started=str(started))},
    )
    with launched_run(warehouse, tmp_path / "home", warehouse.launcher(), retries=retries) as instance:
        wait_for(started.exists)
        kill_step_worker(instance)
        wait_for(lambda: finished(instance), seconds=180)
        (run,) = instance.get_runs()
        outcomes = [Outcome.read(instance, run.run_id)]
        if not retries:
            assert not outcomes[0].success
            wait_for(lambda: not [c for c in processes_of(tmp_path).values() if "sqlmesh-runner" in c])
            assert in_dagster(*outcomes) != in_state(warehouse)
            again = (
                dg.Definitions(
                    [warehouse.assets()],
                    jobs=[dg.define_asset_job("everything")],
                    resources={"sqlmesh": warehouse.resource()},
                )
                .get_job_def("everything")
                .execute_in_process(instance=instance)
            )
            outcomes.append(Outcome.read(instance, again.run_id))

    assert outcomes[-1].success, outcomes[-1].failure
    assert in_dagster(*outcomes) == in_state(warehouse)


SILENT = """
    import os, pathlib, signal
    import pandas as pd
    from sqlmesh import model

    @model("marts.silent", columns={"a": "int"}, kind="FULL", depends_on=["staging.first"])
    def execute(context, start, end, execution_time, **kwargs):
        os.kill(os.getpid(), signal.SIGSTOP)
        return pd.DataFrame({"a": [1]})
"""


def test_a_runner_that_is_silent_is_told_of_and_ended(make_warehouse, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, {"models/silent.py": SILENT})
    launcher = warehouse.launcher(silence_timeout_seconds=8, grace_period_seconds=1)
    outcome = warehouse.materialize(instance, launcher=launcher)

    assert set(outcome.materialized) == {"staging/first"}
    assert "was not heard for 8 s, not even a heartbeat, and was ended in mid-run." in outcome.failure
    assert outcome.status("marts/silent") == ("failed", "cancelled")
    (told,) = [line for line in outcome.log if "has not been heard" in line]
    assert "It is ended after 8 s." in told


def test_a_runner_that_is_heard_again_goes_on(make_warehouse, instance, tmp_path):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, {"models/silent.py": SILENT})
    outcome: list[Outcome] = []
    launcher = warehouse.launcher(silence_timeout_seconds=12)
    thread = threading.Thread(
        target=lambda: outcome.append(warehouse.materialize(instance, launcher=launcher))
    )
    thread.start()
    (run,) = wait_until(lambda: instance.get_runs())
    wait_until(lambda: [one for one in Outcome.read(instance, run.run_id).log if "has not been heard" in one])
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = str(tmp_path).encode() in (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if is_ours and state == "T":
            os.kill(int(process.name), signal.SIGCONT)
    thread.join(timeout=60)

    assert outcome[0].success, outcome[0].failure
    assert "The runner is heard again." in outcome[0].log


def wait_until(condition):
    wait_for(condition)
    return condition()
