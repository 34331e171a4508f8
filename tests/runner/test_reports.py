"""Reports say what the events say, in forms that those who read them take: CI systems, GitHub, programs, people."""

import json
import os
import re
import stat
from collections import Counter
from pathlib import Path

import junitparser
import pytest
import xmlschema
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from sqlmesh_pipes_protocol.codec import Envelope
from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    AuditOutcome,
    BatchFinished,
    Counts,
    ErrorInfo,
    Interval,
    Log,
    ModelExecuted,
    ModelFailed,
    ModelOutcome,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunStarted,
    Versions,
)
from sqlmesh_pipes_runner.cli import main
from sqlmesh_pipes_runner.errors import UsageError
from sqlmesh_pipes_runner.reports import Story, github, junit, markdown, read_story, summary, table
from sqlmesh_pipes_runner.reports.files import Reports, replace_file
from sqlmesh_pipes_runner.reports.sources import SourceFiles
from sqlmesh_pipes_runner.spelling import printable
from sqlmesh_pipes_runner.writer import DescriptorSink, EventWriter, open_append

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).parent / "junit.xsd"))
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
GITHUB_LIMIT = 1024 * 1024
DAY = Interval(start="2026-01-01T00:00:00Z", end="2026-01-02T00:00:00Z")
NEXT = Interval(start="2026-01-02T00:00:00Z", end="2026-01-03T00:00:00Z")
STARTED = RunStarted(
    environment="prod",
    gateway="local",
    versions=Versions(runner="0.1.0", sqlmesh="0.236.4", python="3.11.7"),
    selection=None,
    models_deployed=6,
    models_selected=6,
    start=None,
    end=None,
    execution_time=None,
    ignore_cron=False,
)
ORDERS, DAYS, BROKEN, BELOW, LATER, AWAY = (
    f'"db"."s"."{name}"' for name in ("orders", "days", "broken", "below", "later", "away")
)
EVIL = (
    "a|b \\| <script>alert('x')</script> **bold** [link](javascript:x) ![i](http://x/) @team #1 ~~gone~~ $x$ "
    "&lt;b&gt; `code` %0A::error::injected ::warning:: \x1b[31mred\x00 \x85 \u2028 \ufffe ñ 数据 🎉 </details>"
)


def executed(model, ms=1500, intervals=(DAY,), batches=1, rows=None):
    return ModelExecuted(model=model, intervals=intervals, batches=batches, duration_ms=ms, rows=rows)


def failed(model, message, category="sql", audits=(), ms=250, traceback=None, interval=DAY):
    return ModelFailed(
        model=model,
        error=ErrorInfo(
            error_class="x.Error", message=message, category=category, transient=False, traceback=traceback
        ),
        interval=interval,
        failed_audits=audits,
        intervals=(),
        batches=0,
        duration_ms=ms,
    )


def skipped(model, reason, detail, blocked_by=()):
    return ModelSkipped(model=model, reason=reason, detail=detail, blocked_by=blocked_by)


def audit(
    model, name, *, passed, rows=0, blocking=True, interval=DAY, query="SELECT 1", was_skipped=False, **more
):
    return AuditEvaluated(
        model=model,
        audit=name,
        name=name,
        arguments=more.pop("arguments", {}),
        blocking=blocking,
        skipped=was_skipped,
        passed=passed,
        failing_rows=rows,
        query=query,
        dialect="duckdb",
        interval=interval,
        **more,
    )


def finished(events, status="success", exit_code=0, error=None, digest=None, last_seq=0):
    outcomes = digest if digest is not None else [outcome_of(event) for event in events]
    statuses = Counter(outcome.status for outcome in outcomes if outcome)
    return RunFinished(
        status=status,
        exit_code=exit_code,
        counts=Counts(
            selected=sum(statuses.values()),
            executed=statuses["executed"],
            failed=statuses["failed"],
            skipped=statuses["skipped"],
            audits_passed=0,
            audits_failed=0,
            audits_skipped=0,
        ),
        duration_ms=65_432,
        last_seq=last_seq,
        digest=tuple(filter(None, outcomes)),
        error=error,
    )


