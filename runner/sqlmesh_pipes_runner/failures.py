"""What kind of failure an exception is, and whether trying again can help: a table over class names and SQLSTATE.

Classes are matched by name, so that no driver has to be installed. The chain of causes is walked from the exception
that was caught down to its root, and the deepest one that the table knows decides: a Python model that cannot reach its
database has a connection failure, not a Python one.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from sqlmesh_pipes_protocol.events import ErrorInfo, FailureCategory

_MAX_TRACEBACK = 20_000
_MAX_MESSAGE = 8_000


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        classes: matches the exception's ``module.QualifiedName``, or that of one of its bases.
        category: what it is.
        transient: whether trying again can help.
        text: where given, the message must match as well.
    """

    classes: str
    category: FailureCategory
    transient: bool
    text: str | None = None


RULES: tuple[Rule, ...] = (
    # Read against SQLMesh 0.236 (sqlmesh.utils.errors) and DuckDB 1.5. The first row that matches decides.
    Rule(r"sqlmesh_pipes_runner\..*RunInterruptedError|.*\.KeyboardInterrupt", "cancelled", False),
    Rule(r"sqlmesh_pipes_runner\..*UsageError", "config", False),
    Rule(r"sqlmesh\..*(NodeAuditsErrors|AuditError)", "audit", False),
    Rule(
        r"_?duckdb\..*IOException", "lock", True, r"could not set lock|conflicting lock|being used by another"
    ),
    Rule(r"_?duckdb\..*OutOfMemoryException", "resource", True),
    Rule(r"_?duckdb\..*TransactionException", "lock", True),
    Rule(r"_?duckdb\..*(ConnectionException|HTTPException)", "connection", True),
    Rule(r"_?duckdb\..*IOException", "resource", False),
    Rule(r"_?duckdb\..*InterruptException", "cancelled", True),
    Rule(r"_?duckdb\..*(InternalException|FatalException)", "internal", False),
    Rule(r"_?duckdb\..*", "sql", False),
    Rule(r"sqlglot\..*", "sql", False),
    Rule(r"builtins\.MemoryError", "resource", True),
    Rule(r"builtins\.TimeoutError|.*\.(\w*Timeout\w*)", "timeout", True),
    Rule(r"builtins\.ConnectionError", "connection", True),
    # DB-API 2.0 (PEP 249), by the names that every driver gives its classes.
    Rule(
        r".*\.(ProgrammingError|DataError|IntegrityError|NotSupportedError)",
        "sql",
        False,
    ),
    Rule(
        r".*\.OperationalError", "connection", False, r"authentication failed|password|role .* does not exist"
    ),
    Rule(r".*\.(OperationalError|InterfaceError)", "connection", True),
    Rule(r".*\.(InternalError|DatabaseError)", "internal", False),
    Rule(r"sqlmesh\..*(PythonModelEvalError|SignalEvalError|MacroEvalError)", "python", False),
    Rule(
        r"sqlmesh\..*(ConfigError|MissingContextException|MissingDependencyError|MissingReferenceError)",
        "config",
        False,
    ),
    Rule(r"sqlmesh\..*(StateMigrationError|PlanError)", "config", False),
)

_SQLSTATES: tuple[tuple[str, FailureCategory, bool], ...] = (
    # PostgreSQL's appendix A; the SQL standard shares the classes.
    ("28", "connection", False),
    ("08", "connection", True),
    ("57P", "connection", True),
    ("57014", "timeout", True),
    ("40", "lock", True),
    ("55P03", "lock", True),
    ("53", "resource", True),
    ("XX", "internal", False),
    ("2", "sql", False),
    ("42", "sql", False),
    ("44", "sql", False),
)

_COMPILED = tuple(
    (re.compile(rule.classes), re.compile(rule.text, re.I) if rule.text else None, rule) for rule in RULES
)


def error_info(error: BaseException) -> ErrorInfo:
    """The failure that an exception tells of: class and message of its root, category, whether it is transient."""
    chain = list(causes(error))
    root = chain[-1]
    category, transient = classify(error)
    message = str(root).strip() or type(root).__name__
    text = "".join(traceback.format_exception(error))
    return ErrorInfo(
        error_class=_name(type(root)),
        message=message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]} …",
        category=category,
        transient=transient,
        traceback=text if len(text) <= _MAX_TRACEBACK else f"… {text[-_MAX_TRACEBACK:]}",
    )


def classify(error: BaseException) -> tuple[FailureCategory, bool]:
    """Category, and whether trying again can help."""
    chain = list(causes(error))
    for link in reversed(chain):
        found = _classify_one(link)
        if found is not None:
            return found
    in_model = any(_name(type(link)).endswith("PythonModelEvalError") for link in chain)
    return ("python", False) if in_model else ("internal", False)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, its cause, the cause of that … as Python would print them, each once."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _classify_one(error: BaseException) -> tuple[FailureCategory, bool] | None:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(state, str):
        for prefix, category, transient in _SQLSTATES:
            if state.startswith(prefix):
                return category, transient
    names = [_name(base) for base in type(error).__mro__[:-1]]
    text = str(error)
    for classes, pattern, rule in _COMPILED:
        if any(classes.fullmatch(name) for name in names) and (pattern is None or pattern.search(text)):
            return rule.category, rule.transient
    return None


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def exit_code_of(category: FailureCategory) -> int:
    """The exit status of a run that could not be, or broke off, for this reason."""
    match category:
        case "config":
            return 2
        case "connection" | "lock" | "timeout" | "resource":
            return 3
        case "cancelled":
            return 130
        case "audit" | "sql" | "python" | "internal":
            return 1
