"""Dagster's environment has no SQLMesh, and its packages need none."""

import importlib
import importlib.util
import pkgutil
import subprocess
import sys

import pytest

import dagster_sqlmesh_pipes
import sqlmesh_pipes_protocol


def test_every_module_imports_without_sqlmesh():
    for package in (dagster_sqlmesh_pipes, sqlmesh_pipes_protocol):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)

    assert importlib.util.find_spec("sqlmesh") is None
    assert importlib.util.find_spec("sqlglot") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("sqlmesh")


def test_the_orchestrator_imports_nothing_of_the_runner():
    script = "import dagster_sqlmesh_pipes, sys; print([m for m in sys.modules if m.startswith(('sqlmesh.', 'sqlmesh_pipes_runner', 'sqlglot'))])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout == "[]\n"


def test_the_public_names_are_these():
    assert dagster_sqlmesh_pipes.__all__ == [
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
