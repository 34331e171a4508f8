"""A manifest is read whole or refused in one sentence, and written in one step or not at all."""

from __future__ import annotations

import dataclasses
import gc
import os
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqlmesh_pipes_protocol import (
    DecodeError,
    Manifest,
    ManifestError,
    ProtocolError,
    VersionMismatchError,
    load_manifest,
    staleness,
    write_manifest,
)
from sqlmesh_pipes_protocol import manifest as manifest_module
from sqlmesh_pipes_protocol.digest import project_digest
from sqlmesh_pipes_protocol.manifest import collector_paused

GOLDEN = Path(__file__).parent / "golden" / "manifest-1.json"


@pytest.fixture
def valid() -> Manifest:
    return load_manifest(GOLDEN)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_manifest_is_read_as_it_was_written(any_of: Any, data: Any, tmp_path: Path) -> None:
    strategy = any_of(Manifest).map(lambda manifest: _with_version(manifest, "1.0"))
    manifest = data.draw(strategy)
    path = tmp_path / "sqlmesh_manifest.json"

    write_manifest(manifest, path)

    assert load_manifest(path) == manifest
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def _with_version(manifest: Manifest, version: str) -> Manifest:
    return dataclasses.replace(manifest, v=version)


def _missing(path: Path) -> None:
    pass


def _no_json(path: Path) -> None:
    path.write_text("models: []")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _torn(path: Path) -> None:
    path.write_bytes(GOLDEN.read_bytes()[:-100])


def _no_unicode(path: Path) -> None:
    path.write_bytes(b'{"v": "\xff"}')


def _list(path: Path) -> None:
    path.write_bytes(b"[]")


def _other_tool(path: Path) -> None:
    path.write_bytes(b'{"metadata": {"dbt_schema_version": "12"}}')


def _wrong_shape(path: Path) -> None:
    value = orjson.loads(GOLDEN.read_bytes())
    value["models"][1]["audits"][0]["blocking"] = "yes"
    path.write_bytes(orjson.dumps(value))


def _other_major(path: Path) -> None:
    path.write_bytes(orjson.dumps({**orjson.loads(GOLDEN.read_bytes()), "v": "2.0"}))


def _directory(path: Path) -> None:
    path.mkdir()


