"""The nftables table that finds packets which no rule of the SPD is about, for the log.

XFRM tells nobody which packets it found no policy for, so the same question is asked of the same flows a second time,
by nftables. Flows whose masks are equal (prefix lengths, protocol, masks of ports) make one set, which is looked up by
hash: a packet costs one lookup for each different mask there is, however many rules there are, and overlaps need no
order, as any match is enough.

    chain prerouting: loopback, IKE, ESP, neighbour discovery: accept
                      known as it comes in: accept
                      for this host: log "in"
                      known as it leaves: accept
                      log "fwd"
    chain output:     loopback, IKE, ESP, neighbour discovery: accept
                      known as it leaves: accept
                      log "out"

What is logged is bounded by a rate for each of the three. A packet that XFRM does not let this host make never becomes
one: where unmatched packets are dropped, their sender gets EPERM, and there is nothing to log. The table belongs to
the agent's socket and goes with it.
"""

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ipc.messages import KernelRule
from ipc.ownership import NFLOG_GROUP, NFT_LOG_TABLE, OUTER_MARK
from kernel_agent import nft
from kernel_agent.nft import Base, Hook, Meta
from kernel_agent.xfrm.messages import ICMP_PROTOCOLS
from kernel_agent.xfrm.netlink import NetlinkError, Request, RequestSocket
from kernel_agent.xfrm.policies import Flow, flows_of
from kernel_agent.xfrm.structs import MaskedPort

PER_SECOND, BURST = 10, 50
"""Packets logged, for each direction."""
LOGGED_BYTES = 128
"""Of each packet: enough for the headers."""
KEYS_PER_MESSAGE = 256
_PRIORITY_RAW = -300
_LOOPBACK_INDEX = 1
"""Of the loopback device in every network namespace."""
_RTN_UNICAST = 1
_VERSIONS = {4: socket.AF_INET, 6: socket.AF_INET6}
_IKE_PORTS = (500, 4500)
_NEIGHBOUR_DISCOVERY = range(133, 138)
_SOURCE_AT, _DESTINATION_AT, _ADDRESS_BYTES = {4: 12, 6: 8}, {4: 16, 6: 24}, {4: 4, 6: 16}
_SOURCE_PORT_AT, _DESTINATION_PORT_AT = 0, 2
_LOADED = nft.FIRST_REGISTER


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """The masks of a flow; what is masked away entirely is not looked at."""

    version: int
    local_bits: int
    remote_bits: int
    protocol: int
    """0 for any; else part of the shape, as it says where ports or ICMP types are."""
    local_port_mask: int
    remote_port_mask: int
    interface: int
    """Its index; 0 for any."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A part of a key: where it is in a packet, and under which mask."""

    base: Base
    offset: int
    length: int
    mask: bytes


def shapes_of(rules: Iterable[KernelRule], interfaces: dict[str, int]) -> dict[Shape, set[bytes]]:
    """The keys of all flows of all rules, by shape. A rule whose interface is not there matches nothing."""
    shapes: dict[Shape, set[bytes]] = {}
    for rule in rules:
        index = interfaces.get(rule.interface, -1) if rule.interface else 0
        if rule.unmatched or index < 0:
            continue
        for flow in flows_of(rule):
            shape = Shape(
                flow.local.address.version,
                flow.local.length,
                flow.remote.length,
                flow.protocol,
                flow.source_port.mask,
                flow.destination_port.mask,
                index,
            )
            shapes.setdefault(shape, set()).add(_key(flow))
    return shapes


