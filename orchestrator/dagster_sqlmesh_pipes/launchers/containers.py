"""Starting a runner in a container of its own, on a Docker engine that this process can reach.

Annotations are not postponed here: Dagster reads them when the class is made.
"""

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import dagster as dg
from pydantic import Field

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.launcher import (
    LAST_WORDS_LINES,
    Launcher,
    Runner,
    RunnerCall,
    Verdict,
    forward,
)
from dagster_sqlmesh_pipes.pipes import EnvContextInjector

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

T = TypeVar("T")

_LABEL = "dagster-sqlmesh-pipes"
_MAX_LINE_BYTES = 64 * 1024
_ASK_SECONDS = 60
"""How long the engine may take to answer."""
_SETTLE_SECONDS = 5
"""How long after the end of its output a container's own end may be told. After that the engine is asked for more output."""


class DockerLauncher(Launcher):
    """Starts the runner in a container, which is gone when the run is over.

    The image has ``sqlmesh-runner`` and the SQLMesh project, or the project is mounted; give the project's directory as the
    container sees it: ``SQLMeshResource(project, project_dirs=["/project"], launcher=DockerLauncher(image="warehouse:2026-11"))``.
    Needs the ``docker`` package: ``dagster-sqlmesh-pipes[docker]``.
    """

    outlives_dagster: ClassVar[bool] = True

    image: str = Field(description="The image, with a tag or a digest.")
    command: list[str] = Field(
        default=["sqlmesh-runner"], description="How to call the runner in the container."
    )
    env: dict[str, str] = Field(default={}, description="Variables for the runner's environment.")
    volumes: list[str] = Field(
        default=[],
        description="Mounts: `/srv/warehouse:/project:ro`, or a volume's name in place of the first path.",
    )
    network: str | None = Field(default=None, description="A network of the engine, or `host`.")
    user: str | None = Field(
        default=None, description="User and group in the container; by default the image's."
    )
    working_dir: str | None = Field(
        default=None, description="Where the runner is started; by default the image's."
    )
    memory: str | None = Field(default=None, description="The most memory that the container gets: `2g`.")
    cpus: float | None = Field(default=None, gt=0, description="The most processors that it gets.")
    pull: Literal["missing", "always", "never"] = Field(
        default="missing", description="When the image is pulled from its registry."
    )
    labels: dict[str, str] = Field(default={}, description="Labels of the container.")
    docker_host: str | None = Field(
        default=None, description="The engine: `tcp://…` or `unix://…`; by default as DOCKER_HOST says."
    )
    container_kwargs: dict[str, Any] = Field(
        default={}, description="Any other keyword of the docker package's `containers.create`."
    )

    def launch(self, call: RunnerCall) -> Runner:
        client = self._client()
        try:
            if self.pull == "always":
                _told(lambda: client.images.pull(self.image), f"The image {self.image} cannot be pulled")
            container = self._create(client, call)
        except BaseException:
            client.close()
            raise
        return _ContainerRunner(client, container, self.image, start=True)

    def find(self, call: RunnerCall) -> Runner | None:
        from docker.errors import NotFound

        client = self._client()
        try:
            container = client.containers.get(call.name)
            if container.status == "created":  # who made it died before it was started
                container.remove(force=True, v=True)
                client.close()
                return None
        except NotFound:
            client.close()
            return None
        except Exception as error:
            client.close()
            raise _launch_error("The Docker engine does not say which containers it has", error) from error
        return _ContainerRunner(client, container, self.image, start=False)

    def context_injector(self) -> dg.PipesContextInjector:
        return EnvContextInjector()

    def _client(self) -> "DockerClient":
        try:
            import docker
        except ModuleNotFoundError as error:
            raise LaunchError(
                "DockerLauncher needs the docker package: install dagster-sqlmesh-pipes[docker] where Dagster is."
            ) from error
        return _told(
            lambda: (
                docker.DockerClient(base_url=self.docker_host, timeout=_ASK_SECONDS)
                if self.docker_host
                else docker.from_env(timeout=_ASK_SECONDS)
            ),
            "The Docker engine cannot be reached",
        )

    def _create(self, client: "DockerClient", call: RunnerCall) -> "Container":
        from docker.errors import ImageNotFound

        settings: dict[str, Any] = {
            "name": call.name,
            "command": [*self.command, *call.arguments],
            "environment": {**self.env, **call.env},
            "volumes": self.volumes,
            "network": self.network,
            "user": self.user,
            "working_dir": self.working_dir,
            "mem_limit": self.memory,
            "nano_cpus": round(self.cpus * 1e9) if self.cpus is not None else None,
            "labels": {_LABEL: "runner", **call.labels, **self.labels},
            **self.container_kwargs,
        }
        settings = {name: value for name, value in settings.items() if value is not None}

        def create() -> "Container":
            return client.containers.create(self.image, **settings)

        why = f"A container of the image {self.image} cannot be made"
        try:
            return create()
        except ImageNotFound as error:
            if self.pull == "never":
                raise LaunchError(
                    f"The image {self.image} is not on the Docker engine, and is not to be pulled: build it, or pull it, or "
                    "set pull."
                ) from error
        except Exception as error:
            raise _launch_error(why, error) from error
        _told(lambda: client.images.pull(self.image), f"The image {self.image} cannot be pulled")
        return _told(create, why)


