"""Where a model's file is, for reports that point at it: from the manifest where there is one, else by looking for the name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from sqlmesh_pipes_protocol.errors import ManifestError
from sqlmesh_pipes_protocol.manifest import DEFAULT_MANIFEST_NAME, load_manifest

_NAMED = re.compile(
    r"""\bMODEL\s*\(\s*(?:--[^\n]*\s*|/\*.*?\*/\s*)*name\s+([\w."`\-]+)   # MODEL (name schema.table
    |@model\(\s*(?:name\s*=\s*)?["']([\w.\-]+)["']                          # @model("schema.table"
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_HEAD = 20_000


class SourceFiles:
    """The files of projects' models.

    Args:
        projects: the project directories.
        root: what paths are given from; by default GITHUB_WORKSPACE, else the current directory.
    """

    def __init__(self, projects: Sequence[Path], root: Path | None = None) -> None:
        self._projects = [project.absolute() for project in projects]
        self._root = (root or Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd())).absolute()

    def of(self, fqn: str) -> str | None:
        """The path of a model's file; None where it is not found, as where a macro makes its name, or outside of the root."""
        path = self._from_manifest.get(fqn)
        if path is None:
            name = fqn.replace('"', "").lower()
            path = self._by_name.get(name) or self._by_name.get(name.partition(".")[2])
        if path is None:
            return None
        # Either may have been reached by links.
        for file, root in ((path, self._root), (path.resolve(), self._root.resolve())):
            relative = Path(os.path.relpath(file, root))
            if ".." not in relative.parts:
                return relative.as_posix()
        return None

    @cached_property
    def _from_manifest(self) -> dict[str, Path]:
        try:
            manifest = load_manifest(self._projects[0] / DEFAULT_MANIFEST_NAME)
        except (ManifestError, OSError):
            return {}  # nobody was promised that there is one
        return {
            model.fqn: path
            for model in manifest.models
            if model.path and (path := self._existing(model.path)) is not None
        }

    def _existing(self, path: str) -> Path | None:
        return next((full for project in self._projects if (full := project / path).is_file()), None)

    @cached_property
    def _by_name(self) -> dict[str, Path]:
        return {
            (match[1] or match[2]).replace('"', "").replace("`", "").lower(): path
            for path in self._candidates()
            for match in _NAMED.finditer(_head_of(path))
        }

    def _candidates(self) -> Iterator[Path]:
        for project in self._projects:
            for suffix in ("sql", "py"):
                yield from sorted((project / "models").rglob(f"*.{suffix}"))


def _head_of(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_HEAD)
    except OSError:
        return ""  # the annotation then has no file
