"""Keys stay what they are when others join the project."""

from __future__ import annotations

import dagster as dg


def test_a_name_that_needs_no_change_keeps_its_key_in_a_schema_with_a_hyphen(make_warehouse):
    def keys(*tables: str) -> dict[str, dg.AssetKey]:
        models = {
            f"models/{n}.sql": f'MODEL (name "my-schema"."{table}");\nSELECT 1 AS a'
            for n, table in enumerate(tables)
        }
        warehouse = make_warehouse(files=models, deploy=False)
        warehouse.manifest()
        specs = warehouse.assets().specs
        return {spec.metadata["sqlmesh/model"]: spec.key for spec in specs}

    order_items = '"db"."my-schema"."order_items"'

    alone = keys("order_items")
    with_another = keys("order_items", "order items")

    assert with_another[order_items] == alone[order_items]
