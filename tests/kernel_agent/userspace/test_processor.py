"""Packets through one or two processors, without sockets, on a fake clock."""

import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc import messages as m
from ipc.algorithms import AES128CBC, IntegrityId
from ipc.types import Action, Direction, IpAddress, Mode, PortRange, Unmatched
from kernel_agent.userspace import packet as ip
from kernel_agent.userspace.counters import CounterMemory
from kernel_agent.userspace.esp import sealer
from kernel_agent.userspace.processor import Drop, Processor
from kernel_agent.userspace.sad import LAST_SEQUENCE
from tests.kernel_agent.userspace.values import make_rule, make_sa, place, udp

LEFT_NETS = ("10.1.0.0/24", "fd01::/64")
RIGHT_NETS = ("10.2.0.0/24", "fd02::/64")


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeRoute:
    """Where a packet was sent."""

    source: IpAddress
    destination: IpAddress
    port: int
    tos: int


@dataclass(slots=True)
class Host:
    """A processor with all its surroundings."""

    descriptor: int
    now: float = 100.0
    delivered: list[bytes] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    routes: list[FakeRoute] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)
    path_mtu: int = 0
    device_up: bool = True
    processor: Processor = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """As after SIGKILL: only the counter memory is the same."""
        self.processor = Processor(
            device=self,
            outside=self,
            memory=CounterMemory(self.descriptor),
            notify=self.told.append,
            clock=lambda: self.now,
        )

    def write(self, packet: bytes) -> bool:
        self.delivered.append(packet)
        return self.device_up

    def route(self, *, source: IpAddress, destination: IpAddress, port: int, tos: int) -> FakeRoute:
        return FakeRoute(source=source, destination=destination, port=port, tos=tos)

    def send(self, route: FakeRoute, packets: list[bytes]) -> int:
        self.sent += packets
        self.routes += [route] * len(packets)
        overhead = 28 if route.port else 20
        return self.path_mtu if any(len(packet) + overhead > self.path_mtu for packet in packets) else 0

    def enforce(self, *rules: m.KernelRule) -> None:
        self.processor.begin_policy(m.BeginPolicy(generation=1, interfaces=(), unmatched=Unmatched.DISCARD))
        self.processor.add_policy(m.AddPolicy(generation=1, rules=rules))
        self.processor.commit_policy(m.CommitPolicy(generation=1, rules=len(rules)))

    def place(self, message: m.PlaceSa) -> None:
        answer = self.processor.place_sas(message)
        assert isinstance(answer, m.SaAdded), answer

    def take_sent(self) -> list[bytes]:
        taken, self.sent = self.sent, []
        return taken


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    made = [Host(os.memfd_create("counters")) for _ in range(2)]
    yield made
    for host in made:
        os.close(host.descriptor)


@pytest.fixture
def left(hosts: list[Host]) -> Host:
    hosts[0].enforce(make_rule())
    return hosts[0]


@pytest.fixture
def right(hosts: list[Host]) -> Host:
    hosts[1].enforce(make_rule(local=RIGHT_NETS, remote=LEFT_NETS))
    return hosts[1]


def out(**options: Any) -> m.Sa:
    return make_sa(**options)


def into(**options: Any) -> m.Sa:
    """The right side of `out`."""
    return make_sa(direction=Direction.IN, local=RIGHT_NETS, remote=LEFT_NETS, **options)


def ping(number: int = 0, **options: Any) -> bytes:
    return udp("10.1.0.1", "10.2.0.1", f"number {number}".encode(), **options)


def carry(left: Host, right: Host, packets: list[bytes], tos: int = 0, source: tuple[str, int] | None = None) -> None:
    left.processor.outbound(packets)
    right.processor.inbound(left.take_sent(), source, tos)


def test_packets_of_both_families_come_out_as_they_went_in(left: Host, right: Host) -> None:
    left.place(place(out(esn=True)))
    right.place(place(into(esn=True)))
    packets = [ping(), udp("fd01::1", "fd02::1", b"six"), ping(1)]
    carry(left, right, packets)
    assert sorted(right.delivered) == sorted(packets)
    assert right.processor.usage(
        m.QuerySa(request_id=1, sas=(m.SaName(spi=0x1000, destination=ipaddress.ip_address("10.9.0.2")),))
    ).usage[0].bytes == sum(map(len, packets))


