"""Rules, SAs and packets to try the data path with."""

import hashlib
import ipaddress
import struct

from ipc import messages as m
from ipc.algorithms import AES128GCM16, INTEGRITY_KEY_BYTES, Cipher, IntegrityId, cipher_sizes
from ipc.types import (
    ANY_PORT,
    Action,
    Direction,
    Mode,
    NextLayer,
    PortRange,
    Prefix,
    Secret,
    TrafficSelector,
    UdpEncapsulation,
)
from kernel_agent.userspace.packet import ip_header, with_checksum


def secret(label: str, length: int) -> Secret:
    """A key that is the same on both sides."""
    return Secret(hashlib.shake_256(label.encode()).digest(length))


def prefix(text: str) -> Prefix:
    """A prefix as "10.1.0.0/16"."""
    network = ipaddress.ip_network(text)
    return Prefix(address=network.network_address, length=network.prefixlen)


def selector(text: str, protocol: int = 0, ports: tuple[int, int] = (0, 65535)) -> TrafficSelector:
    """A traffic selector for "10.1.0.0/16"."""
    network = ipaddress.ip_network(text)
    return TrafficSelector(
        protocol=protocol,
        start_address=network[0],
        end_address=network[-1],
        start_port=ports[0],
        end_port=ports[1],
    )


def make_rule(
    rule_id: int = 1,
    *,
    position: int = 0,
    action: Action = Action.PROTECT,
    protocol: int = 0,
    local: tuple[str, ...] = ("10.1.0.0/24", "fd01::/64"),
    remote: tuple[str, ...] = ("10.2.0.0/24", "fd02::/64"),
    local_port: PortRange = ANY_PORT,
    remote_port: PortRange = ANY_PORT,
    also: tuple[NextLayer, ...] = (),
    mode: Mode = Mode.TUNNEL,
) -> m.KernelRule:
    """A rule of the SPD."""
    return m.KernelRule(
        rule_id=rule_id,
        name=f"rule-{rule_id}",
        position=position,
        action=action,
        protocol=protocol,
        local=tuple(map(prefix, local)),
        remote=tuple(map(prefix, remote)),
        local_port=local_port,
        remote_port=remote_port,
        mode=mode,
        local_address=None,
        peer_address=None,
        esp_proposals=(),
        also=also,
    )


def make_sa(
    *,
    direction: Direction = Direction.OUT,
    spi: int = 0x1000,
    source: str = "10.9.0.1",
    destination: str = "10.9.0.2",
    mode: Mode = Mode.TUNNEL,
    ports: tuple[int, int] | None = None,
    cipher: Cipher = AES128GCM16,
    integrity: IntegrityId = IntegrityId.NONE,
    esn: bool = False,
    window: int = 64,
    local: tuple[str, ...] = ("10.1.0.0/24", "fd01::/64"),
    remote: tuple[str, ...] = ("10.2.0.0/24", "fd02::/64"),
    rule_id: int = 1,
    soft_s: float = 0.0,
    hard_s: float = 0.0,
    soft_bytes: int = 0,
    hard_packets: int = 0,
) -> m.Sa:
    """An SA whose keys follow from its SPI: both ends of it have the same."""
    sizes = cipher_sizes(cipher)
    return m.Sa(
        rule_id=rule_id,
        direction=direction,
        spi=spi,
        source=ipaddress.ip_address(source),
        destination=ipaddress.ip_address(destination),
        mode=mode,
        encapsulation=UdpEncapsulation(source_port=ports[0], destination_port=ports[1]) if ports else None,
        cipher=cipher,
        integrity=integrity,
        encryption_key=secret(f"encryption {spi}", sizes.key + sizes.salt),
        integrity_key=secret(f"integrity {spi}", INTEGRITY_KEY_BYTES[integrity]),
        esn=esn,
        replay_window_packets=window,
        local=tuple(map(selector, local)),
        remote=tuple(map(selector, remote)),
        soft_lifetime_s=soft_s,
        hard_lifetime_s=hard_s,
        acquire_id=0,
        soft_lifetime_bytes=soft_bytes,
        hard_lifetime_packets=hard_packets,
    )


def place(*sas: m.Sa, slot: int = 0, fresh: bool = True) -> m.PlaceSa:
    """These SAs in slots from `slot` on."""
    return m.PlaceSa(
        request_id=1,
        sas=tuple(m.PlacedSa(sa=sa, slot=number, fresh=fresh) for number, sa in enumerate(sas, slot)),
    )


def udp(source: str, destination: str, payload: bytes, *, ports: tuple[int, int] = (5000, 6000), tos: int = 0) -> bytes:
    """An IP packet with UDP."""
    here, there = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    datagram = with_checksum(here, there, 17, struct.pack("!HHHH", *ports, 8 + len(payload), 1) + payload)
    return (
        ip_header(source=here, destination=there, protocol=17, payload_bytes=len(datagram), tos=tos, ttl=64) + datagram
    )
