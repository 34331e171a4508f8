"""The *restricted* Pod Security Standard, as a function over a pod as it is written or as the API gives it.

Read against https://kubernetes.io/docs/concepts/security/pod-security-standards/ as of Kubernetes 1.34: the controls of
*baseline* and *restricted*, for pods of Linux.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
_SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"

Pod = Mapping[str, Any]


def violations(pod: Pod) -> list[str]:
    """What of a pod, or of a pod's template, the standard forbids: ``control: where``, sorted; empty where it passes.

    Args:
        pod: plain data in Kubernetes' own spelling, camelCase, with ``spec``. Objects of the Python client become that by
            ``ApiClient().sanitize_for_serialization(pod)``.
    """
    return sorted(f"{control}: {where}" for control, check in _CONTROLS.items() for where in check(pod))


def _containers(pod: Pod) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod["spec"].get(kind) or []:
            yield f"{kind}[{container['name']}]", container


def _contexts(pod: Pod) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The security contexts: the pod's, then each container's."""
    yield "pod", pod["spec"].get("securityContext") or {}
    for where, container in _containers(pod):
        yield where, container.get("securityContext") or {}


def _must(pod: Pod, allowed: Callable[[Mapping[str, Any]], bool | None]) -> Iterator[str]:
    """The containers where neither their own context nor, for want of one, the pod's allows it; None is no opinion."""
    _, of_the_pod = next(_contexts(pod))
    for where, container in _containers(pod):
        own = allowed(container.get("securityContext") or {})
        if not (own if own is not None else allowed(of_the_pod)):
            yield where


def _host_process(pod: Pod) -> Iterator[str]:
    for where, context in _contexts(pod):
        if (context.get("windowsOptions") or {}).get("hostProcess"):
            yield where


def _host_namespaces(pod: Pod) -> Iterator[str]:
    return (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod["spec"].get(name))


def _privileged(pod: Pod) -> Iterator[str]:
    return (where for where, context in _contexts(pod) if context.get("privileged"))


def _capabilities(pod: Pod) -> Iterator[str]:
    for where, container in _containers(pod):
        capabilities = (container.get("securityContext") or {}).get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or []):
            yield f"{where} does not drop ALL"
        if added := set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
            yield f"{where} adds {', '.join(sorted(added))}"


def _volume_types(pod: Pod) -> Iterator[str]:
    for volume in pod["spec"].get("volumes") or []:
        if (
            kinds := {name for name, value in volume.items() if name != "name" and value is not None}
            - _VOLUMES
        ):
            yield f"{volume['name']} is {', '.join(sorted(kinds))}"


def _host_ports(pod: Pod) -> Iterator[str]:
    for where, container in _containers(pod):
        if any(port.get("hostPort") for port in container.get("ports") or []):
            yield where


def _probe_hosts(pod: Pod) -> Iterator[str]:
    for where, container in _containers(pod):
        lifecycle = container.get("lifecycle") or {}
        handlers = [container.get(name) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [lifecycle.get(name) for name in ("postStart", "preStop")]
        if any(
            (handler.get(kind) or {}).get("host")
            for handler in handlers
            if handler
            for kind in ("httpGet", "tcpSocket")
        ):
            yield where


def _app_armor(pod: Pod) -> Iterator[str]:
    for where, context in _contexts(pod):
        if (context.get("appArmorProfile") or {}).get("type") not in {None, "RuntimeDefault", "Localhost"}:
            yield where
    for name, value in ((pod.get("metadata") or {}).get("annotations") or {}).items():
        if name.startswith(_APPARMOR) and not (value == "runtime/default" or value.startswith("localhost/")):
            yield name


def _selinux(pod: Pod) -> Iterator[str]:
    for where, context in _contexts(pod):
        options = context.get("seLinuxOptions") or {}
        if options.get("type") not in _SELINUX_TYPES or options.get("user") or options.get("role"):
            yield where


def _proc_mount(pod: Pod) -> Iterator[str]:
    return (where for where, context in _contexts(pod) if context.get("procMount") not in {None, "Default"})


def _sysctls(pod: Pod) -> Iterator[str]:
    context = pod["spec"].get("securityContext") or {}
    return (sysctl["name"] for sysctl in context.get("sysctls") or [] if sysctl["name"] not in _SYSCTLS)


def _privilege_escalation(pod: Pod) -> Iterator[str]:
    for where, container in _containers(pod):
        if (container.get("securityContext") or {}).get("allowPrivilegeEscalation") is not False:
            yield where


def _non_root(pod: Pod) -> Iterator[str]:
    return _must(pod, lambda context: context.get("runAsNonRoot"))


def _non_root_user(pod: Pod) -> Iterator[str]:
    return (where for where, context in _contexts(pod) if context.get("runAsUser") == 0)


def _seccomp(pod: Pod) -> Iterator[str]:
    def allowed(context: Mapping[str, Any]) -> bool | None:
        kind = (context.get("seccompProfile") or {}).get("type")
        return None if kind is None else kind in {"RuntimeDefault", "Localhost"}

    yield from _must(pod, allowed)
    _, of_the_pod = next(_contexts(pod))
    if allowed(of_the_pod) is False:
        yield "pod"


_CONTROLS: Mapping[str, Callable[[Pod], Iterator[str]]] = {
    "HostProcess": _host_process,
    "Host Namespaces": _host_namespaces,
    "Privileged Containers": _privileged,
    "Capabilities": _capabilities,
    "Volume Types": _volume_types,
    "Host Ports": _host_ports,
    "Host Probes / Lifecycle Hooks": _probe_hosts,
    "AppArmor": _app_armor,
    "SELinux": _selinux,
    "/proc Mount Type": _proc_mount,
    "Sysctls": _sysctls,
    "Privilege Escalation": _privilege_escalation,
    "Running as Non-root": _non_root,
    "Running as Non-root user": _non_root_user,
    "Seccomp": _seccomp,
}
