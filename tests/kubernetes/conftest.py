"""Fixtures of the tests with Kubernetes: on the cluster that KUBECONFIG names, and skipped without one."""

from support.cluster import cluster  # noqa: F401 - pytest finds fixtures by name
from support.local_cluster import local_cluster  # noqa: F401 - pytest finds fixtures by name
from support.pods import pod_image, pods  # noqa: F401 - pytest finds fixtures by name
from support.warehouse import (  # noqa: F401 - pytest finds fixtures by name
    instance,
    make_warehouse,
    runner_bin,
)
