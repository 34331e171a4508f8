"""The pod is what the settings say, in either of Kubernetes' spellings, and passes the restricted standard unless they say otherwise."""

from pathlib import Path

import pytest

from dagster_sqlmesh_pipes import KubernetesLauncher, LaunchError, RunnerCall
from dagster_sqlmesh_pipes.launchers.pod_template import build_pod
from support.pod_security import violations

CALL = RunnerCall(
    arguments=["run", "prod"],
    env={"DAGSTER_PIPES_CONTEXT": "c"},
    project_dir=Path("/project"),
    name="sqlmesh-1",
    labels={"dagster/run-id": "r", "dagster/op": "a step [with] signs"},
)


def test_settings_in_snake_case_and_in_camel_case_make_the_same_pod():
    snake = KubernetesLauncher(
        image="i:1",
        volumes=[{"name": "tmp", "empty_dir": {"size_limit": "1Gi"}}],
        volume_mounts=[{"name": "tmp", "mount_path": "/tmp"}],
        tolerations=[{"key": "k", "toleration_seconds": 5}],
        container_config={
            "image_pull_policy": "Never",
            "security_context": {"read_only_root_filesystem": True},
        },
        base_pod_spec={"priority_class_name": "p", "dns_config": {"nameservers": ["n"]}},
    )
    camel = KubernetesLauncher(
        image="i:1",
        volumes=[{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
        volume_mounts=[{"name": "tmp", "mountPath": "/tmp"}],
        tolerations=[{"key": "k", "tolerationSeconds": 5}],
        container_config={"imagePullPolicy": "Never", "securityContext": {"readOnlyRootFilesystem": True}},
        base_pod_spec={"priorityClassName": "p", "dnsConfig": {"nameservers": ["n"]}},
    )

    pod = build_pod(snake, CALL)

    assert pod == build_pod(camel, CALL)
    assert pod["spec"]["priorityClassName"] == "p"
    assert pod["spec"]["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert violations(pod) == []


def test_the_least_that_is_said_makes_a_pod_that_passes_the_restricted_standard():
    pod = build_pod(KubernetesLauncher(image="i:1"), CALL)

    assert violations(pod) == []
    assert pod["metadata"]["name"] == "sqlmesh-1"
    assert pod["metadata"]["labels"]["dagster/op"] == "a-step--with--signs"
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["terminationGracePeriodSeconds"] == 35
    assert pod["spec"]["containers"][0]["command"] == ["sqlmesh-runner", "run", "prod"]


def test_what_is_said_of_security_replaces_what_is_not_and_null_takes_away():
    launcher = KubernetesLauncher(
        image="i:1",
        base_pod_spec={"security_context": {"run_as_non_root": None, "run_as_user": 0}},
    )

    assert build_pod(launcher, CALL)["spec"]["securityContext"] == {
        "runAsUser": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_the_runners_variables_win_over_those_of_the_base_and_keep_its_others():
    launcher = KubernetesLauncher(
        base_pod_spec={
            "containers": [
                {
                    "name": "main",
                    "image": "i:1",
                    "env": [
                        {"name": "A", "value": "base"},
                        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    ],
                },
                {"name": "sidecar", "image": "p:1"},
            ]
        },
        env={"A": "own"},
    )

    main, sidecar = build_pod(launcher, CALL)["spec"]["containers"]

    assert (main["name"], main["image"]) == ("main", "i:1")
    assert main["env"] == [
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "A", "value": "own"},
        {"name": "DAGSTER_PIPES_CONTEXT", "value": "c"},
    ]
    assert sidecar == {"name": "sidecar", "image": "p:1"}


def test_labels_of_the_settings_do_not_hide_whose_pod_it_is():
    pod = build_pod(
        KubernetesLauncher(image="i:1", labels={"dagster-sqlmesh-pipes": "mine", "team": "data"}), CALL
    )

    assert pod["metadata"]["labels"]["dagster-sqlmesh-pipes"] == "runner"
    assert pod["metadata"]["labels"]["team"] == "data"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "KubernetesLauncher has no image"),
        (
            {"image": "i:1", "base_pod_spec": {"no_such_key": 1}},
            "are no pod: Unexpected keys in model class V1PodSpec: {'no_such_key'}.",
        ),
        ({"image": "i:1", "container_config": {"resources": "much"}}, "are no pod: "),
    ],
)
def test_settings_that_are_no_pod_are_told_in_a_sentence(settings, words):
    with pytest.raises(LaunchError) as caught:
        build_pod(KubernetesLauncher(**settings), CALL)

    assert words in str(caught.value)
