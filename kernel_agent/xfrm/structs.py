"""The C structs of linux/xfrm.h as bytes and back. Each packer's docstring shows the struct."""

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ipc.types import IpAddress, Prefix
from ipc.value import value
from kernel_agent.xfrm import constants as c

_htons = socket.htons

NLMSG_HEADER = struct.Struct("=IHHII")
ATTRIBUTE_HEADER = struct.Struct("=HH")
ZERO_ADDRESS = bytes(16)

_SELECTOR = struct.Struct("=16s16sHHHHHBBB3xiI")
_POLICY_INFO = struct.Struct("=56s8Q32xIIBBBB4x")
_WORD = struct.Struct("=I")
_POLICY_TAIL = struct.Struct("=IIBBBB4x")
_POLICY_END, _POLICY_END_OFFSET = struct.Struct("=IIBB"), 152
_TEMPLATE = struct.Struct("=16s4sB3xH2x16sIBBBxIII")
_POLICY_ID = struct.Struct("=56sIB3x")
_SA_INFO = struct.Struct("=56s16s4sB3x16s8Q4Q12xIIHBBB7x")
_SA_ID = struct.Struct("=16s4sHBx")
_MAPPING = struct.Struct("=16s4sHBxI16s16s2s2s")
_MARK = struct.Struct("=II")
_ENCAP = struct.Struct("=H2s2s2x16s")
_REPLAY_ESN = struct.Struct("=6I")

SELECTOR_BYTES = _SELECTOR.size
POLICY_INFO_BYTES = _POLICY_INFO.size
SA_INFO_BYTES = _SA_INFO.size
ACQUIRE_BYTES = 280
EXPIRE_BYTES = 232
MAPPING_BYTES = _MAPPING.size

_UNLIMITED = (c.XFRM_INF, c.XFRM_INF, c.XFRM_INF, c.XFRM_INF, 0, 0, 0, 0)
_NO_LIFETIMES = struct.pack("=8Q32x", *_UNLIMITED)
_IFINDEX_OFFSET = 48
_AF_INET, _AF_INET6 = int(socket.AF_INET), int(socket.AF_INET6)


class Malformed(ValueError):
    """Bytes from the kernel that are too short for what they should be."""


@value
class MaskedPort:
    """A port, or ICMP type or code, under a mask; mask 0 is any."""

    port: int
    mask: int


ANY_MASKED_PORT = MaskedPort(port=0, mask=0)


@value
class Selector:
    """Which packets: as the kernel compares them, from the packet's own point of view."""

    source: Prefix
    destination: Prefix
    protocol: int = 0
    source_port: MaskedPort = ANY_MASKED_PORT
    destination_port: MaskedPort = ANY_MASKED_PORT
    ifindex: int = 0


def family_of(address: IpAddress) -> int:
    """AF_INET or AF_INET6."""
    return int(socket.AF_INET if address.version == 4 else socket.AF_INET6)


def pack_address(address: IpAddress | None) -> bytes:
    """`xfrm_address_t`: 16 bytes, IPv4 in the first four; None is the wildcard."""
    return ZERO_ADDRESS if address is None else address.packed.ljust(16, b"\0")


def unpack_address(data: bytes, family: int) -> IpAddress:
    """The address of `family` in a 16-byte xfrm_address_t."""
    return ipaddress.IPv4Address(data[:4]) if family == socket.AF_INET else ipaddress.IPv6Address(data)


def pack_selector(selector: Selector) -> bytes:
    """struct xfrm_selector {
    xfrm_address_t daddr, saddr; __be16 dport, dport_mask, sport, sport_mask;
    __u16 family; __u8 prefixlen_d, prefixlen_s, proto; int ifindex; __kernel_uid32_t user; };
    """
    return pack_selector_of(
        selector.source,
        selector.destination,
        selector.protocol,
        selector.source_port,
        selector.destination_port,
        selector.ifindex,
    )


def pack_selector_of(
    source: Prefix,
    destination: Prefix,
    protocol: int,
    source_port: MaskedPort,
    destination_port: MaskedPort,
    ifindex: int,
) -> bytes:
    """As `pack_selector`, for many: the fields alone."""
    address = source.address
    # The packer fills short addresses up with zero bytes.
    return _SELECTOR.pack(
        destination.address.packed,
        address.packed,
        _htons(destination_port.port),
        _htons(destination_port.mask),
        _htons(source_port.port),
        _htons(source_port.mask),
        _AF_INET if address.version == 4 else _AF_INET6,
        destination.length,
        source.length,
        protocol,
        ifindex,
        0,
    )


def with_ifindex(selector: bytes, ifindex: int) -> bytes:
    """A packed selector for one interface."""
    return selector[:_IFINDEX_OFFSET] + pack_word(ifindex) + selector[_IFINDEX_OFFSET + 4 :]


def with_user(selector: bytes, user: int) -> bytes:
    """A packed selector with its `user`: the kernel tells selectors apart by it, and matches packets without it."""
    return selector[:-4] + struct.pack("=I", user)


