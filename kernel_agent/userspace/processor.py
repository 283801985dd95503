"""The packet loop: what happens to each packet between the TUN device and the outer sockets (RFC 4301 section 5).

Knows nothing of descriptors: `PacketDevice` and `Outside` are handed in, and the clock. Outbound: flow cache → lane
(one SA, one traffic class) → seal → send in runs. Inbound: SPI → window → open → window stored → selectors → deliver.
What can't be protected is dropped and counted; nothing leaves in clear.
"""

import collections
import enum
import ipaddress
import logging
import struct
from collections.abc import Callable
from typing import Any, Protocol

from ipc import messages as m
from ipc.types import Action, Direction, IpAddress, TrafficSelector
from kernel_agent.userspace import esp
from kernel_agent.userspace import packet as ip
from kernel_agent.userspace.counters import CounterMemory, Slot, SlotRefused
from kernel_agent.userspace.packet import FlowKey, PacketFields, flow_key, is_flow
from kernel_agent.userspace.replay import NoReplayWindow, ReplayWindow
from kernel_agent.userspace.sad import NO_LIMIT, Association, InboundSa, OutboundSa, Sad, sa_tag
from kernel_agent.userspace.spd import PolicyReader, Spd
from kernel_agent.userspace.waiting import WaitingRoom

log = logging.getLogger(__name__)

MAX_FLOWS = 16384
MAX_VERIFIED_FLOWS = 4096
"""Flows of an inbound SA of which it is known that the selectors cover them."""
MOVE_INTERVAL_S = 1.0
PATH_MTU_S = 600.0
"""How long a learned path MTU is believed (RFC 1191 section 6.3)."""
TICK_S = 0.5
"""How often `tick` wants to be called."""


class Drop(enum.Enum):
    """Why a packet went no further."""

    MALFORMED = "not an IP packet"
    NO_POLICY = "no protect rule"
    NO_SA = "no SA, and too many wait for one"
    WAITED = "waited too long for an SA"
    FRAGMENT = "a fragment, in transport mode"
    TOO_LONG = "longer than the path takes"
    WORN = "no sequence number left"
    UNSENT = "no way to send it"
    SHORT = "no whole ESP header"
    UNKNOWN_SPI = "no SA of this SPI"
    REPLAYED = "seen before, or too old"
    NOT_AUTHENTIC = "wrong ICV"
    PADDING = "bad padding or next header"
    SELECTORS = "outside the selectors of its SA"
    CONGESTION = "congestion marked, but not able to carry it"
    UNDELIVERED = "the device did not take it"


class PacketDevice(Protocol):
    """Where packets in clear come from and go to."""

    def write(self, packet: bytes) -> bool: ...


class Outside(Protocol):
    """Where ESP packets go to. A route is its own affair."""

    def route(self, *, source: IpAddress, destination: IpAddress, port: int, tos: int) -> Any: ...
    def send(self, route: Any, packets: list[bytes]) -> int: ...


class Lane:
    """Packets of one SA with one traffic class, which are sealed and sent together."""

    __slots__ = ("packets", "route", "sa")

    def __init__(self, sa: OutboundSa, route: object) -> None:
        self.sa = sa
        self.route = route
        self.packets: list[bytes] = []


