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
    # The first row that matches decides: the particular stands before the general.
    Rule(r"sqlmesh_pipes_runner\..*RunInterruptedError", "cancelled", True),
    Rule(r"sqlmesh_pipes_runner\..*UsageError", "config", False),
    Rule(r"sqlmesh_pipes_runner\..*RunLockedError", "lock", True),
    # SQLMesh 0.236 (sqlmesh.utils.errors)
    Rule(r"sqlmesh\..*(NodeAuditsErrors|AuditError)", "audit", False),
    # DuckDB 1.5
    Rule(
        r"_?duckdb\..*IOException", "lock", True, r"could not set lock|conflicting lock|being used by another"
    ),
    Rule(r"_?duckdb\..*IOException", "sql", False, r"no files found"),
    Rule(r"_?duckdb\..*OutOfMemoryException", "resource", True),
    Rule(r"_?duckdb\..*TransactionException", "lock", True),
    Rule(r"_?duckdb\..*(ConnectionException|HTTPException)", "connection", True),
    Rule(r"_?duckdb\..*IOException", "resource", False),
    Rule(r"_?duckdb\..*InterruptException", "cancelled", True),
    Rule(r"_?duckdb\..*(InternalException|FatalException)", "internal", False),
    Rule(r"_?duckdb\..*", "sql", False),
    # BigQuery (google.api_core.exceptions, google.auth.exceptions)
    Rule(r"google\.api_core\..*Forbidden", "resource", True, r"quota|rate.?limit"),
    Rule(r"google\.api_core\..*BadRequest", "resource", True, r"resources exceeded|rate.?limit"),
    Rule(
        r"google\.api_core\..*(Forbidden|PermissionDenied|Unauthorized|Unauthenticated)", "connection", False
    ),
    Rule(r"google\.api_core\..*(TooManyRequests|ResourceExhausted)", "resource", True),
    Rule(r"google\.api_core\..*(GatewayTimeout|DeadlineExceeded)", "timeout", True),
    Rule(r"google\.api_core\..*(Conflict|Aborted)", "lock", True, r"concurrent|transaction|aborted"),
    Rule(r"google\.api_core\..*(ServerError|RetryError)", "connection", True),
    Rule(r"google\.api_core\..*ClientError", "sql", False),
    Rule(r"google\.auth\..*TransportError", "connection", True),
    Rule(r"google\.auth\..*", "connection", False),
    # Databricks (databricks.sql.exc) and Spark
    Rule(r"databricks\.sql\..*(MaxRetryDurationError)", "timeout", True),
    Rule(
        r"databricks\.sql\..*(RequestError|SessionAlreadyClosedError|CursorAlreadyClosedError)",
        "connection",
        True,
    ),
    Rule(r"databricks\.sql\..*ServerOperationError", "lock", True, r"CONCURRENT|DELTA_CONCURRENT"),
    Rule(r"databricks\.sql\..*ServerOperationError", "sql", False),
    Rule(
        r"pyspark\..*(AnalysisException|ParseException|IllegalArgumentException|ArithmeticException)",
        "sql",
        False,
    ),
    # Trino (trino.exceptions)
    Rule(r"trino\..*TrinoUserError", "sql", False),
    Rule(r"trino\..*TrinoQueryError", "resource", True, r"INSUFFICIENT_RESOURCES|EXCEEDED_"),
    Rule(r"trino\..*(TrinoExternalError|TrinoConnectionError|Http50\d\w*Error)", "connection", True),
    Rule(r"trino\..*TrinoAuthError", "connection", False),
    Rule(r"trino\..*TrinoInternalError", "internal", True),
    # Snowflake (snowflake.connector.errors)
    Rule(r"snowflake\..*(ForbiddenError|TokenExpiredError|MissingDependencyError)", "connection", False),
    Rule(r"snowflake\..*DatabaseError", "connection", False, r"incorrect username or password|250001.*08001"),
    Rule(
        r"snowflake\..*(ServiceUnavailableError|BadGatewayError|InternalServerError|OtherHTTPRetryableError|TooManyRequests)",
        "connection",
        True,
    ),
    # ClickHouse (clickhouse_connect, clickhouse_driver): one class, the server's code in the text
    Rule(
        r"clickhouse_\w+\..*",
        "resource",
        True,
        r"code:? (241|202)\b|MEMORY_LIMIT_EXCEEDED|TOO_MANY_SIMULTANEOUS",
    ),
    Rule(r"clickhouse_\w+\..*", "timeout", True, r"code:? (159|209)\b|TIMEOUT_EXCEEDED|SOCKET_TIMEOUT"),
    Rule(r"clickhouse_\w+\..*", "connection", False, r"code:? (192|193|194|516)\b|AUTHENTICATION_FAILED"),
    Rule(r"clickhouse_\w+\..*(OperationalError|NetworkError|SocketTimeoutError)", "connection", True),
    Rule(r"clickhouse_\w+\..*(DatabaseError|ServerException)", "sql", False),
    # DB-API 2.0 (PEP 249), by the names that every driver gives its classes: PostgreSQL, Redshift, MySQL, SQL Server …
    Rule(
        r".*\.(OperationalError|InterfaceError|DatabaseError)",
        "connection",
        False,
        r"authentication failed|password|access denied|login failed|pg_hba|(role|database) .* does not exist",
    ),
    Rule(r".*\.(ProgrammingError|DataError|IntegrityError|NotSupportedError)", "sql", False),
    Rule(r".*\.(OperationalError|InterfaceError)", "connection", True),
    Rule(r".*\.(InternalError|DatabaseError)", "internal", False),
    # Parsers, the interpreter and the network
    Rule(r"sqlglot\..*", "sql", False),
    Rule(r"builtins\.MemoryError", "resource", True),
    Rule(r"builtins\.OSError", "resource", True, r"no space left|too many open files|cannot allocate memory"),
    Rule(r"socket\.gaierror", "connection", True),
    Rule(r"builtins\.TimeoutError|[\w.]*\.\w*Timeout\w*", "timeout", True),
    Rule(r"builtins\.ConnectionError|(requests|urllib3|httpx)\..*Connect\w*Error", "connection", True),
    # SQLMesh again, for what has no cause of its own
    Rule(r"sqlmesh\..*SQLMeshError", "python", False, r"empty DataFrame"),
    Rule(
        r"sqlmesh\..*SQLMeshError", "config", False, r"\(local\) is using version"
    ),  # a state of another SQLMesh
    Rule(r"sqlmesh\..*(PythonModelEvalError|SignalEvalError|MacroEvalError)", "python", False),
    Rule(
        r"sqlmesh\..*(ConfigError|MissingContextException|MissingDependencyError|StateMigrationError|PlanError|LinterError"
        r"|MissingDefaultCatalogError|SnapshotVersionError|MigrationNotSupportedError|DestructiveChangeError"
        r"|AdditiveChangeError|UnsupportedCatalogOperationError)",
        "config",
        False,
    ),
)

