"""The few things that are asked of a Kubernetes cluster, and what its answers mean in words.

Needs of the cluster: ``create``, ``list``, ``watch`` and ``delete`` of pods, ``get`` of ``pods/log``, ``list`` of events.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dagster_sqlmesh_pipes.errors import LaunchError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from urllib3 import HTTPResponse

CONNECT_SECONDS = 10
_ASK_SECONDS = 60
"""How long the API server may take to answer."""
_SILENCE_SECONDS = 60
"""How long a log may be silent before it is asked for again: a connection can be dead and nobody says so."""
_CREATE_SECONDS = 30
"""For how long a pod is tried to be created again where the API server is out of reach."""

Pod = dict[str, Any]
"""As the API has it."""


class PodApi:
    """A namespace of a cluster. Thread-safe.

    The calls raise what the ``kubernetes`` package does, `unreachable` among it, but for those that say otherwise.
    """

    def __init__(self, client: ApiClient, namespace: str) -> None:
        from kubernetes.client import CoreV1Api

        self.namespace = namespace
        self._client = client
        self._core = CoreV1Api(client)

    def close(self) -> None:
        """End what the client runs; its connections go with it."""
        self._client.close()

    def create(self, pod: Pod) -> Pod:
        """Create a pod.

        Raises:
            LaunchError: the cluster does not take it, or is out of reach; a quota and an outage are transient.
        """
        deadline = time.monotonic() + _CREATE_SECONDS
        while True:
            made = self._created(pod, is_last_try=time.monotonic() > deadline)
            if made is not None:
                return made
            time.sleep(1)

    def find(self, name: str) -> Pod | None:
        """The pod of a name.

        Raises:
            LaunchError: the cluster does not answer.
        """
        try:
            items, _ = self._listed(field_selector=f"metadata.name={name}")
        except unreachable() as error:
            raise LaunchError(
                f"The cluster does not say whether there is a pod {name}: {words(error)}.", transient=True
            ) from error
        return items[0] if items else None

    def labelled(self, label_selector: str) -> list[Pod]:
        """The pods with a label."""
        items, _ = self._listed(label_selector=label_selector)
        return items

    def states(self, name: str, seconds: int) -> Iterator[Pod | None]:
        """A pod as it is, and again whenever it changes, for some seconds; None when it is no more."""
        from kubernetes.watch import Watch

        selector = f"metadata.name={name}"
        items, version = self._listed(field_selector=selector)
        yield items[0] if items else None
        watch = Watch()
        try:
            for event in watch.stream(
                self._core.list_namespaced_pod,
                self.namespace,
                field_selector=selector,
                resource_version=version,
                timeout_seconds=seconds,
                _request_timeout=(CONNECT_SECONDS, seconds + _ASK_SECONDS),
            ):
                if event["type"] != "BOOKMARK":
                    yield event["raw_object"]
                if event["type"] == "DELETED":
                    yield None
        finally:
            watch.stop()

    def events(self, pod: Pod) -> list[Mapping[str, Any]]:
        """What the cluster noted of a pod, oldest first; nothing where it may not be read or does not answer."""
        with contextlib.suppress(*unreachable()):
            answer = self._core.list_namespaced_event(
                self.namespace,
                field_selector=f"involvedObject.uid={pod['metadata']['uid']}",
                _preload_content=False,
                _request_timeout=(CONNECT_SECONDS, _ASK_SECONDS),
            )
            items = _json(answer)["items"]
            return sorted(items, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return []

    def log(self, name: str, container: str, since_seconds: int | None) -> HTTPResponse:
        """A container's log, with a time before each line, to be read as it comes."""
        more = {} if since_seconds is None else {"since_seconds": since_seconds}
        response: HTTPResponse = self._core.read_namespaced_pod_log(
            name,
            self.namespace,
            container=container,
            follow=True,
            timestamps=True,
            _preload_content=False,
            _request_timeout=(CONNECT_SECONDS, _SILENCE_SECONDS),
            **more,
        )
        return response

    def delete(self, name: str, uid: str, *, grace_seconds: int) -> None:
        """Have a pod deleted, when its containers have ended or the grace period is over. Nothing if it is no more."""
        from kubernetes.client import ApiException

        try:
            self._core.delete_namespaced_pod(
                name,
                self.namespace,
                body={"gracePeriodSeconds": grace_seconds, "preconditions": {"uid": uid}},
                _preload_content=False,
                _request_timeout=(CONNECT_SECONDS, _ASK_SECONDS),
            )
        except ApiException as error:
            if error.status not in (404, 409):  # 409: another pod has the name by now
                raise

    def _created(self, pod: Pod, *, is_last_try: bool) -> Pod | None:
        try:
            answer = self._core.create_namespaced_pod(
                self.namespace, pod, _preload_content=False, _request_timeout=(CONNECT_SECONDS, _ASK_SECONDS)
            )
            return _json(answer)
        except unreachable() as error:
            status = getattr(error, "status", 0)
            if (
                status == 409
            ):  # made by a try whose answer was lost, since the name is nobody else's; or a quota was busy
                found = self.find(pod["metadata"]["name"])
                if found is not None:
                    return found
            if is_last_try or (status and status < 500 and status not in (409, 429)):
                raise self._not_created(error) from error
        return None

    def _listed(self, **selector: str) -> tuple[list[Pod], str]:
        answer = _json(
            self._core.list_namespaced_pod(
                self.namespace,
                **selector,
                _preload_content=False,
                _request_timeout=(CONNECT_SECONDS, _ASK_SECONDS),
            )
        )
        return answer["items"], answer["metadata"]["resourceVersion"]

    def _not_created(self, error: Exception) -> LaunchError:
        status, said = getattr(error, "status", 0), words(error)
        where = f"in the namespace {self.namespace}"
        if status == 403 and "exceeded quota" in said:
            return LaunchError(f"The pod does not fit into a quota {where}: {said}.", transient=True)
        if status == 401 or (status == 403 and "cannot create resource" in said):
            return LaunchError(
                f"Dagster may not create pods {where}: {said}. Give its service account the role of docker/k8s/."
            )
        if status == 404:
            return LaunchError(f"The pod cannot be made: {said}. Create the namespace, or set namespace.")
        if (
            status and status < 500
        ):  # an unknown service account, the namespace's pod security standard, a webhook's veto
            return LaunchError(f"The cluster does not take the pod: {said}.")
        return LaunchError(f"The cluster cannot be reached: {said}.", transient=True)


def unreachable() -> tuple[type[Exception], ...]:
    """What is raised where the cluster does not answer, or not as one would wish."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    return ApiException, HTTPError, OSError


def words(error: Exception) -> str:
    """What the cluster said, or what kept it from saying anything."""
    body = getattr(error, "body", None)
    if body:
        with contextlib.suppress(ValueError):
            return str(json.loads(body)["message"]).strip().rstrip(".")
    cause: BaseException = error
    while getattr(cause, "reason", None) and isinstance(cause.reason, BaseException):  # type: ignore[attr-defined]  # urllib3 nests them
        cause = cause.reason  # type: ignore[attr-defined]  # asked for in the loop's condition
    return " ".join(str(cause).split()).rstrip(".")


def _json(response: HTTPResponse) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(response.data)
        return value
    finally:
        response.release_conn()
