"""Every failure has a category, and says whether trying again can help."""

import socket
import subprocess
import sys
from typing import get_args

import duckdb
import pytest

from sqlmesh_pipes_protocol.events import FailureCategory
from sqlmesh_pipes_runner.errors import RunInterruptedError, UsageError
from sqlmesh_pipes_runner.failures import RULES, causes, classify, error_info, exit_code_of


def made_up(qualified, *bases, message="it went wrong", **attributes):
    """An exception of a class of this name; nothing of its package has to be installed."""
    module, _, name = qualified.rpartition(".")
    return type(name, bases or (Exception,), {"__module__": module, **attributes})(message)


NAMES = [
    # class, message, category, transient
    ("sqlmesh_pipes_runner.errors.RunInterruptedError", "", "cancelled", True),
    ("sqlmesh_pipes_runner.errors.UsageError", "", "config", False),
    ("sqlmesh_pipes_runner.errors.RunLockedError", "", "lock", True),
    ("sqlmesh.utils.errors.NodeAuditsErrors", "", "audit", False),
    ("sqlmesh.utils.errors.AuditError", "", "audit", False),
    ("_duckdb.IOException", 'IO Error: Could not set lock on file "db"', "lock", True),
    ("duckdb.duckdb.IOException", "Conflicting lock is held in python", "lock", True),
    ("_duckdb.IOException", "the file is being used by another process", "lock", True),
    ("_duckdb.IOException", "IO Error: no space left on device", "resource", False),
    ("_duckdb.IOException", 'IO Error: No files found that match the pattern "x/*.csv"', "sql", False),
    ("duckdb.OutOfMemoryException", "", "resource", True),
    ("_duckdb.TransactionException", "", "lock", True),
    ("_duckdb.ConnectionException", "", "connection", True),
    ("_duckdb.HTTPException", "", "connection", True),
    ("_duckdb.InterruptException", "", "cancelled", True),
    ("_duckdb.InternalException", "", "internal", False),
    ("_duckdb.FatalException", "", "internal", False),
    ("_duckdb.BinderException", "", "sql", False),
    ("sqlglot.errors.ParseError", "", "sql", False),
    ("google.api_core.exceptions.Forbidden", "403 Quota exceeded", "resource", True),
    ("google.api_core.exceptions.Forbidden", "403 no permission", "connection", False),
    ("google.api_core.exceptions.BadRequest", "400 Resources exceeded during query", "resource", True),
    ("google.api_core.exceptions.TooManyRequests", "", "resource", True),
    ("google.api_core.exceptions.GatewayTimeout", "", "timeout", True),
    ("google.api_core.exceptions.Conflict", "transaction is aborted", "lock", True),
    ("google.api_core.exceptions.ServerError", "", "connection", True),
    ("google.api_core.exceptions.ClientError", "400 Syntax error", "sql", False),
    ("google.auth.exceptions.TransportError", "", "connection", True),
    ("google.auth.exceptions.DefaultCredentialsError", "", "connection", False),
    ("databricks.sql.exc.MaxRetryDurationError", "", "timeout", True),
    ("databricks.sql.exc.RequestError", "", "connection", True),
    ("databricks.sql.exc.ServerOperationError", "[DELTA_CONCURRENT_APPEND]", "lock", True),
    ("databricks.sql.exc.ServerOperationError", "[TABLE_OR_VIEW_NOT_FOUND]", "sql", False),
    ("pyspark.errors.exceptions.base.AnalysisException", "", "sql", False),
    ("trino.exceptions.TrinoUserError", "", "sql", False),
    ("trino.exceptions.TrinoQueryError", "INSUFFICIENT_RESOURCES", "resource", True),
    ("trino.exceptions.TrinoExternalError", "", "connection", True),
    ("trino.exceptions.Http503Error", "", "connection", True),
    ("trino.exceptions.TrinoAuthError", "", "connection", False),
    ("trino.exceptions.TrinoInternalError", "", "internal", True),
    ("snowflake.connector.errors.ForbiddenError", "", "connection", False),
    ("snowflake.connector.errors.DatabaseError", "Incorrect username or password", "connection", False),
    ("snowflake.connector.errors.ServiceUnavailableError", "", "connection", True),
    ("clickhouse_connect.driver.exceptions.DatabaseError", "code: 241", "resource", True),
    ("clickhouse_driver.errors.ServerException", "Code: 159.", "timeout", True),
    ("clickhouse_connect.driver.exceptions.DatabaseError", "AUTHENTICATION_FAILED", "connection", False),
    ("clickhouse_driver.errors.NetworkError", "", "connection", True),
    ("clickhouse_connect.driver.exceptions.DatabaseError", "code: 60", "sql", False),
    ("pymssql.exceptions.OperationalError", "Login failed for user", "connection", False),
    ("urllib3.exceptions.NewConnectionError", "", "connection", True),
    ("httpx.ConnectError", "", "connection", True),
    ("builtins.MemoryError", "", "resource", True),
    ("builtins.OSError", "[Errno 28] No space left on device", "resource", True),
    ("builtins.OSError", "[Errno 24] Too many open files", "resource", True),
    ("builtins.OSError", "[Errno 2] No such file or directory", "internal", False),
    ("socket.gaierror", "[Errno -2] Name or service not known", "connection", True),
    ("builtins.TimeoutError", "", "timeout", True),
    ("requests.exceptions.ReadTimeout", "", "timeout", True),
    ("urllib3.exceptions.ConnectTimeoutError", "", "timeout", True),
    ("psycopg2.errors.ProgrammingError", "", "sql", False),
    ("snowflake.connector.errors.ProgrammingError", "", "sql", False),
    ("pymysql.err.DataError", "", "sql", False),
    ("psycopg.IntegrityError", "", "sql", False),
    ("pyodbc.NotSupportedError", "", "sql", False),
    ("psycopg2.OperationalError", 'password authentication failed for user "etl"', "connection", False),
    ("psycopg2.OperationalError", 'FATAL: role "etl" does not exist', "connection", False),
    ("psycopg2.OperationalError", 'FATAL: database "shop" does not exist', "connection", False),
    ("psycopg2.OperationalError", "FATAL:  no pg_hba.conf entry for host", "connection", False),
    ("psycopg2.OperationalError", "connection refused", "connection", True),
    ("psycopg2.InterfaceError", "connection already closed", "connection", True),
    ("psycopg2.InternalError", "", "internal", False),
    ("some.driver.DatabaseError", "", "internal", False),
    ("sqlmesh.utils.errors.PythonModelEvalError", "", "python", False),
    ("sqlmesh.utils.errors.SignalEvalError", "", "python", False),
    ("sqlmesh.utils.errors.MacroEvalError", "", "python", False),
    ("sqlmesh.utils.errors.ConfigError", "", "config", False),
    ("sqlmesh.utils.errors.MissingContextException", "", "config", False),
    ("sqlmesh.utils.errors.MissingDependencyError", "", "config", False),
    ("sqlmesh.utils.errors.StateMigrationError", "", "config", False),
    ("sqlmesh.utils.errors.PlanError", "", "config", False),
    (
        "sqlmesh.utils.errors.SQLMeshError",
        "Cannot construct source query from an empty DataFrame",
        "python",
        False,
    ),
    (
        "sqlmesh.utils.errors.SQLMeshError",
        "SQLMesh (local) is using version '102' which is ahead of '101' (remote). Please run a migration.",
        "config",
        False,
    ),
    ("sqlmesh.utils.errors.LinterError", "", "config", False),
    ("sqlmesh.utils.errors.MissingDefaultCatalogError", "", "config", False),
    ("sqlmesh.utils.errors.SnapshotVersionError", "", "config", False),
    ("sqlmesh.utils.errors.MigrationNotSupportedError", "", "config", False),
    ("sqlmesh.utils.errors.DestructiveChangeError", "", "config", False),
    ("sqlmesh.utils.errors.AdditiveChangeError", "", "config", False),
    ("sqlmesh.utils.errors.UnsupportedCatalogOperationError", "", "config", False),
    ("somebody.elses.StrangeError", "", "internal", False),
    ("not_sqlmesh.ConfigError", "", "internal", False),  # names count with their module
]


