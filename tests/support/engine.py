"""The Docker engine of a test session: the one that answers, or one of the tests' own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from dagster_sqlmesh_pipes import DockerLauncher
from support import images
from support.warehouse import Warehouse

LABEL = "dagster-sqlmesh-pipes-test"
"""Of the containers that one test makes: an engine may run others, and other tests' as well."""


@dataclass
class DockerEngine:
    """An engine with the runner's image on it. Its containers have a network, the host's network, or none.

    Attributes:
        host: its address; None for the one that DOCKER_HOST or the default socket leads to.
        image: the runner's.
    """

    host: str | None
    image: str

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        client = docker.DockerClient(base_url=self.host) if self.host else docker.from_env()
        with contextlib.closing(client):
            yield client

    def containers(self, test: str) -> list[str]:
        """Those of one test, in any state."""
        with self.client() as client:
            found = client.containers.list(all=True, filters={"label": f"{LABEL}={test}"})
            return [container.name for container in found]


@dataclass
class Containers:
    """What one test does with containers.

    Attributes:
        engine: where they are.
        test: the value of their label.
    """

    engine: DockerEngine
    test: str = field(default_factory=lambda: uuid.uuid4().hex)

    def launcher(self, warehouse: Warehouse | None = None, **settings: object) -> DockerLauncher:
        """A launcher of containers that see a warehouse's folder under its own path."""
        defaults: dict = {"image": self.engine.image, "network": "none", "labels": {LABEL: self.test}}
        if self.engine.host:
            defaults["docker_host"] = self.engine.host
        if warehouse is not None:
            folder = str(warehouse.path.parent)
            defaults |= {
                "volumes": [f"{folder}:{folder}"],
                # As root: the folder is the test's own, and another user may not write into it.
                "user": "0",
                "env": {"TEST_DATABASE": str(warehouse.database), **warehouse.env},
            }
            if "TEST_PORT" in warehouse.env:
                defaults["network"] = "host"  # where the tests' PostgreSQL is
        return DockerLauncher(**{**defaults, **settings})

    def names(self) -> list[str]:
        """What there is, in any state."""
        return self.engine.containers(self.test)

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send a signal to the one that there is, as somebody at the engine does."""
        with self.engine.client() as client:
            (name,) = self.names()
            client.containers.get(name).kill(signal=signal)

    def remove(self) -> None:
        """Remove the one that there is, as somebody at the engine does."""
        with self.engine.client() as client:
            (name,) = self.names()
            client.containers.get(name).remove(force=True)


class OwnEngine:
    """A dockerd of a test's own, in a folder of its own, which can be stopped and started again.

    Args:
        options: of dockerd.
        apart: in a network namespace of its own. Without a bridge of its own, dockerd would remove that of another one.

    Raises:
        RuntimeError: it does not start here; the message has its last words.
    """

    def __init__(self, *options: str, apart: bool = False) -> None:
        self._apart = ["unshare", "--net", "--"] if apart else []
        self._folder = Path(tempfile.mkdtemp(prefix="docker-"))
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.host = f"unix://{self._folder / 'docker.sock'}"
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        log = self._folder / "log"
        with log.open("a") as output:
            self._process = subprocess.Popen(
                [
                    *self._apart,
                    "dockerd",
                    f"--data-root={self._folder / 'data'}",
                    f"--exec-root={self._folder / 'exec'}",
                    f"--pidfile={self._folder / 'pid'}",
                    f"--host={self.host}",
                    *self._options,
                ],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not images.answers(self.host):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd does not start here: {log.read_text().splitlines()[-1:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End the engine, as a restart of its service does; with ``--live-restore`` its containers go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=60)
            self._process = None

    def close(self) -> None:
        """Leave nothing behind: with ``--live-restore``, containers and containerd would outlive the engine."""
        try:
            self.stop()
        finally:
            for file in self._folder.glob("exec/containerd/containerd.pid"):
                with contextlib.suppress(OSError, ValueError):
                    os.kill(int(file.read_text()), signal.SIGTERM)
            mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for mount in reversed([mount for mount in mounts if mount.startswith(f"{self._folder}/")]):
                subprocess.run(["umount", "--lazy", mount], check=False, timeout=60)
            shutil.rmtree(self._folder, ignore_errors=True)


def needs(*programs: tuple[str, str]) -> None:
    """Skip a test that wants root and these programs, each with its Debian package, where they are not there."""
    for program, package in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: apt-get install {package})")
    if os.geteuid() != 0:
        pytest.skip("a Docker engine of the tests' own needs root")


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str | None]:
    """The address of an engine; None for the default one."""
    if images.answers():
        yield None
        return
    needs(("dockerd", "docker.io"))
    own = None
    for options in ((), ("--iptables=false", "--bridge=none")):  # with a network, where this machine lets it
        try:
            own = OwnEngine(*options)
            break
        except RuntimeError as error:
            why = str(error)
    if own is None:
        pytest.skip(why)
    with contextlib.closing(own):
        yield own.host


@pytest.fixture(scope="session")
def docker_engine(docker_host: str | None) -> DockerEngine:
    try:
        return DockerEngine(docker_host, images.runner_image(docker_host))
    except images.ImageError as error:
        pytest.skip(str(error))


@pytest.fixture
def containers(docker_engine: DockerEngine) -> Iterator[Containers]:
    """None is left behind."""
    made = Containers(docker_engine)
    yield made
    assert made.names() == []
