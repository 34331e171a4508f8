"""Readers of Dagster's hand on every message, whole and once, whatever they do by themselves."""

import json
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster_aws.pipes import PipesS3ContextInjector, PipesS3MessageReader

from dagster_sqlmesh_pipes import LaunchError
from dagster_sqlmesh_pipes.readers import messages, store_arguments


def line(number) -> str:
    return json.dumps(
        {"__dagster_pipes_version": "0.1", "method": "report_custom_message", "params": {"payload": number}}
    )


CLOSED = json.dumps({"__dagster_pipes_version": "0.1", "method": "closed", "params": {}})


class Collector:
    """Stands where Pipes' handler stands."""

    def __init__(self):
        self.payloads = []
        self.received_closed_message = False
        self.errors = []

    def handle_message(self, message):
        if message["method"] == "closed":
            self.received_closed_message = True
        else:
            self.payloads.append(message["params"]["payload"])

    def report_pipes_framework_exception(self, origin, exc_info):
        self.errors.append(exc_info)


class StoreReader(dg.PipesBlobStoreMessageReader):
    """Of a store in memory; fails as often as it is told to."""

    def __init__(self, objects, failures=()):
        super().__init__(interval=10)
        self.objects = objects
        self._failures = list(failures)

    @contextmanager
    def get_params(self):
        yield {"bucket": "b"}

    def messages_are_readable(self, params):
        return True

    def download_messages_chunk(self, index, params):
        if self._failures:
            raise self._failures.pop(0)
        return self.objects.get(index)

    def no_messages_debug_text(self):
        return ""


def read(reader, *, write=lambda params: None):
    collector, told = Collector(), []
    with messages(reader, collector, told.append) as params:
        write(params)
    return collector, told


def test_all_objects_of_a_store_are_read_however_many_there_are():
    objects = {number: line(number) for number in range(1, 61)}
    objects[61] = CLOSED
    began = time.monotonic()

    collector, _ = read(StoreReader(objects))

    assert collector.payloads == list(range(1, 61))
    assert time.monotonic() - began < 10  # alone, the reader takes one a second, and stops after eleven


def test_a_reader_of_a_store_begins_at_its_first_object_again():
    reader = StoreReader({1: line(1), 2: CLOSED})

    assert [read(reader)[0].payloads for _ in range(2)] == [[1], [1]]
    assert "download_messages" not in vars(reader)


def test_a_store_that_is_away_for_a_moment_is_asked_again():
    reader = StoreReader({1: line(1), 2: CLOSED}, failures=[OSError("connection reset")] * 2)

    collector, told = read(reader)

    assert (collector.payloads, collector.errors) == ([1], [])
    assert told == ["Messages of the runner cannot be read at the moment: OSError: connection reset"]


def test_what_is_no_message_does_not_end_the_reading():
    foreign = ["42", '"text"', "[1]", "null", "{", "plain", '{"a": 1}', ""]
    reader = StoreReader({1: "\n".join([*foreign, line(1), *foreign]), 2: line(2), 3: CLOSED})

    collector, _ = read(reader)

    assert (collector.payloads, collector.errors) == ([1, 2], [])


@pytest.mark.parametrize("kind", ["file", "temporary file"])
def test_lines_that_a_file_has_half_of_are_read_when_they_are_whole(kind, tmp_path):
    reader = (
        dg.PipesFileMessageReader(str(tmp_path / "messages"))
        if kind == "file"
        else dg.PipesTempFileMessageReader()
    )

    def write(params):
        with Path(params["path"]).open("ab", buffering=0) as file:
            for number in range(200):
                text = line(number).encode() + b"\n"
                file.write(text[:30])
                if number % 20 == 0:
                    time.sleep(0.05)
                file.write(text[30:])

    # The stock reader's own thread ends at the first half.
    before, threading.excepthook = threading.excepthook, lambda args: None
    try:
        collector, _ = read(reader, write=write)
    finally:
        threading.excepthook = before

    assert collector.payloads == list(range(200))
    assert not (tmp_path / "messages").exists()


def test_a_runner_is_told_of_the_store_also_of_a_reader_that_is_derived():
    class Own(PipesS3MessageReader):
        pass

    reader = Own(bucket="b", client=None)

    assert store_arguments(reader, dg.PipesEnvContextInjector()) == ["--pipes", "s3"]
    assert store_arguments(None, PipesS3ContextInjector(bucket="b", client=None)) == ["--pipes", "s3"]
    assert store_arguments(dg.PipesTempFileMessageReader(), None) == []


def test_one_store_of_buckets_at_a_time():
    gcs = type("PipesGCSContextInjector", (), {})()

    with pytest.raises(LaunchError, match=r"of different stores \(gcs, s3\)"):
        store_arguments(PipesS3MessageReader(bucket="b", client=None), gcs)
