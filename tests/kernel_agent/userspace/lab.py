"""Real data paths in namespaces: the supervisor's and the agent's part of them, as small as can be."""

import contextlib
import ctypes
import fcntl
import functools
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import zmq

from ipc import messages as m
from ipc.algorithms import AES256GCM16, Cipher, IntegrityId
from ipc.channel import Channel, Gatekeeper
from ipc.links import AGENT_DATA_PATH, SUPERVISOR_DATA_PATH, socket_path
from ipc.loop import Loop
from ipc.ownership import OUTER_MARK, ROUTE_TABLE, RULE_PREFERENCE_FIRST
from ipc.process import DESCRIPTORS_VARIABLE
from ipc.roles import MODULES, Role
from ipc.types import Direction, Mode, Unmatched
from tests.kernel_agent.userspace import values
from tests.lab.namespaces import WIRE, End, LabError, Namespace, join

TUN = "ipsec0"
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_SO_ATTACH_REUSEPORT_CBPF = 51
_IPPROTO_ESP = 50

T = TypeVar("T")

LEFT_NETS = ("10.1.0.0/24", "fd01::/64")
RIGHT_NETS = ("10.2.0.0/24", "fd02::/64")


def open_descriptors(namespace: Namespace) -> dict[str, int]:
    """Everything that a supervisor hands to the data path, opened in the namespace; inheritable."""
    sockets: list[socket.socket] = []

    def open_all() -> dict[str, int]:
        found = {"tun": _open_tun()}
        for family, name in ((socket.AF_INET, "v4"), (socket.AF_INET6, "v6")):
            raw = socket.socket(family, socket.SOCK_RAW, _IPPROTO_ESP)
            ike, esp = _udp_4500(family)
            for one in (raw, ike, esp):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OUTER_MARK)
            sockets.extend((raw, ike, esp))
            found |= {f"esp-{name}": raw.detach(), f"udp4500-{name}": esp.detach(), f"ike-{name}": ike.detach()}
        return found

    found = namespace.call(open_all)
    found["counters"] = os.memfd_create("counters")
    for number in found.values():
        os.set_inheritable(number, True)
    return found


def _open_tun() -> int:
    number = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(number, _TUNSETIFF, struct.pack("16sH22x", TUN.encode(), _IFF_TUN | _IFF_NO_PI))
    return number


def _udp_4500(family: int) -> tuple[socket.socket, socket.socket]:
    """(IKE's, ESP's), told apart by the non-ESP marker."""
    ike, esp = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    for one in (ike, esp):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            one.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        one.bind(("", 4500))
    # ld word [0]; jeq 0: return 0; return 1
    program = [(0x20, 0, 0, 0), (0x15, 0, 1, 0), (0x06, 0, 0, 0), (0x06, 0, 0, 1)]
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    memory = ctypes.create_string_buffer(code)
    ike.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", len(program), ctypes.addressof(memory))
    )
    return ike, esp


