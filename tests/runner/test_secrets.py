"""No secret leaves the runner, and nothing else is masked."""

import base64
import json
import re
from importlib.metadata import version
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    ErrorInfo,
    Log,
    ModelExecuted,
    ModelFailed,
    ModelOutcome,
    ModelSkipped,
)
from sqlmesh_pipes_runner.secrets import Masker, secrets_in, secrets_in_environment

SECRET = "s3cr3t-Pa$$word"
ERROR = ErrorInfo(
    error_class="psycopg2.OperationalError",
    message=f"cannot log in with {SECRET}",
    category="connection",
    transient=False,
    traceback=f"File x\n  connect(password={SECRET!r})\n",
)


@pytest.fixture
def masker():
    return Masker([SECRET])


def failed(model='"db"."s"."m"', error=ERROR):
    return ModelFailed(
        model=model,
        error=error,
        interval=None,
        failed_audits=(),
        intervals=(),
        batches=0,
        duration_ms=None,
    )


def audit(arguments, query):
    return AuditEvaluated(
        model='"db"."s"."m"',
        audit="no_leak",
        name="no_leak",
        arguments=arguments,
        blocking=True,
        skipped=False,
        passed=True,
        failing_rows=0,
        query=query,
        dialect="duckdb",
        interval=None,
    )


def test_a_log_message_is_masked(masker):
    event = masker.event(Log(level="info", logger="sqlmesh", message=f"using {SECRET}, {SECRET}"))

    assert event == Log(level="info", logger="sqlmesh", message="using ***, ***")


def test_message_and_traceback_of_a_nested_error_are_masked(masker):
    event = masker.event(failed())

    assert event.error.message == "cannot log in with ***"
    assert SECRET not in event.error.traceback
    assert event.error.error_class == ERROR.error_class


def test_an_error_inside_a_digest_is_masked(masker):
    from sqlmesh_pipes_protocol.events import Counts, RunFinished

    event = masker.event(
        RunFinished(
            status="failed",
            exit_code=1,
            counts=Counts(
                selected=2,
                executed=1,
                failed=1,
                skipped=0,
                audits_passed=0,
                audits_failed=0,
                audits_skipped=0,
            ),
            duration_ms=1,
            last_seq=3,
            digest=(
                ModelOutcome(model="a", status="executed"),
                ModelOutcome(model="b", status="failed", error=ERROR),
            ),
            error=ERROR,
        )
    )

    assert SECRET not in repr(event)
    assert event.digest[1].error.message == "cannot log in with ***"
    assert event.error.message == "cannot log in with ***"


def test_arguments_and_query_of_an_audit_are_masked(masker):
    event = masker.event(audit({"key": f"'{SECRET}'", "other": "1"}, f"SELECT decrypt('{SECRET}')"))

    assert event.arguments == {"key": "'***'", "other": "1"}
    assert event.query == "SELECT decrypt('***')"


def test_the_detail_of_a_skip_is_masked(masker):
    event = masker.event(ModelSkipped(model="m", reason="interrupted", detail=f"broke off: {SECRET}"))

    assert event.detail == "broke off: ***"


def test_names_of_models_are_not_masked():
    masker = Masker(["postgres"])
    event = failed(model='"postgres"."s"."m"', error=ERROR)

    assert masker.event(event).model == '"postgres"."s"."m"'
    skip = ModelSkipped(
        model='"postgres"."s"."m"', reason="upstream_failed", detail="x", blocked_by=('"postgres"."s"."n"',)
    )
    assert masker.event(skip) is skip


