"""Object stores between the runner and Dagster, and runners that Dagster's stock Pipes clients start.

Annotations are not postponed: Dagster reads those of asset functions.
"""

import inspect
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
from dagster._core.pipes.utils import open_pipes_session
from dagster_aws.pipes import (
    PipesS3ContextInjector,
    PipesS3MessageReader,
)
from dagster_docker import PipesDockerClient
from dagster_pipes import encode_param
from moto.server import ThreadedMotoServer

from dagster_sqlmesh_pipes import (
    LaunchError,
    PipesClientLauncher,
    RunnerCall,
    SQLMeshProject,
    SQLMeshResource,
    sqlmesh_assets,
)
from support.engine import DockerEngine
from support.waiting import WAITS, wait_for
from support.warehouse import Outcome, Warehouse

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}
THREE_OUTCOMES = {
    "staging.first": "SELECT 1 AS id",
    "staging.broken": "SELECT CAST('no number' AS INT) AS id",
    "staging.waiting": "SELECT id FROM staging.broken",
}
FIRST = dg.AssetKey(["db", "staging", "first"])


@dataclass
class Bucket:
    """A bucket of an S3 server on this host."""

    endpoint: str
    name: str
    client: Any

    @property
    def env(self) -> dict[str, str]:
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint}

    def reader(self, **settings: Any) -> PipesS3MessageReader:
        return PipesS3MessageReader(**{"bucket": self.name, "client": self.client, "interval": 1, **settings})

    def injector(self) -> PipesS3ContextInjector:
        return PipesS3ContextInjector(bucket=self.name, client=self.client)

    def objects(self) -> dict[str, str]:
        """What is in it, by key."""
        listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {
            item["Key"]: self.client.get_object(Bucket=self.name, Key=item["Key"])["Body"].read().decode()
            for item in listed
        }

    def messages(self, prefix: str) -> list[dict]:
        """The Pipes messages below a prefix, in their order."""
        numbered = {
            int(Path(key).stem): text for key, text in self.objects().items() if key.startswith(prefix + "/")
        }
        assert sorted(numbered) == list(range(1, len(numbered) + 1))
        return [json.loads(line) for number in sorted(numbered) for line in numbered[number].split("\n")]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, tmp_path: Path) -> Bucket:
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
        region_name="us-east-1",
    )
    name = f"bucket-{abs(hash(tmp_path))}"
    client.create_bucket(Bucket=name)
    return Bucket(s3_server, name, client)


@pytest.fixture
def started(tmp_path: Path) -> Path:
    return tmp_path / "started"


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return tmp_path / "released"


@pytest.fixture
def make_waiting(make_warehouse: Callable[..., Warehouse], started: Path, released: Path):
    """A first model, one that waits for a file to appear, and one after it."""

    def make(**env: str) -> Warehouse:
        return make_warehouse(
            {"staging.first": "SELECT 1 AS a", "marts.after": "SELECT a FROM marts.waits"},
            {"models/waits.py": WAITS.format(started=str(started), released=str(released))},
            **env,
        )

    return make


def assets_through(
    warehouse: Warehouse,
    reader: dg.PipesMessageReader | None,
    injector: dg.PipesContextInjector | None = None,
) -> dg.AssetsDefinition:
    @sqlmesh_assets(project=SQLMeshProject(warehouse.path), name="warehouse")
    def warehouse_assets(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
        yield from sqlmesh.run(context, message_reader=reader, context_injector=injector)

    return warehouse_assets


def in_background(materialize: Callable[[], Outcome]) -> tuple[threading.Thread, list[Outcome]]:
    outcome: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcome.append(materialize()))
    thread.start()
    return thread, outcome


