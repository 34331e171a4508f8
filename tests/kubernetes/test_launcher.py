"""The runner in a pod of a real cluster: what it does is in Dagster, whatever becomes of the pod and of who watches it."""

import json
import os
import threading
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_sqlmesh_pipes import KubernetesLauncher, LaunchError, Runner, RunnerCall
from dagster_sqlmesh_pipes.launchers import answer
from support.pod_security import violations
from support.waiting import wait_for

# The first test makes the image: minutes on a busy machine.
pytestmark = [
    pytest.mark.xdist_group("kubernetes"),
    pytest.mark.timeout(1500),
    pytest.mark.usefixtures("no_pod_left"),
]

FIRST_AND_SLOW = """
    import time
    import pandas as pd
    from sqlmesh import model
    @model("marts.slow", columns={"a": "int"}, kind="FULL", depends_on=["staging.first"])
    def execute(context, start, end, execution_time, **kwargs):
        time.sleep(%d)
        return pd.DataFrame({"a": [1]})
"""
FIRST = dg.AssetKey(["db", "staging", "first"])


def python(script: str) -> list[str]:
    return ["python", "-u", "-c", script]


def output_of(runner: Runner) -> bytes:
    try:
        return b"".join(runner.output())
    finally:
        runner.kill()
        runner.close(succeeded=True)


# ---------------------------------------------------------------- outcomes


def test_what_ran_failed_and_was_skipped_in_a_pod_is_in_dagster(make_warehouse, pods, instance):
    warehouse = make_warehouse(
        {
            "staging.first": "SELECT 1 AS a",
            "staging.broken": "SELECT a / 0, error('no luck') FROM staging.first",
            "marts.after": "SELECT * FROM staging.broken",
        },
        {
            "models/audited.sql": "MODEL (name marts.audited, kind FULL, audits (not_null(columns := (a))));\n"
            "SELECT a FROM staging.first",
        },
        deploy=False,
    )
    warehouse.manifest()

    outcome = pods.materialize(warehouse, instance)

    assert set(outcome.materialized) == {"staging/first", "marts/audited"}
    assert outcome.checks["marts/audited", "not_null"].passed
    assert outcome.status("staging/broken") == ("failed", "sql")
    assert outcome.status("marts/after") == ("skipped", "upstream_failed")
    assert "no luck" in outcome.failure
    assert not outcome.success


def test_an_event_of_300_kb_arrives_whole(wordy, pods, instance):
    said, warehouse = wordy

    outcome = pods.materialize(warehouse, instance)

    assert len(said) == 300_000
    assert said in str(outcome.checks["staging/first", "wordy"].metadata["query"].value)


def test_a_question_is_answered_from_a_pod_without_what_it_wrote_beside(make_warehouse, pods):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, deploy=False)
    call = RunnerCall(
        arguments=["due", "prod", "--project", "/tmp/project", "--format", "json"],
        env={},
        project_dir=warehouse.path,
    )

    report = json.loads(answer(pods.launcher(warehouse), call, 120))

    assert [model["model"] for model in report["models"]] == ['"db"."staging"."first"']


def test_a_question_whose_pod_cannot_start_is_answered_with_the_cause(pods):
    call = RunnerCall(arguments=["due", "prod"], env={}, project_dir=Path("/"))

    with pytest.raises(LaunchError) as caught:
        answer(pods.launcher(image="no-such-image:1", image_pull_policy="Never"), call, 60)

    assert str(caught.value).startswith("The image no-such-image:1 is not on the node")
    assert not caught.value.transient


# -------------------------------------------------------------------- stream


def test_20_000_lines_and_one_of_300_kb_arrive_once_each_and_in_order(pods):
    script = (
        "for number in range(20_000):\n"
        "    print(number, 'x' * (number % 100))\n"
        "    if number == 10_000: print('y' * 300_000)\n"
    )

    lines = output_of(pods.start(python(script))).splitlines()

    assert lines.pop(10_001) == b"y" * 300_000
    assert lines == [b"%d %b" % (number, b"x" * (number % 100)) for number in range(20_000)]


def test_output_comes_while_the_pod_runs(pods):
    runner = pods.start(python("import time; print('now'); time.sleep(120)"))
    output = runner.output()
    try:
        assert next(output) == b"now\n"
        assert runner.exit_code() is None
    finally:
        runner.kill()
        runner.close(succeeded=False)


# --------------------------------------------------------------- the pod itself


