"""Starting a runner by a stock Pipes client of Dagster's: on ECS, on Databricks, on EMR, wherever there is a client for.

A client runs to its end in one call, and gives its results afterwards. Here it runs in a thread of its own, and each message that its
reader brings goes on at once. Read against Dagster 1.13.27; only public names are used.

Annotations are not postponed here: Dagster reads them when the class is made.
"""

import contextvars
import ctypes
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import dagster as dg
from dagster_pipes import PipesContextData, PipesMessage, PipesParams
from pydantic import Field

from dagster_sqlmesh_pipes import readers
from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.launcher import Launcher, Runner, RunnerCall, Verdict

T = TypeVar("T")

_POLL_SECONDS = 0.05
_OWN_FAULTS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ImportError,
    NotImplementedError,
    FileNotFoundError,
    PermissionError,
    dg.DagsterInvariantViolationError,
)
"""What is raised for a mistake in the code or its settings: trying again does not help."""


class PipesClientLauncher(Launcher):
    """Starts the runner by a Pipes client of Dagster's: ``PipesECSClient``, ``PipesDatabricksClient`` …

    .. code-block:: python

        PipesClientLauncher(
            client=PipesECSClient(message_reader=reader),
            arguments=lambda command: {
                "run_task_params": {
                    "taskDefinition": "sqlmesh-runner",
                    "overrides": {"containerOverrides": [{"name": "runner", "command": command}]},
                }
            },
        )

    Results are live where the client's reader is. Nobody can ask such a runner anything: an adaptive schedule by the state, and
    making a manifest, need another launcher.
    """

    command: list[str] = Field(
        default=["sqlmesh-runner"], description="How to call the runner where the client runs it."
    )
    stop_timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How long the client may take to come back once its runner is to be killed: it may wait for a service, or read "
        "a log to its end. Then it is left alone, and the step fails.",
    )
    silence_timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        description="How long a runner may be silent before it is ended. By default for ever: many readers bring messages in heaps.",
    )
    client: dg.ResourceDependency[dg.PipesClient]
    """The client."""
    arguments: dg.ResourceDependency[Callable[[list[str]], Mapping[str, Any]]]
    """Makes the keywords of the client's `run`, besides ``context`` and ``extras``, of the runner's command."""
    message_reader: dg.ResourceDependency[dg.PipesMessageReader | None] = None  # type: ignore[assignment]  # of the dependency's value
    """The client's message reader; by default the one that is found among the client's attributes."""

    def launch(self, call: RunnerCall) -> Runner:
        if call.pipes is None:
            raise LaunchError(
                f"`sqlmesh-runner {call.arguments[0]}` answers on its standard output, which a PipesClient does not give: use "
                "another launcher for it."
            )
        if call.pipes.context_injector_params or call.pipes.message_reader_params != {"stdio": "stdout"}:
            raise LaunchError(
                "With PipesClientLauncher, message reader and context injector are the client's: give them to the client, not to "
                "SQLMeshResource.run."
            )
        reader = self.message_reader or _attribute(self.client, dg.PipesMessageReader)
        if reader is None:
            raise LaunchError(
                f"{type(self.client).__name__} was given no message reader, and one is needed before it runs: "
                f"{type(self.client).__name__}(message_reader=…)."
            )
        injector = _attribute(self.client, dg.PipesContextInjector)
        command = [*self.command, *call.arguments, *readers.store_arguments(reader, injector)]
        try:
            keywords = {**self.arguments(command), "extras": call.pipes.context_data["extras"]}
            inspect.signature(self.client.run).bind(context=call.pipes.context, **keywords)
        except Exception as error:
            raise LaunchError(
                f"{type(self.client).__name__}.run does not take what PipesClientLauncher's arguments give: "
                f"{type(error).__name__}: {error}."
            ) from error
        return _ClientRunner(
            self.client, reader, keywords, call, call.pipes, stop_seconds=self.stop_timeout_seconds
        )

    def context_injector(self) -> dg.PipesContextInjector:
        return _ClientsOwnInjector()


