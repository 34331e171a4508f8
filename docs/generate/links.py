"""Links between the project's Markdown files, as GitHub follows them and as the site has to."""

from __future__ import annotations

import os.path
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^ {0,12}(?P<fence>`{3,}|~{3,})")
_HEADING = re.compile(r"^#{1,6} +(?P<text>.+?)(?: +#+)? *$")
_INLINE = re.compile(
    r"(?P<code>(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|(?P<before>\]\()(?P<target>[^()\s]+)(?=\)|\s+\")"
    r"|(?P<defines>^\[[^\]]+\]:\s+)(?P<defined>\S+)"
    r"|(?P<attribute>\b(?:src|href)=\")(?P<attributed>[^\"]+)"
)
_ANCHOR = re.compile(r'<a (?:id|name)="([^"]+)"')
_MARKUP = re.compile(r"!?\[(?P<text>[^\]]*)\]\([^)]*\)|`|\*|<[^>]+>")
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:", re.I)


class Link(NamedTuple):
    """A link and its line, counted from 1."""

    line: int
    target: str


class BrokenLinkError(Exception):
    """A link leads nowhere."""


def prose(markdown: str) -> Iterator[tuple[int, str]]:
    """The lines that are no code block, with their numbers."""
    fence: str | None = None
    for number, line in enumerate(markdown.splitlines(), 1):
        match = _FENCE.match(line)
        if fence is None and match:
            fence = match["fence"]
        elif fence is None:
            yield number, line
        elif match and match["fence"].startswith(fence) and not line.strip().strip(fence[0]):
            fence = None


def links(markdown: str) -> list[Link]:
    """The links of a text, in order: inline ones, images, definitions, and attributes of HTML."""
    return [
        Link(number, match["target"] or match["defined"] or match["attributed"])
        for number, line in prose(markdown)
        for match in _INLINE.finditer(line)
        if not match["code"]
    ]


def anchors(markdown: str) -> set[str]:
    """What links can name in a text: GitHub's names of its headings, and the anchors that it sets."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for _, line in prose(markdown):
        found.update(_ANCHOR.findall(line))
        if match := _HEADING.match(line):
            text = _MARKUP.sub(lambda markup: markup["text"] or "", match["text"])
            name = "".join(
                character
                for character in unicodedata.normalize("NFC", text).lower().strip().replace(" ", "-")
                if character.isalnum() or character in "-_"
            )
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


def is_absolute(target: str) -> bool:
    """Whether a link says where it leads by itself."""
    return bool(_ABSOLUTE.match(target))


def follow(source: Path, target: str) -> Path:
    """The file or folder of the project that a relative link leads to; the anchor is not looked at.

    Raises:
        BrokenLinkError: it leads out of the project, or to nothing.
    """
    path = target.partition("#")[0]
    found = Path(os.path.normpath(source.parent / path)) if path else source
    if not found.is_relative_to(ROOT) or not found.exists():
        raise BrokenLinkError(f"{source.relative_to(ROOT)} links to {target}, and there is nothing")
    return found


def rewritten(markdown: str, source: Path, page: Path, repository: str) -> str:
    """A page's text with the links that leave the site led to the repository.

    Args:
        markdown: the text.
        source: the file that it is from; its links are relative to it.
        page: the file that the page stands for: the same, but for one that is taken into the site from elsewhere.
        repository: the repository's URL.

    Raises:
        BrokenLinkError: a link that leaves the site leads to nothing. Those within are MkDocs' to check.
    """

    def lead(target: str) -> str:
        if is_absolute(target) or target.startswith(("#", "/")):
            return target
        path, sign, anchor = target.partition("#")
        within = Path(os.path.normpath(source.parent / path))
        if within.is_relative_to(DOCS) and not within.is_relative_to(DOCS / "generate"):
            return os.path.relpath(within, page.parent) + sign + anchor if source != page else target
        found = follow(source, target)
        kind = "tree" if found.is_dir() else "blob"
        return f"{repository}/{kind}/main/{found.relative_to(ROOT).as_posix()}{sign}{anchor}"

    return _each_link(markdown, lead)


def _each_link(markdown: str, change: Callable[[str], str]) -> str:
    lines = markdown.splitlines()
    for number, line in prose(markdown):
        lines[number - 1] = _INLINE.sub(lambda match: _changed(match, change), line)
    return "\n".join(lines) + "\n"


def _changed(match: re.Match[str], change: Callable[[str], str]) -> str:
    if match["target"]:
        return match["before"] + change(match["target"])
    if match["defined"]:
        return match["defines"] + change(match["defined"])
    if match["attributed"]:
        return match["attribute"] + change(match["attributed"])
    return match[0]