def install(requests: RequestSocket, rules: Iterable[KernelRule], interfaces: dict[str, int]) -> None:
    """Makes the table for these rules, in place of the one there is; OSError if the kernel refuses."""
    shapes = sorted(shapes_of(rules, interfaces).items())
    table = NFT_LOG_TABLE
    # Created first, so that the removal of what may be there can't fail.
    fresh = [nft.new_table(table, nft.OWNED), nft.delete_table(table), nft.new_table(table, nft.OWNED)]
    fresh += [nft.new_chain(table, _known(version, outward)) for version in _VERSIONS for outward in (False, True)]
    fresh += [nft.new_chain(table, word) for word in ("in", "fwd", "out")]
    requests.execute(nft.transaction(fresh))
    for number, (shape, keys) in enumerate(shapes, 1):
        for part in _shape(number, shape, sorted(keys)):
            requests.execute(nft.transaction(part))
    # The packets come in last: a table half made would log what is matched.
    requests.execute(nft.transaction(list(_chains())))


def remove(requests: RequestSocket) -> None:
    """Removes the table, if it is there; OSError if the kernel refuses."""
    try:
        requests.execute(nft.transaction([nft.new_table(NFT_LOG_TABLE, nft.OWNED), nft.delete_table(NFT_LOG_TABLE)]))
    except NetlinkError as error:
        raise OSError(error.errno, f"nftables: {error.strerror}") from error


def _shape(number: int, shape: Shape, keys: list[bytes]) -> Iterator[list[Request]]:
    """The set of a shape, its keys, and the rules that look it up, as it comes in and as it leaves."""
    table, name = NFT_LOG_TABLE, f"flows{number}"
    if keys[0]:
        yield [nft.new_set(table, name, number, len(keys[0]))]
        for start in range(0, len(keys), KEYS_PER_MESSAGE):
            yield [nft.new_elements(table, name, keys[start : start + KEYS_PER_MESSAGE])]
    rules = []
    for outward in (False, True):
        expressions = list(_conditions(shape, outward))
        register = _LOADED
        for field in _fields(shape, outward):
            expressions.append(nft.load_payload(field.base, field.offset, field.length, register))
            expressions.append(nft.mask(_padded(field.mask), register))
            register += len(_padded(field.mask)) // 4
        if keys[0]:
            expressions.append(nft.in_set(name, 0))
        rules.append(nft.new_rule(table, _known(shape.version, outward), *expressions, nft.accept()))
    yield rules


def _conditions(shape: Shape, outward: bool) -> Iterator[bytes]:
    if shape.protocol:
        yield nft.load_meta(Meta.L4PROTO)
        yield nft.equal(bytes([shape.protocol]))
    if shape.interface and not outward:
        # Where it will leave is not known yet for what is forwarded: there any interface will do.
        yield nft.load_meta(Meta.IIF)
        yield nft.equal(nft.native(shape.interface))


def _fields(shape: Shape, outward: bool) -> Iterator[_Field]:
    """The parts of a key, in the order of `_key`."""
    size = _ADDRESS_BYTES[shape.version]
    sides = (_SOURCE_AT, _DESTINATION_AT) if outward else (_DESTINATION_AT, _SOURCE_AT)
    for offsets, bits in zip(sides, (shape.local_bits, shape.remote_bits), strict=True):
        if bits:
            yield _Field(Base.NETWORK, offsets[shape.version], size, _prefix_mask(shape.version, bits))
    masks = (shape.local_port_mask, shape.remote_port_mask)
    if shape.protocol in ICMP_PROTOCOLS:
        # Type and code, whichever way the packet goes.
        for offset, bits in enumerate(masks):
            if bits:
                yield _Field(Base.TRANSPORT, offset, 1, bytes([bits & 0xFF]))
        return
    ports = (_SOURCE_PORT_AT, _DESTINATION_PORT_AT) if outward else (_DESTINATION_PORT_AT, _SOURCE_PORT_AT)
    for offset, bits in zip(ports, masks, strict=True):
        if bits:
            yield _Field(Base.TRANSPORT, offset, 2, bits.to_bytes(2))


