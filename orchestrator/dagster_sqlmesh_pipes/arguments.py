"""What the YAML of a SQLMesh component holds, and how it is read: templates are filled in, paths are from the component's folder on.

Annotations are not postponed here: Dagster reads them when the classes are made.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import dagster as dg
from dagster.components import Resolvable, Resolver
from dagster.components.core.context import ComponentDeclLoadContext
from jinja2 import StrictUndefined, Template
from pydantic import BaseModel, Field, create_model

from dagster_sqlmesh_pipes.due import Source
from dagster_sqlmesh_pipes.launchers import DockerLauncher, KubernetesLauncher, Launcher, SubprocessLauncher
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.schedules import Granularity
from dagster_sqlmesh_pipes.translator import safe_name


def render(context: dg.ResolutionContext, value: Any) -> Any:
    """Fill in the templates of a text, of a list, mapping or model of texts, and leave them texts.

    Dagster's own rendering reads the outcome as Python: ``1.10`` becomes 1.1, and an environment named ``2026`` a number.
    """
    if isinstance(value, str):
        return Template(value, undefined=StrictUndefined).render(**context.scope)
    if isinstance(value, BaseModel):
        texts = {name: getattr(value, name) for name in value.model_fields_set}
        return type(value).model_validate(render(context, texts))
    if isinstance(value, Mapping):
        return {name: render(context.at_path(name), part) for name, part in value.items()}
    if isinstance(value, Sequence):
        return [render(context.at_path(place), part) for place, part in enumerate(value)]
    return value


def text(description: str, examples: list[Any] | None = None) -> Resolver:
    """A text or several, as `render` gives them."""
    return Resolver(render, inject_before_resolve=False, description=description, examples=examples)


def paths(description: str, examples: list[Any] | None = None) -> Resolver:
    """One path or several, from the component's folder on."""

    def resolve(context: dg.ResolutionContext, value: Any) -> Any:
        rendered = render(context, value)
        if isinstance(rendered, list):
            return [str(context.resolve_source_relative_path(path)) for path in rendered]
        return str(context.resolve_source_relative_path(rendered)) if rendered is not None else None

    return Resolver(resolve, inject_before_resolve=False, description=description, examples=examples)


def _program(context: dg.ResolutionContext, name: str) -> str:
    """A program by its path, from the component's folder on; a bare name is one on the PATH."""
    return str(context.resolve_source_relative_path(name)) if os.sep in name else name


@dataclass(kw_only=True)
class SQLMeshProjectArgs(Resolvable):
    """The SQLMesh project of a component."""

    project_dir: Annotated[
        str | list[str],
        paths(
            "The project's directory, from the component's folder on; several for a multi-repository project.",
            ["../../../../warehouse", "{{ context.project_root }}/../warehouse"],
        ),
    ]
    gateway: Annotated[str | None, text("A gateway of the project; by default its default.")] = None
    environment: Annotated[str, text("The SQLMesh environment to run.", ["prod"])] = "prod"
    manifest: Annotated[
        str | None,
        paths("A manifest that is written elsewhere; by default the component's state is the manifest."),
    ] = None


@dataclass(kw_only=True)
class LocatedProjectArgs(SQLMeshProjectArgs):
    """The project of a component that was read from a file.

    Attributes:
        place: the component's, ``acme.defs.warehouse``: the same on every machine, and another for every component.
    """

    place: str


def component_name(context: ComponentDeclLoadContext) -> str:
    """A component's name, from its folder: two of one Dagster project have different names. Empty if it has no folder."""
    location = context.component_path
    path, root = location.file_path, context.defs_module_path
    path = path.with_suffix("") if path.is_file() else path
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    if parts and location.instance_key:  # of a file with several; 0 for the first
        parts = (*parts, str(location.instance_key))
    return "_".join(safe_name(part) for part in parts)


def resolve_project(context: dg.ResolutionContext, model: Any) -> Any:
    if isinstance(model, str):
        value = context.resolve_value(model, as_type=object)
        if isinstance(value, SQLMeshProject):
            return value
        args = SQLMeshProjectArgs(
            project_dir=str(context.resolve_source_relative_path(render(context, model)))
        )
    else:
        args = SQLMeshProjectArgs.resolve_from_model(context, model)
    if "context" not in context.scope:  # resolved by itself, outside of Dagster's folder of definitions
        return args
    loaded = dg.ComponentLoadContext.from_resolution_context(context)
    return LocatedProjectArgs(
        **vars(args), place=f"{loaded.defs_module_name}.{component_name(loaded)}".rstrip(".")
    )


class LauncherArgs(dg.Model, ABC):
    """A launcher in YAML: a mapping that its ``type`` names. Another one is a subclass, listed in `LAUNCHERS`.

    These models are YAML's own, not derived by Dagster, which would take any text for a type.
    """

    grace_period_seconds: float = Field(
        default=30.0, gt=0, description="How long a runner may take to end itself before it is killed."
    )
    silence_timeout_seconds: float | None = Field(
        default=300.0,
        gt=0,
        description="How long a runner may be silent, without even a heartbeat, before it is ended.",
    )

    @abstractmethod
    def launcher(self, context: dg.ResolutionContext) -> Launcher:
        """The launcher; relative paths are from the component's folder on."""