def test_the_same_event_comes_back_where_there_is_nothing_to_mask(masker):
    for event in (
        ModelExecuted(model=SECRET, intervals=(), batches=1, duration_ms=1),
        Log(level="info", logger="sqlmesh", message="nothing here"),
        audit({"columns": "(id)"}, "SELECT 1"),
        failed(error=ErrorInfo(error_class="X", message="m", category="sql", transient=False)),
    ):
        assert masker.event(event) is event


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://etl:hunter2@db:5432/x refused", "postgresql://***@db:5432/x refused"),
        ("postgresql+psycopg2://etl:hunter2@db/x", "postgresql+psycopg2://***@db/x"),
        ("https://x-access-token:ghp_1@github.com/a.git", "https://***@github.com/a.git"),
        ("redis://:hunter2@cache", "redis://***@cache"),
        ("https://ghp_abcdef@github.com/x", "https://***@github.com/x"),
        ("md+x://token@host", "md+x://***@host"),
        ("two: a://b:c@d and e://f:g@h", "two: a://***@d and e://***@h"),
        ("https://example.org:8080/a@b", "https://example.org:8080/a@b"),
        ("https://example.org/path?x=1", "https://example.org/path?x=1"),
        ("mail me: someone@example.org", "mail me: someone@example.org"),
        ("12:30@noon", "12:30@noon"),
    ],
)
def test_credentials_in_urls_are_masked_though_nobody_configured_them(text, masked):
    assert Masker().text(text) == masked


def test_values_too_short_to_be_told_from_chance_are_left():
    masker = Masker(["abc", "", "abcd"])

    assert masker.text("abc abcd") == "abc ***"


def test_a_secret_that_holds_another_is_masked_whole():
    assert Masker(["word", "password1"]).text("password1 and word") == "*** and ***"


KEY = "-----BEGIN KEY-----\nabcdefghijklmnopqrstuvwxyz\nABCDEFGHIJKLMNOPQRSTUVWXYZ\n-----END KEY-----"


@pytest.mark.parametrize("key", [KEY, KEY[:40]], ids=["long", "short"])
def test_a_secret_of_several_lines_is_masked_as_it_is_and_as_python_shows_it(key):
    masker = Masker([key])

    assert masker.text(f"key: {key}.") == "key: ***."
    assert masker.text(f"connect(private_key={key!r})") == "connect(private_key='***')"


