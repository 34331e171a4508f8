"""The pod that a runner runs in, made of a launcher's settings. Pure: nothing is asked of a cluster."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.pod_state import TTL_ANNOTATION

if TYPE_CHECKING:
    from dagster_sqlmesh_pipes.launchers.launcher import RunnerCall
    from dagster_sqlmesh_pipes.launchers.pods import KubernetesLauncher


CONTAINER = "sqlmesh-runner"
"""The runner's container, where the pod's spec does not name it."""
LABEL, LABELLED = "dagster-sqlmesh-pipes", "runner"
"""What every pod of this package is labelled with."""
_GRACE_SECONDS = 5
"""How much later than the runner the cluster gives up waiting for its end."""

_RESTRICTED_POD = {"run_as_non_root": True, "seccomp_profile": {"type": "RuntimeDefault"}}
_RESTRICTED_CONTAINER = {"allow_privilege_escalation": False, "capabilities": {"drop": ["ALL"]}}
"""What the *restricted* Pod Security Standard asks for (kubernetes.io/docs/concepts/security/pod-security-standards)."""


def build_pod(launcher: KubernetesLauncher, call: RunnerCall) -> dict[str, Any]:
    """The pod, as Kubernetes' API takes it, and as the *restricted* Pod Security Standard lets it pass if nothing is overridden.

    The launcher's ``base_pod_spec`` and ``base_pod_meta`` are filled up; the first container of the spec is the runner's.

    Raises:
        LaunchError: the settings are no pod: a key that Kubernetes does not know, no image.
    """
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
    from dagster_k8s.utils import get_common_labels, sanitize_k8s_label

    from kubernetes import client

    try:
        spec = dict(k8s_snake_case_dict(client.V1PodSpec, launcher.base_pod_spec))
        meta = dict(k8s_snake_case_dict(client.V1ObjectMeta, launcher.base_pod_meta))
        settings = dict(k8s_snake_case_dict(client.V1Container, launcher.container_config))
        volumes = [k8s_snake_case_dict(client.V1Volume, volume) for volume in launcher.volumes]
        mounts = [k8s_snake_case_dict(client.V1VolumeMount, mount) for mount in launcher.volume_mounts]
        tolerations = [k8s_snake_case_dict(client.V1Toleration, value) for value in launcher.tolerations]

        first, *sidecars = spec.pop("containers", None) or [{}]
        container = _merged(first, settings)
        container.setdefault("name", CONTAINER)
        if launcher.image is not None:
            container["image"] = launcher.image
        if "image" not in container:
            raise LaunchError(
                "KubernetesLauncher has no image: give one, or one in base_pod_spec's first container."
            )
        if launcher.image_pull_policy is not None:
            container["image_pull_policy"] = launcher.image_pull_policy
        container["command"] = [*launcher.command, *call.arguments]
        container.pop("args", None)
        variables = {**launcher.env, **call.env}
        container["env"] = [
            *(entry for entry in container.get("env") or () if entry.get("name") not in variables),
            *({"name": name, "value": value} for name, value in variables.items()),
        ]
        container["env_from"] = [
            *(container.get("env_from") or ()),
            *({"secret_ref": {"name": name}} for name in launcher.env_secrets),
            *({"config_map_ref": {"name": name}} for name in launcher.env_config_maps),
        ]
        container["resources"] = _merged(container.get("resources") or {}, launcher.resources)
        container["volume_mounts"] = [*(container.get("volume_mounts") or ()), *mounts]
        container["security_context"] = _merged(
            _RESTRICTED_CONTAINER, container.get("security_context") or {}
        )

        spec["containers"] = [container, *sidecars]
        spec["restart_policy"] = "Never"  # a run that is to be tried again is tried by Dagster
        spec["security_context"] = _merged(_RESTRICTED_POD, spec.get("security_context") or {})
        spec.setdefault("automount_service_account_token", False)
        spec.setdefault("enable_service_links", False)
        spec["termination_grace_period_seconds"] = grace_period(launcher)
        spec["volumes"] = [*(spec.get("volumes") or ()), *volumes]
        spec["tolerations"] = [*(spec.get("tolerations") or ()), *tolerations]
        spec["node_selector"] = {**(spec.get("node_selector") or {}), **launcher.node_selector}
        spec["image_pull_secrets"] = [
            *(spec.get("image_pull_secrets") or ()),
            *({"name": name} for name in launcher.image_pull_secrets),
        ]
        if launcher.service_account_name is not None:
            spec["service_account_name"] = launcher.service_account_name
        if launcher.active_deadline_seconds is not None:
            spec["active_deadline_seconds"] = launcher.active_deadline_seconds

        meta["name"] = call.name or f"sqlmesh-{uuid.uuid4().hex[:16]}"
        meta["labels"] = {
            **get_common_labels(),  # type: ignore[no-untyped-call]  # it has no annotations
            "app.kubernetes.io/component": "sqlmesh-runner",
            **{name: sanitize_k8s_label(value) for name, value in call.labels.items()},
            **(meta.get("labels") or {}),
            **launcher.labels,
            LABEL: LABELLED,
        }
        meta["annotations"] = {**(meta.get("annotations") or {}), **launcher.annotations}
        if launcher.ttl_seconds_after_finished is not None:
            meta["annotations"][TTL_ANNOTATION] = str(launcher.ttl_seconds_after_finished)

        model = k8s_model_from_dict(client.V1Pod, {"metadata": meta, "spec": spec})
    except LaunchError:
        raise
    except (
        Exception
    ) as error:  # plain ones, of the conversion: an unknown key, a mapping where a list belongs
        told = str(error).partition(", received")[0]  # what was received may be a secret
        raise LaunchError(f"The settings of KubernetesLauncher are no pod: {told}.") from error
    pod: dict[str, Any] = client.ApiClient().sanitize_for_serialization(model)
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def grace_period(launcher: KubernetesLauncher) -> int:
    """Seconds that the cluster gives the pod to end."""
    return math.ceil(launcher.grace_period_seconds) + _GRACE_SECONDS


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings within mappings are merged, anything else is replaced; what is None is taken away."""
    merged = dict(base)
    for key, value in over.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[key] = _merged(before, value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value if not isinstance(value, Sequence) or isinstance(value, str) else list(value)
    return merged
