"""Fixtures of the security tests."""

import tempfile

import pytest

from support.postgres import postgres_server  # noqa: F401 - pytest finds fixtures by name
from support.warehouse import instance, make_warehouse, runner_bin  # noqa: F401 - pytest finds fixtures by name


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder for the temporary files of both sides."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder
