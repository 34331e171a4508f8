"""The sentences that reports share."""

from __future__ import annotations

from collections import Counter

from sqlmesh_pipes_runner.reports.story import AuditStory, ModelStory, Story
from sqlmesh_pipes_runner.spelling import ENDINGS, counted, duration, first_line


def title(story: Story) -> str:
    """What ran."""
    return f"SQLMesh {story.environment}" if story.environment else "SQLMesh"


def headline(story: Story) -> str:
    """The run in one line: how it ended, how long it took, how many models."""
    statuses = Counter(model.status for model in story.models.values())
    failed_audits = sum(audit.outcome == "failed" for _, audit in story.audits())
    torn = f", {statuses['torn']} torn" if statuses["torn"] else ""
    took = f" in {duration(story.duration_ms)}" if story.duration_ms is not None else ""
    return (
        f"{ENDINGS[story.status]}{took}: {statuses['executed']} executed, {statuses['skipped']} skipped, "
        f"{statuses['failed']} failed{torn}; {counted(len(story.audits()), 'audit')}, {failed_audits} failed."
    )


def what_was_asked(story: Story) -> str:
    started = story.started
    if started is None:
        return "The run never began."
    gateway = f" on gateway {started.gateway!r}" if started.gateway else ""
    return (
        f"SQLMesh {started.versions.sqlmesh}, environment {started.environment!r}{gateway}: "
        f"{started.models_selected} of {counted(started.models_deployed, 'model')} selected."
    )


def failed_audit(audit: AuditStory) -> str:
    """Why an audit failed, in one line."""
    evaluation = audit.evaluation
    arguments = ", ".join(f"{name} := {value}" for name, value in evaluation.arguments.items())
    blocking = "blocking" if evaluation.blocking else "not blocking"
    return f"{evaluation.name}({arguments}): {counted(audit.failing_rows, 'row')} failed, {blocking}"


def cause(model: ModelStory) -> str:
    """Why a model did not run to its end, in one line."""
    if model.status == "torn":
        return "It had started when the runner died."
    if model.error is not None:
        return f"[{model.error.category}] {first_line(model.error.message)}"
    return first_line(model.detail or "") or (model.reason or "").replace("_", " ")
