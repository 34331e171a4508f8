"""``sqlmesh-runner schema``."""

from __future__ import annotations

import sys

import click
import orjson

from sqlmesh_pipes_protocol import due_schema, event_schema, manifest_schema, reconcile_schema

_SCHEMAS = {
    "events": event_schema,
    "manifest": manifest_schema,
    "due": due_schema,
    "reconcile": reconcile_schema,
}


@click.command()
@click.argument("subject", type=click.Choice(list(_SCHEMAS)), default="events")
def schema(subject: str) -> None:
    """Print the JSON Schema of a line of the event stream, of the manifest, or of what `due` or `reconcile` reports.

    \b
    Examples:
      sqlmesh-runner schema
      sqlmesh-runner schema manifest

    \b
    Exit status: 0 printed
                 2 there is no such schema
    """
    declared = _SCHEMAS[subject]()
    sys.stdout.buffer.write(orjson.dumps(declared, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
