"""Whether Dagster shows what a step expects."""

from __future__ import annotations

from behaviour.case import Seen, Step, on


def assert_shows(seen: Seen, step: Step, engine: str) -> None:
    """The event log holds exactly what is expected: nothing invented, nothing lost."""
    expectation = {on(engine, key): told for key, told in step.expected.items()}
    assert seen.assets == {key: told.shown() for key, told in expectation.items()}
    assert seen.success is step.succeeds, seen.failure
    for key, told in expectation.items():
        for entry, expected in told.metadata.items():
            right = on(engine, expected)
            value = seen.value(key, told, entry)
            is_right = right(value) if callable(right) else value == right
            assert is_right, f"{key}: {entry} is {value!r}, expected {right!r}"
    for part in step.failure:
        assert part in seen.failure
    for part in step.log:
        assert any(part in line for line in seen.log), f"{part!r} is not in {seen.log}"
    warnings = [line for line in seen.log if "manifest is older" in line]
    assert bool(warnings) is bool(step.unknown), warnings
    for part in step.unknown:
        assert part in warnings[0]
