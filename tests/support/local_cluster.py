"""The parts of a cluster that runs on this machine, to be stopped and started by a test: as an outage and an upgrade do.

Of a cluster whose state folder lies around its kubeconfig: ``pid/NAME`` has a part's process id and start time, ``log/NAME.log`` what it
writes. A part that is started again has the same command, and its id is written down for whoever ends the cluster.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.cluster import Cluster


class LocalCluster:
    """A cluster's parts: ``kube-apiserver``, ``kubelet`` and others."""

    def __init__(self, state: Path, cluster: Cluster) -> None:
        self._state = state
        self._cluster = cluster

    @contextmanager
    def without(self, part: str) -> Iterator[None]:
        """Have a part away for a while."""
        command, environment = self._stop(part)
        try:
            yield
        finally:
            self._start(part, command, environment)

    @contextmanager
    def with_environment(self, part: str, more: Mapping[str, str]) -> Iterator[None]:
        """Have a part run with other variables for a while; containers go on meanwhile."""
        command, environment = self._stop(part)
        self._start(part, command, {**environment, **more})
        try:
            yield
        finally:
            self._stop(part)
            self._start(part, command, environment)

    def _stop(self, part: str) -> tuple[list[str], dict[str, str]]:
        pid, began = (self._state / "pid" / part).read_text().split()
        assert _started_at(int(pid)) == began, f"{part} does not run"
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        environment = dict(line.split("=", 1) for line in lines if "=" in line)
        os.kill(int(pid), signal.SIGTERM)
        deadline = time.monotonic() + 3  # an API server waits a minute for those who watch
        while _started_at(int(pid)) == began:
            if time.monotonic() > deadline:
                os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.1)
        return command, environment

    def _start(self, part: str, command: list[str], environment: Mapping[str, str]) -> None:
        with (self._state / "log" / f"{part}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _PROCESSES.append(process)
        (self._state / "pid" / part).write_text(f"{process.pid} {_started_at(process.pid)}\n")
        self._cluster.wait_for(self._is_well, f"the cluster with its {part} started again", seconds=120)

    def _is_well(self) -> bool:
        """Whether the API server answers, and says that its node is there."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            (node,) = self._cluster.core.list_node(_request_timeout=5).items
        except (ApiException, HTTPError, OSError):
            return False
        return any(each.type == "Ready" and each.status == "True" for each in node.status.conditions)


_PROCESSES: list[subprocess.Popen[bytes]] = []
"""Kept, so that Python does not warn of those that outlive the tests."""


def _started_at(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None where there is none, or what is left of one."""
    for process in _PROCESSES:
        process.poll()
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@pytest.fixture
def local_cluster(cluster: Cluster) -> LocalCluster:
    state = cluster.kubeconfig.parent
    if os.geteuid() != 0 or not (state / "pid" / "kube-apiserver").is_file():
        pytest.skip("the cluster's parts are not processes that a test may stop")
    return LocalCluster(state, cluster)
