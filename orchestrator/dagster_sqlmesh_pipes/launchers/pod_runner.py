"""A runner in a pod: one thread follows the pod's state, whoever asks for the output follows its log."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.launcher import LAST_WORDS_LINES, Runner, Verdict
from dagster_sqlmesh_pipes.launchers.pod_api import PodApi, unreachable, words
from dagster_sqlmesh_pipes.launchers.pod_logs import LogUnavailableError, PodLog
from dagster_sqlmesh_pipes.launchers.pod_state import PodState, latest_warning, state_of, verdict_on

_STUCK_SECONDS = 30
"""How long a pod may wait for what hardly ever comes: an image that cannot be pulled, a secret that is not there."""
_NEWS_SECONDS = 20
"""How long a pod may be starting before its events are asked what it waits for, and asked again."""
_LEAVING_SECONDS = 60
"""How much longer than its grace period a pod may take to be gone; a node that is lost never says so."""
_WATCH_SECONDS = 240
"""How long the API server is to keep a watch open."""
_LOOK_SECONDS = 5
_SETTLE_SECONDS = 0.5
"""How much later than a container's end the cluster says why it ended the pod."""
_PAUSE_SECONDS = 0.1
_RETRY_SECONDS = 1.0
_KILL_SECONDS = 30
_LAST_READ_SECONDS = 120
"""How long the log of a pod that has ended is tried to be read."""


