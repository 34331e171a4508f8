"""The orchestrator's request reaches the runner through the extras of a Pipes context, which are JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlmesh_pipes_protocol import DecodeError, RunRequest, VersionMismatchError

VALID = {"run_id": "run", "models": ['"a"'], "include_upstream": False, "v": "1.0"}


@given(run_id=st.text(), models=st.none() | st.lists(st.text()).map(tuple), include_upstream=st.booleans())
def test_any_request_arrives_as_it_was_made(
    run_id: str, models: tuple[str, ...] | None, include_upstream: bool
) -> None:
    request = RunRequest(run_id=run_id, models=models, include_upstream=include_upstream)

    extras = json.loads(json.dumps({**request.to_extras(), "the user's own": 1}))

    assert RunRequest.from_extras(extras) == request
    assert RunRequest.from_extras(request.to_extras()) == request  # JSON or not
    assert RunRequest.run_id_in(extras) == run_id


@pytest.mark.parametrize(
    ("request_", "run_id"),
    [
        ({"run_id": "run", "v": "9.9", "models": 7}, "run"),
        ({"run_id": 7, "v": "1.0"}, None),
        ({"v": "1.0"}, None),
        ("run", None),
        (None, None),
    ],
)
def test_the_runs_id_is_found_in_a_request_that_cannot_be_read_too(
    request_: object, run_id: str | None
) -> None:
    assert RunRequest.run_id_in({"sqlmesh_pipes": request_}) == run_id


def test_no_models_is_not_the_same_as_all_models() -> None:
    none = RunRequest(run_id="run", models=())
    everything = RunRequest(run_id="run", models=None)

    assert RunRequest.from_extras(json.loads(json.dumps(none.to_extras()))) == none
    assert none != everything


def test_the_request_on_the_wire() -> None:
    extras = json.dumps(RunRequest(run_id="run", models=('"a"."b"',), include_upstream=True).to_extras())

    assert json.loads(extras) == {
        "sqlmesh_pipes": {"run_id": "run", "models": ['"a"."b"'], "include_upstream": True, "v": "1.0"}
    }


@pytest.mark.parametrize("extras", [{}, {"other": {"run_id": "run"}}, {"sqlmesh_pipes": None}])
def test_without_a_request_there_is_none(extras: dict[str, Any]) -> None:
    assert RunRequest.from_extras(extras) is None


def test_the_smallest_request_asks_for_everything() -> None:
    request = RunRequest.from_extras({"sqlmesh_pipes": {"run_id": "run", "v": "1.7"}})

    assert request == RunRequest(run_id="run", models=None, include_upstream=False, v="1.7")


def test_unknown_keys_of_a_later_minor_version_are_ignored() -> None:
    assert RunRequest.from_extras({"sqlmesh_pipes": {**VALID, "v": "1.1", "later": [1]}}) == RunRequest(
        run_id="run", models=('"a"',), v="1.1"
    )


def test_an_orchestrator_of_another_major_is_refused_with_both_versions_named() -> None:
    with pytest.raises(VersionMismatchError) as caught:
        RunRequest.from_extras({"sqlmesh_pipes": {"v": "2.1"}})

    assert (caught.value.ours, caught.value.theirs) == ("1.0", "2.1")
    assert str(caught.value).startswith("the orchestrator speaks protocol 2.1, this side speaks 1.0")


@pytest.mark.parametrize(
    ("request_", "path", "expected"),
    [
        pytest.param("run", "", "an object (RunRequest)", id="text"),
        pytest.param([], "", "an object (RunRequest)", id="list"),
        pytest.param({}, ".v", "a version", id="empty"),
        pytest.param({**VALID, "v": 1}, ".v", "a version", id="version is a number"),
        pytest.param({"v": "1.0"}, ".run_id", "a value", id="no run"),
        pytest.param({**VALID, "run_id": 1}, ".run_id", "a string", id="run is a number"),
        pytest.param({**VALID, "models": '"a"'}, ".models", "a list", id="models is text"),
        pytest.param({**VALID, "models": ["a", None]}, ".models[1]", "a string", id="a model is null"),
        pytest.param(
            {**VALID, "include_upstream": "no"}, ".include_upstream", "true or false", id="text for true"
        ),
    ],
)
def test_a_request_of_another_shape_is_refused_with_its_path(
    request_: object, path: str, expected: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        RunRequest.from_extras({"sqlmesh_pipes": request_})

    assert caught.value.path == f"$.extras.sqlmesh_pipes{path}"
    assert caught.value.expected.startswith(expected)
