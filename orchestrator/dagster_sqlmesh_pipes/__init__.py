"""SQLMesh under Dagster, out of process: models are assets, audits are checks, reported while SQLMesh runs."""

from typing import TYPE_CHECKING, Any

try:
    import dagster
except ModuleNotFoundError as error:
    if error.name != "dagster":
        raise
    raise ModuleNotFoundError(
        "dagster_sqlmesh_pipes needs Dagster: pip install 'dagster-sqlmesh-pipes[dagster]'", name="dagster"
    ) from None

from dagster_sqlmesh_pipes.installed import is_older_than

if is_older_than(1, 12):
    raise ImportError(
        f"dagster_sqlmesh_pipes needs Dagster 1.12 or later, and finds {dagster.__version__}: "
        "pip install --upgrade 'dagster-sqlmesh-pipes[dagster]'",
        name="dagster",
    )

from dagster_sqlmesh_pipes.assets import sqlmesh_assets
from dagster_sqlmesh_pipes.errors import (
    DuplicateAssetKeyError,
    ExternalAssetKeyError,
    LaunchError,
    PartitionsError,
    SelectionError,
    SQLMeshPipesError,
    TranslationError,
)
from dagster_sqlmesh_pipes.externals import unprovided_externals
from dagster_sqlmesh_pipes.factories import (
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_assets_factory,
    sqlmesh_definitions_factory,
)
from dagster_sqlmesh_pipes.launchers import (
    DockerLauncher,
    KubernetesLauncher,
    Launcher,
    PipesClientLauncher,
    Runner,
    RunnerCall,
    SubprocessLauncher,
    Verdict,
)
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.resource import SQLMeshResource, SQLMeshRunConfig
from dagster_sqlmesh_pipes.schedules import build_sqlmesh_schedule
from dagster_sqlmesh_pipes.selection import build_sqlmesh_asset_selection
from dagster_sqlmesh_pipes.tags import TagConventionWarning
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator
from sqlmesh_pipes_protocol.errors import ManifestError

if TYPE_CHECKING:
    from dagster_sqlmesh_pipes.component import SQLMeshProjectComponent

__all__ = [
    "DockerLauncher",
    "DuplicateAssetKeyError",
    "ExternalAssetKeyError",
    "KubernetesLauncher",
    "LaunchError",
    "Launcher",
    "ManifestError",
    "PartitionsError",
    "PipesClientLauncher",
    "Runner",
    "RunnerCall",
    "SQLMeshPipesError",
    "SQLMeshProject",
    "SQLMeshProjectComponent",
    "SQLMeshResource",
    "SQLMeshRunConfig",
    "SQLMeshTranslator",
    "SelectionError",
    "SubprocessLauncher",
    "TagConventionWarning",
    "TranslationError",
    "Verdict",
    "build_sqlmesh_asset_selection",
    "build_sqlmesh_schedule",
    "sqlmesh_adaptive_schedule_factory",
    "sqlmesh_assets",
    "sqlmesh_assets_factory",
    "sqlmesh_definitions_factory",
    "unprovided_externals",
]


def __getattr__(name: str) -> Any:
    if name == "SQLMeshProjectComponent":  # when asked for: it brings a templating engine along
        from dagster_sqlmesh_pipes.component import SQLMeshProjectComponent

        return SQLMeshProjectComponent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
