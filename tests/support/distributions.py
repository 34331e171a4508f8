"""What is published, built of the tree, and new environments that have nothing but it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PACKAGES = {
    "dagster_sqlmesh_pipes": ROOT / "orchestrator",
    "sqlmesh_pipes_runner": ROOT / "runner",
    "sqlmesh_pipes_protocol": ROOT / "shared_protocol",
}
"""Import packages, and where each stands in the tree."""


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run to the end, whatever that is; by its own environment, which has neither these tests' path nor their packages."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**own, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def succeed(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> str:
    """Standard output of a command that has to succeed."""
    done = run(command, cwd=cwd, env=env, timeout=timeout)
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Distributions:
    """An sdist, and a wheel."""

    sdist: Path
    wheel: Path


def build(to: Path, *options: str) -> None:
    """Build the tree as `make dist` does: in an environment of the build's own, which has what the project asks for there."""
    succeed([sys.executable, "-m", "build", "--installer", "uv", "--outdir", to, *options, ROOT], env=_uv())


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """An sdist of the tree, and a wheel of that sdist; or those in the folder that DISTRIBUTIONS names, to be published as they are."""
    given = os.environ.get("DISTRIBUTIONS")
    to = ROOT / given if given else tmp_path_factory.mktemp("dist")
    if not given:
        build(to)
    (sdist,), (wheel,) = to.glob("*.tar.gz"), to.glob("*.whl")
    return Distributions(sdist, wheel)


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel, some of its extras, and what these ask for."""

    path: Path

    def bin(self, name: str) -> Path:
        return self.path / "bin" / name

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        # In a folder that has nothing to import.
        return run([self.bin("python"), "-c", code], cwd=self.path)

    def lacks(self, module: str) -> bool:
        return self.python(f"import {module}").returncode != 0


MakeEnvironment = Callable[..., Environment]


@pytest.fixture(scope="session")
def environment(built: Distributions, tmp_path_factory: pytest.TempPathFactory) -> MakeEnvironment:
    """Makes an environment with these extras, and these packages besides; once each."""
    made: dict[tuple[str, ...], Environment] = {}

    def make(extras: str = "", *packages: str) -> Environment:
        wanted = (extras, *packages)
        if wanted not in made:
            path = tmp_path_factory.mktemp("environment") / "venv"
            python = path / "bin" / "python"
            wheel = f"{built.wheel}[{extras}]" if extras else str(built.wheel)
            succeed(["uv", "venv", "--quiet", "--python", sys.executable, path], env=_uv())
            install = ["uv", "pip", "install", "--quiet", "--python", python, wheel, *packages]
            succeed(install, env=_uv(), timeout=600)
            succeed(["uv", "pip", "check", "--python", python], env=_uv())
            made[wanted] = Environment(path)
        return made[wanted]

    return make


def _uv() -> dict[str, str]:
    return {"PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]), "UV_HTTP_TIMEOUT": "120"}
