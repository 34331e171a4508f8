"""A summary as JSON, for programs that want the outcome and not the events."""

from __future__ import annotations

from typing import Any

import orjson

from sqlmesh_pipes_runner.reports.story import AuditStory, ModelStory, Story


def summary(story: Story) -> str:
    """The run, each model and each audit, as one JSON document. Durations are in milliseconds, times in UTC."""
    document: dict[str, Any] = {
        "run_id": story.run_id,
        "environment": story.started.environment if story.started else None,
        "gateway": story.started.gateway if story.started else None,
        "versions": story.started.versions if story.started else None,
        "status": story.status,
        "exit_code": story.finished.exit_code if story.finished else None,
        "error": story.error,
        "began_at": story.began_at,
        "ended_at": story.ended_at,
        "duration_ms": story.duration_ms,
        "counts": story.finished.counts if story.finished else None,
        "models": [_model(model) for model in story.models.values()],
        "standalone_audits": [_audit(audit) for audit in story.standalone.values()],
        "warnings": [log.message for log in story.warnings],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _model(model: ModelStory) -> dict[str, Any]:
    return {
        "model": model.fqn,
        "status": model.status,
        "reason": model.reason,
        "detail": model.detail,
        "next_due": model.next_due,
        "error": model.error,
        "failed_interval": model.failed_interval,
        "intervals": model.intervals,
        "batches": model.batches,
        "rows": model.rows,
        "duration_ms": model.duration_ms,
        "audits": [_audit(audit) for audit in model.audits.values()],
    }


def _audit(audit: AuditStory) -> dict[str, Any]:
    evaluation = audit.evaluation
    return {
        "audit": evaluation.audit,
        "name": evaluation.name,
        "arguments": evaluation.arguments,
        "blocking": evaluation.blocking,
        "outcome": audit.outcome,
        "failing_rows": audit.failing_rows,
        "query": evaluation.query if audit.outcome == "failed" else None,
        "interval": evaluation.interval,
    }
