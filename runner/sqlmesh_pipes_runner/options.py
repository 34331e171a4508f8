"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEFAULT_LOCK_SECONDS = 3600.0
"""How long a run waits for another run of its environment."""

FailOn = Literal["skipped-upstream", "warn-audit", "nothing"]
"""What makes the exit status that of a failure, or not: see `RunOptions.fail_on`."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What to run; the fields mirror the options of ``sqlmesh run``.

    Attributes:
        projects: directories of SQLMesh projects.
        environment: None for the project's default.
        gateway: None for the project's default.
        config: name of a config object in config.py; None for ``config``.
        select_models: SQLMesh's selection expressions; None for all.
        exact_models: FQNs, instead of expressions.
        auto_upstream: run what the selected models read as well.
        fail_on: stricter, or more lenient, than that models and blocking audits which fail make the run exit with 1.
            ``skipped-upstream``: so do models that were due and had to wait for others, or for a signal. ``warn-audit``: so do
            audits that do not block. ``nothing``: the run exits with 0, and its events and reports tell what failed.
        dotenv: a file of variables, instead of the project's .env.
        concurrent_tasks: how many models are evaluated at once; None for what the connection is configured with.
    """

    projects: tuple[Path, ...]
    environment: str | None = None
    gateway: str | None = None
    config: str | None = None
    select_models: tuple[str, ...] | None = None
    exact_models: tuple[str, ...] | None = None
    auto_upstream: bool = True
    ignore_cron: bool = False
    start: str | None = None
    end: str | None = None
    execution_time: str | None = None
    skip_janitor: bool = False
    concurrent_tasks: int | None = None
    fail_on: tuple[FailOn, ...] = ()
    dotenv: Path | None = None
