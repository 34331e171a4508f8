"""How mkdocstrings reads this project's docstrings: an extension of Griffe's, which parses the sources without importing them."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe
from docs.generate.declarations import markdown

import dagster_sqlmesh_pipes
import sqlmesh_pipes_protocol

_GROUPED = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:,\s+\w+)+):(?P<text> .*)$", re.M)
_NAME = re.compile(r"(?<![`\[])`(?P<name>\w+)`(?![`\]])")
_PUBLIC = {
    name: f"{package.__name__}.{name}"
    for package in (sqlmesh_pipes_protocol, dagster_sqlmesh_pipes)
    for name in package.__all__
}
_LIKE = re.compile(r"^(?P<title>Raises:)\n(?P<before>(?:    (?!As ).+\n)*)    (?P<like>As .+)\n?", re.M)


class Docstrings(griffe.Extension):  # type: ignore[misc, unused-ignore]  # where linters run, there is no Griffe
    """Brings docstrings and pydantic fields into the form that Griffe knows."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = in_form(obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """A field's description is its docstring, and its default its value."""
        field = attr.value
        if not isinstance(field, griffe.ExprCall) or str(field.function) != "Field":
            return
        given = {each.name: each.value for each in field.arguments if isinstance(each, griffe.ExprKeyword)}
        attr.value = given.get("default")
        if attr.docstring is None and "description" in given:
            attr.docstring = griffe.Docstring(_text(str(given["description"])), parent=attr)


def in_form(docstring: str) -> str:
    """A docstring with Markdown's code blocks, an entry for each parameter, sections that hold entries alone, and links to public names."""
    apart = _GROUPED.sub(
        lambda match: "\n".join(
            f"{match['indent']}{name}:{match['text']}" for name in re.split(r",\s+", match["names"])
        ),
        markdown(docstring),
    )
    alone = _LIKE.sub(
        lambda match: (
            (f"{match['title']}\n{match['before']}\n" if match["before"] else "")
            + f"It raises as {match['like'].removeprefix('As ').rstrip('.')} would.\n"
        ),
        f"{apart}\n",
    ).rstrip()
    return _NAME.sub(
        lambda match: f"[{match[0]}][{_PUBLIC[match['name']]}]" if match["name"] in _PUBLIC else match[0],
        alone,
    )


def _text(expression: str) -> str:
    """A string of the source, which may be written in pieces."""
    return str(ast.literal_eval(expression))
