"""Whether what is asked of an environment exists in it: models and times."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

from sqlmesh.core.dialect import normalize_model_name
from sqlmesh.core.snapshot import Snapshot
from sqlmesh.utils.date import to_datetime, validate_date_range

from sqlmesh_pipes_runner.errors import UsageError
from sqlmesh_pipes_runner.options import RunOptions

_PLAIN_NAME = re.compile(r'[\w.$"`\-]+')
"""A model's name, as opposed to a selection expression with operators or wildcards."""


def check_selection(
    expressions: Sequence[str],
    selected: Collection[str] | None,
    snapshots: Mapping[str, Snapshot],
    *,
    default_catalog: str | None,
    dialect: str | None,
) -> None:
    """Raise UsageError for a name that no model of the environment has, and where no model is selected.

    Args:
        expressions: as they were given.
        selected: the FQNs that SQLMesh makes of them.
        snapshots: what the environment has, by FQN.
        default_catalog: of the project.
        dialect: that names are written in.
    """
    for expression in expressions:
        if not _PLAIN_NAME.fullmatch(expression):
            continue
        if (
            normalize_model_name(expression, default_catalog=default_catalog, dialect=dialect)
            not in snapshots
        ):
            names = [snapshot.model.name for snapshot in snapshots.values() if snapshot.is_model]
            close = difflib.get_close_matches(expression, names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"There is no model {expression!r} in the environment.{hint}")
    if not selected:
        raise UsageError(f"No model in the environment matches the selection {', '.join(expressions)}.")


def check_times(options: RunOptions) -> None:
    """Raise UsageError for what is no time, and for a start after the end."""
    for name in ("start", "end", "execution_time"):
        value = getattr(options, name)
        try:
            if value is not None:
                to_datetime(value)
        except ValueError:
            raise UsageError(
                f"--{name.replace('_', '-')} {value!r} is no time: give one such as 2026-01-31, "
                "2026-01-31T06:30:00 or '1 day ago'."
            ) from None
    try:
        validate_date_range(options.start, options.end)
    except ValueError as error:
        raise UsageError(f"--start and --end do not fit: {error}") from None
