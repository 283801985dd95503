"""The Security Association Database of the data path (RFC 4301 section 4.4.2). Pure: counters are handed in as slots.

SAs are mutable on purpose: they are the state that every packet changes.
"""

import hashlib
from typing import Protocol

from ipc.messages import Sa, SaName
from ipc.types import Direction, IpAddress, Mode, TrafficSelector
from kernel_agent.userspace import esp
from kernel_agent.userspace.packet import FlowKey, PacketFields
from kernel_agent.userspace.replay import ReplayWindow
from kernel_agent.xfrm.messages import may_wrap

LAST_SEQUENCE = (1 << 32) - 1
LAST_SEQUENCE_ESN = (1 << 64) - 2
"""One less than there is, so that the next number always fits 64 bits."""
SOFT_SHARE = 0.9
"""Share of its sequence numbers after which an SA is to be rekeyed."""
NO_LIMIT = 1 << 17
"""Longer than any packet."""


class Slot(Protocol):
    """What an SA needs of its counters (`counters.Slot`)."""

    index: int

    def belongs_to(self, tag: bytes) -> bool: ...
    def start(self, tag: bytes, now: float) -> None: ...
    def store_next_sequence(self, number: int) -> None: ...
    def store_traffic(self, packets: int, octets: int, last_used: float) -> None: ...
    def store_window(self, highest: int, seen: int) -> None: ...


class _Range:
    """A traffic selector in numbers."""

    __slots__ = ("_any_port", "_first", "_first_port", "_last", "_last_port", "_protocol", "_version")

    def __init__(self, selector: TrafficSelector) -> None:
        self._version = selector.start_address.version
        self._first, self._last = int(selector.start_address), int(selector.end_address)
        self._protocol = selector.protocol
        self._first_port, self._last_port = selector.start_port, selector.end_port
        self._any_port = (selector.start_port, selector.end_port) == (0, 65535)

    def covers(self, version: int, address: int, protocol: int, port: int | None) -> bool:
        return (
            version == self._version
            and self._first <= address <= self._last
            and self._protocol in (0, protocol)
            and (self._any_port or (port is not None and self._first_port <= port <= self._last_port))
        )


class Association:
    """What both directions have."""

    __slots__ = (
        "_local",
        "_remote",
        "bytes",
        "hard_at",
        "hard_bytes",
        "hard_packets",
        "installed_at",
        "last_used",
        "name",
        "packets",
        "sa",
        "slot",
        "soft_at",
        "soft_bytes",
        "soft_packets",
        "tag",
        "tunnel",
    )

    def __init__(self, sa: Sa, tag: bytes, slot: Slot, installed_at: float) -> None:
        self.sa = sa
        self.name = SaName(spi=sa.spi, destination=sa.destination)
        """As messages name it."""
        self.tag = tag
        """Of its keys (`sa_tag`)."""
        self.tunnel = sa.mode is Mode.TUNNEL
        self.slot = slot
        self.installed_at = self.last_used = installed_at
        self.packets = self.bytes = 0
        never = float("inf")
        self.soft_packets = sa.soft_lifetime_packets or never
        self.hard_packets = sa.hard_lifetime_packets or never
        self.soft_bytes = sa.soft_lifetime_bytes or never
        self.hard_bytes = sa.hard_lifetime_bytes or never
        self.soft_at = installed_at + sa.soft_lifetime_s if sa.soft_lifetime_s else never
        self.hard_at = installed_at + sa.hard_lifetime_s if sa.hard_lifetime_s else never
        self._local = [_Range(selector) for selector in sa.local]
        self._remote = [_Range(selector) for selector in sa.remote]

    def count(self, packets: int, octets: int, now: float) -> None:
        """Adds traffic, in the slot too."""
        self.packets += packets
        self.bytes += octets
        self.last_used = now
        self.slot.store_traffic(self.packets, self.bytes, now)

    @property
    def spent_softly(self) -> bool:
        """Whether it has carried enough for a successor. True once: nobody wants to hear it twice."""
        if self.packets < self.soft_packets and self.bytes < self.soft_bytes:
            return False
        self.soft_packets = self.soft_bytes = float("inf")
        return True

    @property
    def spent(self) -> bool:
        """Whether it has carried all that it may."""
        return self.packets >= self.hard_packets or self.bytes >= self.hard_bytes

    def covers(self, packet: PacketFields) -> bool:
        """Whether the selectors have this packet: sent by our side for OUT, by the peer's for IN."""
        version, protocol = packet.version, packet.protocol
        source, destination = self._local, self._remote
        if self.sa.direction is Direction.IN:
            source, destination = destination, source
        return any(one.covers(version, packet.source, protocol, packet.source_port) for one in source) and any(
            one.covers(version, packet.destination, protocol, packet.destination_port) for one in destination
        )


