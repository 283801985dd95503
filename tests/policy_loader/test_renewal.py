"""Files that age are asked for again, all of the policy in force and no others."""

import itertools
from collections.abc import Callable

import pytest

from ipc.loop import Timer
from ipc.types import Secret
from policy_loader.credentials.files import FetchedFile
from policy_loader.credentials.revocation import Status, StatusFile
from policy_loader.renewal import RENEWAL_S, Renewal


class World:
    def __init__(self) -> None:
        self.timers: list[Timer] = []
        self.asked: list[tuple[int, str]] = []
        self.read: list[bytes] = []
        ask = lambda request_id, path: self.asked.append((request_id, path))  # noqa: E731
        self.renewal = Renewal(self.call_later, ask, itertools.count(100))

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        assert delay_s == RENEWAL_S
        self.timers.append(Timer(delay_s, callback))
        return self.timers[-1]

    def file(self, path: str) -> StatusFile:
        def read(fetched: FetchedFile) -> Status:
            if not fetched.content:
                raise ValueError("it is empty")
            self.read.append(fetched.content.reveal())
            return Status()

        return StatusFile(path, read, Status())

    def expire(self) -> None:
        """The time of every timer that stands has come."""
        timers, self.timers = self.timers, []
        for timer in timers:
            if timer.callback is not None:
                timer.callback()


def fetched(content: bytes) -> FetchedFile:
    return FetchedFile(content=Secret(content), mode=0o600, uid=0)


def test_files_are_read_again_and_again() -> None:
    world = World()
    world.renewal.watch((world.file("/a"), world.file("/b")))
    assert world.asked == []
    for round_ in range(2):
        world.expire()
        assert world.asked == [(100 + 2 * round_, "/a"), (101 + 2 * round_, "/b")]
        assert all(world.renewal.take(request_id, fetched(path.encode())) for request_id, path in world.asked)
        assert world.read == [b"/a", b"/b"] * (round_ + 1)
        world.asked.clear()


def test_an_answer_to_somebody_else_or_to_nobody_any_more_is_left_alone() -> None:
    world = World()
    world.renewal.watch((world.file("/a"),))
    world.expire()
    assert not world.renewal.take(7, fetched(b"x"))
    world.renewal.watch((world.file("/b"),))
    assert not world.renewal.take(100, fetched(b"x"))
    world.expire()
    assert world.asked == [(100, "/a"), (101, "/b")]


def test_without_such_files_there_is_no_timer() -> None:
    world = World()
    world.renewal.watch(())
    assert world.timers == []
    world.renewal.watch((world.file("/a"),))
    world.renewal.watch(())
    world.expire()
    assert world.asked == []


def test_a_bad_file_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.renewal.watch((world.file("/a"),))
    world.expire()
    assert world.renewal.take(100, fetched(b""))
    assert "/a can't be read again, what it said before holds: it is empty" in caplog.text
