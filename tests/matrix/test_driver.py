"""The matrix runs what it says, on what it says, and tells what came of it."""

from __future__ import annotations

import re

import pytest

from matrix import cells, releases, table
from matrix.table import Row
from matrix.versions import ROOT, lower_bounds, project

PAGE = ROOT / "docs" / "compatibility.md"


def row(tests: str = "runner", sqlmesh: str = "0.1.0", passed: str = "1", **changes: str) -> Row:
    values = {"dagster": "", "python": "3.11", "failed": "0", "skipped": "0", "measured": "2026-01-01"}
    return Row(**{"tests": tests, "sqlmesh": sqlmesh, "passed": passed, **values, **changes})


def test_the_oldest_is_what_the_project_asks_for_at_the_least():
    asked = {
        "dependencies": ["click>=8.1", "orjson>=3.10.1"],
        "optional-dependencies": {
            "dagster": ["dagster>=1.2.3"],
            "docker": ["project[dagster]", "docker>=7.1,<9"],
            "k8s": ["dagster-k8s>=0.2.3"],
            "dev": ["pytest>=8"],
        },
    }

    assert lower_bounds(asked, "dagster") == {
        "click": "8.1",
        "orjson": "3.10.1",
        "dagster": "1.2.3",
        "docker": "7.1",
        "dagster-k8s": "0.2.3",
    }


def test_a_requirement_without_a_lower_bound_is_told():
    asked = {"dependencies": ["click"], "optional-dependencies": {"sqlmesh": []}}

    with pytest.raises(ValueError, match="click has no lower bound"):
        lower_bounds(asked, "sqlmesh")


@pytest.mark.parametrize("side", ["sqlmesh", "dagster"])
def test_this_project_asks_for_a_release_of_each_side(side):
    assert re.fullmatch(r"[0-9]+\.[0-9]+(\.[0-9]+)?", lower_bounds(project(), side)[side])


@pytest.mark.parametrize(
    "tests", sorted({*cells.RUNNER, *cells.ORCHESTRATOR, *cells.PAIR, *cells.CORE, *cells.OTHER_MINOR})
)
def test_the_tests_that_are_run_are_there(tests):
    assert (ROOT / tests).exists()


REPORT = """\
<testsuites><testsuite>
<testcase classname="tests.a" name="test_one"/>
<testcase classname="tests.a" name="test_two"><skipped message="why"/></testcase>
<testcase classname="tests.a" name="test_three"><failure message="no"/></testcase>
<testcase classname="tests.a" name="test_four"><error message="no"/></testcase>
</testsuite></testsuites>
"""


def test_errors_are_failures_and_skipped_tests_have_not_passed(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)

    outcome = cells.read_report(tmp_path / "report.xml", 2)

    assert (outcome.passed, outcome.failed, outcome.skipped) == (1, 2, 1)
    assert outcome.failures == ("tests.a::test_three", "tests.a::test_four")
    assert not outcome.is_good


@pytest.mark.parametrize(
    "cases", ["", '<testcase classname="a" name="b"><skipped/></testcase>'], ids=["none", "skipped"]
)
def test_a_cell_in_which_nothing_ran_is_not_good(cases, tmp_path):
    (tmp_path / "report.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")

    outcome = cells.read_report(tmp_path / "report.xml", 2)

    assert (outcome.problem, outcome.is_good) == ("no test was run", False)


def test_a_table_is_read_as_it_was_written(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{table.BEGIN}\nold\n{table.END}\nAfter.\n")
    rows = [row(), row("end to end", dagster="1.2.3", failed="2")]

    table.write(page, rows)

    assert table.read(page.read_text()) == rows
    assert page.read_text().startswith("Before.\n")
    assert page.read_text().endswith("\nAfter.\n")
    assert "old" not in page.read_text()


def test_a_page_without_the_marks_is_left_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("A page.")

    with pytest.raises(ValueError, match=r"has no <!--"):
        table.write(page, [row()])

    assert page.read_text() == "A page."


def test_a_later_measurement_takes_the_place_of_an_earlier_one():
    old = [row(passed="1"), row(sqlmesh="0.2.0")]

    found = table.merged(old, [row(passed="9"), row(sqlmesh="0.3.0")])

    assert found == [row(passed="9"), row(sqlmesh="0.2.0"), row(sqlmesh="0.3.0")]


def test_the_page_has_a_table_of_what_was_measured_without_failures():
    rows = table.read(PAGE.read_text())

    assert {each.tests.partition(",")[0] for each in rows} >= {"orchestrator", "end to end"}
    assert [each for each in rows if each.failed != "0"] == []


def test_a_field_is_added_to_the_class_that_is_named_and_stands_before_the_others():
    text = 'class A:\n    b: int\n\n\nclass C:\n    """C."""\n\n    kind: ClassVar[str] = "c"\n\n    d: int\n'

    assert releases.with_key(text, "C", "e: int = 1") == text.replace(
        "    d: int", "    e: int = 1\n    d: int"
    )
    with pytest.raises(ValueError, match="no class D"):
        releases.with_key(text, "D", "e: int = 1")


@pytest.mark.parametrize("protocol", releases.RELEASES)
def test_releases_can_be_made_of_the_tree(protocol, tmp_path, monkeypatch):
    monkeypatch.setattr(releases, "FOLDER", tmp_path)

    made = releases.sources(protocol)

    version = (made / "shared_protocol/sqlmesh_pipes_protocol/version.py").read_text()
    assert f'PROTOCOL_VERSION = "{protocol}"' in version
    assert f'version = "{releases.RELEASES[protocol]}"' in (made / "pyproject.toml").read_text()