def _key(flow: Flow) -> bytes:
    """What of a flow is under its masks, each part padded to registers."""
    parts = [prefix.address.packed for prefix in (flow.local, flow.remote) if prefix.length]
    size = 1 if flow.protocol in ICMP_PROTOCOLS else 2
    parts += [_port(masked, size) for masked in (flow.source_port, flow.destination_port) if masked.mask]
    return b"".join(map(_padded, parts))


def _port(masked: MaskedPort, size: int) -> bytes:
    return (masked.port & masked.mask & (1 << 8 * size) - 1).to_bytes(size)


def _chains() -> Iterator[Request]:
    table = NFT_LOG_TABLE
    for word in ("in", "fwd", "out"):
        # A fragment without a transport header does not get past the first expression: its first one is logged.
        logged = (nft.load_payload(Base.TRANSPORT, 0, 4), nft.limit(PER_SECOND, BURST))
        yield nft.new_rule(table, word, *logged, nft.log_to(NFLOG_GROUP, word, LOGGED_BYTES))
        yield nft.new_rule(table, word, nft.accept())
    yield nft.new_base_chain(table, "prerouting", Hook.PREROUTING, _PRIORITY_RAW + 1)
    yield from _exempt("prerouting", Meta.IIF, _DESTINATION_PORT_AT)
    yield from _jumps_to_known("prerouting", outward=False)
    address_type = (nft.load_address_type(), nft.unequal(nft.native(_RTN_UNICAST)))
    yield nft.new_rule(table, "prerouting", *address_type, nft.jump("in"))
    yield from _jumps_to_known("prerouting", outward=True)
    yield nft.new_rule(table, "prerouting", nft.jump("fwd"))
    yield nft.new_base_chain(table, "output", Hook.OUTPUT, _PRIORITY_RAW + 1)
    ours = (nft.load_meta(Meta.MARK), nft.mask(nft.native(OUTER_MARK)), nft.equal(nft.native(OUTER_MARK)))
    yield nft.new_rule(table, "output", *ours, nft.accept())
    yield from _exempt("output", Meta.OIF, _SOURCE_PORT_AT)
    yield from _jumps_to_known("output", outward=True)
    yield nft.new_rule(table, "output", nft.jump("out"))


def _exempt(chain: str, interface: Meta, port_at: int) -> Iterator[Request]:
    """What passes whatever the policy: loopback, ESP, IKE, neighbour discovery."""
    table, protocol = NFT_LOG_TABLE, nft.load_meta(Meta.L4PROTO)
    yield nft.new_rule(table, chain, nft.load_meta(interface), nft.equal(nft.native(_LOOPBACK_INDEX)), nft.accept())
    yield nft.new_rule(table, chain, protocol, nft.equal(bytes([socket.IPPROTO_ESP])), nft.accept())
    udp, icmp6 = nft.equal(bytes([socket.IPPROTO_UDP])), nft.equal(bytes([socket.IPPROTO_ICMPV6]))
    for port in _IKE_PORTS:
        at = (nft.load_payload(Base.TRANSPORT, port_at, 2), nft.equal(port.to_bytes(2)))
        yield nft.new_rule(table, chain, protocol, udp, *at, nft.accept())
    for kind in _NEIGHBOUR_DISCOVERY:
        at = (nft.load_payload(Base.TRANSPORT, 0, 1), nft.equal(bytes([kind])))
        yield nft.new_rule(table, chain, protocol, icmp6, *at, nft.accept())


def _jumps_to_known(chain: str, *, outward: bool) -> Iterator[Request]:
    for version, family in _VERSIONS.items():
        of_family = (nft.load_meta(Meta.NFPROTO), nft.equal(bytes([family])))
        yield nft.new_rule(NFT_LOG_TABLE, chain, *of_family, nft.jump(_known(version, outward)))


def _known(version: int, outward: bool) -> str:
    return f"known{version}{'out' if outward else 'in'}"


def _prefix_mask(version: int, bits: int) -> bytes:
    width = _ADDRESS_BYTES[version] * 8
    return ((1 << width) - (1 << (width - bits))).to_bytes(width // 8)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)
