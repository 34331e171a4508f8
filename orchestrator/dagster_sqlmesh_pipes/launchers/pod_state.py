"""What the state of a pod means for the runner in it, in words. Pure: pods and events in, as Kubernetes' API has them.

Read against Kubernetes 1.20 to 1.34. A cause that lies in the cluster is transient: there, or then, it may work.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dagster_sqlmesh_pipes.launchers.launcher import Verdict
from sqlmesh_pipes_protocol.codec import moment_of

TTL_ANNOTATION = "dagster-sqlmesh-pipes/ttl-seconds-after-finished"

_NEVER = {
    "InvalidImageName": "The image's name {image!r} is none",
    "ErrImageNeverPull": "The image {image} is not on the node, and the pull policy is Never",
}
"""Reasons for which a container waits, and waits in vain."""
_HARDLY = {
    "ErrImagePull": "The image {image} cannot be pulled",
    "ImagePullBackOff": "The image {image} cannot be pulled",
    "ImageInspectError": "The image {image} cannot be read",
    "RegistryUnavailable": "The registry of the image {image} cannot be reached",
    "CreateContainerConfigError": "The container's settings do not hold",
    "CreateContainerError": "The container cannot be made",
    "RunContainerError": "The container cannot be started",
    "CrashLoopBackOff": "An init container fails again and again",
}
"""Reasons for which a container waits, and seldom gets over it."""
_DISRUPTIONS = {
    "PreemptionByScheduler": "A pod of higher priority took its place (preempted)",
    "PreemptionByKubeScheduler": "A pod of higher priority took its place (preempted)",
    "DeletionByTaintManager": "The pod was taken off its node, which is lost or was tainted",
    "EvictionByEvictionAPI": "The pod was evicted, as a drain of its node does",
    "DeletionByPodGC": "Its node is lost",
    "TerminationByKubelet": "Its node ended the pod, being short of something or shutting down",
}
"""Reasons of the condition ``DisruptionTarget``, of Kubernetes 1.26 and later."""
_TOLD_BY_EVENTS = {
    "Preempted": "A pod of higher priority took its place (preempted)",
    "TaintManagerEviction": "The pod was taken off its node, which is lost or was tainted",
    "NodeNotReady": "Its node is lost",
    "Evicted": "The pod was evicted",
}
_MAX_EVENTS = 10


@dataclass(frozen=True, kw_only=True)
class PodState:
    """A pod's state, as far as its runner goes.

    Attributes:
        has_started: the runner's container began to run.
        exit_code: of the runner's container, negative for a signal; None while it has not ended.
        waits_for: what keeps it from starting, in a sentence; empty where nothing is known to.
        is_hopeless: waiting on will not help.
        is_stuck: waiting on will hardly help.
        is_leaving: the pod is being deleted.
        has_failed: the cluster gave the pod up, whatever became of the container.
    """

    has_started: bool
    exit_code: int | None
    waits_for: str = ""
    is_hopeless: bool = False
    is_stuck: bool = False
    is_leaving: bool = False
    has_failed: bool = False


def state_of(pod: Mapping[str, Any]) -> PodState:
    """The state of a pod whose first container is the runner's."""
    status = pod.get("status") or {}
    name = pod["spec"]["containers"][0]["name"]
    own = _own_status(status, name)
    state = own.get("state") or {}
    ended = state.get("terminated")
    waits_for, hopeless, stuck = _waiting(pod, status, state)
    return PodState(
        # A container that could not be started is told as ended, with reasons like ContainerCannotRun, and began at no time.
        has_started=bool(state.get("running") or (ended and ended.get("startedAt")))
        and not _never_ran(ended),
        exit_code=_exit_code(ended) if ended else None,
        waits_for=waits_for,
        is_hopeless=hopeless or _never_ran(ended),
        is_stuck=stuck,
        is_leaving=bool(pod["metadata"].get("deletionTimestamp")),
        has_failed=status.get("phase") == "Failed",
    )


def is_outdated(pod: Mapping[str, Any], now: datetime) -> bool:
    """Whether a pod has ended, and longer ago than its annotation lets it be kept."""
    ttl = (pod["metadata"].get("annotations") or {}).get(TTL_ANNOTATION, "")
    status = pod.get("status") or {}
    states = [each.get("state") or {} for each in status.get("containerStatuses") or ()]
    ends = [state["terminated"].get("finishedAt") for state in states if state.get("terminated")]
    if not ttl.isdecimal() or len(ends) < len(states) or (not ends and status.get("phase") != "Failed"):
        return False
    last = max([end for end in ends if end] or [status.get("startTime") or ""])
    return bool(last) and moment_of(last) + timedelta(seconds=int(ttl)) < now


