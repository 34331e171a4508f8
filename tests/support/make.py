"""The commands of the Makefile, called as by hand."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(
    target: str, *variables: str, timeout: float, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a target to its end, whatever that is; nothing of a `make` or a Dagster around the tests is handed on.

    Args:
        variables: as ``NAME=value``, on the command line.
        timeout: in seconds.
        env: variables of the environment besides.
    """
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "DAGSTER_"))
    }
    return subprocess.run(
        ["make", target, *variables],
        cwd=ROOT,
        env={**inherited, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def table(printed: str) -> list[list[str]]:
    """The rows of the table that a demo has printed: asset, status, and what else stands there."""
    rows = printed.partition("-" * 120)[2].partition("\n\n")[0]
    return [row.split(maxsplit=2) for row in rows.splitlines() if row]
