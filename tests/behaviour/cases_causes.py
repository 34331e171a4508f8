"""Failures of a user's Python outside of its models' own raising, told with their cause."""

from __future__ import annotations

from behaviour.case import Case, contains, failed, in_one_run, skipped
from behaviour.cases_code import BROKEN_SIGNAL, python_model

CASES = [
    Case(
        name="a_python_model_that_returns_an_empty_frame_fails_in_its_own_code",
        files=python_model("returns_an_empty_frame", "return pd.DataFrame({'a': []})"),
        steps=in_one_run(
            {"marts/returns_an_empty_frame": failed("python", message=contains("yield from ()"))},
        ),
    ),
    Case(
        name="models_interrupted_by_a_signal_that_raises_say_whose_it_was_and_why",
        postgres=True,
        models={"staging.first": "SELECT 1 AS a"},
        files={
            **BROKEN_SIGNAL,
            "models/asks.sql": "MODEL (name marts.asks, kind FULL, signals (cannot_tell()));\nSELECT 1 AS a",
        },
        steps=in_one_run(
            {
                "staging/first": skipped(
                    "interrupted", message=contains("marts.asks", "nobody answers at the feed")
                ),
                "marts/asks": failed("python"),
            },
            failure=(
                "1 model failed: ",
                "marts.asks: The signal cannot_tell raised: nobody answers at the feed",
            ),
        ),
    ),
]
