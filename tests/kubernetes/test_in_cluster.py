"""Dagster in a pod of the same cluster: the launcher finds the cluster and its namespace by the pod's service account."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from support.cluster import Cluster, restricted_pod
from support.images import orchestrator_image

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.timeout(1500)]

FOLDER = Path(__file__).parents[2] / "docker/k8s"
SCRIPT = """
from pathlib import Path
from dagster_sqlmesh_pipes import KubernetesLauncher, RunnerCall

launcher = KubernetesLauncher(image={image!r}, image_pull_policy="IfNotPresent", command=["echo", "hello"])
runner = launcher.launch(RunnerCall(arguments=(), env={{}}, project_dir=Path("/"), name="from-within"))
print(runner.describe(), b"".join(runner.output()), runner.exit_code())
runner.close(succeeded=True)
"""


def test_a_launcher_in_a_pod_finds_the_cluster_by_itself_with_the_least_rights(cluster: Cluster, pod_image):
    namespace = cluster.new_namespace()
    role = yaml.safe_load((FOLDER / "role.yaml").read_text())
    role["metadata"].pop("namespace", None)
    account = {"kind": "ServiceAccount", "name": "dagster", "namespace": namespace}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "dagster"}},
        role,
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "dagster"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": role["metadata"]["name"],
            },
            "subjects": [account],
        },
        namespace=namespace,
    )
    env = {}
    server = urlsplit(cluster.api.configuration.host)
    is_here = server.hostname in ("127.0.0.1", "localhost")
    if is_here:  # pods reach such a server by the host's network alone
        env = {"KUBERNETES_SERVICE_HOST": str(server.hostname), "KUBERNETES_SERVICE_PORT": str(server.port)}
    script = SCRIPT.format(image=pod_image)
    pod = restricted_pod("dagster", orchestrator_image(), ["python", "-c", script], env=env, user=10002)
    pod["spec"] |= {
        "serviceAccountName": "dagster",
        "automountServiceAccountToken": True,
        "hostNetwork": is_here,
    }
    cluster.apply(pod, namespace=namespace)

    def done() -> str | None:
        phase = cluster.core.read_namespaced_pod("dagster", namespace).status.phase
        return phase if phase in ("Succeeded", "Failed") else None

    phase = cluster.wait_for(done, "the end of Dagster's pod", seconds=180)
    response = cluster.core.read_namespaced_pod_log("dagster", namespace, _preload_content=False)
    said = response.data.decode()

    assert phase == "Succeeded", said
    assert f"pod {namespace}/from-within of {pod_image} b'hello\\n' 0" in said
    assert [one.metadata.name for one in cluster.pods(namespace=namespace)] == ["dagster"]
