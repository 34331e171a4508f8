"""Whether the SQLMesh that is installed is one that this runner can work with; asked before anything begins."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version

from sqlmesh_pipes_runner.errors import InstallationError, RunnerError

DISTRIBUTION = "dagster-sqlmesh-pipes"
READ_AGAINST = ("0.224.0", "0.236.4")
"""The oldest and the newest SQLMesh that the adapter was read against, and tested with."""

_INSTALL = f"Install it in the runner's environment: pip install '{DISTRIBUTION}[sqlmesh]'"


def check_sqlmesh() -> str:
    """The version of the installed SQLMesh, which has been imported.

    A SQLMesh that is newer than any that was read is not refused: it is looked at.

    Raises:
        InstallationError: there is none, it is too old, it cannot be imported, or it has not what the adapter builds on.
    """
    try:
        installed = version("sqlmesh")
    except PackageNotFoundError as error:
        raise InstallationError("SQLMesh is not installed.", _INSTALL) from error
    wanted = unmet_requirement("sqlmesh", installed, requires(DISTRIBUTION) or ())
    if wanted is not None:
        raise InstallationError(
            f"SQLMesh {installed} is installed, and {DISTRIBUTION} needs {wanted}.", _INSTALL
        )
    try:
        importlib.import_module("sqlmesh.core.context")
    except RunnerError:
        raise
    except Exception as error:  # whatever a package raises that is broken, or does not go with another
        raise InstallationError(f"SQLMesh {installed} cannot be imported: {error}.", _INSTALL) from error
    unknown = _unknown_seams()
    if unknown:
        raise InstallationError(
            f"SQLMesh {installed} is installed, which this runner does not know: {'; '.join(unknown)}.",
            f"Install a later {DISTRIBUTION}, or a SQLMesh from {READ_AGAINST[0]} to {READ_AGAINST[1]}.",
        )
    return installed


def _unknown_seams() -> list[str]:
    try:
        seams = importlib.import_module("sqlmesh_pipes_runner.adapter.seams")
        importlib.import_module("sqlmesh_pipes_runner.console")
    except (ImportError, AttributeError) as error:  # a name that the adapter imports, or a callback, is gone
        return [str(error)]
    found: list[str] = seams.unknown_seams()
    return found


def unmet_requirement(package: str, installed: str, requirements: Sequence[str]) -> str | None:
    """What a distribution asks for of a package that the installed version is not; None if it fits.

    Args:
        package: its name.
        installed: its version.
        requirements: as the distribution's metadata has them, with extras.
    """
    from packaging.requirements import Requirement

    for text in requirements:
        requirement = Requirement(text)
        if requirement.name == package and not requirement.specifier.contains(installed, prereleases=True):
            return f"{package}{requirement.specifier}"
    return None
