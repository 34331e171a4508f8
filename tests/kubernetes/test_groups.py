"""Tests of one group run one after the other: some stop what the others use."""

import pytest


@pytest.mark.xdist_group("kubernetes")
def test_pytest_xdist_groups_the_tests_with_a_cluster(request):
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("the tests are not distributed by group")

    # That is how pytest-xdist has a group known: a pytest whose ids it cannot change has no groups.
    assert request.node.nodeid.endswith("@kubernetes")
