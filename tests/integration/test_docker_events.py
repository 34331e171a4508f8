"""Events through a container's log: large ones and many, none lost, none doubled, none torn."""

import textwrap
from pathlib import Path

import pytest

from dagster_sqlmesh_pipes import RunnerCall
from sqlmesh_pipes_protocol import EventStream, parse_line
from sqlmesh_pipes_protocol.events import Log

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(600)]

MANY = 20_000
SAYS = textwrap.dedent(
    """\
    import logging
    import pandas as pd
    from sqlmesh import model
    @model("marts.says", columns={"a": "int"}, kind="FULL")
    def execute(context, **kwargs):
        logger = logging.getLogger("sqlmesh.says")
        for number in range(@many@):
            logger.warning("line %d", number)
        return pd.DataFrame({"a": [1]})
    """
).replace("@many@", str(MANY))


def checked(name: str, size: int) -> dict[str, str]:
    """A model with an audit whose query, which its event holds, has about so many characters."""
    values = ", ".join(f"({number:08})" for number in range(size // 12))
    return {
        f"models/{name}.sql": f"MODEL (name marts.{name}, kind FULL, audits (large_{name}));\nSELECT 1 AS a;\n"
        f"AUDIT (name large_{name}, blocking false);\n"
        f"SELECT * FROM @this_model WHERE a IN (SELECT v FROM (VALUES {values}) AS t(v))\n"
    }


@pytest.mark.parametrize("size", [20_000, 300_000])
def test_a_large_event_arrives_whole_in_dagsters_event_log(make_warehouse, containers, instance, size):
    warehouse = make_warehouse(files=checked("checked", size))

    outcome = warehouse.materialize(instance, launcher=containers.launcher(warehouse))

    check = outcome.checks["marts/checked", "large_checked"]
    query = str(check.metadata["query"].value)
    assert len(query) > size / 2
    assert query.count("(") > size // 12
    assert set(outcome.materialized) == {"marts/checked"}
    assert not any("events were lost" in line for line in outcome.log)


def test_twenty_thousand_small_events_arrive_in_order_each_once(make_warehouse, containers):
    # To the reader, not into Dagster: its event log would take ten minutes for them.
    warehouse = make_warehouse(files={"models/says.py": SAYS})
    call = RunnerCall(
        arguments=("run", "prod", "--project", str(warehouse.path), "--events", "-", "--quiet"),
        env={},
        project_dir=Path("/"),
    )
    runner = containers.launcher(warehouse).launch(call)
    try:
        lines = b"".join(runner.output()).splitlines()
    finally:
        runner.kill()
        runner.close(succeeded=False)

    stream = EventStream()
    events = [envelope.event for line in lines if (envelope := stream.receive(parse_line(line))) is not None]
    said = [event.message for event in events if isinstance(event, Log) and event.logger == "sqlmesh.says"]
    assert said == [f"line {number}" for number in range(MANY)]
    assert stream.missing() == []
    assert stream.finished is not None
    assert stream.finished.last_seq == len(events) - 1
