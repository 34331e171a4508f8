"""``sqlmesh-runner manifest``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sqlmesh_pipes_protocol import ManifestError
from sqlmesh_pipes_runner.cli import options
from sqlmesh_pipes_runner.errors import EXIT_FAILED, EXIT_USAGE


@click.command()
@options.project
@options.option(
    "--output",
    "-o",
    metavar="PATH|-",
    help="Where to write it. Default: sqlmesh_manifest.json in the project's directory.",
)
@options.option(
    "--no-column-lineage", is_flag=True, help="Do not tell what each column is computed from: some faster."
)
@options.option(
    "--environment",
    metavar="NAME",
    help="Tell what is deployed in this environment as well, read from SQLMesh's state.",
)
@options.option(
    "--check",
    is_flag=True,
    help="Write nothing: say by the exit status whether the manifest fits the project's files. Needs no SQLMesh.",
)
def manifest(
    projects: tuple[Path, ...],
    gateway: str | None,
    config: str | None,
    dotenv: Path | None,
    output: str | None,
    no_column_lineage: bool,
    environment: str | None,
    check: bool,
) -> None:
    """Write what Dagster needs to know of the project: models, audits, dependencies, columns.

    \b
    Examples:
      sqlmesh-runner manifest --project warehouse
      sqlmesh-runner manifest --project warehouse --environment prod --output sqlmesh_manifest.json
      sqlmesh-runner manifest --project warehouse --check

    \b
    Exit status: 0 written; with --check: it fits
                 1 SQLMesh cannot load the project; with --check: the manifest is stale
                 2 usage or configuration; with --check: the manifest is missing or cannot be used
                 3 infrastructure: state or warehouse out of reach, or locked
    """
    from sqlmesh_pipes_protocol.manifest import DEFAULT_MANIFEST_NAME, dump_manifest, write_manifest
    from sqlmesh_pipes_runner.installation import check_sqlmesh
    from sqlmesh_pipes_runner.options import RunOptions

    projects = projects or (Path(),)
    path = Path(output) if output else projects[0] / DEFAULT_MANIFEST_NAME
    if check:
        # A variable is for the writing of one, elsewhere in the same job.
        if any(map(options.is_given, ("environment", "no_column_lineage"))) or output == "-":
            raise click.UsageError(
                "--check looks at a file that there is: --environment, --no-column-lineage and --output - "
                "are for writing one."
            )
        _check_manifest(path, projects, gateway)
        return
    asked = RunOptions(
        projects=projects, gateway=gateway, config=config, environment=environment, dotenv=dotenv
    )
    with options.told():
        options.check_projects(projects)
        check_sqlmesh()
        from sqlmesh_pipes_runner.manifest import build_manifest

        built = build_manifest(asked, column_lineage=not no_column_lineage)
    if output == "-":
        sys.stdout.buffer.write(dump_manifest(built))
        return
    try:
        write_manifest(built, path)
    except OSError as error:
        raise click.UsageError(f"The manifest cannot be written to {path}: {error.strerror}.") from error
    deployed = (
        f", {len(built.deployment.models)} deployed in {built.deployment.environment}"
        if built.deployment
        else ""
    )
    click.echo(
        f"{path}: {len(built.models)} models, {len(built.external_models)} external{deployed}.", err=True
    )


def _check_manifest(path: Path, projects: tuple[Path, ...], gateway: str | None) -> None:
    """Ends the process unless the manifest fits. In a hook or a health check this has to be fast: without SQLMesh."""
    from sqlmesh_pipes_protocol.manifest import load_manifest, staleness

    with options.told():
        options.check_projects(projects)
    try:
        reason = staleness(load_manifest(path, projects, gateway), path, projects, gateway)
    except ManifestError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_USAGE)
    except OSError as error:
        click.echo(f"{error.filename} cannot be read: {error.strerror}.", err=True)
        sys.exit(EXIT_USAGE)
    if reason is not None:
        click.echo(reason, err=True)
        sys.exit(EXIT_FAILED)
    click.echo(f"{path} fits.", err=True)
