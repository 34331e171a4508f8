"""A SQLMesh project as a component of Dagster's ``dg``: definitions from a few lines of YAML.

Annotations are not postponed here: Dagster reads them when the classes are made.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Union

import dagster as dg
from dagster.components import (
    DefsStateConfig,
    DefsStateConfigArgs,
    Resolvable,
    ResolvedDefsStateConfig,
    Resolver,
)
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver

from dagster_sqlmesh_pipes.arguments import (
    LAUNCHERS,
    LocatedProjectArgs,
    RetryPolicyArgs,
    SQLMeshOpArgs,
    SQLMeshProjectArgs,
    SQLMeshScheduleArgs,
    component_name,
    resolve_launcher,
    resolve_project,
    resolve_retry_policy,
    text,
)
from dagster_sqlmesh_pipes.assets import sqlmesh_assets
from dagster_sqlmesh_pipes.compat import HAS_COMPONENTS
from dagster_sqlmesh_pipes.errors import PartitionsError
from dagster_sqlmesh_pipes.factories import sqlmesh_adaptive_schedule_factory
from dagster_sqlmesh_pipes.keys import asset_keys
from dagster_sqlmesh_pipes.launchers import Launcher
from dagster_sqlmesh_pipes.mapping import Result
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.resource import SQLMeshResource
from dagster_sqlmesh_pipes.scaffold import SQLMeshProjectScaffolder
from dagster_sqlmesh_pipes.specs import runnable
from dagster_sqlmesh_pipes.tags import TagConventionWarning, instructions
from dagster_sqlmesh_pipes.translator import (
    METADATA_KEYS,
    SQLMeshTranslator,
    legal_owner,
    safe_group,
    safe_name,
)
from sqlmesh_pipes_protocol.errors import ManifestError
from sqlmesh_pipes_protocol.manifest import AuditUse, Manifest, Model


@dg.scaffold_with(SQLMeshProjectScaffolder)
@dataclass(kw_only=True)
class SQLMeshProjectComponent(dg.StateBackedComponent, Resolvable):
    """Expose a SQLMesh project to Dagster: every model an asset, every audit a check, run out of process.

    The definitions are the assets, a job of them all, the adaptive schedule, and the resource that runs SQLMesh. They come from the
    project's manifest, which is the component's state: ``dg`` and ``dagster dev`` make it anew, through the launcher, when the
    project's files have changed, and an image build makes it with ``dg utils refresh-defs-state``.

    Example:

        .. code-block:: yaml

            # defs.yaml

            type: dagster_sqlmesh_pipes.SQLMeshProjectComponent
            attributes:
              project: "{{ context.project_root }}/../warehouse"
              launcher:
                type: subprocess
                command:
                  - /opt/sqlmesh/bin/sqlmesh-runner
              translation:
                key: "warehouse/{{ model.schema }}/{{ model.table }}"
    """

    project: Annotated[
        SQLMeshProject | SQLMeshProjectArgs,
        Resolver(
            resolve_project,
            model_field_type=str | SQLMeshProjectArgs.model(),
            inject_before_resolve=False,
            description="The SQLMesh project's directory, or a mapping with its gateway, environment and manifest as well.",
            examples=[
                "{{ context.project_root }}/../warehouse",
                {"project_dir": "../warehouse", "gateway": "postgres", "environment": "prod"},
            ],
        ),
    ]
    launcher: Annotated[
        Any,  # a Launcher or None: Dagster takes a pydantic class for a part of the YAML, and a launcher is one
        Resolver(
            resolve_launcher,
            model_field_type=Union[(*LAUNCHERS, None)],
            description="How the runner is started; by default as `sqlmesh-runner` from the PATH.",
            examples=[{"type": "subprocess", "command": ["/opt/sqlmesh/bin/sqlmesh-runner"]}],
        ),
    ] = None
    select: Annotated[
        str | list[str] | None,
        text("The models, in SQLMesh's selection syntax; all by default.", ["tag:finance"]),
    ] = None
    exclude: Annotated[str | list[str] | None, text("Models to leave out.", ["staging.*"])] = None
    translation: Annotated[
        TranslationFn[Model] | None,
        TranslationFnResolver[Model](lambda model: {"model": _TemplateModel.of(model)}),
    ] = None
    translator: Annotated[
        SQLMeshTranslator | None,
        Resolver.default(
            model_field_type=str,
            description="A template variable that holds a SQLMeshTranslator; `translation` is applied to what it gives.",
            examples=["{{ translator }}"],
        ),
    ] = None
    group_name: Annotated[str | None, text("Group of all assets.")] = None
    owners: Annotated[list[str] | None, text("Owners of all assets.", [["ann@example.com", "team:data"]])] = (
        None
    )
    external_asset_mapping: Annotated[
        str | None,
        Resolver.passthrough(
            description="A template for keys of tables that SQLMesh reads and does not build. It is this package's, not Jinja.",
            examples=["target/main/{node.name}"],
        ),
    ] = None
    partitions: Annotated[
        bool,
        Resolver.default(
            description="Give the assets time partitions, one for each interval that SQLMesh fills. Needs `schedule: null`."
        ),
    ] = False
    concurrency_limit: Annotated[
        int | None,
        Resolver.default(
            description="How many models SQLMesh evaluates at once; by default as its connection says."
        ),
    ] = None
    ignore_cron: Annotated[
        bool, Resolver.default(description="Run all missing intervals, whether a cron has elapsed or not.")
    ] = False
    skips_pass: Annotated[
        bool,
        Resolver.default(
            description="Let `sqlmesh_execution_status` pass for models that had nothing to do."
        ),
    ] = False
    skip_janitor: Annotated[
        bool, Resolver.default(description="Do not clean up expired environments and snapshots.")
    ] = False
    op: Annotated[
        SQLMeshOpArgs, Resolver.default(description="Name, tags and pool of the step that runs SQLMesh.")
    ] = field(default_factory=SQLMeshOpArgs)
    retry_policy: Annotated[
        dg.RetryPolicy | None,
        Resolver(
            resolve_retry_policy,
            model_field_type=RetryPolicyArgs.model() | None,
            description="Retries of the step; a failure that no retry can mend is not retried.",
            examples=[{"max_retries": 2, "delay": 30, "backoff": "EXPONENTIAL", "jitter": "FULL"}],
        ),
    ] = None
    job_name: Annotated[
        str | None, text("Name of the job of all the assets; by default the component's and `_job`.")
    ] = None
    schedule: Annotated[
        SQLMeshScheduleArgs | None, Resolver.default(description="The adaptive schedule; null for none.")
    ] = field(default_factory=SQLMeshScheduleArgs)
    resource_key: Annotated[
        str | None, text("Key of the resource; by default `sqlmesh_` and the component's name.")
    ] = None
    required_resource_keys: Annotated[
        list[str], text("Other resources that an `execute` of your own needs.")
    ] = field(default_factory=list)
    defs_state: ResolvedDefsStateConfig = field(default_factory=DefsStateConfigArgs.local_filesystem)

    def __post_init__(self) -> None:
        if not HAS_COMPONENTS:
            raise dg.DagsterInvalidDefinitionError(
                f"SQLMeshProjectComponent needs Dagster 1.13 or later, and finds {dg.__version__}: upgrade Dagster, or make the same "
                "definitions in Python with sqlmesh_definitions_factory."
            )
        for name, value, expected in (
            ("project", self.project, (SQLMeshProject, SQLMeshProjectArgs)),
            ("launcher", self.launcher, (Launcher, type(None))),
            ("translator", self.translator, (SQLMeshTranslator, type(None))),
            (
                "partitions",
                self.partitions,
                (bool,),
            ),  # `false` of a variable is a text, and would count as true
        ):
            if not isinstance(value, expected):
                wanted = " or ".join(kind.__name__ for kind in expected if kind is not type(None))
                raise dg.DagsterInvalidDefinitionError(
                    f"`{name}` of SQLMeshProjectComponent must be a {wanted}; it is {value!r}."
                )

    # What a subclass may override.

    def execute(self, context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Result]:
        """Run SQLMesh for the assets that Dagster selected, and yield their results.

        Override it to do something before or after, or to run with another configuration:

        .. code-block:: python

            class Warehouse(SQLMeshProjectComponent):
                def execute(self, context, sqlmesh):
                    context.log.info("The warehouse runs.")
                    yield from super().execute(context, sqlmesh)
        """
        yield from sqlmesh.run(context)

    def get_asset_spec(self, model: Model, spec: dg.AssetSpec) -> dg.AssetSpec:
        """How a model looks in Dagster: its key, group, owners, tags, kinds, metadata and so on.

        Override it for what YAML cannot say. The key that it gives is used wherever the model is meant: in dependencies, checks,
        column lineage, selections and results. A model's own ``dagster:…`` tags go before it.

        .. code-block:: python

            class Warehouse(SQLMeshProjectComponent):
                def get_asset_spec(self, model, spec):
                    spec = super().get_asset_spec(model, spec)
                    return spec.merge_attributes(tags={"layer": model.schema_name})

        Args:
            model: from the manifest.
            spec: what the translator, `group_name` and `owners` give, without dependencies, which SQLMesh alone decides.

        Returns:
            The spec with `translation` applied.
        """
        return self.translation(spec, model) if self.translation is not None else spec

    # What Dagster calls.

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """Where the manifest is kept. Named for the component's place, as Dagster wants one for every component."""
        project = self.project
        place = project.place if isinstance(project, LocatedProjectArgs) else self._project_dirs[0].as_posix()
        config = DefsStateConfig.from_args(self.defs_state, default_key=f"SQLMeshProjectComponent[{place}]")
        if self._manifest_path is not None and config.management_type.value != "LOCAL_FILESYSTEM":
            raise dg.DagsterInvalidDefinitionError(
                f"SQLMeshProjectComponent has a `manifest`, {self._manifest_path}, and a `defs_state` that would keep "
                "another one: give one of the two."
            )
        return config

    def write_state_to_path(self, state_path: Path) -> None:
        """Bring the manifest up to date with the project's files, through the launcher.

        Raises:
            ManifestError: the runner cannot make it; the message has SQLMesh's own words.
        """
        self._project_of(self._manifest_path or state_path).prepare()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        if self._manifest_path is None:
            return super().build_defs(context)
        if self.defs_state.refresh_if_dev:
            self._project_of(self._manifest_path).prepare_if_dev()
        return self.build_defs_from_state(context, self._manifest_path)

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        """The definitions, from a manifest.

        Raises:
            ManifestError: there is none, or it cannot be used; it says how to make it.
            As `sqlmesh_assets` and `build_sqlmesh_schedule`.
        """
        if state_path is None:
            raise ManifestError(
                f"The manifest of the SQLMesh project {', '.join(map(str, self._project_dirs))} has not been written yet. "
                f"Write it with: dg utils refresh-defs-state --defs-state-key '{self.defs_state_config.key}'"
            )
        if self.partitions and self.schedule is not None:
            raise PartitionsError(
                "`partitions: true` has no adaptive schedule, whose runs are for no partition: set `schedule: null`, and "
                "schedule the job with dagster.build_schedule_from_partitioned_job."
            )
        name = component_name(context) or safe_name(self._project_dirs[0].name)
        project = self._project_of(state_path)
        resource_key = self.resource_key or f"sqlmesh_{name}"
        resource = SQLMeshResource(
            project,
            concurrency_limit=self.concurrency_limit,
            ignore_cron=self.ignore_cron,
            skips_pass=self.skips_pass,
            skip_janitor=self.skip_janitor,
        )

        @sqlmesh_assets(
            project=project,
            name=self.op.name or name,
            select=self.select,
            exclude=self.exclude,
            translator=self._translator_of(project.manifest),
            external_asset_mapping=self.external_asset_mapping,
            partitions=self.partitions,
            op_tags=self.op.tags,
            retry_policy=self.retry_policy,
            pool=self.op.pool,
            required_resource_keys={*self.required_resource_keys, resource_key},
        )
        def run(context):  # type: ignore[no-untyped-def]  # as in `sqlmesh_assets_factory`
            yield from self.execute(context, getattr(context.resources, resource_key))

        job_name = self.job_name or f"{name}_job"
        if self.schedule is None:
            job: Any = dg.define_asset_job(job_name, selection=dg.AssetSelection.assets(*run.keys))
            schedules = []
        else:
            schedule, job, _ = sqlmesh_adaptive_schedule_factory(
                sqlmesh_resource=resource,
                name=self.schedule.name or f"{name}_schedule",
                job_name=job_name,
                assets=[run],
                granularity=self.schedule.granularity,
                due=self.schedule.due,
                enable_schedule=self.schedule.enabled,
            )
            schedules = [schedule]
        return dg.Definitions(
            assets=[run], jobs=[job], schedules=schedules, resources={resource_key: resource}
        )

    # How it is done.

    @property
    def _project_dirs(self) -> Sequence[Path]:
        if isinstance(self.project, SQLMeshProject):
            return self.project.project_dirs
        given = self.project.project_dir
        return [Path(path).absolute() for path in ([given] if isinstance(given, str) else given)]

    @property
    def _manifest_path(self) -> Path | None:
        """The manifest that is not the component's state."""
        if isinstance(self.project, SQLMeshProject):
            return self.project.manifest_path
        return Path(self.project.manifest) if self.project.manifest is not None else None

    def _project_of(self, manifest_path: Path) -> SQLMeshProject:
        own = self.project.launcher if isinstance(self.project, SQLMeshProject) else None
        return SQLMeshProject(
            self._project_dirs,
            gateway=self.project.gateway,
            environment=self.project.environment,
            manifest_path=manifest_path,
            launcher=self.launcher or own,
        )

    def _translator_of(self, manifest: Manifest) -> SQLMeshTranslator:
        base = self.translator or SQLMeshTranslator()
        own = type(base).get_external_asset_key is not SQLMeshTranslator.get_external_asset_key
        kind = _ComponentTranslatorWithExternals if own else _ComponentTranslator
        return kind(base, self.get_asset_spec, manifest, group_name=self.group_name, owners=self.owners)


