"""A SQLMesh model in Python: customers grouped by what they have bought."""

import typing as t
from datetime import datetime

import pandas as pd
from sqlglot import exp
from sqlmesh import ExecutionContext, model

# Lower bounds of the segments, in euros.
LOYAL_FROM = 100.0
VIP_FROM = 250.0


def segment(lifetime_value: float) -> str:
    """Name the segment of a customer who has spent `lifetime_value` euros."""
    if lifetime_value >= VIP_FROM:
        return "vip"
    if lifetime_value >= LOYAL_FROM:
        return "loyal"
    return "occasional" if lifetime_value > 0 else "prospect"


@model(
    "marts.customer_segments",
    kind="FULL",
    # A plain string with an "@" would be parsed as SQL with a macro in it.
    owner=exp.Literal.string("analytics@example.com"),
    tags=["dagster:group_name:marts", "customer data"],
    description="The segment of each customer, by lifetime value.",
    columns={"customer_id": "INT", "lifetime_value": "DECIMAL(12, 2)", "segment": "TEXT"},
    column_descriptions={"segment": "vip, loyal, occasional, or prospect (no order yet)."},
    grain="customer_id",
    # A plain string would be taken for a SQL literal: columns are given as expressions.
    audits=[
        ("unique_values", {"columns": [exp.column("customer_id")]}),
        ("accepted_values", {"column": exp.column("segment"), "is_in": ["vip", "loyal", "occasional", "prospect"]}),
    ],
)
def execute(
    context: ExecutionContext,
    start: datetime,
    end: datetime,
    execution_time: datetime,
    **kwargs: t.Any,
) -> t.Iterator[pd.DataFrame]:
    customers = context.fetchdf(
        f"SELECT customer_id, lifetime_value FROM {context.resolve_table('marts.customer_lifetime_value')}"
    )
    # SQLMesh refuses an empty frame; a model without rows yields none.
    if not customers.empty:
        yield customers.assign(segment=customers["lifetime_value"].astype(float).map(segment))