class Side:
    """One host: its data path as a real process, and this test as its supervisor and its agent."""

    def __init__(self, namespace: Namespace, directory: Path, inner: tuple[str, ...], mtu: int) -> None:
        self.namespace = namespace
        self.directory = directory
        self.descriptors = open_descriptors(namespace)
        self.received: list[Any] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.loop = Loop()
        gatekeeper = Gatekeeper(self._context, self.loop)
        self._channels: list[Channel] = []
        for role, link in ((Role.SUPERVISOR, SUPERVISOR_DATA_PATH), (Role.KERNEL_AGENT, AGENT_DATA_PATH)):
            channel = Channel(
                context=self._context,
                loop=self.loop,
                gatekeeper=gatekeeper,
                link=link,
                role=role,
                run_directory=str(directory),
                handlers=dict.fromkeys(link.receivable(role), self._on_message),
            )
            os.chmod(socket_path(str(directory), link), 0o666)
            self._channels.append(channel)
        self._gatekeeper = gatekeeper
        namespace.ip("link", "set", TUN, "mtu", str(mtu), "up")
        for one in inner:
            namespace.ip("address", "add", one, "dev", TUN, *(["nodad"] if ":" in one else []))

    def start(self) -> None:
        """Starts the data path, which asks for the policy when it is ready."""
        environment = {
            **os.environ,
            DESCRIPTORS_VARIABLE: ",".join(f"{name}={number}" for name, number in self.descriptors.items()),
        }
        self.process = subprocess.Popen(
            self.namespace.command(
                *(sys.executable, "-m", MODULES[Role.DATA_PATH]),
                *("--instance", str(self.directory), "--supervisor", str(os.getpid())),
            ),
            env=environment,
            pass_fds=tuple(self.descriptors.values()),
            stdin=subprocess.DEVNULL,
        )
        self.wait(m.Hello)
        self.wait(m.NeedPolicy)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def tell(self, message: object) -> None:
        """As the agent."""
        self._channels[1].send(message)

    def give(self, rules: tuple[m.KernelRule, ...], sas: m.PlaceSa) -> None:
        """The policy and the SAs."""
        self.tell(m.BeginPolicy(generation=1, interfaces=(), unmatched=Unmatched.DISCARD))
        self.tell(m.AddPolicy(generation=1, rules=rules))
        self.tell(m.CommitPolicy(generation=1, rules=len(rules)))
        self.wait(m.PolicyTaken)
        if sas.sas:
            self.place(sas)

    def place(self, sas: m.PlaceSa) -> None:
        """SAs, and the data path must take them."""
        self.tell(sas)
        self.wait(m.SaAdded)

    def stop(self) -> m.Stopped:
        """Lets the data path finish."""
        self._channels[0].send(m.Stop(deadline_s=1.0))
        return self.wait(m.Stopped)

    def wait(self, kind: type[T], timeout_s: float = 30.0) -> T:
        """The first message of this kind that nobody has waited for. LabError if none comes."""
        deadline = time.monotonic() + timeout_s
        while True:
            for message in self.received:
                if isinstance(message, kind):
                    self.received.remove(message)
                    return message
            if time.monotonic() > deadline:
                raise LabError(f"{self.namespace}: no {kind.__name__}")
            self.loop.run_once(0.05)

    def close(self) -> None:
        """Kills the process and closes everything."""
        self.kill()
        for channel in self._channels:
            channel.close()
        self._gatekeeper.close()
        self._context.term()
        for number in self.descriptors.values():
            os.close(number)

    def _on_message(self, message: Any, _peer: bytes) -> None:
        self.received.append(message)


@contextlib.contextmanager
def side(namespace: Namespace, inner: tuple[str, ...], mtu: int = 1400) -> Iterator[Side]:
    """A host whose data path is not started yet, with a TUN device of these addresses."""
    directory = Path(tempfile.mkdtemp(prefix="ipsecd-test-"))
    made: Side | None = None
    try:
        directory.chmod(0o755)
        (directory / "links").mkdir(mode=0o755)
        made = Side(namespace, directory, inner, mtu)
        yield made
    finally:
        if made is not None:
            made.close()
        shutil.rmtree(directory)