def runners(warehouse: Warehouse) -> list[int]:
    """Processes of the runner, of whatever parent, that run the project."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "sqlmesh-runner\0run\0" in command and str(warehouse.path) in command:
                found.append(int(entry.name))
    return found


# Object stores.


def test_what_ran_what_was_skipped_and_what_failed_arrive_through_s3(make_warehouse, bucket, instance):
    warehouse = make_warehouse(THREE_OUTCOMES, **bucket.env)
    assets = assets_through(warehouse, bucket.reader(), bucket.injector())

    outcome = warehouse.materialize(instance, assets=assets)

    assert not outcome.success
    assert "Could not convert string 'no number'" in outcome.failure
    assert set(outcome.materialized) == {"staging/first"}
    assert outcome.status("staging/broken")[0] == "failed"
    assert outcome.status("staging/waiting") == ("skipped", "upstream_failed")
    assert not [key for key in bucket.objects() if key.endswith("context.json")]


def test_a_part_of_a_project_is_asked_for_through_s3(make_warehouse, bucket, instance):
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS id", "staging.second": "SELECT id FROM staging.first"}, **bucket.env
    )
    assets = assets_through(warehouse, bucket.reader(), bucket.injector())

    outcome = warehouse.materialize(instance, assets=assets, selection=dg.AssetSelection.assets(FIRST))

    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == {"staging/first"}


class FolderReader(dg.PipesBlobStoreMessageReader):
    """A user's own: of a folder that both sides see."""

    def __init__(self, folder: Path) -> None:
        super().__init__(interval=0)
        self._folder = folder

    @contextmanager
    def get_params(self) -> Iterator[Mapping[str, Any]]:
        self._folder.mkdir()
        yield {"path": str(self._folder)}

    def messages_are_readable(self, params: Mapping[str, Any]) -> bool:
        return True

    def download_messages_chunk(self, index: int, params: Mapping[str, Any]) -> str | None:
        file = self._folder / f"{index}.json"
        return file.read_text() if file.exists() else None

    def no_messages_debug_text(self) -> str:
        return "Attempted to read messages from a folder."


def test_a_reader_of_the_user_s_own_is_told_to_the_runner_by_a_variable(make_warehouse, instance, tmp_path):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"}, SQLMESH_RUNNER_PIPES="volumes")
    assets = assets_through(warehouse, FolderReader(tmp_path / "messages"))

    outcome = warehouse.materialize(instance, assets=assets)

    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == {"staging/first"}