def unpack_selector(data: bytes) -> Selector:
    """The selector in the 56 bytes that `pack_selector` makes; Malformed if its family is not IP's."""
    (daddr, saddr, dport, dport_mask, sport, sport_mask, family, length_d, length_s, proto, ifindex, _) = (
        _SELECTOR.unpack(data)
    )
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise Malformed(f"selector of address family {family}")
    return Selector(
        source=Prefix(address=unpack_address(saddr, family), length=length_s),
        destination=Prefix(address=unpack_address(daddr, family), length=length_d),
        protocol=proto,
        source_port=MaskedPort(port=socket.ntohs(sport), mask=socket.ntohs(sport_mask)),
        destination_port=MaskedPort(port=socket.ntohs(dport), mask=socket.ntohs(dport_mask)),
        ifindex=ifindex,
    )


def pack_word(value: int) -> bytes:
    """A __u32."""
    return _WORD.pack(value)


def pack_mark(value: int, mask: int) -> bytes:
    """struct xfrm_mark { __u32 v, m; };"""
    return _MARK.pack(value, mask)


NO_MARK = pack_mark(0, 0)


def pack_policy_info(selector: bytes, priority: int, index: int, direction: int, action: int) -> bytes:
    """struct xfrm_userpolicy_info {
    struct xfrm_selector sel; struct xfrm_lifetime_cfg lft; struct xfrm_lifetime_cur curlft;
    __u32 priority, index; __u8 dir, action, flags, share; };
    """
    return selector + _NO_LIFETIMES + _POLICY_TAIL.pack(priority, index, direction, action, 0, 0)


@value
class PolicyInfo:
    """What matters of a struct xfrm_userpolicy_info."""

    selector: bytes
    priority: int
    index: int
    direction: int
    action: int


def unpack_policy_info(data: bytes) -> PolicyInfo:
    """The policy at the start of `data`; Malformed if that is too short."""
    if len(data) < POLICY_INFO_BYTES:
        raise Malformed(f"policy: {len(data)} bytes, not {POLICY_INFO_BYTES}")
    fields = _POLICY_INFO.unpack_from(data)
    return PolicyInfo(selector=fields[0], priority=fields[9], index=fields[10], direction=fields[11], action=fields[12])


def unpack_policy_end(data: bytes) -> tuple[int, int, int, int]:
    """Priority, index, direction and action of the struct xfrm_userpolicy_info at the start of `data`."""
    return _POLICY_END.unpack_from(data, _POLICY_END_OFFSET)


def pack_policy_id(selector: bytes, index: int, direction: int) -> bytes:
    """struct xfrm_userpolicy_id { struct xfrm_selector sel; __u32 index; __u8 dir; };"""
    return _POLICY_ID.pack(selector, index, direction)


def pack_template(
    *, source: IpAddress | None, destination: IpAddress | None, family: int, reqid: int, mode: int
) -> bytes:
    """struct xfrm_user_tmpl {
    struct xfrm_id id; __u16 family; xfrm_address_t saddr; __u32 reqid; __u8 mode, share, optional;
    __u32 aalgos, ealgos, calgos; };
    """
    every = c.ALL_ALGORITHMS
    id_fields = (pack_address(destination), bytes(4), c.IPPROTO_ESP)
    return _TEMPLATE.pack(*id_fields, family, pack_address(source), reqid, mode, 0, 0, every, every, every)


def with_spi(template: bytes, spi: int) -> bytes:
    """A packed template that only the SA of this SPI fits."""
    return template[:16] + struct.pack("!I", spi) + template[20:]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateTarget:
    """The SA that a template with an SPI is for."""

    spi: int
    destination: IpAddress
    reqid: int


def template_target(data: bytes) -> TemplateTarget:
    """That of the first template in `data`; Malformed if that is too short."""
    if len(data) < _TEMPLATE.size:
        raise Malformed(f"template: {len(data)} bytes, not {_TEMPLATE.size}")
    destination, spi, _protocol, family, _source, reqid = _TEMPLATE.unpack_from(data)[:6]
    return TemplateTarget(spi=int.from_bytes(spi), destination=unpack_address(destination, family), reqid=reqid)


def template_reqid(data: bytes) -> int:
    """The reqid of the first template in `data`; Malformed if that is too short."""
    if len(data) < _TEMPLATE.size:
        raise Malformed(f"template: {len(data)} bytes, not {_TEMPLATE.size}")
    return int(_TEMPLATE.unpack_from(data)[5])


@value
class SaInfo:
    """What matters of a struct xfrm_usersa_info. Lifetimes; 0 seconds, XFRM_INF bytes or packets are never."""

    selector: bytes
    destination: bytes
    spi: int
    protocol: int
    source: bytes
    soft_bytes: int = c.XFRM_INF
    hard_bytes: int = c.XFRM_INF
    soft_packets: int = c.XFRM_INF
    hard_packets: int = c.XFRM_INF
    soft_seconds: int = 0
    hard_seconds: int = 0
    used_bytes: int = 0
    used_packets: int = 0
    added_at: int = 0
    """Wall-clock seconds."""
    seq: int = 0
    reqid: int = 0
    family: int = 0
    mode: int = 0
    replay_window: int = 0
    flags: int = 0


