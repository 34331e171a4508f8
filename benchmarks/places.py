"""Where benchmarks work: projects that are deployed and have work to do, each made once, and the commands of both environments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import projects
from benchmarks.rows import Rounds
from sqlmesh_pipes_protocol.framing import EventStream, parse_line

ROOT = Path(__file__).parents[1]
RUNNER_BIN = Path(os.environ.get("SQLMESH_RUNNER_VENV", ROOT / ".venv-runner")) / "bin"
DEPLOYED_UP_TO = "2026-03-01"
"""What the models have been filled up to. All have more to do since, whatever their crons."""
_MAX_SECONDS = 1800
LOADED = """
repository = defs.get_repository_def()
repository.get_all_jobs()
graph = defs.resolve_asset_graph()
import json
print(json.dumps({"assets": len(graph.materializable_asset_keys), "checks": len(graph.asset_check_keys),
                  "sqlmesh": "sqlmesh" in sys.modules}))
"""
"""What a program does that has made ``defs``: all that Dagster asks of a code location, and tells of it as JSON. It has imported ``sys``."""
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"


@dataclass(frozen=True)
class Project:
    """A deployed SQLMesh project, with its manifest beside it.

    Attributes:
        path: of the project; its database is in it.
        models: how many.
    """

    path: Path
    models: int

    @property
    def database(self) -> Path:
        return self.path / "warehouse.duckdb"

    @property
    def size(self) -> str:
        return f"{self.models:,} models"

    def renew(self) -> None:
        """The state in which everything is due."""
        shutil.copy(self.path / "planned.duckdb", self.database)

    def runner(self, *arguments: str) -> float:
        """Seconds of the runner, its events in ``events.jsonl``. `RuntimeError` where models fail."""
        (self.path / "events.jsonl").unlink(missing_ok=True)
        command = [RUNNER_BIN / "sqlmesh-runner", "run", "prod", "--events", "events.jsonl", *arguments]
        return timed(command, self.path)[0]

    def sqlmesh(self) -> float:
        """Seconds of plain ``sqlmesh run``."""
        return timed([RUNNER_BIN / "sqlmesh", "run", "prod"], self.path)[0]

    def status(self) -> str:
        """How the runner's last run ended, by its last event."""
        stream = EventStream()
        for line in (self.path / "events.jsonl").read_bytes().splitlines():
            value = parse_line(line)
            if value is not None:
                stream.receive(value)
        return stream.finished.status if stream.finished is not None else "died"


@dataclass
class Place:
    """A folder for everything that benchmarks make.

    Attributes:
        folder: it is left to the caller to remove it.
        quick: only so much as shows that a benchmark works.
    """

    folder: Path
    quick: bool = False
    _projects: dict[int, Project] = field(default_factory=dict)

    def project(self, models: int) -> Project:
        """A project of so many models; the same each time, so `renew` it first."""
        if models not in self._projects:
            self._projects[models] = self._made(models)
        return self._projects[models]

    def _made(self, models: int) -> Project:
        project = Project(self.folder / f"project-{models}", models)
        say(f"deploys a project of {models:,} models")
        projects.write_project(project.path, models)
        seed(project.path, models, RUNNER_BIN / "python")
        plan = ["plan", "prod", "--auto-apply", "--no-prompts", "--execution-time", DEPLOYED_UP_TO]
        call([RUNNER_BIN / "sqlmesh", *plan], project.path)
        call([RUNNER_BIN / "sqlmesh-runner", "manifest"], project.path)
        shutil.copy(project.database, project.path / "planned.duckdb")
        return project


def say(sentence: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {sentence}", file=sys.stderr, flush=True)


def interleaved(rounds: int, sides: Mapping[str, Callable[[], float]]) -> Rounds:
    """Seconds of each side, taken in turns; who goes first changes with each round."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            taken[name].append(sides[name]())
    return Rounds(taken)


def seed(project: Path, models: int, python: Path) -> None:
    """Make what a project reads from outside, by an interpreter that has DuckDB."""
    program = "import duckdb, sys; duckdb.connect('warehouse.duckdb').execute(sys.stdin.read())"
    call([python, "-c", program], project, standard_input=projects.seed(models))


def timed(command: Sequence[str | Path], folder: Path) -> tuple[float, str]:
    """How long a process takes, from its start to its end, in seconds; and what it says."""
    started = time.perf_counter()
    said = call(command, folder)
    return time.perf_counter() - started, said


def call(command: Sequence[str | Path], folder: Path, *, standard_input: str = "") -> str:
    """What a process writes to standard output; raises `RuntimeError` with all it said if it fails."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        input=standard_input,
        env={**os.environ, "PYTHONPATH": str(ROOT) if "-m" in command else ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=_MAX_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
    return done.stdout