class PodRunner(Runner):
    """A runner's pod.

    Args:
        api: of the pod's namespace; closed with this.
        pod: as it was made or found.
        tell: says what the pod waits for.
        grace_seconds: that the pod gets to end when it is told to.
        start_timeout_seconds: until its container runs.
        unreachable_timeout_seconds: for which the API server may be away.
        delete_pod: ``always``, ``on_success`` or ``never``, after its end.
    """

    def __init__(
        self,
        api: PodApi,
        pod: dict[str, Any],
        *,
        tell: Callable[[str], None],
        grace_seconds: int,
        start_timeout_seconds: float,
        unreachable_timeout_seconds: float,
        delete_pod: str,
    ) -> None:
        self._api = api
        self._pod = pod
        self._name: str = pod["metadata"]["name"]
        self._uid: str = pod["metadata"]["uid"]
        container = pod["spec"]["containers"][0]
        self._image: str = container["image"]
        self._log = PodLog(lambda since: api.log(self._name, container["name"], since))
        self._tell = tell
        self._told: set[str] = set()
        self._grace_seconds = grace_seconds
        self._start_timeout = start_timeout_seconds
        self._unreachable_timeout = unreachable_timeout_seconds
        self._delete_pod = delete_pod
        self._began = time.monotonic()
        self._stuck_since: float | None = None
        self._news_at = self._began + _NEWS_SECONDS
        self._leaving_since: float | None = None
        self._started = threading.Event()
        self._ended = threading.Event()
        self._is_gone = False
        self._was_asked = False
        self._closing = threading.Lock()
        self._closed = False
        self._ended_at = 0.0
        self._code: int | None = None
        self._all_read = False
        self._verdict: Verdict | None = None
        self._was_judged = False
        self._heard_at = self._began
        self._no_log = ""
        self._taking = threading.Lock()
        self._last_words: deque[bytes] = deque(maxlen=LAST_WORDS_LINES)
        self._take(state_of(pod))
        self._watcher = threading.Thread(target=self._watch, name="runner-pod", daemon=True)
        self._watcher.start()

    def output(self) -> Iterator[bytes]:
        while not self._started.wait(_RETRY_SECONDS):
            if self._ended.is_set():
                self._all_read = True
                return
        while not self._read_on_is_over():
            where = self._log.position()
            was_over = self._ended.is_set()  # what is read after that is the whole of it
            try:
                for line in self._log.follow():
                    if not line.startswith(b"{"):
                        self._last_words.append(line)
                    yield line
                self._no_log = ""
                if was_over and self._log.position() == where:
                    break
                self._look()
            except LogUnavailableError as error:
                self._no_log = str(error)
                if was_over:
                    break
            except unreachable() as error:
                self._no_log = words(error)
                if getattr(error, "status", 0) in (401, 403):
                    cause = f"Dagster may not read the pod's log: {words(error)}. Give its service account the role of docker/k8s/."
                    self._verdict = Verdict(cause=cause, transient=False)
                    break
            self._ended.wait(_RETRY_SECONDS)
        rest = self._log.rest()
        if rest:
            self._last_words.append(rest)
            yield rest
        if self._no_log and not self._was_asked and self.verdict() is None:
            cause = f"Its log could not be read to the end: {self._no_log}."
            self._verdict = Verdict(cause=cause, ended=self._is_gone)
        self._all_read = True

    def _read_on_is_over(self) -> bool:
        """Whether a log that does not come is given up: the pod is no more, or long since over."""
        if not self._ended.is_set() or not self._no_log:
            return False
        is_lost = self._is_gone or (self._verdict is not None and not self._verdict.ended)
        return is_lost or time.monotonic() - self._ended_at > min(
            self._unreachable_timeout, _LAST_READ_SECONDS
        )

    def _look(self) -> None:
        """Look at the pod now: its log has ended, or was cut off."""
        with contextlib.suppress(LaunchError):
            pod = self._api.find(self._name)
            if pod is not None and pod["metadata"]["uid"] == self._uid:
                self._pod = pod
                self._take(state_of(pod))

    def exit_code(self) -> int | None:
        # Known when the pod ended, and said when all that it wrote is read: nobody is to stop listening before.
        return self._code if self._all_read else None

    def terminate(self) -> None:
        self._was_asked = True
        threading.Thread(
            target=self._delete, args=(self._grace_seconds,), name="runner-pod-end", daemon=True
        ).start()

    def kill(self) -> None:
        if self._ended.is_set():
            return
        self._was_asked = True
        # Not zero: the pod would be gone from the API at once, and its containers some time later.
        self._delete(1)
        self._ended.wait(_KILL_SECONDS)

    def close(self, *, succeeded: bool) -> None:
        """Delete the pod or keep it, as the launcher is told. One with a sidecar that goes on is always deleted."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        is_kept = self._delete_pod == "never" or (self._delete_pod == "on_success" and not succeeded)
        runs_on = [
            each["name"]
            for each in (self._pod.get("status") or {}).get("containerStatuses") or ()
            if not (each.get("state") or {}).get("terminated")
        ]
        has_run = self._ended.is_set() and (self._started.is_set() or state_of(self._pod).has_failed)
        if not self._is_gone and (not is_kept or not has_run or runs_on):
            self._was_asked = True
            # Zero where nothing runs: else the pod would be gone from the API before its containers are.
            self._delete(self._grace_seconds if has_run and runs_on else 0)
        self._ended.set()
        self._api.close()

    def detach(self) -> None:
        with self._closing:
            self._closed = True
        self._ended.set()
        self._api.close()

    def describe(self) -> str:
        return f"pod {self._api.namespace}/{self._name} of {self._image}"

    def last_words(self) -> str:
        return b"".join(self._last_words).decode("utf-8", "replace").strip()

    def is_out_of_reach(self) -> bool:
        return bool(self._no_log)

    def verdict(self) -> Verdict | None:
        if self._verdict is None and self._code == 0 and not self._was_asked and not self._was_judged:
            # A runner that is told to end says so and ends well; the pod says who told it.
            self._was_judged = True
            self._look()
            if state_of(self._pod).is_leaving or (self._pod.get("status") or {}).get("reason"):
                self._verdict = self._judged()
        return self._verdict

    def _delete(self, grace_seconds: int) -> None:
        deadline = time.monotonic() + _KILL_SECONDS
        while (error := self._not_deleted(grace_seconds)) is not None:
            if time.monotonic() > deadline:
                self._tell(f"{self.describe()} could not be deleted: {words(error)}. Delete it by hand.")
                return
            time.sleep(_RETRY_SECONDS)

    def _not_deleted(self, grace_seconds: int) -> Exception | None:
        try:
            self._api.delete(self._name, self._uid, grace_seconds=grace_seconds)
        except unreachable() as error:
            return error
        return None

    def _watch(self) -> None:
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001 - the thread's boundary: nobody is to wait for what it will not say
            cause = f"The pod's state could not be followed: {error!r}."
            self._conclude(-signal.SIGKILL, Verdict(cause=cause, started=self._started.is_set(), ended=False))

    def _follow(self) -> None:
        """Follow the pod to its end, over restarts of the API server."""
        while not self._ended.is_set():
            error = self._watch_once()
            self._ended.wait(_PAUSE_SECONDS)
            if error is not None and time.monotonic() - self._heard_at > self._unreachable_timeout:
                cause = (
                    f"The cluster has been out of reach for {self._unreachable_timeout:g} s: {words(error)}."
                )
                self._conclude(
                    -signal.SIGKILL, Verdict(cause=cause, started=self._started.is_set(), ended=False)
                )

    def _watch_once(self) -> Exception | None:
        """Take in the pod's states until the watch ends, or the pod does; returns what broke it off."""
        # Where something is awaited that does not change the pod, it is looked at again soon.
        is_settled = self._started.is_set() and self._leaving_since is None
        try:
            for pod in self._api.states(self._name, _WATCH_SECONDS if is_settled else _LOOK_SECONDS):
                self._heard_at = time.monotonic()
                if pod is None or pod["metadata"]["uid"] != self._uid:
                    self._is_gone = True
                    with self._taking:
                        if not self._ended.is_set():
                            self._end(-signal.SIGKILL)
                else:
                    self._pod = pod
                    self._take(state_of(pod))
                if self._ended.is_set():
                    break
        except unreachable() as error:
            time.sleep(_RETRY_SECONDS)
            return error
        return None

    def _take(self, state: PodState) -> None:
        """Draw the conclusions from the pod as it is now."""
        with self._taking:
            if not self._ended.is_set():
                self._take_in(state)

    def _take_in(self, state: PodState) -> None:
        if state.has_started:
            self._started.set()
        if state.exit_code is not None:
            self._end(state.exit_code)
        elif state.has_failed:
            self._end(-signal.SIGKILL)
        elif state.is_leaving:
            self._expect_to_be_gone()
        elif not state.has_started:
            self._expect_to_start(state)

    def _expect_to_start(self, state: PodState) -> None:
        now = time.monotonic()
        if state.waits_for:
            self._say(state.waits_for)
        elif now > self._news_at:
            self._news_at = now + _NEWS_SECONDS
            warning = latest_warning(self._api.events(self._pod))
            if warning:
                self._say(warning)
        self._stuck_since = (self._stuck_since or now) if state.is_stuck else None
        is_stuck = self._stuck_since is not None and now - self._stuck_since > _STUCK_SECONDS
        if state.is_hopeless or is_stuck or now - self._began > self._start_timeout:
            self._end(-signal.SIGKILL)

    def _expect_to_be_gone(self) -> None:
        now = time.monotonic()
        self._leaving_since = self._leaving_since or now
        allowed = (self._pod["metadata"].get("deletionGracePeriodSeconds") or 0) + _LEAVING_SECONDS
        if now - self._leaving_since > allowed:
            node = self._pod["spec"].get("nodeName")
            cause = f"The pod was to end, and its node {node} does not say that it has: the node is lost."
            self._conclude(-signal.SIGKILL, Verdict(cause=cause, started=self._started.is_set()))

    def _say(self, sentence: str) -> None:
        about = sentence.partition(":")[0]  # what comes after it changes while nothing else does
        if about not in self._told:
            self._told.add(about)
            self._tell(f"{self.describe()} waits. {sentence}")

    def _end(self, code: int) -> None:
        """The container has ended, or there is none any more, or there will be none. Ask why, where it is not plain."""
        verdict = None
        if code != 0 and not (self._was_asked and self._started.is_set()):
            if not self._is_gone and self._started.is_set():
                time.sleep(_SETTLE_SECONDS)
                with contextlib.suppress(LaunchError):
                    self._pod = self._api.find(self._name) or self._pod
            verdict = self._judged()
        self._conclude(code, verdict)

    def _judged(self) -> Verdict | None:
        verdict = verdict_on(
            self._pod, self._api.events(self._pod), was_deleted=self._is_gone, was_asked=self._was_asked
        )
        if verdict is not None and self._started.is_set():  # an evicted pod forgets that it had containers
            return replace(verdict, started=True)
        return verdict

    def _conclude(self, code: int, verdict: Verdict | None) -> None:
        self._code, self._verdict, self._ended_at = code, verdict, time.monotonic()
        self._ended.set()