def test_one_reader_serves_one_run_after_the_other(make_warehouse, bucket, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"}, **bucket.env)
    assets = assets_through(warehouse, bucket.reader())

    first = warehouse.materialize(instance, assets=assets)
    second = warehouse.materialize(instance, assets=assets)

    assert set(first.materialized) == {"staging/first"}
    assert second.success, second.failure
    assert second.status("staging/first") == ("skipped", "cron_not_due")


def test_an_event_of_300_kb_arrives_whole_through_s3(make_warehouse, bucket, instance):
    large = "x" * 300_000
    warehouse = make_warehouse(
        files={
            "models/first.sql": f"MODEL (name staging.first, kind FULL, audits (large));\nSELECT 1 AS id;\n"
            f"AUDIT (name large);\nSELECT * FROM @this_model WHERE id::TEXT = '{large}'"
        },
        **bucket.env,
    )
    assets = assets_through(warehouse, bucket.reader())

    outcome = warehouse.materialize(instance, assets=assets)

    assert outcome.success, outcome.failure
    query = str(outcome.checks["staging/first", "large"].metadata["query"].value)
    assert large in query


def test_results_come_through_s3_while_the_run_goes_on(make_waiting, bucket, instance, started, released):
    warehouse = make_waiting(**bucket.env)
    assets = assets_through(warehouse, bucket.reader())
    thread, outcome = in_background(lambda: warehouse.materialize(instance, assets=assets))
    try:
        wait_for(started.exists)
        wait_for(lambda: instance.get_latest_materialization_event(FIRST) is not None)
        assert thread.is_alive()
    finally:
        released.touch()
        thread.join(timeout=60)

    assert set(outcome[0].materialized) == {"staging/first", "marts/waits", "marts/after"}


def test_a_runner_that_is_killed_loses_nothing_that_it_had_uploaded(make_waiting, bucket, instance, started):
    warehouse = make_waiting(**bucket.env)
    assets = assets_through(warehouse, bucket.reader())
    thread, outcome = in_background(lambda: warehouse.materialize(instance, assets=assets))
    wait_for(started.exists)
    time.sleep(1.5)  # an upload is on its way within a second
    (runner,) = runners(warehouse)
    os.kill(runner, signal.SIGKILL)
    thread.join(timeout=60)

    assert "was killed by SIGKILL in mid-run" in outcome[0].failure
    assert set(outcome[0].materialized) == {"staging/first"}


def pipes_environment(warehouse: Warehouse, messages: Mapping[str, Any], **request: Any) -> dict[str, str]:
    """As a launcher hands over."""
    context = {
        "asset_keys": None,
        "run_id": "r",
        "extras": {"sqlmesh_pipes": {"run_id": "r-1", "models": None, "include_upstream": False, "v": "1.0"}},
    }
    return {
        **warehouse.environ,
        "DAGSTER_PIPES_CONTEXT": encode_param({"data": context}),
        "DAGSTER_PIPES_MESSAGES": encode_param(messages),
    }


def start_runner(warehouse: Warehouse, env: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(warehouse.bin / "sqlmesh-runner"), "run", "prod", "-p", str(warehouse.path), *arguments],
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_runner_that_is_told_to_end_uploads_its_last_word(make_waiting, bucket, started, released):
    warehouse = make_waiting(**bucket.env)
    env = pipes_environment(warehouse, {"bucket": bucket.name, "key_prefix": "m"})
    runner = start_runner(warehouse, env, "--pipes", "s3")
    wait_for(started.exists)
    runner.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    released.touch()
    _, errors = runner.communicate(timeout=60)

    assert runner.returncode == 0, errors
    sent = bucket.messages("m")
    assert [sent[0]["method"], sent[-1]["method"]] == ["opened", "closed"]
    events = [message["params"]["payload"] for message in sent[1:-1]]
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert (events[-1]["kind"], events[-1]["status"]) == ("run_finished", "interrupted")


def test_a_runner_that_is_out_of_time_uploads_its_last_word_too(make_waiting, bucket, started):
    warehouse = make_waiting(**bucket.env)
    env = pipes_environment(warehouse, {"bucket": bucket.name, "key_prefix": "m"})
    runner = start_runner(warehouse, env, "--pipes", "s3", "--grace-period", "1")
    wait_for(started.exists)
    runner.send_signal(signal.SIGTERM)
    runner.communicate(timeout=60)

    events = [message["params"]["payload"] for message in bucket.messages("m")[1:]]
    assert (events[-1]["kind"], events[-1]["status"]) == ("run_finished", "interrupted")


def test_what_is_printed_comes_through_s3_where_the_reader_asks_for_it(
    make_warehouse, bucket, instance, capfd
):
    prints = """
        import pandas as pd
        from sqlmesh import model
        @model("staging.prints", columns={"id": "int"}, kind="FULL")
        def execute(context, **kwargs):
            print("a word of a model")
            return pd.DataFrame({"id": [1]})
    """
    warehouse = make_warehouse(files={"models/prints.py": prints}, **bucket.env)
    reader = bucket.reader(include_stdio_in_messages=True)

    outcome = warehouse.materialize(instance, assets=assets_through(warehouse, reader))

    assert outcome.success, outcome.failure
    assert "a word of a model" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("stores", "messages", "status", "words"),
    [
        ([], {"bucket": "b"}, 2, "it is not said of which store. Give one of --pipes s3, gcs, azure"),
        (
            ["gcs"],
            {"bucket": "b"},
            2,
            "Install it in the runner's environment: pip install google-cloud-storage",
        ),
        (["s3"], {"bucket": "no-such-bucket"}, 3, "cannot be written to s3://no-such-bucket/m: NoSuchBucket"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_in_a_sentence(
    make_warehouse, bucket, stores, messages, status, words
):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"}, deploy=False, **bucket.env)
    env = pipes_environment(warehouse, {**messages, "key_prefix": "m"})
    runner = start_runner(warehouse, env, *(word for store in stores for word in ("--pipes", store)))
    _, errors = runner.communicate(timeout=60)

    assert runner.returncode == status
    assert words in errors
    assert "Traceback" not in errors


def test_a_bucket_that_does_not_exist_fails_the_step_with_its_cause(make_warehouse, bucket, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"}, **bucket.env)
    reader = bucket.reader(bucket="no-such-bucket")

    outcome = warehouse.materialize(instance, assets=assets_through(warehouse, reader))

    assert not outcome.success
    assert "Attempted to read messages from S3 bucket no-such-bucket" in outcome.failure
    assert "Messages to Dagster cannot be written to s3://no-such-bucket/" in outcome.failure


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        (None, "ok", "messages go to s3://"),
        ("no-such-bucket", "not_ok", "cannot be written to s3://no-such-bucket"),
    ],
)
def test_the_doctor_looks_at_the_bucket(make_warehouse, bucket, name, status, words):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"}, **bucket.env)
    env = pipes_environment(warehouse, {"bucket": name or bucket.name, "key_prefix": "m"})
    done = warehouse.runner(
        *("doctor", "prod", "--project", str(warehouse.path), "--format", "json"),
        env={**env, "SQLMESH_RUNNER_PIPES": "s3"},
    )

    (check,) = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "pipes"]
    assert check["status"] == status
    assert words in check["found"]
    assert bucket.objects() == {}


# Stock clients.


def subprocess_launcher(warehouse: Warehouse, **settings: Any) -> PipesClientLauncher:
    env = {"TEST_DATABASE": str(warehouse.database), **warehouse.env}
    defaults: dict[str, Any] = {
        "client": dg.PipesSubprocessClient(env=env),
        "command": [str(warehouse.bin / "sqlmesh-runner")],
        "arguments": lambda command: {"command": command},
    }
    return PipesClientLauncher(**{**defaults, **settings})


def test_a_stock_client_gives_all_three_outcomes(make_warehouse, instance):
    warehouse = make_warehouse(THREE_OUTCOMES)

    outcome = warehouse.materialize(instance, launcher=subprocess_launcher(warehouse))

    assert not outcome.success
    assert set(outcome.materialized) == {"staging/first"}
    assert outcome.status("staging/broken")[0] == "failed"
    assert outcome.status("staging/waiting") == ("skipped", "upstream_failed")
    assert not [line for line in outcome.log if "did not receive" in line]


def test_a_stock_client_is_asked_for_a_part_of_a_project(make_warehouse, instance):
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS id", "staging.second": "SELECT id FROM staging.first"}
    )

    outcome = warehouse.materialize(
        instance, launcher=subprocess_launcher(warehouse), selection=dg.AssetSelection.assets(FIRST)
    )

    assert set(outcome.materialized) == {"staging/first"}


