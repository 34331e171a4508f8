"""Signatures of SQLMesh's functions, as they were read, and as the installed version has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, TypeAlias

from packaging.version import Version

Declared: TypeAlias = "str | Mapping[str, str | None]"
"""A signature; or, where SQLMesh's versions differ, by the version since which it is so, the oldest first. None: it has none."""


def spelled(function: Callable[..., Any]) -> str:
    """Names and kinds of the parameters, as in a declaration; ``=`` stands where there is a default."""
    words, only_by_name = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            only_by_name = True
            words.append(f"*{parameter.name}")
        elif parameter.kind is parameter.VAR_KEYWORD:
            words.append(f"**{parameter.name}")
        else:
            if parameter.kind is parameter.KEYWORD_ONLY and not only_by_name:
                only_by_name = True
                words.append("*")
            words.append(parameter.name + ("" if parameter.default is parameter.empty else "="))
    return ", ".join(word for word in words if word != "self")


def declared_for(declared: Declared, installed: str | None = None) -> str | None:
    """What is declared for the installed SQLMesh, or another version."""
    if isinstance(declared, str):
        return declared
    here = Version(installed or version("sqlmesh"))
    return [signature for since, signature in declared.items() if Version(since) <= here][-1]
