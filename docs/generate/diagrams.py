"""The Mermaid diagrams in the project's Markdown files: their syntax is checked by Mermaid's own parser, which needs Node.js.

    python -m docs.generate.diagrams

The modules `mermaid` and `jsdom` are looked for in `MODULES`; `make docs` puts them there where npm is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docs.generate.links import DOCS, ROOT

MODULES = ROOT / ".venv-docs" / "node_modules"
BUNDLE = MODULES / "mermaid" / "dist" / "mermaid.min.js"
"""Mermaid for browsers: the site has a copy where there is one, and else asks a public server for it."""
_PARSER = Path(__file__).parent / "parse_diagrams.mjs"
_SECONDS = 120


class Diagram(NamedTuple):
    """A diagram, and where it stands."""

    place: str
    text: str


def diagrams() -> Iterator[Diagram]:
    """All of them, in docs/ and in the Markdown files of the root."""
    for path in sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")]):
        lines: list[str] | None = None
        begin = 0
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if lines is None and line.strip() == "```mermaid":
                lines, begin = [], number
            elif lines is not None and line.strip() == "```":
                yield Diagram(f"{path.relative_to(ROOT)}:{begin}", "\n".join(lines))
                lines = None
            elif lines is not None:
                lines.append(line)


def obstacle() -> str | None:
    """Why the diagrams cannot be parsed here; None where they can."""
    if shutil.which("node") is None:
        return "there is no Node.js"
    missing = [name for name in ("mermaid", "jsdom") if not (MODULES / name).is_dir()]
    return f"{MODULES.relative_to(ROOT)} has no {' and no '.join(missing)}" if missing else None


def faults(found: list[Diagram]) -> list[str]:
    """What Mermaid says of diagrams that it cannot parse, with their places."""
    process = subprocess.run(
        ["node", str(_PARSER), str(MODULES)],  # noqa: S607 - the one on the PATH
        input=json.dumps([diagram.text for diagram in found]),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if process.returncode != 0:
        raise RuntimeError(f"Mermaid's parser ended with {process.returncode}: {process.stderr}")
    said = json.loads(process.stdout)
    return [f"{diagram.place}: {error}" for diagram, error in zip(found, said, strict=True) if error]


def main() -> int:
    found = list(diagrams())
    reason = obstacle()
    if reason is not None:
        print(f"{len(found)} diagrams are not checked: {reason}.", file=sys.stderr)
        return 0
    wrong = faults(found)
    print("\n".join(wrong) or f"{len(found)} diagrams can be parsed.", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
