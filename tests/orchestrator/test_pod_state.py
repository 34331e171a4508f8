"""What a cluster says of a pod, in the words of versions and situations that no cluster here can be brought into."""

from typing import Any

import pytest

from dagster_sqlmesh_pipes.launchers.pod_state import state_of, verdict_on


def pod(
    phase: str = "Running",
    state: dict[str, Any] | None = None,
    *,
    leaving: bool = False,
    spec: dict[str, Any] | None = None,
    **status: Any,
) -> dict[str, Any]:
    """A pod with a sidecar; `state` is that of the runner's container."""
    metadata = {"name": "sqlmesh-1", "namespace": "sqlmesh", "uid": "u"}
    if leaving:
        metadata["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    statuses = [{"name": "sidecar", "state": {"running": {}}}]
    if state is not None:
        statuses.append({"name": "runner", "state": state})
    containers = [
        {"name": "runner", "image": "warehouse:1", "resources": {"limits": {"memory": "2Gi"}}},
        {"name": "sidecar", "image": "proxy:1"},
    ]
    return {
        "metadata": metadata,
        "spec": {"containers": containers, "nodeName": "node-7", **(spec or {})},
        "status": {"phase": phase, "containerStatuses": statuses, **status},
    }


RUNNING = {"running": {"startedAt": "2026-03-01T12:00:00Z"}}


def ended(code: int, reason: str = "Error", **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": "2026-03-01T12:00:00Z", **more}}


def disrupted(reason: str, message: str) -> list[dict[str, str]]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]


def event(reason: str, message: str, kind: str = "Warning") -> dict[str, str]:
    return {"type": kind, "reason": reason, "message": message, "lastTimestamp": "2026-03-01T12:00:01Z"}


@pytest.mark.parametrize(
    ("seen", "events", "cause"),
    [
        (pod(state=ended(137, "OOMKilled")), [], "It ran out of memory: its limit is 2Gi."),
        (
            pod("Failed", reason="Evicted", message="The node was low on resource: memory. "),
            [],
            "The pod was evicted: The node was low on resource: memory.",
        ),
        (
            pod("Failed", reason="DeadlineExceeded", spec={"activeDeadlineSeconds": 60}),
            [],
            "It was to take 60 s at most (active_deadline_seconds).",
        ),
        (
            pod(reason="NodeLost", message="Node node-7 which was running pod is unresponsive"),
            [],
            "Its node is lost or was shut down: Node node-7 which was running pod is unresponsive.",
        ),
        (
            pod(
                "Failed",
                reason="Terminated",
                message="Pod was terminated in response to imminent node shutdown.",
            ),
            [],
            "Its node is lost or was shut down: Pod was terminated in response to imminent node shutdown.",
        ),
        (
            pod(
                state=ended(143),
                leaving=True,
                conditions=disrupted(
                    "PreemptionByScheduler",
                    "default-scheduler: preempting to accommodate a higher priority pod",
                ),
            ),
            [],
            "A pod of higher priority took its place (preempted): default-scheduler: preempting to accommodate a higher priority "
            "pod.",
        ),
        (
            pod(
                leaving=True,
                state=RUNNING,
                conditions=disrupted(
                    "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
                ),
            ),
            [],
            "The pod was taken off its node, which is lost or was tainted: Taint manager: deleting due to NoExecute taint.",
        ),
        (
            pod(
                leaving=True,
                state=ended(143),
                conditions=disrupted("EvictionByEvictionAPI", "Eviction API: evicting"),
            ),
            [],
            "The pod was evicted, as a drain of its node does: Eviction API: evicting.",
        ),
        (
            pod(leaving=True, state=RUNNING),
            [
                event("NodeNotReady", "Node is not ready"),
                event("TaintManagerEviction", "Marking for deletion Pod sqlmesh/sqlmesh-1", "Normal"),
            ],
            "The pod was taken off its node, which is lost or was tainted: Marking for deletion Pod sqlmesh/sqlmesh-1.",
        ),
        (
            pod(leaving=True, state=ended(143)),
            [event("Killing", "Stopping container", "Normal")],
            "Somebody deleted the pod.",
        ),
    ],
)
def test_why_a_pod_ended_is_told_in_a_sentence(seen, events, cause):
    verdict = verdict_on(seen, events, was_deleted=False, was_asked=False)

    assert verdict is not None
    assert verdict.cause == cause
    assert verdict.transient


@pytest.mark.parametrize(
    ("reason", "message", "cause", "transient"),
    [
        (
            "ImagePullBackOff",
            "Back-off pulling image",
            "The image warehouse:1 cannot be pulled: Back-off pulling image.",
            True,
        ),
        (
            "ErrImageNeverPull",
            "",
            "The image warehouse:1 is not on the node, and the pull policy is Never.",
            False,
        ),
        ("InvalidImageName", "", "The image's name 'warehouse:1' is none.", False),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
            "The container's settings do not hold: container has runAsNonRoot and image will run as root.",
            True,
        ),
    ],
)
def test_why_a_container_waits_is_told_in_a_sentence(reason, message, cause, transient):
    waiting = pod("Pending", {"waiting": {"reason": reason, "message": message}})

    verdict = verdict_on(waiting, [], was_deleted=False, was_asked=False)

    assert verdict is not None
    assert (verdict.cause, verdict.transient, verdict.started) == (cause, transient, False)
    assert state_of(waiting).waits_for == cause


