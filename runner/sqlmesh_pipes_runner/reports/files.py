"""Reports that are written when a run is over."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlmesh_pipes_protocol.codec import Envelope
from sqlmesh_pipes_runner.errors import UsageError
from sqlmesh_pipes_runner.reports.github import github
from sqlmesh_pipes_runner.reports.junit import junit
from sqlmesh_pipes_runner.reports.markdown import markdown
from sqlmesh_pipes_runner.reports.sources import SourceFiles
from sqlmesh_pipes_runner.reports.story import Story


class Reports:
    """Follows a run, and writes its reports at the end.

    Args:
        projects: the project directories, for the files of models.
        environment: the one that was asked for.
        junit: takes the place of what is at this path, in one step.
        markdown: is appended to: GitHub's job summary is one for all steps.
        annotations: whether to print GitHub's workflow commands.

    Raises:
        UsageError: the folder of a report is not there.
    """

    def __init__(
        self,
        projects: Sequence[Path],
        *,
        environment: str | None = None,
        junit: Path | None = None,
        markdown: Path | None = None,
        annotations: bool = False,
    ) -> None:
        for path in (junit, markdown):
            if path is not None and not path.absolute().parent.is_dir():
                raise UsageError(f"The report {path} cannot be written: there is no folder {path.parent}.")
        self._story = Story(environment)
        self._projects = projects
        self._junit = junit
        self._markdown = markdown
        self._annotations = annotations

    def take(self, envelope: Envelope) -> None:
        """Take in an event, each once, in order."""
        self._story.take(envelope)

    def write(self) -> None:
        """Write the reports. One that cannot be written is told on standard error: it changes nothing of the run."""
        if self._junit is not None:
            with _told(f"The report {self._junit}"):
                replace_file(self._junit, junit(self._story))
        if self._markdown is not None:
            with (
                _told(f"The report {self._markdown}"),
                self._markdown.open("a", encoding="utf-8", errors="replace") as file,
            ):
                file.write(markdown(self._story))
        if self._annotations:
            # GitHub reads standard error as well, and standard output may be the events'.
            with _told("The annotations"):
                print(
                    github(self._story, SourceFiles(self._projects).of), end="", file=sys.stderr, flush=True
                )


def replace_file(path: Path, text: str) -> None:
    """Put a text in the place of a file in one step: a reader sees the old one or the new one, whole.

    A link stays one. What is no file, such as /dev/stdout, is written to.
    """
    if Path("/dev") in path.absolute().parents or (path.exists() and not path.is_file()):
        with path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)
        return
    path = path.resolve()
    descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the run is over, and its outcome told: a report must not change that
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        with suppress(OSError, ValueError):  # a model may have closed standard error
            print(f"{what} cannot be written: {reason}.", file=sys.stderr)