def test_the_pod_passes_the_restricted_standard_and_is_found_by_its_run(make_warehouse, pods, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, deploy=False)
    warehouse.manifest()

    outcome = pods.materialize(
        warehouse, instance, launcher=pods.launcher(warehouse, delete_pod="never", labels={"team": "data"})
    )

    (pod,) = pods.cluster.core.list_namespaced_pod(
        pods.cluster.namespace, label_selector=f"dagster/run-id={outcome.run_id}"
    ).items
    raw = pods.cluster.api.sanitize_for_serialization(pod)
    assert outcome.success
    assert violations(raw) == []
    labels = pod.metadata.labels
    assert (labels["dagster/job"], labels["dagster/op"], labels["team"]) == (
        "ephemeral_asset_job",
        "warehouse",
        "data",
    )
    pods.cluster.delete_pod(pod.metadata.name)


def test_settings_in_either_case_sidecars_and_init_containers_reach_the_pod(pods):
    image, namespace = pods.image, pods.cluster.namespace
    pods.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "warehouse"},
            "stringData": {"WORD": "hunter2"},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings"},
            "data": {"PLACE": "here"},
        },
    )
    script = "import os; print(os.environ['WORD'], os.environ['PLACE'], os.environ['OWN'], open('/shared/word').read())"

    runner = pods.start(
        python(script),
        image=None,
        env={"OWN": "mine"},
        env_secrets=["warehouse"],
        env_config_maps=["settings"],
        volume_mounts=[{"name": "shared", "mount_path": "/shared"}],
        resources={"requests": {"cpu": "10m"}},
        base_pod_spec={
            "containers": [
                {"image": image, "imagePullPolicy": "IfNotPresent"},
                {
                    "name": "sidecar",
                    "image": image,
                    "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 300 & wait"],
                    "imagePullPolicy": "IfNotPresent",
                },
            ],
            "initContainers": [
                {
                    "name": "first",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", "echo word > /shared/word"],
                    "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
                }
            ],
            "volumes": [{"name": "shared", "emptyDir": {}}],
        },
        delete_pod="never",  # but its sidecar would go on for ever
    )

    assert output_of(runner) == b"hunter2 here mine word\n\n"
    assert namespace in runner.describe()


def test_a_pod_is_kept_where_that_is_asked_for_until_its_time_is_over(pods):
    def kept(**settings: object) -> str:
        before = set(pods.names())
        runner = pods.start(python("raise SystemExit(1)"), delete_pod="on_success", **settings)
        list(runner.output())
        runner.close(succeeded=False)
        (name,) = set(pods.names()) - before
        return name

    for_ever, for_long, shortly = (
        kept(),
        kept(ttl_seconds_after_finished=3600),
        kept(ttl_seconds_after_finished=1),
    )
    time.sleep(2)
    output_of(
        pods.start(python("pass"), ttl_seconds_after_finished=1)
    )  # whose time concerns its own pod alone

    wait_for(lambda: shortly not in pods.names())
    assert set(pods.names()) == {for_ever, for_long}
    for name in (for_ever, for_long):
        pods.cluster.delete_pod(name)


# ------------------------------------------------------------------ causes told


def ended(pods, command: list[str], **settings) -> tuple[Runner, list[str]]:
    """A pod that ended by itself, or did not come to start, and what was said meanwhile."""
    said: list[str] = []
    runner = pods.start(command, tell=said.append, **settings)
    output_of(runner)
    return runner, said


@pytest.mark.parametrize(
    ("settings", "cause", "transient"),
    [
        pytest.param(
            {"image": "no-such-image:1", "image_pull_policy": "Never"},
            "The image no-such-image:1 is not on the node, and the pull policy is Never",
            False,
            id="image_missing",
        ),
        pytest.param({"image": "No Such:1"}, "The image's name 'No Such:1' is none", False, id="image_name"),
        pytest.param(
            {"image": "127.0.0.1:1/none:1"},
            "The image 127.0.0.1:1/none:1 cannot be pulled",
            True,
            id="image_pull",
        ),
        pytest.param(
            {"node_selector": {"no-such": "node"}, "start_timeout_seconds": 5},
            "No node takes the pod: 0/",
            True,
            id="unschedulable",
        ),
        pytest.param(
            {"env_secrets": ["no-such-secret"]},
            'The container\'s settings do not hold: secret "no-such-secret" not found.',
            True,
            id="secret_missing",
        ),
        pytest.param(
            {"command": ["no-such-program"]}, "The container cannot be started", False, id="command_missing"
        ),
    ],
)
def test_a_pod_that_does_not_start_says_why(pods, settings, cause, transient):
    runner, said = ended(pods, settings.pop("command", ["true"]), **settings)

    verdict = runner.verdict()
    assert verdict is not None
    assert cause in verdict.cause
    assert (verdict.started, verdict.transient) == (False, transient)
    assert "\n" not in verdict.cause
    if cause != "The container cannot be started":
        assert any(cause in sentence for sentence in said)