def test_what_no_protect_rule_matches_goes_nowhere(left: Host) -> None:
    left.enforce(
        make_rule(1, position=0, action=Action.BYPASS, protocol=17, remote_port=PortRange(first=53, last=53)),
        make_rule(2, position=1, action=Action.DISCARD, protocol=17, remote_port=PortRange(first=54, last=54)),
        make_rule(3, position=2),
    )
    left.place(place(out(rule_id=3)))
    for port in (53, 54):
        left.processor.outbound([ping(ports=(1000, port))])
    left.processor.outbound([udp("10.3.0.1", "10.2.0.1", b""), b"", b"\x45", b"\x00" * 40])
    assert left.sent == []
    assert left.processor.drops == {Drop.NO_POLICY: 3, Drop.MALFORMED: 3}
    left.processor.outbound([ping()])
    assert len(left.sent) == 1


def test_the_first_packets_wait_for_the_sa(left: Host, right: Host) -> None:
    right.place(place(into()))
    packets = [ping(number) for number in range(40)]
    left.processor.outbound(packets)
    (acquire,) = left.told
    assert acquire.rule_id == 1
    assert acquire.acquire_id
    assert str(acquire.packet_local) == "10.1.0.1 proto 17 port 5000-5000"
    assert str(acquire.packet_remote) == "10.2.0.1 proto 17 port 6000-6000"
    left.now += 4.9
    left.processor.tick()
    left.place(place(out()))
    right.processor.inbound(left.take_sent(), None, 0)
    assert right.delivered == packets[:32]
    assert left.processor.drops[Drop.NO_SA] == 8


def test_acquires_come_once_a_second_and_waiting_ends(left: Host) -> None:
    for _ in range(25):
        left.processor.outbound([ping()])
        left.now += 0.1
    assert len(left.told) == 3
    assert len({acquire.acquire_id for acquire in left.told}) == 3
    left.now += 5.0
    left.processor.tick()
    assert left.processor.drops[Drop.WAITED] == 25
    left.place(place(out()))
    assert left.sent == []


def test_the_newest_sa_that_covers_the_packet_is_used(left: Host) -> None:
    left.place(place(out(spi=0x1001), slot=1))
    left.processor.outbound([ping()])
    left.place(place(out(spi=0x1002), slot=2))
    left.place(place(out(spi=0x1003, local=("10.1.0.9/32",)), slot=3))
    left.processor.outbound([ping()])
    left.processor.outbound([udp("10.1.0.9", "10.2.0.1", b"")])
    assert [packet[:4].hex() for packet in left.sent] == ["00001001", "00001002", "00001003"]
    name = m.SaName(spi=0x1002, destination=ipaddress.ip_address("10.9.0.2"))
    left.processor.delete_sas(m.DeleteSa(request_id=1, sas=(name, name)))
    left.processor.outbound([ping()])
    assert left.sent[-1][:4].hex() == "00001001"


def test_an_sa_that_is_placed_again_keeps_its_place_in_the_order(left: Host) -> None:
    left.place(place(out(spi=0x1001), slot=1))
    left.place(place(out(spi=0x1002), slot=2))
    left.place(place(out(spi=0x1001), slot=1, fresh=False))
    left.processor.outbound([ping()])
    assert left.sent[-1][:4].hex() == "00001002"


def test_numbers_go_on_after_a_kill(left: Host, right: Host) -> None:
    left.place(place(out()))
    right.place(place(into()))
    numbers = []
    for _ in range(5):
        left.processor.outbound([ping(number) for number in range(3)])
        sent = left.take_sent()
        numbers += [int.from_bytes(packet[4:8]) for packet in sent]
        right.processor.inbound(sent, None, 0)
        for host, sa in ((left, out()), (right, into())):
            host.restart()
            host.enforce(make_rule() if host is left else make_rule(local=RIGHT_NETS, remote=LEFT_NETS))
            host.place(place(sa, fresh=False))
        right.processor.inbound(sent, None, 0)
    assert numbers == list(range(1, 16))
    assert len(right.delivered) == 15
    assert right.processor.drops[Drop.REPLAYED] == 3


def test_numbers_are_stored_before_packets_are_sent(left: Host) -> None:
    left.place(place(out()))
    stored: list[int] = []
    send = left.send

    def look_and_send(route: FakeRoute, packets: list[bytes]) -> int:
        stored.append(CounterMemory(left.descriptor).slot(0).next_sequence)
        return send(route, packets)

    left.processor._outside = type("Outside", (), {"route": left.route, "send": staticmethod(look_and_send)})()
    left.processor.outbound([ping(number) for number in range(5)])
    assert stored == [6]


