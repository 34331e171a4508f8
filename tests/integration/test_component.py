"""A SQLMesh project as a component: YAML in, definitions out; Dagster's own `dg` commands; a run with the real runner."""

import asyncio
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import click
import dagster as dg
import pytest
import yaml
from dagster.components.resolved.errors import ResolutionException
from dagster.components.testing.utils import DefsFolderSandbox, create_defs_folder_sandbox

from dagster_sqlmesh_pipes import (
    DockerLauncher,
    DuplicateAssetKeyError,
    KubernetesLauncher,
    ManifestError,
    PartitionsError,
    SelectionError,
    SQLMeshProject,
    SQLMeshProjectComponent,
    SubprocessLauncher,
)
from dagster_sqlmesh_pipes.arguments import KubernetesLauncherArgs
from dagster_sqlmesh_pipes.compat import HAS_COMPONENTS
from sqlmesh_pipes_protocol.manifest import load_manifest, write_manifest
from support.warehouse import Outcome, Warehouse, write

pytestmark = pytest.mark.skipif(not HAS_COMPONENTS, reason="the component needs Dagster 1.13")

TYPE = "dagster_sqlmesh_pipes.SQLMeshProjectComponent"
MODELS = 13
Loaded = SimpleNamespace


class Sandbox:
    """A Dagster project's folder of definitions, in this process. A component's folder is called ``warehouse``."""

    def __init__(self, sandbox: DefsFolderSandbox, project: Mapping[str, object]) -> None:
        self.inner = sandbox
        self.root = sandbox.project_root
        self.folder = sandbox.defs_folder_path / "warehouse"
        self._project = project

    def write(self, _type: str = TYPE, _folder: Path | None = None, **attributes: object) -> None:
        attributes.setdefault("project", self._project)
        document: dict[str, object] = {"type": _type, "attributes": attributes}
        if (self.folder / "template_vars.py").exists():
            document["template_vars_module"] = ".template_vars"
        write((_folder or self.folder) / "defs.yaml", yaml.safe_dump(document))

    @contextmanager
    def load(self) -> Iterator[Loaded]:
        with self.inner.load_component_and_build_defs(self.folder) as (component, defs):
            yield read(defs, component)

    @contextmanager
    def component(self) -> Iterator[SQLMeshProjectComponent]:
        with self.inner.build_component_tree() as tree:
            yield tree.load_component(self.folder)

    def refresh(self) -> None:
        """As `dg utils refresh-defs-state` does."""
        with self.component() as component:
            asyncio.run(component.refresh_state(self.root))


def read(defs: dg.Definitions, component: SQLMeshProjectComponent) -> Loaded:
    (assets,) = [asset for asset in defs.assets or () if isinstance(asset, dg.AssetsDefinition)]
    (job,) = defs.jobs or ()
    schedule = next(iter(defs.schedules or ()), None)
    ((key, resource),) = (defs.resources or {}).items()
    return Loaded(
        component=component,
        defs=defs,
        assets=assets,
        specs={"/".join(spec.key.path): spec for spec in assets.specs},
        job=job,
        schedule=schedule,
        resource_key=key,
        resource=resource,
    )


@pytest.fixture
def sandbox(planned_shop: Warehouse) -> Iterator[Sandbox]:
    """Its components are of the shop, by the manifest that stands in the shop's directory."""
    with create_defs_folder_sandbox() as made:
        path = planned_shop.path
        yield Sandbox(made, {"project_dir": str(path), "manifest": str(path / "sqlmesh_manifest.json")})


@pytest.fixture
def load(sandbox: Sandbox) -> Callable[..., AbstractContextManager[Loaded]]:
    """The definitions of a component with these attributes."""

    def load(**attributes: object) -> AbstractContextManager[Loaded]:
        sandbox.write(**attributes)
        return sandbox.load()

    return load


def test_a_project_alone_gives_assets_a_job_a_stopped_schedule_and_a_resource_named_for_the_folder(load):
    with load() as made:
        assert len(made.specs) == MODELS
        assert made.assets.op.name == "warehouse"
        assert made.job.name == "warehouse_job"
        assert made.schedule.name == "warehouse_schedule"
        assert made.schedule.default_status == dg.DefaultScheduleStatus.STOPPED
        assert made.resource_key == "sqlmesh_warehouse"
        assert (made.resource.environment, made.resource.gateway) == ("prod", None)
        assert made.specs["shop/staging/stg_orders"].group_name == "staging"
        assert len(list(made.assets.check_keys)) > MODELS
        made.defs.resolve_asset_graph()


def keys(made: Loaded) -> set[str]:
    return set(made.specs)


