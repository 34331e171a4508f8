"""A table for people at a terminal."""

from __future__ import annotations

from collections import Counter

from sqlmesh_pipes_runner.reports import words
from sqlmesh_pipes_runner.reports.story import ModelStory, Story
from sqlmesh_pipes_runner.spelling import duration, printable

_HEADINGS = ("model", "status", "duration", "audits", "why")


def table(story: Story) -> str:
    """Every model with its status, duration, audits and reason, then the run's outcome."""
    rows = [_HEADINGS, *(_row(model) for model in story.models.values())]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADINGS) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * (sum(widths) + 2 * len(widths) + 20))
    failed = [(model, audit) for model, audit in story.audits() if audit.outcome == "failed"]
    for model, audit in failed:
        lines.append(f"audit of {model.name if model else 'several models'}: {words.failed_audit(audit)}")
    lines += ["", words.what_was_asked(story), words.headline(story)]
    if story.error is not None:
        lines.append(story.error.message)
    return printable("\n".join(lines)) + "\n"


def _row(model: ModelStory) -> tuple[str, str, str, str, str]:
    outcomes = Counter(audit.outcome for audit in model.audits.values())
    audits = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    why = "" if model.status == "executed" else words.cause(model)
    return model.name, model.status, duration(model.duration_ms), audits, why
