"""Environments of their own, in ``.matrix``, kept from one run of the matrix to the next."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix.versions import DEVELOPMENT, REQUIREMENTS, ROOT, UV, Side

FOLDER = ROOT / ".matrix"
OF_THEIR_TIME: dict[Side, tuple[str, ...]] = {"sqlmesh": ("duckdb<2", "pandas<3"), "dagster": ()}
"""What old releases do not bound, and do not work with."""
_INSTALL_SECONDS = 900


class InstallError(Exception):
    """An environment could not be made; the message is the last that the installer said."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment, with a release of SQLMesh or of Dagster, and this project."""

    side: Side
    version: str
    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"


def environment(side: Side, version: str, python: str, pins: Mapping[str, str] = {}) -> Environment:
    """The environment of a release; made, if it is not there, or if what this project asks for has changed since.

    Args:
        side: whether it is a release of SQLMesh or of Dagster.
        version: the release.
        python: a version of Python, or the path of one.
        pins: other distributions that are to be of just these versions, by name.

    Raises:
        InstallError: there is no such Python, or these do not go together.
    """
    pinned = {**pins, side: version}
    name = f"{side}-{version}-py{version_of(python)}{'-oldest' if pins else ''}"
    made = Environment(side, version, FOLDER / name)
    wanted = _digest(pinned, [ROOT / "pyproject.toml", REQUIREMENTS[side]])
    stamp = made.path / ".installed"
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(made.path, ignore_errors=True)
        _uv("venv", "--python", python, str(made.path))
        others = OF_THEIR_TIME[side] if pins else ()
        tree = f"{ROOT}[{','.join(DEVELOPMENT[side])}]"
        exact = [f"{name}=={version}" for name, version in pinned.items()]
        install(made.python, "--editable", tree, "--requirement", str(REQUIREMENTS[side]), *exact, *others)
        stamp.write_text(wanted)
    return made


def over(base: Environment, name: str, source: Path) -> Environment:
    """An environment with another release of this project, and the rest as another environment has it.

    Args:
        base: what it stands over.
        name: of the release.
        source: its sources.

    Raises:
        InstallError: the release cannot be built.
    """
    made = Environment(base.side, base.version, base.path.with_name(f"{base.path.name}-with-{name}"))
    shutil.rmtree(made.path, ignore_errors=True)
    _uv("venv", "--python", str(base.python), str(made.path))
    (packages,) = made.path.glob("lib/python*/site-packages")
    below = base.path / packages.relative_to(made.path)
    (packages / "below.pth").write_text(f"{below}\n")  # comes after its own
    install(made.python, "--no-deps", "--no-cache", str(source))
    return made


def install(python: Path, *what: str) -> None:
    """Install for a Python."""
    _uv("pip", "install", "--python", str(python), *what)


def _uv(*arguments: str) -> None:
    command = [str(UV), *arguments, "--quiet"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise InstallError(f"not done after {_INSTALL_SECONDS} s") from None
    if done.returncode:
        # Why a resolver found nothing is long; what it comes to stands last.
        raise InstallError(" ".join(done.stderr.split())[-400:] or f"status {done.returncode}")


def version_of(python: str) -> str:
    """Major and minor of a Python, by its path.

    Raises:
        InstallError: it is none.
    """
    try:
        done = subprocess.run(
            [python, "-c", "import sys; print('.'.join(map(str, sys.version_info[:2])))"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallError(f"{python} is no Python: {error}") from error
    return done.stdout.strip()


def _digest(pinned: Mapping[str, str], files: Iterable[Path]) -> str:
    parts: Sequence[bytes] = [repr(sorted(pinned.items())).encode(), *(file.read_bytes() for file in files)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
