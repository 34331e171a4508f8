"""What a person reads in Dagster's web UI, in a browser: the tour that takes the pictures of the docs."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

MISSING = [
    *([] if any(map(shutil.which, BROWSERS)) else ["Chromium"]),
    *(name for name in ("playwright", "PIL") if importlib.util.find_spec(name) is None),
]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not on this host: {', '.join(MISSING)}"),
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("look"),  # one tour
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Where the tour has left its pictures, and what their pages say."""
    directory = tmp_path_factory.mktemp("pictures")
    done = subprocess.run(
        [sys.executable, "examples/shop/tour.py", str(directory), "--texts"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "DAGSTER_"))},
        capture_output=True,
        text=True,
        timeout=580,  # about a minute; more where the machine is busy
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def said(pictures: Path, name: str) -> str:
    return (pictures / f"{name}.txt").read_text()


def test_a_model_s_checks_are_its_audits_and_its_status(pictures):
    page = said(pictures, "model-checks")

    for check in ("amount_is_positive", "orders_have_a_payment", "unique_values", "sqlmesh_execution_status"):
        assert check in page
    assert "If it fails, SQLMesh warns and goes on." in page


def test_a_failed_model_a_skipped_one_and_a_skipped_tick_say_why(pictures):
    assert "shop.staging.stg_payments failed its audits: unique_values." in said(pictures, "failed-run")
    assert "1 row failed." in said(pictures, "failed-check")
    assert "Skipped. Upstream shop.staging.stg_payments failed." in said(pictures, "skipped-model")
    assert "Nothing is due; the next model is due at" in said(pictures, "schedule")


def test_a_model_s_page_has_its_columns_owner_and_kinds(pictures):
    page = said(pictures, "model")

    assert "What remains to be paid, in euros." in page
    assert {"finance@example.com", "SQLMesh", "DuckDB"} <= set(page.split())


def test_no_page_shows_where_this_machine_has_its_files(pictures):
    for page in pictures.glob("*.txt"):
        assert str(ROOT) not in page.read_text(), page.name


def test_the_pictures_are_those_of_the_docs_and_small(pictures):
    sizes = {file.name: file.stat().st_size for file in pictures.glob("*.png")}

    assert set(sizes) == {file.name for file in IMAGES.glob("*.png")}
    assert {name: size for name, size in sizes.items() if size >= 80_000} == {}
    assert sum(sizes.values()) < 600_000