def test_fresh_never_starts_over_under_keys_that_the_slot_knows(left: Host) -> None:
    left.place(place(out()))
    left.processor.outbound([ping()])
    left.restart()
    left.enforce(make_rule())
    left.place(place(out(), fresh=True))
    left.processor.outbound([ping()])
    assert [int.from_bytes(packet[4:8]) for packet in left.sent] == [1, 2]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(place(out(spi=0x1001), slot=5, fresh=False), id="goes on in a slot that knows no such keys"),
        pytest.param(place(out(spi=0x1001), slot=65536), id="no such slot"),
        pytest.param(place(out(), slot=5), id="keys that count elsewhere"),
        pytest.param(place(out(spi=255), slot=5), id="reserved SPI"),
        pytest.param(place(out(spi=0x1001, direction=Direction.FORWARD), slot=5), id="forward"),
    ],
)
def test_refused_sas_change_nothing(left: Host, message: m.PlaceSa) -> None:
    left.place(place(out()))
    both = m.PlaceSa(request_id=9, sas=(*place(out(spi=0x1009), slot=9).sas, *message.sas))
    answer = left.processor.place_sas(both)
    assert isinstance(answer, m.SaRefused)
    assert answer.request_id == 9
    left.processor.outbound([ping()])
    assert left.sent[-1][:4].hex() == "00001000"


def test_replays_and_forgeries_are_dropped(left: Host, right: Host) -> None:
    left.place(place(out()))
    right.place(place(into()))
    left.processor.outbound([ping(number) for number in range(100)])
    sent = left.take_sent()
    forged = sent[99][:-1] + bytes([sent[99][-1] ^ 1])
    right.processor.inbound(
        [forged, sent[99], sent[99], sent[50], sent[0], b"", b"\0\0\x10", sent[1][:20], sent[1][:6]], None, 0
    )
    assert right.delivered == [ping(99), ping(50)]
    assert right.processor.drops == {Drop.NOT_AUTHENTIC: 1, Drop.REPLAYED: 3, Drop.UNKNOWN_SPI: 2, Drop.SHORT: 1}
    right.processor.inbound([b"\0\0\0\1" + bytes(60), b"\xff"], ("10.9.0.1", 4500), 0)
    assert right.processor.drops[Drop.UNKNOWN_SPI] == 3  # a keepalive is no packet


def test_what_is_inside_must_match_the_selectors(left: Host, right: Host) -> None:
    wide = ("0.0.0.0/0", "::/0")
    left.enforce(make_rule(local=wide, remote=wide))
    left.place(place(out(local=wide, remote=wide)))
    right.place(place(into()))
    good, wrong_source, wrong_destination = (
        ping(),
        udp("10.3.0.1", "10.2.0.1", b""),
        udp("10.1.0.1", "10.2.1.1", b""),
    )
    carry(left, right, [wrong_source, good, wrong_destination, good])
    assert right.delivered == [good, good]
    assert right.processor.drops == {Drop.SELECTORS: 2}


def test_a_dummy_packet_is_swallowed_and_a_strange_one_counted(left: Host, right: Host) -> None:
    left.place(place(out()))
    right.place(place(into()))
    seal = sealer(out())
    right.processor.inbound(
        [seal(1, b"whatever", 59), seal(2, ping(), 41), seal(3, b"", 4), seal(4, ping(), 17)], None, 0
    )
    assert right.delivered == []
    assert right.processor.drops == {Drop.PADDING: 3}


@pytest.mark.parametrize("ports", [None, (4500, 4500)])
def test_transport_mode_puts_the_header_back(left: Host, right: Host, ports: tuple[int, int] | None) -> None:
    hosts_only = {"local": ("10.9.0.1/32",), "remote": ("10.9.0.2/32",)}
    left.enforce(make_rule(mode=Mode.TRANSPORT, **hosts_only))
    left.place(place(make_sa(mode=Mode.TRANSPORT, ports=ports, **hosts_only)))
    there = {"local": ("10.9.0.2/32",), "remote": ("10.9.0.1/32",)}
    right.place(place(make_sa(direction=Direction.IN, mode=Mode.TRANSPORT, ports=ports, **there)))
    packet = udp("10.9.0.1", "10.9.0.2", b"odd", tos=0x20)
    left.processor.outbound([packet])
    assert left.routes[-1].tos == 0x20
    right.processor.inbound(left.take_sent(), ("10.9.0.1", 4500) if ports else None, 0x20)
    assert right.delivered == [packet]
    fragment = packet[:6] + b"\x20\x00" + packet[8:]
    left.processor.outbound([fragment])
    assert left.processor.drops == {Drop.FRAGMENT: 1}


