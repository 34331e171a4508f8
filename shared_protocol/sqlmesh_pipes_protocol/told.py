"""What a run's events say of intervals: what it set out to fill, and what it says it has filled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlmesh_pipes_protocol.codec import Envelope
from sqlmesh_pipes_protocol.events import (
    BatchFinished,
    EvaluationStarted,
    Interval,
    ModelExecuted,
    ModelFailed,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunStarted,
    Timestamp,
)
from sqlmesh_pipes_protocol.spans import Span, span_of


@dataclass
class RunTold:
    """What the events of a run say of intervals. Feed it each event once, in order.

    Attributes:
        run_id: the run.
        began_at: when it began, by the runner's clock; where that is not told, the time of its first event, which may be one of waiting
            for another run. None before it.
        started: None where the run broke off before.
        due: what the run set out to fill, by FQN.
        is_due_known: whether that is all: no event is missing that would have told more.
        done: what it says it has filled, by FQN.
        in_flight: models that began, and of which there is no last word, in the order of their beginning.
        ended: models of which there is one.
    """

    run_id: str
    began_at: Timestamp | None = None
    started: RunStarted | None = None
    due: dict[str, list[Span]] = field(default_factory=dict)
    is_due_known: bool = False
    done: dict[str, list[Span]] = field(default_factory=dict)
    in_flight: dict[str, None] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    def take(self, envelope: Envelope) -> None:
        self.began_at = self.began_at or envelope.at
        match envelope.event:
            case RunStarted() as event:
                self.started, self.began_at = event, envelope.at
            case EvaluationStarted() as event:
                self.is_due_known = True
                for batches in event.batches:
                    self.due.setdefault(batches.model, []).extend(map(span_of, batches.intervals))
            case ModelStarted() as event:
                self.in_flight[event.model] = None
            case BatchFinished() as event:
                self._done(event.model, [event.interval])
            case ModelExecuted() | ModelFailed() as event:
                self._done(event.model, event.intervals)
                self._ended(event.model)
            case ModelSkipped() as event:
                self._ended(event.model)
            case RunFinished() as event:
                self.is_due_known = True
                for outcome in event.digest:
                    self._done(outcome.model, outcome.intervals)
                    self._ended(outcome.model)
            case _:
                pass

    def _done(self, model: str, intervals: Iterable[Interval]) -> None:
        self.done.setdefault(model, []).extend(map(span_of, intervals))

    def _ended(self, model: str) -> None:
        self.in_flight.pop(model, None)
        self.ended.add(model)
