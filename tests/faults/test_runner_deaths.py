"""A runner that dies, wherever it does: the step says so in a sentence, keeps what was reported, and invents nothing."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from support.obedient import AUDITED, BEFORE, KEYS, obedient, obeying, planned_obedient  # noqa: F401 - fixtures
from support.recorded import assert_nothing_invented
from support.warehouse import Outcome

FAULTY_RUNNER = Path(__file__).parents[1] / "support/faulty_runner.py"


def sentences(instance: dg.DagsterInstance, outcome: Outcome) -> list[str]:
    """Why each attempt of the step ended that was tried again."""
    events = [entry.dagster_event for entry in instance.all_logs(outcome.run_id) if entry.dagster_event]
    return [
        event.step_retry_data.error.cause.message
        for event in events
        if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY
    ]


@pytest.mark.parametrize(
    ("fault", "when"),
    [
        ("before the first event", "before it reported anything"),
        ("in mid-model", "in mid-run"),
        ("after the interval is committed", "in mid-run"),
        ("before run_finished", "in mid-run"),
    ],
)
def test_a_runner_that_is_killed_is_told_and_a_retry_does_the_rest(
    obedient,  # noqa: F811 - the fixture
    instance,
    tmp_path,
    fault,
    when,
):
    command = [str(obedient.bin / "python"), str(FAULTY_RUNNER)]
    env = obeying(obedient, "", FAULT=fault, FAULT_MARKER=str(tmp_path / "killed"))

    outcome = obedient.materialize(
        instance,
        assets=obedient.assets(retry_policy=dg.RetryPolicy(max_retries=1)),
        launcher=obedient.launcher(command=command, env=env),
    )

    assert (tmp_path / "killed").exists()
    (sentence,) = sentences(instance, outcome)
    assert re.search(rf"The runner \(process \d+\) was killed by SIGKILL {when}", sentence)
    assert "Not by Dagster" in sentence
    assert "Traceback" not in sentence
    # The retry did what was left, and Dagster has each model once: `Outcome.read` asserts that.
    assert outcome.success, outcome.failure
    assert outcome.retried == 1
    assert set(outcome.materialized) == KEYS
    assert set(assert_nothing_invented(outcome, obedient)) == KEYS
    audits = {place for place in outcome.checks if place[1] != "sqlmesh_execution_status"}
    assert audits <= {(key, "not_null") for key in AUDITED}
    assert all(check.passed for check in outcome.checks.values())


@pytest.mark.parametrize("status", [0, 7])
def test_a_model_that_ends_the_process_is_no_success_whatever_the_status_and_is_not_tried_again(
    obedient,  # noqa: F811 - the fixture
    instance,
    status,
):
    outcome = obedient.materialize(
        instance,
        assets=obedient.assets(retry_policy=dg.RetryPolicy(max_retries=1)),
        launcher=obedient.launcher(env=obeying(obedient, f"import os; os._exit({status})")),
    )

    assert not outcome.success
    assert outcome.retried == 0
    assert f"exited with status {status} in mid-run" in outcome.failure
    assert_only_what_ran_before(outcome, obedient)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV in mid-run"),
        ("import os; os.abort()", "was killed by SIGABRT in mid-run"),
    ],
)
def test_a_model_that_crashes_the_process_fails_the_step_with_the_signals_name(
    obedient,  # noqa: F811 - the fixture
    instance,
    code,
    how,
):
    outcome = obedient.materialize(instance, launcher=obedient.launcher(env=obeying(obedient, code)))

    assert not outcome.success
    assert how in outcome.failure
    assert "Not by Dagster" not in outcome.failure
    assert_only_what_ran_before(outcome, obedient)


EATS = """
    import os, pathlib
    if not pathlib.Path(os.environ["EATEN"]).exists():
        pathlib.Path(os.environ["EATEN"]).touch()
        pathlib.Path(os.environ["EATS_IN"]).write_text(str(os.getpid()))
        eaten = [os.urandom(1 << 20) for _ in range(2048)]
"""


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """The file that takes the processes of a control group with 64 MiB of memory."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    root, limit = (
        (first, "memory.limit_in_bytes") if first.is_dir() else (second, "memory.max")
    )  # of version 1 or 2 of control groups
    group = root / f"fault-{os.getpid()}-{tmp_path.name}"
    try:
        group.mkdir()
        (group / limit).write_text(str(64 << 20))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield group / "cgroup.procs"
    group.rmdir()


def test_a_runner_that_the_kernel_kills_for_memory_is_told_with_a_hint_and_a_retry_heals(
    obedient,  # noqa: F811 - the fixture
    instance,
    small_memory,
    tmp_path,
):
    env = obeying(obedient, EATS, EATEN=str(tmp_path / "eaten"), EATS_IN=str(small_memory))

    outcome = obedient.materialize(
        instance,
        assets=obedient.assets(retry_policy=dg.RetryPolicy(max_retries=1)),
        launcher=obedient.launcher(env=env),
    )

    (sentence,) = sentences(instance, outcome)
    assert "was killed by SIGKILL in mid-run" in sentence
    assert "Not by Dagster; often that is Linux, out of memory" in sentence
    assert outcome.success, outcome.failure
    assert set(outcome.materialized) == KEYS
    assert set(assert_nothing_invented(outcome, obedient)) == KEYS


LIMITED = """
    import pathlib, resource
    size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), resource.RLIM_INFINITY))
    values = list(bytearray(1 << 30))
"""


def test_a_model_that_gets_no_more_memory_has_failed_and_the_run_is_told_to_its_end(
    obedient,  # noqa: F811 - the fixture
    instance,
):
    outcome = obedient.materialize(instance, launcher=obedient.launcher(env=obeying(obedient, LIMITED)))

    assert not outcome.success
    assert set(outcome.materialized) == BEFORE
    assert outcome.status("marts/obeys") == ("failed", "resource")
    assert outcome.checks["marts/obeys", "sqlmesh_execution_status"].metadata["transient"].value is True
    assert outcome.status("marts/last") == ("skipped", "upstream_failed")
    assert "1 model failed: db.marts.obeys: " in outcome.failure
    assert set(assert_nothing_invented(outcome, obedient)) == BEFORE


def assert_only_what_ran_before(outcome: Outcome, warehouse) -> None:
    """The models before the one that obeys have their results; of it and the one after it nothing is said to have been done."""
    assert set(outcome.materialized) == BEFORE
    assert set(assert_nothing_invented(outcome, warehouse)) == BEFORE
    for key in BEFORE:
        assert outcome.status(key) == ("executed", None)
        assert outcome.checks[key, "not_null"].passed
    assert ("marts/last", "not_null") not in outcome.checks
    assert not any(check.passed for (key, _), check in outcome.checks.items() if key not in BEFORE)