class RememberingInjector(dg.PipesTempFileContextInjector):
    """Keeps what it injects."""

    @contextmanager
    def inject_context(self, context: Any) -> Iterator[Any]:
        self.injected = context
        with super().inject_context(context) as params:
            yield params


def test_a_client_s_session_asks_nothing_of_the_event_log_for_each_asset(make_warehouse, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"})
    injector = RememberingInjector()
    env = {"TEST_DATABASE": str(warehouse.database)}
    client = dg.PipesSubprocessClient(env=env, context_injector=injector)

    outcome = warehouse.materialize(instance, launcher=subprocess_launcher(warehouse, client=client))

    assert outcome.success, outcome.failure
    assert injector.injected["asset_keys"] is None
    assert injector.injected["provenance_by_asset_key"] is None
    assert injector.injected["extras"]["sqlmesh_pipes"]["models"] is None


def test_results_of_a_stock_client_come_while_it_runs(make_waiting, instance, started, released):
    warehouse = make_waiting()
    thread, outcome = in_background(
        lambda: warehouse.materialize(instance, launcher=subprocess_launcher(warehouse))
    )
    try:
        wait_for(started.exists)
        wait_for(lambda: instance.get_latest_materialization_event(FIRST) is not None)
        assert runners(warehouse)
    finally:
        released.touch()
        thread.join(timeout=60)

    assert set(outcome[0].materialized) == {"staging/first", "marts/waits", "marts/after"}


def test_a_stock_client_with_a_reader_and_an_injector_of_s3(make_warehouse, bucket, instance):
    warehouse = make_warehouse(THREE_OUTCOMES, **bucket.env)
    env = {"TEST_DATABASE": str(warehouse.database), **warehouse.env}
    client = dg.PipesSubprocessClient(
        env=env, message_reader=bucket.reader(), context_injector=bucket.injector()
    )

    outcome = warehouse.materialize(instance, launcher=subprocess_launcher(warehouse, client=client))

    assert set(outcome.materialized) == {"staging/first"}
    assert outcome.status("staging/waiting") == ("skipped", "upstream_failed")


def test_a_client_whose_task_is_killed_keeps_what_it_had_reported(make_waiting, instance, started):
    warehouse = make_waiting()
    thread, outcome = in_background(
        lambda: warehouse.materialize(instance, launcher=subprocess_launcher(warehouse))
    )
    wait_for(started.exists)
    (runner,) = runners(warehouse)
    os.kill(runner, signal.SIGKILL)
    thread.join(timeout=60)

    assert set(outcome[0].materialized) == {"staging/first"}
    assert "The runner (PipesSubprocessClient) ended in mid-run" in outcome[0].failure
    assert "External execution process failed with code -9" in outcome[0].failure


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"command": ["/no/such/program"]}, "did not start. PipesSubprocessClient raised FileNotFoundError"),
        (
            {"arguments": lambda command: {"task": command}},
            "PipesSubprocessClient.run does not take what PipesClientLauncher's arguments give: TypeError",
        ),
        ({"arguments": lambda command: {"command": command["x"]}}, "arguments give: TypeError"),
        ({"command": ["false"]}, "did not start. PipesSubprocessClient raised DagsterPipesExecutionError"),
    ],
)
def test_a_client_that_fails_is_told_in_its_own_words(make_warehouse, instance, settings, words):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"})

    outcome = warehouse.materialize(instance, launcher=subprocess_launcher(warehouse, **settings))

    assert not outcome.success
    assert words in outcome.failure
    assert outcome.materialized == {}


