"""How mkdocstrings reads this project's docstrings: an extension of Griffe's, which parses the sources without importing them."""

from __future__ import annotations

import ast
from typing import Any

import griffe
from docs.generate.declarations import google

import dagster_sqlmesh_pipes
import sqlmesh_pipes_protocol

_PUBLIC = {
    name: f"{package.__name__}.{name}"
    for package in (sqlmesh_pipes_protocol, dagster_sqlmesh_pipes)
    for name in package.__all__
}


class Docstrings(griffe.Extension):  # type: ignore[misc, unused-ignore]  # where linters run, there is no Griffe
    """Brings docstrings and pydantic fields into the form that Griffe knows."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = google(obj.docstring.value, _PUBLIC)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """A field's description is its docstring, and its default its value."""
        field = attr.value
        if not isinstance(field, griffe.ExprCall) or str(field.function) != "Field":
            return
        given = {each.name: each.value for each in field.arguments if isinstance(each, griffe.ExprKeyword)}
        attr.value = given.get("default")
        if attr.docstring is None and "description" in given:
            attr.docstring = griffe.Docstring(_text(str(given["description"])), parent=attr)


def _text(expression: str) -> str:
    """A string of the source, which may be written in pieces."""
    return str(ast.literal_eval(expression))
