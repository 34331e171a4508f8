"""A Pipes context that is too large for one environment variable, in pieces.

Linux takes at most 128 KiB for a variable (``MAX_ARG_STRLEN``) and, by default, 2 MiB for all of a program's environment; Kubernetes
stores objects of at most 1.5 MiB.
"""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "SQLMESH_RUNNER_CONTEXT_"
MAX_VARIABLE_CHARS = 96 * 1024
"""A larger Pipes context goes in several environment variables."""
MAX_CONTEXT_CHARS = 1024 * 1024
"""A larger Pipes context is refused where it has to go by environment variables."""
_PARTS_KEY = "sqlmesh_pipes_parts"
_MAX_VARIABLES = 1024
"""More than any release makes: what is asked for by a number must not cost by that number."""


def split(encoded: str) -> tuple[dict[str, int], dict[str, str]]:
    """Parameters and variables that hold a context.

    Args:
        encoded: the context, as Dagster Pipes encodes parameters: ASCII.

    Returns:
        What is handed over in place of the context, and the variables that it is in; both empty where one variable does.

    Raises:
        ValueError: it is larger than `MAX_CONTEXT_CHARS`.
    """
    if len(encoded) > MAX_CONTEXT_CHARS:
        raise ValueError(f"{len(encoded):,} bytes, and {MAX_CONTEXT_CHARS:,} fit")
    if len(encoded) <= MAX_VARIABLE_CHARS:
        return {}, {}
    pieces = [encoded[at : at + MAX_VARIABLE_CHARS] for at in range(0, len(encoded), MAX_VARIABLE_CHARS)]
    return {_PARTS_KEY: len(pieces)}, {f"{PREFIX}{number}": piece for number, piece in enumerate(pieces)}


def join(params: Mapping[str, object], environ: Mapping[str, str]) -> str | None:
    """The context that was split; None where the parameters are of one that was not.

    Raises:
        ValueError: a variable is missing, or there cannot be so many.
    """
    count = params.get(_PARTS_KEY)
    if not isinstance(count, int):
        return None
    if not 0 < count <= _MAX_VARIABLES:
        raise ValueError(f"it is said to be in {count} variables, and 1 to {_MAX_VARIABLES} can be")
    names = [f"{PREFIX}{number}" for number in range(count)]
    missing = [name for name in names if name not in environ]
    if missing:
        raise ValueError(f"of its {count} variables {', '.join(missing)} is not set")
    return "".join(environ[name] for name in names)