class OutboundSa(Association):
    """An SA that seals. `peer` is where its packets go."""

    __slots__ = (
        "largest_packet",
        "last_sequence",
        "next_sequence",
        "path_mtu_until",
        "peer",
        "peer_port",
        "seal",
        "wear_told",
    )

    def __init__(self, sa: Sa, tag: bytes, slot: Slot, installed_at: float, next_sequence: int) -> None:
        super().__init__(sa, tag, slot, installed_at)
        self.seal = esp.sealer(sa)
        self.next_sequence = next_sequence
        # Where they may wrap, the low 32 bits are sent and nothing depends on the rest.
        self.last_sequence = LAST_SEQUENCE_ESN if sa.esn or may_wrap(sa) else LAST_SEQUENCE
        self.peer: IpAddress = sa.destination
        self.peer_port = sa.encapsulation.destination_port if sa.encapsulation else 0
        self.largest_packet = NO_LIMIT
        """The longest inner packet that fits the path, as far as is known, until `path_mtu_until`."""
        self.path_mtu_until = 0.0
        self.wear_told = False

    def take_numbers(self, count: int) -> int:
        """The first of `count` sequence numbers, or of fewer where `last_sequence` ends them; stored as spent."""
        first = self.next_sequence
        self.next_sequence = min(first + count, self.last_sequence + 1)
        self.slot.store_next_sequence(self.next_sequence)
        return first

    @property
    def worn(self) -> bool:
        """Whether most of its sequence numbers are spent."""
        return self.next_sequence > self.last_sequence * SOFT_SHARE


class InboundSa(Association):
    """An SA that opens. `peer` is where its packets last came from, as the socket tells it, None without UDP."""

    __slots__ = ("move_untold", "moved_at", "open", "peer", "verified", "window")

    def __init__(self, sa: Sa, tag: bytes, slot: Slot, installed_at: float, window: ReplayWindow) -> None:
        super().__init__(sa, tag, slot, installed_at)
        self.open = esp.opener(sa)
        self.window = window
        self.verified: set[FlowKey | None] = set()
        """Flow keys of packets that the selectors cover."""
        self.peer: tuple[str, int] | None = None
        if sa.encapsulation:
            self.peer = (str(sa.source), sa.encapsulation.source_port)
        self.moved_at = 0.0
        self.move_untold = False

    def store_window(self) -> None:
        """Puts the window into the slot."""
        self.slot.store_window(self.window.highest, self.window.seen)


class Sad:
    """All SAs: by SPI, by name, by rule, by slot."""

    def __init__(self) -> None:
        self.inbound: dict[bytes, InboundSa] = {}
        """By the four bytes of the SPI."""
        self._by_name: dict[SaName, Association] = {}
        self._by_slot: dict[int, Association] = {}
        self._by_tag: dict[bytes, Association] = {}
        self._outbound: dict[int, list[OutboundSa]] = {}

    def __len__(self) -> int:
        return len(self._by_slot)

    def all(self) -> list[Association]:
        """Every SA, in no order."""
        return list(self._by_slot.values())

    def named(self, name: SaName) -> Association | None:
        """The SA of this name."""
        return self._by_name.get(name)

    def in_slot(self, index: int) -> Association | None:
        """The SA that counts in this slot."""
        return self._by_slot.get(index)

    def of_keys(self, tag: bytes) -> Association | None:
        """The SA of these keys (`sa_tag`)."""
        return self._by_tag.get(tag)

    def place(self, association: Association) -> None:
        """Adds an SA. One of the same name or in the same slot makes way, and leaves its place in the order."""
        place = self._make_way(association)
        self._by_name[association.name] = association
        self._by_slot[association.slot.index] = association
        self._by_tag[association.tag] = association
        if isinstance(association, OutboundSa):
            of_rule = self._outbound.setdefault(association.sa.rule_id, [])
            of_rule.insert(len(of_rule) if place is None else place, association)
        elif isinstance(association, InboundSa):
            self.inbound[association.sa.spi.to_bytes(4)] = association

    def remove(self, association: Association) -> None:
        """Forgets an SA that was placed."""
        del self._by_name[association.name]
        del self._by_slot[association.slot.index]
        del self._by_tag[association.tag]
        if isinstance(association, OutboundSa):
            of_rule = self._outbound[association.sa.rule_id]
            of_rule.remove(association)
            if not of_rule:
                del self._outbound[association.sa.rule_id]
        else:
            del self.inbound[association.sa.spi.to_bytes(4)]

    def newest(self, rule_id: int, packet: PacketFields) -> OutboundSa | None:
        """The outbound SA of the rule that was placed last among those whose selectors have the packet."""
        for association in reversed(self._outbound.get(rule_id, ())):
            if association.covers(packet):
                return association
        return None

    def outbound_of(self, rule_id: int) -> tuple[OutboundSa, ...]:
        """The outbound SAs of a rule, oldest first."""
        return tuple(self._outbound.get(rule_id, ()))

    def _make_way(self, association: Association) -> int | None:
        place: int | None = None
        spi = association.sa.spi.to_bytes(4)
        same_spi = self.inbound.get(spi) if isinstance(association, InboundSa) else None
        for old in (self._by_name.get(association.name), self._by_slot.get(association.slot.index), same_spi):
            if old is None or self._by_slot.get(old.slot.index) is not old:
                continue
            of_rule = self._outbound.get(old.sa.rule_id, ())
            if isinstance(old, OutboundSa) and old.sa.rule_id == association.sa.rule_id:
                place = of_rule.index(old)
            self.remove(old)
        return place


def sa_tag(sa: Sa) -> bytes:
    """16 bytes that name an SA's keys in its slot, and give nothing of them away: they are random keys, not words."""
    keys = (sa.encryption_key.reveal(), sa.integrity_key.reveal())
    parts = b"".join(len(key).to_bytes(2) + key for key in keys) + sa.spi.to_bytes(4) + bytes([sa.direction])
    return hashlib.blake2b(parts, digest_size=16, person=b"ipsecd-slot").digest()
