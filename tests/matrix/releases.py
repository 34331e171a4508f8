"""Other releases of this project, made of the tree: what comes to pass once two of them are out.

There is one protocol yet, 1.0. So the next release is made as its rules allow (``shared_protocol/.../version.py``):

- ``1.1``, a minor: a kind of event that 1.0 does not know, and a key more in an event, in the manifest, in its models, in the request that
  goes to the runner, and in the report of what is due. All of it is sent. Sets of literals are closed within a major, and stay.
- ``2.0``, a major: the version alone, for it is to be refused by that.
"""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Literal

from matrix.environments import FOLDER
from matrix.versions import ROOT

Protocol = Literal["1.1", "2.0"]
RELEASES: dict[Protocol, str] = {"1.1": "0.2.0", "2.0": "1.0.0"}
"""The version of the distribution that speaks each protocol."""

_PROTOCOL = "shared_protocol/sqlmesh_pipes_protocol"
_NEW_KEY = 'said_since_1_1: str = "said"'
_NEW_KEYS = {
    f"{_PROTOCOL}/events.py": ["RunStarted", "ModelExecuted", "RunFinished"],
    f"{_PROTOCOL}/manifest.py": ["Model", "Manifest"],
    f"{_PROTOCOL}/request.py": ["RunRequest"],
    f"{_PROTOCOL}/due.py": ["DueReport"],
}
_NEW_EVENT = '''

@dataclass(frozen=True, kw_only=True)
class RunWelcomed:
    """An event that is told since protocol 1.1."""

    kind: ClassVar[str] = "run_welcomed"

    words: str


Event = Event | RunWelcomed
'''


def sources(protocol: Protocol) -> Path:
    """The sources of the release that speaks another protocol, made anew.

    Raises:
        ValueError: the tree is no longer such that they can be made of it; it says of which file.
    """
    made = FOLDER / f"sources-{protocol}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("orchestrator", "runner", "shared_protocol"):
        shutil.copytree(ROOT / name, made / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, made / name)
    _replace(made / "pyproject.toml", r'^version = ".*"$', f'version = "{RELEASES[protocol]}"')
    _replace(
        made / _PROTOCOL / "version.py", r'^PROTOCOL_VERSION = ".*"$', f'PROTOCOL_VERSION = "{protocol}"'
    )
    if protocol == "1.1":
        _add_to_protocol(made)
    return made


def _add_to_protocol(made: Path) -> None:
    for name, classes in _NEW_KEYS.items():
        path = made / name
        text = path.read_text()
        for each in classes:
            text = with_key(text, each, _NEW_KEY)
        path.write_text(text)
    events = made / _PROTOCOL / "events.py"
    events.write_text(events.read_text() + _NEW_EVENT)
    # The runner tells it first of all: its one way out is `_emit`.
    _replace(
        made / "runner/sqlmesh_pipes_runner/run.py",
        r"^( +)envelope = self\._writer\.emit\(event\)$",
        r"""\1if event.kind == "run_started":
\1    from sqlmesh_pipes_protocol.events import RunWelcomed

\1    self._writer.emit(RunWelcomed(words="Welcome."))
\1envelope = self._writer.emit(event)""",
    )
    # The orchestrator matches events exhaustively.
    mapping = made / "orchestrator/dagster_sqlmesh_pipes/mapping.py"
    _replace(mapping, r"\| UnknownEvent\(\)$", "| UnknownEvent() | RunWelcomed()")
    _replace(mapping, r"^    RunStarted,$", "    RunStarted,\n    RunWelcomed,")


def with_key(text: str, name: str, declaration: str) -> str:
    """A module's text in which a dataclass has a field more, before the others: all are given by name.

    Raises:
        ValueError: there is no such class.
    """
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            first = next(
                each
                for each in statement.body
                if isinstance(each, ast.AnnAssign) and "ClassVar" not in ast.unparse(each.annotation)
            )
            lines = text.splitlines(keepends=True)
            return "".join([*lines[: first.lineno - 1], f"    {declaration}\n", *lines[first.lineno - 1 :]])
    raise ValueError(f"there is no class {name}")


def _replace(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"{path.relative_to(FOLDER)} has {pattern!r} {count} times: see matrix/releases.py")
    path.write_text(text)