def test_a_long_secret_of_several_lines_is_masked_by_its_lines():
    """As in a traceback, or where it is indented."""
    masker = Masker([KEY])
    indented = KEY.replace("\n", "\n    ")

    assert masker.text(f"    {indented}") == "    ***\n    ***\n    ***\n    ***"
    assert masker.text("parser stopped at ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "parser stopped at ***"


def test_lines_of_a_short_secret_are_no_secrets_of_their_own():
    assert Masker(["word\nother"]).text("a word, and other") == "a word, and other"


@pytest.mark.parametrize("secret", ['quo"ted-word', "pässword"])
def test_a_secret_is_masked_as_json_shows_it(secret):
    assert Masker([secret]).text(json.dumps({"pass": secret})) == '{"pass": "***"}'


def test_a_secret_with_a_backslash_is_masked_as_python_shows_it():
    assert Masker(["back\\slash"]).text(repr({"pass": "back\\slash"})) == "{'pass': '***'}"


def test_a_secret_is_text_and_not_a_pattern():
    assert Masker(["a.*b|c"]).text("axxb a.*b|c") == "axxb ***"


@given(
    st.lists(st.text(alphabet="abcXYZ-0", min_size=4, max_size=12), max_size=4),
    st.lists(st.text(alphabet="abcXYZ-0 ", max_size=15), max_size=6),
    st.randoms(),
)
def test_no_secret_survives_wherever_it_stands(secrets, words, random):
    pieces = [*words, *secrets]
    random.shuffle(pieces)
    text = Masker(secrets).text("|".join(pieces))

    assert not [secret for secret in secrets if secret in text]


LIMIT = 20_000
"""Of messages and tracebacks."""


@pytest.mark.parametrize("length", [LIMIT - 1, LIMIT])
def test_a_text_that_is_not_too_long_is_whole(length):
    event = Log(level="info", logger="sqlmesh", message="x" * length)

    assert Masker().event(event) is event


def test_long_texts_keep_their_beginning_and_tracebacks_their_end():
    text = "begin" + "x" * LIMIT + "end"
    error = ErrorInfo(error_class="X", message=text, category="sql", transient=False, traceback=text)
    masked = Masker().event(failed(error=error)).error
    skip = Masker().event(ModelSkipped(model="m", reason="interrupted", detail=text))

    assert masked.message == text[:LIMIT] + " …"
    assert masked.traceback == "… " + text[-LIMIT:]
    assert skip.detail == text[:2_000] + " …"


def test_what_is_run_or_named_is_never_cut():
    long = "x" * 300_000
    event = audit({"condition": long}, f"SELECT {long}")

    assert Masker().event(event) is event
    assert Masker().event(failed(model=long)).model == long


@pytest.mark.parametrize("inside", range(1, len(SECRET)))
def test_a_secret_at_the_edge_of_a_text_that_is_cut_is_masked_whole(masker, inside):
    """Cut first, its half would be left."""
    message = "." * (LIMIT - inside) + SECRET + "." * 50
    trace = "." * 50 + SECRET + "." * (LIMIT - inside)
    error = ErrorInfo(error_class="X", message=message, category="sql", transient=False, traceback=trace)
    masked = masker.event(failed(error=error)).error

    assert len(masked.message) == len(masked.traceback) == LIMIT + 2  # both were cut
    assert set(masked.message) <= set(".* …")
    assert set(masked.traceback) <= set(".* …")


def test_an_authorization_header_is_a_secret():
    found = secrets_in(
        {
            "http_headers": {
                "Authorization": "Bearer abcdef",
                "Proxy-Authorization": "Basic x1y2",
                "X-Team": "shop",
            }
        }
    )

    assert found == {"Bearer abcdef", "Basic x1y2"}


def test_what_stands_beside_a_secret_of_duckdb_is_none():
    settings = {"secrets": [{"type": "s3", "region": "us-east-1", "secret": "hidden-one"}]}

    assert secrets_in(settings) == {"hidden-one"}


def test_secrets_are_found_by_the_names_of_their_fields_however_deep():
    found = secrets_in(
        {
            "host": "db.example.org",
            "user": "etl_user",
            "password": "one-pass",
            "database": "warehouse",
            "keyfile_json": {"client_email": "a@b", "private_key": "two-key", "private_key_id": "abcdef"},
            "private_key_path": "/keys/rsa.p8",
            "private_key_passphrase": "three-phrase",
            "api_key": "four-api",
            "accountKey": "five-account",
            "extra": [{"access_token": b"six-token"}, ("x", {"client_secret": "seven-secret"})],
            "credentials": {"any": {"thing": "eight-inside"}},
            "port": 5432,
            "passfile": "/home/etl/.pgpass",
            "token": None,
        }
    )

    assert found == {
        "one-pass",
        "two-key",
        "three-phrase",
        "four-api",
        "five-account",
        "six-token",
        "seven-secret",
        "eight-inside",
    }


def test_a_secret_string_is_a_secret_under_any_name():
    from pydantic import SecretStr

    assert secrets_in({"anything": SecretStr("hidden-value")}) == {"hidden-value"}


def test_a_secret_inside_a_connection_string_is_found():
    found = secrets_in(
        {
            "catalogs": {
                "shop": {"type": "postgres", "path": "dbname=shop user=etl_user password=nine-attached"},
                "cloud": "md:cloud?motherduck_token=ten-token&x=1",
            },
            "odbc": "Driver={X};Server=db;Pwd='eleven-odbc';",
            "host": "db.example.org",
        }
    )

    assert found == {"nine-attached", "ten-token", "eleven-odbc"}


CONFIG = """\
gateways:
  local:
    connection:
      type: duckdb
      connector_config:
        s3_secret_access_key: planted-connection
        s3_region: eu-west-1
    state_connection:
      type: duckdb
      database: state.duckdb
      token: planted-state
    test_connection:
      type: duckdb
      token: planted-test
  Other:
    connection:
      type: motherduck
      database: cloud
      token: planted-other
    state_connection:
      type: duckdb
      catalogs:
        shop:
          type: postgres
          path: dbname=shop password=planted-attached
default_connection:
  type: duckdb
  token: planted-default
model_defaults:
  dialect: duckdb
disable_anonymized_analytics: true
"""
DEFAULT_TEST_CONNECTION = """
default_test_connection:
  type: duckdb
  token: planted-default-test
"""


def test_the_secrets_of_a_real_configuration_are_those_of_all_its_connections(tmp_path):
    from sqlmesh_pipes_runner.adapter import load_configs, secrets_of
    from sqlmesh_pipes_runner.options import RunOptions

    (tmp_path / "config.yaml").write_text(CONFIG)
    configs = load_configs(RunOptions(projects=(tmp_path,)))

    assert secrets_of(configs) == {
        "planted-connection",
        "planted-state",
        "planted-test",
        "planted-other",
        "planted-attached",
        "planted-default",
    }


@pytest.mark.skipif(
    Version(version("sqlmesh")) < Version("0.236.3"),
    reason="SQLMesh before 0.236.3 cannot read one from YAML",
)
def test_the_secrets_of_a_default_test_connection_are_found(tmp_path):
    from sqlmesh_pipes_runner.adapter import load_configs, secrets_of
    from sqlmesh_pipes_runner.options import RunOptions

    (tmp_path / "config.yaml").write_text(CONFIG + DEFAULT_TEST_CONNECTION)

    assert "planted-default-test" in secrets_of(load_configs(RunOptions(projects=(tmp_path,))))


def test_a_connection_class_of_each_engine_has_no_secret_field_that_would_be_missed():
    """Field names that look like secrets, in all of SQLMesh's connection classes, against those that are known."""
    import sqlmesh.core.config.connection as connections

    secret_like = {
        name
        for declared in vars(connections).values()
        if isinstance(declared, type) and issubclass(declared, connections.ConnectionConfig)
        for name in declared.all_fields()
        if any(part in name for part in ("pass", "secret", "token", "key", "credential", "auth", "pwd"))
    }
    missed = {name for name in secret_like if secrets_in({name: "planted-value"}) == set()}

    known = {
        "auth_type",
        "authenticator",
        "enable_iam_auth",
        "mutual_authentication",
        "oauth_client_id",
        # Paths of files:
        "client_cert_key",
        "keyfile",
        "keytab",
        "private_key_path",
        "ssl_key",
        # Mappings; the secret has a name of its own inside:
        "keyfile_json",
        "secrets",
    }
    assert missed <= known, (
        "decide for each new field: a secret is added to secrets.py, anything else to this list"
    )


ODD = "p/a:s@s w'o\"r\\d}%ü"


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param(ODD, id="as it is"),
        pytest.param(quote(ODD, safe=""), id="in a URL"),
        pytest.param(quote(ODD), id="in a URL, slashes left"),
        pytest.param(quote_plus(ODD), id="in a form"),
        pytest.param(repr(ODD)[1:-1], id="in Python"),
        pytest.param(json.dumps(ODD)[1:-1], id="in JSON"),
        pytest.param(json.dumps(ODD, ensure_ascii=False)[1:-1], id="in JSON with letters"),
        pytest.param(ODD.replace("'", "''"), id="in SQL"),
        pytest.param(ODD.replace('"', '""'), id="in SQL, as a name"),
        pytest.param(ODD.replace("\\", "\\\\").replace("'", "\\'"), id="in a connection string of libpq"),
        pytest.param(ODD.replace("}", "}}"), id="in one of ODBC"),
        pytest.param(re.sub("[:@/]", lambda match: f"%{ord(match[0]):X}", ODD), id="in a URL of SQLAlchemy"),
        pytest.param(base64.b64encode(ODD.encode()).decode(), id="in Base64"),
    ],
)
def test_a_secret_is_masked_however_it_is_spelled(spelled):
    assert Masker([ODD]).text(f"<<{spelled}>>") == "<<***>>"


