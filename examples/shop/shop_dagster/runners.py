"""Where the shop's SQLMesh runs: on this host, or in a container of its own."""

import os
from pathlib import Path

from dagster_sqlmesh_pipes import DockerLauncher, Launcher, SubprocessLauncher

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
        case other:
            raise ValueError(f"SHOP_LAUNCHER is {other!r}: it is to be subprocess or docker.")


def warehouse_env() -> dict[str, str]:
    """What the SQLMesh project's configuration asks for in a container."""
    names = ("SHOP_GATEWAY", "SHOP_POSTGRES_HOST", "SHOP_POSTGRES_PASSWORD")
    return {name: os.environ[name] for name in names}