def _own_status(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    for each in status.get("containerStatuses") or ():
        if each["name"] == name:
            return dict(each)
    return {}


def _never_ran(ended: Mapping[str, Any] | None) -> bool:
    return ended is not None and ended.get("reason") in ("ContainerCannotRun", "StartError")


def _exit_code(ended: Mapping[str, Any]) -> int:
    if ended.get("signal"):
        return -int(ended["signal"])
    code = int(ended.get("exitCode", -signal.SIGKILL))
    # As a process on this host would be told: a signal is a negative status.
    return {137: -signal.SIGKILL, 143: -signal.SIGTERM}.get(code, code)


def _waiting(
    pod: Mapping[str, Any], status: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[str, bool, bool]:
    if status.get("phase") not in (None, "Pending") or state.get("running") or state.get("terminated"):
        return "", False, False
    images = {each["name"]: each.get("image", "") for each in _containers(pod)}
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for each in statuses:
        waiting = (each.get("state") or {}).get("waiting") or {}
        reason, said = waiting.get("reason", ""), waiting.get("message", "")
        for known, hopeless in ((_NEVER, True), (_HARDLY, False)):
            if reason in known:
                told = known[reason].format(image=images.get(each["name"], ""))
                return _sentence(told, said), hopeless, True
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _sentence("No node takes the pod", condition.get("message", "")), False, False
    return "", False, False


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def verdict_on(
    pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]], *, was_deleted: bool, was_asked: bool
) -> Verdict | None:
    """What the cluster says of a runner's end, or of its not beginning. None where it says nothing that the runner does not.

    Args:
        pod: as it was last seen.
        events: of the pod.
        was_deleted: the pod is no more.
        was_asked: this side had it deleted.
    """
    state = state_of(pod)
    cause = _cause(pod, events, state, was_deleted=was_deleted, was_asked=was_asked)
    if cause is None:
        return None
    return Verdict(
        cause=cause,
        transient=not state.is_hopeless,
        started=state.has_started,
        details=describe(pod, events),
    )


def _cause(
    pod: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    state: PodState,
    *,
    was_deleted: bool,
    was_asked: bool,
) -> str | None:
    status = pod.get("status") or {}
    container = pod["spec"]["containers"][0]
    own = _own_status(status, container["name"])
    ended = (own.get("state") or {}).get("terminated") or {}
    reason, said = status.get("reason", ""), status.get("message", "")
    if ended.get("reason") == "OOMKilled":
        limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
        return "It ran out of memory" + (f": its limit is {limit}." if limit else ".")
    if reason == "Evicted":
        return _sentence("The pod was evicted", said)
    if reason == "DeadlineExceeded":
        seconds = pod["spec"].get("activeDeadlineSeconds")
        return f"It was to take {seconds} s at most (active_deadline_seconds)."
    if reason in ("NodeLost", "NodeShutdown", "Terminated", "Shutdown"):
        return _sentence("Its node is lost or was shut down", said)
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            known = _DISRUPTIONS.get(condition.get("reason", ""), "The cluster disrupted the pod")
            return _sentence(known, condition.get("message", ""))
    if _never_ran(ended):
        return _sentence("The container cannot be started", ended.get("message", ""))
    if not was_asked:
        for event in reversed(events):
            if event.get("reason") in _TOLD_BY_EVENTS and (was_deleted or state.is_leaving):
                return _sentence(_TOLD_BY_EVENTS[event["reason"]], event.get("message", ""))
        if was_deleted or state.is_leaving:
            return "Somebody deleted the pod."
    for each in status.get("initContainerStatuses") or ():
        failed = (each.get("state") or {}).get("terminated") or {}
        if failed.get("exitCode"):
            return _sentence(
                f"The init container {each['name']} ended with status {failed['exitCode']}",
                failed.get("message", ""),
            )
    if not state.has_started and state.exit_code is None:
        if state.waits_for:
            return state.waits_for
        if state.has_failed or status.get("phase") == "Pending":
            told = latest_warning(events) or said
            return _sentence(
                "Its node does not get it to start" if not state.has_failed else "It failed", told
            )
    return None


def latest_warning(events: Sequence[Mapping[str, Any]]) -> str:
    """What the cluster last warned of; one of its network's setup keeps no pod from starting."""
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning" and event.get("reason") != "MissingClusterDNS"
    ]
    return str(warnings[-1].get("message", "")) if warnings else ""


def describe(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str:
    """A pod's last state and its latest events, as lines."""
    status = pod.get("status") or {}
    lines = [
        f"{pod['metadata'].get('namespace', '')}/{pod['metadata'].get('name', '')} on "
        f"{pod['spec'].get('nodeName') or 'no node'}: {status.get('phase', 'unknown')} {status.get('reason') or ''}".rstrip()
    ]
    for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        for kind, state in (each.get("state") or {}).items():
            told = ", ".join(
                f"{name} {state[name]}"
                for name in ("reason", "exitCode", "message")
                if state.get(name) is not None
            )
            lines.append(f"container {each['name']}: {kind}{f' ({told})' if told else ''}")
    lines += [
        f"{condition['type']}: {condition['message']}"
        for condition in status.get("conditions") or ()
        if condition.get("status") == "False" and condition.get("message")
    ]
    for event in events[-_MAX_EVENTS:]:
        when = event.get("lastTimestamp") or event.get("eventTime") or ""
        lines.append(f"{when} {event.get('type')} {event.get('reason')}: {event.get('message')}".strip())
    return "\n".join(lines)


def _sentence(told: str, said: str) -> str:
    said = " ".join(said.split()).rstrip(".")
    return f"{told}: {said}." if said else f"{told}."
