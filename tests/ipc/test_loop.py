"""Timers in order, bounded waits, and failures that end one callback only."""

import os
import time
from collections.abc import Iterator

import pytest
import zmq

from ipc import loop as loop_module
from ipc.loop import Loop


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock()
    monkeypatch.setattr(loop_module, "time", made)
    return made


def test_timers_are_called_in_the_order_of_their_time(clock: FakeClock) -> None:
    loop, called = Loop(), list[str]()
    loop.call_later(3.0, lambda: called.append("third"))
    loop.call_later(1.0, lambda: called.append("first"))
    loop.call_at(clock.now + 2.0, lambda: called.append("second"))
    loop.run_once(0.0)
    assert called == []
    clock.now += 2.0
    loop.run_once(0.0)
    assert called == ["first", "second"]
    clock.now += 1.0
    loop.run_once(0.0)
    assert called == ["first", "second", "third"]


def test_timers_of_the_same_time_are_called_as_they_were_set(clock: FakeClock) -> None:
    loop, called = Loop(), list[int]()
    for number in range(5):
        loop.call_at(clock.now, lambda number=number: called.append(number))
    loop.run_once(0.0)
    assert called == [0, 1, 2, 3, 4]


def test_a_timer_is_called_once_and_a_cancelled_one_never(clock: FakeClock) -> None:
    loop, called = Loop(), list[str]()
    loop.call_later(1.0, lambda: called.append("kept"))
    loop.call_later(1.0, lambda: called.append("cancelled")).cancel()
    clock.now += 5.0
    for _ in range(3):
        loop.run_once(0.0)
    assert called == ["kept"]


def test_cancelling_after_the_call_is_harmless(clock: FakeClock) -> None:
    loop, called = Loop(), list[str]()
    timer = loop.call_later(0.0, lambda: called.append("once"))
    loop.run_once(0.0)
    timer.cancel()
    assert called == ["once"]


def test_a_wait_ends_with_its_bound(pipe: tuple[int, int]) -> None:
    loop = Loop()
    loop.add_reader(pipe[0], lambda: None)
    start = time.monotonic()
    loop.run_once(0.05)
    assert 0.04 < time.monotonic() - start < 20.0


def test_a_wait_ends_with_the_next_timer(pipe: tuple[int, int]) -> None:
    loop, rounds = Loop(), list[str]()
    loop.add_reader(pipe[0], lambda: None)
    loop.before_wait(lambda: rounds.append("round"))
    loop.call_later(0.05, loop.stop)
    start = time.monotonic()
    loop.run()
    assert 0.04 < time.monotonic() - start < 20.0
    assert len(rounds) <= 4  # no spinning in the timer's last millisecond


def test_a_failing_callback_ends_itself_only(pipe: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    loop, called = Loop(), list[bytes]()
    reader, writer = pipe

    def fail() -> None:
        raise ValueError("as it must")

    loop.call_later(0.0, fail)
    loop.before_wait(fail)
    loop.add_reader(reader, lambda: called.append(os.read(reader, 10)))
    os.write(writer, b"x")
    loop.run_once(1.0)
    assert called == [b"x"]
    assert loop.failures == 2
    assert "as it must" in caplog.text


def test_stop_ends_run_without_another_wait(pipe: tuple[int, int]) -> None:
    loop, rounds = Loop(), list[str]()
    loop.before_wait(lambda: rounds.append("round"))
    loop.add_reader(pipe[0], lambda: None)
    loop.call_later(0.0, loop.stop)
    start = time.monotonic()
    loop.run()
    assert rounds == ["round"]
    assert time.monotonic() - start < 20.0


def test_a_reader_that_was_removed_is_called_no_more(pipe: tuple[int, int]) -> None:
    loop, called = Loop(), list[str]()
    reader, writer = pipe
    loop.add_reader(reader, lambda: called.append("read"))
    os.write(writer, b"x")
    loop.run_once(1.0)
    loop.remove_reader(reader)
    loop.remove_reader(reader)
    loop.run_once(0.0)
    assert called == ["read"]


def test_a_reader_removed_by_another_in_the_same_round_is_not_called() -> None:
    loop, called = Loop(), list[int]()
    pipes = [os.pipe() for _ in range(2)]

    def take(mine: int, others: int) -> None:
        called.append(mine)
        loop.remove_reader(others)

    (one, one_writer), (other, other_writer) = pipes
    loop.add_reader(one, lambda: take(one, other))
    loop.add_reader(other, lambda: take(other, one))
    for writer in (one_writer, other_writer):
        os.write(writer, b"x")
    loop.run_once(1.0)
    assert len(called) == 1
    for descriptor in (one, one_writer, other, other_writer):
        os.close(descriptor)


def test_zeromq_sockets_are_readers_too() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    loop, got = Loop(), list[bytes]()
    one, other = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    one.bind("inproc://loop")
    other.connect("inproc://loop")
    loop.add_reader(one, lambda: got.append(one.recv()))
    other.send(b"hello")
    loop.run_once(1.0)
    assert got == [b"hello"]
    context.destroy(linger=0)


def test_a_descriptor_that_was_closed_can_be_removed_and_its_number_used_again() -> None:
    loop, called = Loop(), list[bytes]()
    first, writer = os.pipe()
    loop.add_reader(first, lambda: called.append(b"the first one"))
    os.close(first)
    os.close(writer)
    loop.remove_reader(first)
    reader, writer = os.pipe()
    assert reader == first
    loop.add_reader(reader, lambda: called.append(os.read(reader, 10)))
    os.write(writer, b"x")
    loop.run_once(10.0)
    assert called == [b"x"]
    loop.remove_reader(reader)
    os.close(reader)
    os.close(writer)
