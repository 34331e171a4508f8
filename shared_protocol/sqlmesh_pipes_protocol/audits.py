"""Which audit is which: the identity that the manifest and a run derive alike."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
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
    Another use of the same audit may change the identities of those there are: what tells them apart has changed.

    Returns:
        One identity a call, in the calls' order. Each holds letters, digits and underscores only.
    """
    by_name = Counter(call.name for call in calls)
    identities = [_safe(call.name) if by_name[call.name] == 1 else "" for call in calls]
    for name in (name for name, uses in by_name.items() if uses > 1):
        places = [place for place, call in enumerate(calls) if call.name == name]
        same_name = [calls[place] for place in places]
        differing = _differing(same_name)
        suffixes = [_suffix(call, differing) for call in same_name]
        alike = defaultdict(list)
        for call, suffix in zip(same_name, suffixes, strict=True):
            alike[suffix].append(call.arguments)
        for place, call, suffix in zip(places, same_name, suffixes, strict=True):
            if any(arguments != call.arguments for arguments in alike[suffix]):
                suffix = f"{suffix[: _MAX_SUFFIX - 9]}_{_digest(call)}"
            identities[place] = _safe(f"{name}_{suffix}")
    return _numbered(calls, identities)


def _differing(calls: Sequence[AuditCall]) -> list[str]:
    keys = sorted({key for call in calls for key in call.arguments})
    return [key for key in keys if len({call.arguments.get(key) for call in calls}) > 1]


def _suffix(call: AuditCall, keys: Sequence[str]) -> str:
    spelled = "_".join(_safe(call.arguments[key]) for key in keys if key in call.arguments)
    if len(spelled) > _MAX_SUFFIX:
        spelled = f"{spelled[: _MAX_SUFFIX - 9].rstrip('_')}_{_digest(call)}"
    return spelled


def _digest(call: AuditCall) -> str:
    text = "\0".join(f"{key}\0{value}" for key, value in sorted(call.arguments.items()))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text).strip("_") or _digest(AuditCall(name="", arguments={"": text}))


def _numbered(calls: Sequence[AuditCall], identities: Sequence[str]) -> list[str]:
    """Tell apart what is still alike. In an order of its own: the caller's must not decide who gets which number."""
    by_name = Counter(call.name for call in calls)

    def rank(place: int) -> tuple[bool, str, list[tuple[str, str]]]:
        call = calls[place]
        by_its_name_alone = by_name[call.name] == 1 and identities[place] == call.name
        return (not by_its_name_alone, call.name, sorted(call.arguments.items()))

    taken: set[str] = set()
    result = list(identities)
    for place in sorted(range(len(calls)), key=rank):
        candidate, number = identities[place], 1
        while candidate in taken:
            number += 1
            candidate = f"{identities[place]}_{number}"
        taken.add(candidate)
        result[place] = candidate
    return result
