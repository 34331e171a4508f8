"""The demo: materialize all of the shop's assets in Dagster, and show what its event log then holds.

Called by `make demo` and `make docker-demo`, in Dagster's environment: ``python demo.py prepare`` loads the external table that
SQLMesh's plan needs, ``python demo.py run`` materializes in this process and prints the table, ``python demo.py launch HOST PORT``
has a Dagster deployment do it, through its web server.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone

import dagster as dg
from shop_dagster import definitions

from dagster_sqlmesh_pipes.translator import EXECUTION_STATUS_CHECK

ROW = "{:<38} {:<13} {:<34} {:>9}  {}"
LAUNCH_SECONDS = 900


def main(command: str, *arguments: str) -> int:
    if command == "prepare":
        print(f"raw.payments: {definitions.DATABASE.load_payments()} rows")
        return 0
    with dg.DagsterInstance.get() as instance:
        run_id = run(instance) if command == "run" else launch(instance, arguments[0], int(arguments[1]))
        events = [
            record.event_log_entry.dagster_event
            for record in instance.get_records_for_run(run_id).records
            if record.event_log_entry.dagster_event is not None
        ]
        print()
        print(ROW.format("asset", "status", "checks", "duration", "reason"))
        print("-" * 120)
        for row in table(events):
            print(ROW.format(*row).rstrip())
        done = instance.get_run_by_id(run_id)
        succeeded = done is not None and done.status == dg.DagsterRunStatus.SUCCESS
        print(f"\nDagster run {run_id}: {'success' if succeeded else 'FAILURE'}")
        return 0 if succeeded else 1


def run(instance: dg.DagsterInstance) -> str:
    """Run the job in this process; returns the run's id."""
    result = dg.execute_job(
        dg.reconstructable(shop_job),
        instance=instance,
        run_config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}},
        raise_on_error=False,
    )
    return result.run_id


def launch(instance: dg.DagsterInstance, host: str, port: int) -> str:
    """Have a deployment run the job, as its UI does, and wait for the end; returns the run's id."""
    from dagster_graphql import DagsterGraphQLClient

    client = DagsterGraphQLClient(host, port_number=port)
    run_id = client.submit_job_execution("shop")
    print(f"Dagster run {run_id} is launched.", flush=True)
    deadline = time.monotonic() + LAUNCH_SECONDS
    while True:
        launched = instance.get_run_by_id(run_id)
        if launched is not None and launched.is_finished:
            return run_id
        if time.monotonic() > deadline:
            sys.exit(f"Dagster run {run_id} has not ended in {LAUNCH_SECONDS // 60} minutes.")
        time.sleep(1)


def shop_job() -> dg.JobDefinition:
    return definitions.defs.resolve_job_def("shop")


def table(events: list[dg.DagsterEvent]) -> Iterator[tuple[str, str, str, str, str]]:
    """One row an asset: what the event log says of it, and nothing else."""
    materializations = {
        event.asset_key: event.materialization
        for event in events
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION
    }
    evaluations: dict[dg.AssetKey, list] = {}
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            evaluations.setdefault(evaluation.asset_key, []).append(evaluation)
    for key in definitions.defs.resolve_asset_graph().toposorted_asset_keys:
        status, reason, checks = "not run", "", Counter()
        for evaluation in evaluations.get(key, []):
            metadata = {name: value.value for name, value in evaluation.metadata.items()}
            if evaluation.check_name == EXECUTION_STATUS_CHECK:
                status = str(metadata["status"])
                reason = str(metadata.get("reason", ""))
                if metadata.get("next_due"):
                    next_due = datetime.fromtimestamp(metadata["next_due"], timezone.utc)
                    reason += f", next due {next_due:%Y-%m-%d %H:%M} UTC"
            elif evaluation.passed:
                checks["passed"] += 1
            else:
                checks["failed" if evaluation.severity == dg.AssetCheckSeverity.ERROR else "warned"] += 1
        duration = ""
        if key in materializations:
            if status == "not run":
                status = "materialized"
            seconds = materializations[key].metadata.get("duration_seconds")
            duration = f"{seconds.value:.2f} s" if seconds is not None else ""
        listed = ", ".join(f"{number} {what}" for what, number in sorted(checks.items()))
        yield key.to_user_string(), status, listed, duration, reason


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
