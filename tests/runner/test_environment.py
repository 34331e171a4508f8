"""The runner's environment has no Dagster, and its packages need none."""

import importlib
import importlib.util
import pkgutil

import pytest

import sqlmesh_pipes_protocol
import sqlmesh_pipes_runner


def test_every_module_imports_without_dagster():
    for package in (sqlmesh_pipes_runner, sqlmesh_pipes_protocol):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.rpartition(".")[2] != "__main__":  # runs the command line when imported
                importlib.import_module(module.name)

    assert importlib.util.find_spec("dagster") is None
    assert importlib.util.find_spec("dagster_shared") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("dagster")


def test_the_runner_imports_nothing_of_dagster_but_its_pipes_client(python):
    done = python("""
        import importlib, pkgutil, sys
        import sqlmesh_pipes_protocol, sqlmesh_pipes_runner
        for package in (sqlmesh_pipes_runner, sqlmesh_pipes_protocol):
            for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
                if not module.name.endswith("__main__"):
                    importlib.import_module(module.name)
        assert "sqlmesh_pipes_runner.adapter" in sys.modules
        print(sorted({name.partition(".")[0] for name in sys.modules if "dagster" in name}))
    """)

    assert done.stdout == "['dagster_pipes']\n", done.stderr


def test_the_protocol_needs_nothing_but_orjson(python):
    done = python("""
        import sys
        before = set(sys.modules)
        import importlib, pkgutil
        import sqlmesh_pipes_protocol
        for module in pkgutil.walk_packages(sqlmesh_pipes_protocol.__path__, "sqlmesh_pipes_protocol."):
            importlib.import_module(module.name)
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(sorted(new - sys.stdlib_module_names))
    """)

    assert done.stdout == "['orjson', 'sqlmesh_pipes_protocol']\n", done.stderr


def test_asking_for_version_or_help_imports_no_sqlmesh(python):
    for argument in ("--version", "--help"):
        done = python(
            """
            import atexit, sys
            from sqlmesh_pipes_runner.cli import main
            heavy = ("sqlmesh", "sqlglot", "pandas", "duckdb", "dagster_pipes", "sqlmesh_pipes_runner.reports")
            atexit.register(lambda: print([name for name in heavy if name in sys.modules], file=sys.stderr))
            main([sys.argv[1]])
            """,
            argument,
        )

        assert done.returncode == 0, done.stderr
        assert "sqlmesh-runner" in done.stdout or "Usage:" in done.stdout
        assert done.stderr == "[]\n"
