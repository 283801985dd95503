"""Network namespaces to try things in: made, joined by veth pairs, and always removed.

Nothing here touches the network that the machine itself lives on: every command is told which namespace it is for, and
a namespace that turns out to be the initial one is refused.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

COMMAND_TIMEOUT_S = 60.0
_CLONE_NEWNET = 0x40000000
_NETNS_DIRECTORY = Path("/run/netns")
_INITIAL_INODE = Path("/proc/self/ns/net").stat().st_ino
_SERIAL = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class LabError(Exception):
    """The surroundings of a test could not be made, or did not do what they were told."""


def assert_not_initial_namespace(path: Path = Path("/proc/thread-self/ns/net")) -> None:
    """LabError if `path` is the network namespace that this program was started in: the machine's own."""
    if path.stat().st_ino == _INITIAL_INODE:
        raise LabError(f"{path} is the initial network namespace")


def run(
    command: Sequence[str], *, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S, cwd: str | None = None
) -> str:
    """Runs a command to its end and returns its output, stderr included; LabError where it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command)}: not finished after {timeout_s:g} s: {error.stdout!r}") from error
    if check and done.returncode:
        raise LabError(f"{' '.join(command)}: exit {done.returncode}: {done.stdout.strip()}")
    return done.stdout


class Namespace:
    """A network namespace of our own, from `with` to its end. Processes left in it are killed when it goes."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.name = f"ipsecd-{os.getpid()}-{next(_SERIAL)}-{label}"
        self.path = _NETNS_DIRECTORY / self.name
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        run(["ip", "netns", "add", self.name])
        try:
            assert_not_initial_namespace(self.path)
            self.ip("link", "set", "lo", "up")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __str__(self) -> str:
        return self.label

    def ip(self, *arguments: str, check: bool = True) -> str:
        """Runs `ip` on this namespace."""
        return run(["ip", "-n", self.name, *arguments], check=check)

    def command(self, *command: str) -> list[str]:
        """The command line that runs `command` in this namespace."""
        assert_not_initial_namespace(self.path)
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Runs `command` in this namespace to its end and returns what it printed."""
        return run(self.command(*command), check=check, timeout_s=timeout_s)

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Starts `command` in this namespace, its output in a pipe; it ends with the namespace at the latest."""
        process = subprocess.Popen(
            self.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def call(self, function: Callable[[], T]) -> T:
        """Calls `function` in a thread that is in this namespace: sockets that it makes stay in it."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter_and_call() -> None:
            try:
                with self.path.open("rb") as handle:
                    if _libc.setns(handle.fileno(), _CLONE_NEWNET) < 0:
                        raise OSError(ctypes.get_errno(), f"setns {self.name}")
                assert_not_initial_namespace()
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
                errors.append(error)

        thread = threading.Thread(target=enter_and_call)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def udp_socket(self, address: str, port: int) -> socket.socket:
        """A bound UDP socket in this namespace."""

        def bind() -> socket.socket:
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((address, port))
            return made

        return self.call(bind)

    def pids(self) -> list[int]:
        """The processes in this namespace."""
        return [int(word) for word in run(["ip", "netns", "pids", self.name], check=False).split() if word.isdigit()]

    def remove(self) -> None:
        """Kills what runs in it and removes it; harmless if it is gone."""
        for process in self._started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._started.clear()
        if not self.path.exists():
            return
        deadline = time.monotonic() + 5.0
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        run(["ip", "netns", "del", self.name], check=False)


def namespaces_of(pid: int) -> list[str]:
    """The namespaces that the program with this pid made and that are still there."""
    return [line for line in run(["ip", "netns", "list"]).splitlines() if line.startswith(f"ipsecd-{pid}-")]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a veth pair; addresses as "10.9.0.1/24"."""

    namespace: Namespace
    interface: str
    addresses: tuple[str, ...]


def join(one: End, other: End) -> None:
    """Joins two namespaces by a veth pair, both ends up and with their addresses."""
    one.namespace.ip(
        *("link", "add", one.interface, "type", "veth"),
        *("peer", "name", other.interface, "netns", other.namespace.name),
    )
    for number, end in enumerate((one, other), 1):
        # The kernel makes link-local addresses when it likes; fixed ones keep a namespace's state comparable.
        end.namespace.ip("link", "set", end.interface, "addrgenmode", "none")
        link_local = f"fe80::{number}/64"
        add_addresses(End(namespace=end.namespace, interface=end.interface, addresses=(*end.addresses, link_local)))
        end.namespace.ip("link", "set", end.interface, "up")


def add_addresses(end: End) -> None:
    """Gives an interface its addresses, usable at once."""
    for address in end.addresses:
        nodad = ["nodad"] if ":" in address else []
        end.namespace.ip("address", "add", address, "dev", end.interface, *nodad)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateways:
    """Two gateways on one wire, each with a net of its own behind it (on its loopback device).

    left:  10.9.0.1 and fd09::1 on the wire, 10.1.0.1/24 and fd01::1/64 behind
    right: 10.9.0.2 and fd09::2 on the wire, 10.2.0.1/24 and fd02::1/64 behind
    """

    left: Namespace
    right: Namespace


WIRE = "wire0"
"""The interface of either gateway on the wire."""


@contextlib.contextmanager
def gateways() -> Iterator[Gateways]:
    """Two gateways as `Gateways` says, with routes to each other's nets."""
    with Namespace("left") as left, Namespace("right") as right:
        join(
            End(namespace=left, interface=WIRE, addresses=("10.9.0.1/24", "fd09::1/64")),
            End(namespace=right, interface=WIRE, addresses=("10.9.0.2/24", "fd09::2/64")),
        )
        add_addresses(End(namespace=left, interface="lo", addresses=("10.1.0.1/24", "fd01::1/64")))
        add_addresses(End(namespace=right, interface="lo", addresses=("10.2.0.1/24", "fd02::1/64")))
        for namespace, net, peer, number in ((left, "10.2.0.0/24", "2", "1"), (right, "10.1.0.0/24", "1", "2")):
            namespace.ip("route", "add", net, "via", f"10.9.0.{peer}", "src", f"10.{number}.0.1")
            namespace.ip("-6", "route", "add", f"fd0{peer}::/64", "via", f"fd09::{peer}", "src", f"fd0{number}::1")
        yield Gateways(left=left, right=right)
