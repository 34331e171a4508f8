"""Starting a runner in a Kubernetes pod of its own.

Annotations are not postponed here: Dagster reads them when the class is made.
"""

import contextlib
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import dagster as dg
from pydantic import Field

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.launcher import Launcher, Runner, RunnerCall
from dagster_sqlmesh_pipes.launchers.pod_api import PodApi, unreachable
from dagster_sqlmesh_pipes.launchers.pod_runner import PodRunner
from dagster_sqlmesh_pipes.launchers.pod_state import is_outdated
from dagster_sqlmesh_pipes.launchers.pod_template import LABEL, LABELLED, build_pod, grace_period

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class KubernetesLauncher(Launcher):
    """Starts the runner in a pod, and follows the pod's log and state to their end.

    The image has ``sqlmesh-runner`` and the SQLMesh project; give the project's directory as the pod sees it:
    ``SQLMeshResource(project, project_dirs=["/project"], launcher=KubernetesLauncher(image="warehouse:2026-11"))``.
    Needs the ``kubernetes`` and ``dagster-k8s`` packages: ``dagster-sqlmesh-pipes[k8s]``.

    What Kubernetes itself defines may be given in snake_case or camelCase, as anywhere in Dagster. The pod passes the *restricted*
    Pod Security Standard unless the settings say otherwise.
    """

    outlives_dagster: ClassVar[bool] = True
    merges_streams: ClassVar[bool] = True

    image: str | None = Field(
        default=None, description="The image, with a tag or a digest; or `base_pod_spec` has one."
    )
    command: list[str] = Field(default=["sqlmesh-runner"], description="How to call the runner in the pod.")
    namespace: str | None = Field(
        default=None,
        description="Where the pod is made; by default where Dagster's own pod is, or as the kubeconfig says.",
    )
    env: dict[str, str] = Field(default={}, description="Variables for the runner's environment.")
    env_secrets: list[str] = Field(
        default=[], description="Secrets whose keys become variables of the runner's environment."
    )
    env_config_maps: list[str] = Field(
        default=[], description="Config maps whose keys become variables of the runner's environment."
    )
    image_pull_policy: str | None = Field(
        default=None,
        pattern="^(Always|IfNotPresent|Never)$",
        description="When a node pulls the image: Always, IfNotPresent or Never; by default as Kubernetes decides by the tag.",
    )
    image_pull_secrets: list[str] = Field(default=[], description="Secrets for the image's registry.")
    service_account_name: str | None = Field(
        default=None, description="Of the pod; the runner itself does not ask the cluster for anything."
    )
    resources: dict[str, Any] = Field(
        default={}, description="Requests and limits: `{'limits': {'memory': '2Gi'}}`."
    )
    node_selector: dict[str, str] = Field(
        default={}, description="Labels of the nodes that may take the pod."
    )
    tolerations: list[dict[str, Any]] = Field(default=[], description="Taints that the pod puts up with.")
    volumes: list[dict[str, Any]] = Field(default=[], description="Volumes of the pod.")
    volume_mounts: list[dict[str, Any]] = Field(
        default=[], description="Where the runner's container has the volumes."
    )
    labels: dict[str, str] = Field(default={}, description="Labels of the pod, beside those of the run.")
    annotations: dict[str, str] = Field(default={}, description="Annotations of the pod.")
    base_pod_spec: dict[str, Any] = Field(
        default={},
        description="A pod spec to fill up: sidecars, init containers, affinity … Its first container is the runner's.",
    )
    base_pod_meta: dict[str, Any] = Field(default={}, description="The pod's metadata to fill up.")
    container_config: dict[str, Any] = Field(
        default={}, description="Any other key of the runner's container: `lifecycle`, `security_context` …"
    )
    active_deadline_seconds: int | None = Field(
        default=None, gt=0, description="How long the pod may take at most; Kubernetes then ends it."
    )
    start_timeout_seconds: float = Field(
        default=600.0,
        gt=0,
        description="How long the pod may wait for a node, its image and its volumes until it is given up.",
    )
    unreachable_timeout_seconds: float = Field(
        default=600.0,
        gt=0,
        description="How long the API server may be out of reach during a run. The pod goes on meanwhile.",
    )
    delete_pod: Literal["always", "on_success", "never"] = Field(
        default="always", description="When the pod is deleted after its end."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        description="How long a pod is kept after its end: a later run in the namespace deletes it. Longer than a retry's delay.",
    )
    load_incluster_config: bool | None = Field(
        default=None,
        description="Whether Dagster runs in the cluster; by default it finds out. Otherwise a kubeconfig is read.",
    )
    kubeconfig_file: str | None = Field(
        default=None, description="By default as KUBECONFIG says, or ~/.kube/config."
    )
    kube_context: str | None = Field(
        default=None, description="A context of the kubeconfig; by default its current one."
    )

    def launch(self, call: RunnerCall) -> Runner:
        api = self._api()
        try:
            self._sweep(api)
            pod = api.create(build_pod(self, call))
        except BaseException:
            api.close()
            raise
        return self._runner(api, pod, call)

    def find(self, call: RunnerCall) -> Runner | None:
        assert call.name is not None  # noqa: S101 - narrows the type
        api = self._api()
        try:
            pod = api.find(call.name)
        except BaseException:
            api.close()
            raise
        if pod is None:
            api.close()
            return None
        return self._runner(api, pod, call)

    def context_injector(self) -> dg.PipesContextInjector:
        from dagster_sqlmesh_pipes.pipes import EnvContextInjector

        return EnvContextInjector()

    def _runner(self, api: PodApi, pod: dict[str, Any], call: RunnerCall) -> PodRunner:
        return PodRunner(
            api,
            pod,
            tell=call.tell,
            grace_seconds=grace_period(self),
            start_timeout_seconds=self.start_timeout_seconds,
            unreachable_timeout_seconds=self.unreachable_timeout_seconds,
            delete_pod=self.delete_pod,
        )

    def _api(self) -> PodApi:
        try:
            import dagster_k8s  # noqa: F401 - told here if it is missing, not when the pod is made

            import kubernetes  # noqa: F401
        except ModuleNotFoundError as error:
            raise LaunchError(
                "KubernetesLauncher needs the kubernetes and dagster-k8s packages: install dagster-sqlmesh-pipes[k8s] where "
                "Dagster is."
            ) from error
        client, namespace = self._connection()
        return PodApi(client, self.namespace or namespace or "default")

    def _connection(self) -> "tuple[ApiClient, str | None]":
        """A client of its own, not the process's default, and the namespace that goes with it."""
        from kubernetes import client, config

        settings = client.Configuration()
        settings.retries = False  # a call takes as long as it is allowed to, not three times that
        settings.no_proxy = settings.no_proxy or os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
        within = self.load_incluster_config
        if within is None:
            given = self.kubeconfig_file or self.kube_context or os.environ.get("KUBECONFIG")
            within = "KUBERNETES_SERVICE_HOST" in os.environ and not given
        try:
            if within:
                config.load_incluster_config(client_configuration=settings)
                namespace: str | None = _NAMESPACE_FILE.read_text("utf-8").strip()
            else:
                config.load_kube_config(
                    config_file=self.kubeconfig_file, context=self.kube_context, client_configuration=settings
                )
                contexts, active = config.list_kube_config_contexts(config_file=self.kubeconfig_file)
                chosen = next((each for each in contexts if each["name"] == self.kube_context), active)
                namespace = chosen["context"].get("namespace")
        except (config.ConfigException, OSError) as error:
            wanted = "the service account of Dagster's pod" if within else "a kubeconfig"
            raise LaunchError(
                f"The cluster is not known: {wanted} was expected, and there is none that can be read ({error}). Set KUBECONFIG, or "
                "the launcher's kubeconfig_file, kube_context or load_incluster_config."
            ) from error
        return client.ApiClient(settings), namespace

    def _sweep(self, api: PodApi) -> None:
        """Delete pods whose time is over. Kubernetes does it for jobs, not for pods; what it does not do now it does another time."""
        with contextlib.suppress(*unreachable()):
            for pod in api.labelled(f"{LABEL}={LABELLED}"):
                if is_outdated(pod, datetime.now(timezone.utc)):
                    api.delete(pod["metadata"]["name"], pod["metadata"]["uid"], grace_seconds=0)
