"""Under ``dagster dev`` the manifest follows the project's files; elsewhere it stays as it was deployed.

Annotations are not postponed: Dagster reads those of asset functions.
"""

import json
import os
import shlex
import shutil
import subprocess
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dagster_sqlmesh_pipes import (
    ManifestError,
    SQLMeshProject,
    sqlmesh_assets,
    sqlmesh_definitions_factory,
)
from sqlmesh_pipes_protocol.manifest import read_manifest
from support.warehouse import CONFIG, DUCKDB, Warehouse, write

FIRST = "MODEL (name staging.first, kind FULL);\nSELECT 1 AS a"
SECOND = "MODEL (name staging.second, kind FULL);\nSELECT a FROM staging.first"


@pytest.fixture(scope="module")
def planned(tmp_path_factory, runner_bin) -> Warehouse:
    home = tmp_path_factory.mktemp("planned")
    warehouse = Warehouse(path=home / "project", database=home / "db.duckdb", bin=runner_bin)
    config = CONFIG.replace("@connection@\n", DUCKDB).replace("@dialect@", "duckdb")
    write(warehouse.path / "config.yaml", config)
    write(warehouse.path / "models/first.sql", FIRST)
    warehouse.manifest()
    return warehouse


@dataclass
class Development:
    """A project with a manifest that fits."""

    warehouse: Warehouse

    @property
    def path(self) -> Path:
        return self.warehouse.path / "sqlmesh_manifest.json"

    @property
    def models(self) -> list[str]:
        """What the file says, whoever wrote it."""
        return [model.name for model in read_manifest(self.path.read_bytes()).models]

    def project(self, **settings: object) -> SQLMeshProject:
        return SQLMeshProject(self.warehouse.path, **{"launcher": self.warehouse.launcher(), **settings})

    def add(self, text: str = SECOND) -> None:
        write(self.warehouse.path / "models/second.sql", text)

    def stamp(self) -> tuple[int, int]:
        """Changes whenever the file is written, even with the same content."""
        status = self.path.stat()
        return status.st_mtime_ns, status.st_ino


@pytest.fixture
def development(planned, tmp_path, monkeypatch) -> Development:
    monkeypatch.delenv("DAGSTER_IS_DEV_CLI", raising=False)
    shutil.copytree(planned.path, tmp_path / "project")
    return Development(replace(planned, path=tmp_path / "project", database=tmp_path / "db.duckdb"))


@pytest.fixture
def dev(development, monkeypatch) -> Development:
    """The same, under ``dagster dev``."""
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    return development


def test_a_manifest_that_is_missing_is_made(dev):
    dev.path.unlink()

    project = dev.project().prepare_if_dev()

    assert [model.name for model in project.manifest.models] == ["staging.first"]
    assert dev.models == ["staging.first"]


def test_a_manifest_that_is_stale_is_made_anew(dev):
    dev.add()

    project = dev.project().prepare_if_dev()

    assert [model.name for model in project.manifest.models] == ["staging.first", "staging.second"]


def test_a_manifest_that_was_read_before_is_read_again_after_it_was_made_anew(dev):
    project = dev.project()
    assert len(project.manifest.models) == 1
    dev.add()

    project.prepare_if_dev()

    assert len(project.manifest.models) == 2


def test_a_manifest_that_is_damaged_is_made_anew(dev):
    dev.path.write_text("{")

    dev.project().prepare_if_dev()

    assert dev.models == ["staging.first"]


def test_a_manifest_of_another_gateway_is_made_anew(dev):
    config = dev.warehouse.path / "config.yaml"
    text = config.read_text().replace(
        "default_gateway", "  other:\n    connection: {type: duckdb}\ndefault_gateway"
    )
    config.write_text(text)
    assert dev.project().prepare_if_dev().manifest.gateway == "local"

    made = dev.project(gateway="other").prepare_if_dev().manifest

    assert made.gateway == "other"


def test_a_manifest_that_fits_is_left_alone(dev):
    before = dev.stamp()

    dev.project().prepare_if_dev()

    assert dev.stamp() == before


def test_a_manifest_that_fits_starts_no_runner(dev):
    project = dev.project(launcher=dev.warehouse.launcher(command=["/nowhere/sqlmesh-runner"]))

    assert len(project.prepare_if_dev().manifest.models) == 1


def test_files_that_do_not_define_the_project_do_not_make_a_manifest_stale(dev):
    before = dev.stamp()
    write(dev.warehouse.path / "README.md", "Changed.")
    write(dev.warehouse.path / ".cache/model.sql", "SELECT 1")

    dev.project().prepare_if_dev()

    assert dev.stamp() == before


@pytest.mark.parametrize("value", [None, ""])
def test_outside_of_development_nothing_is_made_and_a_stale_manifest_is_used(development, value, monkeypatch):
    if value is not None:
        monkeypatch.setenv("DAGSTER_IS_DEV_CLI", value)
    development.add()
    before = development.stamp()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        project = development.project().prepare_if_dev()
        assert len(project.manifest.models) == 1

    assert development.stamp() == before


