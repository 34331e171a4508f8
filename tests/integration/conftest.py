"""Fixtures of the integration tests, shared with the behaviour suite."""

from support.engine import containers, docker_engine, docker_host  # noqa: F401 - pytest finds fixtures by name
from support.postgres import postgres_server  # noqa: F401 - pytest finds fixtures by name
from support.warehouse import (  # noqa: F401 - pytest finds fixtures by name
    instance,
    make_warehouse,
    planned_shop,
    runner_bin,
    shop,
)
