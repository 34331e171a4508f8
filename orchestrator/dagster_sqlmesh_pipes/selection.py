"""Choosing models by name, tag, group, owner, kind and place in the graph, on Dagster's specs alone.

The syntax is that of SQLMesh's selectors, with Dagster's words besides::

    marts.orders            by name, with or without the catalog
    staging.*               by name, with wildcards
    tag:finance             by tag; tag:tier=gold for a tag with a value
    group:marts             by Dagster's group
    owner:team:data         by owner; owner:data as well
    kind:incremental_*      by SQLMesh's kind, or by one of Dagster's
    project:finance         by the repository, in a multi-repository project
    +marts.orders           and all that it reads
    marts.orders+           and all that read it
    a | b   a b             either
    a & b   a,b             both
    ^a      (a | b) & ^c    not; parentheses
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import dagster as dg

from dagster_sqlmesh_pipes.errors import SelectionError
from dagster_sqlmesh_pipes.specs import KIND_KEY, MODEL_KEY, PROJECT_KEY
from dagster_sqlmesh_pipes.translator import safe_tag, split_fqn

Select = str | Sequence[str]
"""An expression, or several of which each adds to the others."""

_TOKEN = re.compile(r'\s*(?:([()|&,^])|((?:"[^"]*"|[^\s()|&,^"])+))')
_WILDCARDS = frozenset("*?[")
_MAX_DEPTH = 100
"""Parentheses and negations in one another: far from where Python's own limit is."""


def build_sqlmesh_asset_selection(
    assets: dg.AssetsDefinition | Sequence[dg.AssetsDefinition],
    select: Select | None = None,
    exclude: Select | None = None,
) -> dg.AssetSelection:
    """A selection for jobs, schedules and sensors, of models of assets that are there.

    Args:
        assets: what `sqlmesh_assets` made; others among them are left out.
        select: an expression as in this module's description; all models by default.
        exclude: an expression for those to leave out.

    Raises:
        SelectionError: an expression cannot be read, names a model that there is not, or nothing is left.
    """
    definitions = [assets] if isinstance(assets, dg.AssetsDefinition) else assets
    specs = [spec for definition in definitions for spec in definition.specs if MODEL_KEY in spec.metadata]
    return dg.AssetSelection.assets(*(spec.key for spec in select_specs(specs, select, exclude)))


def select_specs(
    specs: Sequence[dg.AssetSpec], select: Select | None, exclude: Select | None
) -> list[dg.AssetSpec]:
    """The specs that are selected and not excluded, in their order.

    Raises:
        SelectionError: an expression cannot be read, names a model that there is not, or nothing is left.
    """
    if select is None and not exclude:
        return list(specs)
    nodes = {spec.key: _Node.of(spec) for spec in specs}
    # An empty selection is no selection of everything: a list that was computed may be empty.
    selected = _evaluate(select, nodes) if select else set(nodes) if select is None else set()
    if exclude:
        selected -= _evaluate(exclude, nodes)
    if not selected:
        without = f" without {exclude!r}" if exclude else ""
        raise SelectionError(
            f"The selection {'*' if select is None else select!r}{without} leaves none of {len(specs)} models."
        )
    return [spec for spec in specs if spec.key in selected]


@dataclass(frozen=True)
class _Node:
    names: frozenset[str]
    tags: frozenset[str]
    group: str
    owners: frozenset[str]
    kinds: frozenset[str]
    project: str
    upstream: frozenset[dg.AssetKey]

    @classmethod
    def of(cls, spec: dg.AssetSpec) -> _Node:
        parts = split_fqn(str(spec.metadata[MODEL_KEY]))
        tags = {f"{key}={value}" for key, value in spec.tags.items()} | set(spec.tags)
        kind = str(spec.metadata.get(KIND_KEY, ""))
        return cls(
            names=frozenset(".".join(parts[start:]).lower() for start in range(max(len(parts) - 1, 1))),
            tags=frozenset(tag.lower() for tag in tags),
            group=(spec.group_name or "default").lower(),
            owners=frozenset(
                name.lower() for owner in spec.owners for name in (owner, owner.removeprefix("team:"))
            ),
            kinds=frozenset(name.lower() for name in (kind, *spec.kinds) if name),
            project=str(spec.metadata.get(PROJECT_KEY, "")).lower(),
            upstream=frozenset(dep.asset_key for dep in spec.deps),
        )


_Nodes = dict[dg.AssetKey, _Node]
_METHODS: dict[str, Callable[[_Node], Iterable[str]]] = {
    "tag": lambda node: node.tags,
    "group": lambda node: (node.group,),
    "owner": lambda node: node.owners,
    "kind": lambda node: node.kinds,
    "project": lambda node: (node.project,),
}


