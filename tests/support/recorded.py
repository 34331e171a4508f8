"""What SQLMesh's state has recorded, read from the state itself, to hold Dagster's event log against."""

import json
import re
import subprocess
from datetime import datetime, timezone

from support.warehouse import Outcome, Warehouse

Span = tuple[datetime, datetime]
_INTERVALS = """
import duckdb, json, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
rows = connection.execute(
    "SELECT name, start_ts, end_ts FROM sqlmesh._intervals WHERE NOT is_dev AND NOT is_removed ORDER BY name, start_ts"
)
print(json.dumps(rows.fetchall()))
"""


def recorded(warehouse: Warehouse) -> dict[str, list[Span]]:
    """The intervals that SQLMesh has recorded, by asset key without the catalog: ``staging/orders``.

    The table of a DuckDB warehouse is read, not SQLMesh asked: it is what a runner that died has left.
    """
    done = subprocess.run(
        [str(warehouse.bin / "python"), "-c", _INTERVALS, str(warehouse.database)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: dict[str, list[Span]] = {}
    for fqn, start, end in json.loads(done.stdout):
        key = "/".join(fqn.replace('"', "").split(".")[1:])
        spans = found.setdefault(key, [])
        span = (moment(start), moment(end))
        if spans and spans[-1][1] >= span[0]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], span[1]))
        else:
            spans.append(span)
    return found


def moment(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, timezone.utc)


def assert_nothing_invented(outcome: Outcome, warehouse: Warehouse) -> dict[str, list[Span]]:
    """Every materialization, with the intervals it names, is in SQLMesh's state, which is returned."""
    state = recorded(warehouse)
    assert set(outcome.materialized) <= set(state)
    for key, materialization in outcome.materialized.items():
        intervals = materialization.metadata.get("intervals")
        for start, end in re.findall(
            r"([\d-]{10}\S*) to ([\d-]{10}\S*?)(?:,|$| and)", str(intervals and intervals.value)
        ):
            told = (instant(start), instant(end))
            assert any(span[0] <= told[0] and told[1] <= span[1] for span in state[key]), (
                key,
                told,
                state[key],
            )
    return state


def instant(text: str) -> datetime:
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)


def rows(warehouse: Warehouse, table: str) -> int:
    """How many rows a table of a DuckDB warehouse has."""
    done = subprocess.run(
        [
            str(warehouse.bin / "python"),
            "-c",
            "import duckdb, sys\n"
            "connection = duckdb.connect(sys.argv[1], read_only=True)\n"
            "print(connection.execute(f'SELECT count(*) FROM {sys.argv[2]}').fetchone()[0])",
            str(warehouse.database),
            table,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return int(done.stdout)