def test_a_secret_that_a_parser_underlines_in_part_is_masked():
    assert Masker(["hunter-two"]).text("near \x1b[4mhunter\x1b[0m-two") == "near ***"
    assert Masker(["hunter-two"]).text("near \x1b[4mFROM\x1b[0m") == "near \x1b[4mFROM\x1b[0m"


def test_a_long_line_of_a_secret_is_a_secret_and_a_short_one_is_none():
    masker = Masker(["first line of it\nand"])

    assert masker.text("it broke off: first line of it") == "it broke off: ***"
    assert masker.text("this and that") == "this and that"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("host=h password=planted user=u", "host=h password=*** user=u"),
        ("password='pla\\'nted two' user=u", "password='***' user=u"),
        ("password='cut", "password='***'"),
        ('passwd="pla nted"', 'passwd="***"'),
        ("Driver={X};Pwd={pla;n}}ted};Server=s", "Driver={X};Pwd=***;Server=s"),
        ("Server=s;UID=u;PWD=planted;", "Server=s;UID=u;PWD=***;"),
        ("md:db?motherduck_token=planted&x=1", "md:db?motherduck_token=***&x=1"),
        ("AccountName=a;AccountKey=planted==;E=1", "AccountName=a;AccountKey=***;E=1"),
        ("https://a.blob/x?sv=1&sig=planted%3D", "https://a.blob/x?sv=1&sig=***"),
        ("{'password': 'planted', 'user': 'u'}", "{'password': '***', 'user': 'u'}"),
        ('{"api_key": "planted"}', '{"api_key": "***"}'),
        ('{\\"password\\": \\"planted\\", \\"x\\": 1}', '{\\"password\\": \\"***\\", \\"x\\": 1}'),
        ("(TYPE S3, KEY_ID 'x', SECRET 'planted')", "(TYPE S3, KEY_ID 'x', SECRET '***')"),
        ("(TYPE MOTHERDUCK, TOKEN 'planted')", "(TYPE MOTHERDUCK, TOKEN '***')"),
        ("ATTACH 'dbname=x password=planted' AS y", "ATTACH 'dbname=x password=***' AS y"),
        ("CREATE USER u PASSWORD 'planted'", "CREATE USER u PASSWORD '***'"),
        ("Authorization: Bearer eyJplanted1", "Authorization: Bearer ***"),
        ("Proxy: Basic cGxhbnRlZA==", "Proxy: Basic ***"),
        ("postgres://u:pla/nted@h/d", "postgres://***@h/d"),
        ("a://b:c@d,e://f:g@h", "a://***@d,e://***@h"),
        (
            "x -----BEGIN RSA PRIVATE KEY-----\nplanted\n-----END RSA PRIVATE KEY----- y",
            "x *** y",
        ),
        ("-----BEGIN PRIVATE KEY-----\nplanted and cut", "***"),
    ],
)
def test_what_is_secret_by_its_place_is_masked_though_nobody_configured_it(text, masked):
    assert Masker().text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "etl"',
        "fe_sendauth: no password supplied",
        "Basic authentication failed",
        "a bearer of news",
        "the token expired",
        "unexpected token 'FROM'",
        'Invalid token: "abc" at line 3',
        'Token "abc" is invalid.',
        "connect(password=os.environ['DB_PASSWORD'])",
        "connect(password=secrets.get('x'))",
        "SELECT password, token FROM t WHERE a = 'b'",
        "SELECT token_type = 'a', secret_santa = 'b' FROM t",
        "primary_key=order_id",
        "UNIQUE KEY 'x'",
        "https://h:80/a@b",
        "12:30 password:",
        "password=",
    ],
)
def test_what_only_speaks_of_secrets_is_left(text):
    assert Masker().text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "password='" + "a" * 200_000,
        'token "\\' * 30_000,
        "password=\\\\\\'" * 10_000,
        "-----BEGIN PRIVATE KEY-----" * 5_000,
        "token" + " " * 200_000,
        "a" * 100_000 + "://" + "b:" * 50_000,
        "a://b:" * 30_000,
        "'" * 200_000,
        "{" * 200_000,
    ],
    ids=range(9),
)
@pytest.mark.timeout(20)
def test_no_text_takes_long_to_mask(text):
    Masker(["planted-one"]).text(text)


