"""How a run ended, as the one failure that its step has. Pure."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.launchers import Verdict
from dagster_sqlmesh_pipes.translator import readable
from sqlmesh_pipes_protocol.events import ErrorInfo, RunFinished

_MAX_LAST_WORDS = 8_000
"""Characters."""


def of_models(failures: Mapping[str, ErrorInfo], finished: RunFinished) -> dg.Failure:
    """Each failed model with its cause, and what broke the run off."""
    error = finished.error
    # Only what does not fit into the sentence.
    metadata: dict[str, Any] = {
        readable(fqn): dg.MetadataValue.md(f"```\n{failure.traceback or failure.message}\n```")
        for fqn, failure in failures.items()
        if failure.traceback or "\n" in failure.message.strip()
    }
    sentences = []
    if failures:
        listed = " ".join(
            f"{readable(fqn)}: {sentence(failure.message)}" for fqn, failure in failures.items()
        )
        sentences.append(f"{number(len(failures), 'model')} failed: {listed}")
    # What a failed model broke off has been said with the model.
    if error is not None and not (failures and finished.status == "error"):
        sentences.append(error.message)
    if error is not None:
        metadata |= {"category": error.category, "error_class": error.error_class}
        if error.traceback:
            metadata["traceback"] = dg.MetadataValue.md(f"```\n{error.traceback}\n```")
    causes = [*failures.values(), *([error] if error is not None else [])]
    return dg.Failure(
        " ".join(sentences) or "The SQLMesh run failed; the runner did not say why.",
        metadata=metadata,
        allow_retries=bool(causes) and all(cause.transient for cause in causes),
    )


def of_a_stop(verdict: Verdict | None, silent_for: float | None) -> dg.Failure:
    """The runner was told to end, and did.

    Args:
        verdict: what its surroundings say.
        silent_for: it was told for a silence of so many seconds.
    """
    said = f" {verdict.cause}" if verdict is not None else ""
    if silent_for is not None:
        said = f" It had not been heard for {silent_for:g} s, not even a heartbeat.{said}"
    return dg.Failure(
        f"The SQLMesh run was stopped before its end.{said}", metadata=_details(verdict), allow_retries=True
    )


def of_a_death(
    runner: str,
    *,
    code: int | None,
    verdict: Verdict | None,
    has_begun: bool,
    silent_for: float | None,
    recovery: str | None,
    remarks: Sequence[str],
    last_words: str,
) -> dg.Failure:
    """The runner ended, or was ended, without a last event.

    Args:
        runner: what and where it was.
        code: its exit status, negative for a signal.
        verdict: what its surroundings say.
        has_begun: whether it had reported anything.
        silent_for: it was ended for a silence of so many seconds.
        recovery: what SQLMesh's state says of what was not reported, as a sentence; None where it was not asked.
        remarks: sentences to add.
        last_words: what it wrote last.
    """
    if verdict is not None and not verdict.started:
        return dg.Failure(
            f"The runner ({runner}) did not start. {verdict.cause}",
            metadata=_details(verdict),
            allow_retries=verdict.transient,
        )
    if silent_for is not None:
        how = f"was not heard for {silent_for:g} s, not even a heartbeat, and was ended"
    elif verdict is not None and verdict.how is not None:
        how = verdict.how
    elif code is None or code >= 0:
        how = f"exited with status {code}"
    else:
        how = f"was killed by {_signal(-code)}"
    when = "in mid-run" if has_begun else "before it reported anything"
    unknown = ": what it had not reported is unknown." if recovery is None else "."
    parts = [f"The runner ({runner}) {how} {when}{unknown}"]
    if verdict is not None and silent_for is None:
        parts.append(verdict.cause)
    parts += [*([recovery] if recovery is not None else []), *remarks]
    if last_words:
        parts.append(f"It last wrote:\n{last_words[-_MAX_LAST_WORDS:]}")
    # A process that is killed may fare better next time; one that exits by itself says the same again.
    is_transient = verdict.transient if verdict is not None else code is not None and code < 0
    return dg.Failure(
        " ".join(parts), metadata=_details(verdict), allow_retries=is_transient or silent_for is not None
    )


def number(count: int, noun: str) -> str:
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def sentence(text: object) -> str:
    line = str(text).strip().partition("\n")[0]
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _details(verdict: Verdict | None) -> dict[str, Any]:
    """What a verdict has beside its sentence, for a failure's metadata."""
    if verdict is None or not verdict.details:
        return {}
    return {"surroundings": dg.MetadataValue.md(f"```\n{verdict.details}\n```")}


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
