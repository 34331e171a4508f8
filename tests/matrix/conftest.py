"""Fixtures of the tests with a runner of another release."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from behaviour.conftest import stage  # noqa: F401 - pytest finds fixtures by name
from sqlmesh_pipes_protocol import PROTOCOL_VERSION
from support.warehouse import (  # noqa: F401 - pytest finds fixtures by name
    instance,
    make_warehouse,
    planned_shop,
    runner_bin,
    shop,
)


@pytest.fixture(scope="session")
def theirs(runner_bin: Path) -> str:  # noqa: F811 - the fixture
    """The protocol that the runner speaks, which is another than ours."""
    command = [str(runner_bin / "sqlmesh-runner"), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"protocol ([0-9.]+),", done.stdout)
    assert found is not None, done.stdout
    if found[1] == PROTOCOL_VERSION:
        pytest.skip("the runner is of this release: `make matrix` brings one of another")
    return found[1]


@pytest.fixture
def other_minor(theirs: str) -> str:
    """The protocol that the runner speaks, of our major."""
    if theirs.partition(".")[0] != PROTOCOL_VERSION.partition(".")[0]:
        pytest.skip("the runner speaks another major")
    return theirs


@pytest.fixture
def other_major(theirs: str) -> str:
    """The protocol that the runner speaks, of another major."""
    if theirs.partition(".")[0] == PROTOCOL_VERSION.partition(".")[0]:
        pytest.skip("the runner speaks our major")
    return theirs
