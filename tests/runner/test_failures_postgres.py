"""What psycopg2 really raises, on a real server, is classed as what it is."""

import socket
import threading
import time

import psycopg2
import pytest

from sqlmesh_pipes_runner.failures import classify, error_info
from support.postgres import PASSWORD, PostgresServer


@pytest.fixture
def connect(postgres_server: PostgresServer):
    """Connections that are closed after the test."""
    opened = []

    def open_one(**changes):
        settings = {
            "host": "127.0.0.1",
            "port": postgres_server.port,
            "user": "postgres",
            "password": PASSWORD,
            "dbname": "postgres",
            **changes,
        }
        connection = psycopg2.connect(**settings)
        connection.autocommit = True
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def execute(connect):
    connection = connect()

    def run(*statements: str) -> None:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    return run


def raised(function, *arguments, **named) -> psycopg2.Error:
    with pytest.raises(psycopg2.Error) as caught:
        function(*arguments, **named)
    return caught.value


@pytest.mark.parametrize(
    "statements",
    [
        ("SELEC 1",),
        ("SELECT * FROM no_such_table",),
        ("SELECT no_such_column FROM pg_class",),
        ("SELECT 'x'::int",),
        ("SELECT 1 / 0",),
        ("CREATE TEMP TABLE t (a int PRIMARY KEY)", "INSERT INTO t VALUES (1), (1)"),
        ("CREATE TEMP TABLE n (a int NOT NULL)", "INSERT INTO n VALUES (NULL)"),
    ],
)
def test_what_is_wrong_in_the_sql_is_sql_and_stays_wrong(execute, statements):
    assert classify(raised(execute, *statements)) == ("sql", False)


def test_a_statement_timeout_is_a_timeout(execute):
    assert classify(raised(execute, "SET statement_timeout = 50", "SELECT pg_sleep(5)")) == ("timeout", True)


def test_a_lock_that_is_not_had_in_time_is_a_lock(execute, connect):
    execute("CREATE TABLE IF NOT EXISTS locked (a int)")
    holder = connect()
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
    error = raised(execute, "SET lock_timeout = 50", "SELECT * FROM locked")

    assert classify(error) == ("lock", True)


def test_a_deadlock_is_a_lock(connect):
    first, second = connect(), connect()
    with first.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS dead_one, dead_two")
        cursor.execute("CREATE TABLE dead_one (a int)")
        cursor.execute("CREATE TABLE dead_two (a int)")
    errors = []
    for connection, table in ((first, "dead_one"), (second, "dead_two")):
        connection.autocommit = False
        connection.cursor().execute(f"LOCK TABLE {table}")

    def lock(connection, table):
        try:
            connection.cursor().execute(f"LOCK TABLE {table}")
        except psycopg2.Error as error:
            errors.append(error)

    threads = [
        threading.Thread(target=lock, args=arguments)
        for arguments in ((first, "dead_two"), (second, "dead_one"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert [classify(error) for error in errors] == [("lock", True)]


def test_a_session_that_the_server_ends_is_a_connection(connect):
    victim, killer = connect(), connect()
    with victim.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    with killer.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", (pid,))
    time.sleep(0.2)

    assert classify(raised(victim.cursor().execute, "SELECT 1")) == ("connection", True)


def test_a_server_that_is_not_there_is_a_connection_that_may_come(connect):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    assert classify(raised(connect, port=port)) == ("connection", True)


@pytest.mark.parametrize(
    "changes", [{"password": "wrong-password"}, {"dbname": "no_such_database"}, {"user": "nobody_here"}]
)
def test_a_connection_that_is_refused_for_good_is_not_transient(connect, changes):
    error = raised(connect, **changes)

    assert classify(error) == ("connection", False)
    assert error_info(error).error_class == "psycopg2.OperationalError"