def _evaluate(expressions: Select, nodes: _Nodes) -> set[dg.AssetKey]:
    listed = [expressions] if isinstance(expressions, str) else expressions
    return set().union(*(_Parser(text, nodes).parse() for text in listed))


class _Parser:
    """Recursive descent: union, intersection, negation, then a name with its pluses."""

    def __init__(self, text: str, nodes: _Nodes) -> None:
        self._text = text
        self._nodes = nodes
        self._tokens = list(self._tokenize())
        self._place = 0
        self._depth = 0

    def parse(self) -> set[dg.AssetKey]:
        result = self._union()
        if self._peek() is not None:
            raise self._error(f"{self._peek()!r} was not expected")
        return result

    def _tokenize(self) -> Iterator[str]:
        place, text = 0, self._text.rstrip()
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise self._error("a quotation mark is not closed")
            yield match[1] or match[2]
            place = match.end()

    def _peek(self) -> str | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _take(self) -> str:
        word = self._peek()
        if word is None:
            raise self._error("it ends where a model was expected")
        self._place += 1
        return word

    def _union(self) -> set[dg.AssetKey]:
        result = self._intersection()
        while (word := self._peek()) is not None and word != ")":
            if word == "|":
                self._take()
            result = result | self._intersection()
        return result

    def _intersection(self) -> set[dg.AssetKey]:
        result = self._factor()
        while self._peek() in ("&", ","):
            self._take()
            result = result & self._factor()
        return result

    def _factor(self) -> set[dg.AssetKey]:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"it is nested deeper than {_MAX_DEPTH} levels")
        found = self._one()
        self._depth -= 1
        return found

    def _one(self) -> set[dg.AssetKey]:
        word = self._take()
        if word == "^":
            return set(self._nodes) - self._factor()
        upstream = word == "+" and self._peek() == "("
        if upstream:
            word = self._take()
        if word == "(":
            result = self._union()
            if self._peek() != ")":
                raise self._error("a parenthesis is not closed")
            self._take()
            downstream = self._peek() == "+"
            if downstream:
                self._take()
        elif word in (")", "|", "&", ","):
            raise self._error(f"{word!r} was not expected")
        else:
            upstream, downstream = word.startswith("+"), word.endswith("+")
            result = self._named(word.removeprefix("+").removesuffix("+"))
        found = set(result)
        if upstream:
            found |= self._walk(result, lambda key: self._nodes[key].upstream)
        if downstream:
            found |= self._walk(result, lambda key: self._downstream.get(key, ()))
        return found

    def _named(self, word: str) -> set[dg.AssetKey]:
        method, colon, value = word.partition(":")
        if not colon or '"' in method:  # a quoted name may hold a colon
            return self._by_name(word.replace('"', "").lower())
        values_of = _METHODS.get(method)
        if values_of is None:
            raise self._error(
                f"there is no {method!r}: {', '.join(f'{name}:' for name in _METHODS)} are known"
            )
        pattern = value.replace('"', "").lower()
        # A tag is spelled in Dagster with the characters that are legal there.
        patterns = (
            {pattern, safe_tag(pattern)} if method == "tag" and not _WILDCARDS & set(pattern) else {pattern}
        )
        return {
            key
            for key, node in self._nodes.items()
            if any(fnmatchcase(text, wanted) for text in values_of(node) for wanted in patterns)
        }

    def _by_name(self, pattern: str) -> set[dg.AssetKey]:
        found = {
            key
            for key, node in self._nodes.items()
            if any(name == pattern or fnmatchcase(name, pattern) for name in node.names)
        }
        if not found and not _WILDCARDS & set(pattern):
            names = [name for node in self._nodes.values() for name in node.names]
            near = difflib.get_close_matches(pattern, names, n=1)
            raise self._error(f"there is no model {pattern!r}" + (f"; there is {near[0]}" if near else ""))
        return found

    @cached_property
    def _downstream(self) -> dict[dg.AssetKey, set[dg.AssetKey]]:
        found: dict[dg.AssetKey, set[dg.AssetKey]] = {}
        for key, node in self._nodes.items():
            for parent in node.upstream:
                found.setdefault(parent, set()).add(key)
        return found

    def _walk(
        self, start: Iterable[dg.AssetKey], neighbours: Callable[[dg.AssetKey], Iterable[dg.AssetKey]]
    ) -> set[dg.AssetKey]:
        found: set[dg.AssetKey] = set()
        waiting = list(start)
        while waiting:
            key = waiting.pop()
            if key in self._nodes and key not in found:
                found.add(key)
                waiting.extend(neighbours(key))
        return found

    def _error(self, problem: str) -> SelectionError:
        return SelectionError(f"The selection {self._text!r} cannot be used: {problem}.")
