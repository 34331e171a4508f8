"""``doctor`` names what is wrong with a set-up, and nothing else: by the line that fails, the exit status and what to do."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import zlib
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from sqlmesh.core.console import NoopConsole
from sqlmesh.core.state_sync.base import SCHEMA_VERSION

from sqlmesh_pipes_protocol import RunRequest
from sqlmesh_pipes_runner.adapter import console_replaced
from support.postgres import PASSWORD, PostgresServer

CHECKS = (
    "project",
    "versions",
    "configuration",
    "lock",
    "warehouse",
    "state",
    "migration",
    "environment",
    "manifest",
    "pipes",
)


def examined(warehouse, *arguments):
    """The exit status and the checks by name, of a doctor in this process."""
    result = warehouse.invoke("doctor", *arguments, "--format", "json")
    return judged(result.exit_code, result.stdout)


def judged(exit_code, output):
    report = json.loads(output)
    assert report["exit_code"] == exit_code
    assert tuple(check["name"] for check in report["checks"]) == CHECKS
    checks = {check["name"]: check for check in report["checks"]}
    for check in checks.values():
        assert (check["advice"] is not None) == (check["status"] == "not_ok")
    return exit_code, checks


def not_ok(checks):
    return [name for name, check in checks.items() if check["status"] == "not_ok"]


def unknown(checks):
    return [name for name, check in checks.items() if check["status"] == "unknown"]


def state_tables(database):
    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables ORDER BY ALL"
        ).fetchall()


def in_state(warehouse, statement):
    with duckdb.connect(str(warehouse.database)) as connection:
        connection.execute(statement)


@contextmanager
def held(database):
    """Another process has the file open."""
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            yield holder.pid
        finally:
            holder.stdin.close()
            holder.wait(20)


def test_a_sound_project_is_ok_in_every_line_and_stays_as_it_is(warehouse):
    def content():
        return {path: path.read_bytes() for path in warehouse.path.parent.rglob("*") if path.is_file()}

    before = content()
    exit_code, checks = examined(warehouse, "prod")

    assert exit_code == 0
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert checks["project"]["found"] == str(warehouse.path)
    assert "SQLMesh 0." in checks["versions"]["found"]
    assert (
        checks["configuration"]["found"]
        == f"gateway 'local': duckdb {warehouse.database}; state: in the same place"
    )
    assert checks["lock"]["found"] == f"{warehouse.database}: held by nobody"
    assert f"schema {SCHEMA_VERSION}" in checks["migration"]["found"]
    assert checks["environment"]["found"].startswith("'prod': 6 models, finalized at 2")
    assert "there is none at" in checks["manifest"]["found"]
    assert checks["pipes"]["found"] == "not started by Dagster"
    assert content() == before


def test_the_default_environment_is_the_projects(warehouse):
    (warehouse.path / "config.yaml").write_text(
        (warehouse.path / "config.yaml").read_text() + "default_target_environment: elsewhere\n"
    )
    exit_code, checks = examined(warehouse)

    assert (exit_code, not_ok(checks)) == (2, ["environment"])
    assert "There is no environment 'elsewhere'" in checks["environment"]["found"]


def test_people_read_a_line_a_check_and_below_it_what_to_do(warehouse):
    result = warehouse.invoke("doctor", "nowhere")

    assert result.exit_code == 2
    assert result.stderr == ""
    marks = [line.split()[0] for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert marks == ["ok"] * 7 + ["NOT"] + ["ok"] * 2
    rows = result.stdout.splitlines()
    place = next(number for number, row in enumerate(rows) if row.startswith("NOT OK  environment"))
    assert "There is no environment 'nowhere' in the state of gateway 'local' (it has prod)." in rows[place]
    assert rows[place + 1].strip() == "Create it with `sqlmesh plan nowhere`."


# A project that is not there, or cannot be read.


def test_no_directory(warehouse):
    shutil.rmtree(warehouse.path)
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (2, ["project"])
    assert checks["project"]["found"] == f"There is no directory {warehouse.path}"
    assert checks["project"]["advice"] == "Give the SQLMesh project with --project DIR."
    assert set(unknown(checks)) == set(CHECKS) - {"project", "versions", "pipes"}


def test_no_configuration_file(warehouse):
    (warehouse.path / "config.yaml").unlink()
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (2, ["project"])
    assert f"{warehouse.path} is not a SQLMesh project" in checks["project"]["found"]
    assert (
        checks["project"]["advice"] == "Give the directory that holds the configuration with --project DIR."
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('    password: "planted-secret\n', "line "),
        ("    password: planted-secret\n    password: planted-secret2\n", 'found duplicate key "password"'),
        ("    password: planted-secret: x\n", "mapping values are not allowed"),
    ],
)
def test_broken_yaml_is_told_by_its_place_and_not_by_what_stands_there(warehouse, line, says):
    config = (warehouse.path / "config.yaml").read_text()
    (warehouse.path / "config.yaml").write_text(
        config.replace("gateways:\n", f"gateways:\n  other:\n{line}", 1)
    )
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (2, ["configuration"])
    assert says in checks["configuration"]["found"]
    assert "column" in checks["configuration"]["found"]
    assert "planted" not in json.dumps(checks)
    assert set(unknown(checks)) == {"lock", "warehouse", "state", "migration", "environment"}
    assert "planted" not in warehouse.invoke("due").output


def test_an_unknown_gateway(warehouse):
    exit_code, checks = examined(warehouse, "prod", "--gateway", "nowhere")

    assert (exit_code, not_ok(checks)) == (2, ["configuration"])
    assert "There is no gateway 'nowhere'" in checks["configuration"]["found"]
    assert "it has 'local'" in checks["configuration"]["found"]


def test_a_variable_that_is_not_set_is_named_and_no_file_of_the_name_none_is_made(
    warehouse, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = (warehouse.path / "config.yaml").read_text()
    (warehouse.path / "config.yaml").write_text(config.replace("RUNNER_TEST_DATABASE", "DOCTOR_TEST_NOT_SET"))
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (2, ["configuration"])
    assert "variables without a value: DOCTOR_TEST_NOT_SET" in checks["configuration"]["found"]
    assert (
        checks["configuration"]["advice"]
        == "Set DOCTOR_TEST_NOT_SET in the environment or the project's .env."
    )
    assert not (tmp_path / "None").exists()

    (warehouse.path / ".env").write_text(f"DOCTOR_TEST_NOT_SET={warehouse.database}\n")
    try:
        exit_code, checks = examined(warehouse, "prod")
    finally:
        os.environ.pop("DOCTOR_TEST_NOT_SET", None)  # SQLMesh puts what stands in .env into the process's
    assert (exit_code, not_ok(checks)) == (0, [])
    assert f"variables of {warehouse.path / '.env'}" in checks["configuration"]["found"]


def test_a_variable_that_is_not_set_and_not_needed_here_is_told_and_does_no_harm(warehouse):
    config = (warehouse.path / "config.yaml").read_text()
    other = "  other:\n    connection:\n      type: duckdb\n      token: \"{{ env_var('DOCTOR_TEST_NOT_SET') }}\"\n"
    (warehouse.path / "config.yaml").write_text(
        config.replace("default_gateway", f"{other}default_gateway", 1)
    )
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (0, [])
    assert "without a value, and not used here: DOCTOR_TEST_NOT_SET" in checks["configuration"]["found"]


def test_a_variable_that_is_not_set_where_a_number_has_to_be_is_named(warehouse):
    (warehouse.path / "config.yaml").write_text(
        postgres_config(5432).replace("5432", "{{ env_var('DOCTOR_TEST_NOT_SET') }}")
    )
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (2, ["configuration"])
    assert "port" in checks["configuration"]["found"]
    assert "DOCTOR_TEST_NOT_SET" in checks["configuration"]["advice"]


def test_what_a_configuration_raises_and_prints_does_not_stand_in_the_report(warehouse):
    (warehouse.path / "config.yaml").unlink()
    warehouse.write({"config.py": "print('a configuration prints')\nraise RuntimeError('no vault here')\n"})
    done = warehouse.spawn("doctor", "prod", "--format", "json")
    exit_code, checks = judged(done.returncode, done.stdout)

    assert (exit_code, not_ok(checks)) == (2, ["configuration"])
    assert "no vault here" in checks["configuration"]["found"]
    assert "a configuration prints" in done.stderr


def test_a_configuration_that_does_not_come_back_is_not_waited_for(warehouse):
    (warehouse.path / "config.yaml").unlink()
    warehouse.write({"config.py": "import time\ntime.sleep(300)\n"})
    began = time.monotonic()
    done = warehouse.spawn("doctor", "prod", "--format", "json", "--timeout", "0.5")
    exit_code, checks = judged(done.returncode, done.stdout)

    assert (exit_code, not_ok(checks)) == (3, ["configuration"])
    assert checks["configuration"]["found"] == "No answer from the configuration within 0.5 s."
    assert time.monotonic() - began < 30


# Files that are not there, or that others have.


@pytest.mark.parametrize("name", ["no/such/folder/db.duckdb", "other.duckdb"])
def test_a_wrong_path_of_a_duckdb_file_makes_none(warehouse, tmp_path, name):
    warehouse.database = tmp_path / name
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (3, ["warehouse"])
    assert checks["warehouse"]["found"] == f"There is no DuckDB file {tmp_path / name}."
    assert unknown(checks) == ["state", "migration", "environment"]
    assert not warehouse.database.exists()


def test_a_file_that_is_no_database(warehouse):
    warehouse.database.write_text("id,colour\n" * 10_000)
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (3, ["warehouse"])
    assert "not a valid DuckDB database file" in checks["warehouse"]["found"]


def test_a_locked_file_is_told_with_the_process_that_holds_it(warehouse):
    with held(warehouse.database) as pid:
        exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (3, ["lock"])
    assert f"The file {warehouse.database} is held by the process {pid} (" in checks["lock"]["found"]
    assert unknown(checks) == ["warehouse", "state", "migration", "environment"]
    assert checks["warehouse"]["found"] == "cannot be told before lock is ok"
    assert examined(warehouse, "prod")[0] == 0


STATE_ELSEWHERE = """\
gateways:
  local:
    connection:
      type: duckdb
      catalogs:
        db: "{{ env_var('RUNNER_TEST_DATABASE') }}"
    state_connection:
      type: duckdb
      database: "%s"
