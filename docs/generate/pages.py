"""What stands on a page in place of ``<!-- generated: … -->``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from docs.generate import command_line, configuration, decisions, protocol, variables

SOURCES: Mapping[str, Mapping[str, Callable[..., str]]] = {
    "protocol": protocol.PARTS,
    "configuration": configuration.PARTS,
    "command-line": command_line.PARTS,
    "variables": variables.PARTS,
    "decisions": decisions.PARTS,
}
_MARK = re.compile(
    r"^<!-- generated: (?P<source>[\w-]+) (?P<part>[\w-]+)(?: (?P<argument>[\w-]+))? -->$", re.M
)


def marks(markdown: str) -> list[tuple[str, str, str | None]]:
    """What a page asks for: the source, its part, and what of it."""
    return [(match["source"], match["part"], match["argument"]) for match in _MARK.finditer(markdown)]


def filled(markdown: str) -> str:
    """A page with all that it asks for.

    Raises:
        KeyError: it asks for what there is not.
    """
    return _MARK.sub(lambda match: _made(match["source"], match["part"], match["argument"]), markdown)


def _made(source: str, part: str, argument: str | None) -> str:
    make = SOURCES[source][part]
    return make(argument) if argument else make()
