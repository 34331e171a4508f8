"""Building the manifest: a project as SQLMesh loads it, in the protocol's words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlglot import exp
from sqlmesh.core.context import Context

from sqlmesh_pipes_protocol.audits import audit_identities
from sqlmesh_pipes_protocol.codec import timestamp
from sqlmesh_pipes_protocol.digest import project_digest
from sqlmesh_pipes_protocol.manifest import (
    AuditUse,
    Column,
    ColumnSource,
    ExternalModel,
    Manifest,
    Model,
    StandaloneAudit,
)
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION
from sqlmesh_pipes_runner.adapter import (
    ColumnSources,
    ReadingContext,
    StateContext,
    audit_calls,
    column_sources,
    secrets_of,
)
from sqlmesh_pipes_runner.answers import answer
from sqlmesh_pipes_runner.options import RunOptions
from sqlmesh_pipes_runner.run import versions
from sqlmesh_pipes_runner.secrets import Masker

Warn = Callable[[str], object]


def to_stderr(warning: str) -> None:
    print(f"Warning: {warning}", file=sys.stderr, flush=True)


def build_manifest(options: RunOptions, *, warn: Warn = to_stderr, column_lineage: bool = True) -> Manifest:
    """Load the projects and describe them.

    Args:
        options: the projects, their gateway and configuration. With an environment, the manifest tells what is deployed
            in it.
        warn: takes, in a sentence, what the manifest could not be told.
        column_lineage: tell what each column is computed from.

    Raises:
        UsageError: a project, its gateway or the environment does not exist.
        NoAnswerError: SQLMesh cannot load a project, or its state is out of reach.
    """

    def build(configs: Mapping[Path, Any]) -> Manifest:
        if options.environment is None:
            # SQLMesh's own: with a project of several repositories it may look at the state, and make one.
            with closing(StateContext(options, configs, load=True)) as context:
                return describe(context, options.projects, warn=warn, column_lineage=column_lineage)
        with closing(ReadingContext(options, configs, load=True)) as context:
            deployment = context.deployment()
            manifest = describe(context, options.projects, warn=warn, column_lineage=column_lineage)
            return replace(manifest, deployment=deployment)

    return answer(options, build, otherwise="the manifest cannot be made")


def describe(
    context: Context, projects: Sequence[Path], *, warn: Warn = to_stderr, column_lineage: bool = True
) -> Manifest:
    """The manifest of a loaded context, secrets masked; the arguments are those of `build_manifest`."""
    models = context.models
    ordered = [models[fqn] for fqn in context.dag.sorted if fqn in models]
    own = [model for model in ordered if not model.kind.is_external]
    lineage: dict[str, ColumnSources] = {}
    if column_lineage:
        lineage = column_sources(
            own, lambda fqn, reason: warn(f"The columns of {fqn} have no lineage: {reason}")
        )
    described = [_model(model, projects, lineage.get(model.fqn, {})) for model in own]
    declared = {model.fqn: model for model in ordered if model.kind.is_external}
    read = sorted({fqn for model in described for fqn in model.depends_on if fqn not in models})
    manifest = Manifest(
        v=PROTOCOL_VERSION,
        created_at=timestamp(datetime.now(timezone.utc)),
        versions=versions(),
        projects=tuple(path.absolute().name for path in projects),
        gateway=context.selected_gateway,
        engine=context.connection_config.type_,
        default_catalog=context.default_catalog,
        digest=project_digest(projects),
        models=tuple(described),
        external_models=(
            *(_external_model(fqn, model) for fqn, model in declared.items()),
            *(_external_model(fqn, None) for fqn in read),
        ),
        standalone_audits=tuple(_standalone_audit(audit) for audit in context.standalone_audits.values()),
    )
    return Masker(secrets_of(context.configs)).event(manifest)


def _model(model: Any, projects: Sequence[Path], sources: ColumnSources) -> Model:
    table = exp.to_table(model.fqn)
    calls = audit_calls(model)
    identities = audit_identities([call for _, call, _ in calls])
    time_column = getattr(model, "time_column", None)
    path, index = _place(getattr(model, "_path", None), projects)
    return Model(
        fqn=model.fqn,
        name=model.name,
        catalog=table.catalog or None,
        schema=table.db or None,
        table=table.name,
        kind=model.kind.name.value,
        source=model.source_type,
        dialect=model.dialect or None,
        cron=model.cron,
        cron_tz=model.cron_tz.key if model.cron_tz else None,
        interval_unit=model.interval_unit.value,
        start=str(model.start) if model.start is not None else None,
        tags=tuple(model.tags),
        owner=model.owner,
        description=model.description,
        columns=_columns(model, sources),
        depends_on=tuple(sorted(model.depends_on)),
        audits=tuple(
            AuditUse(
                audit=identity,
                name=call.name,
                arguments=call.arguments,
                blocking=blocking,
                skip=audit.skip,
                query=_sql(audit.query, audit.dialect or model.dialect),
                dialect=audit.dialect or model.dialect or None,
            )
            for (audit, call, blocking), identity in zip(calls, identities, strict=True)
        ),
        partitioned_by=_expressions(model.partitioned_by, model.dialect),
        clustered_by=_expressions(model.clustered_by, model.dialect),
        grain=_expressions(model.grains, model.dialect),
        data_hash=model.data_hash,
        query=_sql(model.query, model.dialect) if model.is_sql else None,
        path=path,
        project_index=index,
        time_column=time_column.column.sql(dialect=model.dialect) if time_column else None,
        project=model.project or None,
        end=str(model.end) if model.end is not None else None,
        metadata_hash=model.metadata_hash,
    )


def _external_model(fqn: str, model: Any | None) -> ExternalModel:
    table = exp.to_table(fqn)
    return ExternalModel(
        fqn=fqn,
        name=model.name if model is not None else fqn,
        catalog=table.catalog or None,
        schema=table.db or None,
        table=table.name,
        description=model.description if model is not None else None,
        columns=_columns(model, {}) if model is not None else (),
        declared=model is not None,
    )


def _standalone_audit(audit: Any) -> StandaloneAudit:
    return StandaloneAudit(
        name=audit.name,
        depends_on=tuple(sorted(audit.depends_on)),
        cron=audit.cron,
        blocking=audit.blocking,
        skip=audit.skip,
        query=_sql(audit.query, audit.dialect),
        dialect=audit.dialect or None,
        description=audit.description,
        owner=audit.owner,
        tags=tuple(audit.tags),
    )


def _columns(model: Any, sources: ColumnSources) -> tuple[Column, ...]:
    descriptions = model.column_descriptions or {}
    return tuple(
        Column(
            name=name,
            type=None if type_.is_type(exp.DataType.Type.UNKNOWN) else type_.sql(dialect=model.dialect),
            description=descriptions.get(name),
            sources=tuple(ColumnSource(model=fqn, column=column) for fqn, column in sources.get(name, ())),
        )
        for name, type_ in (model.columns_to_types or {}).items()
    )


def _expressions(expressions: Iterable[Any], dialect: str) -> tuple[str, ...]:
    return tuple(expression.sql(dialect=dialect) for expression in expressions)


def _sql(expression: Any, dialect: str) -> str | None:
    return expression.sql(dialect=dialect, pretty=True) if expression is not None else None


def _place(path: Path | None, projects: Sequence[Path]) -> tuple[str | None, int]:
    """A file's path from its project's directory on, and which project that is."""
    if path is not None and str(path):
        for index, project in enumerate(projects):
            if path.is_relative_to(project.absolute()):
                return path.relative_to(project.absolute()).as_posix(), index
    return None, 0