class Processor:
    """The user-space ESP of one host."""

    def __init__(
        self,
        *,
        device: PacketDevice,
        outside: Outside,
        memory: CounterMemory,
        notify: Callable[[object], object],
        clock: Callable[[], float],
        first_acquire_id: int = 1,
    ) -> None:
        """`notify` gets Acquire, Expire and PeerMoved; `clock` gives monotonic seconds."""
        self.drops: collections.Counter[Drop] = collections.Counter()
        self._device = device
        self._outside = outside
        self._memory = memory
        self._notify = notify
        self._clock = clock
        self._sad = Sad()
        self._spd = Spd()
        self._reader = PolicyReader()
        self._flows: dict[FlowKey | None, Lane] = {}
        self._lanes: dict[tuple[OutboundSa, int], Lane] = {}
        self._waiting = WaitingRoom(first_acquire_id)

    # ------------------------------------------------------------- policy

    def begin_policy(self, message: m.BeginPolicy) -> None:
        """A policy begins; the present one stays in force until it is committed."""
        self._reader.begin(message)

    def add_policy(self, message: m.AddPolicy) -> None:
        """Some of its rules; PolicyRefused."""
        self._reader.add(message)

    def commit_policy(self, message: m.CommitPolicy) -> m.PolicyTaken:
        """It is whole and in force from now on; PolicyRefused. SAs whose rule is gone are the agent's to delete."""
        self._spd = self._reader.commit(message)
        self._forget_flows()
        self._drop(Drop.NO_POLICY, self._waiting.keep_rules(self._spd.rules.keys()))
        return m.PolicyTaken(generation=message.generation)

    # ------------------------------------------------------------- SAs

    def place_sas(self, message: m.PlaceSa) -> m.SaAdded | m.SaRefused:
        """Takes all of these SAs or none, then sends what has waited for them."""
        now = self._clock()
        try:
            associations = [self._association(placed, now) for placed in message.sas]
            if len({placed.slot for placed in message.sas}) != len(message.sas):
                raise SlotRefused("one slot for two SAs")
        except ValueError as error:
            return m.SaRefused(request_id=message.request_id, reason=str(error))
        for association in associations:
            if not association.slot.belongs_to(association.tag):
                association.slot.start(association.tag, now)
            self._sad.place(association)
        self._forget_flows()
        for rule_id in {placed.sa.rule_id for placed in message.sas if placed.sa.direction is Direction.OUT}:
            self.outbound(self._waiting.leave(rule_id))
        return m.SaAdded(request_id=message.request_id)

    def delete_sas(self, message: m.DeleteSa) -> m.SaDeleted:
        """Forgets these SAs."""
        for name in message.sas:
            association = self._sad.named(name)
            if association is not None:
                self._remove(association)
        return m.SaDeleted(request_id=message.request_id)

    def usage(self, message: m.QuerySa) -> m.SaUsage:
        """The traffic of those that there are."""
        now = self._clock()
        found = (self._sad.named(name) for name in message.sas)
        usage = tuple(
            m.Usage(sa=one.name, packets=one.packets, bytes=one.bytes, idle_s=max(0.0, now - one.last_used))
            for one in found
            if one is not None
        )
        return m.SaUsage(request_id=message.request_id, usage=usage)

    def tick(self) -> None:
        """What time brings: lifetimes, packets that waited too long, a peer's last move. Call it every TICK_S."""
        now = self._clock()
        self._drop(Drop.WAITED, self._waiting.expire(now))
        for association in self._sad.all():
            if now >= association.hard_at:
                self._expire_hard(association)
            elif now >= association.soft_at:
                association.soft_at = float("inf")
                self._notify(m.Expire(sa=association.name, hard=False))
            if isinstance(association, InboundSa) and association.move_untold:
                self._tell_move(association, now)

    # ------------------------------------------------------------- packets

    def outbound(self, packets: list[bytes]) -> None:
        """Protects packets that came from the device."""
        flows = self._flows
        active: list[Lane] = []
        for packet in packets:
            key = flow_key(packet)
            lane = flows.get(key)
            if lane is None:
                lane = self._find_lane(packet, key)
                if lane is None:
                    continue
            if not lane.packets:
                active.append(lane)
            lane.packets.append(packet)
        for lane in active:
            self._send(lane)

    def inbound(self, packets: list[bytes], source: tuple[str, int] | None, tos: int) -> None:
        """Opens ESP packets that came together; `source` is the UDP source, None for raw IP, `tos` the outer class."""
        runs: dict[bytes, list[bytes]] = {}
        for packet in packets:
            spi = packet[:4]
            if spi in runs:
                runs[spi].append(packet)
            else:
                runs[spi] = [packet]
        for spi, run in runs.items():
            sa = self._sad.inbound.get(spi)
            if sa is None:
                if spi != _KEEPALIVE:
                    self._drop(Drop.UNKNOWN_SPI, len(run))
                continue
            plaintexts = self._open(sa, run, source)
            if plaintexts:
                # Before anything is delivered: a packet that was delivered is refused for ever, killed or not.
                sa.store_window()
                self._deliver(sa, plaintexts, tos)

    def _open(self, sa: InboundSa, packets: list[bytes], source: tuple[str, int] | None) -> list[bytes]:
        """The plaintexts of packets of one SA, each marked as seen (RFC 4303 section 3.4)."""
        window, open_packet, esn = sa.window, sa.open, sa.sa.esn
        mark, header = window.mark, _HEADER
        plaintexts: list[bytes] = []
        for packet in packets:
            if len(packet) < esp.HEADER_BYTES:
                self._drop(Drop.SHORT)
                continue
            low = header(packet)[0]
            highest = window.highest
            ahead = low - (highest & 0xFFFFFFFF)
            if 0 < ahead < _NEAR:
                sequence = highest + ahead  # in order, as most are
            else:
                sequence = window.infer(low) if esn else low
                if not window.admits(sequence):
                    self._drop(Drop.REPLAYED)
                    continue
            plaintext = open_packet(packet, sequence)
            if plaintext is None:
                self._drop(Drop.NOT_AUTHENTIC)
                continue
            if source != sa.peer and source is not None and sequence > highest:
                self._peer_moved(sa, source)
            mark(sequence)
            plaintexts.append(plaintext)
        return plaintexts

    # ------------------------------------------------------------- outbound, step by step

    def _find_lane(self, packet: bytes, key: FlowKey | None) -> Lane | None:
        """The lane for a packet whose flow is not known; None if it was dropped or has to wait."""
        fields = ip.read_fields(packet)
        if fields is None:
            self._drop(Drop.MALFORMED)
            return None
        rule = self._spd.lookup(fields)
        if rule is None or rule.action is not Action.PROTECT:
            self._drop(Drop.NO_POLICY)
            return None
        sa = self._sad.newest(rule.rule_id, fields)
        if sa is None:
            self._wait(rule.rule_id, fields, packet)
            return None
        if not sa.tunnel and fields.fragment:
            self._drop(Drop.FRAGMENT)  # RFC 4303 section 3.3.4
            return None
        lane = self._lane(sa, ip.traffic_class(packet))
        if lane is not None and is_flow(packet, fields):
            if len(self._flows) >= MAX_FLOWS:
                self._flows.clear()
            self._flows[key] = lane
        return lane

    def _lane(self, sa: OutboundSa, tos: int) -> Lane | None:
        lane = self._lanes.get((sa, tos))
        if lane is None:
            try:
                route = self._outside.route(source=sa.sa.source, destination=sa.peer, port=sa.peer_port, tos=tos)
            except LookupError as error:
                log.debug("SA %08x: no socket %s", sa.sa.spi, error)
                self._drop(Drop.UNSENT)
                return None
            lane = self._lanes[sa, tos] = Lane(sa, route)
        return lane

    def _send(self, lane: Lane) -> None:
        """Seals and sends what is in the lane."""
        sa, packets = lane.sa, lane.packets
        lane.packets = []
        if len(max(packets, key=len)) > sa.largest_packet:
            packets = [packet for packet in packets if not self._answer_too_big(sa, packet)]
        first = sa.take_numbers(len(packets))  # stored as spent before anything is sent
        count = sa.next_sequence - first
        seal = sa.seal
        if sa.tunnel:
            sealed = [
                seal(sequence, packet, ip.IPIP if packet[0] < 0x50 else ip.IPV6_IN_IP)
                for sequence, packet in enumerate(packets[:count], first)
            ]
        else:
            sealed = [_seal_transport(sa, sequence, packet) for sequence, packet in enumerate(packets[:count], first)]
        self._drop(Drop.WORN, len(packets) - len(sealed))
        if sealed:
            sa.count(count, sum(map(len, packets[:count])), self._clock())
            mtu = self._outside.send(lane.route, sealed)
            if mtu:
                self._learn_mtu(sa, mtu)
            self._end_if_spent(sa)
        if sa.worn:
            self._wear(sa)

    def _answer_too_big(self, sa: OutboundSa, packet: bytes) -> bool:
        """Whether the packet is too long for the path and its sender has been told; else it goes in fragments."""
        if len(packet) <= sa.largest_packet:
            return False
        if self._clock() >= sa.path_mtu_until:
            sa.largest_packet = NO_LIMIT
            return False
        if ip.may_be_fragmented(packet) or (packet[0] >> 4 == 6 and len(packet) <= ip.IPV6_MINIMUM_MTU):
            return False
        mtu = sa.largest_packet if packet[0] >> 4 == 4 else max(sa.largest_packet, ip.IPV6_MINIMUM_MTU)
        error = ip.too_big(packet, mtu)
        if error is not None:
            self._device.write(error)
        self._drop(Drop.TOO_LONG)
        return True

    def _learn_mtu(self, sa: OutboundSa, mtu: int) -> None:
        outer = ip.IPV4_HEADER_BYTES if sa.peer.version == 4 else ip.IPV6_HEADER_BYTES
        if sa.peer_port:
            outer += ip.UDP_HEADER_BYTES
        largest = esp.largest_payload(sa.sa, mtu - outer)
        if not sa.tunnel:
            largest += ip.IPV4_HEADER_BYTES if sa.peer.version == 4 else ip.IPV6_HEADER_BYTES
        log.debug("SA %08x: path MTU %d, packets up to %d", sa.sa.spi, mtu, largest)
        sa.largest_packet = largest
        sa.path_mtu_until = self._clock() + PATH_MTU_S

    def _wear(self, sa: OutboundSa) -> None:
        """Sequence numbers come to their end: they must not wrap (RFC 4303 section 3.3.3)."""
        if sa.next_sequence > sa.last_sequence:
            self._expire_hard(sa)
        elif not sa.wear_told:
            sa.wear_told = True
            self._notify(m.Expire(sa=sa.name, hard=False))

    def _wait(self, rule_id: int, fields: PacketFields, packet: bytes) -> None:
        now = self._clock()
        if not self._waiting.enter(rule_id, packet, now):
            self._drop(Drop.NO_SA)
        acquire_id = self._waiting.acquire_id(rule_id, now)
        if acquire_id:
            self._notify(
                m.Acquire(
                    acquire_id=acquire_id,
                    rule_id=rule_id,
                    packet_local=_one_packet(fields, fields.source, fields.source_port),
                    packet_remote=_one_packet(fields, fields.destination, fields.destination_port),
                )
            )

    # ------------------------------------------------------------- inbound, step by step

    def _deliver(self, sa: InboundSa, plaintexts: list[bytes], tos: int) -> None:
        """Checks what is inside against the SA (RFC 4301 section 5.2) and hands it to the host."""
        write, verified = self._device.write, sa.verified
        congested = sa.tunnel and tos & ip.ECN_MASK == ip.ECN_CE
        packets = octets = 0
        for plaintext in plaintexts:
            packet = _inner_packet(sa, plaintext, tos)
            if packet is None:
                # RFC 4303 section 2.6: dummy packets of the peer's are dropped, and are no error.
                if plaintext[-1:] != _DUMMY:
                    self._drop(Drop.PADDING)
                continue
            if flow_key(packet) not in verified and not self._verify(sa, packet):
                self._drop(Drop.SELECTORS)
                continue
            if congested:
                marked = ip.with_congestion(packet)
                if marked is None:
                    self._drop(Drop.CONGESTION)
                    continue
                packet = marked
            if write(packet):
                packets += 1
                octets += len(packet)
            else:
                self._drop(Drop.UNDELIVERED)
        if packets:
            sa.count(packets, octets, self._clock())
            self._end_if_spent(sa)

    def _verify(self, sa: InboundSa, packet: bytes) -> bool:
        fields = ip.read_fields(packet)
        if fields is None or not sa.covers(fields):
            return False
        if is_flow(packet, fields):
            if len(sa.verified) >= MAX_VERIFIED_FLOWS:
                sa.verified.clear()
            sa.verified.add(flow_key(packet))
        return True

    def _peer_moved(self, sa: InboundSa, source: tuple[str, int]) -> None:
        """Authentic ESP, newer than all before, from elsewhere: answers go there (RFC 7296 section 2.23)."""
        if sa.peer is None:
            return
        old, sa.peer = sa.peer, source
        address = ipaddress.ip_address(source[0].partition("%")[0])
        for outbound in self._sad.outbound_of(sa.sa.rule_id):
            if (str(outbound.peer), outbound.peer_port) == old:
                outbound.peer, outbound.peer_port = address, source[1]
        self._forget_flows()
        sa.move_untold = True
        now = self._clock()
        if now - sa.moved_at >= MOVE_INTERVAL_S:
            self._tell_move(sa, now)

    def _tell_move(self, sa: InboundSa, now: float) -> None:
        if sa.peer is None:
            return
        sa.moved_at, sa.move_untold = now, False
        address = ipaddress.ip_address(sa.peer[0].partition("%")[0])
        self._notify(m.PeerMoved(sa=sa.name, source=address, source_port=sa.peer[1]))

    # ------------------------------------------------------------- SAs, step by step

    def _association(self, placed: m.PlacedSa, now: float) -> Association:
        """The SA, to be placed; ValueError with what is wrong about it. Nothing is changed yet."""
        sa, tag = placed.sa, sa_tag(placed.sa)
        if sa.direction not in (Direction.IN, Direction.OUT):
            raise SlotRefused("an SA is inbound or outbound")
        if not 256 <= sa.spi <= 0xFFFFFFFF:
            raise SlotRefused(f"SPI {sa.spi} is reserved (RFC 4303 section 2.1)")
        if sa.source.version != sa.destination.version:
            raise SlotRefused("addresses of two families")
        slot = self._memory.slot(placed.slot)
        present = self._sad.of_keys(tag)
        if present is not None and present.slot.index != placed.slot:
            raise SlotRefused(f"these keys count in slot {present.slot.index}, not {placed.slot}")
        if slot.belongs_to(tag):
            return _going_on(sa, tag, slot)
        if not placed.fresh:
            raise SlotRefused(f"slot {placed.slot} counts for other keys")
        # The keys are new here, or else the slot would be theirs: numbers may start at one.
        if sa.direction is Direction.OUT:
            return OutboundSa(sa, tag, slot, now, 1)
        return InboundSa(sa, tag, slot, now, _window(sa, 0, 0))

    def _end_if_spent(self, association: Association) -> None:
        """Lifetimes in packets and bytes."""
        if association.spent:
            self._expire_hard(association)
        elif association.spent_softly:
            self._notify(m.Expire(sa=association.name, hard=False))

    def _expire_hard(self, association: Association) -> None:
        if self._sad.in_slot(association.slot.index) is not association:
            return  # its last lane said so already
        self._remove(association)
        self._notify(m.Expire(sa=association.name, hard=True))

    def _remove(self, association: Association) -> None:
        self._sad.remove(association)
        self._forget_flows()

    def _forget_flows(self) -> None:
        self._flows.clear()
        self._lanes.clear()

    def _drop(self, reason: Drop, count: int = 1) -> None:
        if count:
            self.drops[reason] += count


