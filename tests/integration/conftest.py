"""Fixtures of the integration tests, shared with the behaviour suite."""

from support.warehouse import (  # noqa: F401 - pytest finds fixtures by name
    instance,
    make_warehouse,
    planned_shop,
    postgres_server,
    runner_bin,
    shop,
)
