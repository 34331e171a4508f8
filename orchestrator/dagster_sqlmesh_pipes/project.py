"""Where a SQLMesh project is and what is known of it, without SQLMesh."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from sqlmesh_pipes_protocol.manifest import DEFAULT_MANIFEST_NAME, Manifest, load_manifest


class SQLMeshProject:
    """A SQLMesh project as a code location refers to it.

    Args:
        project_dir: the directory with the project's configuration; several for a multi-repository project.
        gateway: a gateway of the project; None for the project's default.
        environment: the SQLMesh environment to run.
        manifest_path: where the manifest stands; by default ``sqlmesh_manifest.json`` in the project directory.
    """

    def __init__(
        self,
        project_dir: str | Path | list[str | Path],
        *,
        gateway: str | None = None,
        environment: str = "prod",
        manifest_path: str | Path | None = None,
    ) -> None:
        directories = project_dir if isinstance(project_dir, list) else [project_dir]
        self.project_dirs = tuple(Path(directory).absolute() for directory in directories)
        self.gateway = gateway
        self.environment = environment
        self.manifest_path = (
            Path(manifest_path).absolute() if manifest_path else self.project_dir / DEFAULT_MANIFEST_NAME
        )

    @property
    def project_dir(self) -> Path:
        """The (first) project directory."""
        return self.project_dirs[0]

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, read once.

        Raises:
            ManifestError: there is none, or it cannot be used; the message has the command that writes it.
        """
        return load_manifest(self.manifest_path)

    def __repr__(self) -> str:
        return f"SQLMeshProject({str(self.project_dir)!r}, environment={self.environment!r})"