class _ClientsOwnInjector(dg.PipesContextInjector):
    """Injects nothing: the client has an injector of its own."""

    @contextmanager
    def inject_context(self, context: PipesContextData) -> Iterator[PipesParams]:
        yield {}

    def no_messages_debug_text(self) -> str:
        return "The context is injected by the PipesClient."


class _ContextWithoutAssets(dg.AssetExecutionContext):
    """The step's context, for a client's session.

    The runner is told of its models by the extras. What Dagster would add for each asset costs a query in the event log, and room
    where there may be little.
    """

    @property
    def has_assets_def(self) -> bool:
        return False

    @property
    def has_partition_key(self) -> bool:
        return False


class _Relay:
    """A client's handler, but for the messages: they go on to another. Of what opens and closes a session, both are told."""

    def __init__(self, handler: Any, take: Callable[[PipesMessage], None]) -> None:
        self._handler = handler
        self._take = take

    def handle_message(self, message: PipesMessage) -> None:
        if message["method"] in ("opened", "closed"):
            self._handler.handle_message({**message, "params": message["params"] or {}})
        self._take(message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


class _ClientRunner(Runner):
    """A client that runs in a thread of its own."""

    def __init__(
        self,
        client: dg.PipesClient,
        reader: dg.PipesMessageReader,
        keywords: Mapping[str, Any],
        call: RunnerCall,
        session: dg.PipesSession,
        *,
        stop_seconds: float,
    ) -> None:
        self._client = client
        self._reader = reader
        self._keywords = keywords
        self._tell = call.tell
        self._session = session
        self._stop_seconds = stop_seconds
        self._lock = threading.Lock()
        self._is_running = False
        self._is_asked_to_end = self._is_interrupted = self._is_killed = False
        self._has_opened = self._has_closed = False
        self._error: BaseException | None = None
        self._is_left_alone = False
        self._over = threading.Event()
        # With the variables of Dagster's context, as a call from here would have them.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._run,), name="pipes-client", daemon=True)
        self._thread.start()

    def output(self) -> Iterator[bytes]:
        """Nothing: what the runner prints is the client's."""
        self._over.wait()
        yield from ()

    def exit_code(self) -> int | None:
        if not self._over.is_set():
            return None
        if self._is_killed:
            return -signal.SIGKILL
        return 0 if self._error is None else 1

    def terminate(self) -> None:
        """A process on this host is sent SIGTERM. Any other client is interrupted, as Dagster does when a run is cancelled."""
        if self._over.is_set() or self._is_asked_to_end:
            return
        self._is_asked_to_end = True
        if not self._signal_processes(signal.SIGTERM):
            self._interrupt()

    def kill(self) -> None:
        """What runs on this host is killed; what does not is ended by the client, as long as it takes, within bounds."""
        if self._over.is_set():
            return
        self._is_killed = True
        self._interrupt()
        deadline = time.monotonic() + self._stop_seconds
        while not self._over.is_set() and time.monotonic() < deadline:
            self._signal_processes(signal.SIGKILL)
            self._over.wait(_POLL_SECONDS)
        if not self._over.is_set():
            self._is_left_alone = True
            self._over.set()

    def close(self, *, succeeded: bool) -> None:
        """What a client leaves behind is the client's."""

    def describe(self) -> str:
        return type(self._client).__name__

    def last_words(self) -> str:
        """None that the client does not say itself."""
        return ""

    def verdict(self) -> Verdict | None:
        name = self.describe()
        if self._is_left_alone:
            return Verdict(
                cause=f"{name} did not come back within {self._stop_seconds:g} s of being interrupted: what it started may go on. End it there.",
                started=self._has_opened,
                ended=False,
                how="was given up",
            )
        if self._error is None:
            return None
        return Verdict(
            cause=f"{name} raised {_said(self._error)}",
            transient=_is_transient(self._error),
            started=self._has_opened,
            how="ended",
        )

    def _run(self) -> None:
        try:
            try:
                with self._lock:
                    self._is_running = True
                with self._relayed():
                    self._client.run(context=self._context(), **self._keywords)
            finally:
                with self._lock:
                    self._is_running = False
        except BaseException as error:  # noqa: BLE001 - the thread's boundary; told by the verdict
            self._error = error
            if self._has_closed and not self._is_asked_to_end and not self._is_killed:
                self._tell(f"The runner came to its end, and then {self.describe()} raised {_said(error)}")
        finally:
            self._over.set()

    def _context(self) -> dg.AssetExecutionContext:
        return _ContextWithoutAssets(self._session.context.op_execution_context)

    @contextmanager
    def _relayed(self) -> Iterator[None]:
        """Have the client's reader hand on what it reads.

        A client asks for its reader's class, and calls its methods. So it keeps its reader, of which one method is another for the
        time of one run.
        """
        original = self._reader.read_messages

        def read_messages(handler: Any) -> Any:
            return readers.messages(self._reader, _Relay(handler, self._take), self._tell, original)

        vars(self._reader)["read_messages"] = read_messages
        try:
            yield
        finally:
            del vars(self._reader)["read_messages"]

    def _take(self, message: PipesMessage) -> None:
        self._has_opened = True
        self._has_closed = self._has_closed or message["method"] == "closed"
        self._session.message_handler.handle_message(message)

    def _interrupt(self) -> None:
        """Raise in the client's thread what Dagster raises in the main one: the clients end what they started when they see it.

        A thread sees it when it next runs Python: one that waits for a socket or a child does when the wait is over.
        """
        with self._lock:
            # Once: a second time would end how it ends what it started.
            if self._is_running and not self._is_interrupted and self._thread.ident is not None:
                self._is_interrupted = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread.ident), ctypes.py_object(dg.DagsterExecutionInterruptedError)
                )

    def _signal_processes(self, number: signal.Signals) -> bool:
        """Whether there are processes on this host that the client's thread has started: they are sent the signal."""
        tasks = [Path(f"/proc/self/task/{self._thread.native_id}")]
        processes: list[int] = []
        # A signal to end is for the runner, which ends what it has started. One that kills is for all.
        while tasks:
            children = [int(pid) for task in tasks for pid in _read(task / "children").split()]
            processes += children
            if number is not signal.SIGKILL:
                break
            tasks = [task for pid in children for task in Path(f"/proc/{pid}/task").glob("*")]
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(processes)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended, or this is no Linux
        return ""