@pytest.mark.parametrize(("qualified", "message", "category", "transient"), NAMES)
def test_the_class_name_decides(qualified, message, category, transient):
    assert classify(made_up(qualified, message=message)) == (category, transient)


@pytest.mark.parametrize(
    ("error", "category", "transient"),
    [
        (KeyboardInterrupt(), "internal", False),
        (MemoryError(), "resource", True),
        (TimeoutError(), "timeout", True),
        (ConnectionRefusedError(), "connection", True),  # by its base
        (BrokenPipeError(), "connection", True),
        (socket.gaierror(-2, "Name or service not known"), "connection", True),
        (OSError(28, "No space left on device"), "resource", True),
        (FileNotFoundError(2, "No such file or directory"), "internal", False),
        (RunInterruptedError("SIGTERM"), "cancelled", True),
        (UsageError("no such thing"), "config", False),
        (ValueError("?"), "internal", False),
    ],
)
def test_real_classes_are_known_by_their_own_name_or_a_base(error, category, transient):
    assert classify(error) == (category, transient)


def test_a_subclass_of_a_known_class_is_known():
    base = type(made_up("psycopg2.OperationalError"))

    assert classify(made_up("acme.db.PoolExhausted", base)) == ("connection", True)


def test_every_row_of_the_table_decides_some_case():
    import re

    cases = [
        *NAMES,
        ("builtins.ConnectionError", "", "", False),
    ]
    deciding = set()
    for qualified, message, *_ in cases:
        for place, rule in enumerate(RULES):
            if re.fullmatch(rule.classes, qualified) and (
                rule.text is None or re.search(rule.text, message, re.I)
            ):
                deciding.add(place)
                break

    assert [RULES[place].classes for place in range(len(RULES)) if place not in deciding] == []


