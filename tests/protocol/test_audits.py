"""Which audit is which: an identity may neither be shared, nor change with the order in which audits are listed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlmesh_pipes_protocol import AuditCall, audit_identities

# Few letters, so that names and values meet; what looks alike once it is spelled safely; separators; the far ends.
ALIKE = st.sampled_from(
    [
        "a",
        "b",
        "a_b",
        "a.b",
        "a-b",
        "A",
        "a_2",
        "a_a",
        "",
        "_",
        "é",
        "日本",
        "😀",
        "\0",
        "a\0b",
        "x" * 60,
        "x" * 61,
    ]
)
NAMES = ALIKE.filter(bool)
CALLS = st.lists(
    st.builds(
        AuditCall,
        name=NAMES | st.text(min_size=1, max_size=5),
        arguments=st.dictionaries(st.sampled_from(["a", "b", "\0"]), ALIKE | st.text(max_size=5), max_size=3),
    ),
    max_size=7,
)


def call(name: str, **arguments: str) -> AuditCall:
    return AuditCall(name=name, arguments=arguments)


def key(one: AuditCall) -> tuple[Any, ...]:
    return (one.name, tuple(sorted(one.arguments.items())))


@settings(deadline=None, max_examples=400)
@given(calls=CALLS)
def test_identities_are_unique_and_safe_and_one_a_call(calls: Sequence[AuditCall]) -> None:
    identities = audit_identities(calls)

    assert len(identities) == len(calls)
    assert len(set(identities)) == len(calls)
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", identity) for identity in identities)


@settings(deadline=None, max_examples=400)
@given(data=st.data(), calls=CALLS)
def test_an_audit_keeps_its_identity_when_the_audits_are_listed_in_another_order(
    data: Any, calls: Sequence[AuditCall]
) -> None:
    shuffled = data.draw(st.permutations(calls))

    before = Counter(zip(map(key, calls), audit_identities(calls), strict=True))
    after = Counter(zip(map(key, shuffled), audit_identities(shuffled), strict=True))

    assert after == before


@settings(deadline=None, max_examples=200)
@given(calls=CALLS)
def test_an_audit_that_is_used_once_is_named_by_its_name_alone(calls: Sequence[AuditCall]) -> None:
    uses = Counter(one.name for one in calls)

    for one, identity in zip(calls, audit_identities(calls), strict=True):
        if uses[one.name] == 1 and re.fullmatch(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*", one.name):
            assert identity == one.name


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([call("not_null", columns="[id]")], ["not_null"], id="once"),
        pytest.param(
            [call("not_null", column="order_id"), call("not_null", column="amount")],
            ["not_null_order_id", "not_null_amount"],
            id="told apart by their argument",
        ),
        pytest.param(
            [call("range", column="a", min="0"), call("range", column="b", min="0")],
            ["range_a", "range_b"],
            id="what is the same in both is left out",
        ),
        pytest.param(
            [call("range", column="a", min="0"), call("range", min="1", column="a")],
            ["range_0", "range_1"],
            id="the order of arguments does not matter",
        ),
        pytest.param(
            [call("range", column="a", min="0"), call("range", column="b", min="1")],
            ["range_a_0", "range_b_1"],
            id="two differences",
        ),
        pytest.param(
            [call("rows"), call("rows", threshold="10")], ["rows", "rows_10"], id="one without arguments"
        ),
        pytest.param(
            [call("rows"), call("rows"), call("rows")], ["rows", "rows_2", "rows_3"], id="all the same"
        ),
        pytest.param(
            [call("a", x="1"), call("a", x="1"), call("a", x="2")],
            ["a_1", "a_1_2", "a_2"],
            id="the same and another",
        ),
        pytest.param(
            [call("expr", sql="'a' <> \"b\"::INT"), call("expr", sql="c")],
            ["expr_a_b_INT", "expr_c"],
            id="an expression is spelled with letters and digits",
        ),
        pytest.param(
            [call("not_null", c="id"), call("not_null", c="x"), call("not_null_id")],
            ["not_null_id_2", "not_null_x", "not_null_id"],
            id="named like another's identity",
        ),
        pytest.param(
            [call("rows"), call("rows"), call("rows_2")],
            ["rows", "rows_3", "rows_2"],
            id="named like a numbered one",
        ),
        pytest.param([call("a.b"), call("a_b")], ["a_b_2", "a_b"], id="names that look alike"),
        pytest.param([call("Rows"), call("rows")], ["Rows", "rows"], id="names that differ in case"),
    ],
)
def test_what_an_audit_is_called(calls: list[AuditCall], expected: list[str]) -> None:
    assert audit_identities(calls) == expected


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        pytest.param([call("日本")], ["9f4bce0b"], id="a name without a letter or digit"),
        pytest.param(
            [call("a", c="x.y"), call("a", c="x_y")], ["a_x_y_c58a5c24", "a_x_y_f936fc80"], id="look alike"
        ),
        pytest.param(
            [call("a", c="é", d="x"), call("a", c="b", d="y")],
            ["a_7e8d20ac_x", "a_b_y"],
            id="a value without",
        ),
        pytest.param(
            [call("a", c="w" * 30, d="x" * 30), call("a", c="b", d="y")],
            [f"a_{'w' * 30}_{'x' * 8}_a1a35e21", "a_b_y"],
            id="long",
        ),
        pytest.param(
            [call("a", d="x" * 30, c="w" * 30), call("a", d="y", c="b")],
            [f"a_{'w' * 30}_{'x' * 8}_a1a35e21", "a_b_y"],
            id="long, and written in another order",
        ),
    ],
)
def test_a_digest_is_the_same_in_every_release(calls: list[AuditCall], expected: list[str]) -> None:
    assert audit_identities(calls) == expected


def test_what_tells_audits_apart_stands_in_the_order_of_the_arguments_names() -> None:
    one, other = audit_identities(
        [
            call("a", u="6", z="1", y="2", w="4", x="3", v="5"),
            call("a", z="a", x="c", y="b", v="e", w="d", u="f"),
        ]
    )

    assert (one, other) == ("a_6_5_4_3_2_1", "a_f_e_d_c_b_a")


def test_48_characters_are_not_too_long_to_read_and_49_are_cut_to_48() -> None:
    whole, _ = audit_identities([call("a", c="w" * 24, d="v" * 23), call("a", c="x", d="y")])
    cut, _ = audit_identities([call("a", c="w" * 24, d="v" * 24), call("a", c="x", d="y")])

    assert whole == f"a_{'w' * 24}_{'v' * 23}"
    assert re.fullmatch(rf"a_{'w' * 24}_{'v' * 14}_[0-9a-f]{{8}}", cut)
    assert len(cut) == len("a_") + 48


def test_long_values_that_look_alike_are_cut_to_48_characters_too() -> None:
    for identity in audit_identities([call("a", c=f"w.{'v' * 46}"), call("a", c=f"w_{'v' * 46}")]):
        assert re.fullmatch(rf"a_w_{'v' * 37}_[0-9a-f]{{8}}", identity)
        assert len(identity) == len("a_") + 48


def test_a_value_that_is_no_unicode_has_an_identity_as_well() -> None:
    one, other = audit_identities([call("a", c="\ud800"), call("a", c="é")])

    assert re.fullmatch(r"a_[0-9a-f]{8}", one)
    assert one != other


def test_values_that_look_alike_are_told_apart_by_a_digest() -> None:
    one, other, third = audit_identities([call("a", c="x.y"), call("a", c="x_y"), call("a", c="z")])

    assert re.fullmatch(r"a_x_y_[0-9a-f]{8}", one)
    assert re.fullmatch(r"a_x_y_[0-9a-f]{8}", other)
    assert one != other
    assert third == "a_z"


@pytest.mark.parametrize("values", [("é", "ü"), ("日本", "中国"), ("", "!"), ("", " ")])
def test_values_without_a_letter_or_digit_are_told_apart_by_a_digest(values: tuple[str, str]) -> None:
    one, other = audit_identities([call("a", c=value) for value in values])

    assert re.fullmatch(r"a_[0-9a-f]{8}", one)
    assert re.fullmatch(r"a_[0-9a-f]{8}", other)
    assert one != other


def test_a_name_without_a_letter_or_digit_is_a_digest() -> None:
    one, other = audit_identities([call("日本"), call("中国")])

    assert re.fullmatch(r"[0-9a-f]{8}", one)
    assert re.fullmatch(r"[0-9a-f]{8}", other)
    assert one != other


def test_arguments_too_long_to_read_are_cut_and_told_apart_by_a_digest() -> None:
    long = "SELECT " + "column_name, " * 2_000

    one, other = audit_identities([call("a", sql=f"{long} x"), call("a", sql=f"{long} y")])

    assert one != other
    for identity in (one, other):
        assert re.fullmatch(r"a_SELECT_column_name\w*_[0-9a-f]{8}", identity)
        assert len(identity) <= 50


def test_the_same_value_for_another_argument_is_another_audit() -> None:
    one, other = audit_identities([call("a", low="1"), call("a", high="1")])

    assert one != other
    assert audit_identities([call("a", high="1"), call("a", low="1")]) == [other, one]


def test_an_argument_that_contains_a_separator_is_not_taken_for_two() -> None:
    one, other = call("a", k=f"{'x' * 60}\0l\0y"), call("a", k="x" * 60, l="y")

    assert len(set(audit_identities([one, other]))) == 2
    assert audit_identities([one, other]) == audit_identities([other, one])[::-1]


def test_many_uses_of_one_audit_are_named_in_good_time() -> None:
    calls = [call("not_null", column=f"c{number}", t="x") for number in range(1_000)]

    assert audit_identities(calls) == [f"not_null_c{number}" for number in range(1_000)]