class _ContainerRunner(Runner):
    """A container, attached to before it is started, so that nothing that it writes is missed; one that was found is read by its log."""

    def __init__(self, client: "DockerClient", container: "Container", image: str, *, start: bool) -> None:
        self._client = client
        self._container = container
        self._image = image
        self._last_words: deque[bytes] = deque(maxlen=LAST_WORDS_LINES)
        self._torn = b""
        self._stderr_taken = 0
        self._disturbances = 0
        """How often the engine was out of reach, or said an end that was none."""
        self._stream: Any = None
        self._rereading = not start
        self._broken = False
        """Its output cannot be had: the engine was restarted, or is out of reach."""
        self._killed = False
        self._exit_code: int | None = None
        self._verdict: Verdict | None = None
        self._removing = threading.Lock()
        self._removed = False
        try:
            if start:
                self._stream = container.attach(stdout=True, stderr=True, stream=True, logs=True, demux=True)
                container.start()
        except Exception as error:
            self.close(succeeded=False)
            raise _launch_error(f"The container of {image} cannot be started", error) from error
        self._waiter = threading.Thread(target=self._wait, name="runner-container", daemon=True)
        self._waiter.start()

    def output(self) -> Iterator[bytes]:
        # It comes with docker's own package: who runs elsewhere need not have it.
        from urllib3.exceptions import HTTPError

        over = False
        while True:
            began_after_the_end, disturbances, broken = over, self._disturbances, False
            attached, self._stream = self._stream, None
            try:
                if attached is not None:
                    for out, err in attached:
                        if err:
                            self._take_stderr(err)
                        if out:
                            yield out
                else:
                    # Not by attaching once more: what is written between the log and the stream after it would be lost.
                    yield from self._container.logs(stdout=True, stderr=False, stream=True, follow=True)
            except (OSError, HTTPError):
                # The engine was restarted, or is out of reach for a moment; the waiter says when that is too long.
                broken = True
            self._broken = broken
            self._waiter.join(timeout=1 if broken else _SETTLE_SECONDS)
            over = not self._waiter.is_alive()
            # Attached since before the start, nothing is missed, unless the engine stopped: it then ends the stream as the container
            # does. A log is complete if all of it was read after the end.
            complete = attached is not None and not broken and disturbances == self._disturbances
            if over and (complete or began_after_the_end):
                break
            self._rereading = True
            # The log from its beginning: what has been read is known by its number, and dropped. A torn line is ended.
            yield b"\n"
        if not complete:
            with contextlib.suppress(OSError):
                written = self._container.logs(stdout=False, stderr=True)
                self._take_stderr(written[self._stderr_taken :])
        self._rereading = False

    def exit_code(self) -> int | None:
        # A runner whose log is still being read has not ended for those who wait only so long for its output.
        return None if self._rereading and not self._killed else self._exit_code

    def terminate(self) -> None:
        self._signal("SIGTERM")

    def kill(self) -> None:
        self._killed = True
        self._signal("SIGKILL")
        self._waiter.join(timeout=_ASK_SECONDS)

    def close(self, *, succeeded: bool) -> None:
        """Leave no container behind, whatever state it is in."""
        from docker.errors import APIError

        with self._removing:
            if self._removed:
                return
            self._removed = True
            with contextlib.suppress(APIError, OSError):
                self._container.remove(force=True, v=True)
            self._client.close()

    def detach(self) -> None:
        with self._removing:
            self._removed = True
            self._client.close()

    def describe(self) -> str:
        return f"container {self._container.short_id} of {self._image}"

    def last_words(self) -> str:
        return b"".join([*self._last_words, self._torn]).decode("utf-8", "replace").strip()

    def is_out_of_reach(self) -> bool:
        return self._broken

    def verdict(self) -> Verdict | None:
        return self._verdict

    def _take_stderr(self, chunk: bytes) -> None:
        self._stderr_taken += len(chunk)
        *lines, self._torn = (self._torn + chunk).split(b"\n")
        if len(self._torn) > _MAX_LINE_BYTES:  # a line without an end must not take the memory
            lines, self._torn = [*lines, self._torn], b""
        for line in lines:
            self._last_words.append(line + b"\n")
            forward(line + b"\n")

    def _wait(self) -> None:
        """Follow the container to its end, also over a restart of the engine."""
        from docker.errors import NotFound

        failures = 0
        while True:
            try:
                self._container.wait(timeout=None)
                self._container.reload()
            except NotFound:
                if not self._removed:
                    self._verdict = Verdict(cause="Somebody removed the container.")
                self._exit_code = -signal.SIGKILL
                return
            except Exception as error:  # noqa: BLE001 - of requests, urllib3 or the engine; told if it stays
                self._disturbances += 1
                failures += 1
                if failures > _ASK_SECONDS:
                    self._verdict = Verdict(
                        cause=f"The Docker engine cannot be reached: {error}.", ended=False
                    )
                    self._exit_code = -signal.SIGKILL
                    return
                time.sleep(1)
                continue
            state = self._container.attrs["State"]
            if state["Running"]:
                # An engine that stops, and lets its containers go on, answers whoever waits for one with a status of 0.
                self._disturbances += 1
                failures = 0
                time.sleep(1)
                continue
            if state.get("OOMKilled"):
                limit = self._container.attrs["HostConfig"].get("Memory")
                least = f": its limit is {limit / 2**20:,.0f} MiB." if limit else "."
                self._verdict = Verdict(cause=f"It ran out of memory{least}")
            status = int(state["ExitCode"])
            # As a process on this host would be told: a signal is a negative status.
            self._exit_code = {137: -signal.SIGKILL, 143: -signal.SIGTERM}.get(status, status)
            return

    def _signal(self, name: str) -> None:
        from docker.errors import APIError

        with contextlib.suppress(
            APIError, OSError
        ):  # it has ended, or the engine is away: then there is nothing to signal
            self._container.kill(signal=name)


def _told(ask: Callable[[], T], why: str) -> T:
    """What the engine answers, or a LaunchError that says why there is no answer."""
    try:
        return ask()
    except LaunchError:
        raise
    except Exception as error:  # of docker, requests or urllib3
        raise _launch_error(why, error) from error


def _launch_error(why: str, error: Exception) -> LaunchError:
    from docker.errors import APIError

    said = error.explanation if isinstance(error, APIError) and error.explanation else str(error)
    # What the engine refuses it refuses again; what is out of reach may be there next time.
    transient = not isinstance(error, APIError) or error.is_server_error()
    return LaunchError(f"{why}: {str(said).strip().rstrip('.')}.", transient=transient)