def test_dagster_says_that_a_pod_did_not_start_and_may_retry_it(make_warehouse, pods, instance):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, deploy=False)
    warehouse.manifest()
    launcher = pods.launcher(warehouse, node_selector={"no-such": "node"}, start_timeout_seconds=2)

    outcome = pods.materialize(warehouse, instance, launcher=launcher)

    assert "did not start. No node takes the pod: 0/" in outcome.failure
    assert any("waits. No node takes the pod" in line for line in outcome.log)


@pytest.mark.parametrize(
    ("script", "settings", "cause"),
    [
        pytest.param(
            "x = [bytearray(10_000_000) for _ in range(1_000)]",
            {"resources": {"limits": {"memory": "100Mi"}}},
            "It ran out of memory: its limit is 100Mi.",
            id="memory",
        ),
        pytest.param(
            "import time; time.sleep(300)",
            {"active_deadline_seconds": 4, "grace_period_seconds": 1},
            "It was to take 4 s at most (active_deadline_seconds).",
            id="deadline",
        ),
        pytest.param(
            "import time\nopen('/scratch/x', 'wb').write(bytes(20_000_000))\ntime.sleep(300)",
            {
                "grace_period_seconds": 1,
                "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}],
                "volume_mounts": [{"name": "scratch", "mountPath": "/scratch"}],
            },
            "The pod was evicted: ",
            id="evicted",
        ),
    ],
)
def test_a_pod_that_the_cluster_ends_says_why(pods, script, settings, cause):
    runner, _ = ended(pods, python(script), **settings)

    verdict = runner.verdict()
    assert verdict is not None
    assert cause in verdict.cause
    assert (verdict.started, verdict.transient) == (True, True)
    assert runner.exit_code() is not None
    assert pods.cluster.namespace in verdict.details


def test_a_pod_that_gives_way_to_one_of_higher_priority_says_so(pods):
    cluster = pods.cluster
    name = f"urgent-{os.urandom(4).hex()}"
    cluster.apply(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": 1000,
        }
    )
    free = cluster.core.list_node().items[0].status.allocatable["cpu"]
    most = f"{int(free) * 1000 - 400}m"
    urgent = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "priorityClassName": name,
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "main",
                    "image": pods.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "1"],
                    "resources": {"requests": {"cpu": most}},
                }
            ],
        },
    }
    runner = pods.start(
        python("import time; print('up'); time.sleep(300)"),
        grace_period_seconds=1,
        resources={"requests": {"cpu": most}},
    )
    try:
        output = runner.output()
        assert next(output) == b"up\n"
        cluster.apply(urgent)
        assert list(output) == []
        verdict = runner.verdict()
        assert verdict is not None
        assert verdict.cause.startswith("A pod of higher priority took its place (preempted)")
    finally:
        runner.kill()
        runner.close(succeeded=False)
        cluster.delete_pod(name)


@pytest.mark.parametrize("grace_seconds", [0, 1])
def test_a_pod_that_somebody_deletes_is_told_as_such(pods, grace_seconds):
    runner = pods.start(python("import time; print('up'); time.sleep(300)"))
    try:
        output = runner.output()
        assert next(output) == b"up\n"
        (name,) = pods.names()
        pods.cluster.core.delete_namespaced_pod(
            name, pods.cluster.namespace, grace_period_seconds=grace_seconds
        )
        assert list(output) == []
        verdict = runner.verdict()
        assert verdict is not None
        assert (verdict.cause, verdict.transient) == ("Somebody deleted the pod.", True)
        assert runner.exit_code() is not None
    finally:
        runner.close(succeeded=False)


def test_a_quota_is_told_as_such_and_may_be_tried_again(pods):
    namespace = pods.cluster.new_namespace()
    pods.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none"},
            "spec": {"hard": {"pods": "0"}},
        },
        namespace=namespace,
    )
    pods.cluster.wait_for(
        lambda: pods.cluster.core.read_namespaced_resource_quota("none", namespace).status.hard,
        "the quota",
    )

    with pytest.raises(LaunchError) as caught:
        pods.start(["true"], namespace=namespace)

    assert f"The pod does not fit into a quota in the namespace {namespace}: " in str(caught.value)
    assert "exceeded quota: none" in str(caught.value)
    assert caught.value.transient


@pytest.mark.parametrize(
    ("settings", "words", "transient"),
    [
        (
            {"namespace": "no-such-namespace"},
            'namespaces "no-such-namespace" not found. Create the namespace',
            False,
        ),
        ({"base_pod_spec": {"no_such_key": 1}}, "The settings of KubernetesLauncher are no pod: ", False),
        ({"image": None}, "KubernetesLauncher has no image", False),
        ({"labels": {"a b": "c"}}, "The cluster does not take the pod: ", False),
        ({"kubeconfig_file": "/no/such/file"}, "The cluster is not known: a kubeconfig was expected", False),
        ({"load_incluster_config": True}, "The cluster is not known: the service account", False),
    ],
)
def test_what_cannot_be_started_is_told_in_a_sentence(pods, settings, words, transient):
    with pytest.raises(LaunchError) as caught:
        pods.start(["true"], **settings)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.transient is transient