def test_outside_of_development_a_missing_manifest_is_an_error_with_the_command_that_writes_it(development):
    development.path.unlink()

    project = development.project().prepare_if_dev()

    with pytest.raises(ManifestError) as caught:
        _ = project.manifest
    command = str(caught.value).partition("Write it with: ")[2]
    program, *arguments = shlex.split(command)
    assert program == "sqlmesh-runner"
    done = development.warehouse.runner(*arguments)
    assert done.returncode == 0, done.stderr
    assert development.models == ["staging.first"]


def test_the_factory_brings_the_manifest_up_to_date(dev):
    dev.add()

    defs = sqlmesh_definitions_factory(project_dir=dev.warehouse.path, launcher=dev.warehouse.launcher())

    (assets,) = defs.assets
    assert {key.path[-1] for key in assets.keys} == {"first", "second"}


def test_a_stale_manifest_that_nobody_prepared_is_a_warning_with_the_command(dev):
    dev.add()

    with pytest.warns(UserWarning, match="is stale: files of .* have changed") as caught:

        @sqlmesh_assets(project=dev.project())
        def assets(context): ...

    (warning,) = [str(warning.message) for warning in caught if "is stale" in str(warning.message)]
    assert f"Write it with: sqlmesh-runner manifest --project {dev.warehouse.path}" in warning
    assert "prepare_if_dev()" in warning
    assert len(assets.keys) == 1


def test_a_project_that_sqlmesh_cannot_load_is_an_error_in_sqlmesh_s_words_and_the_old_manifest_stays(dev):
    dev.add("MODEL (name staging.second, kind FULL);\nSELECT FROM WHERE ((")
    before = dev.stamp()

    with pytest.raises(ManifestError) as caught:
        dev.project().prepare_if_dev()

    text = str(caught.value)
    assert text.startswith(f"The manifest of {dev.warehouse.path} cannot be made: ")
    assert "second.sql" in text
    assert "Traceback" not in text
    assert dev.stamp() == before


def test_a_runner_that_is_not_there_is_an_error_that_says_how_to_name_one(dev):
    dev.add()

    with pytest.raises(ManifestError, match=r"'/nowhere/sqlmesh-runner' was not found.*SubprocessLauncher\("):
        dev.project(launcher=dev.warehouse.launcher(command=["/nowhere/sqlmesh-runner"])).prepare_if_dev()


def test_a_gateway_that_there_is_not_is_an_error_that_names_those_that_there_are(dev):
    with pytest.raises(
        ManifestError, match=r"There is no gateway 'elsewhere' in the project .* it has 'local'"
    ):
        dev.project(gateway="elsewhere").prepare_if_dev()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_directory_that_cannot_be_written_to_is_an_error_that_says_so(dev):
    dev.add()
    dev.warehouse.path.chmod(0o500)
    try:
        with pytest.raises(ManifestError, match="cannot be written"):
            dev.project().prepare_if_dev()
    finally:
        dev.warehouse.path.chmod(0o700)


def test_a_manifest_s_directory_that_is_not_there_is_an_error_that_says_so(dev, tmp_path):
    with pytest.raises(ManifestError, match=r"cannot be written to .*: No such file or directory"):
        dev.project(manifest_path=tmp_path / "gone/manifest.json").prepare_if_dev()


NOISY = """\
import sys, subprocess
import typing as t
import pandas as pd
from sqlmesh import ExecutionContext, model

print("printed when it is imported")
sys.stdout.write('{"v": "1.0", "models": []}\\n')
subprocess.run(["echo", "printed by a child"])

@model("staging.second", columns={"a": "int"}, kind="full")
def execute(context: ExecutionContext, **kwargs: t.Any):
    return pd.DataFrame({"a": [1]})
"""


def test_what_a_project_prints_when_it_is_loaded_does_not_get_into_the_manifest(dev):
    write(dev.warehouse.path / "models/second.py", NOISY)

    project = dev.project().prepare_if_dev()

    assert [model.name for model in project.manifest.models] == ["staging.first", "staging.second"]


def test_a_manifest_on_standard_output_is_json_and_nothing_else(development):
    write(development.warehouse.path / "models/second.py", NOISY)

    done = development.warehouse.runner(
        "manifest", "--project", str(development.warehouse.path), "--output", "-"
    )

    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["models"]) == 2
    assert "printed when it is imported" in done.stderr
    assert "printed by a child" in done.stderr


@pytest.mark.parametrize("variable", ["PYTHONPATH", "VIRTUAL_ENV"])
def test_the_environment_of_dagster_does_not_reach_the_runner_that_makes_it(
    dev, monkeypatch, variable, tmp_path
):
    write(tmp_path / "poison/sqlmesh/__init__.py", "raise ImportError('the wrong SQLMesh')")
    monkeypatch.setenv(variable, str(tmp_path / "poison"))
    dev.add()

    dev.project().prepare_if_dev()

    assert dev.models == ["staging.first", "staging.second"]


def test_a_broken_file_is_told_by_the_same_sentence_to_people(development):
    development.add("MODEL (name staging.second, kind FULL);\nSELECT FROM WHERE ((")

    done = subprocess.run(
        [
            str(development.warehouse.bin / "sqlmesh-runner"),
            "manifest",
            "--project",
            str(development.warehouse.path),
        ],
        env=development.warehouse.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode != 0
    assert done.stdout == ""
    assert "second.sql" in done.stderr
    assert "Traceback" not in done.stderr