def _symlink_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("damage", "words", "cause"),
    [
        pytest.param(_missing, ["There is no SQLMesh manifest at"], None, id="missing"),
        pytest.param(_no_json, ["expected JSON", "line 1 column 1"], DecodeError, id="not JSON"),
        pytest.param(_empty, ["expected JSON"], DecodeError, id="empty"),
        pytest.param(_torn, ["expected JSON"], DecodeError, id="torn"),
        pytest.param(_no_unicode, ["expected JSON"], DecodeError, id="not Unicode"),
        pytest.param(_list, ["cannot be used", "$: expected an object"], DecodeError, id="a list"),
        pytest.param(
            _other_tool, ["cannot be used", "$.v: expected a version"], DecodeError, id="another tool's"
        ),
        pytest.param(
            _wrong_shape,
            ["cannot be used", "$.models[1].audits[0].blocking: expected true or false, got str 'yes'"],
            DecodeError,
            id="wrong shape",
        ),
        pytest.param(
            _other_major,
            ["cannot be used", "manifest speaks protocol 2.0", "this side speaks 1.0"],
            VersionMismatchError,
            id="another major",
        ),
        pytest.param(_directory, ["cannot be read: Is a directory"], IsADirectoryError, id="a directory"),
        pytest.param(_symlink_loop, ["cannot be read: Too many levels"], OSError, id="a symlink to itself"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_told_in_a_sentence_with_path_and_command(
    damage: Callable[[Path], None], words: list[str], cause: type[Exception] | None, tmp_path: Path
) -> None:
    path = tmp_path / "sqlmesh_manifest.json"
    damage(path)

    with pytest.raises(ManifestError) as caught:
        load_manifest(path)

    _assert_clear(caught.value, path, words)
    if cause is None:
        assert caught.value.__suppress_context__
    else:
        assert isinstance(caught.value.__cause__, cause)


def _assert_clear(error: ManifestError, path: Path, words: list[str]) -> None:
    message = str(error)
    assert isinstance(error, ProtocolError)
    assert "\n" not in message
    assert str(path) in message
    assert message.endswith(f"Write it with: sqlmesh-runner manifest --project {path.parent}")
    for part in words:
        assert part in message


@contextmanager
def nobody() -> Iterator[None]:
    """For a moment a user who owns nothing, also where the suite runs as root (in containers)."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_manifest_that_may_not_be_read_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "sqlmesh_manifest.json"
    path.write_bytes(GOLDEN.read_bytes())
    path.chmod(0)

    with nobody(), pytest.raises(ManifestError) as caught:
        load_manifest(path)

    assert isinstance(caught.value.__cause__, PermissionError)
    _assert_clear(caught.value, path, ["cannot be read: Permission denied"])


def test_a_manifest_too_large_to_be_one_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sqlmesh_manifest.json"
    path.write_bytes(GOLDEN.read_bytes())
    monkeypatch.setattr(manifest_module, "MAX_MANIFEST_BYTES", 1_000)

    with pytest.raises(ManifestError) as caught:
        load_manifest(path)

    _assert_clear(caught.value, path, ["larger than 1,000 bytes"])


@pytest.mark.parametrize("version", ["1.0", "1.8"])
def test_any_minor_of_our_major_is_read_and_its_unknown_keys_ignored(version: str, tmp_path: Path) -> None:
    path = tmp_path / "sqlmesh_manifest.json"
    path.write_bytes(orjson.dumps({**orjson.loads(GOLDEN.read_bytes()), "v": version, "later": 1}))

    assert load_manifest(path) == _with_version(load_manifest(GOLDEN), version)


@pytest.mark.parametrize("schema", ["marts", None])
def test_a_models_names_go_by_sqlmeshs_words_as_well(valid: Manifest, schema: str | None) -> None:
    model = dataclasses.replace(valid.models[0], schema=schema, table="orders")

    assert (model.schema_name, model.view_name) == (schema or "", "orders")


def test_a_manifest_of_an_earlier_minor_is_read_with_what_it_lacks_left_empty(tmp_path: Path) -> None:
    value = orjson.loads(GOLDEN.read_bytes())
    del value["deployment"]
    for model in value["models"]:
        del model["end"], model["metadata_hash"]
        for column in model["columns"]:
            del column["sources"]
    path = tmp_path / "sqlmesh_manifest.json"
    path.write_bytes(orjson.dumps(value))

    manifest = load_manifest(path)

    assert manifest.deployment is None
    assert {(model.end, model.metadata_hash) for model in manifest.models} == {(None, None)}
    assert {column.sources for model in manifest.models for column in model.columns} == {()}


def test_a_manifest_takes_the_place_of_the_old_one_and_others_may_read_it(
    valid: Manifest, tmp_path: Path
) -> None:
    path = tmp_path / "sqlmesh_manifest.json"
    path.write_text("old")
    path.chmod(0o600)

    write_manifest(valid, path)

    assert path.read_bytes() == GOLDEN.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_reader_that_has_the_old_manifest_open_goes_on_reading_the_old_one(
    valid: Manifest, tmp_path: Path
) -> None:
    path = tmp_path / "sqlmesh_manifest.json"
    path.write_text("the old one")

    with path.open() as file:
        start = file.read(4)
        write_manifest(valid, path)
        rest = file.read()

    assert start + rest == "the old one"
    assert load_manifest(path) == valid


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "sqlmesh_manifest.json"
    path.write_text("old")
    return path


def _assert_untouched(old: Path) -> None:
    assert old.read_text() == "old"
    assert [item.name for item in old.parent.iterdir()] == [old.name]


def test_a_full_disk_leaves_the_old_manifest_and_nothing_else(valid: Manifest, old: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_manifest(valid, old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    _assert_untouched(old)


@pytest.mark.parametrize(("owner", "moment"), [(os, "fsync"), (Path, "replace")])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_crash_at_any_moment_of_writing_leaves_the_old_manifest_and_nothing_else(
    owner: object,
    moment: str,
    error: type[BaseException],
    valid: Manifest,
    old: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(owner, moment, crash)
        with pytest.raises(error):
            write_manifest(valid, old)

    _assert_untouched(old)


def test_a_manifest_that_is_no_json_leaves_the_old_one_and_nothing_else(valid: Manifest, old: Path) -> None:
    with pytest.raises(TypeError):
        write_manifest(dataclasses.replace(valid, engine=object()), old)

    _assert_untouched(old)


def test_a_directory_in_the_way_is_an_error_and_leaves_nothing_else(valid: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "sqlmesh_manifest.json"
    path.mkdir()

    with pytest.raises(OSError, match="directory"):
        write_manifest(valid, path)

    assert list(tmp_path.iterdir()) == [path]


def test_without_its_directory_a_manifest_is_not_written(valid: Manifest, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_manifest(valid, tmp_path / "nowhere" / "sqlmesh_manifest.json")

    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    (folder / "models").mkdir(parents=True)
    (folder / "config.yaml").write_text("gateways: {}")
    (folder / "models" / "orders.sql").write_text("SELECT 1 AS id")
    return folder


def _made_of(valid: Manifest, *projects: Path) -> Manifest:
    return dataclasses.replace(valid, digest=project_digest(projects))


def test_a_manifest_fits_the_files_that_it_was_made_of(valid: Manifest, project: Path) -> None:
    manifest = _made_of(valid, project)

    assert staleness(manifest, project / "m.json", [project]) is None
    assert staleness(manifest, project / "m.json", [project], "Warehouse") is None  # as SQLMesh reads it


@pytest.mark.parametrize("change", ["edited", "added", "gone"])
def test_a_manifest_is_stale_once_a_file_of_the_project_has_changed(
    change: str, valid: Manifest, project: Path
) -> None:
    manifest = _made_of(valid, project)
    if change == "edited":
        (project / "models" / "orders.sql").write_text("SELECT 2 AS id")
    elif change == "added":
        (project / "models" / "returns.sql").write_text("SELECT 1 AS id")
    else:
        (project / "models" / "orders.sql").unlink()
    path = project / "sqlmesh_manifest.json"

    assert staleness(manifest, path, [project]) == (
        f"The manifest {path} is stale: files of {project} have changed since 2026-01-07T06:30:00.000001Z. "
        f"Write it with: sqlmesh-runner manifest --project {project}"
    )


def test_a_manifest_of_several_projects_is_stale_for_some_of_them_or_in_another_order(
    valid: Manifest, project: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "config.yaml").write_text("project: shared")
    manifest = _made_of(valid, project, shared)
    path = project / "m.json"

    assert staleness(manifest, path, [project, shared]) is None
    assert staleness(manifest, path, [project]) is not None
    reason = staleness(manifest, path, [shared, project])
    assert reason is not None
    assert reason.endswith(f"manifest --project {shared} --project {project} --output {path}")


def test_a_manifest_of_another_gateway_is_stale(valid: Manifest, project: Path) -> None:
    manifest = _made_of(valid, project)
    path = project / "sqlmesh_manifest.json"

    assert staleness(manifest, path, [project], "ci") == (
        f"The manifest {path} is of the gateway 'warehouse', and 'ci' is asked for. "
        f"Write it with: sqlmesh-runner manifest --project {project} --gateway ci"
    )


def test_an_error_names_the_command_for_the_project_and_the_gateway_that_were_asked_for(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sqlmesh_manifest.json"

    with pytest.raises(ManifestError) as caught:
        load_manifest(path, [Path("my shop")], "ci")

    assert str(caught.value).endswith(
        f"Write it with: sqlmesh-runner manifest --project 'my shop' --gateway ci --output {path}"
    )


def test_a_process_that_loads_definitions_again_and_again_collects_its_garbage(monkeypatch):
    monkeypatch.setattr("sqlmesh_pipes_protocol.manifest._freezes", 0)
    try:
        frozen = []
        for _ in range(20):
            with collector_paused(for_life=True):
                kept = [[] for _ in range(100)]
            frozen.append(gc.get_freeze_count())
        assert len(kept) == 100
        assert frozen[0] > 0
        assert frozen[10:] == frozen[10:11] * 10
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("for_life", [False, True])
@pytest.mark.parametrize("was_enabled", [False, True])
def test_the_collector_rests_meanwhile_and_is_afterwards_as_it_was(was_enabled, for_life, monkeypatch):
    before = gc.isenabled()
    monkeypatch.setattr("sqlmesh_pipes_protocol.manifest._freezes", 0)
    try:
        (gc.enable if was_enabled else gc.disable)()
        frozen = gc.get_freeze_count()

        with pytest.raises(ValueError, match="in the middle"), collector_paused(for_life=for_life):
            raise ValueError("in the middle")
        assert (gc.isenabled(), gc.get_freeze_count()) == (was_enabled, frozen)
        with collector_paused(for_life=for_life):
            assert not gc.isenabled()

        assert gc.isenabled() is was_enabled
        assert (gc.get_freeze_count() > frozen) is (for_life and was_enabled)
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()
