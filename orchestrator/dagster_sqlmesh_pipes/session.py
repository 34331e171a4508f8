"""One run through a launcher: starts the runner, hands on its results while it runs, ends it on every path.

The thread that Dagster gave us yields results; a second thread reads the runner's output and never waits for Dagster.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone

import dagster as dg
from dagster_pipes import PipesContextData, PipesParams

from dagster_sqlmesh_pipes import endings, narration, readers
from dagster_sqlmesh_pipes.aftermath import Aftermath
from dagster_sqlmesh_pipes.compat import (
    Handle,
    Recorded,
    Unfinished,
    keep_output_asset_keys,
    labels,
    record,
    record_end,
    record_handle,
    record_missing,
    unfinished_runners,
    unrecorded,
)
from dagster_sqlmesh_pipes.errors import LaunchError, SQLMeshPipesError
from dagster_sqlmesh_pipes.interrupts import uninterrupted
from dagster_sqlmesh_pipes.launchers import Launcher, Runner, RunnerCall
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
from dagster_sqlmesh_pipes.silence import Listener, Silence
from sqlmesh_pipes_protocol.codec import Envelope
from sqlmesh_pipes_protocol.errors import (
    DecodeError,
    EventTooLargeError,
    VersionMismatchError,
)
from sqlmesh_pipes_protocol.events import EvaluationStarted, Timestamp
from sqlmesh_pipes_protocol.framing import EventStream
from sqlmesh_pipes_protocol.reconcile import ReconcileReport
from sqlmesh_pipes_protocol.request import RunRequest
from sqlmesh_pipes_protocol.spans import epoch_ms
from sqlmesh_pipes_protocol.told import RunTold

_POLL_SECONDS = 0.2
"""How long an interrupt is held back while nothing comes."""
_BURST = 200
"""Items that are taken in at once, where so many wait: holding interrupts back has a price."""
_MAX_ODDITIES = 20
_STOPPED = "The run was stopped before SQLMesh said anything of the model."
_DRAIN_SECONDS = 5.0
"""How long output may stay open after the runner's process has ended: a child of it may hold it."""


