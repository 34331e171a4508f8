"""The environment variables that are read, beside those that options of the command line have."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR
from docs.generate.declarations import code, table

from sqlmesh_pipes_protocol import variables

ROOT = Path(__file__).parents[2]

RUNNER: Mapping[str, str] = {
    **dict.fromkeys(
        (DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR),
        "The Pipes session that Dagster opened. Set by the launcher.",
    ),
    f"{variables.PREFIX}…": "A Pipes context that is too large for one variable, in pieces. Set by the launcher.",
    "AZURE_STORAGE_CONNECTION_STRING": "With `--pipes azure`: the storage account, and how to sign in to it.",
    "AZURE_STORAGE_ACCOUNT": "With `--pipes azure`, where there is no connection string: the account, for the identity that the runner has.",
    "CI": "Where it is set, other than to `0` or `false`, `run` prints lines instead of a live view.",
    "TERM": "Where it is `dumb`, or not set, likewise.",
    "GITHUB_WORKSPACE": "With `--github`: the checkout, to which the annotations' paths are relative. By default the current directory.",
}
"""What the runner reads."""
DAGSTER: Mapping[str, str] = {
    "KUBECONFIG": "`KubernetesLauncher`: the kubeconfig, unless the launcher names one. Where it is set, Dagster's own pod is not asked.",
    "KUBERNETES_SERVICE_HOST": "`KubernetesLauncher`: set in every pod; the cluster is then the one that Dagster runs in.",
    "NO_PROXY": "`KubernetesLauncher`: hosts that are called without a proxy; `no_proxy` as well.",
}
"""What Dagster's side reads."""

_SPELLINGS = {"no_proxy": "NO_PROXY"}


def of_runner() -> str:
    return _table(RUNNER)


def of_dagster() -> str:
    return _table(DAGSTER)


def read_in(folder: Path) -> set[str]:
    """The variables that the modules of a folder read by their names: ``os.environ["…"]``, ``environ.get("…")``, ``"…" in environ``."""
    return {
        _SPELLINGS.get(name, name)
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in _read_by(node)
    }


def _read_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(
            func=ast.Attribute(attr="get" | "pop", value=mapping), args=[ast.Constant(value=str(name)), *_]
        ):
            places = [mapping]
        case ast.Subscript(value=mapping, slice=ast.Constant(value=str(name))):
            places = [mapping]
        case ast.Compare(left=ast.Constant(value=str(name)), comparators=found):
            places = found
        case ast.Call(func=ast.Attribute(attr="getenv"), args=[ast.Constant(value=str(name)), *_]):
            yield name
            return
        case _:
            return
    if any(ast.unparse(place).rpartition(".")[2] in ("environ", "_variables") for place in places):
        yield name


def _table(described: Mapping[str, str]) -> str:
    return table(("Variable", "Meaning"), [(code(name), text) for name, text in described.items()])


PARTS = {"runner": of_runner, "dagster": of_dagster}