def test_congestion_and_class_are_carried(left: Host, right: Host) -> None:
    left.place(place(out()))
    right.place(place(into()))
    packet = ping(tos=0xB9)
    left.processor.outbound([packet, ping()])
    assert [route.tos for route in left.routes] == [0xB9, 0]
    right.processor.inbound(left.take_sent(), None, 0xBB)
    assert [ip.traffic_class(one) for one in right.delivered] == [0xBB]
    assert right.processor.drops == {Drop.CONGESTION: 1}


def test_a_moved_peer_is_followed_and_told(left: Host, right: Host) -> None:
    left.place(place(out(ports=(4500, 4500))))
    back = {"spi": 0x2000, "source": "10.9.0.2", "destination": "10.9.0.1"}
    right.place(
        place(into(ports=(4500, 4500)), make_sa(local=RIGHT_NETS, remote=LEFT_NETS, ports=(4500, 4500), **back))
    )
    reply = udp("10.2.0.1", "10.1.0.1", b"reply")
    carry(left, right, [ping()], source=("10.9.0.1", 4500))
    right.processor.outbound([reply])
    left.processor.outbound([ping(1), ping(2), ping(3)])
    one, two, three = left.take_sent()
    right.processor.inbound([two], ("10.9.0.77", 1024), 0)
    right.processor.inbound([one], ("10.9.0.78", 1024), 0)  # older than what came from .77
    right.processor.inbound([three[:-1] + b"!"], ("10.9.0.79", 1024), 0)  # not authentic
    right.processor.outbound([reply])
    assert [(str(route.destination), route.port) for route in right.routes] == [("10.9.0.1", 4500), ("10.9.0.77", 1024)]
    (moved,) = right.told
    assert (moved.sa.spi, str(moved.source), moved.source_port) == (0x1000, "10.9.0.77", 1024)
    right.processor.inbound([three], ("10.9.0.80", 1025), 0)
    assert len(right.told) == 1
    right.now += 1.0
    right.processor.tick()
    assert [str(message.source) for message in right.told] == ["10.9.0.77", "10.9.0.80"]


def test_lifetimes(left: Host) -> None:
    left.place(place(out(soft_s=10.0, hard_s=20.0)))
    left.now += 9.9
    left.processor.tick()
    assert left.told == []
    left.now += 0.2
    left.processor.tick()
    left.processor.tick()
    name = m.SaName(spi=0x1000, destination=ipaddress.ip_address("10.9.0.2"))
    assert left.told == [m.Expire(sa=name, hard=False)]
    left.restart()  # lifetimes go on, too
    left.enforce(make_rule())
    left.place(place(out(soft_s=10.0, hard_s=20.0), fresh=False))
    left.now += 10.0
    left.processor.tick()
    assert left.told[-1] == m.Expire(sa=name, hard=True)
    left.processor.outbound([ping()])
    assert left.sent == []


def test_lifetimes_in_bytes_and_packets_count_each_direction(left: Host, right: Host) -> None:
    limits = {"soft_bytes": 3 * len(ping()), "hard_packets": 5}
    left.place(place(out(**limits)))
    right.place(place(into(**limits)))
    carry(left, right, [ping(), ping()])
    assert (left.told, right.told) == ([], [])
    carry(left, right, [ping()])
    carry(left, right, [ping()])
    soft, hard = (m.Expire(sa=m.SaName(spi=0x1000, destination=out().destination), hard=one) for one in (False, True))
    assert (left.told, right.told) == ([soft], [soft])
    carry(left, right, [ping()])
    carry(left, right, [ping()])
    assert (left.told[:2], right.told) == ([soft, hard], [soft, hard])
    assert len(right.delivered) == 5


def test_o26_with_fixed_keys_numbers_begin_anew_and_nobody_minds(left: Host, right: Host) -> None:
    options: dict[str, Any] = {"cipher": AES128CBC, "integrity": IntegrityId.HMAC_SHA2_256_128, "window": 0}
    left.place(place(out(**options)))
    right.place(place(into(**options)))
    CounterMemory(left.descriptor).slot(0).store_next_sequence(LAST_SEQUENCE)
    left.restart()
    left.enforce(make_rule())
    left.place(place(out(**options), fresh=False))
    packets = [ping(number) for number in range(3)]
    carry(left, right, packets)
    carry(left, right, packets[:1])
    left.restart()  # and of everything: its counters are lost
    left.enforce(make_rule())
    left.place(place(out(**options), slot=5))
    carry(left, right, packets)
    assert right.delivered == [*packets, packets[0], *packets]
    assert (left.told, right.told) == ([], [])