default_gateway: local
model_defaults: {dialect: duckdb, start: 2026-01-01}
disable_anonymized_analytics: true
"""


def test_a_locked_file_of_the_state_leaves_the_warehouse_to_be_told(make_warehouse, tmp_path):
    state = tmp_path / "state.duckdb"
    warehouse = make_warehouse(
        {"models/m.sql": "MODEL (name s.m, kind FULL); SELECT 1 AS a"}, config=STATE_ELSEWHERE % state
    )
    assert examined(warehouse, "prod")[0] == 0
    with held(state):
        exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (3, ["lock"])
    assert unknown(checks) == ["state", "migration", "environment"]

    state.unlink()
    exit_code, checks = examined(warehouse, "prod")
    assert (exit_code, not_ok(checks)) == (3, ["state"])
    assert checks["state"]["found"] == f"There is no DuckDB file {state}."


# A state that does not fit.


def test_a_warehouse_that_was_never_planned_has_no_state_and_gets_none(make_warehouse):
    warehouse = make_warehouse({"models/m.sql": "MODEL (name s.m, kind FULL); SELECT 1 AS a"}, plan=False)
    duckdb.connect(str(warehouse.database)).close()
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (2, ["migration"])
    assert checks["migration"]["found"] == f"There is no SQLMesh state in duckdb {warehouse.database}."
    assert "`sqlmesh plan prod`" in checks["migration"]["advice"]
    assert unknown(checks) == ["environment"]
    assert state_tables(warehouse.database) == []


@pytest.mark.parametrize(
    ("change", "found", "advice"),
    [
        (f"schema_version = {SCHEMA_VERSION - 1}", "which is older than SQLMesh", "sqlmesh migrate"),
        (f"schema_version = {SCHEMA_VERSION + 1}", "which is newer than SQLMesh", "Install SQLMesh"),
        ("sqlmesh_version = '0.200.1'", "of SQLMesh 0.200.1", "sqlmesh migrate"),
        ("sqlmesh_version = '0.999.1'", "of SQLMesh 0.999.1", "Install SQLMesh 0.999.1"),
        ("sqlglot_version = '1.0.0'", "SQLGlot 1.0.0", "sqlmesh migrate"),
    ],
)
def test_a_state_of_another_version(warehouse, change, found, advice):
    in_state(warehouse, f"UPDATE sqlmesh._versions SET {change}")
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (2, ["migration"])
    assert found in checks["migration"]["found"]
    assert advice in checks["migration"]["advice"]
    assert unknown(checks) == ["environment"]


@pytest.mark.parametrize("command", ["run", "due"])
def test_a_state_of_another_version_ends_other_commands_with_the_same_status(warehouse, command):
    in_state(warehouse, f"UPDATE sqlmesh._versions SET schema_version = {SCHEMA_VERSION - 1}")
    result = warehouse.invoke(command, "prod")

    assert result.exit_code == 2
    assert "sqlmesh migrate" in result.stderr


def test_a_state_whose_tables_are_damaged(warehouse):
    in_state(warehouse, "DROP TABLE sqlmesh._environments")
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (3, ["environment"])
    assert "The state cannot be read: " in checks["environment"]["found"]


def test_an_environment_that_is_being_planned(warehouse):
    in_state(warehouse, "UPDATE sqlmesh._environments SET finalized_ts = NULL")
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (3, ["environment"])
    assert "The environment 'prod' is being changed by the plan " in checks["environment"]["found"]
    assert "apply it again: `sqlmesh plan prod`" in checks["environment"]["advice"]


def test_an_expired_environment(warehouse):
    orders = (warehouse.path / "models/orders.sql").read_text()
    warehouse.write({"models/orders.sql": orders.replace("SELECT 3::INT", "SELECT 4::INT")})
    warehouse.plan("dev")
    assert ", expires at 2" in examined(warehouse, "dev")[1]["environment"]["found"]
    with console_replaced(NoopConsole()):
        context = warehouse.context()
        context.invalidate_environment("dev")
        context.close()
    exit_code, checks = examined(warehouse, "dev")

    assert (exit_code, not_ok(checks)) == (2, ["environment"])
    assert "The environment 'dev' expired at " in checks["environment"]["found"]
    assert examined(warehouse, "prod")[0] == 0


# The manifest.


@pytest.fixture
def described(warehouse):
    """The project with a manifest."""
    assert warehouse.invoke("manifest").exit_code == 0
    return warehouse


def test_a_manifest_that_fits(described):
    exit_code, checks = examined(described, "prod")

    assert exit_code == 0
    assert "fits: 6 models" in checks["manifest"]["found"]


def test_a_stale_manifest(described):
    described.write(
        {"models/added.sql": "MODEL (name marts.added, kind FULL); SELECT id FROM staging.orders"}
    )
    exit_code, checks = examined(described, "prod")

    assert (exit_code, not_ok(checks)) == (1, ["manifest"])
    assert "is stale: files of" in checks["manifest"]["found"]
    assert (
        checks["manifest"]["advice"]
        == f"Write it with: sqlmesh-runner manifest --project {described.path} --gateway local"
    )


def test_a_corrupt_manifest(described):
    path = described.path / "sqlmesh_manifest.json"
    path.write_bytes(path.read_bytes()[:500])
    exit_code, checks = examined(described, "prod")

    assert (exit_code, not_ok(checks)) == (2, ["manifest"])
    assert "cannot be used: $: expected JSON" in checks["manifest"]["found"]
    assert (
        checks["manifest"]["advice"] == f"Write it with: sqlmesh-runner manifest --project {described.path}"
    )


def test_a_manifest_of_another_gateway(described):
    path = described.path / "sqlmesh_manifest.json"
    path.write_text(path.read_text().replace('"gateway": "local"', '"gateway": "cloud"'))
    exit_code, checks = examined(described, "prod")

    assert (exit_code, not_ok(checks)) == (1, ["manifest"])
    assert "is of the gateway 'cloud', and 'local' is asked for." in checks["manifest"]["found"]


def test_a_manifest_that_is_asked_for_has_to_be_there(warehouse, tmp_path):
    exit_code, checks = examined(warehouse, "prod", "--manifest", str(tmp_path / "manifest.json"))

    assert (exit_code, not_ok(checks)) == (2, ["manifest"])
    assert "There is no SQLMesh manifest at" in checks["manifest"]["found"]
    assert checks["manifest"]["advice"].endswith(f"--output {tmp_path / 'manifest.json'}")


def test_the_manifest_is_told_whatever_is_wrong_with_the_connections(described):
    described.write(
        {"models/added.sql": "MODEL (name marts.added, kind FULL); SELECT id FROM staging.orders"}
    )
    with held(described.database):
        exit_code, checks = examined(described, "prod")

    assert (exit_code, not_ok(checks)) == (3, ["lock", "manifest"])  # the first one decides


# What Dagster has handed over.


def encoded(value):
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


def pipes(extras, messages):
    context = {"asset_keys": None, "extras": extras, "run_id": "r", "retry_number": 0, "job_name": None}
    return {"DAGSTER_PIPES_CONTEXT": encoded({"data": context}), "DAGSTER_PIPES_MESSAGES": encoded(messages)}


REQUEST = RunRequest(run_id="the-run", models=("a", "b")).to_extras()


def test_dagsters_context_is_told_and_no_message_is_written(warehouse, tmp_path, monkeypatch):
    messages = tmp_path / "messages"
    for name, value in pipes(REQUEST, {"path": str(messages)}).items():
        monkeypatch.setenv(name, value)
    exit_code, checks = examined(warehouse, "prod")

    assert exit_code == 0
    assert (
        checks["pipes"]["found"]
        == f"run the-run of Dagster, protocol 1.0, 2 models; messages go to {messages}"
    )
    assert not messages.exists()
    assert "DAGSTER_PIPES_CONTEXT" in os.environ  # a run that follows finds it

    path = tmp_path / "context.json"
    path.write_text(json.dumps({"extras": REQUEST}))
    monkeypatch.setenv("DAGSTER_PIPES_CONTEXT", encoded({"path": str(path)}))
    assert examined(warehouse, "prod")[0] == 0


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"DAGSTER_PIPES_CONTEXT": "no context"}, "DAGSTER_PIPES_CONTEXT is no context of Dagster Pipes"),
        ({"DAGSTER_PIPES_CONTEXT": encoded([1])}, "DAGSTER_PIPES_CONTEXT is no context of Dagster Pipes"),
        ({"DAGSTER_PIPES_CONTEXT": encoded({"path": "/no/such"})}, "No such file or directory"),
        ({"DAGSTER_PIPES_CONTEXT": encoded({"data": {}})}, "KeyError('extras')"),
        (pipes({}, {}) | {"DAGSTER_PIPES_MESSAGES": encoded({})}, "The Pipes context is another client's"),
        (
            pipes({"sqlmesh_pipes": {**REQUEST["sqlmesh_pipes"], "v": "2.0"}}, {}),
            "the orchestrator speaks protocol 2.0, this side speaks 1.0",
        ),
        (pipes({"sqlmesh_pipes": {"v": "1.0"}}, {}), "$.extras.sqlmesh_pipes.run_id: expected a value"),
        ({"DAGSTER_PIPES_MESSAGES": "no messages"}, "DAGSTER_PIPES_MESSAGES cannot be read"),
        ({"DAGSTER_PIPES_MESSAGES": encoded({"bucket": "b"})}, "it is not said of which store"),
        ({"DAGSTER_PIPES_MESSAGES": encoded({"socket": "s"})}, "does not know (['socket'])"),
        (
            {"DAGSTER_PIPES_MESSAGES": encoded({"path": "/no/such/folder/x"})},
            "cannot be written to /no/such/folder/x",
        ),
        ({"DAGSTER_PIPES_MESSAGES": None}, "DAGSTER_PIPES_CONTEXT alone is set"),
    ],
)
def test_what_dagster_has_handed_over_does_not_fit(warehouse, monkeypatch, changes, found):
    for name, value in {**pipes(REQUEST, {"stdio": "stdout"}), **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (2, ["pipes"])
    assert found in checks["pipes"]["found"]


# SQLMesh itself.


def test_where_sqlmesh_is_missing_or_broken_the_rest_is_told_all_the_same(described, python, tmp_path):
    script = """
        import importlib.metadata, sys
        if sys.argv[1] == "missing":
            found = importlib.metadata.version
            def version(name):
                if name == "sqlmesh":
                    raise importlib.metadata.PackageNotFoundError(name)
                return found(name)
            importlib.metadata.version = version
        sys.modules["sqlmesh.core.context"] = None  # as where a package that it needs is not there
        from sqlmesh_pipes_runner.cli import main
        main(["doctor", "prod", "--project", sys.argv[2], "--format", "json"])
    """
    for how, says in (("missing", "SQLMesh is not installed."), ("broken", "cannot be imported")):
        done = python(script, how, str(described.path))
        exit_code, checks = judged(done.returncode, done.stdout)

        assert (exit_code, not_ok(checks)) == (2, ["versions"])
        assert says in checks["versions"]["found"]
        assert "pip install 'dagster-sqlmesh-pipes[sqlmesh]'" in checks["versions"]["advice"]
        assert checks["manifest"]["status"] == checks["project"]["status"] == "ok"


# A server.


def postgres_config(port, password=PASSWORD, **settings):
    return textwrap.dedent(f"""\
        gateways:
          local:
            connection:
              type: postgres
              host: 127.0.0.1
              port: {port}
              user: postgres
              password: {password}
              database: {settings.get("database", "postgres")}
        default_gateway: local
        model_defaults: {{dialect: postgres, start: 2026-01-01}}
        disable_anonymized_analytics: true
        """)


@pytest.fixture
def on_postgres(postgres_server: PostgresServer, make_warehouse):
    database = postgres_server.new_database()
    return make_warehouse(
        {"models/m.sql": "MODEL (name s.m, kind FULL); SELECT 1 AS a"},
        config=postgres_config(postgres_server.port, database=database),
    ), database


def test_a_project_on_postgresql_is_ok_and_its_password_is_not_told(on_postgres, postgres_server):
    warehouse, database = on_postgres
    exit_code, checks = examined(warehouse, "prod")

    assert exit_code == 0, checks
    assert checks["lock"]["found"] == "nothing that one process locks for all others"
    place = f"postgres at 127.0.0.1:{postgres_server.port}, database {database}"
    assert checks["configuration"]["found"] == f"gateway 'local': {place}; state: in the same place"
    assert checks["warehouse"]["found"].startswith(f"{place} answers in ")
    assert PASSWORD not in json.dumps(checks)


@pytest.mark.parametrize(
    ("settings", "found", "advice"),
    [
        (
            {"password": "planted-and-wrong"},
            "password authentication failed",
            "Mend user, password or database",
        ),
        (
            {"database": "no_such_database"},
            'database "no_such_database" does not exist',
            "Mend user, password or database",
        ),
    ],
)
def test_a_server_that_refuses(on_postgres, postgres_server, settings, found, advice):
    warehouse, database = on_postgres
    arguments = {"database": database, **settings}
    (warehouse.path / "config.yaml").write_text(postgres_config(postgres_server.port, **arguments))
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (3, ["warehouse"])
    assert found in checks["warehouse"]["found"]
    assert advice in checks["warehouse"]["advice"]
    assert unknown(checks) == ["state", "migration", "environment"]
    assert "planted" not in json.dumps(checks)
    assert PASSWORD not in json.dumps(checks)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_does_not_run(warehouse):
    pytest.importorskip("psycopg2")
    (warehouse.path / "config.yaml").write_text(postgres_config(free_port(), password="planted-password"))
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks)) == (3, ["warehouse"])
    assert "Connection refused" in checks["warehouse"]["found"]
    assert (
        checks["warehouse"]["advice"] == "See whether the server runs, and whether host and port are right."
    )
    assert "planted" not in json.dumps(checks)


def test_a_server_that_does_not_answer_is_not_waited_for(warehouse):
    pytest.importorskip("psycopg2")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        (warehouse.path / "config.yaml").write_text(
            postgres_config(silent.getsockname()[1], password="planted-password").replace(
                "database: postgres", "database: postgres\n      connect_timeout: 600"
            )
        )
        began = time.monotonic()
        done = warehouse.spawn("doctor", "prod", "--format", "json", "--timeout", "5")
    exit_code, checks = judged(done.returncode, done.stdout)

    assert (exit_code, not_ok(checks)) == (3, ["warehouse"])
    assert checks["warehouse"]["found"] == "No answer from the warehouse within 5 s."
    assert unknown(checks) == ["state", "migration", "environment"]
    assert time.monotonic() - began < 40
    assert "planted" not in done.stdout + done.stderr


def test_a_state_in_another_place_is_told_where_the_warehouse_does_not_answer(make_warehouse, tmp_path):
    pytest.importorskip("psycopg2")
    state = tmp_path / "state.duckdb"
    warehouse = make_warehouse(
        {"models/m.sql": "MODEL (name s.m, kind FULL); SELECT 1 AS a"}, config=STATE_ELSEWHERE % state
    )
    server = postgres_config(free_port())
    (warehouse.path / "config.yaml").write_text(
        server.replace(
            "default_gateway",
            f"    state_connection:\n      type: duckdb\n      database: {state}\ndefault_gateway",
            1,
        )
    )
    exit_code, checks = examined(warehouse, "prod")

    assert (exit_code, not_ok(checks), unknown(checks)) == (3, ["warehouse"], [])
    assert checks["environment"]["found"].startswith("'prod': 1 model, finalized at ")


def test_a_time_limit_has_to_be_one(warehouse):
    result = warehouse.invoke("doctor", "prod", "--timeout", "0")

    assert result.exit_code == 2
    assert Path(warehouse.database).exists()
