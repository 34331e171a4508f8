"""No secret leaves the runner, and nothing else is masked."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlmesh_pipes_protocol.events import (
    AuditEvaluated,
    ErrorInfo,
    Log,
    ModelExecuted,
    ModelFailed,
    ModelOutcome,
    ModelSkipped,
)
from sqlmesh_pipes_runner.secrets import Masker, secrets_in

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
default_test_connection:
  type: duckdb
  token: planted-default-test
model_defaults:
  dialect: duckdb
disable_anonymized_analytics: true
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
        "planted-default-test",
    }


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

    assert missed == {
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
    }, "decide for each new field: a secret is added to secrets.py, anything else to this list"
