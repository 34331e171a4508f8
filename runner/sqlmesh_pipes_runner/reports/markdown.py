"""Markdown for a job's summary or a pull request's comment."""

from __future__ import annotations

from collections import Counter

from sqlmesh_pipes_runner.reports import words
from sqlmesh_pipes_runner.reports.story import ModelStory, Story
from sqlmesh_pipes_runner.spelling import counted, duration, first_line, span

MAX_ROWS = 500
"""In each table: GitHub shows at most 1 MiB."""
_MAX_TEXT = 3_000
_SIGNS = {
    "success": "✅",
    "nothing_to_do": "✅",
    "failed": "❌",
    "interrupted": "⚠️",
    "error": "❌",
    "died": "❌",
}


def markdown(story: Story) -> str:
    """The run's outcome, what failed and why, what was skipped by reason, and all models to be folded out."""
    lines = [
        f"### {_SIGNS[story.status]} SQLMesh {story.environment}: {words.headline(story)}",
        "",
        words.what_was_asked(story),
    ]
    if story.error is not None:
        lines += ["", f"**{_plain(first_line(story.error.message))}**"]
    lines += _failures(story.of("failed", "torn"))
    lines += _audits(story)
    lines += _skips(story.of("skipped"))
    lines += _everything(story)
    if story.warnings:
        lines += ["", "#### Warnings", ""]
        lines += [f"- {_plain(first_line(log.message))}" for log in story.warnings[:MAX_ROWS]]
    return "\n".join(lines) + "\n"


def _failures(models: list[ModelStory]) -> list[str]:
    lines = ["", "#### Failed", ""] if models else []
    for model in models[:MAX_ROWS]:
        lines.append(f"- **{_plain(model.name)}**: {_plain(words.cause(model))}")
        if model.failed_interval is not None:
            lines.append(f"  Interval: {span(model.failed_interval)}")
        if model.error is not None and "\n" in model.error.message.strip():
            lines += ["", *_fenced(model.error.message, indent="  "), ""]
    return lines


def _audits(story: Story) -> list[str]:
    failed = [(model, audit) for model, audit in story.audits() if audit.outcome == "failed"]
    lines = ["", "#### Audits that failed", ""] if failed else []
    for model, audit in failed[:MAX_ROWS]:
        name = model.name if model is not None else "standalone"
        lines.append(f"- **{_plain(name)}**: {_plain(words.failed_audit(audit))}")
        if audit.evaluation.query:
            lines += ["", *_fenced(audit.evaluation.query, "sql", indent="  "), ""]
    return lines


def _skips(models: list[ModelStory]) -> list[str]:
    if not models:
        return []
    reasons = Counter(model.reason or "unknown" for model in models)
    lines = ["", "#### Skipped", "", "| Reason | Models |", "|---|---:|"]
    return lines + [f"| {reason.replace('_', ' ')} | {count} |" for reason, count in reasons.most_common()]


def _everything(story: Story) -> list[str]:
    if not story.models:
        return []
    lines = [
        "",
        f"<details><summary>{counted(len(story.models), 'model')}</summary>",
        "",
        "| Model | Status | Duration | Batches | Audits | |",
        "|---|---|---:|---:|---|---|",
    ]
    slowest_first = sorted(story.models.values(), key=lambda model: -(model.duration_ms or 0))
    for model in slowest_first[:MAX_ROWS]:
        outcomes = Counter(audit.outcome for audit in model.audits.values())
        audits = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        why = "" if model.status == "executed" else words.cause(model)
        lines.append(
            f"| {_cell(model.name)} | {model.status} | {duration(model.duration_ms)} "
            f"| {model.batches or ''} | {audits} | {_cell(why)} |"
        )
    if len(story.models) > MAX_ROWS:
        lines.append(f"| … and {len(story.models) - MAX_ROWS:,} more | | | | | |")
    return [*lines, "", "</details>"]


def _fenced(text: str, language: str = "", indent: str = "") -> list[str]:
    text = text.strip()
    cut = text[:_MAX_TEXT] + (" …" if len(text) > _MAX_TEXT else "")
    fence = "`" * max(3, 1 + max((len(run) for run in _runs_of_backticks(cut)), default=0))
    return [f"{indent}{line}".rstrip() for line in (f"{fence}{language}", *cut.splitlines(), fence)]


def _runs_of_backticks(text: str) -> list[str]:
    return "".join(c if c == "`" else " " for c in text).split()


def _plain(text: str) -> str:
    """The text as it is: no markup of its own, nor HTML, nor mentions."""
    for character in "\\`*_[]<>#@|":
        text = text.replace(character, f"\\{character}")
    return text


def _cell(text: str) -> str:
    return _plain(text.replace("\n", " "))