def pack_sa_info(sa: SaInfo) -> bytes:
    """struct xfrm_usersa_info {
    struct xfrm_selector sel; struct xfrm_id id; xfrm_address_t saddr; struct xfrm_lifetime_cfg lft;
    struct xfrm_lifetime_cur curlft; struct xfrm_stats stats; __u32 seq, reqid; __u16 family;
    __u8 mode, replay_window, flags; };
    """
    counted = (sa.soft_bytes, sa.hard_bytes, sa.soft_packets, sa.hard_packets)
    limits = (*counted, sa.soft_seconds, sa.hard_seconds, 0, 0)
    return _SA_INFO.pack(
        sa.selector,
        sa.destination,
        sa.spi.to_bytes(4, "big"),
        sa.protocol,
        sa.source,
        *limits,
        sa.used_bytes,
        sa.used_packets,
        sa.added_at,
        0,
        sa.seq,
        sa.reqid,
        sa.family,
        sa.mode,
        sa.replay_window,
        sa.flags,
    )


def unpack_sa_info(data: bytes) -> SaInfo:
    """The SA at the start of `data`; Malformed if that is too short."""
    if len(data) < SA_INFO_BYTES:
        raise Malformed(f"SA: {len(data)} bytes, not {SA_INFO_BYTES}")
    fields = _SA_INFO.unpack_from(data)
    return SaInfo(
        selector=fields[0],
        destination=fields[1],
        spi=int.from_bytes(fields[2], "big"),
        protocol=fields[3],
        source=fields[4],
        soft_bytes=fields[5],
        hard_bytes=fields[6],
        soft_packets=fields[7],
        hard_packets=fields[8],
        soft_seconds=fields[9],
        hard_seconds=fields[10],
        used_bytes=fields[13],
        used_packets=fields[14],
        added_at=fields[15],
        seq=fields[17],
        reqid=fields[18],
        family=fields[19],
        mode=fields[20],
        replay_window=fields[21],
        flags=fields[22],
    )


def pack_sa_id(destination: IpAddress, spi: int) -> bytes:
    """struct xfrm_usersa_id { xfrm_address_t daddr; __be32 spi; __u16 family; __u8 proto; };"""
    return _SA_ID.pack(pack_address(destination), spi.to_bytes(4, "big"), family_of(destination), c.IPPROTO_ESP)


@value
class Mapping:
    """Where the packets of an inbound SA come from now."""

    destination: IpAddress
    spi: int
    reqid: int
    source: IpAddress
    source_port: int


def unpack_mapping(body: bytes) -> Mapping:
    """struct xfrm_user_mapping {
    struct xfrm_usersa_id id; __u32 reqid; xfrm_address_t old_saddr, new_saddr; __be16 old_sport, new_sport; };
    """
    if len(body) < MAPPING_BYTES:
        raise Malformed(f"mapping: {len(body)} bytes, not {MAPPING_BYTES}")
    destination, spi, family, _protocol, reqid, _old, source, _old_port, port = _MAPPING.unpack_from(body)
    return Mapping(
        destination=unpack_address(destination, family),
        spi=int.from_bytes(spi, "big"),
        reqid=reqid,
        source=unpack_address(source, family),
        source_port=int.from_bytes(port, "big"),
    )


def pack_encap(source_port: int, destination_port: int) -> bytes:
    """struct xfrm_encap_tmpl { __u16 encap_type; __be16 encap_sport, encap_dport; xfrm_address_t encap_oa; };"""
    ports = (source_port.to_bytes(2, "big"), destination_port.to_bytes(2, "big"))
    return _ENCAP.pack(c.UDP_ENCAP_ESPINUDP, *ports, ZERO_ADDRESS)


def pack_replay_esn(window_packets: int) -> bytes:
    """struct xfrm_replay_state_esn { unsigned bmp_len; __u32 oseq, seq, oseq_hi, seq_hi, replay_window, bmp[]; };"""
    words = (window_packets + 31) // 32
    return _REPLAY_ESN.pack(words, 0, 0, 0, 0, window_packets) + bytes(4 * words)


def pack_attribute(kind: int, value: bytes) -> bytes:
    """struct nlattr { __u16 nla_len, nla_type; } and the value, padded to four bytes."""
    return ATTRIBUTE_HEADER.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a message; `kind` without the nested and byte-order flags."""

    kind: int
    value: bytes


def unpack_attributes(data: bytes, offset: int = 0) -> Iterator[Attribute]:
    """The attributes from `offset` on; Malformed where a length does not fit."""
    while offset + 4 <= len(data):
        length, kind = ATTRIBUTE_HEADER.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            raise Malformed(f"attribute {kind}: {length} bytes, {len(data) - offset} left")
        yield Attribute(kind & 0x3FFF, data[offset + 4 : offset + length])
        offset += (length + 3) & ~3
