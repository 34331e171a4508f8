"""The digest of a project's files: whether a manifest is still that of the project, told without SQLMesh."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_SUFFIXES = frozenset({".sql", ".py", ".yaml", ".yml", ".csv", ".json", ".env"})
_NAMES = frozenset({".env"})
_LEFT_OUT = frozenset({"__pycache__", "node_modules"})
_PIECE = 1 << 20
_LEFT_OUT_AT_THE_TOP = frozenset({"logs", "target", "tests"})  # deeper down they may be folders of models


def project_digest(projects: Sequence[Path]) -> str:
    """SHA-256, as hexadecimal digits, over the names and contents of what defines the projects.

    Counted are SQL, Python, YAML, CSV, JSON and .env files, in the order of their names. Left out are caches,
    hidden folders, manifests themselves, and the project's own folders of logs, tests and build results.
    """
    digest = hashlib.sha256()
    for project in projects:
        for path in sorted(_files(project)):
            digest.update(f"{path.relative_to(project).as_posix()}\0".encode("utf-8", "surrogateescape"))
            digest.update(_content_digest(path))
        digest.update(b"\0\0")
    return digest.hexdigest()


def _content_digest(path: Path) -> bytes:
    """In pieces: a seed may be larger than what a code location has of memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.digest()


def _files(project: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(project):
        left_out = _LEFT_OUT | _LEFT_OUT_AT_THE_TOP if Path(folder) == project else _LEFT_OUT
        folders[:] = [name for name in folders if name not in left_out and not name.startswith(".")]
        for name in names:
            path = Path(folder) / name
            counted = path.suffix in _SUFFIXES or name in _NAMES
            if counted and not name.endswith("sqlmesh_manifest.json") and path.is_file():
                yield path