PARAMETERS: dict[str, tuple[dict[str, object], Callable[[Loaded], object], object]] = {
    "select": (
        {"select": "marts.orders | staging.stg_orders"},
        keys,
        {"shop/marts/orders", "shop/staging/stg_orders"},
    ),
    "select, several": (
        {"select": ["marts.orders", '"shop"."raw"."orders"']},
        keys,
        {"shop/marts/orders", "shop/raw/orders"},
    ),
    "exclude": (
        {"select": "raw.*", "exclude": "raw.orders"},
        keys,
        {"shop/raw/customers", "shop/raw/products"},
    ),
    "group_name": (
        {"group_name": "all of it"},
        lambda made: {spec.group_name for key, spec in made.specs.items() if key.startswith("shop/staging")},
        {"all_of_it"},
    ),
    "owners": (
        {"owners": ["ann@example.com", "data"]},
        lambda made: made.specs["shop/raw/orders"].owners,
        ["ann@example.com", "team:data"],
    ),
    "external_asset_mapping": (
        {"external_asset_mapping": "ingested/{node.schema}/{node.name}"},
        lambda made: [dep.asset_key for dep in made.specs["shop/staging/stg_payments"].deps],
        [dg.AssetKey(["ingested", "raw", "payments"])],
    ),
    "concurrency_limit": ({"concurrency_limit": 3}, lambda made: made.resource.concurrency_limit, 3),
    "ignore_cron": ({"ignore_cron": True}, lambda made: made.resource.ignore_cron, True),
    "skips_pass": ({"skips_pass": True}, lambda made: made.resource.skips_pass, True),
    "skip_janitor": ({"skip_janitor": True}, lambda made: made.resource.skip_janitor, True),
    "op name": ({"op": {"name": "run_it"}}, lambda made: made.assets.op.name, "run_it"),
    "op tags": ({"op": {"tags": {"team": "data"}}}, lambda made: made.assets.op.tags["team"], "data"),
    "op pool": ({"op": {"pool": "warehouse"}}, lambda made: made.assets.op.pool, "warehouse"),
    "no op pool given": ({}, lambda made: made.assets.op.pool, "sqlmesh_warehouse_prod"),
    "no op pool": ({"op": {"pool": False}}, lambda made: made.assets.op.pool, None),
    "retry_policy": (
        {"retry_policy": {"max_retries": 2, "delay": 0.5, "backoff": "LINEAR", "jitter": "FULL"}},
        lambda made: made.assets.op.retry_policy,
        dg.RetryPolicy(max_retries=2, delay=0.5, backoff=dg.Backoff.LINEAR, jitter=dg.Jitter.FULL),
    ),
    "no retry_policy": ({"retry_policy": None}, lambda made: made.assets.op.retry_policy, None),
    "job_name": ({"job_name": "nightly"}, lambda made: made.job.name, "nightly"),
    "job of a schedule": ({"job_name": "nightly"}, lambda made: made.schedule.job_name, "nightly"),
    "schedule name": ({"schedule": {"name": "due"}}, lambda made: made.schedule.name, "due"),
    "schedule enabled": (
        {"schedule": {"enabled": True}},
        lambda made: made.schedule.default_status,
        dg.DefaultScheduleStatus.RUNNING,
    ),
    "schedule granularity": (
        {"schedule": {"granularity": "finest"}},
        lambda made: made.schedule.cron_schedule,
        ["0 0 * * *"],
    ),
    "no schedule": (
        {"schedule": None},
        lambda made: (made.schedule, made.job.name),
        (None, "warehouse_job"),
    ),
    "resource_key": ({"resource_key": "sqlmesh"}, lambda made: made.resource_key, "sqlmesh"),
    "required_resource_keys": (
        {"required_resource_keys": ["slack"]},
        lambda made: made.assets.required_resource_keys,
        {"slack", "sqlmesh_warehouse", "io_manager"},
    ),
    "partitions": (
        {"partitions": True, "schedule": None, "select": "marts.orders"},
        lambda made: made.specs["shop/marts/orders"].partitions_def.get_first_partition_key(),
        "2026-01-01",
    ),
}


@pytest.mark.parametrize(("attributes", "look", "expected"), PARAMETERS.values(), ids=PARAMETERS.keys())
def test_a_parameter_of_the_yaml_is_in_the_definitions(attributes, look, expected, load):
    with load(**attributes) as made:
        assert look(made) == expected


def test_every_attribute_is_tested_here():
    tested = {name for attributes, _, _ in PARAMETERS.values() for name in attributes}
    elsewhere = {"project", "launcher", "translation", "translator", "defs_state"}

    assert set(SQLMeshProjectComponent.model().model_fields) == tested | elsewhere


