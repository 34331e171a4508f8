"""A Docker engine of the test session, and the runner's image on it, built as its Dockerfile says."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = "tests/python-slim:bookworm"
"""Made here of Debian's packages: no registry is asked."""
RUNNER = "tests/sqlmesh-runner:latest"


@dataclass
class DockerEngine:
    """An engine of this test session, on a socket of its own. Its containers have the host's network or none."""

    host: str
    image: str

    def containers(self) -> list[str]:
        """What there is in any state."""
        import docker

        with contextlib.closing(docker.DockerClient(base_url=self.host)) as client:
            return [container.name for container in client.containers.list(all=True)]


@pytest.fixture(scope="session")
def docker_engine(runner_bin: Path) -> Iterator[DockerEngine]:
    """One a session: tests that use it are one group for pytest-xdist."""
    for program, package in (("dockerd", "docker.io"), ("debootstrap", "debootstrap")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: apt-get install {package})")
    if os.geteuid() != 0:
        pytest.skip("a Docker engine of the tests' own needs root")
    version = subprocess.run(
        [str(runner_bin / "python"), "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()
    if version != "3.11":
        pytest.skip(f"the image's Python is Debian's 3.11, and wheels can be made here for {version} only")
    folder = Path(tempfile.mkdtemp(prefix="docker-"))
    socket = folder / "docker.sock"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "dockerd",
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'pid'}",
                f"--host=unix://{socket}",
                "--iptables=false",
                "--bridge=none",
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        import docker

        engine = DockerEngine(f"unix://{socket}", RUNNER)
        deadline = time.monotonic() + 60
        while True:
            try:  # a client asks for the engine's version when it is made
                client = docker.DockerClient(base_url=engine.host, timeout=600)
                break
            except docker.errors.DockerException:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.skip(
                        f"dockerd does not start here: {(folder / 'log').read_text().splitlines()[-1:]}"
                    )
                time.sleep(0.2)
        client.api.import_image_from_file(
            str(_base(folder)), repository=BASE.partition(":")[0], tag="bookworm"
        )
        context = _context(folder, runner_bin)
        client.images.build(
            path=str(context),
            dockerfile="docker/runner.Dockerfile",
            tag=RUNNER,
            network_mode="none",
            buildargs={"BASE_IMAGE": BASE, "PIP_ARGS": "--no-index --find-links=/dist"},
            rm=True,
        )
        yield engine
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _base(folder: Path) -> Path:
    """A small Debian with Python, as a tar file; kept in the project's cache folder, since it takes a minute."""
    cached = ROOT / ".cache" / "python-slim-bookworm.tar"
    if not cached.exists():
        root = folder / "root"
        subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=python3,python3-venv", "bookworm", str(root)],
            check=True,
            capture_output=True,
            timeout=900,
        )
        shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
        shutil.rmtree(root / "usr/share/doc", ignore_errors=True)
        cached.parent.mkdir(exist_ok=True)
        partial = cached.with_suffix(".partial")
        subprocess.run(["tar", "-C", str(root), "-cf", str(partial), "."], check=True, timeout=300)
        partial.replace(cached)
    return cached


def _context(folder: Path, runner_bin: Path) -> Path:
    """What the image is built of: the Dockerfile, and this project's wheel with all that it needs."""
    context = folder / "context"
    shutil.copytree(ROOT / "docker", context / "docker")
    subprocess.run(
        [
            str(runner_bin / "python"),
            "-m",
            "pip",
            "wheel",
            "--quiet",
            f"{ROOT}[sqlmesh]",
            "--wheel-dir",
            str(context / "dist"),
        ],
        check=True,
        capture_output=True,
        timeout=900,
        cwd=folder,
    )
    return context
