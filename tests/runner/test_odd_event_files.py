"""An event file is data: what cannot be one is refused in a sentence, and what stands in one is never taken for more than it is."""

import os

import pytest

from sqlmesh_pipes_runner.errors import UsageError
from sqlmesh_pipes_runner.reports import junit, markdown, read_story, table
from sqlmesh_pipes_runner.reports.story import objects_in

EVENT = b'{"kind":"log","v":"1.0","run_id":%b,"seq":%b,"at":"2026-01-31T06:30:00Z","level":"info","logger":"x","message":"m"}\n'


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["a FIFO", "endless"]
)
def test_what_has_no_end_is_no_event_file(make, tmp_path):
    make(tmp_path / "events")

    for run_id in (None, "run"):
        with pytest.raises(UsageError, match="is no regular file"):
            read_story(tmp_path / "events", run_id)


def test_a_folder_is_told_as_one(tmp_path):
    with pytest.raises(UsageError, match="Is a directory"):
        read_story(tmp_path)


@pytest.mark.parametrize(
    "run_id", [b"null", b"7", b"[" * 1_000 + b"]" * 1_000, b"{}"], ids=["null", "number", "deep", "object"]
)
def test_a_run_whose_name_is_none_is_left_aside(run_id, tmp_path):
    path = tmp_path / "events"
    path.write_bytes(EVENT % (b'"run"', b"0") + EVENT % (run_id, b"1"))

    assert read_story(path).run_id == "run"

    path.write_bytes(EVENT % (run_id, b"1"))
    with pytest.raises(UsageError, match="no events of a run"):
        read_story(path)


@pytest.mark.timeout(60)
def test_a_large_file_of_whatever_is_read_in_pieces(tmp_path):
    path = tmp_path / "events"
    with path.open("wb") as file:
        file.write(EVENT % (b'"run"', b"0"))
        file.truncate(300_000_000)  # one line without an end

    assert sum(1 for _ in objects_in(path)) == 1


def test_reports_are_made_of_whatever_numbers_there_are(tmp_path):
    path = tmp_path / "events"
    path.write_bytes(
        b"".join(
            EVENT % (b'"run"', seq)
            for seq in (b"0", b"9007199254740991", b"18446744073709551615", b"-1", b"1e400")
        )
    )
    story = read_story(path)

    for report in (table, junit, markdown):
        assert report(story)
