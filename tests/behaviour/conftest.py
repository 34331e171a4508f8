"""Fixtures of the behaviour suite, shared with the integration tests."""

from support.warehouse import (  # noqa: F401 - pytest finds fixtures by name
    instance,
    make_warehouse,
    postgres_server,
    runner_bin,
)
