"""A short run of what `make fuzz` does for as long as one likes: whatever comes, the properties of `support.fuzzing` hold."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from support import fuzzing
from support.mutations import EVENTS, INPUTS

SOME = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
EXAMPLES = {"stream": 150, "documents": 150, "requests": 150, "messages": 120, "results": 200}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("target", sorted(fuzzing.TARGETS))
def test_whatever_comes_only_declared_errors_are_raised_and_the_properties_hold(target):
    @settings(SOME, max_examples=EXAMPLES[target])
    @given(INPUTS[target])
    def holds(data):
        fuzzing.TARGETS[target](data)

    holds()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("tell_all", [False, True], ids=["selected", "all"])
@pytest.mark.parametrize("partitioned", [False, True], ids=["whole", "partitions"])
def test_whatever_valid_events_say_nothing_is_materialized_twice_or_unasked(partitioned, tell_all):
    @settings(SOME, max_examples=80)
    @given(EVENTS)
    def holds(events):
        fuzzing.check_results(events, partitioned=partitioned, tell_all=tell_all)

    holds()


def test_golden_input_satisfies_every_target():
    for target in fuzzing.TARGETS.values():
        target(b"\n".join(fuzzing.golden_lines()))
        for document in fuzzing.golden_documents():
            target(document)


def test_the_fuzzer_runs_by_hand(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("fuzz.py")),
            "--seconds",
            "1",
            "--engine",
            "hypothesis",
            "requests",
        ],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "requests: " in done.stdout
    assert "executions" in done.stdout