def test_a_reader_belongs_to_the_client(make_warehouse, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"})
    assets = assets_through(warehouse, dg.PipesTempFileMessageReader())

    outcome = warehouse.materialize(instance, assets=assets, launcher=subprocess_launcher(warehouse))

    assert "give them to the client, not to SQLMeshResource.run" in outcome.failure


class PollingClient(dg.PipesClient):
    """As the clients of services do: asks now and then whether the task is over, and ends it when it is interrupted."""

    def __init__(self, env: Mapping[str, str], *, stubborn: bool = False) -> None:
        self.message_reader = dg.PipesTempFileMessageReader()
        self._env = env
        self._stubborn = stubborn

    def run(self, *, context: Any, extras: Any = None, command: list[str]) -> Any:
        with open_pipes_session(
            context, dg.PipesTempFileContextInjector(), self.message_reader, extras
        ) as session:
            task: list[subprocess.Popen] = []
            env = {**os.environ, **self._env, **session.get_bootstrap_env_vars()}
            # Not a child of this thread: as if it were elsewhere.
            thread = threading.Thread(target=lambda: task.append(subprocess.Popen(command, env=env)))
            thread.start()
            thread.join()
            try:
                while task[0].poll() is None:
                    time.sleep(0.5)
            except dg.DagsterExecutionInterruptedError:
                while self._stubborn:
                    time.sleep(0.5)
                task[0].terminate()
                task[0].wait(timeout=30)
                raise


WORKER = """\
import os
import dagster as dg
from dagster_sqlmesh_pipes import PipesClientLauncher, SQLMeshProject, SQLMeshResource, sqlmesh_assets
{imports}

project = SQLMeshProject({project!r})

@sqlmesh_assets(project=project)
def warehouse(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
    yield from sqlmesh.run(context)

launcher = PipesClientLauncher(
    client={client}, command={command!r}, arguments={arguments}, grace_period_seconds={grace}, stop_timeout_seconds=5
)
resource = SQLMeshResource(project, launcher=launcher, **{resource!r})
defs = dg.Definitions([warehouse], resources={{"sqlmesh": resource}})
with dg.DagsterInstance.local_temp({home!r}) as instance:
    defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, raise_on_error=False)
"""


@dataclass
class Worker:
    """A process that materializes the project in Dagster, as a run worker does."""

    process: subprocess.Popen
    home: Path

    def ended(self) -> Outcome:
        """What the event log of its only run holds."""
        self.process.wait(timeout=90)
        with dg.DagsterInstance.local_temp(str(self.home)) as instance:
            (run,) = instance.get_runs()
            return Outcome.read(instance, run.run_id)


@pytest.fixture
def start_worker(tmp_path: Path):
    workers: list[subprocess.Popen] = []

    def start(
        warehouse: Warehouse,
        client: str,
        *,
        imports: str = "",
        command: list[str] | None = None,
        arguments: str = "lambda command: {'command': command}",
        grace: float = 8,
        resource: Mapping[str, Any] | None = None,
    ) -> Worker:
        home = tmp_path / "home"
        home.mkdir()
        script = tmp_path / "worker.py"
        script.write_text(
            WORKER.format(
                imports=textwrap.dedent(imports),
                project=str(warehouse.path),
                client=client,
                command=command or [str(warehouse.bin / "sqlmesh-runner")],
                arguments=arguments,
                grace=grace,
                resource=dict(resource or {}),
                home=str(home),
            )
        )
        folders = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
        process = subprocess.Popen(
            [sys.executable, str(script)], env={**warehouse.environ, "PYTHONPATH": folders}
        )
        workers.append(process)
        return Worker(process, home)

    yield start
    for worker in workers:
        worker.kill()
        worker.wait(timeout=10)


POLLING = "from test_other_engines import PollingClient"


@pytest.mark.parametrize(
    ("client", "imports"),
    [("dg.PipesSubprocessClient()", ""), ("PollingClient(os.environ)", POLLING)],
    ids=["a process of its own", "a task elsewhere"],
)
def test_cancelling_ends_what_a_client_started_and_keeps_what_was_done(
    make_waiting, start_worker, started, released, client, imports
):
    warehouse = make_waiting()
    worker = start_worker(warehouse, client, imports=imports)
    wait_for(started.exists)
    worker.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    released.touch()
    outcome = worker.ended()

    assert runners(warehouse) == []
    assert not outcome.success
    assert set(outcome.materialized) == {"staging/first", "marts/waits"}
    assert outcome.status("marts/after") == ("skipped", "interrupted")


def test_a_process_of_a_client_that_does_not_end_is_killed_after_the_grace_period(
    make_waiting, start_worker, started
):
    warehouse = make_waiting()
    deaf = "import os, signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); subprocess.call(sys.argv[1:])"
    worker = start_worker(
        warehouse,
        "dg.PipesSubprocessClient()",
        command=[sys.executable, "-c", deaf, str(warehouse.bin / "sqlmesh-runner")],
        grace=2,
    )
    wait_for(started.exists)
    worker.process.send_signal(signal.SIGTERM)
    outcome = worker.ended()

    assert runners(warehouse) == []
    assert set(outcome.materialized) == {"staging/first"}


def test_a_client_that_cannot_be_ended_is_left_alone_and_the_step_fails(
    make_waiting, start_worker, started, released
):
    warehouse = make_waiting()
    worker = start_worker(warehouse, "PollingClient(os.environ, stubborn=True)", imports=POLLING, grace=2)
    wait_for(started.exists)
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    outcome = worker.ended()
    released.touch()  # its runner goes on: nobody could end it

    assert time.monotonic() - began < 45
    assert not outcome.success
    assert set(outcome.materialized) == {"staging/first"}
    wait_for(lambda: runners(warehouse) == [])


def call_of(warehouse: Warehouse | None = None) -> RunnerCall:
    return RunnerCall(arguments=["run", "prod"], env={}, project_dir=Path("/"))


def test_a_question_needs_another_launcher(make_warehouse):
    launcher = PipesClientLauncher(
        client=dg.PipesSubprocessClient(), arguments=lambda command: {"command": command}
    )

    with pytest.raises(LaunchError, match="use another launcher"):
        launcher.launch(call_of())


@pytest.mark.xdist_group("docker")
@pytest.mark.timeout(1500)
def test_a_stock_client_in_a_container(make_warehouse, docker_engine: DockerEngine, instance, monkeypatch):
    if docker_engine.host is not None:
        monkeypatch.setenv("DOCKER_HOST", docker_engine.host)
    warehouse = make_warehouse(THREE_OUTCOMES)
    folder = str(warehouse.path.parent)
    launcher = PipesClientLauncher(
        client=PipesDockerClient(env={"TEST_DATABASE": str(warehouse.database)}),
        arguments=lambda command: {
            "image": docker_engine.image,
            "command": command,
            "container_kwargs": {
                "volumes": [f"{folder}:{folder}"],
                "user": "0",
                "network_mode": "none",
                "auto_remove": True,
            },
        },
    )

    outcome = warehouse.materialize(instance, launcher=launcher)

    assert set(outcome.materialized) == {"staging/first"}
    assert outcome.status("staging/broken")[0] == "failed"
    assert outcome.status("staging/waiting") == ("skipped", "upstream_failed")


GUIDE = (Path(__file__).parents[2] / "docs/other-engines.md").read_text()
BLOCKS = [block.partition("```")[0] for block in GUIDE.split("```python\n")[1:]]


@pytest.mark.parametrize(
    "client", ["PipesECSClient", "PipesEMRServerlessClient", "PipesGlueClient", "PipesDatabricksClient"]
)
def test_the_guide_s_launchers_fit_their_clients(client, monkeypatch):
    if client == "PipesDatabricksClient":
        pytest.importorskip("dagster_databricks")
        monkeypatch.setenv("DATABRICKS_HOST", "https://localhost")
        monkeypatch.setenv("DATABRICKS_TOKEN", "tests")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    (block,) = [block for block in BLOCKS if f"client={client}(" in block]
    names: dict[str, Any] = {}

    exec(block, names)

    launcher = names["launcher"]
    keywords = launcher.arguments(["sqlmesh-runner", "run", "prod"])
    assert type(launcher.client).__name__ == client
    inspect.signature(launcher.client.run).bind(context=None, extras={}, **keywords)
    assert "prod" in repr(keywords)


def test_the_guide_s_script_for_glue_hands_everything_on(make_warehouse, tmp_path):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS id"})
    messages = tmp_path / "messages"
    handed_over = pipes_environment(warehouse, {"path": str(messages)})
    (block,) = [block for block in BLOCKS if "shlex" in block]
    script = tmp_path / "glue.py"
    script.write_text(block)
    given = {
        "--sqlmesh-runner": f"run prod --project {warehouse.path}",
        "--dagster-pipes-context": handed_over["DAGSTER_PIPES_CONTEXT"],
        "--dagster-pipes-messages": handed_over["DAGSTER_PIPES_MESSAGES"],
    }
    done = subprocess.run(
        [str(warehouse.bin / "python"), str(script), *(word for pair in given.items() for word in pair)],
        env=warehouse.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    sent = [json.loads(line) for line in messages.read_text().splitlines() if line]
    assert (sent[-2]["params"]["payload"]["status"], sent[-1]["method"]) == ("success", "closed")


@pytest.mark.xdist_group("docker")
@pytest.mark.timeout(1500)
def test_cancelling_stops_the_container_of_a_stock_client(
    make_waiting, docker_engine: DockerEngine, start_worker, started, monkeypatch
):
    if docker_engine.host is not None:
        monkeypatch.setenv("DOCKER_HOST", docker_engine.host)
    warehouse = make_waiting()
    folder = str(warehouse.path.parent)
    settings = {"volumes": [f"{folder}:{folder}"], "user": "0", "network_mode": "none", "auto_remove": True}
    worker = start_worker(
        warehouse,
        f"PipesDockerClient(env={{'TEST_DATABASE': {str(warehouse.database)!r}}})",
        imports="from dagster_docker import PipesDockerClient",
        command=["sqlmesh-runner"],
        arguments=f"lambda command: {{'image': {docker_engine.image!r}, 'command': command, 'container_kwargs': {settings!r}}}",
        grace=30,
    )
    wait_for(started.exists)
    time.sleep(2)  # what the first model reported is on its way
    worker.process.send_signal(signal.SIGTERM)
    outcome = worker.ended()

    assert runners(warehouse) == []
    assert not outcome.success
    assert set(outcome.materialized) == {"staging/first"}
