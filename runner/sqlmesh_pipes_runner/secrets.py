"""No secret leaves the runner: masking of what is sent and what is printed."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus, unquote

MASK = "***"

_SECRET_FIELD = re.compile(
    r"pass(word|wd|phrase|code)?$|pwd$|secret|token|private_key$|(api|access|account)[._-]?key|credential|authorization",
    re.I,
)
_SECRET_VARIABLE = re.compile(
    r"(pass(word|wd|phrase|code)?|pwd|secret|token|(api|access|account|private|secret)_?key|credentials?|connection_string)$",
    re.I,
)
"""Names of environment variables that hold secrets: ``PGPASSWORD``, ``AWS_SECRET_ACCESS_KEY``, ``motherduck_token`` …"""
_PARAMETER = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|token|(?:api|access|account|private)[_-]?key|authorization)"
)
_PARAMETER_WORDS = (
    *("pass", "pwd", "secret", "token", "authorization", "sig="),
    *(f"{of}{sign}key" for of in ("api", "access", "account", "private") for sign in ("", "_", "-")),
)
_QUOTED = r"""'(?:\\.|''|[^'\\])*'|"(?:\\.|""|[^"\\])*"|\\+(?P<escaped>["']).*?\\+(?P=escaped)"""
_BARE = r"""["']?[^\s;&'"]+"""
_SECRET_PARAMETER = re.compile(
    rf"{_PARAMETER}\s*=\s*(?P<value>\{{(?:[^}}]|\}}\}})*\}}|{_QUOTED}|{_BARE})", re.I | re.S
)
"""A secret inside a connection string: ``dbname=shop password=…``, ``md:shop?motherduck_token=…``, ``Pwd={…};``."""
_SHOWN_PARAMETER = re.compile(
    # name=value, of a connection string; not a call or an item, of code in a traceback
    rf"""(?P<name>(?:{_PARAMETER}|[?&]sig)=)(?P<value>\{{(?:[^}}]|\}}\}})*\}}|{_QUOTED}|(?![a-z_][\w.]*[\[(]){_BARE})"""
    # 'name': 'value' of a mapping, name = 'value' and SECRET 'value' of SQL; parsers have another word for a token
    rf"""|(?P<key>{_PARAMETER}\\*["']\s*(?:=>|:)\s*|{_PARAMETER}(?:\\*["'])?\s*=\s*"""
    rf"""|(?:pass(?:word|wd|phrase|code)|secret|[,(]\s*token)(?:\s*:\s*|\s+))(?P<given>{_QUOTED.replace("escaped", "quote")})""",
    re.I | re.S,
)
"""A parameter in a text, though nobody configured it. Bare values stand without spaces around the sign, as nowhere in SQL."""
_SHOWN_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S)
_SHOWN_HEADER = re.compile(r"\b(?P<scheme>Bearer|Basic) +(?=\S*[0-9=])[\w.~+/=-]{8,}", re.I)
_URL_CREDENTIALS = re.compile(
    # In the second form a password has a slash that should have been encoded; a port and a path are none.
    # Bounded: a text that is no URL must not be gone through again and again.
    r"""(?P<scheme>[a-zA-Z0-9+.-]{1,40}://)(?:[^/\s"']{1,2000}@|[^\s"'/@:]{0,200}:(?![0-9]+/)[^\s"']{0,2000}@)"""
)
_URL_PASSWORD = re.compile(r"""://[^\s"'/@:]{0,200}:(?![0-9]+/)([^\s"']{1,2000})@""")
_OPENING = re.compile(r"""\\*["']""")
_STYLE = re.compile("\x1b\\[[0-9;]*m")
_MIN_LENGTH = 4
"""A shorter value occurs by chance in every text; masking it would hide nothing and garble everything."""
_MIN_LINE = 8
"""The same for one line of a secret that has several: the last line of a key is as long as it happens to be."""
_MIN_VARIABLE = 8
"""The same for what is secret by the name of an environment variable alone."""
_AS_SQLALCHEMY = re.compile("[:@/]")

FREE_TEXT_FIELDS = frozenset({"message", "traceback", "query", "detail", "arguments", "description"})
"""The fields of events and of the manifest that hold text from outside. Names of models and the like are not touched: a password such as
``postgres`` would otherwise take the catalog of that name along."""

_MAX_TEXT = {"message": 20_000, "traceback": 20_000, "detail": 2_000}
"""Characters that are kept of a text; of a traceback they are the last. Queries and arguments are sent whole."""

T = TypeVar("T")


class Masker:
    """Replaces secrets in text and in events, and cuts texts that are too long: in this order, so that no half of a secret
    is left. Immutable once made; thread-safe."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        shown = {form for secret in secrets for form in _forms(secret)}
        # Longest first: a secret that contains another must not be torn.
        self._secrets = sorted((s for s in shown if len(s) >= _MIN_LENGTH), key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without secrets and without credentials in URLs."""
        if "\x1b[" in text:  # parsers underline what they stumble over, which may be in the midst of a secret
            plain = _STYLE.sub("", text)
            masked = self._masked(plain)
            return masked if masked != plain else text
        return self._masked(text)

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        if "://" in text:
            text = _URL_CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text)
        if "-----BEGIN" in text:
            text = _SHOWN_KEY.sub(MASK, text)
        lowered = text.lower()  # ten times as fast as the patterns, for the many texts that have none of it
        if "bearer" in lowered or "basic" in lowered:
            text = _SHOWN_HEADER.sub(rf"\g<scheme> {MASK}", text)
        if any(word in lowered for word in _PARAMETER_WORDS):
            text = _SHOWN_PARAMETER.sub(_without_value, text)
        return text

    def event(self, event: T) -> T:
        """The event, or the manifest, with its free texts masked; the same object where there is nothing to mask."""
        changes = {}
        for field in fields(event):  # type: ignore[arg-type]  # T is a dataclass
            value = getattr(event, field.name)
            masked = self._value(value, free=field.name in FREE_TEXT_FIELDS, name=field.name)
            if masked is not value:
                changes[field.name] = masked
        return replace(event, **changes) if changes else event  # type: ignore[type-var]  # T is a dataclass

    def _value(self, value: Any, *, free: bool, name: str = "") -> Any:
        if isinstance(value, str):
            return self._same_or(value, _cut(self.text(value), name)) if free else value
        if isinstance(value, dict):
            masked = {key: self._value(item, free=free) for key, item in value.items()}
            return masked if masked != value else value
        if isinstance(value, tuple):
            items = tuple(self._value(item, free=free) for item in value)
            return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
        if is_dataclass(value) and not isinstance(value, type):
            return self.event(value)
        return value

    @staticmethod
    def _same_or(value: str, masked: str) -> str:
        return value if masked == value else masked


