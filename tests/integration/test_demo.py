"""The README's first commands: the example through Dagster, twice, and as a CI job."""

import json
from pathlib import Path
from xml.etree import ElementTree

from support.make import make, table


def printed(target: str, directory: Path) -> str:
    """What `make target` prints on standard output."""
    done = make(target, f"DEMO_DIR={directory}", timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def demo(directory: Path) -> list[list[str]]:
    """The table's rows of `make demo`."""
    return table(printed("demo", directory))


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


def test_the_ci_demo_leaves_a_summary_a_test_report_and_the_events(tmp_path):
    summary = printed("ci-demo", tmp_path)

    written = tmp_path / "ci"
    assert "13 executed, 0 skipped, 0 failed" in summary
    assert (written / "summary.md").read_text() in summary
    suites = ElementTree.parse(written / "junit.xml").getroot()
    assert sum(int(suite.get("failures", 0)) for suite in suites.iter("testsuite")) == 0
    events = [json.loads(line) for line in (written / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in (events[0], events[-1])] == ["run_started", "run_finished"]
    assert {event["kind"] for event in events} >= {"model_executed", "audit_evaluated"}
