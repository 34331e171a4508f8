"""Whenever a runner is killed: what it has told and what `reconcile` finds missing are together what SQLMesh's state has."""

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

KILLS = int(os.environ.get("KILLS", "52"))
SEED = int(os.environ.get("KILLS_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
SCRIPT = Path(__file__).parents[1] / "support" / "kills.py"

BATCHES = """\
MODEL (
  name {name}, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1, batch_concurrency 1),
  start '2026-01-01', end '2026-01-05'
);
SELECT CAST(@start_ds AS DATE) AS day, a FROM {upstream}
"""


@pytest.mark.timeout(60 + 10 * KILLS)
def test_what_is_told_and_what_is_reconciled_is_what_the_state_has(make_warehouse, tmp_path, capsys):
    names = [f"marts.days_{number}" for number in range(6)]
    warehouse = make_warehouse(
        {"staging.first": "SELECT 1 AS a", "staging.second": "SELECT a FROM staging.first"},
        {
            f"models/{name}.sql": BATCHES.format(name=name, upstream=upstream)
            for name, upstream in zip(names, ["staging.first", "staging.second", *names[:4]], strict=True)
        },
    )
    fresh = tmp_path / "fresh.duckdb"
    warehouse.database.rename(fresh)

    done = subprocess.run(
        [warehouse.bin / "python", SCRIPT, warehouse.path, fresh, str(KILLS), str(SEED)],
        env=warehouse.environ,
        capture_output=True,
        text=True,
        timeout=10 * KILLS + 60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        print(f"\n{KILLS} kills, seed {SEED}: {found['outcomes']}")
    assert found["wrong"] is None, f"seed {SEED}"
    assert sum(found["outcomes"].values()) == KILLS
    assert found["outcomes"]["with work that was not told"] > 0
