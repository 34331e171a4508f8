"""The check of the restricted Pod Security Standard finds what the standard forbids, control by control."""

import copy

import pytest

from support.cluster import restricted_pod
from support.pod_security import violations

HARDENED = restricted_pod("hardened", "image:1", ["true"])


def broken(path: str, value: object) -> dict:
    """The hardened pod with one field set, or taken away with None: ``spec/hostPID``, ``main/ports``."""
    pod = copy.deepcopy(HARDENED)
    *folders, name = path.split("/")
    place = pod
    for folder in folders:
        place = pod["spec"]["containers"][0] if folder == "main" else place.setdefault(folder, {})
    if value is None:
        del place[name]
    else:
        place[name] = value
    return pod


def test_a_hardened_pod_passes():
    assert violations(HARDENED) == []


@pytest.mark.parametrize(
    ("path", "value", "violation"),
    [
        (
            "main/securityContext/windowsOptions",
            {"hostProcess": True},
            "HostProcess: containers[main]",
        ),
        ("spec/hostNetwork", True, "Host Namespaces: hostNetwork"),
        ("spec/hostPID", True, "Host Namespaces: hostPID"),
        ("spec/hostIPC", True, "Host Namespaces: hostIPC"),
        ("main/securityContext/privileged", True, "Privileged Containers: containers[main]"),
        ("main/securityContext/capabilities", None, "Capabilities: containers[main] does not drop ALL"),
        (
            "main/securityContext/capabilities/add",
            ["NET_BIND_SERVICE", "SYS_ADMIN"],
            "Capabilities: containers[main] adds SYS_ADMIN",
        ),
        (
            "spec/volumes",
            [{"name": "docker", "hostPath": {"path": "/var/run"}}],
            "Volume Types: docker is hostPath",
        ),
        ("spec/volumes", [{"name": "share", "nfs": {}}], "Volume Types: share is nfs"),
        ("main/ports", [{"containerPort": 80, "hostPort": 80}], "Host Ports: containers[main]"),
        (
            "main/livenessProbe",
            {"httpGet": {"host": "127.0.0.1", "port": 80}},
            "Host Probes / Lifecycle Hooks: containers[main]",
        ),
        (
            "main/lifecycle",
            {"preStop": {"tcpSocket": {"host": "127.0.0.1", "port": 80}}},
            "Host Probes / Lifecycle Hooks: containers[main]",
        ),
        ("spec/securityContext/appArmorProfile", {"type": "Unconfined"}, "AppArmor: pod"),
        (
            "metadata/annotations",
            {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"},
            "AppArmor: container.apparmor.security.beta.kubernetes.io/main",
        ),
        ("main/securityContext/seLinuxOptions", {"type": "spc_t"}, "SELinux: containers[main]"),
        ("spec/securityContext/seLinuxOptions", {"role": "sysadm_r"}, "SELinux: pod"),
        ("main/securityContext/procMount", "Unmasked", "/proc Mount Type: containers[main]"),
        (
            "spec/securityContext/sysctls",
            [{"name": "kernel.msgmax", "value": "1"}],
            "Sysctls: kernel.msgmax",
        ),
        (
            "main/securityContext/allowPrivilegeEscalation",
            None,
            "Privilege Escalation: containers[main]",
        ),
        ("spec/securityContext/runAsNonRoot", None, "Running as Non-root: containers[main]"),
        ("main/securityContext/runAsNonRoot", False, "Running as Non-root: containers[main]"),
        ("spec/securityContext/runAsUser", 0, "Running as Non-root user: pod"),
        ("main/securityContext/runAsUser", 0, "Running as Non-root user: containers[main]"),
        ("spec/securityContext/seccompProfile", None, "Seccomp: containers[main]"),
        (
            "main/securityContext/seccompProfile",
            {"type": "Unconfined"},
            "Seccomp: containers[main]",
        ),
    ],
)
def test_what_the_standard_forbids_is_found(path, value, violation):
    assert violations(broken(path, value)) == [violation]


def test_init_containers_are_held_to_the_same():
    pod = broken("spec/initContainers", [{"name": "setup", "image": "image:1"}])

    assert violations(pod) == [
        "Capabilities: initContainers[setup] does not drop ALL",
        "Privilege Escalation: initContainers[setup]",
    ]


def test_a_container_may_say_for_itself_what_its_pod_does_not_say():
    pod = broken("spec/securityContext", None)
    pod["spec"]["containers"][0]["securityContext"] |= {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "Localhost", "localhostProfile": "runner.json"},
    }

    assert violations(pod) == []
