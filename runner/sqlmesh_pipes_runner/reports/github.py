"""GitHub annotations: workflow commands that point at the file of the model."""

from __future__ import annotations

from collections.abc import Callable

from sqlmesh_pipes_runner.reports import words
from sqlmesh_pipes_runner.reports.story import ModelStory, Story
from sqlmesh_pipes_runner.spelling import printable


def github(story: Story, file_of: Callable[[str], str | None]) -> str:
    """An error for each model that failed, a warning for each that was held back and for each audit that only warns.

    GitHub shows ten errors and ten warnings of a step: the errors come first, and a model that failed is told once, with the audits
    that it failed for.

    Args:
        file_of: the path of a model's file from the repository's root, by FQN; None where it is not known.
    """
    lines: list[str] = []
    if story.error is not None:
        lines.append(_command("error", None, words.title(story), story.error.message))
    lines += [
        _command("error", file_of(model.fqn), f"{model.name} failed", _why(model))
        for model in story.of("failed", "torn")
    ]
    for owner, audit in story.audits():
        if audit.outcome == "failed" and not audit.evaluation.blocking:
            file = file_of(owner.fqn) if owner is not None else None
            name = owner.name if owner is not None else audit.evaluation.audit
            lines.append(_command("warning", file, f"Audit of {name}", words.failed_audit(audit)))
    lines += [
        _command("warning", file_of(model.fqn), f"{model.name} was skipped", words.cause(model))
        for model in story.of("skipped")
        if model.reason in ("upstream_failed", "interrupted", "not_deployed")
    ]
    return "".join(f"{line}\n" for line in lines)


def _why(model: ModelStory) -> str:
    failed = [words.failed_audit(audit) for audit in model.audits.values() if audit.outcome == "failed"]
    text = model.error.message if model.error is not None else words.cause(model)
    return "\n".join([text, *failed])


def _command(level: str, file: str | None, title: str, message: str) -> str:
    where = f"file={_property(file)},line=1," if file else ""
    return f"::{level} {where}title={_property(title)}::{_data(message.strip())}"


def _data(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
