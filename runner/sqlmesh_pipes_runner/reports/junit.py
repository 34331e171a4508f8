"""JUnit XML, as CI systems read it: models and audits as cases of one suite.

The elements and attributes are those that Jenkins, GitLab, Azure and GitHub's reporters share.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from sqlmesh_pipes_protocol.events import ErrorInfo
from sqlmesh_pipes_runner.reports import words
from sqlmesh_pipes_runner.reports.story import AuditStory, ModelStory, Story
from sqlmesh_pipes_runner.spelling import counted, first_line, spans

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PART = re.compile('"((?:[^"]|"")*)"')
_FAILURES = {"audit", "sql", "python"}
"""Categories that are the project's own; the others are errors of what it runs on."""


def junit(story: Story) -> str:
    """The run as an XML document.

    A model that failed is a failure if the project is at fault, and an error otherwise; one that was skipped is skipped, with the
    reason. An audit that failed and does not block is no failure: its case says so in its output.
    """
    suite = Xml.Element("testsuite", name=_legal(words.title(story)))
    if story.error is not None:
        _problem(_case(suite, "sqlmesh", "run", story.duration_ms), story.error)
    for model in story.models.values():
        _model(suite, model)
    for audit in story.standalone.values():
        _audit(suite, "standalone", audit)
    cases = list(suite)
    counts = {
        "tests": len(cases),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": len(suite.findall("testcase/skipped")),
    }
    for name, value in counts.items():
        suite.set(name, str(value))
    suite.set("time", _seconds(story.duration_ms))
    if story.began_at is not None:
        suite.set("timestamp", story.began_at[:19])
    root = Xml.Element("testsuites", suite.attrib | {"name": "sqlmesh"})
    del root.attrib["timestamp"], root.attrib["skipped"]
    root.append(suite)
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _model(suite: Xml.Element, model: ModelStory) -> None:
    *schema, table = _PART.findall(model.fqn) or [model.name]  # a name may have dots
    case = _case(suite, ".".join(schema) or "sqlmesh", table or model.name, model.duration_ms)
    match model.status:
        case "failed" if model.error is not None:
            _problem(case, model.error, _failed_queries(model))
        case "failed" | "torn":
            _child(case, "error", words.cause(model), "torn", "")
        case "skipped":
            _child(case, "skipped", words.cause(model))
        case "executed":
            if model.intervals:
                Xml.SubElement(case, "system-out").text = _legal(
                    f"{counted(model.batches, 'batch', 'batches')}: {spans(model.intervals)}"
                )
    for audit in model.audits.values():
        _audit(suite, model.name, audit)


def _audit(suite: Xml.Element, of: str, audit: AuditStory) -> None:
    case = _case(suite, of, audit.evaluation.audit, None)
    if audit.outcome == "skipped":
        _child(case, "skipped", "SQLMesh skips the audit.")
    elif audit.outcome == "failed":
        text = f"{words.failed_audit(audit)}\n{audit.evaluation.query or ''}"
        if audit.evaluation.blocking:
            _child(case, "failure", words.failed_audit(audit), "audit", text)
        else:
            Xml.SubElement(case, "system-out").text = _legal(f"WARNING {text}")


def _failed_queries(model: ModelStory) -> str:
    failed = [
        audit for audit in model.audits.values() if audit.outcome == "failed" and audit.evaluation.blocking
    ]
    return "\n\n".join(f"{words.failed_audit(audit)}\n{audit.evaluation.query or ''}" for audit in failed)


def _case(suite: Xml.Element, of: str, name: str, duration_ms: int | None) -> Xml.Element:
    return Xml.SubElement(
        suite, "testcase", classname=_legal(of), name=_legal(name), time=_seconds(duration_ms)
    )


def _problem(case: Xml.Element, error: ErrorInfo, more: str = "") -> None:
    kind = "failure" if error.category in _FAILURES else "error"
    text = "\n\n".join(part for part in (error.message, more, error.traceback or "") if part)
    _child(case, kind, first_line(error.message), error.category, text)


def _child(case: Xml.Element, tag: str, message: str, type_: str | None = None, text: str = "") -> None:
    child = Xml.SubElement(case, tag, message=_legal(message))
    if type_ is not None:
        child.set("type", type_)
    if text:
        child.text = _legal(text)


def _seconds(ms: int | None) -> str:
    return f"{(ms or 0) / 1000:.3f}"


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
