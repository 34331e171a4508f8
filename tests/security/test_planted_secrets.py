"""Secrets are planted wherever a project has them, and looked for in everything that a run leaves: no file, no line, no process has one.

Each secret holds a mark of its own, of letters and digits, so that it is found however it is spelled. What is the project's own (its
files, SQLMesh's caches, state and warehouse) is left out: there they are at home.
"""

import base64
import json
import os
import re
import socket
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.postgres import PASSWORD
from support.watching import meanwhile

KEY = "-----BEGIN PRIVATE KEY-----\nMIIEzq7keyzq7FIRST\nMIIEzq7keyzq7SECOND\nMIIEzq7keyzq7LAST=\n-----END PRIVATE KEY-----\n"
SECRETS = {
    "SHOP_PASSWORD": "p@ss/w o'r\"d\\zq7passwordzq7%}ü",
    "SHOP_TOKEN": "zq7tokenzq7-0001",
    "SHOP_PRIVATE_KEY": KEY,
    "SHOP_SHORT_SECRET": "zq7shortzq7",
    "SHOP_URL": "postgresql://etl:zq7urlzq7%40two@db.example.org/shop",
}
"""In the environment, and from there in the configuration."""
LITERAL = {"literal": "zq7literalzq7-of-the-file", "variable": "zq7variablezq7", "attached": "zq7attachedzq7"}
"""In the configuration itself."""
NOWHERE = {"dsn": "zq7dsnzq7", "header": "zq7headerzq71", "sas": "zq7saszq7", "url": "zq7strangezq7"}
"""In nothing but what a model's exception says, where their places tell what they are."""

CONFIG = """\
gateways:
  local:
    connection:
      type: duckdb
      catalogs:
        db: "{{ env_var('TEST_DATABASE') }}"
    variables:
      api_token: zq7variablezq7
  other:
    connection:
      type: postgres
      host: db.example.org
      port: 5432
      user: etl
      password: "{{ env_var('SHOP_PASSWORD') | replace('\\\\', '\\\\\\\\') | replace('"', '\\\\"') }}"
      database: shop
    state_connection:
      type: duckdb
      token: "{{ env_var('SHOP_TOKEN') }}"
    test_connection:
      type: duckdb
      token: zq7literalzq7-of-the-file
default_gateway: local
variables:
  upstream: "{{ env_var('SHOP_URL') }}"
before_all:
  - SELECT 'dbname=x password=zq7attachedzq7' AS a
model_defaults:
  dialect: duckdb
  start: 2026-01-01
  cron: '@daily'
disable_anonymized_analytics: true
"""
RAISES = """\
import base64, json, logging, os, typing as t
from urllib.parse import quote, quote_plus
from sqlmesh import ExecutionContext, model

@model("s.raises", kind="FULL", columns={"a": "int"})
def execute(context: ExecutionContext, **kwargs: t.Any):
    names = ["SHOP_PASSWORD", "SHOP_TOKEN", "SHOP_PRIVATE_KEY", "SHOP_SHORT_SECRET", "SHOP_URL"]
    said = []
    for name in names:
        secret = os.environ[name]
        said += [secret, repr(secret), json.dumps(secret), quote(secret, safe=""), quote_plus(secret), secret.replace("'", "''")]
        if name != "SHOP_URL":  # of which the password alone is secret
            said.append(base64.b64encode(secret.encode()).decode())
        said += [json.dumps({"password": secret}), repr({"x": {"password": secret}})]
        said.append("    ".join(secret.splitlines(True)))
    said += ["zq7literalzq7-of-the-file", "zq7variablezq7", "host=h password=zq7dsnzq7 user=u", "Authorization: Bearer zq7headerzq71"]
    said += ["https://x.blob/a?sv=1&sig=zq7saszq7&se=2", "mysql://u:zq7strangezq7@h/d", "ATTACH 'dbname=x password=zq7attachedzq7'"]
    logging.getLogger("sqlmesh.shop").warning("logged: %s", " ".join(said))
    connect(" | ".join(said), password=os.environ["SHOP_PASSWORD"])

def connect(dsn, password):
    raise ValueError("cannot connect: " + dsn)
"""
DATABASE = """\
import os, typing as t
import psycopg2
from sqlmesh import ExecutionContext, model

@model("s.connects", kind="FULL", columns={"a": "int"})
def execute(context: ExecutionContext, **kwargs: t.Any):
    try:
        psycopg2.connect("host=127.0.0.1 port=1 user=etl password=zq7dsnzq7 connect_timeout=2")
    except psycopg2.OperationalError as error:
        psycopg2.connect("zq7shortzq7 " + os.environ["SHOP_URL"])  # no connection string: quoted by the driver
"""
FILES = {
    "config.yaml": CONFIG,
    "models/raises.py": RAISES,
    "models/connects.py": DATABASE,
    "models/ok.sql": """\
MODEL (name s.ok, kind FULL, description 'from https://etl:zq7strangezq7@example.org/x', audits (leaks));
SELECT 1 AS a, 'dbname=x password=zq7dsnzq7' AS b""",
    "models/blocked.sql": """\
MODEL (name s.blocked, kind FULL, audits (blocks));
SELECT 'zq7literalzq7-of-the-file' AS a""",
    "models/errs.sql": """\
MODEL (name s.errs, kind FULL);
SELECT error('refused: zq7tokenzq7-0001 and postgres://u:zq7strangezq7@h/d') AS a""",
    "audits/leaks.sql": """\
AUDIT (name leaks, blocking false);
SELECT * FROM @this_model WHERE 'zq7tokenzq7-0001' <> 'host=h password=zq7dsnzq7'""",
    "audits/blocks.sql": """\
AUDIT (name blocks);
SELECT * FROM @this_model WHERE 'zq7shortzq7' <> ''""",
}
MARK = re.compile(rb"zq7(?:[a-z]+)zq7")


