"""Strict in what is declared, blind to what is not: each wrong shape is refused with its path, by reader and schema."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import orjson
import pytest
from jsonschema import Draft202012Validator

from sqlmesh_pipes_protocol import DecodeError, VersionMismatchError, decode, event_schema, from_wire
from sqlmesh_pipes_protocol.events import Log, RunFinished, UnknownEvent

LEFT_OUT = object()
NOT_IN_SCHEMA = {
    "a line break behind a time": "Python's $ matches before a trailing line break; ECMA-262's, which counts, does not",
    "an integer written as 1.0": "JSON Schema knows one kind of number, and 1.0 is an integer",
}


class Wrong(NamedTuple):
    case: str
    kind: str
    place: tuple[str | int, ...]
    value: object
    path: str
    expected: str
    got: str


WRONG = [
    Wrong("a key is missing", "model_started", ("model",), LEFT_OUT, "$.model", "a value", "nothing"),
    Wrong("an object is missing", "run_started", ("versions",), LEFT_OUT, "$.versions", "a value", "nothing"),
    Wrong("a nested key is missing", "run_started", ("versions", "python"), LEFT_OUT, "$.versions.python", "a value", "nothing"),
    Wrong("a number for a string", "model_started", ("model",), 7, "$.model", "a string", "int 7"),
    Wrong("a string for a number", "model_started", ("batches",), "2", "$.batches", "an integer", "str '2'"),
    Wrong("true for a number", "model_started", ("batches",), True, "$.batches", "an integer", "bool True"),
    Wrong("a fraction for a number", "model_started", ("batches",), 1.5, "$.batches", "an integer", "float 1.5"),
    Wrong("an integer written as 1.0", "model_started", ("batches",), 1.0, "$.batches", "an integer", "float 1.0"),
    Wrong("a number for true or false", "run_started", ("ignore_cron",), 1, "$.ignore_cron", "true or false", "int 1"),
    Wrong("null where a value must be", "run_started", ("environment",), None, "$.environment", "a string", "None"),
    Wrong("a wrong type where null may be", "run_started", ("gateway",), [], "$.gateway", "a string", "list []"),
    Wrong("a list for an object", "run_started", ("versions",), [], "$.versions", "an object (Versions)", "list []"),
    Wrong("an object for a list", "heartbeat", ("models",), {}, "$.models", "a list", "dict {}"),
    Wrong("a string for a list", "run_started", ("selection",), "tag:a", "$.selection", "a list", "str 'tag:a'"),
    Wrong("an item of another type", "run_started", ("selection", 1), None, "$.selection[1]", "a string", "None"),
    Wrong("an item that is no object", "heartbeat", ("models", 0), "m", "$.models[0]", "an object (ModelInFlight)", "str 'm'"),
    Wrong("a level that nobody knows", "log", ("level",), "loud", "$.level", "one of debug, info, warning, error", "str 'loud'"),
    Wrong("a level in capitals", "log", ("level",), "INFO", "$.level", "one of debug", "str 'INFO'"),
    Wrong("a level that is a list", "log", ("level",), ["info"], "$.level", "one of debug", "list ['info']"),
    Wrong("a reason that nobody knows", "model_skipped", ("reason",), "tired", "$.reason", "one of up_to_date, cron_not_due", "str 'tired'"),
    Wrong("a category that nobody knows", "model_failed", ("error", "category"), "bad luck", "$.error.category", "one of audit, sql", "str 'bad luck'"),
    Wrong("a deep value of another type", "run_finished", ("digest", 0, "audits", 1, "passed"), "yes", "$.digest[0].audits[1].passed", "true or false", "str 'yes'"),
    Wrong("a deep key missing", "run_finished", ("digest", 0, "audits", 1, "audit"), LEFT_OUT, "$.digest[0].audits[1].audit", "a value", "nothing"),
    Wrong("a deep time", "evaluation_started", ("batches", 0, "intervals", 1, "end"), "tomorrow", "$.batches[0].intervals[1].end", "a UTC time such as", "str 'tomorrow'"),
    Wrong("an argument of another type", "audit_evaluated", ("arguments", "condition"), 5, "$.arguments['condition']", "a string", "int 5"),
    Wrong("arguments in a list", "audit_evaluated", ("arguments",), ["a"], "$.arguments", "an object", "list ['a']"),
    Wrong("a time without a zone", "batch_finished", ("interval", "start"), "2026-01-05T00:00:00", "$.interval.start", "a UTC time", "str"),
    Wrong("a time in another zone", "batch_finished", ("interval", "start"), "2026-01-05T00:00:00+00:00", "$.interval.start", "a UTC time", "str"),
    Wrong("a date for a time", "batch_finished", ("interval", "start"), "2026-01-05", "$.interval.start", "a UTC time", "str"),
    Wrong("a number for a time", "batch_finished", ("interval", "start"), 1767571200, "$.interval.start", "a UTC time", "int"),
    Wrong("a time with nanoseconds", "batch_finished", ("interval", "start"), "2026-01-05T00:00:00.123456789Z", "$.interval.start", "a UTC time", "str"),
    Wrong("a time in other digits", "batch_finished", ("interval", "start"), "٢٠٢٦-01-05T00:00:00Z", "$.interval.start", "a UTC time", "str"),
    Wrong("a line break behind a time", "batch_finished", ("interval", "start"), "2026-01-05T00:00:00Z\n", "$.interval.start", "a UTC time", "str"),
    Wrong("the envelope's time is no time", "log", ("at",), "now", "$.at", "a UTC time", "str 'now'"),
    Wrong("no time in the envelope", "log", ("at",), LEFT_OUT, "$.at", "a UTC time", "None"),
    Wrong("a negative seq", "log", ("seq",), -1, "$.seq", "an integer from 0", "-1"),
    Wrong("true for seq", "log", ("seq",), True, "$.seq", "an integer from 0", "True"),
    Wrong("a string for seq", "log", ("seq",), "3", "$.seq", "an integer from 0", "'3'"),
    Wrong("a fraction for seq", "log", ("seq",), 0.5, "$.seq", "an integer from 0", "0.5"),
    Wrong("no seq", "log", ("seq",), LEFT_OUT, "$.seq", "an integer from 0", "None"),
    Wrong("a number for a run", "log", ("run_id",), 12, "$.run_id", "a string", "12"),
    Wrong("no run", "log", ("run_id",), LEFT_OUT, "$.run_id", "a string", "None"),
    Wrong("no kind", "log", ("kind",), LEFT_OUT, "$.kind", "a string", "None"),
    Wrong("a number for a kind", "log", ("kind",), 1, "$.kind", "a string", "1"),
    Wrong("no version", "log", ("v",), LEFT_OUT, "$.v", "a version", "None"),
    Wrong("a number for a version", "log", ("v",), 1.0, "$.v", "a version", "1.0"),
    Wrong("a version without a minor", "log", ("v",), "1", "$.v", "a version", "'1'"),
    Wrong("a version of three numbers", "log", ("v",), "1.0.0", "$.v", "a version", "'1.0.0'"),
    Wrong("a version with a letter", "log", ("v",), "v1.0", "$.v", "a version", "'v1.0'"),
    Wrong("a version in other digits", "log", ("v",), "1.٣", "$.v", "a version", "'1.٣'"),
]  # fmt: skip


@pytest.fixture(scope="module")
def examples(golden_lines: list[bytes]) -> dict[str, dict[str, Any]]:
    """The first golden line of each kind, as JSON; of run_finished one with a digest."""
    found: dict[str, dict[str, Any]] = {}
    for line in map(orjson.loads, golden_lines):
        if line["kind"] != "run_finished" or line["digest"]:
            found.setdefault(line["kind"], line)
    return found


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    return Draft202012Validator(event_schema())


def changed(value: dict[str, Any], place: tuple[str | int, ...], to: object) -> dict[str, Any]:
    document = copy.deepcopy(value)
    target: Any = document
    *way, last = place
    for step in way:
        target = target[step]
    assert last in target if isinstance(target, dict) else isinstance(last, int) and last < len(target)
    if to is LEFT_OUT:
        del target[last]
    else:
        target[last] = to
    return document


@pytest.mark.parametrize("wrong", WRONG, ids=[wrong.case for wrong in WRONG])
def test_a_wrong_shape_is_refused_with_its_path(wrong: Wrong, examples: dict[str, dict[str, Any]]) -> None:
    value = changed(examples[wrong.kind], wrong.place, wrong.value)

    with pytest.raises(DecodeError) as caught:
        from_wire(value)

    assert caught.value.path == wrong.path
    assert caught.value.expected.startswith(wrong.expected)
    assert wrong.got in caught.value.got
    assert str(caught.value) == f"{wrong.path}: expected {caught.value.expected}, got {caught.value.got}"


@pytest.mark.parametrize("wrong", WRONG, ids=[wrong.case for wrong in WRONG])
def test_a_wrong_shape_is_refused_by_the_schema_too(
    wrong: Wrong, examples: dict[str, dict[str, Any]], schema: Draft202012Validator
) -> None:
    assert schema.is_valid(examples[wrong.kind])
    value = changed(examples[wrong.kind], wrong.place, wrong.value)

    assert schema.is_valid(value) == (wrong.case in NOT_IN_SCHEMA)


@pytest.mark.parametrize("value", [None, [], "text", 1, True])
def test_what_is_no_object_is_refused_at_the_root(value: object, schema: Draft202012Validator) -> None:
    with pytest.raises(DecodeError) as caught:
        from_wire(value)

    assert caught.value.path == "$"
    assert not schema.is_valid(value)


def test_what_was_found_is_quoted_in_at_most_80_characters(examples: dict[str, dict[str, Any]]) -> None:
    for place in [("models",), ("at",), ("run_id",), ("seq",), ("kind",), ("v",)]:
        with pytest.raises(DecodeError) as caught:
            from_wire(changed(examples["heartbeat"], place, {"secret": "x" * 1_000}))

        assert 0 < len(caught.value.got) <= 80


def test_unknown_keys_are_ignored_on_every_level(
    examples: dict[str, dict[str, Any]], schema: Draft202012Validator
) -> None:
    def extended(value: Any) -> Any:
        if isinstance(value, list):
            return [extended(item) for item in value]
        if isinstance(value, dict):
            return {**{key: extended(item) for key, item in value.items()}, "later": {"a": [1]}}
        return value

    for kind in set(examples) - {"audit_evaluated", "part"}:
        value = extended(examples[kind])

        assert from_wire(value) == from_wire(examples[kind])
        assert schema.is_valid(value)


def test_keys_with_defaults_may_be_left_out(
    examples: dict[str, dict[str, Any]], schema: Draft202012Validator
) -> None:
    value = changed(examples["run_finished"], ("digest", 0, "audits"), LEFT_OUT)
    value = changed(value, ("error",), LEFT_OUT)

    event = from_wire(value).event

    assert isinstance(event, RunFinished)
    assert schema.is_valid(value)
    assert event.error is None
    assert event.digest[0].audits == ()


def test_an_unknown_kind_is_an_unknown_event_with_all_its_keys(examples: dict[str, dict[str, Any]]) -> None:
    value = {**examples["log"], "kind": "model_postponed", "until": {"days": [1, None]}}

    envelope = from_wire(value)

    assert envelope.event == UnknownEvent(
        kind="model_postponed",
        fields={
            "level": value["level"],
            "logger": value["logger"],
            "message": value["message"],
            "until": {"days": [1, None]},
        },
    )
    assert (envelope.run_id, envelope.seq, envelope.at) == (value["run_id"], value["seq"], value["at"])


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.27", "1.9999"])
def test_any_minor_of_our_major_is_accepted_and_kept(
    version: str, examples: dict[str, dict[str, Any]]
) -> None:
    envelope = from_wire({**examples["log"], "v": version})

    assert envelope.v == version
    assert isinstance(envelope.event, Log)


@pytest.mark.parametrize("version", ["0.9", "2.0", "10.0", "11.1"])
def test_another_major_is_refused_with_both_versions_named(
    version: str, examples: dict[str, dict[str, Any]]
) -> None:
    with pytest.raises(VersionMismatchError) as caught:
        from_wire({**examples["log"], "v": version})

    assert (caught.value.ours, caught.value.theirs) == ("1.0", version)
    assert "event stream" in str(caught.value)
    assert "1.0" in str(caught.value)
    assert version in str(caught.value)


def test_another_major_is_told_before_anything_else_is_found_wrong() -> None:
    with pytest.raises(VersionMismatchError):
        decode(b'{"v":"2.0"}')
