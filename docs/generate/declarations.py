"""What declarations say of themselves: docstrings, the texts below fields and constants, types in words for readers."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import itertools
import re
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ForwardRef, Literal, TypeVar, Union, get_args, get_origin

_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Warns|Example|Examples):$")
_ENTRY = re.compile(r"^(?P<names>\w+(?:,\s+\w+)*):\s+(?P<text>.*)$", re.S)
_CODE = re.compile(
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\w+)\n\n(?P<code>(?:(?P=indent) +.*\n|\s*\n)*)", re.M
)
_GROUPED = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:,\s+\w+)+):(?P<text> .*)$", re.M)
_NAME = re.compile(r"(?<![`\[])`(?P<name>\w+)`(?![`\]])")
_LIKE = re.compile(r"^(?P<title>Raises:)\n(?P<before>(?:    (?!As ).+\n)*)    (?P<like>As .+)\n?", re.M)
_LITERAL = re.compile(r"(?<!`)``(?!`)(.+?)(?<!`)``(?!`)", re.S)


def summary(documented: Any) -> str:
    """The docstring in Markdown, up to its first section."""
    return "\n".join(_split(inspect.getdoc(documented) or "")[0]).strip()


def entries(documented: Any, section: str = "Args") -> dict[str, str]:
    """What a docstring's section says, by name. ``a, b: text`` says it of each.

    Raises:
        ValueError: a part of the section names nothing.
    """
    found: dict[str, str] = {}
    lines = _split(inspect.getdoc(documented) or "")[1].get(section, [])
    for block in _blocks(lines):
        match = _ENTRY.match(block)
        if match is None:
            raise ValueError(f"{section} of {documented!r} has no name: {block!r}")
        for name in re.split(r",\s+", match["names"]):
            found[name] = match["text"]
    return found


def markdown(docstring: str) -> str:
    """A docstring with its reStructuredText (code blocks, literals) as Markdown."""
    fenced = _CODE.sub(
        lambda match: (
            f"{match['indent']}```{match['language']}\n"
            + textwrap.indent(textwrap.dedent(match["code"]).strip("\n"), match["indent"])
            + f"\n{match['indent']}```\n\n"
        ),
        docstring if docstring.endswith("\n") else f"{docstring}\n",
    )
    return _LITERAL.sub(lambda match: f"`{match[1]}`", fenced).rstrip()


def google(docstring: str, public: Mapping[str, str]) -> str:
    """A docstring in the form that Griffe reads: Markdown, an entry for each parameter, and sections that hold entries alone.

    Args:
        docstring: as it stands in the source.
        public: what names stand for that are to be links, by name.
    """
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
        lambda match: f"[{match[0]}][{public[match['name']]}]" if match["name"] in public else match[0], alone
    )


def texts_below(module: types.ModuleType, owner: str | None = None) -> dict[str, str]:
    """The string that stands below an assignment, by the name that is assigned to.

    Args:
        module: whose constants are meant.
        owner: a class of the module, whose fields are meant instead; one that is not in its text has none.
    """
    body = _body(module, owner)
    found = {}
    for statement, following in itertools.pairwise(body):
        if isinstance(statement, ast.AnnAssign):
            target: ast.expr = statement.target
        elif isinstance(statement, ast.Assign):
            target = statement.targets[0]
        else:
            continue
        match following:
            case ast.Expr(value=ast.Constant(value=str(text))) if isinstance(target, ast.Name):
                found[target.id] = markdown(inspect.cleandoc(text))
    return found


def annotations_in(module: types.ModuleType, owner: str) -> dict[str, str]:
    """What a class's text declares its fields to be: frameworks put other annotations in the place of some."""
    return {
        statement.target.id: ast.unparse(statement.annotation)
        for statement in _body(module, owner)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }


def type_in_words(annotation: Any) -> str:
    """A type as a signature shows it, without the names of modules."""
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    if isinstance(annotation, TypeVar):
        return annotation.__name__
    if isinstance(annotation, list):
        return f"[{', '.join(map(type_in_words, annotation))}]"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_in_words(arguments[0])
    if origin is Literal:
        return " | ".join(value_in_words(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(map(type_in_words, arguments)))
    if annotation is Any:
        return "Any"
    if annotation is Ellipsis:
        return "..."
    name = getattr(annotation, "__name__", None) or getattr(origin, "__name__", None) or str(annotation)
    if origin is collections.abc.Callable:
        name = "Callable"
    return f"{name}[{', '.join(map(type_in_words, arguments))}]" if arguments else str(name)


def value_in_words(value: object) -> str:
    """A default or a choice as one writes it in Python, with double quotes."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(value_in_words, value))}]"
    return getattr(value, "name", None) or repr(value)


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; a cell's line breaks become spaces."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(" ".join(cell.split()) for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Text as code that may stand in a table's cell."""
    return f"`{text}`" if text else ""


def _body(module: types.ModuleType, owner: str | None) -> list[ast.stmt]:
    body = ast.parse(inspect.getsource(module)).body
    if owner is None:
        return body
    classes = (node for node in body if isinstance(node, ast.ClassDef) and node.name == owner)
    return [statement for node in classes for statement in node.body]


def _split(docstring: str) -> tuple[list[str], Mapping[str, list[str]]]:
    before: list[str] = []
    sections: dict[str, list[str]] = {}
    current = before
    for line in markdown(docstring).splitlines():
        if match := _SECTION.match(line):
            current = sections.setdefault(match[1], [])
        elif current is not before and line and not line.startswith(" "):
            current = before
            before += ["", line]
        else:
            current.append(line)
    return before, sections


def _blocks(lines: list[str]) -> Iterator[str]:
    """A section's parts: each begins with the section's own indent, and goes on with a deeper one."""
    block: list[str] = []
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        if line and not line.startswith(" ") and block:
            yield " ".join(block)
            block = []
        if line.strip():
            block.append(line.strip())
    if block:
        yield " ".join(block)
