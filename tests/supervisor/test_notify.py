"""What a service manager hears of ipsecd: sd_notify(3), here with a socket that stands in for systemd's."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.loop import Loop
from supervisor import notify


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(address)

    def heard(self) -> list[str]:
        """The datagrams since the last call."""
        datagrams = []
        while True:
            try:
                datagrams.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return datagrams

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (notify.SOCKET_VARIABLE, notify.WATCHDOG_VARIABLE, notify.WATCHDOG_PID_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    name = f"ipsecd-test-{os.getpid()}"
    bound, told = (f"{tmp_path}/notify",) * 2 if request.param == "path" else (f"\0{name}", f"@{name}")
    made = Manager(bound)
    monkeypatch.setenv(notify.SOCKET_VARIABLE, told)
    yield made
    made.close()


def test_each_event_is_one_datagram(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic_ns", lambda: 12_345_678_900)
    notify.ready()
    notify.reloading()
    notify.stopping()
    assert manager.heard() == ["READY=1", "RELOADING=1\nMONOTONIC_USEC=12345678", "STOPPING=1"]


def test_nobody_listens_and_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    notify.ready()
    assert caplog.messages == []


@pytest.mark.parametrize("address", ["relative", "vsock:2:1234", ""])
def test_an_address_of_another_kind_is_not_spoken_to(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(notify.SOCKET_VARIABLE, address)
    notify.ready()
    assert caplog.messages == []


def test_a_manager_that_is_gone_is_logged_and_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(notify.SOCKET_VARIABLE, f"{tmp_path}/nobody")
    notify.ready()
    assert caplog.messages == ["the service manager could not be told READY=1: No such file or directory"]


def test_a_manager_that_does_not_read_holds_nothing_up(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2000):
        notify.ready()
        if caplog.messages:
            break
    assert caplog.messages == ["the service manager could not be told READY=1: Resource temporarily unavailable"]
    assert set(manager.heard()) == {"READY=1"}


@pytest.mark.parametrize(
    ("usec", "pid", "expected_s"),
    [
        ("3000000", "", 3.0),
        ("3000000", "own", 3.0),
        ("3000000", "1", 0.0),
        ("", "", 0.0),
        ("0", "", 0.0),
        ("-5", "", 0.0),
        ("soon", "", 0.0),
        ("²", "", 0.0),
    ],
)
def test_the_watchdog_is_for_the_process_that_it_names(
    usec: str, pid: str, expected_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(notify.WATCHDOG_VARIABLE, usec)
    monkeypatch.setenv(notify.WATCHDOG_PID_VARIABLE, str(os.getpid()) if pid == "own" else pid)
    assert notify.watchdog_s() == expected_s


def test_the_watchdog_hears_from_the_loop_at_half_its_time(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setenv(notify.WATCHDOG_VARIABLE, "20000000")
    loop = Loop()
    notify.keep_watchdog(loop)
    assert manager.heard() == ["WATCHDOG=1"]
    for passed_s, expected in ((9.9, []), (0.1, ["WATCHDOG=1"]), (9.9, []), (0.1, ["WATCHDOG=1"])):
        now += passed_s
        loop.run_once(0.0)
        assert manager.heard() == expected


def test_without_a_watchdog_the_loop_has_no_timer(manager: Manager) -> None:
    loop = Loop()
    notify.keep_watchdog(loop)
    loop.run_once(0.0)
    assert manager.heard() == []
