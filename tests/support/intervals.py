"""The intervals that SQLMesh's state has recorded, and those that Dagster's event log has: they are to be the same."""

import json
import re
import subprocess

import dagster as dg

from dagster_sqlmesh_pipes.specs import MODEL_KEY
from sqlmesh_pipes_protocol.events import Interval
from sqlmesh_pipes_protocol.spans import merged, span_of
from support.warehouse import Outcome, Warehouse

_QUERY = """
import json, sys
from sqlmesh.core.context import Context

context = Context(paths=[sys.argv[1]], load=False)
environment = context.state_reader.get_environment("prod")
snapshots = context.state_reader.get_snapshots(environment.snapshots)
print(json.dumps({
    snapshot.name: [list(span) for span in snapshot.intervals] for snapshot in snapshots.values() if snapshot.intervals
}))
context.close()
"""


def in_state(warehouse: Warehouse) -> dict[str, list[tuple[int, int]]]:
    """By FQN, merged, in milliseconds since the epoch: asked of SQLMesh itself, in a process of its own."""
    done = subprocess.run(
        [str(warehouse.bin / "python"), "-c", _QUERY, str(warehouse.path)],
        env=warehouse.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {fqn: [(start, end) for start, end in spans] for fqn, spans in found.items()}


def in_dagster(*outcomes: Outcome) -> dict[str, list[tuple[int, int]]]:
    """By FQN, merged: the intervals that Dagster's event log has as done."""
    found: dict[str, list[Interval]] = {}
    for outcome in outcomes:
        told = [each.metadata for each in (*outcome.materialized.values(), *outcome.recovered.values())]
        told += [
            {
                "intervals": each.metadata["intervals_done"],
                MODEL_KEY: dg.MetadataValue.text(_fqn(each.asset_key)),
            }
            for each in outcome.checks.values()
            if "intervals_done" in each.metadata
        ]
        for metadata in told:
            spans = found.setdefault(str(metadata[MODEL_KEY].value), [])
            for start, end in re.findall(r"(\S+) to ([^,\s]+)", str(metadata["intervals"].value)):
                spans.append(Interval(start=_moment(start), end=_moment(end)))
    return {fqn: [span_of(one) for one in merged(map(span_of, spans))] for fqn, spans in found.items()}


def _fqn(key: dg.AssetKey) -> str:
    return ".".join(f'"{part}"' for part in key.path)


def _moment(text: str) -> str:
    return text if "T" in text else f"{text}T00:00:00Z"