class SubprocessLauncherArgs(LauncherArgs):
    """`SubprocessLauncher` in YAML: the runner is a process on this host."""

    type: Literal["subprocess"]
    command: list[str] = Field(
        default=[],
        description="How to call the runner; by default `sqlmesh-runner` from the PATH.",
        examples=[["/opt/sqlmesh/bin/sqlmesh-runner"]],
    )
    python: str | None = Field(
        default=None, description="A Python interpreter that has the runner installed, instead of a command."
    )
    env: dict[str, str] = Field(
        default={},
        description="Variables for the runner's environment.",
        examples=[{"PGPASSWORD": "{{ env.PGPASSWORD }}"}],
    )
    working_dir: str | None = Field(
        default=None, description="Where the runner is started; by default the project's directory."
    )

    def launcher(self, context: dg.ResolutionContext) -> Launcher:
        directory = self.working_dir
        return SubprocessLauncher(
            command=[_program(context, self.command[0]), *self.command[1:]] if self.command else [],
            python=_program(context, self.python) if self.python is not None else None,
            env=self.env,
            working_dir=str(context.resolve_source_relative_path(directory))
            if directory is not None
            else None,
            grace_period_seconds=self.grace_period_seconds,
            silence_timeout_seconds=self.silence_timeout_seconds,
        )


def _settings_of(launcher: type[Launcher]) -> Any:
    """A launcher's settings, with its descriptions, for a model that has them too."""
    return {name: (field.annotation, field) for name, field in launcher.model_fields.items()}


class _DockerLauncherArgs(LauncherArgs):
    """`DockerLauncher` in YAML: the runner is in a container. `project_dir` is then the project's directory in the container.

    A relative path in `volumes` is one on this host, from the component's folder on.
    """

    type: Literal["docker"]

    def launcher(self, context: dg.ResolutionContext) -> Launcher:
        given = {name: getattr(self, name) for name in self.model_fields_set if name != "type"}
        volumes = [_mount(context, volume) for volume in given.get("volumes", [])]
        return DockerLauncher(**{**given, "volumes": volumes})


DockerLauncherArgs = create_model(
    "DockerLauncherArgs",
    __base__=_DockerLauncherArgs,
    __doc__=_DockerLauncherArgs.__doc__,
    **_settings_of(DockerLauncher),
)


def _mount(context: dg.ResolutionContext, volume: str) -> str:
    """A mount whose path on the host is from the component's folder on; an absolute one is the engine's, and may be elsewhere."""
    source, colon, target = volume.partition(":")
    relative = os.sep in source and not Path(source).is_absolute()
    return f"{_program(context, source) if relative else source}{colon}{target}"


class _KubernetesLauncherArgs(LauncherArgs):
    """`KubernetesLauncher` in YAML: the runner is in a pod. `project_dir` is then the project's directory in the pod."""

    type: Literal["kubernetes"]

    def launcher(self, context: dg.ResolutionContext) -> Launcher:
        given = {name: getattr(self, name) for name in self.model_fields_set if name != "type"}
        return KubernetesLauncher(**given)


KubernetesLauncherArgs = create_model(
    "KubernetesLauncherArgs",
    __base__=_KubernetesLauncherArgs,
    __doc__=_KubernetesLauncherArgs.__doc__,
    **_settings_of(KubernetesLauncher),
)

LAUNCHERS: tuple[type[LauncherArgs], ...] = (
    SubprocessLauncherArgs,
    DockerLauncherArgs,
    KubernetesLauncherArgs,
)


def resolve_launcher(context: dg.ResolutionContext, model: Any) -> Any:
    # A text is no launcher, and is refused with the others.
    return render(context, model).launcher(context) if isinstance(model, LauncherArgs) else model


class RetryPolicyArgs(dg.Model, Resolvable):
    """`dagster.RetryPolicy` in YAML."""

    max_retries: Annotated[int, Resolver.default(description="How often the step is tried again.")] = 1
    delay: Annotated[
        float | None, Resolver.default(description="Seconds between an attempt and the next.")
    ] = None
    backoff: Annotated[
        dg.Backoff | None, Resolver.default(description="How the delay grows from attempt to attempt.")
    ] = None
    jitter: Annotated[dg.Jitter | None, Resolver.default(description="How chance changes the delay.")] = None


def resolve_retry_policy(context: dg.ResolutionContext, model: Any) -> Any:
    if model is None:
        return None
    args = RetryPolicyArgs.resolve_from_model(context, model)
    return dg.RetryPolicy(
        max_retries=args.max_retries, delay=args.delay, backoff=args.backoff, jitter=args.jitter
    )


class SQLMeshOpArgs(dg.Model, Resolvable):
    """The step that runs SQLMesh."""

    name: Annotated[str | None, text("The op's name; by default the component's.")] = None
    tags: Annotated[dict[str, Any] | None, Resolver.default(description="Tags of the op.")] = None
    pool: Annotated[
        str | Literal[False] | None,
        text(
            "A Dagster pool for the step; by default one for the project and its environment. `false`: none."
        ),
    ] = None


class SQLMeshScheduleArgs(dg.Model, Resolvable):
    """The adaptive schedule, as `build_sqlmesh_schedule` describes it."""

    name: Annotated[str | None, text("The schedule's name; by default the component's and `_schedule`.")] = (
        None
    )
    enabled: Annotated[
        bool, Resolver.default(description="Whether the schedule runs as soon as it is deployed.")
    ] = False
    granularity: Annotated[
        Granularity,
        Resolver.default(
            description="`union` fires at every model's own cron, `finest` at the most frequent of them only."
        ),
    ] = "union"
    due: Annotated[
        Source,
        Resolver.default(
            description="Who says what is due: Dagster's own `record`, or SQLMesh's `state`, which takes seconds to ask."
        ),
    ] = "record"