def test_a_secret_that_is_a_common_word_takes_no_name_along():
    masker = Masker(["orders"])
    event = failed(
        model='"db"."s"."orders"',
        error=ErrorInfo(error_class="orders", message="with orders", category="sql", transient=False),
    )
    masked = masker.event(event)

    assert masked.model == '"db"."s"."orders"'
    assert masked.error.error_class == "orders"
    assert masked.error.message == "with ***"


def test_secrets_of_the_environment_are_known_by_names_and_by_what_they_say():
    found = secrets_in_environment(
        {
            "PGPASSWORD": "planted-one",
            "motherduck_token": "planted-two",
            "AWS_SECRET_ACCESS_KEY": "planted-three",
            "SNOWFLAKE_PWD": "planted-four",
            "DATABASE_URL": "postgresql://u:planted%2Dfive@h/d",
            "DSN": "dbname=shop password=planted-six",
            "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountKey=planted-seven==",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/token",
            "SSH_AUTH_SOCK": "/tmp/agent",
            "HOME": "/root",
            "PATH": "/usr/bin:/bin",
            "X_TOKEN": "short",
            "TOKENIZERS_PARALLELISM": "false-or-true",
            "PASSWORD_FILE": "some-file-name",
        }
    )

    assert found == {
        "planted-one",
        "planted-two",
        "planted-three",
        "planted-four",
        "planted%2Dfive",
        "planted-five",
        "planted-six",
        "DefaultEndpointsProtocol=https;AccountKey=planted-seven==",
        "planted-seven==",
    }