def _without_value(match: re.Match[str]) -> str:
    """The parameter with its quotes, and without what is between them."""
    name, value = (match["name"], match["value"]) if match["name"] else (match["key"], match["given"])
    opening = _OPENING.match(value)
    around = opening[0] if opening is not None else ""
    return f"{name}{around}{MASK}{around}"


def _forms(secret: str) -> Iterator[str]:
    """As it is, and as it is spelled in Python, JSON, SQL, a connection string, a URL, a manifest of Kubernetes and a header."""
    yield secret
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield secret.replace("'", "''")
    yield secret.replace('"', '""')
    yield secret.replace("\\", "\\\\").replace("'", "\\'")
    yield secret.replace("}", "}}")
    # Of a lone surrogate there is no percent-encoding.
    encoded = secret.encode("utf-8", "surrogatepass")
    yield from (quote(encoded, safe=safe) for safe in ("", "/", " +"))
    yield quote_plus(encoded)
    yield _AS_SQLALCHEMY.sub(lambda match: f"%{ord(match[0]):X}", secret)
    yield base64.b64encode(encoded).decode()
    lines = [line.strip() for line in secret.splitlines()]
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= _MIN_LINE)
    scheme, _, rest = secret.partition(" ")
    if scheme in ("Bearer", "Basic"):
        yield rest


def _cut(text: str, name: str) -> str:
    limit = _MAX_TEXT.get(name, len(text))
    if len(text) <= limit:
        return text
    return f"… {text[-limit:]}" if name == "traceback" else f"{text[:limit]} …"


def secrets_in(settings: object) -> set[str]:
    """Values of a connection's secret fields.

    Args:
        settings: nested mappings and lists of plain values, as a configuration is dumped.
    """
    found: set[str] = set()
    _collect(settings, secret=False, found=found)
    return found


def secrets_in_environment(environ: Mapping[str, str]) -> set[str]:
    """Values of variables that are secret by their names, and secrets in connection strings and URLs of all.

    Drivers read some by themselves, configurations and models others. A path, as of a file with a token, is no secret.
    """
    found: set[str] = set()
    for name, value in environ.items():
        if _SECRET_VARIABLE.search(name) and len(value) >= _MIN_VARIABLE and not value.startswith("/"):
            found.add(value)
        _collect_inside(value, found)
    return found


def _collect(value: object, *, secret: bool, found: set[str]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            # DuckDB keeps under `secrets` what is secret, and its region.
            is_secret = secret or (key != "secrets" and bool(_SECRET_FIELD.search(str(key))))
            _collect(item, secret=is_secret, found=found)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            _collect(item, secret=secret, found=found)
    elif hasattr(value, "get_secret_value"):
        _collect(value.get_secret_value(), secret=True, found=found)
    elif isinstance(value, (str, bytes)):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if secret:
            found.add(text)
        else:
            _collect_inside(text, found)


def _collect_inside(text: str, found: set[str]) -> None:
    for match in _SECRET_PARAMETER.finditer(text):
        value = match["value"]
        inside = (
            value.strip("'\"{}")
            if value[0] in "'\"{"
            else value.strip("\\'\"")
            if match["escaped"]
            else value
        )
        found.update((inside, re.sub(r"\\(.)|''|\}\}", lambda pair: pair[1] or pair[0][0], inside)))
    for match in _URL_PASSWORD.finditer(text):
        found.update((match[1], unquote(match[1])))