def _attribute(client: dg.PipesClient, kind: Callable[..., T]) -> T | None:
    """What a client holds of a kind, under whatever name: some clients' is private."""
    return next((value for value in vars(client).values() if isinstance(value, cast("type[T]", kind))), None)


def _said(error: BaseException) -> str:
    words = " ".join(str(error).split())
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return said if said.endswith(".") else f"{said}."


def _is_transient(error: BaseException) -> bool:
    """Whether trying again can help, by the kind of error. What a service refuses it refuses again, unless it was busy."""
    if isinstance(error, _OWN_FAULTS):
        return False
    status = _http_status(error)
    return status is None or not 400 <= status < 500 or status in (408, 409, 425, 429)


def _http_status(error: BaseException) -> int | None:
    """Of botocore, azure, google, kubernetes, docker, requests: each has it elsewhere."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        metadata = response.get("ResponseMetadata", {})
        code = response.get("Error", {}).get("Code", "")
        if "Throttl" in code or "TooManyRequests" in code:
            return 429
        status = metadata.get("HTTPStatusCode")
        return status if isinstance(status, int) else None
    found = (
        getattr(source, name, None)
        for source in (error, response)
        for name in ("status_code", "status", "code")
    )
    return next((value for value in found if isinstance(value, int)), None)