class Session:
    """A runner's run, from Dagster's side. Used once.

    Args:
        context: of the asset function that asks for the run.
        launcher: starts the runner.
        call: what to start, without the variables of Pipes.
        request: what to ask of the runner.
        mapper: makes results of events.
        recorded_since: asks SQLMesh's state what it has recorded since a time, for a runner that cannot tell any more.
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
        recorded_since: Callable[[Timestamp], ReconcileReport],
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
        self._told = RunTold(request.run_id)
        self._listener = Listener(launcher.silence_timeout_seconds)
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
        self._began_at = time.time()
        self._is_read = False
        """Somebody takes its output."""
        self._pending: deque[Result] = deque()
        """Results that Dagster may not have: the first one is being recorded."""
        self._interrupt: BaseException | None = None
        self._is_stopped = False
        """Dagster had no more use for it before its end."""
        self._kill_at: float | None = None
        self._gone_at: float | None = None
        self._output_ended = False
        self._closed = False
        self._closed_with: str | None = None
        self._broken: Exception | None = None
        self._silent_for: float | None = None
        """The runner was ended for that."""
        self._aftermath = Aftermath(context, mapper, recorded_since)
        self._oddities = 0

    def results(self) -> Iterator[Result]:
        """Run, and yield each model's results as soon as its outcome is known.

        Raises:
            dagster.Failure: after all results: a model failed, the run did, or the runner died.
        """
        try:
            runner = self._start()
            keep_output_asset_keys(self._context)  # while the runner starts
            while self._step(runner):
                yield from self._deliver()
            self._take_the_rest(runner)
            yield from self._deliver()
            if self._events.finished is not None and not self._is_stopped:
                self._aftermath.ask_again()
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
                    self._is_stopped = True
                    self._ask_to_end(self._runner)
                if not self._is_read:  # Dagster was interrupted before: its output is nobody's
                    self._output_ended = True
                while self._step(self._runner):
                    pass
                self._take_the_rest(self._runner)
            if self._pending:
                record_missing(self._context, self._pending, self._began_at, self._recorded)
            if self._runner is not None and self._is_to_be_forgotten(self._runner):
                record_end(self._context, self._handle, f"The runner, {self._runner.describe()}, is over.")
        finally:
            if self._runner is not None:
                self._leave(self._runner)
            self._resources.close()

    def _is_lost(self, runner: Runner) -> bool:
        """Whether nobody knows how it ended, nor told it to: it may run on, or have more to say to another attempt."""
        return self._events.finished is None and self._kill_at is None and not _has_ended(runner)

    def _is_to_be_forgotten(self, runner: Runner) -> bool:
        """Whether no other attempt is to ask what became of it, and would unless that is written down."""
        if self._is_lost(runner) or (self._needs_recovery(runner) and self._aftermath.summary is None):
            return False
        # That of a step which has succeeded is over, whatever becomes of the run.
        return self._launcher.outlives_dagster or not self._has_succeeded()

    def _has_succeeded(self) -> bool:
        finished = self._events.finished
        return finished is not None and finished.status in ("success", "nothing_to_do")

    def _leave(self, runner: Runner) -> None:
        if self._launcher.outlives_dagster and self._is_lost(runner):
            runner.detach()
        else:
            runner.kill()
            runner.close(succeeded=self._has_succeeded())
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
            runner = self._found(call) or self._launched(call)
        except LaunchError as error:
            raise dg.Failure(str(error), allow_retries=error.transient) from error
        return runner

    def _follow(self, runner: Runner) -> None:
        """From here on it is this session's: its output is taken, and it is ended with it. Interrupts are held back meanwhile."""
        self._runner, self._is_read = runner, True
        threading.Thread(target=self._pump, args=(runner,), name="runner-output", daemon=True).start()

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
        """The runner of an earlier attempt whose process died: it went on without, and is read from where it began.

        Where there is none any more, what it has done is asked of SQLMesh's state.
        """
        for unfinished in unfinished_runners(self._context):
            if self._launcher.outlives_dagster:
                with uninterrupted():  # no runner without somebody who knows of it
                    self._runner = runner = self._launcher.find(replace(call, name=unfinished.handle.name))
                    is_ours = unfinished.is_same_work and isinstance(self._reader, RunnerOutputReader)
                    if runner is not None and is_ours:
                        self._adopt(runner, unfinished)
                        return runner
                if runner is not None:
                    self._given_up(runner)
            self._aftermath.of_earlier(unfinished)
        return None

    def _adopt(self, runner: Runner, unfinished: Unfinished) -> None:
        handle = unfinished.handle
        self._handle, self._recorded = handle, unfinished.recorded
        self._events, self._told = EventStream(handle.run_id), RunTold(handle.run_id)
        self._mapper.began_at(datetime.fromtimestamp(handle.began_at, timezone.utc))
        self._follow(runner)
        record_handle(
            self._context,
            replace(handle, stage="found", due=None),
            f"Found the runner of an earlier attempt: {runner.describe()}. Its results follow.",
        )

    def _given_up(self, runner: Runner) -> None:
        """End a runner whose messages nobody reads any more: two at once would make rows twice."""
        runner.terminate()
        deadline = time.monotonic() + self._launcher.grace_period_seconds
        while runner.exit_code() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        runner.kill()
        runner.close(succeeded=False)
        self._runner = None
        self._context.log.warning(f"Ended the runner of an earlier attempt, {runner.describe()}.")

    def _launched(self, call: RunnerCall) -> Runner:
        name = self._handle.name
        with uninterrupted():  # no runner without somebody who knows of it
            if self._launcher.outlives_dagster:  # written down before it is there, or it might not be found
                record_handle(self._context, self._handle, f"Starts a runner: {name}.")
            try:
                runner = self._launcher.launch(call)
            except LaunchError as error:
                # After another error it may be there all the same.
                if self._launcher.outlives_dagster and not error.transient:
                    record_end(self._context, self._handle, f"The runner {name} was not started.")
                raise
            self._follow(runner)
            if not self._launcher.outlives_dagster:
                record_handle(self._context, self._handle, f"Starts a runner: {name}.")  # meanwhile
        return runner

    def _step(self, runner: Runner) -> bool:
        """Take in what the runner reports next; False when it is silent and gone.

        An interrupt asks the runner to end, and is kept until it has; a second one kills it.
        """
        if self._is_over(runner):
            return False
        try:
            with uninterrupted():
                try:
                    self._pending.extend(self._results(self._handler.items.get(timeout=_POLL_SECONDS)))
                    self._gone_at = None  # it may have ended long ago: what it wrote is still coming
                    for _ in range(_BURST):
                        self._pending.extend(self._results(self._handler.items.get(timeout=0)))
                except queue.Empty:
                    self._listen(runner)
        except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt) as caught:
            if self._interrupt is not None:
                runner.kill()
            self._interrupt, self._is_stopped = caught, True
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

    def _listen(self, runner: Runner) -> None:
        """Nothing came for a moment: say so when that is odd, and end a runner that is not going to be heard any more."""
        if runner.is_out_of_reach():
            self._listener.excuse()
        match self._listener.silent():
            case Silence.WORRYING:
                limit = self._launcher.silence_timeout_seconds
                then = f" It is ended after {limit:g} s." if limit is not None else ""
                self._context.log.warning(
                    f"The runner ({runner.describe()}) has not been heard for {self._listener.seconds:.0f} s, not even a heartbeat."
                    + then
                )
            case Silence.DEADLY if self._kill_at is None:
                self._silent_for = self._launcher.silence_timeout_seconds
                self._ask_to_end(runner)
            case _:
                pass

    def _ask_to_end(self, runner: Runner) -> None:
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._launcher.grace_period_seconds
            runner.terminate()

    def _take_the_rest(self, runner: Runner) -> None:
        """Take in all that can still be known of a runner that writes no more. Does nothing the second time."""
        self._end(runner)
        if self._needs_recovery(runner) and not self._is_stopped:
            # Where Dagster ends the run, there is no time: the next one asks.
            self._pending.extend(self._aftermath.of_this(self._told, self._handle.began_at))
        if self._is_stopped:
            # But for those of which SQLMesh's state may know more: whoever asks it tells them.
            unknown = self._told.due.keys() - self._told.ended if self._needs_recovery(runner) else ()
            self._pending.extend(self._mapper.untold(_STOPPED, unknown))

    def _end(self, runner: Runner) -> None:
        """The runner has written all it will: let it exit by itself, and take in what a reader brings when it is closed."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        if self._kill_at is not None and math.isfinite(self._kill_at):
            deadline = max(deadline, self._kill_at)
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
                if isinstance(result, dg.AssetMaterialization) or result.asset_key not in self._selected:
                    record(self._context, [result])
                else:
                    yield result
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
                if self._listener.heard() is Silence.OVER:
                    self._context.log.info("The runner is heard again.")
                envelope = self._receive(value)
                if envelope is not None:
                    self._told.take(envelope)
                    if isinstance(envelope.event, EvaluationStarted):
                        self._note_what_is_due()
                    for level, line in narration.lines(envelope.event):
                        self._context.log.log(level, line)
                    yield from self._mapper.results(envelope.event)
            case Closed(error):
                self._closed_with = error
            case Notice(sentence):
                self._context.log.info(sentence)
            case EndOfOutput(error):
                self._output_ended = True
                if error is not None:
                    self._broken = SQLMeshPipesError(f"The runner's output could not be read: {error!r}")

    def _note_what_is_due(self) -> None:
        """Write down what the runner sets out to do, for whoever has to ask what became of it."""
        due = {fqn: spans for fqn, spans in self._told.due.items() if spans}
        if due and self._told.began_at is not None:
            began_at = epoch_ms(self._told.began_at) / 1000
            message = f"{endings.number(len(due), 'model')} {'is' if len(due) == 1 else 'are'} due."
            record_handle(
                self._context, replace(self._handle, stage="runs", began_at=began_at, due=due), message
            )

    def _receive(self, value: object) -> Envelope | None:
        if not isinstance(value, dict):
            self._odd(f"The runner reported something that is no event: {value!r}"[:500])
            return None
        try:
            return self._events.receive(value)
        except VersionMismatchError as error:
            self._broken = error
        except (DecodeError, EventTooLargeError) as error:
            # The run's last event has a digest: what this one said is not lost.
            self._odd(f"An event of the runner could not be read: {error}")
        return None

    def _odd(self, sentence: str) -> None:
        """Say what was no event. The first times: each costs a line of the event log."""
        self._oddities += 1
        if self._oddities <= _MAX_ODDITIES:
            self._context.log.warning(sentence)

    def _conclude(self, runner: Runner) -> None:
        """Say what was odd, and raise if the run was no success. Everything SQLMesh reported has been yielded."""
        if self._oddities > _MAX_ODDITIES:
            self._context.log.warning(
                f"{self._oddities} times the runner reported what is no event, or cannot be read; {_MAX_ODDITIES} are told."
            )
        if self._mapper.corrections:
            record(self._context, self._mapper.corrections)
        if self._mapper.unknown:
            self._context.log.warning(
                "The manifest is older than what is deployed; these ran and have no asset or check: "
                + "; ".join(self._mapper.unknown)
                + ". Write it again with: sqlmesh-runner manifest"
            )
        if self._broken is not None:
            raise dg.Failure(
                " ".join(filter(None, [endings.sentence(self._broken), self._aftermath.summary])),
                allow_retries=False,
            )
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
            case "failed" | "error":
                raise endings.of_models(self._mapper.failures, finished)
            case "interrupted":
                raise endings.of_a_stop(runner.verdict(), self._silent_for)

    def _death(self, runner: Runner) -> dg.Failure:
        has_begun = bool(self._events.received)
        remarks = list(self._aftermath.remarks)
        if self._closed_with:
            remarks.append(f"It closed with {self._closed_with}.")
        if not has_begun and not isinstance(self._reader, RunnerOutputReader):
            remarks.append(self._reader.no_messages_debug_text())
        return endings.of_a_death(
            runner.describe(),
            code=runner.exit_code(),
            verdict=runner.verdict(),
            has_begun=has_begun,
            silent_for=self._silent_for,
            recovery=self._aftermath.summary,
            remarks=remarks,
            last_words=runner.last_words(),
        )

    def _needs_recovery(self, runner: Runner) -> bool:
        """Whether the runner may have done what it has not told, and never will."""
        if self._events.finished is not None or self._is_lost(runner):
            return False
        is_deaf = not self._events.received and not isinstance(self._reader, RunnerOutputReader)
        return bool(self._told.due or self._broken is not None or self._events.missing() or is_deaf)


def _has_ended(runner: Runner) -> bool:
    verdict = runner.verdict()
    return verdict.ended if verdict is not None else runner.exit_code() is not None
