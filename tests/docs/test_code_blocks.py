"""Code in Markdown is code: it compiles or parses, and what it names of this project is there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click
import pytest
import yaml

import dagster_sqlmesh_pipes
from sqlmesh_pipes_runner.cli import main
from support.markdown import Block, blocks, markdown_files, name_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGES = ("dagster_sqlmesh_pipes", "sqlmesh_pipes_protocol", "sqlmesh_pipes_runner")
COMPONENT = "dagster_sqlmesh_pipes.SQLMeshProjectComponent"
PROMPT = re.compile(r"^\$ ?(.*)$")
END_OF_COMMAND = {"|", "||", "&&", ";", ">", ">>", "2>", "<", "&", "2>&1"}


def exists(dotted: str) -> bool:
    """Whether a dotted name of this project is a module, or an attribute of one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and not name.startswith(error.name):
                return True  # the module is there, and needs what is not: SQLMesh
            continue
        for attribute in parts[length:]:
            if not hasattr(found, attribute):
                return attribute in getattr(found, "model_fields", {})
            found = getattr(found, attribute)
        return True
    return False


def is_ours(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] in PACKAGES


@pytest.mark.parametrize("block", blocks("python", "py"), ids=str)
def test_python_compiles_and_what_it_imports_of_this_project_is_there(block: Block) -> None:
    tree = ast.parse(block.text)
    compile(tree, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = [
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names if is_ours(alias.name)]
            if isinstance(node, ast.Import)
            else [f"{node.module}.{alias.name}" for alias in node.names]
            if isinstance(node, ast.ImportFrom) and is_ours(node.module)
            else []
        )
    ]

    assert [name for name in names if not exists(name)] == []


@pytest.mark.parametrize("block", blocks("python", "py"), ids=str)
def test_python_calls_this_project_with_parameters_that_there_are(block: Block) -> None:
    tree = ast.parse(block.text)
    of_others = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not is_ours(node.module)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            if name in dagster_sqlmesh_pipes.__all__ and name not in of_others:
                given = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                taken = parameters(getattr(dagster_sqlmesh_pipes, name))
                assert given <= taken, f"{name} has no {given - taken}"


def parameters(called: Any) -> set[str]:
    function = called.__init__ if inspect.isclass(called) else called
    return {*inspect.signature(function).parameters, *getattr(called, "model_fields", {})}


@pytest.mark.parametrize("path", markdown_files(), ids=name_of)
def test_dotted_names_of_this_project_are_there(path: Any) -> None:
    text = path.read_text("utf-8")
    # Not what stands in a path or a URL.
    found = re.findall(rf"(?<![\w/.-])(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+(?![\w/])", text)

    assert [name for name in found if not exists(name) and not name.endswith((".py", ".md"))] == []


PARSERS: Mapping[str, Callable[[str], Any]] = {
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "json": json.loads,
    "jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
    "toml": tomllib.loads,
}


@pytest.mark.parametrize("block", blocks(*PARSERS), ids=str)
def test_data_parses(block: Block) -> None:
    assert PARSERS[block.language](block.text)


@pytest.mark.parametrize(
    "block", [block for block in blocks("yaml") if f"type: {COMPONENT}" in block.text], ids=str
)
def test_the_yaml_of_a_component_has_attributes_that_there_are(block: Block) -> None:
    found = [document for document in yaml.safe_load_all(block.text) if document.get("type") == COMPONENT]

    assert found
    for document in found:
        dagster_sqlmesh_pipes.SQLMeshProjectComponent.model().model_validate(document["attributes"])


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each ``sqlmesh-runner`` in a shell's text."""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quote that ends on another line: a script's text
            continue
        for place, word in enumerate(words):
            is_value = place > 0 and words[place - 1].startswith("-")  # of another command's option
            if word.rpartition("/")[2] == "sqlmesh-runner" and not is_value:
                arguments = words[place + 1 :]
                end = next(
                    (at for at, each in enumerate(arguments) if each.rstrip(";") in END_OF_COMMAND),
                    len(arguments),
                )
                yield [each.rstrip(";") for each in arguments[:end]]


def typed(block: Block) -> str:
    """What a person types of a block: the lines with a prompt, with those that go on; a script is typed whole."""
    if block.language != "console":
        return block.text
    lines: list[str] = []
    for line in block.text.splitlines():
        if match := PROMPT.match(line):
            lines.append(match[1])
        elif lines and lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1] + line
    return "\n".join(lines)


def check_command(arguments: list[str]) -> None:
    """Raise click's UsageError for a command or an option that there is not, AssertionError for a choice."""
    if not arguments or arguments[0].startswith("-"):
        main.make_parser(click.Context(main)).parse_args(list(arguments))
        return
    assert arguments[0] in main.commands, f"there is no command {arguments[0]}"
    command = main.commands[arguments[0]]
    given, _, order = command.make_parser(click.Context(command)).parse_args(arguments[1:])
    for parameter in order:
        value = given.get(str(parameter.name))
        if isinstance(parameter.type, click.Choice):
            for each in value if isinstance(value, list) else [value]:
                assert each in parameter.type.choices, f"{parameter.name} cannot be {each}"


SHELL = [block for block in blocks("console", "bash", "sh", "shell") if any(commands(typed(block)))]


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_of_the_runner_have_options_that_there_are(block: Block) -> None:
    for arguments in commands(typed(block)):
        check_command(arguments)


@pytest.mark.parametrize(
    "line",
    [
        "sqlmesh-runner runs prod",
        "sqlmesh-runner run prod --no-such-option",
        "sqlmesh-runner run prod --fail-on never | tee log",
        "/opt/sqlmesh/bin/sqlmesh-runner report run.jsonl --format pdf",
        "sqlmesh-runner run prod --gateway",
    ],
)
def test_a_command_that_there_is_not_is_found(line: str) -> None:
    (arguments,) = commands(line)

    with pytest.raises((click.UsageError, AssertionError)):
        check_command(arguments)


def test_blocks_are_found() -> None:
    assert {"README.md", "docs/definitions.md"} <= {
        block.place.partition(":")[0] for block in blocks("python")
    }
    assert len(SHELL) > 10