def test_numbers_never_wrap(left: Host) -> None:
    left.place(place(out()))
    left.restart()
    left.enforce(make_rule())
    CounterMemory(left.descriptor).slot(0).store_next_sequence(LAST_SEQUENCE - 1)
    left.place(place(out(), fresh=False))
    left.processor.outbound([ping(number) for number in range(4)] + [ping(tos=0xB8)])  # on two lanes
    assert [int.from_bytes(packet[4:8]) for packet in left.sent] == [LAST_SEQUENCE - 1, LAST_SEQUENCE]
    assert left.told == [m.Expire(sa=m.SaName(spi=0x1000, destination=ipaddress.ip_address("10.9.0.2")), hard=True)]
    assert left.processor.drops == {Drop.WORN: 3}


def test_most_numbers_spent_asks_for_a_rekey_once(left: Host) -> None:
    left.place(place(out()))
    left.restart()
    left.enforce(make_rule())
    CounterMemory(left.descriptor).slot(0).store_next_sequence(LAST_SEQUENCE // 10 * 9 + 100)
    left.place(place(out(), fresh=False))
    left.processor.outbound([ping()])
    left.processor.outbound([ping()])
    assert [message.hard for message in left.told] == [False]


@pytest.mark.parametrize("pair", [("10.1.0.1", "10.2.0.1"), ("fd01::1", "fd02::1")])
def test_a_long_packet_is_answered_once_the_path_is_known(left: Host, pair: tuple[str, str]) -> None:
    left.path_mtu = 1400
    left.place(place(out()))
    packet = udp(*pair, bytes(1372))
    left.processor.outbound([packet])
    assert (len(left.sent), left.delivered) == (1, [])  # the first one went, in fragments
    left.processor.outbound([packet])
    assert len(left.sent) == 1
    (error,) = left.delivered
    mtu = int.from_bytes(error[26:28] if error[0] >> 4 == 4 else error[44:48])
    left.processor.outbound([udp(*pair, bytes(mtu - (28 if error[0] >> 4 == 4 else 48)))])
    assert len(left.sent) == 2
    assert len(left.sent[-1]) + 20 <= 1400
    left.now += 601.0  # believed for ten minutes
    left.processor.outbound([packet])
    assert len(left.sent) == 3


def test_what_may_be_fragmented_is_never_answered(left: Host) -> None:
    left.path_mtu = 1400
    left.place(place(out()))
    packet = bytearray(ping() + bytes(1400))
    packet[6] = 0
    for _ in range(2):
        left.processor.outbound([bytes(packet)])
    assert (len(left.sent), left.delivered) == (2, [])


def test_a_device_that_is_down_is_counted(left: Host, right: Host) -> None:
    left.place(place(out()))
    right.place(place(into()))
    right.device_up = False
    carry(left, right, [ping()])
    assert right.processor.drops == {Drop.UNDELIVERED: 1}


def test_a_new_policy_is_in_force_for_known_flows_too(left: Host) -> None:
    left.place(place(out()))
    left.processor.outbound([ping()])
    left.enforce(make_rule(2, action=Action.DISCARD))
    left.processor.outbound([ping()])
    assert len(left.sent) == 1


@given(data=st.lists(st.binary(max_size=80), max_size=5), chosen=st.integers(0, 3))
def test_arbitrary_bytes_on_either_side_never_raise(data: list[bytes], chosen: int) -> None:
    host = Host(os.memfd_create("counters"))
    host.enforce(make_rule(local=("0.0.0.0/0", "::/0"), remote=("0.0.0.0/0", "::/0")))
    wide = {"local": ("0.0.0.0/0", "::/0"), "remote": ("0.0.0.0/0", "::/0")}
    mode = Mode(chosen & 1)
    host.place(
        place(make_sa(mode=mode, **wide), make_sa(spi=0x3000, mode=mode, direction=Direction.IN, esn=True, **wide))
    )
    host.processor.outbound(data)
    host.processor.outbound([bytes([0x45 if chosen & 2 else 0x60]) + packet for packet in data])
    host.processor.inbound(data, ("192.0.2.1", 1), 3)
    host.processor.inbound([(0x3000).to_bytes(4) + packet for packet in data], None, 3)
    # What is authentic and strange, too.
    seal = sealer(make_sa(spi=0x3000, mode=mode, esn=True))
    host.processor.inbound([seal(number, one, one[0] if one else 4) for number, one in enumerate(data, 1)], None, 3)
    os.close(host.descriptor)
