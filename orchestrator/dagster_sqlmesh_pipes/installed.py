"""Which Dagster is installed, where that decides what this package can do. Imports nothing else of it: releases differ in what there is."""

import re

import dagster

_RELEASE = re.match(r"(\d+)\.(\d+)\.", dagster.__version__)


def is_older_than(major: int, minor: int) -> bool:
    """Whether Dagster is of an earlier release. Not so of its own working copies, whose version is none."""
    return _RELEASE is not None and (int(_RELEASE[1]), int(_RELEASE[2])) < (major, minor)
