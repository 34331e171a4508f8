"""The manifests for Kubernetes are what Kubernetes takes, ask for no more than is needed, and run what the runner has."""

import copy
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from dagster_k8s.container_context import K8sContainerContext

from support.cluster import Cluster
from support.pod_security import violations

FOLDER = Path(__file__).parents[2] / "docker/k8s"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
HELM = yaml.safe_load((FOLDER / "helm-values.yaml").read_text())
MANIFESTS = {
    path.name: yaml.safe_load(path.read_text())
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name not in {"kustomization.yaml", "helm-values.yaml"}
}
CRON_JOB = MANIFESTS["cronjob.yaml"]
JOB = CRON_JOB["spec"]["jobTemplate"]["spec"]
RUNNER = JOB["template"]["spec"]["containers"][0]
SCHEMA = "1.34"

on_a_cluster = pytest.mark.xdist_group("kubernetes")
makes_an_image = pytest.mark.timeout(1500)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_what_its_schema_allows(name):
    kubernetes_validate.validate(MANIFESTS[name], SCHEMA, strict=True)


def test_what_kustomize_applies_is_there_and_the_rest_is_said_to_be_a_choice():
    text = (FOLDER / "kustomization.yaml").read_text()

    listed = set(KUSTOMIZATION["resources"])
    assert listed <= set(MANIFESTS)
    assert {name for name in {*MANIFESTS, "helm-values.yaml"} - listed if name not in text} == set()
    assert KUSTOMIZATION["namespace"] == MANIFESTS["namespace.yaml"]["metadata"]["name"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_leaves_dagsters_account_in_dagsters_namespace():
    done = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, timeout=60, check=True
    )

    made = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    assert {one["metadata"].get("namespace") for kind, one in made.items() if kind != "Namespace"} == {
        "sqlmesh"
    }
    assert made["RoleBinding"]["subjects"] == MANIFESTS["role-binding.yaml"]["subjects"]


