"""A Child SA: two ESP SAs of opposite direction, and where it is in its life. RFC 7296 sections 1.3 and 2.8."""

import math

from ike_worker.ikev2.crypto.keymat import ChildKeys, ChildSuite
from ike_worker.ikev2.datagram import Endpoint
from ike_worker.ikev2.states import ChildState
from ipc.algorithms import esp_suite_name
from ipc.messages import ChildSaStatus, NegotiationRule, Sa, SaName
from ipc.types import Direction, TrafficSelector, UdpEncapsulation

TrafficSelectors = tuple[TrafficSelector, ...]

REPLAY_WINDOW_PACKETS = 1024
DRAIN_S = 3.0
"""How long packets that were under way are still taken on a replaced Child SA after its DELETE."""
SWITCH_OUTBOUND_S = 30.0
"""We send on a Child SA that the peer made by a rekey when it does or deletes the old one; after this long anyway."""
FIRST_PACKET_S = 1.0
"""Whether the peer sends on it already is asked after this long, and again."""
REPLACED_LIFE_S = 60.0
"""A peer that rekeyed a Child SA and does not delete the old one within this time has it deleted by us."""


class ChildSa:
    """The mutable state of one Child SA. Times are monotonic seconds; `math.inf` is never."""

    __slots__ = (
        "ask_at",
        "beside",
        "dies_at",
        "due_at",
        "established_at",
        "idle_before_s",
        "inbound",
        "ours",
        "outbound",
        "outbound_installed",
        "rekey_at",
        "replaces",
        "rule_id",
        "rule_name",
        "state",
        "switching",
    )

    def __init__(
        self,
        *,
        rule_id: int,
        rule_name: str,
        inbound: Sa,
        outbound: Sa,
        state: ChildState,
        ours: bool,
        now: float,
        dies_at: float = math.inf,
    ) -> None:
        self.rule_id = rule_id
        self.rule_name = rule_name
        self.inbound = inbound
        self.outbound = outbound
        self.state = state
        self.outbound_installed = state is ChildState.INSTALLED
        self.switching = False
        """Whether the outbound SA is being installed, behind the inbound one."""
        self.ours = ours
        """Whether we asked for it, or for the first one of those that it replaces."""
        self.replaces = 0
        """Inbound SPI of the Child SA that it took the place of by a rekey; 0 for none."""
        self.beside = 0
        """Inbound SPI of one that had its traffic when it was made, perhaps of another IKE SA; 0 for none."""
        self.established_at = now
        self.rekey_at = math.inf
        self.dies_at = dies_at
        self.due_at = math.inf
        """INBOUND: when we send on it anyway. INSTALLED: when it gives way to another that does the same.
        REKEYED: when we delete it anyway. DRAINING: when it goes."""
        self.ask_at = math.inf
        """When to ask for its traffic. INBOUND: whether the peer sends on it. INSTALLED: whether it is idle."""
        self.idle_before_s = 0.0
        """How long the one that it replaces had been idle when it was replaced."""

    def __str__(self) -> str:
        return f"child {self.inbound.spi:08x}/{self.outbound.spi:08x} {self.rule_name}"

    @property
    def spi_in(self) -> int:
        """Our inbound SPI: its name on this side."""
        return self.inbound.spi

    @property
    def follows_another(self) -> bool:
        """Whether it has, or is to have, the traffic of another one."""
        return bool(self.replaces or self.beside)

    @property
    def installed(self) -> tuple[Sa, ...]:
        """What should be in the kernel now."""
        return (self.inbound, self.outbound) if self.outbound_installed else (self.inbound,)

    @property
    def next_due(self) -> float:
        """When something must be done about it."""
        state = self.state
        if state is ChildState.INSTALLED:
            return min(self.rekey_at, self.dies_at, self.due_at, self.ask_at)
        if state is ChildState.INBOUND:
            return min(self.due_at, self.dies_at, self.ask_at)
        if state in (ChildState.REKEYED, ChildState.DRAINING):
            return min(self.due_at, self.dies_at)
        return self.dies_at if state is ChildState.REKEYING else math.inf

    def status(self) -> ChildSaStatus:
        """For people."""
        inbound = self.inbound
        return ChildSaStatus(
            rule=self.rule_name,
            mode=inbound.mode,
            spi_in=inbound.spi,
            spi_out=self.outbound.spi,
            algorithms=esp_suite_name(inbound.cipher, inbound.integrity, inbound.esn),
            local=inbound.local,
            remote=inbound.remote,
            established_at=self.established_at,
        )


def serves(child: ChildSa, rule_id: int, local: TrafficSelectors, remote: TrafficSelectors) -> bool:
    """Whether `child` has traffic of both directions, of this rule and with just these selectors."""
    inbound = child.inbound
    return (
        child.rule_id == rule_id
        and child.state in (ChildState.INSTALLED, ChildState.REKEYING, ChildState.REKEYED)
        and child.outbound_installed
        and inbound.local == local
        and inbound.remote == remote
    )


def sa_name(sa: Sa) -> SaName:
    """What names `sa` in the kernel."""
    return SaName(spi=sa.spi, destination=sa.destination)


def make_sa(
    direction: Direction,
    *,
    rule: NegotiationRule,
    suite: ChildSuite,
    keys: ChildKeys,
    we_initiate: bool,
    spi: int,
    local_end: Endpoint,
    remote_end: Endpoint,
    encapsulated: bool,
    local: tuple[TrafficSelector, ...],
    remote: tuple[TrafficSelector, ...],
    acquire_id: int,
) -> Sa:
    """One direction of a Child SA; `we_initiate` the exchange that makes it.

    The engine keeps the lifetimes in seconds; bytes and packets are counted where they pass. The SPI, which nobody
    foresees, makes the soft limits a little different for each.
    """
    inbound = direction is Direction.IN
    source, destination = (remote_end, local_end) if inbound else (local_end, remote_end)
    sent_by_initiator = we_initiate is not inbound
    return Sa(
        rule_id=rule.rule_id,
        direction=direction,
        spi=spi,
        source=source.address,
        destination=destination.address,
        mode=rule.mode,
        encapsulation=UdpEncapsulation(source_port=source.port, destination_port=destination.port)
        if encapsulated
        else None,
        cipher=suite.cipher,
        integrity=suite.integrity,
        encryption_key=keys.encryption_i if sent_by_initiator else keys.encryption_r,
        integrity_key=keys.integrity_i if sent_by_initiator else keys.integrity_r,
        esn=suite.esn,
        replay_window_packets=REPLAY_WINDOW_PACKETS,
        local=local,
        remote=remote,
        soft_lifetime_s=0.0,
        hard_lifetime_s=0.0,
        acquire_id=acquire_id,
        soft_lifetime_bytes=_soft(rule.rekey_bytes, spi),
        hard_lifetime_bytes=rule.life_bytes,
        soft_lifetime_packets=_soft(rule.rekey_packets, spi),
        hard_lifetime_packets=rule.life_packets,
    )


def _soft(limit: int, spi: int) -> int:
    """`limit` less up to a tenth; 0 stays 0, never."""
    return limit - limit // 10 * (spi & 0xFF) // 0xFF
