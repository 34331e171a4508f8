"""No secret leaves the runner: masking of what is sent and what is printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

MASK = "***"

_SECRET_FIELD = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|private_key$|(api|access|account)_?key|credential|authorization",
    re.I,
)
_SECRET_PARAMETER = re.compile(
    r"(pass(word|wd)|pwd|secret|token)\s*=\s*(?P<quote>['\"]?)(?P<value>[^\s;&'\"]+)", re.I
)
"""A secret inside a connection string: ``dbname=shop password=…``, ``md:shop?motherduck_token=…``, ``Pwd=…;``."""
_URL_CREDENTIALS = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s\"']+@")
_MIN_LENGTH = 4
"""A shorter value occurs by chance in every text; masking it would hide nothing and garble everything."""

FREE_TEXT_FIELDS = frozenset({"message", "traceback", "query", "detail", "arguments"})
"""The fields of events that hold text from outside. Names of models and the like are not touched: a password such as
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
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return _URL_CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text) if "://" in text else text

    def event(self, event: T) -> T:
        """The event, with its free texts masked; the same object where there is nothing to mask."""
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


def _forms(secret: str) -> Iterator[str]:
    """As it is, as Python and JSON show it, a long key by its lines, and what an authorization header carries."""
    yield secret
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    if len(secret) > 64:
        yield from secret.splitlines()
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
        found.update([text] if secret else (match["value"] for match in _SECRET_PARAMETER.finditer(text)))
