"""Column lineage: which columns of the tables that a model reads each of its columns is computed from.

Works on the query as SQLMesh has rendered and qualified it for its own use, and asks sqlglot for all columns at once:
four times as fast as SQLMesh's `sqlmesh.core.lineage`, which qualifies a query again and begins anew for each column.
An older sqlglot (27) has no such question, and is asked for one column after the other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sqlglot import exp
from sqlglot.lineage import Node, lineage, to_node
from sqlglot.optimizer import build_scope, qualify
from sqlmesh.core.dialect import normalize_mapping_schema, normalize_model_name

_ALL_AT_ONCE = "None" in str(inspect.signature(lineage).parameters["column"].annotation)
"""Whether sqlglot's `lineage` takes None for all columns. Nothing else about it tells."""

Source = tuple[str, str]
"""A model's FQN and a column's name."""

ColumnSources = Mapping[str, tuple[Source, ...]]
"""By column; sorted."""


def column_sources(models: Iterable[Any], unknown: Callable[[str, str], object]) -> dict[str, ColumnSources]:
    """The sources of every column of SQL models, one step up, by model.

    An embedded model is part of the queries that read it: the sources are those of its own columns. Only columns that a
    value is made of count, not those of joins, filters and groups. A model that reads itself is not its own source.

    Args:
        models: SQLMesh models in topological order.
        unknown: told the FQN and the reason of each model whose lineage cannot be computed; the model has no sources.
    """
    found: dict[str, ColumnSources] = {}
    embedded: dict[str, ColumnSources] = {}
    names: dict[str, str] = {}
    for model in models:
        if not model.is_sql:
            continue
        try:
            read = _column_sources(model, names)
        except Exception as error:  # noqa: BLE001 - whatever sqlglot cannot do costs one model its lineage, and is told
            unknown(model.fqn, str(error).partition("\n")[0] or type(error).__name__)
            continue
        sources = {column: _through(embedded, direct) for column, direct in read.items()}
        found[model.fqn] = sources
        if model.kind.is_embedded:
            embedded[model.fqn] = sources
    return found


def _through(embedded: Mapping[str, ColumnSources], direct: Iterable[Source]) -> tuple[Source, ...]:
    sources: set[Source] = set()
    for fqn, column in direct:
        if fqn in embedded:
            sources.update(embedded[fqn].get(column, ()))
        else:
            sources.add((fqn, column))
    return tuple(sorted(sources))


def _column_sources(model: Any, names: dict[str, str]) -> dict[str, set[Source]]:
    query = _qualified(model)
    scope = build_scope(query)
    if scope is None:
        raise ValueError("its query has no columns to follow")
    if _ALL_AT_ONCE:
        nodes = lineage(None, query, scope=scope, dialect=model.dialect, trim_selects=False, copy=False)
    else:
        nodes = {
            column: to_node(column, scope, model.dialect, trim_selects=False)
            for column in query.named_selects
        }
    tables: dict[int, str] = {}
    return {column: set(_read(node, model, tables, names)) for column, node in nodes.items()}


def _read(node: Node, model: Any, tables: dict[int, str], names: dict[str, str]) -> Iterator[Source]:
    """The columns of tables at the ends of a column's tree."""
    reads = model.depends_on
    for leaf in node.walk():
        table = leaf.expression
        if leaf.downstream or leaf.name == "*" or not isinstance(table, exp.Table):
            continue
        if id(table) not in tables:
            tables[id(table)] = normalize_model_name(
                table, default_catalog=model.default_catalog, dialect=model.dialect
            )
        if leaf.name not in names:  # SQL, with the table before it
            names[leaf.name] = exp.to_column(leaf.name).name
        if tables[id(table)] in reads:
            yield tables[id(table)], names[leaf.name]


def _qualified(model: Any) -> exp.Query:
    """The model's query with a table on each column and each star resolved, as far as the tables' columns are known."""
    query: exp.Query | None = model.render_query()
    if query is None:
        raise ValueError("its query is only known when it runs")
    has_star = any(select.is_star for select in query.find_all(exp.Select))
    if not has_star and all(column.table for column in query.find_all(exp.Column)):
        return query  # as SQLMesh leaves a query whose tables it knows
    qualified = qualify.qualify(
        query.copy(),
        dialect=model.dialect,
        catalog=model.default_catalog,
        schema=normalize_mapping_schema(model.mapping_schema, dialect=model.dialect),
        infer_schema=True,
        validate_qualify_columns=False,
    )
    assert isinstance(qualified, exp.Query)  # noqa: S101 - narrows the type
    return qualified
