"""The intervals that SQLMesh's state has recorded, read from its tables: what Dagster is to know."""

import json
import subprocess

from support.warehouse import Warehouse

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
