"""Markdown for a job's summary or a pull request's comment."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from sqlmesh_pipes_runner.reports import words
from sqlmesh_pipes_runner.reports.story import ModelStory, Story
from sqlmesh_pipes_runner.spelling import counted, duration, first_line, span

_MAX_BYTES = 200_000
"""In each section: GitHub refuses a summary of more than 1 MiB."""
_MAX_ROWS = 500
_MAX_TEXT = 3_000
_SIGNS = {
    "success": "✅",
    "nothing_to_do": "✅",
    "failed": "❌",
    "interrupted": "⚠️",
    "error": "❌",
    "died": "❌",
}
_MARKUP = re.compile(r"[\\`*_\[\]<>#|~$&]")

Item = tuple[list[str], list[str]]
"""The first lines of an item, and those that are left out where there is much."""


def markdown(story: Story) -> str:
    """The run's outcome, what failed and why, what was skipped by reason, and all models to be folded out."""
    lines = [
        f"### {_SIGNS[story.status]} {_plain(words.title(story))}: {words.headline(story)}",
        "",
        _plain(words.what_was_asked(story)),
    ]
    if story.error is not None:
        lines += ["", f"**{_plain(first_line(story.error.message))}**"]
    lines += _section("Failed", map(_failure, story.of("failed", "torn")))
    lines += _section("Audits that failed", _audits(story))
    lines += _skips(story.of("skipped"))
    lines += _everything(story)
    lines += _section("Warnings", (([f"- {_plain(first_line(log.message))}"], []) for log in story.warnings))
    return "\n".join(lines) + "\n"


def _section(heading: str, items: Iterable[Item]) -> list[str]:
    lines = _within(items)
    return ["", f"#### {heading}", "", *lines] if lines else []


def _within(items: Iterable[Item], more: str = "- … and {} more", most: int | None = None) -> list[str]:
    """As many items as there is room for; in the second half of it without what can be left out."""
    lines: list[str] = []
    used = left = 0
    for place, (first, rest) in enumerate(items):
        short, whole = _size(first), _size(first + rest)
        if left or place == most or used + short > _MAX_BYTES:
            left += 1
            continue
        fits = used + whole <= _MAX_BYTES / 2
        lines += first + rest if fits else first
        used += whole if fits else short
    return [*lines, more.format(f"{left:,}")] if left else lines


def _size(lines: list[str]) -> int:
    return sum(len(line.encode("utf-8", "replace")) + 1 for line in lines)


def _failure(model: ModelStory) -> Item:
    first = [f"- **{_plain(model.name)}**: {_plain(words.cause(model))}"]
    if model.failed_interval is not None:
        first.append(f"  Interval: {span(model.failed_interval)}")
    if model.error is None or "\n" not in model.error.message.strip():
        return first, []
    return first, ["", *_fenced(model.error.message), ""]


def _audits(story: Story) -> Iterable[Item]:
    for model, audit in story.audits():
        if audit.outcome == "failed":
            name = model.name if model is not None else "standalone"
            query = audit.evaluation.query
            rest = ["", *_fenced(query, "sql"), ""] if query else []
            yield [f"- **{_plain(name)}**: {_plain(words.failed_audit(audit))}"], rest


def _skips(models: list[ModelStory]) -> list[str]:
    if not models:
        return []
    reasons = Counter(model.reason or "unknown" for model in models)
    lines = ["", "#### Skipped", "", "| Reason | Models |", "|---|---:|"]
    return lines + [f"| {reason.replace('_', ' ')} | {count} |" for reason, count in reasons.most_common()]


def _everything(story: Story) -> list[str]:
    if not story.models:
        return []
    slowest_first = sorted(story.models.values(), key=lambda model: -(model.duration_ms or 0))
    rows = _within((([_row(model)], []) for model in slowest_first), "| … and {} more | | | | | |", _MAX_ROWS)
    return [
        "",
        f"<details><summary>{counted(len(story.models), 'model')}</summary>",
        "",
        "| Model | Status | Duration | Batches | Audits | |",
        "|---|---|---:|---:|---|---|",
        *rows,
        "",
        "</details>",
    ]


def _row(model: ModelStory) -> str:
    outcomes = Counter(audit.outcome for audit in model.audits.values())
    audits = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    why = "" if model.status == "executed" else words.cause(model)
    return (
        f"| {_plain(model.name)} | {model.status} | {duration(model.duration_ms)} "
        f"| {model.batches or ''} | {audits} | {_plain(why)} |"
    )


def _fenced(text: str, language: str = "") -> list[str]:
    """A block of code inside a list's item, which no line of it can end."""
    text = text.strip()
    cut = text[:_MAX_TEXT] + (" …" if len(text) > _MAX_TEXT else "")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", cut)), default=0))
    return [f"  {line}".rstrip() for line in (f"{fence}{language}", *cut.splitlines(), fence)]


def _plain(text: str) -> str:
    """The text as it is, in one line: no markup of its own, nor HTML, nor mentions."""
    one_line = " ".join(text.split())
    return _MARKUP.sub(r"\\\g<0>", one_line).replace("@", "@\u200b")
