"""Fixtures of the tests of what is published."""

from support.distributions import built, environment  # noqa: F401 - pytest finds fixtures by name
