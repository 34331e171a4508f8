"""What keeps a project from being deployed or its definitions from loading, and what is no asset."""

from __future__ import annotations

import json

import dagster as dg
import pytest

from behaviour.cases_kinds import of_kind
from dagster_sqlmesh_pipes import ManifestError


def test_a_manifest_of_another_protocol_major_is_refused_with_both_versions_and_the_remedy(make_warehouse):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, deploy=False)
    warehouse.manifest()
    path = warehouse.path / "sqlmesh_manifest.json"
    manifest = json.loads(path.read_text())
    ours = manifest["v"]
    path.write_text(json.dumps({**manifest, "v": "9.1"}))

    with pytest.raises(ManifestError) as refused:
        warehouse.assets()

    sentence = str(refused.value)
    assert f"the manifest speaks protocol 9.1, this side speaks {ours}" in sentence
    assert f"sqlmesh-runner manifest --project {warehouse.path}" in sentence


def test_a_manifest_of_a_later_minor_with_what_this_side_does_not_know_is_read(make_warehouse):
    warehouse = make_warehouse({"staging.first": "SELECT 1 AS a"}, deploy=False)
    warehouse.manifest()
    path = warehouse.path / "sqlmesh_manifest.json"
    manifest = json.loads(path.read_text())
    major = manifest["v"].partition(".")[0]
    path.write_text(json.dumps({**manifest, "v": f"{major}.99", "of_the_future": [1]}))

    assert warehouse.assets().keys == {dg.AssetKey(["db", "staging", "first"])}


def test_a_managed_model_is_refused_when_duckdb_is_planned_and_never_gets_as_far_as_a_run(make_warehouse):
    warehouse = make_warehouse(files=of_kind("managed", "MANAGED", "SELECT 1 AS a"), deploy=False)

    with pytest.raises(AssertionError, match="Engine does not support managed tables"):
        warehouse.deploy()


def test_embedded_and_external_models_are_no_assets_and_dependencies_look_through_the_embedded(
    make_warehouse,
):
    warehouse = make_warehouse(
        files={
            "external_models.yaml": "- name: raw.events\n  columns: {id: int, region: text, changed: timestamp}\n",
            **of_kind("inlined", "EMBEDDED", "SELECT id FROM raw.events"),
            **of_kind(
                "inlined_twice",
                "EMBEDDED",
                "SELECT i.id FROM marts.inlined AS i JOIN marts.other AS o ON o.id = i.id",
            ),
            **of_kind("other", "FULL"),
            **of_kind("reads", "FULL", "SELECT id FROM marts.inlined_twice"),
        },
        deploy=False,
    )
    warehouse.manifest()

    assets = warehouse.assets()

    marts = {name: dg.AssetKey(["db", "marts", name]) for name in ("other", "reads")}
    events = dg.AssetKey(["db", "raw", "events"])
    assert assets.keys == set(marts.values())
    assert assets.asset_deps[marts["reads"]] == {marts["other"], events}
    assert assets.asset_deps[marts["other"]] == {events}
