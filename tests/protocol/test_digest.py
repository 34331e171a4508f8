"""The digest tells a project that has changed from one that has not."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sqlmesh_pipes_protocol.digest import project_digest

FILES = {
    "config.yaml": "gateways: {}",
    "models/orders.sql": "MODEL (name shop.orders); SELECT 1",
    "models/deep/er/revenue.py": "def execute(): ...",
    "seeds/countries.csv": "id,name",
    "macros/__init__.py": "",
    "audits/positive.sql": "AUDIT (name positive); SELECT 1",
    "external_models.yml": "[]",
    "schema.json": "{}",
    ".env": "A=1",
    "prod.env": "A=2",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(tmp_path / "project", FILES)


def test_the_digest_is_of_64_hexadecimal_digits_and_stays_the_same(project: Path) -> None:
    first = project_digest([project])

    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert project_digest([project]) == first


def test_a_digest_is_the_same_in_every_release_and_on_every_file_system(project: Path) -> None:
    assert project_digest([project]) == "b100702725ba5893879e9a24abcc5921f9c693f901b5282a71fa4f0a751ec095"


def test_the_same_files_written_in_another_order_elsewhere_have_the_same_digest(
    project: Path, tmp_path: Path
) -> None:
    copy = write(tmp_path / "another name", dict(reversed(FILES.items())))

    assert project_digest([copy]) == project_digest([project])


def test_neither_times_nor_permissions_count(project: Path) -> None:
    before = project_digest([project])
    path = project / "models/orders.sql"

    os.utime(path, (0, 0))
    path.chmod(0o600)

    assert project_digest([project]) == before


@pytest.mark.parametrize("name", FILES)
def test_a_change_in_any_file_changes_the_digest(name: str, project: Path) -> None:
    before = project_digest([project])

    with (project / name).open("a") as file:
        file.write(" ")

    assert project_digest([project]) != before


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_changes_the_digest(name: str, project: Path) -> None:
    before = project_digest([project])

    (project / name).unlink()

    assert project_digest([project]) != before


@pytest.mark.parametrize("to", ["models/Orders.sql", "models/orders2.sql", "audits/orders.sql"])
def test_a_file_of_another_name_changes_the_digest(to: str, project: Path) -> None:
    before = project_digest([project])

    (project / "models/orders.sql").rename(project / to)

    assert project_digest([project]) != before


def test_contents_that_change_places_change_the_digest(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a.sql": "1", "b.sql": "2"})
    other = write(tmp_path / "other", {"a.sql": "2", "b.sql": "1"})

    assert project_digest([one]) != project_digest([other])


@pytest.mark.parametrize(
    "name",
    ["models/logs/visits.sql", "models/target/customers.sql", "models/tests/results.sql", "models/new.sql"],
)
def test_a_model_counts_whatever_its_folder_is_called(name: str, project: Path) -> None:
    before = project_digest([project])

    write(project, {name: "SELECT 1"})

    assert project_digest([project]) != before


@pytest.mark.parametrize(
    "name",
    [
        ".cache/model.sql",
        "models/.cache/model.sql",
        ".git/config.yaml",
        ".venv/lib/site.py",
        "models/.ipynb_checkpoints/orders.sql",
        "macros/__pycache__/a.py",
        "logs/sqlmesh.json",
        "tests/test_orders.yaml",
        "target/run.sql",
        "node_modules/a/package.json",
        "sqlmesh_manifest.json",
        "prod_sqlmesh_manifest.json",
        ".sqlmesh_manifest.json.k3j2h1",
        "README.md",
        "warehouse.duckdb",
        "models/orders.sql~",
        "models/orders.sql.swp",
    ],
)
def test_what_does_not_define_the_project_does_not_count(name: str, project: Path) -> None:
    before = project_digest([project])

    write(project, {name: "anything"})

    assert project_digest([project]) == before


def test_every_project_counts_and_so_does_which_one_is_first(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a.sql": "1"})
    other = write(tmp_path / "other", {"b.sql": "2"})
    together = write(tmp_path / "together", {"a.sql": "1", "b.sql": "2"})
    empty = tmp_path / "empty"
    empty.mkdir()

    digests = [
        project_digest(projects)
        for projects in ([], [empty], [one], [one, empty], [one, other], [other, one], [together])
    ]

    assert len(set(digests)) == len(digests)


def test_names_that_are_no_unicode_and_links_to_nothing_do_no_harm(project: Path) -> None:
    before = project_digest([project])
    (project / "nowhere.sql").symlink_to(project / "gone.sql")
    assert project_digest([project]) == before

    Path(os.fsdecode(os.fsencode(project) + b"/caf\xe9.sql")).write_text("SELECT 1")

    assert project_digest([project]) != before
