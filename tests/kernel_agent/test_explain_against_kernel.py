"""Random policies, installed as the agent does it, and random packets, sent for real: the kernel agrees with `explain`.

Three hosts in a row: a net behind the gateway, the gateway under test, and the world. Everything is sent on one
processor, so a marker that is sent behind a batch arrives behind it: nothing here waits for packets that do not come.
"""

import contextlib
import errno
import ipaddress
import os
import random
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from ipc.loop import Loop
from ipc.types import Action, Direction, IpAddress
from kernel_agent import clean
from kernel_agent.data_path import Listener, SecurityPolicy
from kernel_agent.xfrm.xfrm_path import XfrmPath
from policy_loader import policy_file
from policy_loader.compile import Policy
from policy_loader.explain import ICMP, ICMPV6, UDP, Decision, Packet, Step, decide
from policy_loader.rule_ids import RuleIds
from tests.lab.namespaces import End, Namespace, add_addresses, join

pytestmark = pytest.mark.root

SEED = 20261122
POLICIES = 30
PACKETS = 24
"""Of each batch."""
TCP = 6
MARKER = 0x88B5
"""An EtherType for local experiments."""
ICMP_TYPES = {ICMP: (8, 13), ICMPV6: (128, 144)}
GATEWAY = ("10.1.0.1", "fd01::1", "10.9.0.1", "fd09::1")
INSIDE = ("10.1.0.2", "fd01::2")
WORLD = ("10.9.0.2", "fd09::2", "10.2.0.2", "10.2.1.2", "fd02::2")
TO_INSIDE = ("10.1.0.3", "fd01::3")
TO_WORLD = ("10.9.0.3", "fd09::3", "10.2.0.3", "10.2.1.3", "fd02::3")
"""Led to the hosts that have the addresses above, which have not these: they see the packets, and answer nothing."""
PREFIXES = ("10.1.0.0/24", "10.1.0.2/31", "10.9.0.0/24", "10.2.0.0/16", "10.2.0.0/24", "10.2.1.3/32", "10.2.1.2/32")
PREFIXES += ("fd01::/64", "fd02::/64", "fd09::/64", "0.0.0.0/0", "::/0")
PORTS = (7, 1000, 1001, 2000)
WRITTEN_PORTS = ('"7"', '"1000-1999"', '"1001-2000"', '[7, "1001-1999"]', '["1000-1000", 2000]')
WRITTEN_TYPES = ('"echo-request"', "144", "[13, 144]", '["8/0", 128, 13]')


# ------------------------------------------------------------- random policies and packets


def random_policy(chance: random.Random) -> Policy:
    unmatched = chance.choice(("bypass", "bypass", "discard"))
    text = f"""
[setup]
interfaces = ["wire0"]
unmatched = "{unmatched}"
[peers.other]
address = "192.0.2.2"
local_address = "192.0.2.1"
auth = "psk"
psk = "correct horse battery staple"
"""
    text += "".join(random_rule(chance, number) for number in range(chance.randint(1, 6)))
    return policy_file.read("random", text.encode(), 0o600, 0).compile({}, RuleIds()).policy


def random_rule(chance: random.Random, number: int) -> str:
    action = chance.choice(("protect", "bypass", "discard"))
    lines = [f'name = "rule{number}"', f'action = "{action}"']
    if action == "protect":
        lines.append('peer = "other"')
    v6 = chance.random() < 0.3
    for side in ("local", "remote"):
        if chance.random() < 0.7:
            family = [one for one in PREFIXES if (":" in one) is v6]
            lines.append(f'{side} = ["{chance.choice(family)}"]')
    protocol = chance.choice((None, '"tcp"', '"udp"', '["tcp", "udp"]', '["icmp", "icmpv6"]', '["icmpv6", "udp"]'))
    if protocol:
        lines.append(f"protocol = {protocol}")
    if protocol and "icmp" not in protocol:
        for side in ("local", "remote"):
            if chance.random() < 0.4:
                lines.append(f"{side}_port = {chance.choice(WRITTEN_PORTS)}")
    if protocol and "udp" not in protocol and "tcp" not in protocol and chance.random() < 0.5:
        lines.append(f"icmp_type = {chance.choice(WRITTEN_TYPES)}")
    return "[[rules]]\n" + "\n".join(lines) + "\n"


