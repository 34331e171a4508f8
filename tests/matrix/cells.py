"""What is run of the contract suite, on which releases, and what came of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from matrix.environments import FOLDER, Environment
from matrix.versions import ROOT

Suite = Literal["runner", "orchestrator", "pairs", "releases"]
SUITES: tuple[Suite, ...] = ("runner", "orchestrator", "pairs", "releases")

RUNNER = ("tests/protocol", "tests/runner")
ORCHESTRATOR = ("tests/protocol", "tests/orchestrator")
CORE = ("tests/matrix/test_core.py",)
PAIR = (
    "tests/behaviour/test_behaviour.py",
    "tests/behaviour/test_deployment.py",
    "tests/behaviour/test_executor.py",
    "tests/behaviour/test_names.py",
    "tests/behaviour/test_projects.py",
    "tests/behaviour/test_runs.py",
    "tests/integration/test_component.py",
    "tests/integration/test_factories.py",
    "tests/integration/test_live.py",
    "tests/integration/test_outcomes.py",
    "tests/integration/test_partitions.py",
    "tests/integration/test_recorded.py",
    "tests/integration/test_schedules.py",
    "tests/integration/test_stream.py",
)
OTHER_RELEASE = ("tests/matrix/test_other_release.py",)
OTHER_MINOR = (
    *OTHER_RELEASE,
    *CORE,
    "tests/integration/test_outcomes.py",
    "tests/integration/test_live.py",
    "tests/integration/test_recorded.py",
)

_MAX_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Tests, and the environments that they run in.

    Attributes:
        name: what it is of, in words.
        tests: files and folders.
        runner: where SQLMesh is; the tests run there where there is no orchestrator.
        orchestrator: where Dagster is, and where the tests run.
    """

    name: str
    tests: Sequence[str]
    runner: Environment | None = None
    orchestrator: Environment | None = None

    @property
    def title(self) -> str:
        found = [
            f"{title} {each.version}"
            for title, each in (("SQLMesh", self.runner), ("Dagster", self.orchestrator))
            if each is not None
        ]
        return f"{self.name}: {', '.join(found)}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a cell.

    Attributes:
        passed: how many tests did. The same for failed and skipped; errors count as failed.
        seconds: how long it took.
        problem: why there are no such numbers, or why they are not all.
        failures: names of the tests that failed.
    """

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    problem: str | None = None
    failures: Sequence[str] = field(default_factory=tuple)

    @property
    def is_good(self) -> bool:
        return self.problem is None and self.failed == 0 and self.passed > 0


def run(cell: Cell, jobs: str) -> Outcome:
    """Run a cell's tests with as many workers."""
    where = cell.orchestrator or cell.runner
    assert where is not None
    report = FOLDER / "report.xml"
    report.unlink(missing_ok=True)
    command = [str(where.python), "-m", "pytest", *cell.tests, "-k", "not postgres", "-q", "-n", jobs]
    command += ["--dist", "loadgroup", "--junit-xml", str(report), "-p", "no:cacheprovider"]
    env = {name: value for name, value in os.environ.items() if name not in _NOT_THEIRS}
    if cell.runner is not None:
        env["SQLMESH_RUNNER_VENV"] = str(cell.runner.path)
    began = time.monotonic()
    with (FOLDER / "pytest.log").open("ab") as log:
        status = _status(command, env, log.fileno())
    seconds = time.monotonic() - began
    if not report.exists():
        return Outcome(
            seconds=seconds, problem=f"pytest ended with {status} and no report: {FOLDER / 'pytest.log'}"
        )
    outcome = read_report(report, seconds)
    if status != "status 0" and outcome.problem is None and outcome.failed == 0:
        return Outcome(
            passed=outcome.passed,
            skipped=outcome.skipped,
            seconds=seconds,
            problem=f"pytest ended with {status}",
        )
    return outcome


_NOT_THEIRS = ("BEHAVIOUR_EVERYWHERE", "DAGSTER_HOME", "PYTHONPATH", "VIRTUAL_ENV")


def _status(command: Sequence[str], env: dict[str, str], log: int) -> str:
    """What a command ended with. What it started ends with it."""
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        return f"status {process.wait(timeout=_MAX_SECONDS)}"
    except subprocess.TimeoutExpired:
        return f"nothing after {_MAX_SECONDS} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read_report(path: Path, seconds: float) -> Outcome:
    """What pytest's report says."""
    cases = list(ET.parse(path).getroot().iter("testcase"))
    failures = list(_failures(cases))
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - skipped - len(failures)
    problem = None if passed or failures else "no test was run"
    return Outcome(
        passed=passed,
        failed=len(failures),
        skipped=skipped,
        seconds=seconds,
        problem=problem,
        failures=tuple(failures),
    )


def _failures(cases: Sequence[ET.Element]) -> Iterator[str]:
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            yield f"{case.get('classname')}::{case.get('name')}"
