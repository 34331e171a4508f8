"""How long the direct peers take to load definitions of a SQLMesh project, each in a virtual environment of its own.

They load SQLMesh in Dagster's process, so none of them fits into the environment that the benchmarks run in. What is in doubt is
decided in their favour: they are given no more to do than their documentation asks for, neither has a schedule, and by default
SQLMesh finds what it has cached of the project.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from benchmarks.places import LOADED

# Both as this package's own minimum, so that Dagster and SQLMesh cost the same on each side. Neither peer has an upper bound.
_BESIDE = ("dagster==1.13.27", "sqlmesh==0.236.4", "duckdb<2")
_INSTALL_MAX_SECONDS = 1800
_LOAD_MAX_SECONDS = 900
_STAMP = "installed-requirements.txt"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What to install, and what to run.

    Attributes:
        requirement: its distribution, pinned.
        beside: what it needs here that it does not ask for, or not of one version.
        program: makes ``defs`` of the project whose folder is the first argument.
        checks: how many asset checks it makes of each model of `projects`.
        distinct_audits: whether the audits of a model must have different names; see `fit`.
    """

    requirement: str
    beside: tuple[str, ...]
    program: str
    checks: int
    distinct_audits: bool


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "dg-sqlmesh": Peer(
            requirement="dg-sqlmesh==1.10.1",
            beside=_BESIDE,
            # Without its schedule, for which it would make all assets a second time.
            program="""
                import sys
                from dg_sqlmesh import sqlmesh_definitions_factory
                defs = sqlmesh_definitions_factory(project_dir=sys.argv[1], gateway="local")
            """,
            checks=4,  # three audits, and the status of the execution
            distinct_audits=True,
        ),
        "dagster-sqlmesh": Peer(
            requirement="dagster-sqlmesh==0.22.0",
            beside=_BESIDE,
            program="""
                import sys, dagster as dg
                from dagster_sqlmesh import SQLMeshContextConfig, SQLMeshResource, sqlmesh_assets

                config = SQLMeshContextConfig(path=sys.argv[1], gateway="local")

                @sqlmesh_assets(environment="prod", config=config)
                def project(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
                    yield from sqlmesh.run(context, config=config, environment="prod")

                defs = dg.Definitions(assets=[project], resources={"sqlmesh": SQLMeshResource()})
            """,
            checks=0,  # it knows no audits
            distinct_audits=False,
        ),
    }
)

_NOT_NULL = re.compile(r"not_null\(columns := \((\w+)\)\)")
_OTHER_AUDITS = ("at_least_one(column := {})", "not_empty_string(column := {})")
_VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def install(name: str, home: Path) -> Path:
    """A virtual environment with the peer in it, below `home`; one that is there and complete is used again.

    Returns:
        Its Python, of the version of this process: the peers take 3.11 and 3.12.

    Raises:
        subprocess.CalledProcessError: it could not be installed; what was said is on standard error.
    """
    requirements = [PEERS[name].requirement, *PEERS[name].beside]
    # The version as well: the interpreter of the environment is a link to this one.
    wanted = "\n".join([f"# Python {sys.version}", *requirements]) + "\n"
    folder = home.absolute() / name
    python = folder / "bin" / "python"
    stamp = folder / _STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    _install_step([sys.executable, "-m", "venv", "--clear", folder])
    _install_step(
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            *requirements,
        ]
    )
    # Last, so that an installation that was broken off is made anew.
    stamp.write_text(wanted)
    return python


def versions(python: Path) -> dict[str, str]:
    """Of Dagster, SQLMesh and whichever peer is installed beside this Python."""
    return {
        name: str(version) for name, version in _run(python, _VERSIONS, "dagster", "sqlmesh", *PEERS).items()
    }


def load_seconds(name: str, python: Path, project: Path, models: int, *, warm: bool = True) -> float:
    """How long one process takes from its start to its end, which has loaded everything that Dagster asks of a code location.

    The tables that the project reads need not exist: nothing is deployed or queried.

    Args:
        name: of the peer.
        python: what `install` has returned for the peer.
        project: what `projects.write_project` has written; it is changed as `fit` says.
        models: how many the project has.
        warm: with what SQLMesh has cached when this peer loaded the project before, which it does unmeasured if it has not.
            Otherwise without any cache, as on a first run in a new container.

    Raises:
        RuntimeError: it has failed, or has loaded fewer assets than there are models, or another number of checks.
        subprocess.TimeoutExpired: after 15 minutes; no process is left over.
    """
    fit(project, name)
    cache = project / ".cache"
    # In the cache, to be gone with it; the peers may have different versions of SQLMesh, which share no entries.
    filled = cache / f"filled-by-{name}"
    if not warm:
        shutil.rmtree(cache, ignore_errors=True)
    elif not filled.exists():
        _load(name, python, project, models)
        filled.touch()
    seconds = _load(name, python, project, models)
    filled.touch()
    return seconds


def fit(project: Path, name: str) -> None:
    """Gives the audits of each model different names, for a peer that cannot load the project otherwise.

    dg-sqlmesh names a check by the audit alone, and Dagster rejects two of one name on an asset. As many audits are left, all of
    them SQLMesh's own, so that there are no definitions to load; the rows of `projects.seed` pass them. It is done once: files that
    need no change keep their times, by which SQLMesh knows what it has cached.
    """
    if not PEERS[name].distinct_audits:
        return
    changed = False
    for file in sorted((project / "models").rglob("*.sql")):
        written = file.read_text()
        columns = iter(_NOT_NULL.findall(written))
        others = iter(_OTHER_AUDITS)
        # The first may stay; of more than there are others, Dagster says what is wrong.
        next(columns, None)
        fitted = written
        for column, other in zip(columns, others, strict=False):
            fitted = fitted.replace(f"not_null(columns := ({column}))", other.format(column))
        if fitted != written:
            file.write_text(fitted)
            changed = True
    if changed:
        shutil.rmtree(project / ".cache", ignore_errors=True)


def _load(name: str, python: Path, project: Path, models: int) -> float:
    program = textwrap.dedent(PEERS[name].program) + LOADED
    started = time.perf_counter()
    loaded = _run(python, program, str(project.absolute()))
    seconds = time.perf_counter() - started
    checks = models * PEERS[name].checks
    # More assets are right: dagster-sqlmesh makes one of each external table too.
    if not (isinstance(loaded["assets"], int) and loaded["assets"] >= models and loaded["checks"] == checks):
        raise RuntimeError(
            f"{name} should have loaded {models} assets or more and {checks} checks, not {loaded}: {project}"
        )
    return seconds


def _run(python: Path, program: str, *arguments: str) -> Mapping[str, object]:
    """The object in the last line that a program prints. Nothing of the caller's Dagster, SQLMesh or Python settings reaches it."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DAGSTER_", "SQLMESH_"))}
    env |= {"DAGSTER_DISABLE_TELEMETRY": "yes", "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true"}
    with subprocess.Popen(
        [python, "-I", "-c", program, *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=_LOAD_MAX_SECONDS)
        except BaseException:
            # SQLMesh loads models in processes of its own, which outlive this one if it alone is killed.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise RuntimeError(f"{python} ended with {process.returncode}:\n{output[-4000:]}\n{errors[-4000:]}")
    answer: Mapping[str, object] = json.loads(output.splitlines()[-1])
    return answer


def _install_step(command: Sequence[str | Path]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_MAX_SECONDS)
    except subprocess.CalledProcessError as error:
        print(error.stdout, error.stderr, sep="\n", file=sys.stderr)
        raise
