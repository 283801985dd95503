"""Log lines of a role go out together at the end of a round, and warnings at once."""

import logging
import os
from collections.abc import Iterator

import pytest

from ipc.round_log import WHOLE_BYTES, LineFormat, RoundLog


class Pipe:
    """A log into a pipe."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_NONBLOCK)
        self.handler = RoundLog(self.write_end)
        self.handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def say(self, level: int, text: str) -> None:
        self.handler.emit(logging.LogRecord("a", level, "", 0, "%s", (text,), None))

    def written(self) -> bytes:
        try:
            return os.read(self.read_end, 1 << 20)
        except BlockingIOError:
            return b""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.read_end)
    os.close(made.write_end)


def test_before_there_is_a_loop_each_line_goes_out(pipe: Pipe) -> None:
    pipe.say(logging.INFO, "starting")
    assert pipe.written() == b"INFO starting\n"


def test_lines_of_a_round_go_out_together(pipe: Pipe) -> None:
    pipe.handler.gather()
    pipe.say(logging.INFO, "one")
    pipe.say(logging.INFO, "two")
    assert pipe.written() == b""
    pipe.handler.flush()
    assert pipe.written() == b"INFO one\nINFO two\n"
    pipe.handler.flush()
    assert pipe.written() == b""


def test_a_warning_takes_along_what_came_before_it(pipe: Pipe) -> None:
    pipe.handler.gather()
    pipe.say(logging.INFO, "one")
    pipe.say(logging.WARNING, "two")
    assert pipe.written() == b"INFO one\nWARNING two\n"


def test_pieces_end_with_a_line_and_stay_whole_in_a_pipe(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[bytes] = []
    monkeypatch.setattr("ipc.round_log.os.write", lambda _descriptor, piece: pieces.append(piece))
    pipe.handler.gather()
    for number in range(1000):
        pipe.say(logging.INFO, f"line {number}")
    pipe.handler.flush()
    assert len(pieces) > 1
    assert all(len(piece) <= WHOLE_BYTES and piece.endswith(b"\n") for piece in pieces)
    assert b"".join(pieces).count(b"\n") == 1000


def test_a_full_pipe_stops_nobody(pipe: Pipe) -> None:
    while True:
        try:
            os.write(pipe.write_end, bytes(4096))
        except BlockingIOError:
            break
    pipe.say(logging.INFO, "lost")


def test_times_are_written_as_everywhere() -> None:
    ours, everywhere = (made("%(asctime)s %(message)s") for made in (LineFormat, logging.Formatter))
    for created in (1_700_000_000.0, 1_700_000_000.25, 1_700_000_001.9996, 1_600_000_000.5):
        record = logging.makeLogRecord({"msg": "x", "created": created, "msecs": (created - int(created)) * 1000})
        assert ours.format(record) == everywhere.format(record)