def connection(name, **settings):
    """Without its driver, which SQLMesh's own validation asks for."""
    import sqlmesh.core.config.connection as connections

    return getattr(connections, name).model_construct(**settings).model_dump(mode="python")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("PostgresConnectionConfig", {"password": "planted"}),
        ("GCPPostgresConnectionConfig", {"password": "planted", "keyfile_json": {"private_key": "planted"}}),
        ("RedshiftConnectionConfig", {"password": "planted"}),
        ("MySQLConnectionConfig", {"password": "planted"}),
        ("MSSQLConnectionConfig", {"password": "planted"}),
        ("MSSQLConnectionConfig", {"odbc_properties": {"PWD": "planted"}}),
        ("AzureSQLConnectionConfig", {"password": "planted"}),
        ("FabricConnectionConfig", {"password": "planted"}),
        ("SnowflakeConnectionConfig", {"password": "planted"}),
        ("SnowflakeConnectionConfig", {"private_key": "planted"}),
        ("SnowflakeConnectionConfig", {"private_key_passphrase": "planted"}),
        ("SnowflakeConnectionConfig", {"token": "planted"}),
        ("DatabricksConnectionConfig", {"access_token": "planted"}),
        ("DatabricksConnectionConfig", {"databricks_connect_access_token": "planted"}),
        ("DatabricksConnectionConfig", {"oauth_client_secret": "planted"}),
        ("DatabricksConnectionConfig", {"http_headers": [("X-Api-Key", "no"), ("Authorization", "no")]}),
        ("BigQueryConnectionConfig", {"keyfile_json": {"private_key": "planted", "client_email": "a@b"}}),
        ("BigQueryConnectionConfig", {"client_secret": "planted"}),
        ("BigQueryConnectionConfig", {"refresh_token": "planted"}),
        ("TrinoConnectionConfig", {"password": "planted"}),
        ("TrinoConnectionConfig", {"jwt_token": "planted"}),
        ("TrinoConnectionConfig", {"http_headers": {"X-Api-Key": "planted"}}),
        ("ClickhouseConnectionConfig", {"password": "planted"}),
        ("ClickhouseConnectionConfig", {"https_proxy": "http://u:planted@proxy:8080"}),
        ("AthenaConnectionConfig", {"aws_secret_access_key": "planted"}),
        ("SparkConnectionConfig", {"config": {"spark.hadoop.fs.s3a.secret.key": "planted"}}),
        ("SparkConnectionConfig", {"config": {"fs.azure.account.key.x.dfs.core.windows.net": "planted"}}),
        ("MotherDuckConnectionConfig", {"token": "planted"}),
        ("DuckDBConnectionConfig", {"database": "md:shop?motherduck_token=planted"}),
        ("DuckDBConnectionConfig", {"secrets": {"s": {"type": "s3", "key_id": "no", "secret": "planted"}}}),
        (
            "DuckDBConnectionConfig",
            {"secrets": [{"type": "azure", "connection_string": "AccountName=a;AccountKey=planted;"}]},
        ),
        (
            "DuckDBConnectionConfig",
            {"catalogs": {"a": {"type": "postgres", "path": "host=h password=planted"}}},
        ),
        ("DuckDBConnectionConfig", {"catalogs": {"a": "mysql://u:planted@h/d"}}),
    ],
)
def test_the_secrets_of_each_engines_connection_are_found(name, settings):
    planted = "planted" in repr(settings)
    found = secrets_in(connection(name, **settings))

    assert ("planted" in found) == planted, found
    assert "no" not in found or not planted


