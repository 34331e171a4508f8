"""What ``dg scaffold defs`` writes for a SQLMesh project: the component's YAML, and the project itself if it is to be a new one."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from textwrap import dedent

import click
import dagster as dg
from pydantic import BaseModel, Field, model_validator

from dagster_sqlmesh_pipes.translator import safe_name

_CONFIG_NAMES = ("config.yaml", "config.yml", "config.py", "sqlmesh.yaml", "sqlmesh.yml")
"""What SQLMesh knows a project's directory by; the last two for a dbt project."""


class SQLMeshScaffoldParams(BaseModel):
    """Options of ``dg scaffold defs dagster_sqlmesh_pipes.SQLMeshProjectComponent``. Paths are relative to where it is called.

    They are checked here, before Dagster has made the component's folder: a call that was refused can be repeated. ``dg`` prints
    a `click.UsageError` as one line, where it would print pydantic's own error as JSON.
    """

    project_path: str | None = Field(default=None, description="An existing SQLMesh project's directory.")
    init: str | None = Field(default=None, description="A directory to write a new SQLMesh project into.")
    runner: str | None = Field(default=None, description="How to call sqlmesh-runner, if not from the PATH.")

    @model_validator(mode="after")
    def _check(self) -> SQLMeshScaffoldParams:
        if (self.project_path is None) == (self.init is None):
            given = "neither was" if self.init is None else "both were"
            raise click.UsageError(
                "Give --project-path with the directory of an existing SQLMesh project, or --init with a directory for "
                f"a new one; {given} given."
            )
        if self.project_path is not None and not is_sqlmesh_project(Path(self.project_path)):
            raise click.UsageError(
                f"{Path(self.project_path).resolve()} is no SQLMesh project: it has none of {', '.join(_CONFIG_NAMES)}. "
                "Give the directory with the project's configuration, or --init to write a new project."
            )
        if self.init is not None and (path := Path(self.init)).exists() and not _is_empty(path):
            raise click.UsageError(
                f"{path.resolve()} is there already: --init writes a new SQLMesh project into a directory of its own. "
                "Give --project-path if it is the project."
            )
        return self


class SQLMeshProjectScaffolder(dg.Scaffolder[SQLMeshScaffoldParams]):
    """Writes ``defs.yaml`` for an existing SQLMesh project, or for one that it writes as well."""

    @classmethod
    def get_scaffold_params(cls) -> type[SQLMeshScaffoldParams]:
        return SQLMeshScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[SQLMeshScaffoldParams]) -> None:
        params = request.params
        root = request.project_root or Path.cwd()
        if params.init is not None:
            directory = Path(params.init).resolve()
            write_project(directory)
            click.echo(
                f"Wrote a SQLMesh project to {directory}. In SQLMesh's environment, deploy it: "
                f"cd {directory} && sqlmesh plan"
            )
        attributes: dict[str, object] = {"project": _spelled(params.init or params.project_path or "", root)}
        if params.runner is not None:
            command = _spelled(params.runner, root) if os.sep in params.runner else params.runner
            attributes["launcher"] = {"type": "subprocess", "command": [command]}
        dg.scaffold_component(request, attributes)


def is_sqlmesh_project(path: Path) -> bool:
    """Whether the directory has one of SQLMesh's configuration files."""
    return any((path / name).is_file() for name in _CONFIG_NAMES)


def write_project(path: Path) -> None:
    """Write a small SQLMesh project on DuckDB that can be planned and run: a seed, a model on it, an audit of the model.

    Its catalog, and with it each asset key, begins with the directory's name.

    Raises:
        OSError: the directory cannot be written to.
    """
    name = safe_name(path.name).lower()
    yesterday = datetime.now(timezone.utc).date() - timedelta(days=1)
    for file, text in _FILES.items():
        target = path / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            dedent(text).replace("NAME", name).replace("YESTERDAY", yesterday.isoformat()), encoding="utf-8"
        )


def _is_empty(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _spelled(path: str, root: Path) -> str:
    """A path as the YAML has it: from the Dagster project's root on, so that another checkout finds it too.

    A path outside of the root that was given as an absolute one stays so.
    """
    if Path(path).is_absolute() and not Path(path).is_relative_to(root):
        return path
    relative = Path(os.path.relpath(path, root)).as_posix()
    return "{{ context.project_root }}" if relative == "." else f"{{{{ context.project_root }}}}/{relative}"


_FILES = {
    "config.yaml": """\
        # A relative path is taken from the directory that SQLMesh is started in: start it here.
        gateways:
          local:
            connection:
              type: duckdb
              catalogs:
                NAME_db: NAME.duckdb

        default_gateway: local

        model_defaults:
          dialect: duckdb
          start: YESTERDAY
          cron: '@daily'

        disable_anonymized_analytics: true
        """,
    ".gitignore": """\
        .cache/
        logs/
        *.duckdb
        *.duckdb.wal
        sqlmesh_manifest.json
        """,
    "seeds/orders.csv": """\
        order_id,ordered_on,amount
        1,2026-01-01,20.00
        2,2026-01-01,5.50
        3,2026-01-02,12.25
        """,
    "models/orders.sql": """\
        MODEL (
          name example.orders,
          kind SEED (path '../seeds/orders.csv'),
          columns (order_id INT, ordered_on DATE, amount DECIMAL(12, 2)),
          grain order_id,
          description 'Orders, as a file of the project has them.'
        );
        """,
    "models/daily_revenue.sql": """\
        MODEL (
          name example.daily_revenue,
          kind FULL,
          grain ordered_on,
          description 'Revenue per day.',
          audits (not_null(columns := (ordered_on)), revenue_is_not_negative)
        );

        SELECT
          ordered_on,
          SUM(amount)::DECIMAL(12, 2) AS revenue
        FROM example.orders
        GROUP BY
          ordered_on;
        """,
    "audits/revenue_is_not_negative.sql": """\
        AUDIT (
          name revenue_is_not_negative
        );

        SELECT
          *
        FROM @this_model
        WHERE
          revenue < 0;
        """,
}
