"""Which audit is which: the identity that the manifest and a run derive alike."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_MAX_SUFFIX = 48
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class AuditCall:
    """A model's use of an audit.

    Attributes:
        name: the audit's name.
        arguments: as SQL in the model's dialect, without ``blocking``, which is no argument of the audit.
    """

    name: str
    arguments: Mapping[str, str]


def audit_identities(calls: Sequence[AuditCall]) -> list[str]:
    """A name for each of one model's audits, unique in the model and independent of their order.

    An audit that the model uses once is named by its name. Uses of one audit are told apart by the arguments in which
    they differ: two ``not_null`` become ``not_null_order_id`` and ``not_null_amount``. Values too long to read, or that
    look alike when spelled with letters and digits, get a short digest. Uses that do not differ at all are numbered.

    Returns:
        One identity a call, in the calls' order. Each holds letters, digits and underscores only.
    """
    by_name = Counter(call.name for call in calls)
    identities = [_safe(call.name) if by_name[call.name] == 1 else "" for call in calls]
    for name in (name for name, uses in by_name.items() if uses > 1):
        places = [place for place, call in enumerate(calls) if call.name == name]
        same_name = [calls[place] for place in places]
        suffixes = [_suffix(call, _differing(same_name)) for call in same_name]
        alike = Counter(suffixes)
        for place, call, suffix in zip(places, same_name, suffixes, strict=True):
            if alike[suffix] > 1 and _distinct(same_name, call):
                suffix = f"{suffix[: _MAX_SUFFIX - 9]}_{_digest(call)}"
            identities[place] = _safe(f"{name}_{suffix}")
    return _numbered(identities)


def _differing(calls: Sequence[AuditCall]) -> list[str]:
    keys = sorted({key for call in calls for key in call.arguments})
    return [key for key in keys if len({call.arguments.get(key) for call in calls}) > 1]


def _suffix(call: AuditCall, keys: Sequence[str]) -> str:
    spelled = "_".join(_safe(call.arguments[key]) for key in keys if key in call.arguments)
    if len(spelled) > _MAX_SUFFIX:
        spelled = f"{spelled[: _MAX_SUFFIX - 9].rstrip('_')}_{_digest(call)}"
    return spelled


def _distinct(calls: Sequence[AuditCall], call: AuditCall) -> bool:
    return any(other.arguments != call.arguments for other in calls)


def _digest(call: AuditCall) -> str:
    text = "\0".join(f"{key}\0{value}" for key, value in sorted(call.arguments.items()))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text).strip("_") or _digest(AuditCall(name="", arguments={"": text}))


def _numbered(identities: Sequence[str]) -> list[str]:
    taken: set[str] = set()
    result = []
    for identity in identities:
        candidate, number = identity, 1
        while candidate in taken:
            number += 1
            candidate = f"{identity}_{number}"
        taken.add(candidate)
        result.append(candidate)
    return result