def found_in(content: bytes) -> set[str]:
    """Marks in the content, as they are and in Base64."""
    marks = {mark.decode() for mark in MARK.findall(content)}
    for piece in re.findall(rb"[A-Za-z0-9+/]{16,}={0,2}", content):
        for start in range(4):
            whole = piece[start : start + (len(piece) - start) // 4 * 4]
            marks |= {f"{mark.decode()} in Base64" for mark in MARK.findall(base64.b64decode(whole))}
    return marks


AT_HOME = re.compile(r"(^|/)project/(config\.ya?ml|config\.py|models/|audits/|\.cache/)|\.duckdb(\.wal)?$")


def unpacked(database: Path) -> bytes:
    """What Dagster has compressed in its tables."""
    found = []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    if isinstance(value, bytes):
                        with suppress(zlib.error):
                            found.append(zlib.decompress(value))
    return b"\n".join(found)


def leaks_in(*places: Path) -> dict[str, set[str]]:
    """Files that have a mark and are not the project's own."""
    leaks = {}
    for place in places:
        for path in place.rglob("*"):
            if path.is_file() and not AT_HOME.search(path.as_posix()):
                marks = found_in(path.read_bytes()) | found_in(os.fsencode(path.name))
                if path.suffix == ".db":
                    marks |= found_in(unpacked(path))
                if marks:
                    leaks[str(path.relative_to(place))] = marks
    return leaks


@dataclass
class Watched:
    """What could be seen from outside while something ran."""

    command_lines: set[bytes] = field(default_factory=set)
    temporary: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def watched(temporary: Path) -> Iterator[Watched]:
    """Look at all command lines and at a folder for temporary files, again and again."""
    seen = Watched()

    def look() -> None:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                seen.command_lines.add((process / "cmdline").read_bytes())
        for path in temporary.rglob("*"):
            with suppress(OSError):
                if path.is_file():
                    seen.temporary[path.name] = path.read_bytes()

    with meanwhile(look, every=0.02):
        yield seen


@pytest.fixture
def shop(make_warehouse, temporary):
    return make_warehouse(files=FILES, **SECRETS)


def test_the_search_finds_what_is_planted(tmp_path):
    (tmp_path / "a").write_bytes(b"x" + SECRETS["SHOP_PASSWORD"].encode())
    (tmp_path / "b").write_bytes(b"\0\xff" + base64.b64encode(b"ab" + SECRETS["SHOP_TOKEN"].encode()) + b"\n")
    (tmp_path / "c").write_bytes(KEY.replace("\n", "\\n").encode())
    (tmp_path / "d").write_bytes(b"zq7 and zq7, *** and more")

    assert leaks_in(tmp_path) == {
        "a": {"zq7passwordzq7"},
        "b": {"zq7tokenzq7 in Base64"},
        "c": {"zq7keyzq7"},
    }


def test_a_run_by_itself_leaves_no_secret_anywhere(shop, tmp_path, temporary):
    out = tmp_path / "out"
    out.mkdir()
    arguments = [
        *("run", "prod", "--project", str(shop.path), "--verbose", "--github"),
        *(
            "--events",
            str(out / "events.jsonl"),
            "--junit",
            str(out / "junit.xml"),
            "--markdown",
            str(out / "summary.md"),
        ),
    ]
    with watched(temporary) as seen:
        done = shop.runner(*arguments)
    (out / "stdout").write_text(done.stdout)
    (out / "stderr").write_text(done.stderr)
    for form in ("table", "markdown", "junit", "json", "github"):
        (out / f"report.{form}").write_text(
            shop.runner(
                "report", str(out / "events.jsonl"), "--format", form, "--project", str(shop.path)
            ).stdout
        )
    told = shop.runner("reconcile", "--events", str(out / "events.jsonl"), "--project", str(shop.path))
    (out / "reconcile").write_text(told.stdout + told.stderr)

    assert done.returncode == 1, done.stderr
    text = (out / "events.jsonl").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    failed = {event["model"] for event in events if event["kind"] == "model_failed"}
    assert failed == {f'"db"."s"."{name}"' for name in ("raises", "connects", "errs", "blocked")}
    assert "cannot connect: ***" in text
    assert "logged: ***" in text
    assert "password=***" in (out / "junit.xml").read_text()
    assert leaks_in(tmp_path) == {}
    assert found_in(b"\n".join(seen.command_lines)) == set()
    assert found_in(b"\n".join(seen.temporary.values())) == set()


def test_a_run_under_dagster_leaves_no_secret_anywhere(shop, tmp_path, instance, temporary):
    with watched(temporary) as seen:
        outcome = shop.materialize(instance)

    assert not outcome.success
    assert set(outcome.materialized) == {"s/ok"}
    assert "cannot connect: ***" in outcome.failure
    assert outcome.checks["s/ok", "leaks"].passed is False
    assert "***" in str(outcome.checks["s/ok", "leaks"].metadata["query"].value)
    logs = [path for path in tmp_path.rglob("*.err") if b"SQLMesh" in path.read_bytes()]
    assert logs, "the compute log is among what was looked through"
    assert leaks_in(tmp_path) == {}
    assert found_in(b"\n".join(seen.command_lines)) == set()
    assert any(b"sqlmesh-runner\0run\0" in line for line in seen.command_lines)
    assert found_in(b"\n".join(seen.temporary.values())) == set()


@pytest.mark.parametrize(
    "command",
    [("manifest",), ("due", "prod"), ("doctor", "prod"), ("reconcile", "prod", "--since", "1 day ago")],
    ids=lambda c: c[0],
)
def test_what_a_question_is_answered_with_has_no_secret(command, shop, tmp_path, temporary):
    done = shop.runner(*command, "--project", str(shop.path))
    (tmp_path / "stdout").write_text(done.stdout)
    (tmp_path / "stderr").write_text(done.stderr)

    assert done.returncode == 0, done.stderr
    assert leaks_in(tmp_path) == {}


def test_the_manifest_has_queries_without_secrets_and_all_the_rest(shop):
    text = (shop.path / "sqlmesh_manifest.json").read_text()

    assert "password=***" in text
    assert "https://***@example.org/x" in text
    assert "MODEL" not in text
    assert "error('refused: *** and postgres://***@h/d')" in text.replace("ERROR", "error")


# On PostgreSQL, where a connection itself fails


def run_and_look(warehouse, tmp_path, *more):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    done = warehouse.runner(
        *("run", "prod", "--project", str(warehouse.path), "--verbose", "--github"),
        *(
            "--events",
            str(out / "events.jsonl"),
            "--junit",
            str(out / "junit.xml"),
            "--markdown",
            str(out / "summary.md"),
        ),
        *more,
    )
    (out / "stdout").write_text(done.stdout)
    (out / "stderr").write_text(done.stderr)
    for command in (
        ["due", "prod"],
        ["doctor", "prod"],
        ["manifest", "--environment", "prod", "--output", str(out / "manifest.json")],
    ):
        told = warehouse.runner(*command, "--project", str(warehouse.path))
        assert told.returncode != 0
        (out / command[0]).write_text(told.stdout + told.stderr)
    return done, (out / "events.jsonl").read_text()


@pytest.fixture
def on_postgres(make_warehouse, postgres_server, temporary):
    """A warehouse whose configuration has another password, and another port, than the server."""

    def make(password: str, port: int | None = None):
        warehouse = make_warehouse({"s.ok": "SELECT 1 AS a"}, engine="postgres", SHOP_PASSWORD=password)
        config = warehouse.path / "config.yaml"
        text = config.read_text().replace(PASSWORD, "\"{{ env_var('SHOP_PASSWORD') }}\"")
        config.write_text(text)
        if port is not None:
            warehouse.env["TEST_PORT"] = str(port)
        return warehouse

    return make


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_wrong_password_is_told_without_it(on_postgres, tmp_path, instance):
    warehouse = on_postgres("zq7passwordzq7-wrong")

    done, events = run_and_look(warehouse, tmp_path)
    outcome = warehouse.materialize(instance)

    assert done.returncode == 3, done.stderr
    assert "password authentication failed" in events
    assert '"category":"connection"' in events
    assert "password authentication failed" in outcome.failure
    assert leaks_in(tmp_path) == {}


def test_a_server_that_is_not_there_is_told_without_the_password(on_postgres, tmp_path, instance):
    warehouse = on_postgres("zq7passwordzq7-refused", port=free_port())

    done, events = run_and_look(warehouse, tmp_path)
    outcome = warehouse.materialize(instance)

    assert done.returncode == 3, done.stderr
    assert "Connection refused" in events
    assert not outcome.success
    assert leaks_in(tmp_path) == {}


def test_a_right_password_with_special_characters_is_nowhere(on_postgres, tmp_path, postgres_server):
    odd = "zq7passwordzq7/@:%&?#"
    role = f"odd_{os.getpid()}"
    postgres_server.execute(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{odd}'")
    warehouse = on_postgres(odd)
    config = warehouse.path / "config.yaml"
    config.write_text(config.read_text().replace("user: postgres", f"user: {role}"))
    out = tmp_path / "out"
    out.mkdir()

    done = warehouse.runner(
        *("run", "prod", "--project", str(warehouse.path), "--events", str(out / "events.jsonl"), "--verbose")
    )
    (out / "output").write_text(done.stdout + done.stderr)

    assert done.returncode == 0, done.stderr
    assert leaks_in(tmp_path) == {}
