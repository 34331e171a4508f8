"""A context of any size reaches a runner through its environment, or is refused."""

import pytest

from sqlmesh_pipes_protocol import variables

LINUX_LIMIT = 128 * 1024


def test_what_fits_into_one_variable_is_not_split():
    assert variables.split("x" * variables.MAX_VARIABLE_CHARS) == ({}, {})
    assert variables.join({"data": {}}, {}) is None


@pytest.mark.parametrize("size", [variables.MAX_VARIABLE_CHARS + 1, 500_000, variables.MAX_CONTEXT_CHARS])
def test_what_does_not_is_joined_again_from_variables_that_linux_takes(size):
    text = "".join(chr(ord("a") + number % 26) for number in range(size))

    params, env = variables.split(text)

    assert max(len(f"{name}={value}") + 1 for name, value in env.items()) <= LINUX_LIMIT
    assert variables.join(params, {**env, "PATH": "/bin"}) == text


def test_what_is_more_than_a_pod_holds_is_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"^1,048,577 bytes, and 1,048,576 fit$"):
        variables.split("x" * (variables.MAX_CONTEXT_CHARS + 1))


def test_a_runner_of_another_release_finds_the_pieces_by_these_names():
    params, env = variables.split("x" * 100_000)

    assert params == {"sqlmesh_pipes_parts": 2}
    assert list(env) == ["SQLMESH_RUNNER_CONTEXT_0", "SQLMESH_RUNNER_CONTEXT_1"]


@pytest.mark.parametrize("count", [1, 2, 1024])
def test_a_context_may_be_in_any_number_of_variables_up_to_1024(count):
    env = {f"SQLMESH_RUNNER_CONTEXT_{number}": f"{number}," for number in range(1_100)}

    assert variables.join({"sqlmesh_pipes_parts": count}, env) == "".join(
        f"{number}," for number in range(count)
    )


@pytest.mark.parametrize("count", [None, "2", 2.0, [2]])
def test_what_is_no_number_of_variables_is_no_context_of_ours(count):
    assert variables.join({"sqlmesh_pipes_parts": count}, {}) is None


def test_a_piece_that_is_missing_is_named():
    params, env = variables.split("x" * 300_000)
    del env["SQLMESH_RUNNER_CONTEXT_1"]

    with pytest.raises(ValueError, match="of its 4 variables SQLMESH_RUNNER_CONTEXT_1 is not set"):
        variables.join(params, env)