def random_packets(
    chance: random.Random, direction: Direction, sources: Sequence[str], destinations: Sequence[str]
) -> list[Packet]:
    """Packets that can be told from each other, and from the answers to them."""
    found: dict[bytes, Packet] = {}
    while len(found) < PACKETS:
        source = ipaddress.ip_address(chance.choice(sources))
        same_family = [one for one in destinations if (":" in one) is (source.version == 6)]
        destination = ipaddress.ip_address(chance.choice(same_family))
        icmp = ICMP if source.version == 4 else ICMPV6
        protocol = chance.choice((TCP, UDP, icmp))
        ports = (None, None) if protocol == icmp else (chance.choice(PORTS), chance.choice(PORTS))
        packet = Packet(
            direction=direction,
            source=source,
            destination=destination,
            protocol=protocol,
            source_port=ports[0],
            destination_port=ports[1],
            icmp_type=chance.choice(ICMP_TYPES[icmp]) if protocol == icmp else None,
        )
        found[key_of(packet)] = packet
    return list(found.values())


def key_of(packet: Packet) -> bytes:
    """What tells it on a wire: addresses, protocol, and the first four bytes behind the IP header (ICMP: two)."""
    if packet.icmp_type is not None:
        return _key(packet.source, packet.destination, packet.protocol or 0, bytes((packet.icmp_type, 0)))
    ports = struct.pack("!HH", packet.source_port, packet.destination_port)
    return _key(packet.source, packet.destination, packet.protocol or 0, ports)


def _key(source: IpAddress, destination: IpAddress, protocol: int, head: bytes) -> bytes:
    return source.packed + destination.packed + bytes((protocol,)) + head


def key_of_frame(data: bytes) -> bytes:
    """The same of an Ethernet frame; empty if it is none of ours."""
    ethertype, packet = int.from_bytes(data[12:14]), data[14:]
    if ethertype == 0x0800:
        protocol, addresses, body = packet[9], packet[12:20], packet[20:]
    elif ethertype == 0x86DD:
        protocol, addresses, body = packet[6], packet[8:40], packet[40:]
    else:
        return b""
    return addresses + bytes((protocol,)) + (body[:2] if protocol in ICMP_TYPES else body[:4])


