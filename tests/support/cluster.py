"""A Kubernetes cluster for the tests: the one that KUBECONFIG names, and a namespace of this session's own in it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

_REQUIRED = "KUBERNETES_TESTS"
"""`required` where a cluster is known to be there: what would be skipped then fails."""
_WHY_NOT = "KUBERNETES_TESTS_SKIPPED"
"""Why there is none, said by whoever tried to make one."""


@dataclass
class Cluster:
    """A cluster, and a namespace in it that is this session's own and goes with it.

    Attributes:
        kubeconfig: the file that names it.
        namespace: where tests make what they make, unless they say otherwise.
        api: an API client as the administrator.
    """

    kubeconfig: Path
    namespace: str
    api: Any
    _namespaces: list[str] = field(default_factory=list)

    @property
    def core(self) -> Any:
        from kubernetes import client

        return client.CoreV1Api(self.api)

    @property
    def version(self) -> tuple[int, int]:
        from kubernetes import client

        code = client.VersionApi(self.api).get_code()
        return int(code.major), int(code.minor.rstrip("+"))

    def new_namespace(self, labels: Mapping[str, str] = {}) -> str:
        """One more namespace, removed with the session."""
        name = f"sqlmesh-tests-{secrets.token_hex(4)}"
        # By the label one finds what a session that was killed has left behind.
        labels = {"app.kubernetes.io/part-of": "dagster-sqlmesh-pipes-tests", **labels}
        self.core.create_namespace({"metadata": {"name": name, "labels": labels}})
        self._namespaces.append(name)
        # Pods are refused until the namespace has its service account.
        self.wait_for(
            lambda: self.core.list_namespaced_service_account(name).items, "a namespace's service account"
        )
        return name

    def apply(
        self, *manifests: Mapping[str, Any], namespace: str | None = None, dry_run: bool = False
    ) -> None:
        """Create what the manifests say, in `namespace`, by default the session's.

        Args:
            dry_run: the API server checks and admits, and keeps nothing.
        """
        from kubernetes.dynamic import DynamicClient

        client = DynamicClient(self.api)
        for manifest in manifests:
            kind = client.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])
            where = {"namespace": namespace or self.namespace} if kind.namespaced else {}
            kind.create(body=dict(manifest), **where, **({"dry_run": "All"} if dry_run else {}))

    def run(self, manifest: Mapping[str, Any], seconds: float = 120) -> str:
        """Create a pod that ends by itself, wait for its end, and delete it; returns its log.

        Raises:
            AssertionError: it failed, or does not end in time; the message has what it said.
        """
        name = manifest["metadata"]["name"]
        self.apply(manifest)
        try:
            ended = self.wait_for(
                lambda: pod if (pod := self.pod(name)).status.phase in {"Succeeded", "Failed"} else None,
                f"the end of pod {name}",
                seconds,
            )
            log = self.log(name)
            assert ended.status.phase == "Succeeded", f"{ended.status}\n{log}"
            return log
        finally:
            self.delete_pod(name)

    def pods(self, selector: str = "", namespace: str | None = None) -> list[Any]:
        """The pods of the session's namespace, in any state, by name."""
        found = self.core.list_namespaced_pod(namespace or self.namespace, label_selector=selector).items
        return sorted(found, key=lambda pod: pod.metadata.name)

    def pod(self, name: str) -> Any:
        return self.core.read_namespaced_pod(name, self.namespace)

    def log(self, name: str, namespace: str | None = None) -> str:
        """What the pod's first container wrote."""
        container = self.core.read_namespaced_pod(name, namespace or self.namespace).spec.containers[0].name
        response = self.core.read_namespaced_pod_log(
            name, namespace or self.namespace, container=container, _preload_content=False
        )
        return response.data.decode("utf-8", "replace")

    def delete_pod(self, name: str, grace_seconds: int = 0) -> None:
        """Delete a pod and wait until it is gone. No harm when it is gone already."""
        from kubernetes.client import ApiException

        def gone() -> bool:
            try:
                self.pod(name)
            except ApiException as error:
                if error.status == 404:
                    return True
                raise
            return False

        with contextlib.suppress(ApiException):
            self.core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=grace_seconds)
        self.wait_for(gone, f"the deletion of pod {name}", seconds=grace_seconds + 60)

    def acting_as(self, account: str, namespace: str) -> Any:
        """An API client that is a service account, by impersonation."""
        from kubernetes import config

        api = config.new_client_from_config(config_file=str(self.kubeconfig))
        api.set_default_header("Impersonate-User", f"system:serviceaccount:{namespace}:{account}")
        return api

    def kubeconfig_of(self, account: str, namespace: str, path: Path) -> Path:
        """A kubeconfig that is a service account, by a token as its pods have it."""
        token = self.core.create_namespaced_service_account_token(
            account, namespace, {"spec": {"expirationSeconds": 3600}}
        )
        settings = self.api.configuration
        where = {"server": settings.host, "certificate-authority": settings.ssl_ca_cert}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": {key: value for key, value in where.items() if value}}],
            "users": [{"name": "account", "user": {"token": token.status.token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "account"}}],
            "current-context": "it",
        }
        path.write_text(json.dumps(content))  # JSON is YAML
        return path

    def wait_for(self, condition: Callable[[], T], what: str, seconds: float = 60) -> T:
        """What the condition gives as soon as that is true.

        Raises:
            AssertionError: it does not become true in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            if result := condition():
                return result
            assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
            time.sleep(0.1)


def restricted_pod(
    name: str,
    image: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str] = {},
    user: int = 10001,
    labels: Mapping[str, str] = {},
) -> dict[str, Any]:
    """A pod of one container that passes the restricted standard and writes to /tmp only, of an image that the node has."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "runAsGroup": user,
                "fsGroup": user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": list(command),
                    "env": [{"name": key, "value": value} for key, value in env.items()],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One a session: tests that use it are the group `kubernetes` for pytest-xdist."""
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if not kubeconfig:
        _skip(os.environ.get(_WHY_NOT) or "no cluster: KUBECONFIG names none")
    from urllib3.exceptions import HTTPError

    from kubernetes import client, config

    try:
        api = config.new_client_from_config(config_file=kubeconfig)
        client.VersionApi(api).get_code(_request_timeout=20)
    except (config.ConfigException, HTTPError, client.ApiException) as error:
        _skip(f"the cluster that KUBECONFIG={kubeconfig} names does not answer: {error}")
    cluster = Cluster(Path(kubeconfig), "", api)
    try:
        cluster.namespace = cluster.new_namespace()
        yield cluster
    finally:
        for name in cluster._namespaces:
            # Not after their grace periods: a test that failed may have left pods that run for long.
            cluster.core.delete_collection_namespaced_pod(name, grace_period_seconds=0)
            cluster.core.delete_namespace(name)
        cluster.wait_for(
            lambda: (
                not {one.metadata.name for one in cluster.core.list_namespace().items}
                & set(cluster._namespaces)
            ),
            "the deletion of the session's namespaces",
            seconds=120,
        )


def _skip(reason: str) -> None:
    if os.environ.get(_REQUIRED) == "required":
        pytest.fail(f"{_REQUIRED}=required, and {reason}")
    pytest.skip(reason)
