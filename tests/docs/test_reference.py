"""The reference is whole: every public name, setting, command, event and variable is in it, with what it means."""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from pathlib import Path

import click
import pytest
from docs.generate import command_line, configuration, declarations, protocol, variables
from docs.generate.links import DOCS, ROOT
from docs.generate.pages import filled, marks

import dagster_sqlmesh_pipes
import sqlmesh_pipes_protocol
from dagster_sqlmesh_pipes.arguments import LAUNCHERS
from dagster_sqlmesh_pipes.launchers import Launcher
from sqlmesh_pipes_protocol.codec import EVENT_TYPES, decode
from sqlmesh_pipes_runner.cli import main
from support.markdown import name_of, pages

REFERENCE = DOCS / "reference"


def text_of(name: str) -> str:
    return (REFERENCE / name).read_text("utf-8")


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_all_that_a_page_asks_for_is_there(path: Path) -> None:
    text = path.read_text("utf-8")
    made = filled(text)

    assert text.count("<!-- generated") == len(marks(text))
    assert "<!-- generated" not in made
    assert (
        not re.search(r"^\| `[^`]+` \|(.*\|)?  \|$", made.replace("|  |  |", "|"), re.M)
        or path.name == "protocol.md"
    )


@pytest.mark.parametrize("package", [dagster_sqlmesh_pipes, sqlmesh_pipes_protocol])
def test_every_public_name_is_in_the_api_once(package: object) -> None:
    name = package.__name__  # type: ignore[attr-defined]  # a module
    found = [
        match
        for path in (REFERENCE / "api").glob("*.md")
        for match in re.findall(rf"^::: {name}\.(\w+)$", path.read_text("utf-8"), re.M)
        if match != "testing"
    ]

    assert sorted(found) == sorted(package.__all__)  # type: ignore[attr-defined]  # a module


def test_every_function_and_setting_is_in_the_configuration() -> None:
    shown = {
        argument
        for _, part, argument in marks(text_of("configuration.md"))
        if part in ("parameters", "settings")
    }
    functions = {
        name
        for name in dagster_sqlmesh_pipes.__all__
        if inspect.isfunction(getattr(dagster_sqlmesh_pipes, name))
    }
    launchers = {
        name
        for name in dagster_sqlmesh_pipes.__all__
        if inspect.isclass(found := getattr(dagster_sqlmesh_pipes, name)) and issubclass(found, Launcher)
    }

    assert shown == {
        *(functions - {"unprovided_externals"}),  # takes definitions, and is configured with nothing
        *launchers,
        "SQLMeshProject",
        "SQLMeshResource",
        "SQLMeshRunConfig",
    }


@pytest.mark.parametrize("args", LAUNCHERS, ids=lambda args: args.__name__)
def test_a_launcher_has_the_same_settings_in_yaml(args: type[Launcher]) -> None:
    launcher = getattr(dagster_sqlmesh_pipes, args.__name__.removesuffix("Args"))

    assert set(args.model_fields) - {"type"} == set(launcher.model_fields)


def test_the_components_mappings_have_their_sections() -> None:
    linked = set(re.findall(r"\[mapping\]\(#([\w-]+)-in-yaml\)", configuration.component()))

    assert linked == set(re.findall(r"^### ([\w-]+) in YAML$", text_of("configuration.md"), re.M))


def test_every_command_has_its_section() -> None:
    assert re.findall(r"^## sqlmesh-runner (\w+)$", text_of("command-line.md"), re.M) == list(main.commands)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        pytest.param(name, option, id=f"{name} {option.opts[0]}")
        for name, command in main.commands.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden
    ],
)
def test_every_option_of_a_command_is_described(command: str, option: click.Option) -> None:
    (row,) = [
        line
        for line in command_line.command(command).splitlines()
        if line.startswith(f"| `{option.opts[0]}`")
    ]

    assert option.help
    assert option.help in row
    assert f"`{option.envvar}`" in row