def test_the_runners_namespace_admits_restricted_pods_only():
    assert (
        MANIFESTS["namespace.yaml"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )


def test_the_accounts_have_no_token_unless_a_pod_asks_for_it():
    for name in ("runner-service-account.yaml", "dagster-service-account.yaml"):
        assert MANIFESTS[name]["automountServiceAccountToken"] is False
    assert JOB["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_binding_names_the_account_that_the_chart_and_the_manifest_make():
    (subject,) = MANIFESTS["role-binding.yaml"]["subjects"]

    assert subject["name"] == MANIFESTS["dagster-service-account.yaml"]["metadata"]["name"]
    assert HELM["dagster-user-deployments"]["serviceAccount"] == {"create": True, "name": subject["name"]}


def test_the_cron_jobs_pod_passes_the_restricted_standard():
    assert violations(JOB["template"]) == []
    assert RUNNER["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_cron_jobs_command_is_understood_by_the_runner(runner_bin):
    program, *arguments = [*RUNNER["command"], *RUNNER["args"]]
    # Options are read before help is given; an unknown one is an error.
    done = subprocess.run(
        [str(runner_bin / program), *arguments, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert arguments[0] == "run"
    grace = float(arguments[arguments.index("--grace-period") + 1])
    assert 0 < grace < JOB["template"]["spec"]["terminationGracePeriodSeconds"]


def test_a_cron_job_never_runs_twice_at_once_and_tries_again_what_a_second_try_can_help():
    assert CRON_JOB["spec"]["concurrencyPolicy"] == "Forbid"
    assert JOB["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy works with no other
    on_exit, on_disruption = JOB["podFailurePolicy"]["rules"]
    assert on_exit["action"] == "FailJob"
    assert on_exit["onExitCodes"] == {"containerName": RUNNER["name"], "operator": "In", "values": [1, 2]}
    assert on_disruption["action"] == "Ignore"
    assert JOB["backoffLimit"] > 0


def test_the_values_for_runs_are_what_dagsters_launcher_takes():
    """As the chart hands them on: camelCase, and env as it stands."""
    (deployment,) = HELM["dagster-user-deployments"]["deployments"]
    runs = HELM["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]

    context = K8sContainerContext.create_from_config(
        {
            "k8s": {
                "env": deployment["env"],
                "resources": deployment["resources"],
                "service_account_name": HELM["dagster-user-deployments"]["serviceAccount"]["name"],
                "run_k8s_config": {
                    "pod_spec_config": runs["podSpecConfig"],
                    "container_config": runs["containerConfig"],
                    "job_spec_config": runs["jobSpecConfig"],
                },
            }
        }
    )

    assert context.run_k8s_config.container_config["resources"] == deployment["resources"]
    assert context.run_k8s_config.job_spec_config["ttl_seconds_after_finished"] > 0


def test_dagsters_pods_pass_the_restricted_standard():
    (deployment,) = HELM["dagster-user-deployments"]["deployments"]
    runs = HELM["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]

    for of_the_pod, of_the_container in (
        (deployment["podSecurityContext"], deployment["securityContext"]),
        (runs["podSpecConfig"]["securityContext"], runs["containerConfig"]["securityContext"]),
    ):
        container = {"name": "dagster", "securityContext": of_the_container}
        assert violations({"spec": {"securityContext": of_the_pod, "containers": [container]}}) == []


@on_a_cluster
@pytest.mark.parametrize("name", MANIFESTS)
def test_an_api_server_takes_a_manifest(cluster, name):
    manifest = copy.deepcopy(MANIFESTS[name])
    if manifest["kind"] == "Namespace":
        manifest["metadata"]["name"] = f"{cluster.namespace}-made"
    if manifest["kind"] == "CronJob" and cluster.version < (1, 21):
        manifest["apiVersion"] = "batch/v1beta1"  # has the same fields but the newest

    cluster.apply(manifest, dry_run=True)


@on_a_cluster
def test_the_cron_jobs_pod_is_admitted_where_its_namespace_admits_restricted_pods_only(cluster):
    """Kubernetes before 1.23 admits whatever it is."""
    namespace = cluster.new_namespace(MANIFESTS["namespace.yaml"]["metadata"]["labels"])
    cluster.apply(MANIFESTS["runner-service-account.yaml"], namespace=namespace)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        **copy.deepcopy(JOB["template"]),
        "metadata": {"name": "sqlmesh-prod"},
    }

    cluster.apply(pod, namespace=namespace, dry_run=True)


NEEDED = {
    *(("", "pods", verb) for verb in ("create", "list", "watch", "delete")),
    ("", "pods/log", "get"),
    ("", "events", "list"),
}
"""What KubernetesLauncher does: API group, resource, verb."""


def rights(cluster: Cluster, account: str, home: str, namespace: str) -> set[tuple[str, str, str]]:
    """What an account of the namespace `home` may do in a namespace, as the API server tells the account."""
    from kubernetes import client

    review = client.AuthorizationV1Api(cluster.acting_as(account, home)).create_self_subject_rules_review(
        {"spec": {"namespace": namespace}}
    )
    return {
        (group, resource, verb)
        for rule in review.status.resource_rules
        for group in rule.api_groups
        for resource in rule.resources or []
        for verb in rule.verbs
    }


@pytest.fixture(scope="module")
def bound(cluster):
    """Dagster's account in a namespace of its own, bound to its role in the session's: `(its namespace)`."""
    dagster = cluster.new_namespace()
    cluster.apply(MANIFESTS["dagster-service-account.yaml"], namespace=dagster)
    binding = copy.deepcopy(MANIFESTS["role-binding.yaml"])
    binding["subjects"][0]["namespace"] = dagster
    cluster.apply(MANIFESTS["role.yaml"], binding)
    return dagster


@on_a_cluster
def test_dagsters_account_may_do_what_the_launcher_does_and_nothing_else(cluster, bound):
    everybody = rights(cluster, "default", bound, cluster.namespace)

    assert rights(cluster, "dagster-sqlmesh", bound, cluster.namespace) - everybody == NEEDED
    assert rights(cluster, "dagster-sqlmesh", bound, bound) - everybody == set()


@on_a_cluster
@pytest.mark.parametrize(
    ("verb", "resource", "subresource", "allowed"),
    [
        *((verb, *resource.partition("/")[::2], True) for _, resource, verb in sorted(NEEDED)),
        ("get", "pods", "", False),  # the launcher lists by name, to watch from there
        ("get", "secrets", "", False),
        ("list", "secrets", "", False),
        ("get", "configmaps", "", False),
        ("create", "pods", "exec", False),
        ("create", "pods", "attach", False),
        ("create", "pods", "portforward", False),
        ("patch", "pods", "", False),
        ("update", "pods", "", False),
        ("deletecollection", "pods", "", False),
        ("create", "serviceaccounts", "token", False),
        ("create", "events", "", False),
    ],
)
def test_dagsters_account_is_allowed_and_refused(cluster, bound, verb, resource, subresource, allowed):
    from kubernetes import client

    asked = {
        "namespace": cluster.namespace,
        "verb": verb,
        "resource": resource,
        "subresource": subresource,
    }
    review = client.AuthorizationV1Api(
        cluster.acting_as("dagster-sqlmesh", bound)
    ).create_self_subject_access_review({"spec": {"resourceAttributes": asked}})

    assert bool(review.status.allowed) is allowed


@on_a_cluster
def test_dagsters_account_is_refused_elsewhere(cluster, bound):
    from kubernetes import client

    with pytest.raises(client.ApiException) as caught:
        client.CoreV1Api(cluster.acting_as("dagster-sqlmesh", bound)).list_namespaced_pod(bound)

    assert caught.value.status == 403


@on_a_cluster
@makes_an_image
def test_a_run_needs_no_other_rights(cluster, bound, make_warehouse, pods, instance, tmp_path):
    kubeconfig = cluster.kubeconfig_of("dagster-sqlmesh", bound, tmp_path / "kubeconfig")
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, deploy=False)
    warehouse.manifest()

    ran = pods.materialize(
        warehouse, instance, launcher=pods.launcher(warehouse, kubeconfig_file=str(kubeconfig))
    )
    stuck = pods.materialize(
        warehouse,
        instance,
        launcher=pods.launcher(
            kubeconfig_file=str(kubeconfig),
            resources={"requests": {"memory": "1000Ti"}},
            start_timeout_seconds=2,
        ),
    )

    assert set(ran.materialized) == {"staging/first"}, ran.failure
    assert "No node takes the pod" in stuck.failure
    cluster.wait_for(lambda: pods.names() == [], "the deletion of the pods")


PROJECT = {
    "config.yaml": """
gateways:
  warehouse:
    connection: {type: duckdb, catalogs: {db: "{{ env_var('WAREHOUSE_DATABASE') }}"}}
model_defaults: {dialect: duckdb, start: 2026-01-01}
disable_anonymized_analytics: true
""",
    "first.sql": "MODEL (name staging.first, kind FULL); SELECT 1 AS a",
}


@on_a_cluster
@makes_an_image
def test_the_cron_jobs_pod_runs_what_is_due_and_writes_to_tmp_alone(cluster, pod_image):
    """As it stands in the manifest, but for the image; the project is mounted, and planned by a container before it."""
    job = copy.deepcopy(JOB)
    spec = job["template"]["spec"]
    (runner,) = spec["containers"]
    files = [{"key": "config.yaml", "path": "config.yaml"}, {"key": "first.sql", "path": "models/first.sql"}]
    spec["volumes"].append({"name": "project", "configMap": {"name": "project", "items": files}})
    runner["volumeMounts"].append({"name": "project", "mountPath": "/project"})
    runner["image"] = pod_image
    plan = "sqlmesh --log-file-dir /tmp/logs --paths /project --gateway warehouse plan --skip-backfill --auto-apply --no-prompts"
    spec["initContainers"] = [{**copy.deepcopy(runner), "name": "plan", "command": plan.split(), "args": []}]
    secret = runner["envFrom"][0]["secretRef"]["name"]
    namespace = cluster.new_namespace(MANIFESTS["namespace.yaml"]["metadata"]["labels"])

    cluster.apply(
        MANIFESTS["runner-service-account.yaml"],
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "project"}, "data": PROJECT},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": secret},
            "stringData": {"WAREHOUSE_DATABASE": "/tmp/db.duckdb"},
        },
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "first"}, "spec": job},
        namespace=namespace,
    )
    pod = cluster.wait_for(
        lambda: next(
            (
                pod
                for pod in cluster.pods("job-name=first", namespace)
                if pod.status.phase in {"Succeeded", "Failed"}
            ),
            None,
        ),
        "the job's end",
        seconds=120,
    )

    log = cluster.log(pod.metadata.name, namespace)
    assert pod.status.phase == "Succeeded", f"{log}\n{pod.status}"
    assert "1 executed, 0 skipped, 0 failed" in log
