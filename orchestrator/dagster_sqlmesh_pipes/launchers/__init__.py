"""Where runners run: on this host, in a container, in a pod."""

from dagster_sqlmesh_pipes.launchers.clients import PipesClientLauncher
from dagster_sqlmesh_pipes.launchers.containers import DockerLauncher
from dagster_sqlmesh_pipes.launchers.launcher import Launcher, Runner, RunnerCall, Verdict, answer
from dagster_sqlmesh_pipes.launchers.pods import KubernetesLauncher
from dagster_sqlmesh_pipes.launchers.processes import SubprocessLauncher

__all__ = [
    "DockerLauncher",
    "KubernetesLauncher",
    "Launcher",
    "PipesClientLauncher",
    "Runner",
    "RunnerCall",
    "SubprocessLauncher",
    "Verdict",
    "answer",
]
