"""The status socket: a text of any length, to root only, and never a wait for a reader."""

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc import status_socket
from ipc.status_socket import NoStatus, status_socket_path


@pytest.fixture
def directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="ipsecd-") as made:
        (Path(made) / "links").mkdir()
        yield made


def answer_once(listener: socket.socket, text: str) -> threading.Thread:
    """Answers the next reader, in a thread."""

    def wait_and_say() -> None:
        listener.setblocking(True)
        reader = status_socket.accept(listener)
        if reader is not None:
            status_socket.say(reader, text)

    thread = threading.Thread(target=wait_and_say)
    thread.start()
    return thread


@pytest.mark.parametrize("length", [0, 2, 5_000_000])
@pytest.mark.root
def test_a_text_of_any_length_comes_through(directory: str, length: int) -> None:
    with status_socket.listen(directory) as listener:
        thread = answer_once(listener, "ü" * length)
        assert status_socket.ask(directory, 5.0) == "ü" * length
        thread.join()


@pytest.mark.root
def test_a_reader_that_takes_nothing_keeps_nobody_waiting(directory: str) -> None:
    with status_socket.listen(directory) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as reader:
        reader.connect(status_socket_path(directory))
        accepted = status_socket.accept(listener)
        assert accepted is not None
        start = time.monotonic()
        status_socket.say(accepted, "x" * 10_000_000)
        assert time.monotonic() - start < 10


def test_the_socket_is_for_root_alone(directory: str) -> None:
    with status_socket.listen(directory):
        assert os.stat(status_socket_path(directory)).st_mode & 0o777 == 0o600


def test_nobody_but_root_is_let_in(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_socket.struct, "unpack", lambda *_: (1, 1000, 1000))
    with status_socket.listen(directory) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as reader:
        reader.connect(status_socket_path(directory))
        assert status_socket.accept(listener) is None


def test_silence_ends_after_its_time(directory: str) -> None:
    with status_socket.listen(directory):
        start = time.monotonic()
        with pytest.raises(NoStatus):
            status_socket.ask(directory, 0.2)
        assert 0.15 < time.monotonic() - start < 10


def test_a_full_queue_is_an_answer_that_does_not_come(directory: str) -> None:
    with status_socket.listen(directory) as listener:
        readers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(status_socket.BACKLOG + 1)]
        for reader in readers:
            reader.connect(status_socket_path(directory))
        with pytest.raises(NoStatus):
            status_socket.ask(directory, 0.2)
        for reader in readers:
            reader.close()
        assert listener.fileno() >= 0


def test_where_there_is_nobody_there_is_no_status(directory: str) -> None:
    with pytest.raises(NoStatus):
        status_socket.ask(directory, 0.2)
