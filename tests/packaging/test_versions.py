"""The version is in pyproject.toml. What has to name it besides, names the same."""

import re
import subprocess
from importlib.metadata import version

import pytest

from support.distributions import ROOT, run

VERSION = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]
IMAGE = re.compile(r"\b(?:sqlmesh|shop)-(?:runner|orchestrator):(\d+\.\d+\.\d+)\b")


def files():
    """Texts of the repository that a user may read or run."""
    named = subprocess.run(
        [
            "git",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "docker",
            "docs",
            "examples",
            "README.md",
            "Makefile",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [
        ROOT / name
        for name in named.stdout.splitlines()
        if not name.endswith(".png") and (ROOT / name).exists()
    ]


def test_images_are_tagged_with_the_version_wherever_they_are_named():
    found = [(path.relative_to(ROOT), tag) for path in files() for tag in IMAGE.findall(path.read_text())]

    assert len(found) > 5
    assert [(path, tag) for path, tag in found if tag != VERSION] == []


def test_no_package_has_a_version_of_its_own():
    """At run time it is asked of what is installed."""
    told = [
        path.relative_to(ROOT)
        for folder in ("orchestrator", "runner", "shared_protocol")
        for path in (ROOT / folder).rglob("*.py")
        if f'"{VERSION}"' in path.read_text() or "__version__ =" in path.read_text()
    ]

    assert told == []
    assert version("dagster-sqlmesh-pipes") == VERSION


@pytest.mark.parametrize(
    ("tag", "log", "says"),
    [
        ("v1.2.3", "## [1.2.3] - 2026-01-31\n", ""),
        ("v1.2.4", "## [1.2.3] - 2026-01-31\n", "the tag has to be v1.2.3"),
        ("1.2.3", "## [1.2.3] - 2026-01-31\n", "the tag has to be v1.2.3"),
        ("v1.2.3", "## [Unreleased]\n", "has no section '## [1.2.3] - YYYY-MM-DD'"),
        ("v1.2.3", "## [1.2.3]\n", "has no section '## [1.2.3] - YYYY-MM-DD'"),
        ("v$(shell touch made)", "## [1.2.3] - 2026-01-31\n", "the tag has to be v1.2.3"),
    ],
)
def test_a_tag_is_refused_that_does_not_name_the_version(tmp_path, tag, log, says):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{log}")

    done = run(["make", "release-check"], cwd=tmp_path, env={"TAG": tag})

    assert done.returncode == (2 if says else 0)
    assert says in done.stdout
    assert not (tmp_path / "made").exists()
