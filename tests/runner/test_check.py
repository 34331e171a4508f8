"""``manifest --check`` says by its exit status whether a manifest fits, without SQLMesh and at once."""

import json
import time

import pytest
from click.testing import CliRunner

from sqlmesh_pipes_runner.cli import main


@pytest.fixture(scope="module")
def written(planned):
    """The manifest of the common project."""
    result = planned.invoke("manifest", "--output", "-")
    assert result.exit_code == 0, result.output
    return result.stdout_bytes


@pytest.fixture
def path(warehouse, written):
    path = warehouse.path / "sqlmesh_manifest.json"
    path.write_bytes(written)
    return path


def test_a_manifest_that_fits_is_0(warehouse, path):
    result = warehouse.invoke("manifest", "--check")

    assert (result.exit_code, result.stderr, result.stdout) == (0, f"{path} fits.\n", "")
    assert warehouse.invoke("manifest", "--check", "--gateway", "LOCAL").exit_code == 0


def test_a_manifest_of_other_files_is_1_with_what_was_found_and_the_command_that_mends_it(warehouse, path):
    warehouse.write({"models/added.sql": "MODEL (name s.added, kind FULL); SELECT 1 AS a"})
    content = path.read_bytes()
    result = warehouse.invoke("manifest", "--check")

    assert result.exit_code == 1
    assert result.stderr == (
        f"The manifest {path} is stale: files of {warehouse.path} have changed since "
        f"{json.loads(content)['created_at']}. "
        f"Write it with: sqlmesh-runner manifest --project {warehouse.path}\n"
    )
    assert path.read_bytes() == content


def test_a_manifest_of_another_gateway_is_1_and_the_command_names_the_one_asked_for(warehouse, path):
    result = warehouse.invoke("manifest", "--check", "--gateway", "ci")

    assert result.exit_code == 1
    assert "is of the gateway 'local', and 'ci' is asked for." in result.stderr
    assert result.stderr.endswith(f"sqlmesh-runner manifest --project {warehouse.path} --gateway ci\n")


def test_the_manifest_checked_is_that_of_output(warehouse, path, tmp_path):
    elsewhere = tmp_path / "m.json"
    missing = warehouse.invoke("manifest", "--check", "--output", str(elsewhere))
    path.rename(elsewhere)

    assert missing.exit_code == 2
    assert missing.stderr == (
        f"There is no SQLMesh manifest at {elsewhere}. "
        f"Write it with: sqlmesh-runner manifest --project {warehouse.path} --output {elsewhere}\n"
    )
    assert warehouse.invoke("manifest", "--check", "--output", str(elsewhere)).exit_code == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "cannot be used: $: expected JSON"),
        (b"{}", "cannot be used: $.v: expected a version such as 1.0"),
        (b'{"v": "2.0"}', "the manifest speaks protocol 2.0, this side speaks 1."),
    ],
)
def test_a_manifest_that_cannot_be_used_is_2(warehouse, path, content, says):
    path.write_bytes(content)
    result = warehouse.invoke("manifest", "--check")

    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("argument", [("--environment", "prod"), ("--no-column-lineage",), ("--output", "-")])
def test_what_is_for_writing_does_not_go_with_a_check(warehouse, path, argument):
    result = warehouse.invoke("manifest", "--check", *argument)

    assert result.exit_code == 2
    assert "--check looks at a file that there is" in result.stderr


def test_a_directory_that_is_no_project_is_2(tmp_path):
    result = CliRunner().invoke(main, ["manifest", "--check", "--project", str(tmp_path)])

    assert result.exit_code == 2
    assert "is not a SQLMesh project" in result.stderr


WITHOUT_SQLMESH = """
    import sys

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("sqlmesh", "sqlglot", "pandas"):
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Missing())
    from sqlmesh_pipes_runner.cli import main

    main(sys.argv[1:])
"""


def test_it_needs_no_sqlmesh_and_answers_at_once(warehouse, path, python):
    began = time.monotonic()
    fits = python(WITHOUT_SQLMESH, "manifest", "--check", "--project", str(warehouse.path))
    took = time.monotonic() - began
    (warehouse.path / "models/paid.sql").unlink()
    stale = python(WITHOUT_SQLMESH, "manifest", "--check", "--project", str(warehouse.path))
    write = python(WITHOUT_SQLMESH, "manifest", "--project", str(warehouse.path))

    assert (fits.returncode, stale.returncode) == (0, 1), fits.stderr + stale.stderr
    assert took < 3  # a tenth of it on an idle machine; SQLMesh alone takes as long to import
    assert write.returncode == 2  # or the blocker would block nothing
    assert "pip install 'dagster-sqlmesh-pipes[sqlmesh]'" in write.stderr
