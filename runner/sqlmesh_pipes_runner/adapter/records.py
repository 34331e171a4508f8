"""Which intervals SQLMesh has recorded as done since a moment, read from its state.

SQLMesh writes a row for each batch that is done, with the time (``created_ts``), and a row for each stretch that is taken back, as by
a restatement. Its janitor, which runs before every run of production, merges the rows of a model into new ones and deletes the old:
a compacted row has the time of the compaction. What it tells is when anything in it was last altered (``last_altered_ts``), so it is
known to be older where that lies before the moment, and not known to be younger where it lies after.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp
from sqlmesh.core.constants import PROD
from sqlmesh.core.snapshot import DeployabilityIndex, Snapshot
from sqlmesh.core.state_sync import EngineAdapterStateSync
from sqlmesh.core.state_sync.db.utils import fetchall, snapshot_name_version_filter
from sqlmesh.utils.date import to_timestamp

from sqlmesh_pipes_protocol.spans import Span, without
from sqlmesh_pipes_runner.adapter.state import ReadingContext
from sqlmesh_pipes_runner.adapter.turns import is_evaluated
from sqlmesh_pipes_runner.errors import UsageError

_BATCH_SIZE = 1000
_COLUMNS = (
    "name",
    "version",
    "dev_version",
    "start_ts",
    "end_ts",
    "is_dev",
    "is_removed",
    "is_compacted",
    "last_altered_ts",
)


@dataclass(frozen=True)
class Row:
    """A row of the table of intervals; the names are SQLMesh's."""

    name: str
    version: str
    dev_version: str | None
    start_ts: int
    end_ts: int
    is_dev: bool
    is_removed: bool
    is_compacted: bool
    last_altered_ts: int | None


@dataclass
class Records:
    """What has been recorded of one model since a moment, and not taken back; spans in the order of their rows.

    Attributes:
        recorded: since the moment for certain.
        uncertain: compacted since: recorded before or since.
        looks_back: whether a run may fill what is filled already.
    """

    looks_back: bool
    recorded: list[Span] = field(default_factory=list)
    uncertain: list[Span] = field(default_factory=list)

    def take(self, row: Row, since: int) -> None:
        """Take in a row, in the order of their times."""
        span = (row.start_ts, row.end_ts)
        if row.is_removed:
            self.recorded = list(without(self.recorded, [span]))
            self.uncertain = list(without(self.uncertain, [span]))
        elif not row.is_compacted:
            self.recorded.append(span)
        elif row.last_altered_ts is None or row.last_altered_ts >= since:
            self.uncertain.append(span)


class RecordContext(ReadingContext):
    """Finds out what SQLMesh has recorded."""

    def check_time(self, text: str) -> int:
        """A moment as SQLMesh understands it, in milliseconds since the epoch.

        Raises:
            UsageError: it is none.
        """
        try:
            return to_timestamp(text)
        except ValueError:
            raise UsageError(
                f"--since {text!r} is no time: give one such as 2026-01-31, 2026-01-31T06:30:00 or '1 day ago'."
            ) from None

    def records_since(self, since: int, *, start: str | None = None) -> dict[str, Records]:
        """What has been recorded of the models in the target environment, by FQN: of the versions that are deployed now.

        Args:
            since: in milliseconds since the epoch, by the clock of the runners.
            start: the run's own ``--start``, which decides in a development environment what is a preview.

        Raises:
            UsageError: there is no such environment.
        """
        environment = self.deployed_environment()
        found = list(self.state_reader.get_snapshots(environment.snapshots).values())
        if environment.name.lower() == PROD:
            index = DeployabilityIndex.all_deployable()
        else:
            index = DeployabilityIndex.create(found, start=start)
        # As the scheduler records them: what cannot be deployed from here is an interval of the development table.
        snapshots = {
            (snapshot.name, snapshot.version): (snapshot, not index.is_deployable(snapshot))
            for snapshot in found
            if is_evaluated(snapshot)
        }
        records = {snapshot.name: Records(_looks_back(snapshot)) for snapshot, _ in snapshots.values()}
        for row in self._rows([snapshot for snapshot, _ in snapshots.values()], since):
            snapshot, is_dev = snapshots[row.name, row.version]
            if row.is_dev == is_dev and (not is_dev or row.dev_version == snapshot.dev_version):
                records[row.name].take(row, since)
        return records

    def _rows(self, snapshots: list[Snapshot], since: int) -> list[Row]:
        state_sync = self.state_sync
        assert isinstance(state_sync, EngineAdapterStateSync)  # noqa: S101 - narrows the type
        adapter, table = state_sync.engine_adapter, state_sync.interval_state.intervals_table
        query = (
            exp.select(*_COLUMNS)
            .from_(exp.to_table(table).as_("intervals"))
            .where(exp.column("created_ts") >= since, exp.column("is_pending_restatement").not_())
            # SQLMesh's own order, which decides where a stretch is recorded and taken back in one millisecond.
            .order_by("created_ts", "is_removed")
        )
        rows: list[Row] = []
        for where in snapshot_name_version_filter(
            adapter, snapshots, batch_size=_BATCH_SIZE, alias="intervals"
        ):
            rows += (_row(values) for values in fetchall(adapter, query.where(where)))
        return rows


def _row(values: Any) -> Row:
    name, version, dev_version, start, end, is_dev, is_removed, is_compacted, last_altered = values
    return Row(
        name=name,
        version=version,
        dev_version=dev_version,
        start_ts=int(start),
        end_ts=int(end),
        is_dev=bool(is_dev),
        is_removed=bool(is_removed),
        is_compacted=bool(is_compacted),
        last_altered_ts=None if last_altered is None else int(last_altered),
    )


def _looks_back(snapshot: Snapshot) -> bool:
    return bool(snapshot.is_model and snapshot.model.lookback)
