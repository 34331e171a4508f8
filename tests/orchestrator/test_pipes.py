"""The reader of a runner's output survives whatever else stands there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_sqlmesh_pipes.pipes import RunnerOutputReader, parse_message

MESSAGE = b'{"__dagster_pipes_version":"0.1","method":"report_custom_message","params":{"payload":%d}}'


class Collector:
    """Stands where Pipes' handler stands."""

    def __init__(self):
        self.payloads = []

    def handle_message(self, message):
        self.payloads.append(message["params"]["payload"])


def read(pieces) -> list[int]:
    reader, collector = RunnerOutputReader(), Collector()
    with reader.read_messages(collector) as params:
        assert params == {"stdio": "stdout"}
        for piece in pieces:
            reader.feed(piece)
        reader.close()
    return collector.payloads


foreign = st.sampled_from(
    [b"", b"plain text", b"{broken", b'{"method": "opened"}', b"\xff\xfe\x00", b"[1]", b"x" * 70_000, b"\r"]
)


@given(st.lists(foreign | st.integers(0, 99)), st.randoms(use_true_random=False))
def test_messages_arrive_whatever_the_pieces_and_the_lines_between(lines, random):
    sent = [line for line in lines if isinstance(line, int)]
    content = b"".join((MESSAGE % line if isinstance(line, int) else line) + b"\n" for line in lines)
    cuts = sorted(random.randrange(len(content) + 1) for _ in range(20))
    pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]

    assert read(pieces) == sent


def test_a_torn_last_line_is_passed_on_and_not_taken_for_a_message(capsys):
    assert read([MESSAGE % 1 + b"\n" + (MESSAGE % 2)[:60]]) == [1]
    assert '"report_cus' in capsys.readouterr().out


def test_a_last_message_without_a_line_break_counts():
    assert read([MESSAGE % 1]) == [1]


@pytest.mark.parametrize(
    "line", [b"", b"text", b"{}", b"{", b"[]", b'{"method":"opened","params":{}}', b"null"]
)
def test_other_lines_are_no_messages(line):
    assert parse_message(line) is None
