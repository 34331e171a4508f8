"""A project's assets, job, schedule and resource in one call.

Annotations are not postponed here: Dagster reads those of the asset function.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from dagster_sqlmesh_pipes.assets import pool_of, sqlmesh_assets
from dagster_sqlmesh_pipes.due import Source
from dagster_sqlmesh_pipes.launchers import Launcher
from dagster_sqlmesh_pipes.mapping import Result
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.resource import SQLMeshResource, SQLMeshRunConfig
from dagster_sqlmesh_pipes.schedules import Granularity, build_sqlmesh_schedule
from dagster_sqlmesh_pipes.selection import Select
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator


def sqlmesh_assets_factory(
    *,
    sqlmesh_resource: SQLMeshResource,
    name: str = "sqlmesh_assets",
    select: Select | None = None,
    exclude: Select | None = None,
    translator: SQLMeshTranslator | None = None,
    external_asset_mapping: str | None = None,
    group_name: str | None = None,
    owners: str | Sequence[str] | None = None,
    partitions: bool = False,
    op_tags: Mapping[str, Any] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | Literal[False] | None = None,
    required_resource_keys: set[str] | None = None,
    resource_key: str = "sqlmesh",
) -> dg.AssetsDefinition:
    """The assets of a resource's project, run by that resource.

    Args:
        sqlmesh_resource: the project, and the translator unless one is given here.
        resource_key: under which key the definitions have the resource.
        name: of the op.
        select, exclude, translator, external_asset_mapping, group_name, owners, partitions, op_tags, retry_policy, pool,
            required_resource_keys: as in `sqlmesh_assets`.

    Raises:
        As `sqlmesh_assets`.
    """
    project = sqlmesh_resource.project

    @sqlmesh_assets(
        project=project,
        name=name,
        select=select,
        exclude=exclude,
        translator=translator or sqlmesh_resource.translator,
        external_asset_mapping=external_asset_mapping,
        group_name=group_name,
        owners=owners,
        partitions=partitions,
        op_tags=op_tags,
        retry_policy=retry_policy,
        # The resource may run another environment than the project that it was made from.
        pool=pool_of(project, pool, op_tags, sqlmesh_resource.environment) or False,
        required_resource_keys={*(required_resource_keys or ()), resource_key},
    )
    def run(context: dg.AssetExecutionContext, config: SQLMeshRunConfig) -> Iterator[Result]:
        yield from getattr(context.resources, resource_key).run(context, config=config)

    return run


def sqlmesh_adaptive_schedule_factory(
    *,
    sqlmesh_resource: SQLMeshResource,
    name: str = "sqlmesh_adaptive_schedule",
    job_name: str = "sqlmesh_job",
    assets: Sequence[dg.AssetsDefinition] | None = None,
    granularity: Granularity = "union",
    due: Source = "record",
    catch_up: str | None = None,
    enable_schedule: bool = False,
) -> tuple[dg.ScheduleDefinition, Any, Sequence[dg.AssetsDefinition]]:
    """A schedule that runs what is due, its job, and their assets.

    Args:
        sqlmesh_resource: the project.
        name: of the schedule.
        job_name: of the job, which materializes all the assets.
        assets: those that the schedule is for; by default the whole project's, as `sqlmesh_assets_factory` makes them.
        granularity, due, catch_up: as in `build_sqlmesh_schedule`.
        enable_schedule: whether the schedule runs as soon as it is deployed.

    Returns:
        The schedule, the job and the assets. The definitions need all three, unless they have the assets already.

    Raises:
        As `sqlmesh_assets` and `build_sqlmesh_schedule`.
    """
    assets = assets or [sqlmesh_assets_factory(sqlmesh_resource=sqlmesh_resource)]
    job = dg.define_asset_job(
        job_name,
        selection=dg.AssetSelection.assets(*(key for definition in assets for key in definition.keys)),
    )
    schedule = build_sqlmesh_schedule(
        assets,
        sqlmesh_resource,
        job=job,
        name=name,
        granularity=granularity,
        due=due,
        catch_up=catch_up,
        default_status=(
            dg.DefaultScheduleStatus.RUNNING if enable_schedule else dg.DefaultScheduleStatus.STOPPED
        ),
    )
    return schedule, job, assets


def sqlmesh_definitions_factory(
    *,
    project_dir: str | Path | Sequence[str | Path] = "sqlmesh_project",
    gateway: str | None = None,
    environment: str = "prod",
    launcher: Launcher | None = None,
    manifest: str | Path | None = None,
    translator: SQLMeshTranslator | None = None,
    external_asset_mapping: str | None = None,
    concurrency_limit: int | None = None,
    name: str = "sqlmesh_assets",
    select: Select | None = None,
    exclude: Select | None = None,
    group_name: str | None = None,
    owners: str | Sequence[str] | None = None,
    op_tags: Mapping[str, Any] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | Literal[False] | None = None,
    required_resource_keys: set[str] | None = None,
    job_name: str = "sqlmesh_job",
    schedule_name: str = "sqlmesh_adaptive_schedule",
    enable_schedule: bool = False,
    granularity: Granularity = "union",
    due: Source = "record",
    catch_up: str | None = None,
    ignore_cron: bool = False,
    skips_pass: bool = False,
    resource_key: str = "sqlmesh",
) -> dg.Definitions:
    """Definitions of a SQLMesh project: resource, assets, job and adaptive schedule.

    Under ``dagster dev`` or ``dg dev`` the manifest is made anew when the project's files have changed.

    Args:
        project_dir: the SQLMesh project's directory; several for a multi-repository project.
        gateway: a gateway of the project; None for the project's default.
        environment: the SQLMesh environment to run.
        launcher: how the runner is started; as ``sqlmesh-runner`` from the PATH by default.
        manifest: where the manifest stands; by default ``sqlmesh_manifest.json`` in the project directory.
        concurrency_limit: how many models SQLMesh evaluates at once; by default as its connection says.
        job_name: of the job that materializes all the assets.
        schedule_name: of the schedule.
        enable_schedule: whether the schedule runs as soon as it is deployed.
        granularity, due, catch_up: when the schedule fires, and who says what is due: see `build_sqlmesh_schedule`.
        ignore_cron: run all missing intervals at each tick and in each run, whether a cron has elapsed or not.
        skips_pass: let ``sqlmesh_execution_status`` pass for models that had nothing to do.
        resource_key: the key of the resource; a second project of one code location needs one of its own, and a `name`,
            `job_name` and `schedule_name` as well.
        name: of the op.
        select, exclude, translator, external_asset_mapping, group_name, owners, op_tags, retry_policy, pool,
            required_resource_keys: as in `sqlmesh_assets`.

    Raises:
        As `sqlmesh_assets`.
    """
    project = SQLMeshProject(
        project_dir, gateway=gateway, environment=environment, manifest_path=manifest, launcher=launcher
    ).prepare_if_dev()
    resource = SQLMeshResource(
        project,
        translator=translator,
        concurrency_limit=concurrency_limit,
        ignore_cron=ignore_cron,
        skips_pass=skips_pass,
    )
    assets = sqlmesh_assets_factory(
        sqlmesh_resource=resource,
        name=name,
        select=select,
        exclude=exclude,
        external_asset_mapping=external_asset_mapping,
        group_name=group_name,
        owners=owners,
        op_tags=op_tags,
        retry_policy=retry_policy,
        pool=pool,
        required_resource_keys=required_resource_keys,
        resource_key=resource_key,
    )
    schedule, job, _ = sqlmesh_adaptive_schedule_factory(
        sqlmesh_resource=resource,
        name=schedule_name,
        job_name=job_name,
        assets=[assets],
        granularity=granularity,
        due=due,
        catch_up=catch_up,
        enable_schedule=enable_schedule,
    )
    return dg.Definitions(
        assets=[assets], jobs=[job], schedules=[schedule], resources={resource_key: resource}
    )
