"""Models with Python in them: models written in it, and signals that say when a model may run."""

from __future__ import annotations

from behaviour.case import Case, Step, absent, contains, executed, failed, in_one_run, skipped

IMPORTS = "import typing as t\nimport pandas as pd\nfrom sqlmesh import ExecutionContext, model\n"


def python_model(name: str, body: str, depends_on: str = "") -> dict[str, str]:
    reads = f", depends_on=[{depends_on!r}]" if depends_on else ""
    return {
        f"models/{name}.py": f"{IMPORTS}\n"
        f'@model("marts.{name}", columns={{"a": "int"}}, kind="full"{reads})\n'
        "def execute(context: ExecutionContext, **kwargs: t.Any):\n"
        f"    {body}\n"
    }


SIGNALS = {
    "signals/__init__.py": "",
    "signals/arrivals.py": """\
        import typing as t
        from sqlmesh import DatetimeRanges, signal

        @signal()
        def has_arrived(batch: DatetimeRanges) -> t.Union[bool, DatetimeRanges]:
            return True

        @signal()
        def not_yet(batch: DatetimeRanges) -> t.Union[bool, DatetimeRanges]:
            return False

        @signal()
        def first_day_only(batch: DatetimeRanges) -> t.Union[bool, DatetimeRanges]:
            return batch[:1]
    """,
}
BROKEN_SIGNAL = {
    "signals/__init__.py": "",
    "signals/broken.py": """\
        import typing as t
        from sqlmesh import DatetimeRanges, signal

        @signal()
        def cannot_tell(batch: DatetimeRanges) -> t.Union[bool, DatetimeRanges]:
            raise ValueError("nobody answers at the feed")
    """,
}

CASES = [
    Case(
        name="a_python_model_that_raises_fails_and_one_that_yields_nothing_is_executed",
        models={
            "staging.first": "SELECT 1 AS a",
            "marts.below_nothing": "SELECT a FROM marts.yields_nothing",
            "marts.below_raising": "SELECT a FROM marts.raises",
        },
        files={
            **python_model("raises", "raise ValueError('these numbers do not add up')", "staging.first"),
            **python_model("yields_nothing", "yield from ()"),
            **python_model(
                "yields_twice", "yield from (pd.DataFrame({'a': [1]}), pd.DataFrame({'a': [2, 3]}))"
            ),
        },
        steps=in_one_run(
            {
                "staging/first": executed(),
                "marts/raises": failed(
                    "python",
                    message="these numbers do not add up",
                    error_class="builtins.ValueError",
                    transient=False,
                    traceback=contains("raises.py"),
                ),
                "marts/below_raising": skipped("upstream_failed", blocked_by=contains(".raises")),
                "marts/yields_nothing": executed(batches=1),
                "marts/below_nothing": executed(),
                "marts/yields_twice": executed(batches=1),
            },
            failure=("these numbers do not add up",),
        ),
        postgres=True,
    ),
    Case(
        name="a_model_waits_for_its_signal_and_those_below_wait_with_it",
        files={
            **SIGNALS,
            "models/free.sql": "MODEL (name marts.free, kind FULL, signals (has_arrived()));\nSELECT 1 AS a",
            "models/waits.sql": "MODEL (name marts.waits, kind FULL, signals (not_yet()));\nSELECT 1 AS a",
            "models/below.sql": "MODEL (name marts.below, kind FULL);\nSELECT a FROM marts.waits",
            "models/below_free.sql": "MODEL (name marts.below_free, kind FULL);\nSELECT a FROM marts.free",
            "models/in_part.sql": """\
                MODEL (
                  name marts.in_part,
                  kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1, batch_concurrency 1),
                  start '2026-01-01', end '2026-01-03', signals (first_day_only())
                );
                SELECT CAST(@start_ds AS DATE) AS day
            """,
        },
        steps=(
            Step(
                expected={
                    "marts/free": executed(),
                    "marts/below_free": executed(),
                    "marts/waits": skipped("signal_not_ready", blocked_by="not_yet"),
                    "marts/below": skipped("signal_not_ready", blocked_by=contains(".waits")),
                    "marts/in_part": executed(batches=1, intervals="2026-01-01 to 2026-01-02"),
                },
            ),
        ),
    ),
    Case(
        name="a_signal_that_raises_breaks_off_the_run_before_anything_ran",
        models={"staging.first": "SELECT 1 AS a", "marts.other": "SELECT a FROM staging.first"},
        files={
            **BROKEN_SIGNAL,
            "models/asks.sql": "MODEL (name marts.asks, kind FULL, signals (cannot_tell()));\nSELECT 1 AS a",
            "models/below.sql": "MODEL (name marts.below, kind FULL);\nSELECT a FROM marts.asks",
        },
        steps=in_one_run(
            {
                "staging/first": skipped("interrupted", message=contains("The run broke off")),
                "marts/other": skipped("interrupted"),
                "marts/asks": failed(
                    "python", message=contains("nobody answers at the feed"), failed_interval=absent
                ),
                "marts/below": skipped("interrupted"),
            },
            failure=("nobody answers at the feed", "cannot_tell"),
        ),
    ),
]