def test_who_may_not_create_pods_is_told_what_to_do(pods, tmp_path):
    cluster = pods.cluster
    token = cluster.core.create_namespaced_service_account_token(
        "default", cluster.namespace, {"spec": {}}
    ).status.token
    kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text())
    kubeconfig["users"] = [{**kubeconfig["users"][0], "user": {"token": token}}]
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))

    with pytest.raises(LaunchError) as caught:
        pods.start(["true"], kubeconfig_file=str(path))

    assert f"Dagster may not create pods in the namespace {cluster.namespace}" in str(caught.value)
    assert "Give its service account the role of docker/k8s/." in str(caught.value)


def test_a_cluster_that_is_out_of_reach_is_told_as_such(pods, tmp_path, monkeypatch):
    monkeypatch.setattr("dagster_sqlmesh_pipes.launchers.pod_api._CREATE_SECONDS", 1)
    path = tmp_path / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "none", "user": {}}],
                "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
                "current-context": "none",
            }
        )
    )

    with pytest.raises(LaunchError) as caught:
        pods.start(["true"], kubeconfig_file=str(path))

    assert str(caught.value).startswith("The cluster cannot be reached: ")
    assert caught.value.transient


# -------------------------------------------------------------------- the end


def test_a_run_that_is_told_to_end_reports_and_leaves_no_pod(make_warehouse, pods):
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS a"}, {"models/slow.py": FIRST_AND_SLOW % 300}, deploy=False
    )
    arguments = ("run", "prod", "--project", "/tmp/project", "--events", "-", "--grace-period", "1")
    launcher: KubernetesLauncher = pods.launcher(warehouse, grace_period_seconds=10)
    runner = launcher.launch(
        RunnerCall(arguments=arguments, env={}, project_dir=warehouse.path, name="told-to-end")
    )
    try:
        seen = b""
        for chunk in runner.output():
            seen += chunk
            if b'"model_started"' in seen and b'marts\\".\\"slow' in seen:
                runner.terminate()
        last = json.loads([line for line in seen.splitlines() if line.startswith(b"{")][-1])
        assert (last["kind"], last["status"]) == ("run_finished", "interrupted")
        assert runner.exit_code() == 130
    finally:
        runner.kill()
        runner.close(succeeded=False)


def test_a_pod_that_is_killed_ends_at_once(pods):
    runner = pods.start(
        python("import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(300)")
    )
    assert next(runner.output()) == b"up\n"
    began = time.monotonic()
    runner.kill()
    runner.close(succeeded=False)
    assert time.monotonic() - began < 30
    assert pods.names() == []
    runner.kill()  # does nothing the second time


def test_a_pod_that_is_evicted_with_grace_reports_and_dagster_says_why_it_ended(
    make_warehouse, pods, instance
):
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS a", "marts.after": "SELECT a FROM marts.slow"},
        {"models/slow.py": FIRST_AND_SLOW % 20},
        deploy=False,
    )
    warehouse.manifest()

    def evict() -> None:
        wait_for(lambda: instance.get_latest_materialization_event(FIRST) is not None, seconds=120)
        (name,) = pods.names()
        pods.cluster.core.create_namespaced_pod_eviction(
            name, pods.cluster.namespace, {"metadata": {"name": name, "namespace": pods.cluster.namespace}}
        )

    thread = threading.Thread(target=evict)
    thread.start()
    outcome = pods.materialize(warehouse, instance)
    thread.join()

    assert outcome.status("marts/after") == ("skipped", "interrupted")
    assert "The SQLMesh run was stopped before its end. " in outcome.failure
    assert "Somebody deleted the pod." in outcome.failure or "The pod was evicted" in outcome.failure


def test_a_pod_deleted_in_mid_run_leaves_in_dagster_what_was_done_and_why_it_ended(
    make_warehouse, pods, instance
):
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS a"}, {"models/slow.py": FIRST_AND_SLOW % 300}, deploy=False
    )
    warehouse.manifest()

    def delete() -> None:
        wait_for(lambda: instance.get_latest_materialization_event(FIRST) is not None, seconds=120)
        (name,) = pods.names()
        pods.cluster.core.delete_namespaced_pod(name, pods.cluster.namespace, grace_period_seconds=0)

    thread = threading.Thread(target=delete)
    thread.start()
    outcome = pods.materialize(warehouse, instance)
    thread.join()

    assert set(outcome.materialized) == {"staging/first"}
    assert "Somebody deleted the pod." in outcome.failure