_SQLSTATES: tuple[tuple[str, FailureCategory, bool], ...] = (
    # PostgreSQL's appendix A; the SQL standard shares the classes, ODBC adds HYT00 and HYT01.
    ("28", "connection", False),
    ("08", "connection", True),
    ("57P", "connection", True),
    ("57014", "timeout", True),
    ("HYT0", "timeout", True),
    ("40", "lock", True),
    ("55P03", "lock", True),
    ("53", "resource", True),
    ("54", "resource", False),
    ("XX", "internal", False),
    ("2", "sql", False),
    ("42", "sql", False),
    ("44", "sql", False),
)

_ERROR_NUMBERS: tuple[tuple[str, frozenset[int], FailureCategory, bool], ...] = (
    # MySQL's server and client errors, for every driver that gives the number as the first argument.
    (r"(pymysql|MySQLdb|mysql)\..*", frozenset({1205, 1213}), "lock", True),
    (r"(pymysql|MySQLdb|mysql)\..*", frozenset({1044, 1045, 1049, 1698}), "connection", False),
    (r"(pymysql|MySQLdb|mysql)\..*", frozenset({1040, 1041, 1114, 1203}), "resource", True),
    (r"(pymysql|MySQLdb|mysql)\..*", frozenset({3024}), "timeout", True),
    (r"(pymysql|MySQLdb|mysql)\..*", frozenset(range(2000, 2100)), "connection", True),
    (r"(pymysql|MySQLdb|mysql)\..*", frozenset({*range(1046, 1100), *range(1100, 2000)}), "sql", False),
    # SQL Server's messages, and DB-Library's from 20000
    (r"pymssql\..*", frozenset({1205, 1222}), "lock", True),
    (r"pymssql\..*", frozenset({18456, 4060}), "connection", False),
    (r"pymssql\..*", frozenset({701, 8645, 10928, 10929, 40501}), "resource", True),
    (r"pymssql\..*", frozenset({20003}), "timeout", True),
    (r"pymssql\..*", frozenset(range(20000, 20100)), "connection", True),
    (r"pymssql\..*", frozenset({102, 105, 156, 207, 208, 245, 515, 547, 2627, 8134}), "sql", False),
)