_HEADER = struct.Struct("!4xI").unpack_from
_NEAR = 1 << 30
"""A number so little ahead of the highest one is in the same or the next subspace, whatever the window."""
_KEEPALIVE = b"\xff"  # RFC 3948 section 2.3
_DUMMY = bytes([ip.NO_NEXT_HEADER])


def _seal_transport(sa: OutboundSa, sequence: int, packet: bytes) -> bytes:
    header_bytes = ip.ip_header_bytes(packet)
    return sa.seal(sequence, packet[header_bytes:], packet[9] if packet[0] >> 4 == 4 else packet[6])


def _inner_packet(sa: InboundSa, plaintext: bytes, tos: int) -> bytes | None:
    """The IP packet that was sealed; None if padding or next header are wrong, or it is a dummy."""
    payload = esp.payload_of(plaintext)
    if not payload:
        return None
    next_header = plaintext[-1]
    if sa.tunnel:
        version = 4 if next_header == ip.IPIP else 6 if next_header == ip.IPV6_IN_IP else 0
        return payload if payload[0] >> 4 == version else None
    if next_header == ip.NO_NEXT_HEADER:
        return None
    source, destination = sa.sa.source, sa.sa.destination
    if sa.sa.encapsulation:
        payload = ip.with_checksum(source, destination, next_header, payload)
    header = ip.ip_header(
        source=source, destination=destination, protocol=next_header, payload_bytes=len(payload), tos=tos
    )
    return header + payload


def _one_packet(fields: PacketFields, address: int, port: int | None) -> TrafficSelector:
    kind = ipaddress.IPv4Address if fields.version == 4 else ipaddress.IPv6Address
    one = kind(address)
    first, last = (0, 65535) if port is None else (port, port)
    return TrafficSelector(
        protocol=fields.protocol, start_address=one, end_address=one, start_port=first, end_port=last
    )


def _going_on(sa: m.Sa, tag: bytes, slot: Slot) -> Association:
    """An SA that counts in `slot` already."""
    association: Association
    if sa.direction is Direction.OUT:
        association = OutboundSa(sa, tag, slot, slot.installed_at, slot.next_sequence)
    else:
        window = slot.window
        association = InboundSa(sa, tag, slot, slot.installed_at, _window(sa, window.highest, window.seen))
    traffic = slot.traffic
    association.packets, association.bytes = traffic.packets, traffic.bytes
    association.last_used = traffic.last_used
    return association


def _window(sa: m.Sa, highest: int, seen: int) -> ReplayWindow:
    kind = ReplayWindow if sa.replay_window_packets or sa.esn else NoReplayWindow
    return kind(sa.replay_window_packets, highest, seen)
