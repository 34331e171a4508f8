"""Where a SQLMesh project is and what is known of it, without SQLMesh."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import dagster as dg

from dagster_sqlmesh_pipes.compat import is_dev
from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers import Launcher, RunnerCall, SubprocessLauncher, answer
from sqlmesh_pipes_protocol.errors import ManifestError, ProtocolError
from sqlmesh_pipes_protocol.manifest import (
    DEFAULT_MANIFEST_NAME,
    Manifest,
    load_manifest,
    read_manifest,
    staleness,
    write_manifest,
)

_PREPARE_SECONDS = 900.0
_logger = logging.getLogger(__name__)


class SQLMeshProject:
    """A SQLMesh project as a code location refers to it.

    Args:
        project_dir: the directory with the project's configuration; several for a multi-repository project.
        gateway: a gateway of the project; None for the project's default.
        environment: the SQLMesh environment to run.
        manifest_path: where the manifest stands; by default ``sqlmesh_manifest.json`` in the project directory.
        launcher: starts the runner that makes the manifest in development, and by default the one that runs the models.
    """

    def __init__(
        self,
        project_dir: str | Path | Sequence[str | Path],
        *,
        gateway: str | None = None,
        environment: str = "prod",
        manifest_path: str | Path | None = None,
        launcher: Launcher | None = None,
    ) -> None:
        if not project_dir:
            raise ValueError("SQLMeshProject needs the project's directory, and was given none.")
        directories = [project_dir] if isinstance(project_dir, (str, Path)) else project_dir
        self.project_dirs = tuple(Path(directory).absolute() for directory in directories)
        self._gateway = gateway
        self.environment = environment
        self.manifest_path = (
            Path(manifest_path).absolute() if manifest_path else self.project_dir / DEFAULT_MANIFEST_NAME
        )
        self.launcher = launcher or SubprocessLauncher()

    @property
    def gateway(self) -> str | None:
        """The gateway as it was given, which may be a `dagster.EnvVar`."""
        return self._gateway

    @property
    def _named_gateway(self) -> str | None:
        return self._gateway.get_value() if isinstance(self._gateway, dg.EnvVar) else self._gateway

    def pool_name(self, environment: str | None = None) -> str:
        """The Dagster pool of the steps that run the project: ``sqlmesh_warehouse_prod``, with the gateway where one is given.

        Projects whose directories have one name share a pool; give `sqlmesh_assets` another one where they are not to.

        Args:
            environment: another one than the project's.
        """
        environment = environment or self.environment
        if isinstance(environment, dg.EnvVar):
            environment = environment.get_value() or environment.env_var_name
        parts = ("sqlmesh", self.project_dir.name, self._named_gateway, environment)
        return re.sub(r"[^A-Za-z0-9_.-]", "_", "_".join(filter(None, parts)))

    @property
    def project_dir(self) -> Path:
        """The (first) project directory."""
        return self.project_dirs[0]

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, read once.

        Raises:
            ManifestError: there is none, or it cannot be used; the message has the command that writes it.

        Warns:
            UserWarning: under ``dagster dev`` or ``dg dev``, the project's files have changed since.
        """
        manifest = load_manifest(self.manifest_path, self.project_dirs, self._named_gateway)
        if is_dev() and (reason := self._staleness(manifest)):
            warnings.warn(f"{reason} Or call prepare_if_dev() on the project.", stacklevel=2)
        return manifest

    def prepare_if_dev(self) -> SQLMeshProject:
        """Under ``dagster dev`` or ``dg dev``, bring the manifest up to date with the project's files; else do nothing.

        In production the manifest is made once, with the image or the deployment: ``sqlmesh-runner manifest``.

        Returns:
            This project, to be chained.

        Raises:
            ManifestError: the runner cannot make it; the message has SQLMesh's own words.
        """
        return self.prepare() if is_dev() else self

    def prepare(self) -> SQLMeshProject:
        """Bring the manifest up to date with the project's files, through the launcher. Does nothing if it is.

        Raises:
            ManifestError: the runner cannot make it; the message has SQLMesh's own words.
        """
        try:
            reason = self._staleness(
                load_manifest(self.manifest_path, self.project_dirs, self._named_gateway)
            )
        except ManifestError as error:
            reason = str(error)
        if reason is None:
            return self
        _logger.info("The manifest is made anew: %s", reason)
        arguments = ["manifest", "--output", "-"]
        for directory in self.project_dirs:
            arguments += ["--project", str(directory)]
        if self._named_gateway is not None:
            arguments += ["--gateway", self._named_gateway]
        call = RunnerCall(arguments=arguments, env={}, project_dir=self.project_dir)
        try:
            made = read_manifest(answer(self.launcher, call, _PREPARE_SECONDS))
            write_manifest(made, self.manifest_path)
        except (LaunchError, ProtocolError) as error:
            raise ManifestError(f"The manifest of {self.project_dir} cannot be made: {error}") from error
        except OSError as error:
            raise ManifestError(
                f"The manifest cannot be written to {self.manifest_path}: {error.strerror}."
            ) from error
        self.__dict__.pop("manifest", None)
        return self

    def _staleness(self, manifest: Manifest) -> str | None:
        if not all(directory.is_dir() for directory in self.project_dirs):
            return None  # the runner's project is elsewhere: nothing to compare with
        return staleness(manifest, self.manifest_path, self.project_dirs, self._named_gateway)

    def __repr__(self) -> str:
        return f"SQLMeshProject({str(self.project_dir)!r}, environment={self.environment!r})"