def outcome_of(event):
    match event:
        case ModelExecuted():
            return ModelOutcome(model=event.model, status="executed", intervals=event.intervals)
        case ModelFailed():
            return ModelOutcome(model=event.model, status="failed", error=event.error)
        case ModelSkipped():
            return ModelOutcome(model=event.model, status="skipped", reason=event.reason)
    return None


def write(path, *events, run_id="run-1"):
    """The events in a file, as the runner writes them."""
    descriptor = open_append(path)
    writer = EventWriter(run_id, DescriptorSink(descriptor), on_broken=print)
    for event in events:
        writer.emit(event)
    os.close(descriptor)
    return path


def told(*events):
    """The story of events as a run tells them to its reports."""
    story = Story()
    for seq, event in enumerate(events):
        story.take(Envelope(run_id="run-1", seq=seq, at="2026-01-05T06:07:08.123456Z", event=event))
    return story


EVERYTHING = [
    STARTED,
    ModelStarted(model=ORDERS, batches=1),
    audit(ORDERS, "not_null_id", passed=True),
    audit(ORDERS, "few_rows", passed=False, rows=3, blocking=False, arguments={"maximum": "1"}),
    audit(ORDERS, "never", passed=False, rows=None, was_skipped=True, query=None),
    executed(ORDERS, rows=3),
    ModelStarted(model=DAYS, batches=2),
    BatchFinished(model=DAYS, interval=DAY, index=0, total=2, duration_ms=5),
    audit(DAYS, "unique", passed=False, rows=2, interval=NEXT, query="SELECT day\nFROM days\nWHERE n > 1"),
    failed(
        DAYS, "Audits failed\nunique: 2 rows", "audit", audits=("unique",), interval=NEXT, traceback="File x"
    ),
    failed(BROKEN, "The warehouse is away", "connection"),
    audit(
        "orders_exist",
        "orders_exist",
        passed=False,
        rows=1,
        blocking=False,
        standalone=True,
        targets=(ORDERS,),
    ),
    Log(level="warning", logger="sqlmesh", message="Mind the gap\nand the rest"),
    Log(level="info", logger="sqlmesh", message="not to be told"),
    skipped(BELOW, "upstream_failed", f"Upstream {DAYS} failed.", (DAYS,)),
    skipped(LATER, "cron_not_due", "Next due at 2026-01-06."),
    skipped(AWAY, "not_deployed", "It is not in the environment."),
]
EVERYTHING.append(finished(EVERYTHING, "failed", 1))


@pytest.fixture(scope="module")
def everything():
    return told(*EVERYTHING)


def parsed_junit(text):
    """The document as the schema allows it and junitparser reads it: by class and name, with the result."""
    SCHEMA.validate(text)
    (suite,) = junitparser.JUnitXml.fromstring(text.encode())
    return suite, {(case.classname, case.name): case for case in suite}


def rendered(text):
    """The Markdown's tables, blocks of code and texts as a browser would show them."""
    tokens = MARKDOWN.parse(text)
    tables, row, html = [], None, []
    for token in tokens:
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            row = []
            tables[-1].append(row)
        elif token.type == "inline" and row is not None:
            row.append(shown(token))
        elif token.type == "table_close":
            row = None
        html += [token.content] if token.type == "html_block" else []
        html += [child.content for child in token.children or () if child.type == "html_inline"]
    fences = [token.content for token in tokens if token.type == "fence"]
    texts = [shown(token) for token in tokens if token.type == "inline"]
    kinds = {child.type for token in tokens for child in token.children or ()}
    return tables, fences, texts, html, kinds


def shown(token):
    return "".join(child.content for child in token.children).replace("\u200b", "")