def test_the_crons_of_a_schedule_are_those_of_all_models_by_default(load, planned_shop, tmp_path):
    shop = load_manifest(planned_shop.path / "sqlmesh_manifest.json")
    models = [
        replace(model, cron="30 6 * * 1") if model.cron == "@weekly" else model for model in shop.models
    ]
    write_manifest(replace(shop, models=tuple(models)), tmp_path / "manifest.json")
    project = {"project_dir": str(planned_shop.path), "manifest": str(tmp_path / "manifest.json")}

    with load(project=project) as made:
        assert made.schedule.cron_schedule == ["0 0 * * *", "30 6 * * 1"]
    with load(project=project, schedule={"granularity": "finest"}) as made:
        assert made.schedule.cron_schedule == ["0 0 * * *"]


def test_a_schedule_asks_who_it_is_told_to_ask(load, instance):
    nowhere = {"type": "subprocess", "command": ["/nowhere/sqlmesh-runner"]}
    with load(launcher=nowhere, schedule={"due": "record"}) as made:
        request = made.schedule.evaluate_tick(dg.build_schedule_context(instance)).run_requests
        assert len(request) == 1

    with load(launcher=nowhere, schedule={"due": "state"}) as made, pytest.raises(dg.Failure) as caught:
        made.schedule.evaluate_tick(dg.build_schedule_context(instance))
    assert "/nowhere/sqlmesh-runner" in str(caught.value.description)


