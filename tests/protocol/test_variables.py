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


def test_a_piece_that_is_missing_is_named():
    params, env = variables.split("x" * 300_000)
    del env["SQLMESH_RUNNER_CONTEXT_1"]

    with pytest.raises(ValueError, match="of its 4 variables SQLMESH_RUNNER_CONTEXT_1 is not set"):
        variables.join(params, env)