# ------------------------------------------------------------- the hosts


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An AF_PACKET socket at one end of a wire: sends markers, and takes what comes in."""

    socket: socket.socket

    @classmethod
    def open(cls, namespace: Namespace, interface: str) -> "Port":
        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.setsockopt(socket.SOL_SOCKET, 33, 8 * 1024 * 1024)  # SO_RCVBUFFORCE
            made.bind((interface, 3))  # ETH_P_ALL
            made.settimeout(20.0)
            return made

        return cls(socket=namespace.call(make))

    def mark(self, number: int) -> None:
        self.socket.send(b"\xff" * 6 + bytes(6) + MARKER.to_bytes(2) + struct.pack("!Q", number) + bytes(46))

    def until_marked(self, number: int) -> set[bytes]:
        """The keys of all packets that came in before the marker."""
        keys = set()
        while True:
            data, address = self.socket.recvfrom(65536)
            if address[2] == socket.PACKET_OUTGOING:  # type: ignore[attr-defined]
                continue
            if int.from_bytes(data[12:14]) != MARKER:
                keys.add(key_of_frame(data))
            elif struct.unpack("!Q", data[14:22])[0] == number:
                return keys


@dataclass(slots=True, kw_only=True)
class Row:
    """The three hosts."""

    inside: Namespace
    gateway: Namespace
    world: Namespace
    ports: dict[str, Port]
    """inside, gateway-inside, gateway-world, world: who has it, and, of the gateway, whom it leads to."""
    path: XfrmPath
    loop: Loop
    acquired: list[int]
    """Rule ids of the ACQUIREs."""
    markers: int = 0

    def sync(self, near: str, far: str) -> set[bytes]:
        """What has come from `near` to `far`, now that all that was sent before has come."""
        self.markers += 1
        self.ports[near].mark(self.markers)
        return self.ports[far].until_marked(self.markers)

    def settle(self) -> None:
        """Waits until all answers to earlier packets have been dealt with, on all wires and both ways."""
        for _ in range(2):
            for near, far in (("inside", "gateway-inside"), ("gateway-world", "world")):
                self.sync(near, far)
                self.sync(far, near)
        self.acquires()

    def acquires(self) -> set[int]:
        """The rules that packets have asked SAs for since the last call."""
        found: set[int] = set()
        self.loop.run_once(0.0)
        while self.acquired:
            found |= set(self.acquired)
            self.acquired.clear()
            self.loop.run_once(0.0)
        self.gateway.ip("xfrm", "state", "flush")
        return found

    def counters(self) -> dict[str, int]:
        def read() -> str:
            with open("/proc/thread-self/net/xfrm_stat", encoding="ascii") as file:
                return file.read()

        return {line.split()[0]: int(line.split()[1]) for line in self.gateway.call(read).splitlines()}


@pytest.fixture(scope="module")
def row() -> Iterator[Row]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    with contextlib.ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, before)
        inside, gateway, world = (stack.enter_context(Namespace(name)) for name in ("inside", "gateway", "world"))
        _join(inside, gateway, world)
        loop, acquired = Loop(), list[int]()
        listener = Listener(
            on_acquire=lambda acquire: acquired.append(acquire.rule_id),
            on_expire=lambda _: None,
            on_peer_moved=lambda _: None,
        )
        path = gateway.call(lambda: XfrmPath(loop, drop_leftovers=clean.Removed))
        gateway.call(lambda: path.start(listener))
        stack.callback(path.leave)
        ports = {
            "inside": Port.open(inside, "lan0"),
            "gateway-inside": Port.open(gateway, "lan0"),
            "gateway-world": Port.open(gateway, "wire0"),
            "world": Port.open(world, "wire0"),
        }
        for port in ports.values():
            stack.callback(port.socket.close)
        hosts = {"inside": inside, "gateway": gateway, "world": world}
        yield Row(**hosts, ports=ports, path=path, loop=loop, acquired=acquired)


def _join(inside: Namespace, gateway: Namespace, world: Namespace) -> None:
    join(
        End(namespace=inside, interface="lan0", addresses=("10.1.0.2/24", "fd01::2/64")),
        End(namespace=gateway, interface="lan0", addresses=("10.1.0.1/24", "fd01::1/64")),
    )
    join(
        End(namespace=gateway, interface="wire0", addresses=("10.9.0.1/24", "fd09::1/64")),
        End(namespace=world, interface="wire0", addresses=("10.9.0.2/24", "fd09::2/64")),
    )
    others = ("10.2.0.2/32", "10.2.1.2/32", "fd02::2/128")
    add_addresses(End(namespace=world, interface="lo", addresses=others))
    for namespace, four, six in ((inside, "10.1.0.1", "fd01::1"), (world, "10.9.0.1", "fd09::1")):
        namespace.ip("route", "add", "default", "via", four)
        namespace.ip("-6", "route", "add", "default", "via", six)
    gateway.ip("route", "add", "10.2.0.0/16", "via", "10.9.0.2")
    gateway.ip("-6", "route", "add", "fd02::/64", "via", "fd09::2")
    forwarding = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
    gateway.run("sh", "-c", forwarding)
    neighbours = (
        (gateway, inside, "lan0", (*INSIDE, *TO_INSIDE)),
        (gateway, world, "wire0", ("10.9.0.2", "fd09::2", "10.9.0.3", "fd09::3")),
        (inside, gateway, "lan0", ("10.1.0.1", "fd01::1")),
        (world, gateway, "wire0", ("10.9.0.1", "fd09::1")),
    )
    for near, far, interface, addresses in neighbours:
        hardware = far.run("cat", f"/sys/class/net/{interface}/address").strip()
        for address in addresses:
            near.ip("neigh", "replace", address, "lladdr", hardware, "dev", interface, "nud", "permanent")


def send(packets: Iterable[Packet]) -> None:
    """Sends each packet from this thread's namespace."""
    for packet in packets:
        family = socket.AF_INET if packet.source.version == 4 else socket.AF_INET6
        kind = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}.get(packet.protocol or 0, socket.SOCK_RAW)
        destination = (str(packet.destination), packet.destination_port or 0)
        with socket.socket(family, kind, packet.protocol or 0) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setblocking(False)
            one.bind((str(packet.source), packet.source_port or 0))
            try:
                if kind == socket.SOCK_STREAM:
                    one.connect(destination)
                elif kind == socket.SOCK_DGRAM:
                    one.sendto(b"x", destination)
                else:
                    one.sendto(struct.pack("!BBHHH", packet.icmp_type, 0, 0, 1, 1), destination)
            except OSError as error:
                # The kernel says no, or that the connection takes time; what became of the packet is seen elsewhere.
                assert error.errno in (errno.EPERM, errno.EINPROGRESS, errno.EAGAIN), error