def commands(text):
    """GitHub's workflow commands as its runner reads them."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"::(error|warning) ((?:\w+=[^,:]*,?)*)::(.*)", line)
        assert match, line
        properties = dict(part.split("=", 1) for part in match[2].split(","))
        found.append(
            (match[1], {key: unescaped(value) for key, value in properties.items()}, unescaped(match[3]))
        )
    return found


def unescaped(text):
    for code, character in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        text = text.replace(code, character)
    return text


def test_junit_has_models_and_audits_as_cases_with_what_became_of_them(everything):
    suite, cases = parsed_junit(junit(everything))

    assert (suite.name, suite.tests, suite.failures, suite.errors, suite.skipped) == (
        "SQLMesh prod",
        11,
        2,
        1,
        4,
    )
    assert (suite.time, suite.timestamp) == (65.432, "2026-01-05T06:07:08")
    results = {
        key: (type(case.result[0]).__name__, case.result[0].type) if case.result else None
        for key, case in cases.items()
    }
    assert results == {
        ("db.s", "orders"): None,
        ("db.s.orders", "not_null_id"): None,
        ("db.s.orders", "few_rows"): None,
        ("db.s.orders", "never"): ("Skipped", None),
        ("db.s", "days"): ("Failure", "audit"),
        ("db.s.days", "unique"): ("Failure", "audit"),
        ("db.s", "broken"): ("Error", "connection"),
        ("db.s", "below"): ("Skipped", None),
        ("db.s", "later"): ("Skipped", None),
        ("db.s", "away"): ("Skipped", None),
        ("standalone", "orders_exist"): None,
    }
    assert cases["db.s", "orders"].time == 1.5
    assert cases["db.s", "orders"].system_out == "1 batch: 2026-01-01 to 2026-01-02"
    assert cases["db.s", "below"].result[0].message == 'Upstream "db"."s"."days" failed.'
    (problem,) = cases["db.s", "days"].result
    assert problem.message == "Audits failed"
    for part in ("unique: 2 rows", "WHERE n > 1", "File x"):
        assert part in problem.text
    assert cases["db.s.orders", "few_rows"].system_out.startswith(
        "WARNING few_rows(maximum := 1): 3 rows failed, not blocking"
    )


def test_markdown_has_the_outcome_the_causes_the_reasons_and_all_models(everything):
    text = markdown(everything)
    tables, fences, texts, html, _ = rendered(text)

    assert texts[0] == (
        "❌ SQLMesh prod: FAILED in 1 min 5 s: 1 executed, 3 skipped, 2 failed; 5 audits, 3 failed."
    )
    assert tables[0] == [
        ["Reason", "Models"],
        ["upstream failed", "1"],
        ["cron not due", "1"],
        ["not deployed", "1"],
    ]
    assert tables[1][1:] == [
        ["db.s.orders", "executed", "1.5 s", "1", "1 failed, 1 passed, 1 skipped", ""],
        ["db.s.days", "failed", "0.2 s", "", "1 failed", "[audit] Audits failed"],
        ["db.s.broken", "failed", "0.2 s", "", "", "[connection] The warehouse is away"],
        ["db.s.below", "skipped", "", "", "", 'Upstream "db"."s"."days" failed.'],
        ["db.s.later", "skipped", "", "", "", "Next due at 2026-01-06."],
        ["db.s.away", "skipped", "", "", "", "It is not in the environment."],
    ]
    assert [part.strip() for part in html] == ["<details><summary>6 models</summary>", "</details>"]
    assert "Audits failed\nunique: 2 rows\n" in fences
    assert "SELECT day\nFROM days\nWHERE n > 1\n" in fences
    assert "db.s.days: unique(): 2 rows failed, blocking" in texts
    assert "standalone: orders_exist(): 1 row failed, not blocking" in texts
    assert "Mind the gap" in texts
    assert "not to be told" not in text
    list_items = [token for token in MARKDOWN.parse(text) if token.type == "list_item_open"]
    assert len(list_items) == 2 + 3 + 1


def test_github_has_errors_first_then_warnings_and_says_a_failure_once(everything):
    said = commands(github(everything, {DAYS: "warehouse/models/days.sql"}.get))

    assert [(level, properties["title"]) for level, properties, _ in said] == [
        ("error", "db.s.days failed"),
        ("error", "db.s.broken failed"),
        ("warning", "Audit of db.s.orders"),
        ("warning", "Audit of orders_exist"),
        ("warning", "db.s.below was skipped"),
        ("warning", "db.s.away was skipped"),
    ]
    assert (said[0][1]["file"], said[0][1]["line"]) == ("warehouse/models/days.sql", "1")
    assert said[0][2] == "Audits failed\nunique: 2 rows\nunique(): 2 rows failed, blocking"
    assert "file" not in said[1][1]


def test_the_json_summary_has_all_of_it(everything):
    document = json.loads(summary(everything))

    assert (document["status"], document["exit_code"], document["environment"]) == ("failed", 1, "prod")
    assert document["counts"]["failed"] == 2
    assert document["versions"]["sqlmesh"] == "0.236.4"
    models = {model["model"]: model for model in document["models"]}
    assert {fqn: model["status"] for fqn, model in models.items()} == {
        ORDERS: "executed",
        DAYS: "failed",
        BROKEN: "failed",
        BELOW: "skipped",
        LATER: "skipped",
        AWAY: "skipped",
    }
    assert models[DAYS]["error"]["category"] == "audit"
    assert models[DAYS]["failed_interval"] == {"start": NEXT.start, "end": NEXT.end}
    assert {one["audit"]: one["outcome"] for one in models[ORDERS]["audits"]} == {
        "not_null_id": "passed",
        "few_rows": "failed",
        "never": "skipped",
    }
    assert [one["audit"] for one in document["standalone_audits"]] == ["orders_exist"]
    assert document["warnings"] == ["Mind the gap\nand the rest"]


def test_the_table_has_a_line_for_each_model_and_the_outcome(everything):
    lines = table(everything).splitlines()

    assert lines[0].split() == ["model", "status", "duration", "audits", "why"]
    assert re.fullmatch(r"db\.s\.orders +executed +1\.5 s +1 failed, 1 passed, 1 skipped", lines[2])
    assert re.fullmatch(r"db\.s\.days +failed +0\.2 s +1 failed +\[audit\] Audits failed", lines[3])
    assert lines[-1].startswith("FAILED in 1 min 5 s: 1 executed, 3 skipped, 2 failed")


def evil_run(text):
    events = [
        STARTED,
        failed(f'"db"."s"."{text}"', f"{text}\n{text}", traceback=text),
        audit(ORDERS, "evil", passed=False, rows=1, arguments={"a": text}, query=f"```\n{text}\n~~~\n````"),
        audit(ORDERS, "warns", passed=False, rows=1, blocking=False, arguments={"a": text}),
        executed(ORDERS),
        skipped(BELOW, "upstream_failed", text),
        Log(level="error", logger="sqlmesh", message=text),
    ]
    error = ErrorInfo(error_class="x", message=text, category="internal", transient=False)
    return told(*events, finished(events, "error", 1, error=error))


def assert_harmless(story, text):
    """Whatever a text holds, the reports have their own structure and no other."""
    suite, _ = parsed_junit(junit(story))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (6, 2, 1, 1)
    tables, _, _, html, kinds = rendered(markdown(story))
    assert [len(row) for one in tables for row in one] == [2, 2, 6, 6, 6, 6]
    assert [part.strip() for part in html] == ["<details><summary>3 models</summary>", "</details>"]
    assert kinds <= {"text", "strong_open", "strong_close", "text_special", "softbreak", "html_inline"}
    said = commands(github(story, lambda fqn: f"models/{text}.sql".replace("\0", "")))
    assert [level for level, _, _ in said] == ["error", "error", "warning", "warning"]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", table(story))
    assert json.loads(summary(story))["status"] == "error"


def test_nothing_that_a_text_holds_is_taken_for_markup():
    story = evil_run(EVIL)
    assert_harmless(story, EVIL)

    tables, fences, texts, _, _ = rendered(markdown(story))
    one_line = " ".join(EVIL.split()).replace("\0", "\ufffd")
    assert tables[1][2][0] == f"db.s.{one_line}"
    assert any("````" in block and "alert('x')" in block for block in fences)
    assert f"{one_line}" in texts[-1]
    outside_of_code = [token.content for token in MARKDOWN.parse(markdown(story)) if token.type == "inline"]
    assert "@team" not in "".join(outside_of_code)
    level, properties, message = commands(github(story, lambda fqn: None))[1]
    assert (level, properties["title"]) == ("error", printable(f"db.s.{EVIL} failed"))
    assert message == printable(f"{EVIL}\n{EVIL}")
    _, cases = parsed_junit(junit(story))
    legal = EVIL.replace("\x1b", "\ufffd").replace("\x00", "\ufffd").replace("\ufffe", "\ufffd")
    (skip,) = cases["db.s", "below"].result
    assert skip.message == legal.strip()


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_text_breaks_a_report(text):
    assert_harmless(evil_run(f"m{text}"), text)


def test_a_text_at_a_terminal_cannot_command_it():
    assert printable("a\tb\r\nc\x1b]0;title\x07\x9b31m") == "a\tb\nc\\x1b]0;title\\x07\\x9b31m"


def test_two_thousand_models_that_fail_at_length_fit_into_githubs_summary():
    events = [STARTED]
    for number in range(2_000):
        model = f'"db"."schema_of_some_length"."{"a_model_with_a_long_name_" * 3}{number}"'
        events.append(audit(model, "unique", passed=False, rows=1, query="数据\n" * 2_000))
        events.append(failed(model, "数据 | <b>\n" * 1_000))
        events.append(Log(level="warning", logger="sqlmesh", message="数据 | <b> " * 100))
    story = told(*events, finished(events, "failed", 1))
    text = markdown(story)

    assert len(text.encode()) < GITHUB_LIMIT
    tables, fences, texts, _, _ = rendered(text)
    assert "2,000 failed" not in texts[0]
    assert " 2000 failed;" in texts[0]
    assert len(fences) > 10
    assert re.fullmatch(r"… and [\d,]+ more", tables[0][-1][0])
    assert sum(bool(re.fullmatch(r"… and [\d,]+ more", one)) for one in texts) >= 4
    suite, _ = parsed_junit(junit(story))
    assert (suite.tests, suite.failures) == (4_000, 4_000)


def test_two_thousand_models_that_ran_are_shown_slowest_first():
    events = [STARTED, *(executed(f'"db"."s"."m{number}"', ms=number) for number in range(2_000))]
    tables, _, texts, _, _ = rendered(markdown(told(*events, finished(events))))

    assert [row[0] for row in tables[0][1:3]] == ["db.s.m1999", "db.s.m1998"]
    assert tables[0][-1][0] == "… and 1,500 more"
    assert "✅" in texts[0]


def test_a_run_that_never_began_is_an_error_of_the_run():
    error = ErrorInfo(
        error_class="x", message="There is no environment 'nowhere'", category="config", transient=False
    )
    story = told(finished([], "error", 2, error=error))

    suite, cases = parsed_junit(junit(story))
    assert (suite.name, suite.tests, suite.errors) == ("SQLMesh", 1, 1)
    assert cases["sqlmesh", "run"].result[0].message == "There is no environment 'nowhere'"
    _, _, texts, _, _ = rendered(markdown(story))
    assert texts[0].startswith("❌ SQLMesh: ERROR in ")
    assert "There is no environment 'nowhere'" in texts
    assert commands(github(story, lambda fqn: None)) == [
        ("error", {"title": "SQLMesh"}, "There is no environment 'nowhere'")
    ]


def test_nothing_to_do_is_a_suite_without_failures():
    story = told(STARTED, finished([], "nothing_to_do"))

    suite, _ = parsed_junit(junit(story))
    assert (suite.tests, suite.failures, suite.errors) == (0, 0, 0)
    assert "✅ SQLMesh prod: Nothing to do" in markdown(story)
    assert commands(github(story, lambda fqn: None)) == []


def test_a_run_that_died_says_so_and_what_had_started_is_torn(tmp_path):
    story = read_story(write(tmp_path / "e", STARTED, ModelStarted(model=DAYS, batches=1), executed(ORDERS)))

    assert story.status == "died"
    suite, cases = parsed_junit(junit(story))
    assert (suite.tests, suite.errors) == (3, 2)
    assert cases["db.s", "days"].result[0].message == "It had started when the runner died."
    assert "the runner died" in cases["sqlmesh", "run"].result[0].message
    assert "DIED: 1 executed, 0 skipped, 0 failed, 1 torn" in table(story)
    assert "DIED" in markdown(story)
    assert [level for level, _, _ in commands(github(story, lambda fqn: None))] == ["error", "error"]
    assert json.loads(summary(story))["exit_code"] is None


def test_an_audit_that_sqlmesh_evaluates_anew_has_its_last_outcome():
    """As where the environment changed in mid-run, and the evaluation began again."""
    again = [
        STARTED,
        audit(ORDERS, "unique", passed=False, rows=3),
        audit(ORDERS, "unique", passed=False, rows=2, interval=NEXT),
        audit(ORDERS, "unique", passed=True),
        executed(ORDERS),
    ]
    (one,) = told(*again, finished(again)).models[ORDERS].audits.values()

    assert (one.outcome, one.failing_rows, one.evaluation.interval) == ("failed", 2, NEXT)


def test_what_was_lost_on_the_way_is_taken_from_the_digest():
    outcome = ModelOutcome(
        model=ORDERS,
        status="failed",
        audits=(AuditOutcome(audit="unique", skipped=False, passed=False, blocking=True, failing_rows=4),),
        error=ErrorInfo(error_class="x", message="Audits failed", category="audit", transient=False),
    )
    skip = ModelOutcome(model=BELOW, status="skipped", reason="upstream_failed")
    story = told(
        STARTED, ModelStarted(model=ORDERS, batches=1), finished([], "failed", 1, digest=[outcome, skip])
    )

    _, cases = parsed_junit(junit(story))
    assert cases["db.s", "orders"].result[0].message == "Audits failed"
    assert cases["db.s.orders", "unique"].result[0].message == "unique(): 4 rows failed, blocking"
    assert cases["db.s", "below"].result[0].message == "upstream failed"


def test_an_event_in_parts_is_put_together_and_without_one_of_them_the_digest_helps(tmp_path):
    big = [
        STARTED,
        audit(BROKEN, "big", passed=False, query="x" * 50_000),
        failed(BROKEN, "broken"),
        executed(ORDERS),
    ]
    path = write(
        tmp_path / "e", *big, finished(big, "failed", 1, digest=[ModelOutcome(model=BROKEN, status="failed")])
    )
    lines = path.read_bytes().splitlines()
    assert len(lines) > 10
    assert len(read_story(path).models[BROKEN].audits["big"].evaluation.query) == 50_000

    path.write_bytes(b"\n".join(lines[:3] + lines[4:]) + b"\n")
    story = read_story(path)
    assert (story.status, story.models[BROKEN].status, story.models[ORDERS].status) == (
        "failed",
        "failed",
        "executed",
    )
    assert story.models[BROKEN].audits == {}
    parsed_junit(junit(story))


@pytest.fixture
def two_runs(tmp_path):
    first = [STARTED, executed(ORDERS)]
    second = [STARTED, failed(BROKEN, "broken")]
    path = write(tmp_path / "e", *first, finished(first), run_id="first")
    return write(path, *second, finished(second, "failed", 1), run_id="second")


def test_of_several_runs_the_last_is_told_unless_another_is_named(two_runs):
    assert (read_story(two_runs).run_id, read_story(two_runs).status) == ("second", "failed")
    assert (read_story(two_runs, "first").run_id, list(read_story(two_runs, "first").models)) == (
        "first",
        [ORDERS],
    )


def test_lines_of_two_runs_at_once_are_kept_apart(two_runs):
    lines = two_runs.read_bytes().splitlines()
    two_runs.write_bytes(b"\n".join(line for pair in zip(lines[:3], lines[3:], strict=True) for line in pair))

    assert list(read_story(two_runs, "first").models) == [ORDERS]
    assert list(read_story(two_runs, "second").models) == [BROKEN]


def test_torn_foreign_and_doubled_lines_are_passed_over(two_runs):
    lines = two_runs.read_bytes().splitlines()
    two_runs.write_bytes(
        b"\xff\xfe no text\n{}\nnull\n"
        + b"\n".join([*lines, b"a line", lines[-1], lines[-2], b'{"kind":"log","v":"1.0","ru'])
    )

    assert (read_story(two_runs).status, list(read_story(two_runs).models)) == ("failed", [BROKEN])


def test_a_run_after_one_that_was_torn_begins_a_line_of_its_own(tmp_path):
    path = write(tmp_path / "e", STARTED, executed(ORDERS), run_id="first")
    path.write_bytes(path.read_bytes() + b'{"kind":"log","v":"1.0","ru')
    write(path, STARTED, executed(DAYS), run_id="second")

    second = read_story(path)
    assert (second.run_id, second.environment, list(second.models)) == ("second", "prod", [DAYS])
    assert (read_story(path, "first").status, list(read_story(path, "first").models)) == ("died", [ORDERS])


@pytest.mark.parametrize(
    ("content", "arguments", "says"),
    [
        (None, [], "cannot be read: No such file"),
        ("", [], "There are no events of a run in"),
        ("hello\n", [], "There are no events of a run in"),
        ("two", ["--run-id", "third"], "There is no run third in"),
        ("major", [], "protocol"),
    ],
)
def test_a_file_without_a_run_is_told_with_exit_status_2(tmp_path, two_runs, content, arguments, says):
    path = tmp_path / "given"
    text = {"two": two_runs.read_text(), "major": two_runs.read_text().replace('"v":"1.', '"v":"9.')}.get(
        content, content
    )
    if text is not None:
        path.write_text(text)
    result = CliRunner().invoke(main, ["report", str(path), *arguments])

    assert result.exit_code == 2
    assert says in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("form", ["table", "markdown", "junit", "json", "github"])
def test_the_command_prints_each_form_or_writes_it(two_runs, tmp_path, form):
    printed = CliRunner().invoke(main, ["report", str(two_runs), "--format", form, "-p", str(tmp_path)])
    written = CliRunner().invoke(
        main, ["report", str(two_runs), "--format", form, "-p", str(tmp_path), "-o", str(tmp_path / "out")]
    )

    assert (printed.exit_code, written.exit_code, written.output) == (0, 0, "")
    assert (tmp_path / "out").read_text() == printed.stdout
    assert "broken" in printed.stdout
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o644


def test_a_report_keeps_links_and_writes_to_what_is_no_file(tmp_path, python):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    replace_file(tmp_path / "link", "new")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"
    script = """
        from pathlib import Path
        from sqlmesh_pipes_runner.reports.files import replace_file
        replace_file(Path("/dev/stdout"), "here")
    """
    assert python(script).stdout == "here"
    assert Path("/dev/stdout").is_symlink()


def test_a_report_that_cannot_be_written_is_told_and_raises_nothing(tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    reports = Reports([tmp_path], junit=tmp_path / "folder", markdown=tmp_path / "folder", annotations=True)
    reports.take(Envelope(run_id="r", seq=0, at="2026-01-05T06:07:08Z", event=finished([], "error", 2)))
    reports.write()

    said = capsys.readouterr().err
    assert said.count("folder cannot be written: Is a directory.") == 2
    with pytest.raises(UsageError, match="there is no folder"):
        Reports([tmp_path], junit=tmp_path / "missing" / "junit.xml")


@pytest.fixture
def repository(tmp_path):
    for name, text in {
        "warehouse/models/a/days.sql": "-- A comment.\nMODEL (\n  -- another\n  name marts.days,\n  kind FULL\n);\nSELECT 1",
        "warehouse/models/quoted.sql": 'MODEL (name "db"."Marts".Quoted); SELECT 1',
        "warehouse/models/two.py": '@model("marts.one")\ndef one(): ...\n@model(\n    name="marts.two",\n)\ndef two(): ...',
        "warehouse/models/made.sql": "MODEL (name @customer.made, kind FULL); SELECT 1",
        "warehouse/models/binary.sql": "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_models_file_is_found_by_the_name_in_it(repository):
    files = SourceFiles([repository / "warehouse"], repository)

    found = {
        name: files.of(name)
        for name in (
            '"db"."marts"."days"',
            '"db"."marts"."quoted"',
            '"db"."marts"."one"',
            '"db"."marts"."two"',
            '"db"."acme"."made"',
        )
    }
    assert list(found.values()) == [
        "warehouse/models/a/days.sql",
        "warehouse/models/quoted.sql",
        "warehouse/models/two.py",
        "warehouse/models/two.py",
        None,  # the name is made by a macro
    ]


def test_a_file_is_named_from_the_workspace_on_and_not_outside_of_it(repository, monkeypatch):
    monkeypatch.chdir(repository / "warehouse")
    assert SourceFiles([Path()]).of('"db"."marts"."days"') == "models/a/days.sql"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(repository))
    assert SourceFiles([Path()]).of('"db"."marts"."days"') == "warehouse/models/a/days.sql"
    (repository / "elsewhere").mkdir()
    monkeypatch.setenv("GITHUB_WORKSPACE", str(repository / "elsewhere"))
    assert SourceFiles([Path()]).of('"db"."marts"."days"') is None


def test_a_file_is_found_though_the_workspace_is_reached_by_a_link(repository, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "workspace"
    link.symlink_to(repository)

    assert (
        SourceFiles([repository / "warehouse"], link).of('"db"."marts"."days"')
        == "warehouse/models/a/days.sql"
    )