def test_an_init_container_that_cannot_start_is_told_by_its_image():
    waiting = pod(
        "Pending",
        {"waiting": {"reason": "PodInitializing"}},
        spec={
            "containers": [{"name": "runner", "image": "warehouse:1"}],
            "initContainers": [{"name": "first", "image": "init:1"}],
        },
        initContainerStatuses=[
            {"name": "first", "state": {"waiting": {"reason": "ErrImagePull", "message": "denied"}}}
        ],
    )

    assert state_of(waiting).waits_for == "The image init:1 cannot be pulled: denied."
    assert state_of(waiting).is_stuck


def test_a_pod_that_failed_before_its_container_began_says_what_the_cluster_warned_of():
    failed = pod("Failed", message="Pod was rejected")
    events = [
        event("FailedMount", 'MountVolume.SetUp failed for volume "secrets"'),
        event("MissingClusterDNS", "kubelet does not have ClusterDNS IP configured"),
    ]

    verdict = verdict_on(failed, events, was_deleted=False, was_asked=False)

    assert verdict is not None
    assert verdict.cause == 'It failed: MountVolume.SetUp failed for volume "secrets".'


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (ended(0), 0),
        (ended(1), 1),
        (ended(137), -9),
        (ended(143), -15),
        (ended(0, signal=9), -9),
        (RUNNING, None),
        (None, None),
    ],
)
def test_an_exit_status_is_told_as_that_of_a_process_here(state, code):
    assert state_of(pod(state=state)).exit_code == code


def test_the_end_of_a_sidecar_is_not_the_runners():
    seen = pod(state=RUNNING)
    seen["status"]["containerStatuses"][0]["state"] = ended(1)

    assert state_of(seen).exit_code is None


def test_what_this_side_asked_for_and_a_regular_end_need_no_explanation():
    assert verdict_on(pod(leaving=True, state=ended(143)), [], was_deleted=True, was_asked=True) is None
    assert verdict_on(pod("Succeeded", ended(0)), [], was_deleted=False, was_asked=False) is None
    assert verdict_on(pod("Failed", ended(1)), [], was_deleted=False, was_asked=False) is None


def test_a_pods_last_state_and_events_are_listed():
    verdict = verdict_on(
        pod("Failed", reason="Evicted", message="low on memory"),
        [event("Killing", "Stopping container", "Normal")],
        was_deleted=False,
        was_asked=False,
    )

    assert verdict is not None
    assert verdict.details.splitlines() == [
        "sqlmesh/sqlmesh-1 on node-7: Failed Evicted",
        "container sidecar: running",
        "2026-03-01T12:00:01Z Normal Killing: Stopping container",
    ]
