"""The reference of the command line, from click's commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping

import click
from docs.generate.declarations import code, markdown, table, texts_below

from sqlmesh_pipes_runner import errors
from sqlmesh_pipes_runner.cli import main

PROGRAM = "sqlmesh-runner"


def command_list() -> str:
    """The commands, in the order of the help."""
    return table(
        ("Command", ""),
        [
            (f"[{code(name)}](#sqlmesh-runner-{name})", command.get_short_help_str(limit=200))
            for name, command in main.commands.items()
        ],
    )


def command(name: str) -> str:
    """How a command is called, what it does, and its options."""
    subject = main.commands[name]
    context = click.Context(subject, info_name=f"{PROGRAM} {name}")
    usage = " ".join([context.command_path, *subject.collect_usage_pieces(context)])
    options = [each for each in subject.params if isinstance(each, click.Option) and not each.hidden]
    rows = [
        (
            ", ".join(map(code, [*each.opts, *each.secondary_opts])),
            _value(each),
            _default(each),
            _meaning(each),
        )
        for each in options
    ]
    return "\n\n".join(
        [
            f"```console\n$ {usage}\n```",
            _help(subject.help or ""),
            *_arguments(subject),
            *([table(("Option", "Value", "Default", "Meaning"), rows)] if rows else []),
        ]
    )


def exit_statuses() -> str:
    """The process's exit statuses."""
    described = texts_below(errors)
    return table(
        ("Status", "Meaning"),
        [
            (code(str(getattr(errors, name))), text)
            for name, text in described.items()
            if name.startswith("EXIT_")
        ],
    )


def option_variables() -> str:
    """The variables by which options can be given, with their commands."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name, subject in main.commands.items():
        for parameter in subject.params:
            if isinstance(parameter.envvar, str):
                spelled = (
                    parameter.opts[0]
                    if isinstance(parameter, click.Option)
                    else parameter.human_readable_name
                )
                found.setdefault(parameter.envvar, (spelled, []))[1].append(name)
    return table(
        ("Variable", "Option", "Commands"),
        [
            (code(variable), code(option), ", ".join(map(code, commands)))
            for variable, (option, commands) in sorted(found.items())
        ],
    )


PARTS: Mapping[str, Callable[..., str]] = {
    "commands": command_list,
    "command": command,
    "exit-statuses": exit_statuses,
    "option-variables": option_variables,
}


def _help(text: str) -> str:
    """A command's help; what click must not wrap stays as it is."""
    return "\n\n".join(
        "```text\n" + paragraph.removeprefix("\b\n") + "\n```"
        if paragraph.startswith("\b\n")
        else markdown(paragraph)
        for paragraph in inspect.cleandoc(text).split("\n\n")
    )


def _arguments(subject: click.Command) -> list[str]:
    """A sentence for each argument that a variable can give."""
    return [
        f"`{each.human_readable_name}` can be given as {code(each.envvar)} as well."
        for each in subject.params
        if isinstance(each, click.Argument) and isinstance(each.envvar, str)
    ]


def _value(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return ", ".join(code(str(choice)) for choice in option.type.choices)
    return code(option.metavar or option.type.name.upper())


def _default(option: click.Option) -> str:
    if option.is_flag or option.default is None or not isinstance(option.default, (str, int, float)):
        return ""
    return code(re.sub(r"\.0$", "", str(option.default)))


def _meaning(option: click.Option) -> str:
    text = option.help or ""
    return f"{text}<br>{code(option.envvar)}" if isinstance(option.envvar, str) else text