@pytest.mark.parametrize("attribute", ["pgcode", "sqlstate"])  # psycopg2's name, and psycopg's
@pytest.mark.parametrize(
    ("state", "category", "transient"),
    [
        ("28P01", "connection", False),  # wrong password
        ("28000", "connection", False),
        ("08006", "connection", True),
        ("57P01", "connection", True),  # the server shuts down
        ("57P03", "connection", True),
        ("57014", "timeout", True),  # statement timeout
        ("40001", "lock", True),  # serialization failure
        ("40P01", "lock", True),  # deadlock
        ("55P03", "lock", True),
        ("HYT00", "timeout", True),
        ("54001", "resource", False),
        ("53100", "resource", True),
        ("53300", "resource", True),
        ("XX000", "internal", False),
        ("22012", "sql", False),  # division by zero
        ("23505", "sql", False),  # unique violation
        ("42P01", "sql", False),  # no such table
        ("42601", "sql", False),
        ("44000", "sql", False),
    ],
)
def test_a_sqlstate_goes_before_the_class_name(attribute, state, category, transient):
    error = made_up("psycopg2.OperationalError", **{attribute: state})

    assert classify(error) == (category, transient)


def test_a_sqlstate_is_read_where_odbc_and_redshift_put_it():
    for first in ("40001", {"S": "ERROR", "C": "40001"}):
        error = made_up("pyodbc.Error")
        error.args = (first, "deadlock victim")

        assert classify(error) == ("lock", True)


@pytest.mark.parametrize("value", ["40123", "53100", "08001", 1205])
def test_an_error_of_python_that_looks_like_a_sqlstate_is_none(value):
    assert classify(KeyError(value)) == ("internal", False)


@pytest.mark.parametrize(
    ("qualified", "number", "category", "transient"),
    [
        ("pymysql.err.OperationalError", 1205, "lock", True),
        ("MySQLdb.OperationalError", 1213, "lock", True),
        ("pymysql.err.OperationalError", 1045, "connection", False),
        ("pymysql.err.OperationalError", 1040, "resource", True),
        ("pymysql.err.OperationalError", 3024, "timeout", True),
        ("pymysql.err.OperationalError", 2003, "connection", True),
        ("pymysql.err.OperationalError", 1054, "sql", False),
        ("pymssql.exceptions.OperationalError", 1205, "lock", True),
        ("pymssql.exceptions.OperationalError", 18456, "connection", False),
        ("pymssql.exceptions.OperationalError", 701, "resource", True),
        ("pymssql.exceptions.OperationalError", 20003, "timeout", True),
        ("pymssql.exceptions.OperationalError", 20009, "connection", True),
        ("pymssql.exceptions.OperationalError", 208, "sql", False),
        ("other.OperationalError", 208, "connection", True),  # the numbers are those of one server
    ],
)
def test_an_error_number_of_the_server_decides(qualified, number, category, transient):
    error = made_up(qualified)
    error.args = (number, "what the server says")

    assert classify(error) == (category, transient)


@pytest.mark.parametrize("state", [None, "", "HY000", 42])
def test_a_sqlstate_that_says_nothing_leaves_it_to_the_class_name(state):
    error = made_up("psycopg2.OperationalError", pgcode=state, message="connection refused")

    assert classify(error) == ("connection", True)


def raised(error):
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def from_cause(outer, cause):
    with pytest.raises(type(outer)) as caught:  # noqa: PT012 - the chain is made here
        try:
            raise cause
        except type(cause) as inner:
            raise outer from inner
    return caught.value