@dataclass(frozen=True, kw_only=True, slots=True)
class _TemplateModel(Model):
    """A model whose unknown names are errors: Jinja writes nothing in their place, and keys would silently lose a part."""

    @classmethod
    def of(cls, model: Model) -> Model:
        return cls(**{name: getattr(model, name) for name in Model.__dataclass_fields__})

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_", "jinja")):  # asked for by Python and Jinja themselves
            raise AttributeError(name)
        raise dg.DagsterInvalidDefinitionError(
            f"`translation` asks for model.{name}, and a model has no {name!r}. It has {', '.join(Model.__dataclass_fields__)}."
        )


class _ComponentTranslator(SQLMeshTranslator):
    """A translator that gives what a component makes of another translator's specs.

    As the translator decides on the key, the component's key is used wherever a model is meant.
    """

    def __init__(
        self,
        base: SQLMeshTranslator,
        customize: Callable[[Model, dg.AssetSpec], dg.AssetSpec],
        manifest: Manifest,
        *,
        group_name: str | None,
        owners: Sequence[str] | None,
    ) -> None:
        self._base = base
        self._customize = customize
        self._engine = manifest.engine
        self._group_name = safe_group(group_name) if group_name else None
        self._owners = [legal_owner(owner) for owner in owners or ()]
        self._specs: dict[str, dg.AssetSpec] = {}
        models = runnable(manifest)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TagConventionWarning)  # told when the specs are built
            asked = {model.fqn: instructions(model.fqn, model.tags).asset_key for model in models}
        # Before the component sees them the keys are distinct, as they are without it.
        self._keys = asset_keys(models, base, {fqn: key for fqn, key in asked.items() if key is not None})

    def get_asset_key(self, model: Model) -> dg.AssetKey:
        return self._spec(model).key

    def get_group_name(self, context: Any, model: Model) -> str | None:
        return self._spec(model).group_name

    def get_tags(self, context: Any, model: Model) -> Mapping[str, str]:
        return self._spec(model).tags

    def get_owners(self, model: Model) -> Sequence[str]:
        return self._spec(model).owners

    def get_description(self, model: Model) -> str | None:
        return self._spec(model).description

    def get_kinds(self, model: Model, engine: str) -> set[str]:
        return self._spec(model).kinds

    def get_code_version(self, model: Model) -> str | None:
        return self._spec(model).code_version

    def get_metadata(self, model: Model, keys: Sequence[str]) -> Mapping[str, Any]:
        return self._spec(model).metadata

    def get_automation_condition(self, model: Model) -> dg.AutomationCondition[Any] | None:
        return self._spec(model).automation_condition

    def get_freshness_policy(self, model: Model) -> dg.FreshnessPolicy | None:
        return self._spec(model).freshness_policy

    def get_check_name(self, model: Model, audit: AuditUse) -> str:
        return self._base.get_check_name(model, audit)

    def _spec(self, model: Model) -> dg.AssetSpec:
        spec = self._specs.get(model.fqn)
        if spec is None:
            spec = self._specs[model.fqn] = self._made(model)
        return spec

    def _made(self, model: Model) -> dg.AssetSpec:
        base = self._base
        before = dg.AssetSpec(
            self._keys[model.fqn],
            description=base.get_description(model),
            metadata=dict(base.get_metadata(model, METADATA_KEYS)),
            group_name=self._group_name or base.get_group_name(None, model),
            code_version=base.get_code_version(model),
            owners=self._owners or base.get_owners(model),
            tags=base.get_tags(None, model),
            kinds=base.get_kinds(model, self._engine),
            automation_condition=base.get_automation_condition(model),
            freshness_policy=base.get_freshness_policy(model),
        )
        after = self._customize(model, before)
        for name in ("deps", "partitions_def", "skippable"):
            if getattr(after, name) != getattr(before, name):
                raise dg.DagsterInvalidDefinitionError(
                    f"The translation of {model.fqn} changes {name}, which follows from SQLMesh's project. More dependencies can "
                    "be added with `post_processing` in defs.yaml; `partitions: true` gives partitions."
                )
        return after


class _ComponentTranslatorWithExternals(_ComponentTranslator):
    """For a translator with keys of its own for the tables that SQLMesh reads and does not build."""

    def get_external_asset_key(self, external_fqn: str) -> dg.AssetKey:
        return self._base.get_external_asset_key(external_fqn)