def in_background(loop: Loop, running: Callable[[], bool]) -> None:
    """Goes round `loop` while something is running."""
    while running():
        loop.run_once(0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """Two hosts and what each of them is to enforce."""

    left: Side
    right: Side
    left_rules: tuple[m.KernelRule, ...]
    right_rules: tuple[m.KernelRule, ...]
    left_sas: m.PlaceSa
    right_sas: m.PlaceSa
    addresses: tuple[str, str]
    """On the wire, left and right."""

    def left_names(self) -> tuple[m.SaName, ...]:
        """The left side's SAs: in, out."""
        return tuple(m.SaName(spi=one.sa.spi, destination=one.sa.destination) for one in self.left_sas.sas)

    def start(self) -> None:
        """Both data paths, with policy and SAs."""
        for one, rules, sas in (
            (self.left, self.left_rules, self.left_sas),
            (self.right, self.right_rules, self.right_sas),
        ):
            one.start()
            one.give(rules, sas)


def lead_into_tun(namespace: Namespace, net: str) -> None:
    """Routes what goes to `net` into the TUN device, unless it has the mark of the outer sockets."""
    family = "-6" if ":" in net else "-4"
    namespace.ip(family, "route", "add", net, "dev", TUN, "table", str(ROUTE_TABLE))
    rule = ("to", net, "lookup", str(ROUTE_TABLE), "pref", str(RULE_PREFERENCE_FIRST))
    namespace.ip(family, "rule", "add", "fwmark", f"0/{OUTER_MARK:#x}", *rule)


def again(sas: m.PlaceSa) -> m.PlaceSa:
    """The same SAs after a restart: they go on."""
    return values.place(*(placed.sa for placed in sas.sas), slot=sas.sas[0].slot, fresh=False)


@contextlib.contextmanager
def tunnel(
    *,
    outer: int = 4,
    encapsulated: bool = False,
    cipher: Cipher = AES256GCM16,
    integrity: IntegrityId = IntegrityId.NONE,
    mode: Mode = Mode.TUNNEL,
) -> Iterator[Tunnel]:
    """Over the wire from 10.9.0.1 or fd09::1, left, to 10.9.0.2 or fd09::2, right.

    In tunnel mode for the nets 10.1.0.0/24 and fd01::/64, 10.2.0.0/24 and fd02::/64 behind them, in transport mode for
    just these addresses.
    """
    addresses = ("10.9.0.1", "10.9.0.2") if outer == 4 else ("fd09::1", "fd09::2")
    left_nets: tuple[str, ...] = LEFT_NETS
    right_nets: tuple[str, ...] = RIGHT_NETS
    if mode is Mode.TRANSPORT:
        length = 32 if outer == 4 else 128
        left_nets, right_nets = (f"{addresses[0]}/{length}",), (f"{addresses[1]}/{length}",)
    make = functools.partial(
        values.make_sa,
        ports=(4500, 4500) if encapsulated else None,
        esn=True,
        window=1024,
        cipher=cipher,
        integrity=integrity,
        mode=mode,
    )
    sas = {}
    for name, own, peer, local, remote, spis in (
        ("left", addresses[0], addresses[1], left_nets, right_nets, (0x1001, 0x2001)),
        ("right", addresses[1], addresses[0], right_nets, left_nets, (0x2001, 0x1001)),
    ):
        sas[name] = values.place(
            make(direction=Direction.IN, spi=spis[0], source=peer, destination=own, local=local, remote=remote),
            make(direction=Direction.OUT, spi=spis[1], source=own, destination=peer, local=local, remote=remote),
            slot=7,
        )
    with Namespace("left") as left, Namespace("right") as right:
        join(
            End(namespace=left, interface=WIRE, addresses=("10.9.0.1/24", "fd09::1/64")),
            End(namespace=right, interface=WIRE, addresses=("10.9.0.2/24", "fd09::2/64")),
        )
        with (
            side(left, ("10.1.0.1/24", "fd01::1/64")) as one,
            side(right, ("10.2.0.1/24", "fd02::1/64")) as other,
        ):
            for namespace, nets in ((left, right_nets), (right, left_nets)):
                for net in nets:
                    lead_into_tun(namespace, net)
            yield Tunnel(
                left=one,
                right=other,
                left_rules=(values.make_rule(local=left_nets, remote=right_nets, mode=mode),),
                right_rules=(values.make_rule(local=right_nets, remote=left_nets, mode=mode),),
                left_sas=sas["left"],
                right_sas=sas["right"],
                addresses=addresses,
            )
