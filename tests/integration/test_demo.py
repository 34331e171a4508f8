"""The README's first command, run twice."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def demo(directory: Path) -> list[list[str]]:
    """`make demo`; returns the table's rows: asset, status, and what else stands there."""
    done = subprocess.run(
        ["make", "demo", f"DEMO_DIR={directory}"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "DAGSTER_"))},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.partition("-" * 120)[2].partition("\n\n")[0]
    return [line.split(maxsplit=2) for line in table.splitlines() if line]


def test_the_demo_runs_everything_once_and_skips_it_the_second_time(tmp_path):
    first = {row[0]: row[1:] for row in demo(tmp_path)}
    second = {row[0]: row[1:] for row in demo(tmp_path)}

    models = {name for name in first if name.startswith("shop/") and name != "shop/raw/payments"}
    assert len(models) == 13
    assert {first[name][0] for name in models} == {"executed"}
    assert first["revenue_report"][0] == "materialized"
    assert first["shop/marts/order_payments"][1].startswith("2 passed, 1 warned")
    assert {second[name][0] for name in models} == {"skipped"}
    assert second["shop/raw/orders"][1].strip() == "up_to_date"
    assert second["shop/marts/orders"][1].strip().startswith("cron_not_due, next due ")
    assert second["revenue_report"][:2] == ["not", "run"]
