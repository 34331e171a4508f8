"""Audits: which a model has, and each result the moment SQLMesh has it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlglot import exp
from sqlmesh.core.audit import StandaloneAudit
from sqlmesh.core.snapshot import Snapshot, SnapshotEvaluator
from sqlmesh.utils.date import to_timestamp
from sqlmesh.utils.errors import NodeAuditsErrors

from sqlmesh_pipes_protocol.audits import AuditCall, audit_identities
from sqlmesh_pipes_protocol.events import AuditEvaluated
from sqlmesh_pipes_protocol.spans import interval
from sqlmesh_pipes_runner.failures import causes
from sqlmesh_pipes_runner.recorder import RunRecorder

_SQL_NODE: type[Any] = getattr(exp, "Expr", exp.Expression)
"""The base of what has been parsed. sqlglot 30 put it under `Expression`, which not all nodes are any more; 27 has that alone."""


def audit_calls(node: Any) -> list[tuple[Any, AuditCall, bool]]:
    """A model's audits in SQLMesh's order: the audit, the use of it, and whether a failure blocks.

    Args:
        node: a SQLMesh model.
    """
    calls = []
    for audit, arguments in node.audits_with_args:
        blocking = arguments.get("blocking")
        effective = audit.blocking if blocking is None else blocking == exp.true()
        calls.append((audit, audit_call(audit, arguments, node.dialect), effective))
    return calls


def audit_call(audit: Any, arguments: Mapping[str, Any], dialect: str | None) -> AuditCall:
    """One use of an audit, its arguments as SQL."""
    return AuditCall(
        name=audit.name,
        arguments={
            key: value.sql(dialect=dialect) if isinstance(value, _SQL_NODE) else str(value)
            for key, value in arguments.items()
            if key != "blocking"  # a setting of the use, not an argument of the audit
        },
    )


def failed_audits(error: BaseException, snapshot: Snapshot) -> tuple[str, ...]:
    """Identities of the blocking audits that a batch's exception tells of."""
    if not snapshot.is_model:
        return ()
    for link in causes(error):
        if isinstance(link, NodeAuditsErrors):
            identify = AuditIdentities(snapshot.model)
            failed = [
                audit_call(_Named(e.audit_name), e.audit_args, snapshot.model.dialect) for e in link.errors
            ]
            return tuple(dict.fromkeys(identify.all_of(call)[0] for call in failed))
    return ()


@dataclass(frozen=True)
class _Named:
    name: str


class AuditIdentities:
    """Identities of one model's audits. Not thread-safe."""

    def __init__(self, node: Any) -> None:
        calls = [call for _, call, _ in audit_calls(node)]
        self._identities: dict[tuple[str, frozenset[tuple[str, str]]], list[str]] = {}
        for call, identity in zip(calls, audit_identities(calls), strict=True):
            self._identities.setdefault(self._key(call), []).append(identity)

    def all_of(self, call: AuditCall) -> list[str]:
        """The identities that uses with this name and these arguments have; several only for exact repetitions."""
        return self._identities.get(self._key(call)) or [call.name]

    @staticmethod
    def _key(call: AuditCall) -> tuple[str, frozenset[tuple[str, str]]]:
        return call.name, frozenset(call.arguments.items())


def tap_audits(evaluator: SnapshotEvaluator, recorder: RunRecorder) -> None:
    """Report each audit result of this evaluator, the moment SQLMesh has it."""
    evaluate_audit = type(evaluator)._audit.__get__(evaluator)  # the class's own: tapping twice reports once
    local = threading.local()

    def reporting_audit(*, audit: Any, audit_args: dict[Any, Any], snapshot: Snapshot, **kwargs: Any) -> Any:
        node = snapshot.node
        call = audit_call(audit, audit_args, getattr(node, "dialect", None))
        result = evaluate_audit(audit=audit, audit_args=audit_args, snapshot=snapshot, **kwargs)
        span = _span(kwargs.get("start"), kwargs.get("end"))
        if isinstance(node, StandaloneAudit):
            identity, targets = call.name, tuple(sorted(node.depends_on))
        else:
            # An exact repetition of an audit on one interval is the next of its identities.
            batch = (snapshot.name, span)
            if getattr(local, "batch", None) != batch:
                local.batch, local.seen = batch, Counter()
                local.identities = AuditIdentities(node)
            candidates = local.identities.all_of(call)
            identity, targets = candidates[local.seen[candidates[0]] % len(candidates)], ()
            local.seen[candidates[0]] += 1
        dialect = evaluator.get_adapter(snapshot.model_gateway).dialect
        recorder.audit_evaluated(
            AuditEvaluated(
                model=snapshot.name,
                audit=identity,
                name=call.name,
                arguments=call.arguments,
                blocking=result.blocking,
                skipped=result.skipped,
                passed=not result.skipped and not result.count,
                failing_rows=None if result.skipped else result.count,
                query=result.query.sql(dialect=dialect, pretty=True) if result.query else None,
                dialect=dialect or None,
                interval=interval(span) if span else None,
                standalone=isinstance(node, StandaloneAudit),
                targets=targets,
            )
        )
        return result

    evaluator._audit = reporting_audit  # type: ignore[method-assign, assignment]  # on this instance alone


def _span(start: Any, end: Any) -> tuple[int, int] | None:
    return (to_timestamp(start), to_timestamp(end)) if start is not None and end is not None else None