@pytest.mark.parametrize(
    ("folder", "described"),
    [
        (ROOT / "runner", variables.RUNNER),
        (ROOT / "orchestrator", variables.DAGSTER),
        (ROOT / "shared_protocol", {}),
    ],
    ids=["runner", "orchestrator", "shared_protocol"],
)
def test_every_variable_that_the_source_reads_is_described(folder: Path, described: dict[str, str]) -> None:
    handed_over = {name for name in described if name.startswith(("DAGSTER_PIPES", "SQLMESH_RUNNER"))}

    assert variables.read_in(folder) == set(described) - handed_over


def test_variables_are_found_however_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        'a = os.environ["A"]; b = environ.get("B", ""); c = "C" in os.environ; d = os.getenv("D"); os.environ.pop("E")\n'
        'f = settings.get("F"); g = settings["G"]; h = "H" in settings\n',
        "utf-8",
    )

    assert variables.read_in(tmp_path) == {"A", "B", "C", "D", "E"}


def test_every_event_has_its_fields_and_a_line_that_can_be_read() -> None:
    shown = protocol.event_list()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", shown, re.M | re.S))

    assert list(sections) == list(EVENT_TYPES)
    for kind, section in sections.items():
        (example,) = re.findall(r"```json\n(.*?)    ```", section, re.S)
        event = decode(json.dumps(json.loads(example))).event
        rows = re.findall(r"^\| `(\w+)` \|", section, re.M)
        assert event.kind == kind
        assert rows == list(event.__dict__)


def test_every_link_of_the_protocol_has_its_heading_and_no_two_are_alike() -> None:
    made = filled(text_of("protocol.md"))
    headings = [heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", made, re.M)]

    assert set(re.findall(r"\]\(#([\w-]+)\)", made)) <= set(headings)
    assert [heading for heading, count in Counter(headings).items() if count > 1] == []


@pytest.mark.parametrize("name", list(protocol.ENUMERATIONS))
def test_every_choice_of_an_enumeration_is_told(name: str) -> None:
    shown = protocol.enumerations().partition(f"### {name}\n")[2].partition("\n### ")[0]

    listed = set(re.findall(r"^- `(\w+)`:", shown, re.M))
    assert listed in (set(), set(protocol.ENUMERATIONS[name].__args__))


def sample(first: int, second: str = "x", *, third: bool = False) -> None:
    """What it does, with ``code``.

    .. code-block:: python

        sample(1)

    Args:
        first: a number,
            on two lines.
        second, third: others.

    Raises:
        ValueError: never.

    More.
    """


def test_docstrings_are_read_by_their_sections() -> None:
    assert declarations.entries(sample) == {
        "first": "a number, on two lines.",
        "second": "others.",
        "third": "others.",
    }
    assert declarations.entries(sample, "Raises") == {"ValueError": "never."}
    assert (
        declarations.summary(sample) == "What it does, with `code`.\n\n```python\nsample(1)\n```\n\n\nMore."
    )


def test_a_part_of_a_section_without_a_name_is_an_error() -> None:
    def unnamed() -> None:
        """It is.

        Args:
            what is meant is not said.
        """

    with pytest.raises(ValueError, match="what is meant"):
        declarations.entries(unnamed)


def test_docstrings_become_what_griffe_reads() -> None:
    docstring = (
        "Makes `Thing`s, not `Other`.\n\nArgs:\n    one, two,\n        three: as in `make`.\n    four: a ``Thing``.\n\n"
        "Raises:\n    ValueError: it cannot.\n    As `make`.\n"
    )

    assert declarations.google(docstring, {"Thing": "package.Thing", "make": "package.make"}) == (
        "Makes [`Thing`][package.Thing]s, not `Other`.\n\n"
        "Args:\n    one: as in [`make`][package.make].\n    two: as in [`make`][package.make].\n"
        "    three: as in [`make`][package.make].\n    four: a [`Thing`][package.Thing].\n\n"
        "Raises:\n    ValueError: it cannot.\n\nIt raises as [`make`][package.make] would."
    )


@pytest.mark.parametrize("mark", ["protocol nothing", "nowhere events", "configuration settings Nobody"])
def test_a_page_that_asks_for_what_there_is_not_is_an_error(mark: str) -> None:
    with pytest.raises((KeyError, AttributeError)):
        filled(f"<!-- generated: {mark} -->\n")
