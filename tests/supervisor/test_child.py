"""A child process: started, dying, started again, ended."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from ipc.loop import Loop
from supervisor import child as child_module
from supervisor.child import Child
from supervisor.child_states import ChildState
from supervisor.role_table import ROLE_TABLE, RoleRow

WORKER = ROLE_TABLE[-1]


def sleeper(_row: RoleRow) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])


class Nursery:
    """One child, its loop, and its deaths."""

    def __init__(self, spawn: Callable[[RoleRow], "subprocess.Popen[bytes]"] = sleeper) -> None:
        self.loop = Loop()
        self.deaths: list[str] = []
        self.child = Child(WORKER, self.loop, spawn, lambda child: self.deaths.append(child.last_exit))

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not done():
            assert time.monotonic() < deadline
            self.loop.run_once(0.01)
            self.child.reap()

    def finish(self) -> None:
        self.child.stop()
        self.child.send_signal(signal.SIGKILL)
        self.until(lambda: not self.child.alive)


def test_a_child_is_up_when_its_own_process_says_hello() -> None:
    nursery = Nursery()
    nursery.child.start()
    assert nursery.child.state is ChildState.STARTING
    assert not nursery.child.said_hello(nursery.child.pid + 1)
    assert nursery.child.said_hello(nursery.child.pid)
    assert nursery.child.state is ChildState.UP
    assert not nursery.child.said_hello(nursery.child.pid)
    nursery.finish()
    assert nursery.child.state is ChildState.DOWN


def test_a_child_that_dies_is_started_again_at_once_the_first_time_and_waits_the_second() -> None:
    nursery = Nursery()
    nursery.child.start()
    first = nursery.child.pid
    nursery.child.send_signal(signal.SIGKILL)
    nursery.until(lambda: nursery.child.state is ChildState.STARTING and nursery.child.pid != first)
    assert nursery.deaths == ["killed by SIGKILL"]
    assert nursery.child.restarts == 1
    nursery.child.send_signal(signal.SIGKILL)
    nursery.until(lambda: len(nursery.deaths) == 2)
    nursery.loop.run_once(0.05)
    assert nursery.child.state is ChildState.WAITING
    nursery.finish()
    assert nursery.child.state is ChildState.DOWN


def test_a_child_that_is_killed_for_a_reason_says_the_reason() -> None:
    nursery = Nursery()
    nursery.child.start()
    nursery.child.said_hello(nursery.child.pid)
    nursery.child.kill("it does not answer")
    nursery.until(lambda: bool(nursery.deaths))
    assert nursery.deaths == ["killed by SIGKILL (it does not answer)"]
    nursery.finish()


def test_a_child_that_never_says_hello_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "HELLO_WITHIN_S", 0.05)
    nursery = Nursery()
    nursery.child.start()
    nursery.until(lambda: bool(nursery.deaths))
    assert nursery.deaths == ["killed by SIGKILL (no Hello within 0.05 s)"]
    nursery.finish()


def test_a_child_that_can_not_be_started_counts_as_dead() -> None:
    def fails(_row: RoleRow) -> "subprocess.Popen[bytes]":
        raise OSError("no memory")

    nursery = Nursery(fails)
    nursery.child.start()
    assert nursery.child.state is ChildState.WAITING
    assert nursery.deaths == ["could not be started: no memory"]
    nursery.child.stop()
    assert nursery.child.state is ChildState.DOWN


def test_a_stopped_child_is_not_started_again() -> None:
    nursery = Nursery()
    nursery.child.start()
    nursery.finish()
    for _ in range(5):
        nursery.loop.run_once(0.01)
    assert (nursery.child.state, nursery.child.pid, nursery.child.restarts) == (ChildState.DOWN, 0, 0)


def test_a_child_that_somebody_else_kills_is_not_at_fault() -> None:
    nursery = Nursery()
    nursery.child.start()
    nursery.child.send_signal(signal.SIGKILL)
    nursery.until(lambda: len(nursery.deaths) == 1)
    assert nursery.child.faults == 0
    nursery.finish()


def test_a_child_that_dies_five_times_at_its_start_is_failed_and_still_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child_module.Backoff, "next_delay_s", _impatient(child_module.Backoff.next_delay_s))
    nursery = Nursery(lambda _row: subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"]))
    nursery.child.start()
    nursery.until(lambda: len(nursery.deaths) == 5)
    assert (nursery.child.failed, nursery.child.faults) == (True, 5)
    nursery.until(lambda: len(nursery.deaths) == 6)
    assert nursery.deaths[-1] == "exit code 7"
    nursery.finish()


def _impatient(real: Callable[..., float]) -> Callable[..., float]:
    def next_delay_s(backoff: object, ran_s: float) -> float:
        return real(backoff, ran_s) / 1000

    return next_delay_s
