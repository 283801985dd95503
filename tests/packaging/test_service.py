"""ipsecd as its systemd unit runs it: in the foreground, with the unit's capabilities, heard by its manager."""

import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.instance import IPSECCTL, Instance, NetworkState, leftovers
from tests.lab.namespaces import Namespace
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.root

UNIT = Path(__file__).resolve().parents[2] / "packaging/systemd/ipsecd.service"
SPD = """\
[setup]
interfaces = ["lo"]
unmatched = "bypass"
ip_forward = "on"
"""
WATCHDOG_US = 400_000


def capabilities() -> list[str]:
    """What the unit leaves of root's capabilities, as setpriv(1) spells them."""
    lines = [line for line in UNIT.read_text().splitlines() if line.startswith("CapabilityBoundingSet=")]
    words = [word for line in lines for word in line.partition("=")[2].split()]
    return [word.removeprefix("CAP_").lower() for word in words]


class Manager:
    """Stands in for systemd: starts ipsecd with the capabilities of the unit, and hears what it says."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        self.heard: list[str] = []
        self._instance = instance
        self._address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._address)
        # At once: the kernel keeps ten datagrams only, and ipsecd does not wait for us.
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()
        self.ipsecd: subprocess.Popen[bytes] | None = None

    def start(self, spd: str = SPD) -> None:
        granted = ",".join(["-all", *(f"+{name}" for name in capabilities())])
        command = (
            *("setpriv", "--no-new-privs", "--bounding-set", granted),
            *("env", f"NOTIFY_SOCKET={self._address}", f"WATCHDOG_USEC={WATCHDOG_US}"),
            *(str(IPSECCTL.with_name("ipsecd")), "--instance", str(self._instance.directory)),
            *("-f", str(self._instance.write_spd(spd))),
        )
        self.ipsecd = subprocess.Popen(self._instance.namespace.command(*command), stdin=subprocess.DEVNULL)

    def hears(self, what: str) -> bool:
        """Whether `what` has come, behind all that this has said True to."""
        if what not in self.heard:
            return False
        del self.heard[: self.heard.index(what) + 1]
        return True

    def _listen(self) -> None:
        while said := self._socket.recv(4096):
            self.heard.append(said.decode().partition("\n")[0])

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"", self._address)
        self._listener.join()
        self._socket.close()
        if self.ipsecd is not None:
            self.ipsecd.kill()
            self.ipsecd.wait()


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Namespace("service") as namespace, Instance(namespace) as made:
        yield made


@pytest.fixture
def manager(instance: Instance, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(instance, tmp_path)
    yield made
    made.close()


def wait_for(manager: Manager, what: str) -> None:
    wait_until(f"the manager hears {what}", lambda: manager.hears(what))


def test_the_unit_grants_what_ipsecd_needs_and_hears_how_it_fares(instance: Instance, manager: Manager) -> None:
    before = NetworkState.of(instance.namespace)
    manager.start()
    wait_for(manager, "READY=1")
    status = instance.status()
    assert status["findings"] == []
    assert {role["state"] for role in status["roles"]} == {"up"}
    wait_for(manager, "WATCHDOG=1")
    instance.ctl("reload")
    wait_for(manager, "RELOADING=1")
    wait_for(manager, "READY=1")
    wait_for(manager, "WATCHDOG=1")
    assert manager.ipsecd is not None
    manager.ipsecd.send_signal(signal.SIGTERM)
    wait_for(manager, "STOPPING=1")
    assert manager.ipsecd.wait(timeout=60) == 0
    assert leftovers(instance, before) == []


def test_a_reload_that_is_refused_ends_for_the_manager_too(instance: Instance, manager: Manager) -> None:
    manager.start()
    wait_for(manager, "READY=1")
    instance.write_spd("[setup]\n")
    assert "not in force" in instance.ctl("reload", check=False)
    wait_for(manager, "RELOADING=1")
    wait_for(manager, "READY=1")


def test_a_start_that_fails_is_never_ready(instance: Instance, manager: Manager) -> None:
    manager.start('[setup]\ninterfaces = ["no-such0"]\nunmatched = "bypass"\n')
    assert manager.ipsecd is not None
    assert manager.ipsecd.wait(timeout=60) != 0
    assert not manager.hears("READY=1")
    assert manager.hears("STOPPING=1")
