"""Fixtures of the fault suite: each fault is injected for real, and nothing may be left running after it."""

import pytest

from support.engine import containers, docker_engine, docker_host  # noqa: F401 - pytest finds fixtures by name
from support.postgres import postgres_server  # noqa: F401 - pytest finds fixtures by name
from support.processes import no_process_left  # noqa: F401 - pytest finds fixtures by name
from support.warehouse import instance, make_warehouse, runner_bin  # noqa: F401 - pytest finds fixtures by name


@pytest.fixture(autouse=True)
def _nothing_left_running(no_process_left: None) -> None:  # noqa: F811 - the fixture
    """Of any test here."""
