"""The one package that touches SQLMesh's internals: loading, scheduling, and what its objects mean in the protocol.

Read against SQLMesh 0.224.0 and 0.236.4. The seams, and why each is there; `seams` has them all, and is looked at when the runner starts:

- `Context.create_scheduler` (public) hands out a scheduler of ours, which learns what is deployed and selected, and asks
  before each batch whether the run is to stop.
- `Scheduler.run_merged_intervals` (public) is given how the environment names its views and which tables it uses.
- `Scheduler.evaluate` (public) is where a batch's exception passes first; the console learns of it only at the end.
- `SnapshotEvaluator._audit` (private) is where SQLMesh returns each `AuditResult`; the console gets counts only, and the
  public `audit` returns nothing at all when one of several audits cannot be evaluated.
"""

from sqlmesh_pipes_runner.adapter.audits import audit_calls
from sqlmesh_pipes_runner.adapter.lineage import ColumnSources, column_sources
from sqlmesh_pipes_runner.adapter.loading import console_replaced, load_configs, secrets_of
from sqlmesh_pipes_runner.adapter.records import RecordContext, Records
from sqlmesh_pipes_runner.adapter.run_locks import run_lock
from sqlmesh_pipes_runner.adapter.scheduling import ReportingContext, ReportingScheduler
from sqlmesh_pipes_runner.adapter.state import ReadingContext, StateContext
from sqlmesh_pipes_runner.adapter.turns import DueContext

__all__ = [
    "ColumnSources",
    "DueContext",
    "ReadingContext",
    "RecordContext",
    "Records",
    "ReportingContext",
    "ReportingScheduler",
    "StateContext",
    "audit_calls",
    "column_sources",
    "console_replaced",
    "load_configs",
    "run_lock",
    "secrets_of",
]
