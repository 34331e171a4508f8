"""Which releases the matrix is over."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest has it

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")

Age = Literal["oldest", "newest"]
AGES: tuple[Age, ...] = ("oldest", "newest")
Side = Literal["sqlmesh", "dagster"]
EXTRAS: dict[Side, tuple[str, ...]] = {"sqlmesh": ("sqlmesh",), "dagster": ("dagster", "docker", "k8s")}
"""The extras of this project that each side installs."""

_BOUND = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9][0-9.]*)")


def project() -> dict[str, Any]:
    """What pyproject.toml says of the project."""
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return content


def lower_bounds(project: dict[str, Any], side: Side) -> dict[str, str]:
    """The oldest version of each distribution that a side asks for, by name.

    Args:
        project: the table ``[project]``.
        side: whose extras count, besides what is always asked for.
    """
    asked = [*project["dependencies"]]
    for extra in EXTRAS[side]:
        asked += project["optional-dependencies"][extra]
    return dict(_bounds(asked))


def _bounds(requirements: list[str]) -> Iterator[tuple[str, str]]:
    for requirement in requirements:
        found = _BOUND.match(requirement)
        if found is not None:
            yield found[1], found[2]
        elif "[" not in requirement:  # extras of this project
            raise ValueError(f"{requirement} has no lower bound")


REQUIREMENTS: dict[Side, Path] = {
    "sqlmesh": ROOT / "tests" / "requirements-runner.txt",
    "dagster": ROOT / "examples" / "shop" / "requirements.txt",
}
"""What stands in each side's environment besides the extras."""
DEVELOPMENT: dict[Side, tuple[str, ...]] = {
    "sqlmesh": ("sqlmesh", "dev"),
    "dagster": ("dagster", "dev", "dev-dagster"),
}
"""The extras that `make install` installs."""


def newest(side: Side, python: str) -> str:
    """The newest release of a side that the index has for a Python, with all that stands beside it.

    Dagster's own integrations come out with each release of it, and ask for just that one: until they are there, a release is not complete.

    Raises:
        LookupError: the index cannot be read, or has none.
    """
    command = [
        str(UV),
        "pip",
        "compile",
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--python-version",
        python,
    ]
    extras = [argument for extra in DEVELOPMENT[side] for argument in ("--extra", extra)]
    command += [*extras, str(ROOT / "pyproject.toml"), str(REQUIREMENTS[side])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    found = re.search(rf"^{side}==(\S+)", done.stdout, re.MULTILINE)
    if found is None:
        raise LookupError(f"no newest release of {side} was found: {done.stderr.strip()[-400:]}")
    return found[1]
