"""Fixtures of the security tests."""

from support.postgres import postgres_server  # noqa: F401 - pytest finds fixtures by name
from support.warehouse import instance, make_warehouse, runner_bin  # noqa: F401 - pytest finds fixtures by name