def test_variables_targets_and_statements_of_a_configuration_have_secrets_as_well(tmp_path, monkeypatch):
    from sqlmesh_pipes_runner.adapter import load_configs, secrets_of
    from sqlmesh_pipes_runner.options import RunOptions

    monkeypatch.setenv("PLANTED_PASSWORD", "planted-environment")
    (tmp_path / "config.yaml").write_text(
        """\
gateways:
  local:
    variables:
      api_token: planted-of-gateway
    connection:
      type: duckdb
variables:
  upstream: postgres://u:planted-in-url@h/d
  api_key: planted-variable
  n: 3
  customer: orders
before_all:
  - ATTACH 'dbname=x password=planted-attached' AS y (TYPE postgres)
notification_targets:
  - type: slack_webhook
    notify_on: [run_failure]
    url: https://hooks.slack.example/planted-hook
  - type: slack_api
    notify_on: [run_failure]
    token: planted-slack
  - type: smtp
    notify_on: [run_failure]
    host: smtp.example.org
    user: u
    password: planted-smtp
users:
  - username: somebody
    notification_targets:
      - type: slack_api
        notify_on: [run_failure]
        token: planted-of-user
model_defaults:
  dialect: duckdb
disable_anonymized_analytics: true
"""
    )

    assert secrets_of(load_configs(RunOptions(projects=(tmp_path,)))) >= {
        "planted-of-gateway",
        "planted-in-url",
        "planted-variable",
        "planted-attached",
        "https://hooks.slack.example/planted-hook",
        "planted-slack",
        "planted-smtp",
        "planted-of-user",
        "planted-environment",
    }


@pytest.mark.parametrize(
    "config",
    [
        "gateways: {local: {connection: {type: postgres, passwrd: planted-one}}}",
        "gateways: {local: {connection: {type: postgres, password: [planted-one]}}}",
        "gateways: {local: {conection: {password: planted-one}}}",
        "gateways: {local: {connection: 'postgres://u:planted-one@h/d'}}",
        "gateways: {local: {connection: {type: duckdb, secrets: planted-one}}}",
        "variables: {a: {{ env_var('PLANTED_SECRET').no() }}}",
        "password: planted-one\npassword: planted-two",
        "a: [planted-one",
        "notification_targets: [{type: smtp, password: planted-one, no: 1}]",
    ],
    ids=range(9),
)
def test_a_configuration_that_cannot_be_read_is_told_without_its_values(config, tmp_path, monkeypatch):
    from sqlmesh_pipes_runner.adapter import load_configs
    from sqlmesh_pipes_runner.errors import UsageError
    from sqlmesh_pipes_runner.options import RunOptions

    monkeypatch.setenv("PLANTED_SECRET", "planted-environment")
    (tmp_path / "config.yaml").write_text(config)

    with pytest.raises(UsageError) as caught:
        load_configs(RunOptions(projects=(tmp_path,)))

    assert "planted-" not in str(caught.value)


def test_what_a_configuration_of_python_raises_is_told_without_secrets_of_the_environment(
    tmp_path, monkeypatch
):
    from sqlmesh_pipes_runner.adapter import load_configs
    from sqlmesh_pipes_runner.errors import UsageError
    from sqlmesh_pipes_runner.options import RunOptions

    monkeypatch.setenv("PLANTED_PASSWORD", "planted-environment")
    (tmp_path / "config.py").write_text(
        "import os\nraise ValueError('no: ' + os.environ['PLANTED_PASSWORD'])\n"
    )

    with pytest.raises(UsageError, match=r"no: \*\*\*"):
        load_configs(RunOptions(projects=(tmp_path,)))