def in_context(outer, context, *, suppress=False):
    with pytest.raises(type(outer)) as caught:  # noqa: PT012 - the chain is made here
        try:
            raise context
        except type(context):
            if suppress:
                raise outer from None
            raise outer  # noqa: B904 - that is what is tested
    return caught.value


def python_model_error():
    return made_up("sqlmesh.utils.errors.PythonModelEvalError")


def test_the_deepest_known_cause_decides():
    database = made_up("psycopg2.OperationalError", message="connection refused")
    error = from_cause(made_up("sqlmesh.core.scheduler.NodeExecutionFailedError"), database)

    assert classify(from_cause(python_model_error(), error)) == ("connection", True)


def test_what_a_python_model_raises_is_python_whatever_it_is():
    assert classify(in_context(python_model_error(), KeyError("price"))) == ("python", False)


def test_an_unknown_cause_does_not_hide_a_known_error_above_it():
    assert classify(from_cause(made_up("sqlmesh.utils.errors.ConfigError"), KeyError("x"))) == (
        "config",
        False,
    )


def test_an_implicit_context_counts_unless_it_was_suppressed():
    database = made_up("psycopg2.OperationalError", message="connection refused")

    assert classify(in_context(ValueError("?"), database)) == ("connection", True)
    assert classify(in_context(ValueError("?"), database, suppress=True)) == ("internal", False)


def test_an_explicit_cause_goes_before_the_context():
    error = in_context(ValueError("outer"), KeyError("context"))
    error.__cause__ = TimeoutError("cause")

    assert [type(link) for link in causes(error)] == [ValueError, TimeoutError]


def test_a_chain_that_bites_its_tail_is_walked_once():
    first, second = ValueError("first"), TimeoutError("second")
    first.__cause__, second.__context__ = second, first

    assert list(causes(first)) == [first, second]
    assert classify(first) == ("timeout", True)
    assert error_info(first).message == "first"


def duckdb_error(run):
    with pytest.raises(duckdb.Error) as caught:
        run(duckdb.connect())
    return caught.value


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELEKT 1", "ParserException"),
        ("SELECT * FROM nowhere", "CatalogException"),
        ("SELECT 'one'::INT", "ConversionException"),
        ("SELECT nope FROM (SELECT 1 AS a)", "BinderException"),
    ],
)
def test_real_errors_of_duckdb_in_a_query_are_sql(sql, name):
    error = duckdb_error(lambda connection: connection.execute(sql))

    assert type(error).__name__ == name
    assert classify(error) == ("sql", False)


def test_a_real_closed_connection_of_duckdb_is_a_connection_failure():
    def run(connection):
        connection.close()
        connection.execute("SELECT 1")

    assert classify(duckdb_error(run)) == ("connection", True)


def test_a_real_transaction_conflict_of_duckdb_is_a_lock_and_transient():
    def run(connection):
        connection.execute("CREATE TABLE t AS SELECT 1 AS a")
        other = connection.cursor()
        for cursor in (connection, other):
            cursor.execute("BEGIN")
            cursor.execute("UPDATE t SET a = a + 1")

    assert classify(duckdb_error(run)) == ("lock", True)


def test_a_real_file_locked_by_another_process_is_a_lock_and_transient(tmp_path):
    path = tmp_path / "locked.duckdb"
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(duckdb.Error) as caught:
                duckdb.connect(str(path))
        finally:
            holder.stdin.close()
            holder.wait(20)

    assert classify(caught.value) == ("lock", True)


def test_a_real_query_that_does_not_fit_into_memory_is_a_resource_failure():
    def run(connection):
        connection.execute("SET memory_limit = '10MB'; SET temp_directory = ''")
        connection.execute("SELECT list(range) FROM range(10_000_000)").fetchall()

    assert classify(duckdb_error(run)) == ("resource", True)


def scheduler_error(message="evaluation failed"):
    """SQLMesh's own wrapping."""
    return made_up("sqlmesh.utils.concurrency.NodeExecutionFailedError", message=message)


def test_error_info_tells_of_what_sqlmesh_met_and_shows_the_whole_chain():
    cause = raised(duckdb_error(lambda connection: connection.execute("SELECT 'one'::INT")))
    info = error_info(from_cause(scheduler_error(), cause))

    assert info.error_class == "duckdb.ConversionException"  # `_duckdb` is where DuckDB 1.5 keeps it
    assert "Could not convert string 'one'" in info.message
    assert (info.category, info.transient) == ("sql", False)
    assert "evaluation failed" in info.traceback
    assert "ConversionException" in info.traceback