_COMPILED = tuple(
    (re.compile(rule.classes), re.compile(rule.text, re.I) if rule.text else None, rule) for rule in RULES
)
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")


def error_info(error: BaseException) -> ErrorInfo:
    """The failure that an exception tells of: class and message of what SQLMesh met, category, whether it is transient.

    Texts are whole: they are cut when secrets have been masked, `sqlmesh_pipes_runner.secrets.Masker.event`.
    """
    # The text of a traceback, which Python hangs below what a worker process raised, is no cause.
    chain = [link for link in causes(error) if not _name(type(link)).endswith("RemoteTraceback")]
    # What was raised first below SQLMesh's own wrapping says it best: what lies deeper was handled, or built upon. An exit
    # says nothing: what wraps it does.
    speaking = [link for link in chain if isinstance(link, Exception)] or chain
    shown = next((link for link in speaking if not _is_sqlmesh(link)), speaking[-1])
    category, transient = classify(error)
    return ErrorInfo(
        error_class=_name(type(shown)).lstrip("_"),
        message=_text(shown).strip() or type(shown).__name__,
        category=category,
        transient=transient,
        traceback="".join(traceback.format_exception(error)),
    )


def _is_sqlmesh(error: BaseException) -> bool:
    return type(error).__module__.startswith(("sqlmesh.", "sqlmesh_pipes_runner."))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception of the user's, with a fault of its own
        return ""


def classify(error: BaseException) -> tuple[FailureCategory, bool]:
    """Category, and whether trying again can help."""
    chain = list(causes(error))
    for link in reversed(chain):
        found = _classify_one(link)
        if found is not None:
            return found
    return "internal", False


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, its cause, the cause of that … as Python would print them, each once."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _classify_one(error: BaseException) -> tuple[FailureCategory, bool] | None:
    state = _sqlstate(error)
    if state is not None:
        for prefix, category, transient in _SQLSTATES:
            if state.startswith(prefix):
                return category, transient
    names = [_name(base) for base in type(error).__mro__[:-1]]
    number = error.args[0] if error.args else None
    if isinstance(number, int):
        for classes, numbers, category, transient in _ERROR_NUMBERS:
            if number in numbers and any(re.fullmatch(classes, name) for name in names):
                return category, transient
    text = _text(error)
    for pattern, words, rule in _COMPILED:
        if any(pattern.fullmatch(name) for name in names) and (words is None or words.search(text)):
            return rule.category, rule.transient
    return None


def _sqlstate(error: BaseException) -> str | None:
    """Where drivers put it: an attribute (psycopg, psycopg2, Snowflake), the first argument (ODBC), a mapping (Redshift)."""
    # Not so for Python's own: KeyError('40123') is about a post code, not about a lock.
    first = error.args[0] if error.args and type(error).__module__ != "builtins" else None
    candidates = (
        getattr(error, "sqlstate", None),
        getattr(error, "pgcode", None),
        first.get("C") if isinstance(first, dict) else first,
    )
    for candidate in candidates:
        if isinstance(candidate, str) and _SQLSTATE.fullmatch(candidate) and any(map(str.isdigit, candidate)):
            return candidate
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
