"""One run through a launcher: starts the runner, hands on its results while it runs, ends it on every path.

The thread that Dagster gave us yields results; a second thread reads the runner's output and never waits for Dagster.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from types import FrameType
from typing import Any

import dagster as dg
from dagster_pipes import PipesContextData, PipesParams

from dagster_sqlmesh_pipes import readers
from dagster_sqlmesh_pipes.compat import (
    Handle,
    Recorded,
    labels,
    record,
    record_end,
    record_handle,
    record_missing,
    unfinished_runner,
    unrecorded,
)
from dagster_sqlmesh_pipes.errors import LaunchError, SQLMeshPipesError
from dagster_sqlmesh_pipes.launchers import Launcher, Runner, RunnerCall, Verdict
from dagster_sqlmesh_pipes.mapping import Result, ResultMapper
from dagster_sqlmesh_pipes.pipes import (
    Closed,
    EndOfOutput,
    EnvContextInjector,
    Item,
    Notice,
    Payload,
    RunnerMessageHandler,
    RunnerOutputReader,
    context_data,
)
from sqlmesh_pipes_protocol.codec import Envelope
from sqlmesh_pipes_protocol.errors import DecodeError, EventTooLargeError, VersionMismatchError
from sqlmesh_pipes_protocol.events import EvaluationStarted, Log, ModelFailed, RunFinished, RunStarted
from sqlmesh_pipes_protocol.framing import EventStream
from sqlmesh_pipes_protocol.request import RunRequest

_POLL_SECONDS = 0.2
"""How long an interrupt may be held back."""
_DRAIN_SECONDS = 5.0
"""How long output may stay open after the runner's process has ended: a child of it may hold it."""

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class Session:
    """A runner's run, from Dagster's side. Used once.

    Args:
        context: of the asset function that asks for the run.
        launcher: starts the runner.
        call: what to start, without the variables of Pipes.
        request: what to ask of the runner.
        mapper: makes results of events.
        message_reader: takes the place of the default one, which reads the runner's standard output.
        context_injector: takes the place of the launcher's.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        launcher: Launcher,
        call: RunnerCall,
        request: RunRequest,
        mapper: ResultMapper,
        message_reader: dg.PipesMessageReader | None = None,
        context_injector: dg.PipesContextInjector | None = None,
    ) -> None:
        self._context = context
        self._selected = context.selected_asset_keys
        self._launcher = launcher
        self._call = call
        self._request = request
        self._mapper = mapper
        self._reader = message_reader or RunnerOutputReader()
        self._injector = context_injector or launcher.context_injector()
        self._events = EventStream(request.run_id)
        self._handler = RunnerMessageHandler(context, self._reader)
        self._resources = contextlib.ExitStack()
        self._runner: Runner | None = None
        self._handle = Handle(
            name=f"sqlmesh-{context.run_id[:8]}-{request.run_id[-12:]}",
            run_id=request.run_id,
            dagster_run_id=context.run_id,
            began_at=time.time(),
        )
        self._recorded: Recorded = set()
        """What the event log has had from the runner by way of an earlier attempt."""
        self._pending: deque[Result] = deque()
        """Results that Dagster may not have: the first one is being recorded."""
        self._interrupt: BaseException | None = None
        self._kill_at: float | None = None
        self._gone_at: float | None = None
        self._output_ended = False
        self._closed = False
        self._closed_with: str | None = None
        self._broken: Exception | None = None

    def results(self) -> Iterator[Result]:
        """Run, and yield each model's results as soon as its outcome is known.

        Raises:
            dagster.Failure: after all results: a model failed, the run did, or the runner died.
        """
        try:
            runner = self._start()
            while self._step(runner):
                yield from self._deliver()
            self._end(runner)
            yield from self._deliver()
            if self._interrupt is not None:
                raise self._interrupt
        finally:
            self.close()
        self._conclude(runner)

    def close(self) -> None:
        """Leave nothing behind, on whatever path: no process, no file, no result that Dagster does not have.

        Dagster may drop the generator of `results` in mid-run, as it does when it is interrupted while it records a result.
        The runner is then asked to end, and what it reports until then goes to the event log directly. Does nothing the
        second time.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._runner is not None:
                if not self._is_over(self._runner):
                    self._ask_to_end(self._runner)
                while self._step(self._runner):
                    pass
                self._end(self._runner)
            if self._pending:
                record_missing(self._context, self._pending)
            if (
                self._runner is not None
                and self._launcher.outlives_dagster
                and not self._is_lost(self._runner)
            ):
                record_end(self._context, self._handle, f"The runner, {self._runner.describe()}, is over.")
        finally:
            if self._runner is not None:
                self._leave(self._runner)
            self._resources.close()

    def _is_lost(self, runner: Runner) -> bool:
        """Whether nobody knows how it ended, nor told it to: it may run on, or have more to say to another attempt."""
        return self._events.finished is None and self._kill_at is None and not _has_ended(runner)

    def _leave(self, runner: Runner) -> None:
        if self._launcher.outlives_dagster and self._is_lost(runner):
            runner.detach()
        else:
            runner.kill()
            finished = self._events.finished
            runner.close(succeeded=finished is not None and finished.status in ("success", "nothing_to_do"))
        while not self._handler.items.empty():  # that it could not be removed
            item = self._handler.items.get()
            if isinstance(item, Notice):
                self._context.log.warning(item.sentence)

    def _start(self) -> Runner:
        data = context_data(self._context, self._request)
        session = dg.PipesSession(
            context_data=data,
            message_handler=self._handler,
            context_injector_params=self._inject(data),
            message_reader_params=self._resources.enter_context(
                readers.messages(self._reader, self._handler, self._context.log.warning)
            ),
            context=self._context,
        )
        more = self._injector.env if isinstance(self._injector, EnvContextInjector) else {}
        call = replace(
            self._call,
            arguments=[*self._call.arguments, *self._store_arguments()],
            env={**session.get_bootstrap_env_vars(), **more},
            name=self._handle.name,
            labels=labels(self._context),
            pipes=session,
            tell=lambda sentence: self._handler.items.put(Notice(sentence)),
        )
        try:
            with uninterrupted():  # no runner without somebody who knows of it
                self._runner = runner = self._found(call) or self._launched(call)
        except LaunchError as error:
            raise dg.Failure(str(error), allow_retries=error.transient) from error
        threading.Thread(target=self._pump, args=(runner,), name="runner-output", daemon=True).start()
        return runner

    def _inject(self, data: PipesContextData) -> PipesParams:
        try:
            return self._resources.enter_context(self._injector.inject_context(data))
        except LaunchError as error:
            raise dg.Failure(str(error), allow_retries=False) from error

    def _store_arguments(self) -> list[str]:
        try:
            return readers.store_arguments(self._reader, self._injector)
        except LaunchError as error:
            raise dg.Failure(str(error), allow_retries=False) from error

    def _found(self, call: RunnerCall) -> Runner | None:
        """The runner of an earlier attempt whose process died: it went on without, and is read from where it began."""
        if not self._launcher.outlives_dagster:
            return None
        unfinished = unfinished_runner(self._context)
        if unfinished is None:
            return None
        handle, recorded = unfinished
        runner = self._launcher.find(replace(call, name=handle.name))
        if runner is None:
            return None
        if not isinstance(self._reader, RunnerOutputReader):
            self._given_up(runner, handle)
            return None
        self._handle, self._recorded = handle, recorded
        self._events = EventStream(handle.run_id)
        self._mapper.began_at(datetime.fromtimestamp(handle.began_at, timezone.utc))
        record_handle(
            self._context,
            replace(handle, stage="found"),
            f"Found the runner of an earlier attempt: {runner.describe()}. Its results follow.",
        )
        return runner

    def _given_up(self, runner: Runner, handle: Handle) -> None:
        """End a runner whose messages go to where nobody reads them any more: two at once would make rows twice."""
        runner.terminate()
        deadline = time.monotonic() + self._launcher.grace_period_seconds
        while runner.exit_code() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        runner.kill()
        runner.close(succeeded=False)
        record_end(
            self._context,
            handle,
            f"Ended the runner of an earlier attempt, {runner.describe()}: its messages are lost.",
        )

    def _launched(self, call: RunnerCall) -> Runner:
        if self._launcher.outlives_dagster:  # written down before it is there, or it might not be found
            record_handle(self._context, self._handle, f"Starts a runner: {self._handle.name}.")
        return self._launcher.launch(call)

    def _step(self, runner: Runner) -> bool:
        """Take in what the runner reports next; False when it is silent and gone.

        An interrupt asks the runner to end, and is kept until it has; a second one kills it.
        """
        if self._is_over(runner):
            return False
        try:
            with uninterrupted(), contextlib.suppress(queue.Empty):
                self._pending.extend(self._results(self._handler.items.get(timeout=_POLL_SECONDS)))
        except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt) as caught:
            if self._interrupt is not None:
                runner.kill()
            self._interrupt = caught
            self._ask_to_end(runner)
        now = time.monotonic()
        if self._broken is not None:
            self._ask_to_end(runner)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = math.inf  # once: it may take its time
            runner.kill()
        if runner.exit_code() is not None:
            self._gone_at = self._gone_at or now
        return True

    def _is_over(self, runner: Runner) -> bool:
        is_gone = self._gone_at is not None and time.monotonic() - self._gone_at >= _DRAIN_SECONDS
        return self._output_ended or is_gone

    def _ask_to_end(self, runner: Runner) -> None:
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._launcher.grace_period_seconds
            runner.terminate()

    def _end(self, runner: Runner) -> None:
        """The runner has written all it will: let it exit by itself, and take in what a reader brings when it is closed."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while runner.exit_code() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        runner.kill()
        self._resources.close()
        while not self._handler.items.empty():
            self._pending.extend(self._results(self._handler.items.get()))

    def _deliver(self) -> Iterator[Result]:
        """Yield what is pending. A result stays until control is back: then Dagster has recorded it."""
        while self._pending:
            for result in unrecorded(self._context, self._pending[0], self._recorded):
                if isinstance(result, dg.AssetMaterialization):
                    record(self._context, [result])
                elif result.asset_key in self._selected:
                    yield result
                else:
                    record_missing(self._context, [result])
            self._pending.popleft()

    def _pump(self, runner: Runner) -> None:
        error: BaseException | None = None
        reader = self._reader if isinstance(self._reader, RunnerOutputReader) else RunnerOutputReader()
        try:
            for chunk in runner.output():
                reader.feed(chunk)
            reader.close()
        except Exception as caught:  # noqa: BLE001 - the thread's boundary; told by the thread that yields results
            error = caught
        self._handler.items.put(EndOfOutput(error))

    def _results(self, item: Item) -> Iterator[Result]:
        match item:
            case Payload(value):
                envelope = self._receive(value)
                if envelope is not None:
                    self._log(envelope)
                    yield from self._mapper.results(envelope.event)
            case Closed(error):
                self._closed_with = error
            case Notice(sentence):
                self._context.log.info(sentence)
            case EndOfOutput(error):
                self._output_ended = True
                if error is not None:
                    self._broken = SQLMeshPipesError(f"The runner's output could not be read: {error!r}")

    def _receive(self, value: object) -> Envelope | None:
        if not isinstance(value, dict):
            self._context.log.warning(f"The runner reported something that is no event: {value!r}"[:500])
            return None
        try:
            return self._events.receive(value)
        except VersionMismatchError as error:
            self._broken = error
        except (DecodeError, EventTooLargeError) as error:
            # The run's last event has a digest: what this one said is not lost.
            self._context.log.warning(f"An event of the runner could not be read: {error}")
        return None

    def _log(self, envelope: Envelope) -> None:
        """What is worth a line in Dagster's log: each costs about as much as a result."""
        log = self._context.log
        match envelope.event:
            case RunStarted() as event:
                log.info(
                    f"SQLMesh {event.versions.sqlmesh} runs environment {event.environment!r}: "
                    f"{event.models_selected} of {event.models_deployed} models selected."
                )
            case EvaluationStarted() as event:
                due = sum(bool(batches.intervals) for batches in event.batches)
                again = " (again: the environment changed)" if event.attempt > 1 else ""
                log.info(f"{_number(due, 'model')} due{again}.")
            case ModelFailed() as event:
                log.error(f"{event.model} failed: {event.error.message}")
            case Log() as event if event.level in ("warning", "error"):
                log.log(_LEVELS[event.level], f"{event.logger}: {event.message}")
            case RunFinished() as event:
                counts = event.counts
                log.info(
                    f"SQLMesh {event.status.replace('_', ' ')}: {counts.executed} executed, {counts.skipped} skipped, "
                    f"{counts.failed} failed."
                )

    def _conclude(self, runner: Runner) -> None:
        """Say what was odd, and raise if the run was no success. Everything SQLMesh reported has been yielded."""
        if self._mapper.corrections:
            record(self._context, self._mapper.corrections)
        if self._mapper.unknown:
            self._context.log.warning(
                "The manifest is older than what is deployed; these ran and have no asset or check: "
                + "; ".join(self._mapper.unknown)
                + ". Write it again with: sqlmesh-runner manifest"
            )
        if self._broken is not None:
            raise dg.Failure(_sentence(self._broken), allow_retries=False)
        finished = self._events.finished
        if finished is None:
            raise self._death(runner)
        missing = self._events.missing()
        if missing:
            lost = sum(len(gap) for gap in missing)
            self._context.log.warning(
                f"{lost} events were lost on the way; results come from the run's digest."
            )
        match finished.status:
            case "success" | "nothing_to_do":
                return
            case "failed":
                raise self._failure(finished)
            case "interrupted":
                verdict = runner.verdict()
                said = f" {verdict.cause}" if verdict is not None else ""
                raise dg.Failure(
                    f"The SQLMesh run was stopped before its end.{said}",
                    metadata=_details(verdict),
                    allow_retries=True,
                )
            case "error":
                raise self._failure(finished)

    def _failure(self, finished: RunFinished) -> dg.Failure:
        """The step's one failure: each failed model with its cause, and what broke the run off."""
        failures, error = self._mapper.failures, finished.error
        metadata: dict[str, Any] = {
            fqn: dg.MetadataValue.md(f"```\n{failure.traceback or failure.message}\n```")
            for fqn, failure in failures.items()
        }
        sentences = []
        if failures:
            listed = "; ".join(f"{fqn}: {_sentence(failure.message)}" for fqn, failure in failures.items())
            sentences.append(f"{_number(len(failures), 'model')} failed: {listed}")
        # What a failed model broke off has been said with the model.
        if error is not None and not (failures and finished.status == "error"):
            sentences.append(error.message)
        if error is not None:
            metadata |= {"category": error.category, "error_class": error.error_class}
            if error.traceback:
                metadata["traceback"] = dg.MetadataValue.md(f"```\n{error.traceback}\n```")
        causes = [*failures.values(), *([error] if error is not None else [])]
        return dg.Failure(
            " ".join(sentences) or "The SQLMesh run failed; the runner did not say why.",
            metadata=metadata,
            allow_retries=bool(causes) and all(cause.transient for cause in causes),
        )

    def _death(self, runner: Runner) -> dg.Failure:
        code = runner.exit_code()
        verdict = runner.verdict()
        if verdict is not None and not verdict.started:
            return dg.Failure(
                f"The runner ({runner.describe()}) did not start. {verdict.cause}",
                metadata=_details(verdict),
                allow_retries=verdict.transient,
            )
        how = f"exited with status {code}" if code is None or code >= 0 else f"was killed by {_signal(-code)}"
        if verdict is not None and verdict.how is not None:
            how = verdict.how
        began = "in mid-run" if self._events.received else "before it reported anything"
        parts = [f"The runner ({runner.describe()}) {how} {began}: what it had not reported is unknown."]
        if verdict is not None:
            parts.append(verdict.cause)
        if self._closed_with:
            parts.append(f"It closed with {self._closed_with}.")
        if not self._events.received and not isinstance(self._reader, RunnerOutputReader):
            parts.append(self._reader.no_messages_debug_text())
        last_words = runner.last_words()
        if last_words:
            parts.append(f"It last wrote:\n{last_words}")
        # A process that is killed may fare better next time; one that exits by itself says the same again.
        transient = verdict.transient if verdict is not None else code is not None and code < 0
        return dg.Failure(" ".join(parts), metadata=_details(verdict), allow_retries=transient)


def _details(verdict: Verdict | None) -> dict[str, Any]:
    """What a verdict has beside its sentence, for a failure's metadata."""
    if verdict is None or not verdict.details:
        return {}
    return {"surroundings": dg.MetadataValue.md(f"```\n{verdict.details}\n```")}


def _has_ended(runner: Runner) -> bool:
    verdict = runner.verdict()
    return verdict.ended if verdict is not None else runner.exit_code() is not None


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back interrupts for a moment, in which something must not be torn; they are handled at its end.

    Dagster raises in the main thread, wherever that is, what it receives as a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    before = {
        number: signal.signal(number, lambda number, frame: held.append((number, frame)))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for held_number, frame in held[:1]:
            held_handler = before[signal.Signals(held_number)]
            if callable(held_handler):
                held_handler(held_number, frame)
            elif held_handler is signal.SIG_DFL:
                signal.raise_signal(held_number)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _number(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else noun + 's'}"


def _sentence(text: object) -> str:
    line = str(text).strip().partition("\n")[0]
    return line if line.endswith((".", "!", "?")) else f"{line}."
