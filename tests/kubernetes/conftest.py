"""Fixtures of the tests with Kubernetes: on the cluster that KUBECONFIG names, and skipped without one."""

from collections.abc import Callable

import pytest

from support.cluster import cluster  # noqa: F401 - pytest finds fixtures by name
from support.local_cluster import local_cluster  # noqa: F401 - pytest finds fixtures by name
from support.pods import no_pod_left, pod_image, pods  # noqa: F401 - pytest finds fixtures by name
from support.warehouse import (  # noqa: F401 - pytest finds fixtures by name
    Warehouse,
    instance,
    make_warehouse,
    runner_bin,
)


@pytest.fixture
def wordy(make_warehouse: Callable[..., Warehouse]) -> tuple[str, Warehouse]:  # noqa: F811 - the fixture
    """300 KB of text, and a project with an audit whose query has it."""
    said = "".join(f"{number:09d} " for number in range(30_000))
    warehouse = make_warehouse(
        files={
            "audits/wordy.sql": f"AUDIT (name wordy);\nSELECT * FROM @this_model WHERE b = '{said}'",
            "models/first.sql": "MODEL (name staging.first, kind FULL, audits (wordy));\nSELECT 'a' AS b",
        },
        deploy=False,
    )
    warehouse.manifest()
    return said, warehouse
