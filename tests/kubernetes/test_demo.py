"""`make k8s-demo`: the README's first command, with SQLMesh and its warehouse in pods."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from support import images
from support.cluster import Cluster
from support.make import make, table

# It makes three images: minutes on a busy machine.
pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.timeout(1800)]


def image_settings() -> dict[str, str]:
    """What the demo's images are called here; those that are given already are kept."""
    postgres = images.postgres_image()
    settings = {
        "SHOP_RUNNER_IMAGE": os.environ.get("SHOP_RUNNER_IMAGE") or images.shop_runner_image(),
        "POSTGRES_IMAGE": postgres,
    }
    if "POSTGRES_UID" not in os.environ and "POSTGRES_IMAGE" not in os.environ:
        asked = ["docker", "run", "--rm", "--network=none", "--entrypoint=id", postgres, "-u", "postgres"]
        settings["POSTGRES_UID"] = subprocess.run(
            asked, capture_output=True, text=True, timeout=60, check=True
        ).stdout.strip()
    return settings


def test_the_demo_runs_everything_in_pods_and_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    done = make("k8s-demo", f"DEMO_DIR={tmp_path}", timeout=900, env=image_settings())

    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row[0]: row[1:] for row in table(done.stdout)}
    models = {name for name in rows if name.startswith("shop/") and name != "shop/raw/payments"}
    assert len(models) == 13
    assert {rows[name][0] for name in models} == {"executed"}
    assert rows["shop/marts/order_payments"][1].startswith("2 passed, 1 warned")
    assert rows["revenue_report"][0] == "materialized"
    (namespace,) = re.findall(r"^namespace (\S+)$", done.stderr, re.MULTILINE)
    cluster.wait_for(
        lambda: namespace not in {each.metadata.name for each in cluster.core.list_namespace().items},
        "the deletion of the demo's namespace",
        seconds=120,
    )
