"""After a runner died: SQLMesh's state is asked what it had done, and Dagster is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone

import dagster as dg

from dagster_sqlmesh_pipes import endings
from dagster_sqlmesh_pipes.compat import Unfinished, later_materializations, record, record_end
from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.intervals import spans_in
from dagster_sqlmesh_pipes.mapping import Result, ResultMapper
from dagster_sqlmesh_pipes.recovery import Recovered, recovered
from dagster_sqlmesh_pipes.translator import EXECUTION_STATUS_CHECK
from sqlmesh_pipes_protocol.errors import ProtocolError
from sqlmesh_pipes_protocol.events import Timestamp
from sqlmesh_pipes_protocol.reconcile import ReconcileReport
from sqlmesh_pipes_protocol.spans import epoch_ms, merged, moment, span_of, without
from sqlmesh_pipes_protocol.told import RunTold


class Aftermath:
    """What became of the runners that a step has lost.

    Args:
        context: of the asset function.
        mapper: makes results of what is found.
        recorded_since: asks SQLMesh's state what it has recorded since a time; raises LaunchError or ProtocolError.

    Attributes:
        summary: what the state says of what this session's runner had not reported, as a sentence; None where it was not asked.
        remarks: why it could not be asked, as sentences.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        mapper: ResultMapper,
        recorded_since: Callable[[Timestamp], ReconcileReport],
    ) -> None:
        self._context = context
        self._mapper = mapper
        self._recorded_since = recorded_since
        self._unasked: list[Unfinished] = []
        self._was_asked = False
        self.summary: str | None = None
        self.remarks: list[str] = []

    def of_this(self, told: RunTold, began_at: float) -> Sequence[Result]:
        """What this session's runner has done and did not report. Nothing, the second time.

        Args:
            told: what it did report.
            began_at: when it was started, in seconds since the epoch, for one that reported nothing.
        """
        if self._was_asked:
            return ()
        self._was_asked = True
        since = epoch_ms(told.began_at) if told.began_at is not None else int(began_at * 1000)
        report = self._ask(since)
        if report is None:
            return ()
        models = list(recovered(report, told))
        self.summary = _summary(models)
        return [result for model in models for result in self._mapper.recovered(model, _why(model))]

    def of_earlier(self, unfinished: Unfinished) -> None:
        """Write to the event log what an earlier attempt's runner has done, and the log does not have.

        Where the state cannot be asked now, it is by `ask_again`.
        """
        if not self._told_of_earlier(unfinished):
            self._unasked.append(unfinished)

    def ask_again(self) -> None:
        """About earlier runners: the state was there for this one meanwhile, and after a success nobody else asks."""
        for unfinished in self._unasked:
            if not self._told_of_earlier(unfinished):
                self._context.log.warning(
                    f"What the earlier runner {unfinished.handle.name} did without saying so is not known to Dagster: see "
                    "`sqlmesh-runner reconcile`."
                )

    def _told_of_earlier(self, unfinished: Unfinished) -> bool:
        handle = unfinished.handle
        report = self._ask(int(handle.began_at * 1000))
        if report is None:
            return False
        told = RunTold(handle.run_id, is_due_known=handle.due is not None)
        told.due = {fqn: [(start, end) for start, end in spans] for fqn, spans in (handle.due or {}).items()}
        self._mapper.began_at(datetime.fromtimestamp(handle.began_at, timezone.utc))
        found = 0
        for model in recovered(report, told):
            news = self._news(model, unfinished)
            if news is not None:
                results = self._mapper.recovered_of_earlier_run(news, is_same_work=unfinished.is_same_work)
                record(self._context, results)
                found += 1
        self._mapper.began_at(datetime.now(timezone.utc))
        record_end(
            self._context,
            replace(handle, due=None),
            f"An earlier attempt ended without a word on its runner, {handle.name}. SQLMesh's state has "
            f"{endings.number(found, 'model')} with work that nobody had told Dagster.",
        )
        return True

    def _news(self, model: Recovered, unfinished: Unfinished) -> Recovered | None:
        """A model with those of its intervals that the event log does not have, from whatever run; None where there are none."""
        key = self._mapper.key_of(model.model)
        if key is None or dg.AssetCheckKey(key, EXECUTION_STATUS_CHECK) in unfinished.recorded:
            return None  # what became of it was told
        later = later_materializations(self._context, key, unfinished.handle.began_at)
        told = [span for each in later for span in spans_in(each)]
        left = merged(without(map(span_of, model.intervals), told))
        return replace(model, intervals=left) if left else None

    def _ask(self, since: int) -> ReconcileReport | None:
        try:
            return self._recorded_since(moment(since))
        except (LaunchError, ProtocolError) as error:
            remark = (
                "What SQLMesh has done without saying so could not be asked of its state, and is asked again later: "
                f"{endings.sentence(error)}"
            )
            self.remarks.append(remark)
            self._context.log.warning(remark)
            return None


def _why(model: Recovered) -> str:
    if model.is_complete:
        return "The runner died before it said so."
    if model.has_begun:
        return "The runner died before the model was complete."
    return "The runner died before the model ran."


def _summary(models: Sequence[Recovered]) -> str:
    complete = sum(model.is_complete for model in models)
    torn = sum(model.has_begun and not model.is_complete for model in models)
    rest = len(models) - complete - torn
    return (
        f"Of what it had not reported, SQLMesh's state has {endings.number(complete, 'model')} as complete; "
        f"{torn} {'was' if torn == 1 else 'were'} torn, {rest} had not begun."
    )