def test_what_was_raised_below_sqlmeshs_wrapping_is_shown_and_not_what_it_was_made_of():
    handled = from_cause(ValueError("the price of order 7 is no number"), KeyError("price"))
    info = error_info(from_cause(scheduler_error(), from_cause(python_model_error(), handled)))

    assert (info.error_class, info.message) == (
        "builtins.ValueError",
        "the price of order 7 is no number",
    )
    assert info.category == "python"
    assert "KeyError" in info.traceback


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("sqlmesh.utils.errors.PlanError", "sqlmesh.utils.errors.ConfigError"),
        ("sqlmesh_pipes_runner.errors.RunnerError", "sqlmesh.utils.errors.ConfigError"),
    ],
)
def test_where_all_is_sqlmeshs_own_the_deepest_is_shown(outer, inner):
    info = error_info(from_cause(made_up(outer), made_up(inner, message="no dialect")))

    assert (info.error_class, info.message) == (inner, "no dialect")


def test_a_module_whose_name_only_begins_like_sqlmesh_is_not_sqlmeshs_own():
    info = error_info(from_cause(made_up("sqlmesh_extras.Error", message="mine"), KeyError("deeper")))

    assert (info.error_class, info.message) == ("sqlmesh_extras.Error", "mine")


def test_the_category_is_that_of_the_deepest_known_cause_whatever_is_shown():
    database = made_up("psycopg2.OperationalError", message="connection refused")
    info = error_info(from_cause(scheduler_error(), from_cause(RuntimeError("no prices today"), database)))

    assert info.message == "no prices today"
    assert (info.category, info.transient) == ("connection", True)


def test_the_error_from_a_worker_process_is_what_was_raised_there():
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(ValueError) as caught:  # noqa: PT011 - any
        pool.submit(int, "one").result(30)
    info = error_info(from_cause(scheduler_error("loading failed"), caught.value))

    assert info.error_class == "builtins.ValueError"
    assert info.message.startswith("invalid literal for int()")


def test_an_error_that_cannot_be_printed_is_told_by_its_class():
    class OddError(Exception):
        def __str__(self):
            raise RuntimeError("no")

    info = error_info(from_cause(scheduler_error(), OddError()))

    assert info.message == "OddError"
    assert info.category == "internal"


def test_an_error_without_a_message_is_told_by_its_class():
    assert error_info(KeyboardInterrupt()).message == "KeyboardInterrupt"
    assert error_info(ValueError("  \n")).message == "ValueError"


def test_texts_are_whole_whatever_their_length():
    """They are cut where secrets are masked, and after that: half a secret would not be found."""
    message = "begin" + "x" * 300_000 + "the end"
    info = error_info(raised(ValueError(message)))

    assert info.message == message
    assert info.traceback.startswith("Traceback ")
    assert info.traceback.endswith(f"ValueError: {message}\n")


def test_an_error_that_was_never_raised_has_a_traceback_of_one_line():
    assert error_info(ValueError("x")).traceback == "ValueError: x\n"


@pytest.mark.parametrize(
    ("category", "code"),
    [
        ("audit", 1),
        ("sql", 1),
        ("python", 1),
        ("internal", 1),
        ("config", 2),
        ("connection", 3),
        ("lock", 3),
        ("timeout", 3),
        ("resource", 3),
        ("cancelled", 130),
    ],
)
def test_a_category_has_an_exit_status(category, code):
    assert exit_code_of(category) == code


def test_the_exit_statuses_above_are_those_of_all_categories():
    codes = {category: exit_code_of(category) for category in get_args(FailureCategory)}

    assert None not in codes.values()
    assert set(codes.values()) == {1, 2, 3, 130}


def test_the_rows_for_sqlmesh_name_classes_that_the_installed_sqlmesh_has():
    """A renamed class would turn its row into one that never decides."""
    from sqlmesh.utils import errors

    for name in (
        "NodeAuditsErrors",
        "AuditError",
        "PythonModelEvalError",
        "SignalEvalError",
        "MacroEvalError",
        "ConfigError",
        "MissingContextException",
        "MissingDependencyError",
        "StateMigrationError",
        "PlanError",
        "LinterError",
        "MissingDefaultCatalogError",
        "SnapshotVersionError",
        "MigrationNotSupportedError",
        "DestructiveChangeError",
        "AdditiveChangeError",
        "UnsupportedCatalogOperationError",
    ):
        assert hasattr(errors, name), f"sqlmesh.utils.errors has no {name}: read what took its place"
