"""SQLMesh projects that are planned and run within one pod: on any cluster, with nothing shared but the project's files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_sqlmesh_pipes import KubernetesLauncher, RunnerCall
from dagster_sqlmesh_pipes.launchers import Runner
from support.cluster import Cluster
from support.images import runner_image
from support.waiting import wait_for
from support.warehouse import HERE, Outcome, Warehouse

PLANNED = """\
cp -rL /source/project /tmp/project && cp /source/deploy.py /tmp/ \
&& python /tmp/deploy.py /tmp/project prod '' >&2 && exec sqlmesh-runner "$@"
"""
"""What the container does: the database is a file of its own, and gone with it."""


@pytest.fixture(scope="session")
def pod_image() -> str:
    """The runner's image where the nodes of the cluster find it."""
    return os.environ.get("SQLMESH_RUNNER_IMAGE") or runner_image()


@dataclass
class Pods:
    """Launchers of pods in the tests' namespace."""

    cluster: Cluster
    image: str

    def launcher(self, warehouse: Warehouse | None = None, **settings: Any) -> KubernetesLauncher:
        """One whose pods plan a warehouse's project before they run it, or do what its ``command`` says."""
        defaults: dict[str, Any] = {
            "image": self.image,
            "image_pull_policy": "IfNotPresent",
            "namespace": self.cluster.namespace,
            "kubeconfig_file": str(self.cluster.kubeconfig),
        }
        if warehouse is not None:
            name = self._config_map(warehouse)
            keys = self._files(warehouse)
            defaults |= {
                "command": ["sh", "-c", PLANNED, "sh"],
                "env": {"TEST_DATABASE": "/tmp/db.duckdb"},
                "volumes": [
                    {
                        "name": "source",
                        "configMap": {
                            "name": name,
                            "items": [{"key": key, "path": path} for key, (path, _) in keys.items()],
                        },
                    }
                ],
                "volume_mounts": [{"name": "source", "mountPath": "/source"}],
                # A kubelet with a strict umask makes volumes that only their group may read.
                "base_pod_spec": {"security_context": {"fs_group": 10001}},
            }
        return KubernetesLauncher(**{**defaults, **settings})

    def start(self, command: list[str], *, tell: Callable[[str], None] = print, **settings: Any) -> Runner:
        """A pod that does something else than run SQLMesh."""
        launcher = self.launcher(command=command, **settings)
        call = RunnerCall(
            arguments=(), env={}, project_dir=Path("/"), name=f"t-{os.urandom(4).hex()}", tell=tell
        )
        return launcher.launch(call)

    def names(self) -> list[str]:
        return [pod.metadata.name for pod in self.cluster.pods("dagster-sqlmesh-pipes=runner")]

    def materialize(
        self, warehouse: Warehouse, instance: dg.DagsterInstance, *, launcher: object = None, **settings: Any
    ) -> Outcome:
        return warehouse.materialize(
            instance,
            launcher=launcher or self.launcher(warehouse),
            project_dirs=["/tmp/project"],
            **settings,
        )

    def _files(self, warehouse: Warehouse) -> dict[str, tuple[str, str]]:
        files = {
            path.relative_to(warehouse.path.parent)
            for path in warehouse.path.rglob("*")
            if path.is_file() and path.suffix in (".yaml", ".sql", ".py") and ".cache" not in path.parts
        }
        found = {
            str(path).replace("/", "__"): (str(path), (warehouse.path.parent / path).read_text())
            for path in files
        }
        return {**found, "deploy.py": ("deploy.py", (HERE / "deploy.py").read_text())}

    def _config_map(self, warehouse: Warehouse) -> str:
        name = f"project-{os.urandom(4).hex()}"
        data = {key: text for key, (_, text) in self._files(warehouse).items()}
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        )
        return name


@pytest.fixture
def pods(cluster: Cluster, pod_image: str) -> Pods:
    return Pods(cluster, pod_image)


@pytest.fixture
def no_pod_left(pods: Pods) -> Iterator[None]:
    """A test whose pods are all gone soon after it."""
    yield
    try:
        wait_for(lambda: pods.names() == [], seconds=15)
    finally:
        for name in pods.names():  # not left to the next test
            pods.cluster.delete_pod(name)
