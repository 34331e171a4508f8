"""A model that waits until a test lets it go: how a test finds a run in its middle."""

import time
from collections.abc import Callable

WAITS = """\
    import pathlib, time
    import pandas as pd
    import typing as t
    from sqlmesh import ExecutionContext, model

    @model("marts.waits", columns={{"a": "int"}}, kind="full", depends_on=["staging.first"])
    def execute(context: ExecutionContext, **kwargs: t.Any):
        pathlib.Path({started!r}).write_text("")
        deadline = time.monotonic() + 60
        while not pathlib.Path({released!r}).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return pd.DataFrame({{"a": [1]}})
"""


def wait_for(
    condition: Callable[[], object], seconds: float = 60.0, what: Callable[[], str] = lambda: "it"
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what()} never came"
        time.sleep(0.02)
