"""SQLMesh under Dagster, out of process: models are assets, audits are checks, reported while SQLMesh runs."""

from dagster_sqlmesh_pipes.assets import sqlmesh_assets
from dagster_sqlmesh_pipes.errors import DuplicateAssetKeyError, LaunchError, SQLMeshPipesError
from dagster_sqlmesh_pipes.launch import Launcher, Runner, RunnerCall, SubprocessLauncher
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.resource import SQLMeshResource, SQLMeshRunConfig
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator
from sqlmesh_pipes_protocol.errors import ManifestError

__all__ = [
    "DuplicateAssetKeyError",
    "LaunchError",
    "Launcher",
    "ManifestError",
    "Runner",
    "RunnerCall",
    "SQLMeshPipesError",
    "SQLMeshProject",
    "SQLMeshResource",
    "SQLMeshRunConfig",
    "SQLMeshTranslator",
    "SubprocessLauncher",
    "sqlmesh_assets",
]