def cause(error: BaseException, kind: type[Exception]) -> Exception:
    """The error of a kind that Dagster wrapped in its own."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, kind):
        found = found.__cause__ or found.__context__
    assert isinstance(found, kind), error
    return found


def refused(load: AbstractContextManager[Loaded], kind: type[Exception]) -> str:
    with pytest.raises(Exception) as caught, load:  # noqa: PT011 - Dagster wraps it in errors of its own
        pass
    return str(cause(caught.value, kind))


def test_partitions_and_the_adaptive_schedule_are_refused_together(load):
    assert "schedule: null" in refused(load(partitions=True, select="marts.orders"), PartitionsError)


def test_a_selection_of_nothing_is_refused(load):
    assert "staging.nope" in refused(load(select="staging.nope"), SelectionError)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"selct": "marts.orders"}, ["selct"]),
        ({"launcher": {"type": "rocket"}}, ["launcher", "subprocess"]),
        ({"launcher": {"command": ["sqlmesh-runner"]}}, ["launcher", "type"]),
        ({"launcher": {"type": "subprocess", "grace_period_seconds": 0}}, ["grace_period_seconds"]),
        ({"launcher": {"type": "docker"}}, ["image"]),
        ({"launcher": {"type": "docker", "image": "a:1", "memory_limit": "1g"}}, ["memory_limit"]),
        ({"launcher": {"type": "kubernetes", "image": "a:1", "name_space": "n"}}, ["name_space"]),
        ({"launcher": {"type": "kubernetes", "image_pull_policy": "Sometimes"}}, ["image_pull_policy"]),
        ({"schedule": {"granularity": "weekly"}}, ["granularity", "finest"]),
        ({"schedule": {"due": "maybe"}}, ["due", "state"]),
        ({"retry_policy": {"backoff": "SLOW"}}, ["backoff", "EXPONENTIAL"]),
        ({"op": {"nam": "x"}}, ["op", "nam"]),
        ({"launcher": "subprocess"}, ["`launcher`", "Launcher"]),
        ({"translator": "mine"}, ["`translator`", "SQLMeshTranslator"]),
        ({"partitions": "{{ 'false' }}"}, ["`partitions`", "bool"]),
        ({"group_name": "{{ grup }}"}, ["grup"]),
        ({"external_asset_mapping": "target/{node.nam}"}, ["external_asset_mapping", "nam"]),
    ],
)
def test_what_is_not_understood_is_refused_and_named(attributes, words, load):
    with pytest.raises(Exception) as caught, load(**attributes):  # noqa: PT011 - Dagster's own errors
        pass
    messages: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        messages.append(str(error))
        error = error.__cause__ or error.__context__

    assert all(any(word in text for text in messages) for word in words), messages


def test_paths_are_from_the_component_s_folder_on_and_texts_stay_texts(
    load, sandbox, planned_shop, monkeypatch
):
    manifest = str(planned_shop.path / "sqlmesh_manifest.json")
    monkeypatch.setenv("RELEASE", "1.10")
    with load(
        project={
            "project_dir": ["../../wh", "/srv/other"],
            "gateway": "local",
            "environment": "2026",
            "manifest": manifest,
        },
        launcher={
            "type": "subprocess",
            "command": ["../../runner/bin/sqlmesh-runner", "../not/touched"],
            "env": {"RELEASE": "{{ env.RELEASE }}", "ONE": "1_000"},
            "working_dir": "work",
            "grace_period_seconds": 7,
        },
    ) as made:
        source = sandbox.folder.parent.parent.resolve()
        assert made.resource.project_dirs == [str(source / "wh"), "/srv/other"]
        assert (made.resource.gateway, made.resource.environment) == ("local", "2026")
        launcher = made.component.launcher
        assert launcher.command == [str(source / "runner/bin/sqlmesh-runner"), "../not/touched"]
        assert launcher.env == {"RELEASE": "1.10", "ONE": "1_000"}
        assert launcher.working_dir == str(sandbox.folder.resolve() / "work")
        assert launcher.grace_period_seconds == 7

    with load(launcher={"type": "subprocess", "python": "../bin/python"}) as made:
        assert made.component.launcher.python == str(sandbox.folder.parent.resolve() / "bin/python")
    with load(launcher={"type": "subprocess", "command": ["my-runner"], "python": None}) as made:
        assert made.component.launcher.command == ["my-runner"]


def test_a_launcher_of_containers_has_every_setting_in_yaml_and_mounts_from_the_components_folder_on(
    load, sandbox, monkeypatch
):
    monkeypatch.setenv("RELEASE", "1.10")
    settings = {
        "image": "sqlmesh-runner:{{ env.RELEASE }}",
        "command": ["/opt/runner/bin/sqlmesh-runner"],
        "env": {"RELEASE": "{{ env.RELEASE }}"},
        "volumes": ["../../wh:/project:ro", "data:/data", "/srv/seeds:/seeds"],
        "network": "warehouse",
        "user": "1000",
        "working_dir": "work",
        "memory": "2g",
        "cpus": 1.5,
        "pull": "never",
        "labels": {"team": "data"},
        "docker_host": "tcp://docker.example.com:2376",
        "container_kwargs": {"read_only": True, "tmpfs": {"/tmp": ""}},
        "grace_period_seconds": 7,
        "silence_timeout_seconds": 90,
    }
    assert settings.keys() == DockerLauncher.model_fields.keys()

    with load(launcher={"type": "docker", **settings}) as made:
        launcher = made.component.launcher
        folder = sandbox.folder.parent.parent.resolve()
        assert {name: getattr(launcher, name) for name in settings} == {
            **settings,
            "image": "sqlmesh-runner:1.10",
            "env": {"RELEASE": "1.10"},
            "volumes": [f"{folder / 'wh'}:/project:ro", "data:/data", "/srv/seeds:/seeds"],
        }


def test_a_launcher_of_pods_has_every_setting_in_yaml(load, monkeypatch):
    monkeypatch.setenv("RELEASE", "1.10")
    settings = {
        "image": "warehouse:{{ env.RELEASE }}",
        "namespace": "sqlmesh",
        "env_secrets": ["warehouse"],
        "image_pull_policy": "IfNotPresent",
        "resources": {"limits": {"memory": "2Gi"}},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "volume_mounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "base_pod_spec": {"volumes": [{"name": "tmp", "emptyDir": {}}]},
        "active_deadline_seconds": 3600,
        "start_timeout_seconds": 60,
        "delete_pod": "on_success",
        "grace_period_seconds": 7,
        "silence_timeout_seconds": 90,
    }

    with load(launcher={"type": "kubernetes", **settings}) as made:
        launcher = made.component.launcher
        assert type(launcher) is KubernetesLauncher
        assert {name: getattr(launcher, name) for name in settings} == {**settings, "image": "warehouse:1.10"}
    assert KubernetesLauncher.model_fields.keys() <= KubernetesLauncherArgs.model_fields.keys()


TRANSLATIONS: dict[str, tuple[dict[str, object], Callable[[dg.AssetSpec], object], object]] = {
    "key_prefix": (
        {"key_prefix": "wh"},
        lambda spec: spec.key,
        dg.AssetKey(["wh", "shop", "staging", "stg_orders"]),
    ),
    "group_name": ({"group_name": "{{ model.schema }}_x"}, lambda spec: spec.group_name, "staging_x"),
    "owners": (
        {"owners": ["{{ model.owner }}", "team:{{ model.schema }}"]},
        lambda spec: list(spec.owners),
        ["analytics@example.com", "team:staging"],
    ),
    "tags": (
        {"tags": {"kind": "{{ model.kind }}"}},
        lambda spec: (spec.tags["kind"], spec.tags["staging"]),
        ("VIEW", ""),
    ),
    "kinds": ({"kinds": ["warehouse"]}, lambda spec: spec.kinds, {"warehouse"}),
    "description": (
        {"description": "{{ model.name }} of {{ spec.group_name }}"},
        lambda spec: spec.description,
        "staging.stg_orders of staging",
    ),
    "metadata": (
        {"metadata": {"wiki": "https://wiki/{{ model.table }}"}},
        lambda spec: (spec.metadata["wiki"], spec.metadata["dagster/table_name"]),
        ("https://wiki/stg_orders", "shop.staging.stg_orders"),
    ),
    "code_version": ({"code_version": "v{{ model.kind }}"}, lambda spec: spec.code_version, "vVIEW"),
    "automation_condition": (
        {"automation_condition": "{{ dg.AutomationCondition.eager() }}"},
        lambda spec: spec.automation_condition,
        dg.AutomationCondition.eager(),
    ),
    "no freshness_policy": (
        {"freshness_policy": None},
        lambda spec: spec.freshness_policy,
        None,
    ),
}


@pytest.mark.parametrize(("translation", "look", "expected"), TRANSLATIONS.values(), ids=TRANSLATIONS.keys())
def test_translation_changes_one_attribute_and_leaves_the_others(translation, look, expected, load):
    with load() as plain, load(translation=translation) as translated:
        model = "sqlmesh/model"
        before, after = (
            next(
                spec for spec in made.assets.specs if spec.metadata[model] == '"shop"."staging"."stg_orders"'
            )
            for made in (plain, translated)
        )
        assert look(after) == expected
        (attribute,) = (name.removeprefix("key_prefix") or "key" for name in translation)
        for other in {"key", "group_name", "owners", "kinds", "description", "code_version"} - {attribute}:
            assert getattr(after, other) == getattr(before, other)


def test_a_translated_key_is_used_everywhere(load):
    with load(translation={"key": "wh/{{ model.schema }}-{{ model.table }}"}) as made:
        orders = made.specs["wh/marts-orders"]
        reads = {"/".join(dep.asset_key.path) for dep in orders.deps}
        assert "wh/staging-stg_orders" in reads
        assert not any(key.startswith("shop/") for key in made.specs)
        assert {key.asset_key for key in made.assets.check_keys} == set(made.assets.keys)
        lineage = orders.metadata["dagster/column_lineage"].value.deps_by_column
        sources = {dep.asset_key for deps in lineage.values() for dep in deps}
        assert sources <= {dep.asset_key for dep in orders.deps}
        graph = made.defs.resolve_asset_graph()
        assert made.job.selection.resolve(graph) == set(made.assets.keys)
        assert graph.get(dg.AssetKey(["wh", "staging-stg_payments"])).parent_keys == {
            dg.AssetKey(["shop", "raw", "payments"])
        }

    translation = {"key": "wh/{{ model.schema }}-{{ model.table }}"}
    with load(translation=translation, select="+marts.order_payments", exclude="raw.*") as made:
        assert {"wh/marts-orders", "wh/staging-stg_orders", "wh/marts-order_payments"} <= set(made.specs)


def test_a_translation_that_gives_two_models_one_key_is_refused_naming_both(load):
    message = refused(load(translation={"key": "wh/{{ model.table }}"}), DuplicateAssetKeyError)

    assert '"shop"."marts"."orders"' in message
    assert '"shop"."raw"."orders"' in message


def test_a_translation_goes_before_parameters_and_a_model_s_own_tags_before_it(load):
    own = {"group_name": "translated", "owners": ["team:translated"], "tags": {"tier": "translated"}}
    with load(group_name="given", owners=["team:given"], translation=own) as made:
        plain, tagged = made.specs["shop/staging/stg_orders"], made.specs["shop/marts/daily_revenue"]
        assert (plain.group_name, list(plain.owners), plain.tags["tier"]) == (
            "translated",
            ["team:translated"],
            "translated",
        )
        assert (tagged.group_name, list(tagged.owners), tagged.tags["tier"]) == (
            "marts",
            ["team:finance"],
            "gold",
        )

    with load(group_name="given", translation={"description": "in {{ spec.group_name }}"}) as made:
        assert made.specs["shop/staging/stg_orders"].description == "in given"


def test_look_alike_names_stay_apart_under_a_translation_that_leaves_keys_alone(load, planned_shop, tmp_path):
    manifest = load_manifest(planned_shop.path / "sqlmesh_manifest.json")
    (orders,) = [model for model in manifest.models if model.fqn == '"shop"."staging"."stg_orders"']
    alike = replace(
        orders, fqn='"shop"."staging"."stg-orders"', name='staging."stg-orders"', table="stg-orders"
    )
    write_manifest(replace(manifest, models=(*manifest.models, alike)), tmp_path / "manifest.json")
    project = {"project_dir": str(planned_shop.path), "manifest": str(tmp_path / "manifest.json")}

    with load(project=project, translation={"group_name": "all"}) as made:
        assert len(made.specs) == MODELS + 1
        assert "shop/staging/stg_orders" in made.specs
        made.defs.resolve_asset_graph()


@pytest.mark.parametrize("text", ["wh/{{ model.tabel }}", "{{ model.tabel }}"])
def test_a_translation_that_asks_for_what_a_model_has_not_is_refused(text, load):
    message = refused(load(translation={"key": text}), ResolutionException)

    assert "model.tabel" in message
    assert "table" in message.split("It has ")[1]


@pytest.mark.parametrize("translation", [{"deps": ["a/b"]}, {"skippable": True}])
def test_a_translation_of_what_sqlmesh_decides_is_refused(translation, load):
    message = refused(load(translation=translation), dg.DagsterInvalidDefinitionError)

    assert next(iter(translation)) in message
    assert "post_processing" in message


def test_a_translator_of_one_s_own_comes_by_a_template_variable(load, sandbox):
    write(
        sandbox.folder / "template_vars.py",
        dedent("""
            import dagster as dg
            from dagster_sqlmesh_pipes import SQLMeshTranslator

            class Mine(SQLMeshTranslator):
                def get_asset_key(self, model):
                    return dg.AssetKey([model.schema, model.table])

                def get_external_asset_key(self, external_fqn):
                    return dg.AssetKey(["ingested", "payments"])

                def get_check_name(self, model, audit):
                    return f"sql_{audit.audit}"

            @dg.template_var
            def translator():
                return Mine()
        """),
    )
    with load(translator="{{ translator }}", translation={"key_prefix": "wh"}) as made:
        assert "wh/marts/orders" in made.specs
        assert [dep.asset_key for dep in made.specs["wh/staging/stg_payments"].deps] == [
            dg.AssetKey(["ingested", "payments"])
        ]
        names = {key.name for key in made.assets.check_keys} - {"sqlmesh_execution_status"}
        assert all(name.startswith("sql_") for name in names)


def test_two_components_of_one_project_load_together(load, sandbox):
    sandbox.write(_folder=sandbox.folder.parent / "finance" / "heavy", select="tag:finance")
    with load(exclude="tag:finance"), sandbox.inner.build_component_tree() as tree:
        defs = tree.build_defs()
        defs.resolve_asset_graph()

        assert (
            len(list(defs.resolve_all_asset_specs())) == MODELS + 1
        )  # raw.payments, which somebody else loads
        assert {job.name for job in defs.jobs} == {"warehouse_job", "finance_heavy_job"}
        first, second = tree.get_all_components(of_type=SQLMeshProjectComponent)
        assert first.defs_state_config.key != second.defs_state_config.key


def test_a_component_is_made_in_python_of_a_project_with_its_own_manifest_and_launcher(planned_shop):
    launcher = SubprocessLauncher(command=["/opt/sqlmesh/bin/sqlmesh-runner"])
    component = SQLMeshProjectComponent(project=SQLMeshProject(planned_shop.path, launcher=launcher))

    defs = component.build_defs(dg.ComponentTree.for_test().load_context)

    assert len(read(defs, component).specs) == MODELS


# The manifest as the component's state.


def test_without_state_there_is_one_sentence_with_the_command(load, sandbox, shop):
    message = refused(load(project=str(shop.path)), ManifestError)

    key = f"SQLMeshProjectComponent[{sandbox.inner.project_name}.defs.warehouse]"
    assert str(shop.path) in message
    assert message.endswith(f"dg utils refresh-defs-state --defs-state-key '{key}'")


def test_the_state_has_the_key_that_it_is_given(load, shop):
    state = {"key": "warehouse-manifest", "management_type": "LOCAL_FILESYSTEM"}

    assert (
        message_key(refused(load(project=str(shop.path), defs_state=state), ManifestError))
        == "warehouse-manifest"
    )


def message_key(message: str) -> str:
    return message.rpartition("--defs-state-key ")[2].strip("'")


def test_the_state_is_made_by_the_launcher_kept_while_it_fits_and_made_anew_when_files_change(
    load, sandbox, shop
):
    launcher = {"type": "subprocess", "command": shop.launcher().command, "env": shop.env}
    sandbox.write(project={"project_dir": str(shop.path), "gateway": "local"}, launcher=launcher)
    sandbox.refresh()
    (state,) = sandbox.folder.parent.glob(".local_defs_state/*/state")
    made_at = state.stat().st_mtime_ns
    with sandbox.load() as made:
        assert len(made.specs) == MODELS
        assert made.resource.gateway == "local"

    sandbox.refresh()
    assert state.stat().st_mtime_ns == made_at

    write(shop.path / "models/extra.sql", "MODEL (name marts.extra, kind FULL); SELECT 1 AS one")
    sandbox.refresh()
    with sandbox.load() as made:
        assert "shop/marts/extra" in made.specs


@pytest.mark.parametrize("refresh", [True, False])
def test_in_development_a_stale_manifest_is_made_anew_unless_told_otherwise(refresh, load, shop, monkeypatch):
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    manifest = shop.path / "sqlmesh_manifest.json"
    write(shop.path / "models/extra.sql", "MODEL (name marts.extra, kind FULL); SELECT 1 AS one")
    attributes = {
        "project": {"project_dir": str(shop.path), "manifest": str(manifest)},
        "launcher": {"type": "subprocess", "command": shop.launcher().command, "env": shop.env},
        "defs_state": {"management_type": "LOCAL_FILESYSTEM", "refresh_if_dev": refresh},
    }

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is stale
        with load(**attributes) as made:
            assert ("shop/marts/extra" in made.specs) is refresh


def test_in_development_without_state_and_without_refreshing_there_is_the_same_sentence(
    load, shop, monkeypatch
):
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    state = {"management_type": "LOCAL_FILESYSTEM", "refresh_if_dev": False}

    assert "dg utils refresh-defs-state" in refused(
        load(project=str(shop.path), defs_state=state), ManifestError
    )


def test_a_project_that_sqlmesh_cannot_read_is_told_in_its_words(sandbox, shop):
    write(shop.path / "models/broken.sql", "MODEL (name marts.broken, kind FULL); SELECT FROM WHERE")
    launcher = {"type": "subprocess", "command": shop.launcher().command, "env": shop.env}
    sandbox.write(project=str(shop.path), launcher=launcher)

    with pytest.raises(ManifestError, match=r"broken\.sql"):
        sandbox.refresh()


def test_a_manifest_and_a_state_elsewhere_are_refused_together(load):
    message = refused(
        load(defs_state={"management_type": "VERSIONED_STATE_STORAGE"}), dg.DagsterInvalidDefinitionError
    )

    assert "manifest" in message
    assert "defs_state" in message


# A run.


def test_a_component_s_assets_run_in_the_real_runner_under_their_translated_keys(
    sandbox, make_warehouse, instance
):
    warehouse = make_warehouse(
        {"a.first": "SELECT 1 AS one", "b.second": "SELECT one FROM a.first"},
        {
            "models/audited.sql": """
                MODEL (name b.audited, kind FULL, audits (not_null(columns := (one))));
                SELECT one FROM a.first
            """
        },
    )
    write(
        sandbox.folder / "mine.py",
        dedent("""
            from dagster_sqlmesh_pipes import SQLMeshProjectComponent

            class Warehouse(SQLMeshProjectComponent):
                def execute(self, context, sqlmesh):
                    context.log.info("The warehouse runs.")
                    yield from super().execute(context, sqlmesh)

                def get_asset_spec(self, model, spec):
                    spec = super().get_asset_spec(model, spec)
                    return spec.replace_attributes(key=[*spec.key.path, model.kind.lower()])
        """),
    )
    launcher = {
        "type": "subprocess",
        "command": [str(warehouse.bin / "sqlmesh-runner")],
        "env": {"TEST_DATABASE": str(warehouse.database)},
    }
    sandbox.write(
        _type=".mine.Warehouse",
        project=str(warehouse.path),
        launcher=launcher,
        translation={"key": "wh/{{ model.table }}"},
    )
    sandbox.refresh()
    with sandbox.load() as made:
        result = made.defs.resolve_job_def("warehouse_job").execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(["wh", name, "full"]) for name in ("first", "audited")],
        )
        outcome = Outcome.read(instance, result.run_id)

    assert outcome.success
    assert set(outcome.materialized) == {"first/full", "audited/full"}
    assert outcome.checks["audited/full", "not_null"].passed
    assert outcome.status("first/full") == ("executed", None)
    assert "The warehouse runs." in outcome.log


# Scaffolding, in this process: what is refused.


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "neither was given"),
        ({"project_path": "warehouse", "init": "new"}, "both were given"),
        ({"project_path": "nowhere"}, "no SQLMesh project"),
        ({"project_path": "empty"}, "no SQLMesh project"),
        ({"init": "full"}, "there already"),
    ],
)
def test_a_scaffold_that_cannot_be_is_refused_before_anything_is_written(
    params, words, sandbox, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "full/notes.txt", "mine")
    (tmp_path / "empty").mkdir()

    with pytest.raises(click.UsageError, match=words):
        sandbox.inner.scaffold_component(SQLMeshProjectComponent, "new", params)

    assert not (sandbox.folder.parent / "new").exists()


# `dg` itself.


@dataclass
class DgProject:
    """A Dagster project as `dg` has it, beside the SQLMesh project."""

    root: Path
    env: dict[str, str]

    def dg(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).parent / "dg"), *arguments],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": "src", "COLUMNS": "200", "NO_COLOR": "1", **self.env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr if status else done.stdout

    def listed(self) -> set[str]:
        return {asset["asset_key"] for asset in json.loads(self.dg("list", "defs", "--json"))["assets"]}

    def defs_yaml(self, name: str) -> Path:
        return self.root / "src/acme/defs" / name / "defs.yaml"


@pytest.fixture
def dg_project(tmp_path: Path) -> DgProject:
    root = tmp_path / "acme"
    write(
        root / "pyproject.toml",
        dedent("""
            [project]
            name = "acme"
            version = "0"
            [tool.dg]
            directory_type = "project"
            [tool.dg.project]
            root_module = "acme"
        """),
    )
    write(root / "src/acme/__init__.py", "")
    write(root / "src/acme/defs/__init__.py", "")
    write(
        root / "src/acme/definitions.py",
        dedent("""
            from pathlib import Path
            import dagster as dg

            @dg.definitions
            def defs():
                return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
        """),
    )
    home = tmp_path / "dagster_home"
    write(home / "dagster.yaml", "telemetry: {enabled: false}")
    return DgProject(root, {"DAGSTER_HOME": str(home)})


def test_dg_knows_the_component(dg_project):
    listed = json.loads(dg_project.dg("list", "components", "--json"))["items"]

    assert TYPE in {component["key"] for component in listed}


def test_dg_scaffolds_checks_and_lists_an_existing_project(dg_project, shop):
    dg_project.env.update(shop.env)
    dg_project.dg(
        *(
            "scaffold",
            "defs",
            TYPE,
            "warehouse",
            "--project-path",
            os.path.relpath(shop.path, dg_project.root),
        ),
        *("--runner", str(shop.bin / "sqlmesh-runner")),
    )

    path = dg_project.defs_yaml("warehouse")
    written = yaml.safe_load(path.read_text())["attributes"]
    assert written == {
        "project": "{{ context.project_root }}/../warehouse",
        "launcher": {"type": "subprocess", "command": [str(shop.bin / "sqlmesh-runner")]},
    }
    dg_project.dg("utils", "refresh-defs-state")  # as an image build does; it needs no definitions before
    assert list(dg_project.root.glob("src/acme/defs/.local_defs_state/*/state"))
    dg_project.dg("check", "defs")
    assert len(dg_project.listed() - {"shop/raw/payments"}) == MODELS

    path.write_text(path.read_text() + "  selct: marts.orders\n")
    said = dg_project.dg("check", "yaml", status=1)
    assert "defs.yaml" in said
    assert "'selct' was unexpected" in said


def test_dg_scaffolds_a_new_project_that_can_be_deployed_and_run(dg_project, runner_bin):
    dg_project.dg(
        *("scaffold", "defs", TYPE, "sales", "--init", "sales_sqlmesh"),
        *("--runner", str(runner_bin / "sqlmesh-runner")),
    )
    project = dg_project.root / "sales_sqlmesh"
    plan = ["plan", "prod", "--skip-backfill", "--auto-apply", "--no-prompts"]
    subprocess.run([str(runner_bin / "sqlmesh"), *plan], cwd=project, check=True, timeout=120)

    assert dg_project.listed() == {
        "sales_sqlmesh_db/example/orders",
        "sales_sqlmesh_db/example/daily_revenue",
    }
    dg_project.dg("launch", "--job", "sales_job")
    with dg.DagsterInstance.from_config(dg_project.env["DAGSTER_HOME"]) as instance:
        (run,) = instance.get_runs()
        outcome = Outcome.read(instance, run.run_id)
    assert outcome.success
    assert set(outcome.materialized) == {"example/orders", "example/daily_revenue"}
    assert outcome.checks["example/daily_revenue", "revenue_is_not_negative"].passed
    assert yaml.safe_load(dg_project.defs_yaml("sales").read_text())["attributes"]["project"] == (
        "{{ context.project_root }}/sales_sqlmesh"
    )


def test_dg_tells_a_refused_scaffold_in_a_sentence_and_leaves_no_folder(dg_project):
    said = dg_project.dg("scaffold", "defs", TYPE, "warehouse", "--project-path", "nowhere", status=2)

    assert "no SQLMesh project" in said
    assert "Traceback" not in said
    assert not dg_project.defs_yaml("warehouse").parent.exists()
