"""Messages as objects in a store: none is lost or doubled, and what cannot be uploaded is told."""

import itertools
import json
import threading
import time

import pytest

from sqlmesh_pipes_runner.errors import EXIT_INFRASTRUCTURE, StoreError
from sqlmesh_pipes_runner.stores import STORES, store_of
from sqlmesh_pipes_runner.writer import ObjectChannel


class Bucket:
    """Takes objects, and fails as often as it is told to before it takes one."""

    def __init__(self, failures=(), pause: float = 0.0):
        self.objects = {}
        self.uploads = 0
        self._failures = iter(failures)
        self._pause = pause

    def upload(self, text, number):
        self.uploads += 1
        time.sleep(self._pause)
        failure = next(self._failures, None)
        if failure is not None:
            raise failure
        assert number not in self.objects
        self.objects[number] = text

    def payloads(self):
        assert sorted(self.objects) == list(range(1, len(self.objects) + 1))
        lines = [line for number in sorted(self.objects) for line in self.objects[number].split("\n")]
        return [json.loads(line)["params"] for line in lines]


def message(number):
    return {"__dagster_pipes_version": "0.1", "method": "report_custom_message", "params": number}


def channel(bucket, **settings):
    return ObjectChannel(bucket.upload, "s3://b/m", **{"interval": 0.05, **settings})


def test_the_first_message_is_there_when_it_is_written():
    bucket = Bucket()
    channel(bucket).write_message(message(0))

    assert bucket.payloads() == [0]


def test_a_store_that_does_not_take_the_first_message_is_told_at_once():
    bucket = Bucket([RuntimeError("Access to https://me:secret@host/b denied")])

    with pytest.raises(StoreError) as caught:
        channel(bucket).write_message(message(0))

    assert caught.value.exit_code == EXIT_INFRASTRUCTURE
    assert caught.value.found == (
        "Messages to Dagster cannot be written to s3://b/m: RuntimeError: Access to https://***@host/b denied."
    )


def test_messages_of_many_threads_arrive_all_each_thread_s_in_order():
    bucket = Bucket(pause=0.01)
    messages = channel(bucket)
    messages.write_message(message("opened"))

    def write(thread):
        for number in range(500):
            messages.write_message(message([thread, number]))

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    messages.close()

    sent = bucket.payloads()[1:]
    assert len(sent) == 2_000
    for thread in range(4):
        assert [number for other, number in sent if other == thread] == list(range(500))


def test_messages_are_on_their_way_within_the_interval_and_not_one_by_one():
    bucket = Bucket()
    messages = channel(bucket, interval=0.3)
    for number in range(100):
        messages.write_message(message(number))
    time.sleep(0.8)

    assert bucket.payloads() == list(range(100))
    assert bucket.uploads <= 4


def test_an_upload_that_fails_is_tried_again_and_nothing_is_lost():
    bucket = Bucket([None, OSError("reset"), RuntimeError("busy")])
    messages = channel(bucket)
    for number in range(10):
        messages.write_message(message(number))
    messages.close()

    assert bucket.payloads() == list(range(10))


def test_an_object_that_an_earlier_try_has_made_is_not_made_again():
    exists = type("ResourceExistsError", (Exception,), {})
    objects = {}

    def upload(text, number):
        if number in objects:
            raise exists("The blob exists.")
        objects[number] = text
        if number == 2:
            raise OSError("reset before the answer")

    messages = ObjectChannel(upload, "azure://b/m", interval=0.05)
    for number in range(3):
        messages.write_message(message(number))
        messages.drain()

    assert [json.loads(objects[number])["params"] for number in (1, 2, 3)] == [0, 1, 2]


def test_a_store_that_fails_for_good_is_told_to_who_writes_next():
    bucket = Bucket(itertools.chain([None], itertools.repeat(RuntimeError("no such bucket"))))
    messages = channel(bucket, patience=0.5)
    messages.write_message(message(0))
    messages.write_message(message(1))

    with pytest.raises(OSError, match=r"s3://b/m does not take them\. RuntimeError: no such bucket"):
        messages.drain()
    with pytest.raises(OSError, match="does not take them"):
        messages.write_message(message(2))
    with pytest.raises(OSError, match="does not take them"):
        messages.close()


def test_a_slow_store_holds_a_writer_up_when_memory_is_full_and_loses_nothing():
    bucket = Bucket(pause=0.05)
    messages = channel(bucket, capacity=1_000, interval=0.0)
    for number in range(100):
        messages.write_message(message(number))
    messages.close()

    assert bucket.payloads() == list(range(100))


def test_what_waits_is_uploaded_at_once_when_the_channel_is_closed():
    bucket = Bucket()
    messages = channel(bucket, interval=30)
    for number in range(3):
        messages.write_message(message(number))
        time.sleep(0.1)
    began = time.monotonic()
    messages.close()

    assert bucket.payloads() == [0, 1, 2]
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("params", "names", "store"),
    [
        ({"stdio": "stdout"}, ["s3"], None),
        ({"path": "/tmp/messages"}, ["s3"], None),
        ({"path": "/tmp/messages"}, [], None),
        ({"data": {}}, ["gcs"], None),
        ({"bucket": "b", "key": "k"}, ["s3"], "s3"),
        ({"bucket": "b", "key": "k"}, ["dbfs", "gcs"], "gcs"),
        ({"path": "/tmp/x"}, ["dbfs", "s3"], "dbfs"),
        ({"path": "/Volumes/x"}, ["volumes"], "volumes"),
    ],
)
def test_which_store_is_meant_follows_from_what_is_handed_over_and_what_is_said(params, names, store):
    found = store_of(params, names)

    assert (found.name if found else None) == store


@pytest.mark.parametrize("names", [[], ["dbfs"], ["s3", "gcs"]])
def test_a_bucket_is_of_one_store_that_is_named(names):
    with pytest.raises(StoreError, match="it is not said of which store"):
        store_of({"bucket": "b"}, names)


def test_the_stores_are_those_of_the_option():
    from sqlmesh_pipes_runner.cli import main

    (option,) = [option for option in main.commands["run"].params if option.name == "store_names"]
    assert list(option.type.choices) == list(STORES)


def test_a_reader_never_sees_half_of_an_object_in_a_folder(tmp_path):
    params = {"path": str(tmp_path)}
    store = store_of(params, ["volumes"])
    upload = store.uploader(store.message_writer(), params)
    over = threading.Event()
    torn = []

    def look():
        while not over.is_set():
            torn.extend(
                len(text) for file in tmp_path.glob("*.json") if len(text := file.read_text()) != 2_000_000
            )

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(50):
        upload("x" * 2_000_000, 1)
    over.set()
    thread.join()

    assert torn == []
    assert [file.name for file in tmp_path.iterdir()] == ["1.json"]
