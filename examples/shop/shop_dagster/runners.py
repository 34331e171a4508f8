"""Where the shop's SQLMesh runs: on this host, in a container of its own, or in a pod of its own."""

import os
from pathlib import Path

from dagster_sqlmesh_pipes import DockerLauncher, KubernetesLauncher, Launcher, SubprocessLauncher

SHOP = Path(__file__).parent.parent


def launcher() -> Launcher:
    """The one that SHOP_LAUNCHER names; its settings are in the environment as well."""
    match os.environ.get("SHOP_LAUNCHER", "subprocess"):
        case "subprocess":
            database = Path(os.environ.get("SHOP_DATABASE", SHOP / "shop.duckdb")).absolute()
            return SubprocessLauncher(
                command=[os.environ.get("SHOP_RUNNER", "sqlmesh-runner")],
                env={"SHOP_DATABASE": str(database)},
            )
        case "docker":
            return DockerLauncher(
                image=os.environ["SHOP_RUNNER_IMAGE"],
                network=os.environ["SHOP_NETWORK"],
                env=warehouse_env(),
                memory="1g",
                # Nothing that a run writes stays, and nothing that it can do on the host.
                container_kwargs={
                    "read_only": True,
                    "tmpfs": {"/tmp": ""},
                    "cap_drop": ["ALL"],
                    "security_opt": ["no-new-privileges"],
                },
            )
        case "kubernetes":
            return KubernetesLauncher(
                image=os.environ["SHOP_RUNNER_IMAGE"],
                image_pull_policy="IfNotPresent",
                namespace=os.environ["SHOP_NAMESPACE"],
                service_account_name="sqlmesh-runner",
                # What the SQLMesh project's configuration asks for. The cluster hands it over: Dagster does not know it.
                env_secrets=["shop-warehouse"],
                resources={"requests": {"memory": "512Mi"}, "limits": {"memory": "1Gi"}},
                # Nothing that a run writes stays.
                container_config={"security_context": {"read_only_root_filesystem": True}},
                volumes=[{"name": "tmp", "empty_dir": {}}],
                volume_mounts=[{"name": "tmp", "mount_path": "/tmp"}],
            )
        case other:
            raise ValueError(f"SHOP_LAUNCHER is {other!r}: it is to be subprocess, docker or kubernetes.")


def warehouse_env() -> dict[str, str]:
    """What the SQLMesh project's configuration asks for in a container."""
    names = ("SHOP_GATEWAY", "SHOP_POSTGRES_HOST", "SHOP_POSTGRES_PASSWORD")
    return {name: os.environ[name] for name in names}