# ------------------------------------------------------------- the comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Packets with what `explain` says of them, and what the kernel has counted up to when they are sent."""

    decisions: dict[bytes, Decision]
    before: dict[str, int]

    @classmethod
    def of(cls, row: Row, policy: Policy, packets: Iterable[Packet]) -> "Batch":
        row.settle()
        return cls(decisions={key_of(one): decide(policy, one) for one in packets}, before=row.counters())

    def check(self, row: Row, policy: Policy, arrived: set[bytes]) -> None:
        """Just those that pass have arrived, the right rules want an SA, and what came in was refused as it should."""
        passing = {key for key, decision in self.decisions.items() if decision.action is Action.BYPASS}
        wrong = [self.decisions[key] for key in passing ^ (arrived & set(self.decisions))]
        assert not wrong, f"{len(wrong)} of {len(self.decisions)}, such as {wrong[0]}\n{policy}"
        # In clear a packet never gets past a step that protects.
        last = [_last_reached(decision) for decision in self.decisions.values()]
        inward = [step.action for step in last if step.direction is not Direction.OUT]
        if any(step.direction is Direction.IN for step in last):
            # Each is asked about twice: for the raw socket, and for its protocol, which answers some.
            inward *= 2
        else:
            leave = (step for step in last if step.direction is Direction.OUT and step.action is Action.PROTECT)
            assert row.acquires() == {step.rule.rule_id for step in leave if step.rule}
        assert self._refused(row) == {action: inward.count(action) for action in _COUNTERS}

    def _refused(self, row: Row) -> dict[Action, int]:
        after = row.counters()
        return {action: after[name] - self.before[name] for action, name in _COUNTERS.items()}


_COUNTERS = {Action.DISCARD: "XfrmInPolBlock", Action.PROTECT: "XfrmInTmplMismatch"}
"""What the kernel counts of packets that come in, forwarded or not, that are dropped, or should have come by an SA."""


def _last_reached(decision: Decision) -> Step:
    return next((step for step in decision.steps if step.action is not Action.BYPASS), decision.steps[-1])


def leaving(row: Row, policy: Policy, packets: list[Packet]) -> Batch:
    batch = Batch.of(row, policy, packets)
    row.gateway.call(lambda: send(packets))
    batch.check(row, policy, row.sync("gateway-world", "world"))
    return batch


def forwarded_out(row: Row, policy: Policy, packets: list[Packet]) -> Batch:
    batch = Batch.of(row, policy, packets)
    row.inside.call(lambda: send(packets))
    row.sync("inside", "gateway-inside")
    batch.check(row, policy, row.sync("gateway-world", "world"))
    return batch


def forwarded_in(row: Row, policy: Policy, packets: list[Packet]) -> Batch:
    batch = Batch.of(row, policy, packets)
    row.world.call(lambda: send(packets))
    row.sync("world", "gateway-world")
    batch.check(row, policy, row.sync("gateway-inside", "inside"))
    return batch


def coming_in(row: Row, policy: Policy, packets: list[Packet]) -> Batch:
    with contextlib.ExitStack() as stack:
        sockets = row.gateway.call(raw_sockets)
        for one in sockets:
            stack.callback(one.close)
        batch = Batch.of(row, policy, packets)
        for one in sockets:
            taken(one)
        row.world.call(lambda: send(packets))
        row.sync("world", "gateway-world")
        batch.check(row, policy, {key for one in sockets for key in taken(one)})
    return batch


def raw_sockets() -> list[socket.socket]:
    """They are given what the policy for packets that come in lets pass, whether or not there is a port."""
    made = [socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) for protocol in (TCP, UDP, ICMP)]
    made += [socket.socket(socket.AF_INET6, socket.SOCK_RAW, protocol) for protocol in (TCP, UDP, ICMPV6)]
    for one in made:
        one.setblocking(False)
        if one.family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    return made


def taken(one: socket.socket) -> set[bytes]:
    """The keys of all packets that a raw socket holds."""
    keys = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            data, ancillary, _, address = one.recvmsg(2048, 64)
            if one.family == socket.AF_INET:
                keys.add(key_of_frame(bytes(12) + b"\x08\x00" + data))
                continue
            source, destination = ipaddress.ip_address(address[0]), ipaddress.ip_address(ancillary[0][2][:16])
            keys.add(_key(source, destination, one.proto, data[:2] if one.proto == ICMPV6 else data[:4]))
    return keys


def test_explain_says_of_every_packet_what_the_kernel_does(row: Row) -> None:
    chance = random.Random(SEED)
    seen: set[tuple[Direction, Action]] = set()
    for number in range(POLICIES):
        policy = random_policy(chance)
        security = SecurityPolicy(
            generation=number + 1, interfaces=("wire0",), unmatched=policy.unmatched, rules=policy.kernel_rules
        )
        row.path.install_policy(security)
        for compare, direction, sources, destinations in (
            (leaving, Direction.OUT, GATEWAY, TO_WORLD),
            (forwarded_out, Direction.FORWARD, INSIDE, TO_WORLD),
            (forwarded_in, Direction.FORWARD, WORLD, TO_INSIDE),
            (coming_in, Direction.IN, WORLD, GATEWAY),
        ):
            batch = compare(row, policy, random_packets(chance, direction, sources, destinations))
            seen |= {(step.direction, step.action) for one in batch.decisions.values() for step in one.steps}
    assert len(seen) == len(Direction) * len(Action), f"not every direction had every action: {seen}"
