"""IP packets as the data path sees them: the fields that selectors look at, checksums, and the headers it must build.

Pure. RFC 4301 section 4.4.1.1 says which fields; a port that can't be known (RFC 4301 section 7: fragments other than
the first) is None here, which only a selector of any port matches.
"""

import ipaddress
import struct

from ipc.types import IpAddress
from ipc.value import value

ICMP = 1
IPIP = 4
TCP = 6
UDP = 17
IPV6_IN_IP = 41
ICMPV6 = 58
NO_NEXT_HEADER = 59

IPV4_HEADER_BYTES = 20
IPV6_HEADER_BYTES = 40
UDP_HEADER_BYTES = 8
IPV6_MINIMUM_MTU = 1280
"""RFC 8200 section 5: a link of IPv6 carries at least this."""
ECN_MASK = 3
ECN_CE = 3

_HOP_BY_HOP = 0
_ROUTING = 43
_FRAGMENT = 44
_DESTINATION_OPTIONS = 60
_MAX_EXTENSION_HEADERS = 8
_WITH_PORTS = frozenset({TCP, UDP, 33, 132, 136})  # and DCCP, SCTP, UDP-Lite
_IPV4_HEADER = struct.Struct("!BBHHHBBH4s4s")
_PORTS = struct.Struct("!HH")
# Version to traffic class, fragment bits, time to live, protocol, addresses and ports.
_IPV4_FLOW = struct.Struct("!H4xHBB2x12s").unpack_from
# Version to flow label, next header, addresses and ports.
_IPV6_FLOW = struct.Struct("!I2xBx36s").unpack_from
_ICMP_QUOTE_BYTES = 548
"""RFC 1812 section 4.3.2.3: an ICMP error is no longer than 576 bytes."""


FlowKey = tuple[int | bytes, ...]


@value
class PacketFields:
    """What selectors are compared with. Addresses are numbers; for ICMP both ports are type * 256 + code."""

    version: int
    source: int
    destination: int
    protocol: int
    source_port: int | None
    destination_port: int | None
    fragment: bool
    """Any fragment, the first one too."""


def flow_key(packet: bytes) -> FlowKey | None:
    """A key that is equal for packets of one flow, None if the packet is too short to have one.

    It is meant for looking up, once for each packet; what is stored under a key must come from `is_flow` packets.
    """
    try:
        return _IPV4_FLOW(packet) if packet[0] < 0x60 else _IPV6_FLOW(packet)
    except (struct.error, IndexError):
        return None


def is_flow(packet: bytes, fields: PacketFields) -> bool:
    """Whether all packets with the flow key of this one have the same selector fields and traffic class.

    So for TCP and UDP with the ports where the key has them. All that tells such a packet from others (version, header
    length, fragment bits, protocol) is part of the key.
    """
    if fields.protocol not in (TCP, UDP) or fields.fragment:
        return False
    return packet[0] == 0x45 if fields.version == 4 else packet[6] == fields.protocol


def read_fields(packet: bytes) -> PacketFields | None:
    """The fields of an IP packet, None if it is not whole or not IP."""
    if not packet:
        return None
    if packet[0] >> 4 == 4:
        return _read_ipv4(packet)
    if packet[0] >> 4 == 6:
        return _read_ipv6(packet)
    return None


def traffic_class(packet: bytes) -> int:
    """DSCP and ECN of an IP packet that `read_fields` takes."""
    if packet[0] >> 4 == 4:
        return packet[1]
    return (packet[0] << 4 | packet[1] >> 4) & 0xFF


def ip_header_bytes(packet: bytes) -> int:
    """How long the IP header is, without IPv6 extension headers."""
    return (packet[0] & 0xF) * 4 if packet[0] >> 4 == 4 else IPV6_HEADER_BYTES


def may_be_fragmented(packet: bytes) -> bool:
    """Whether a router may cut this packet: IPv4 without DF."""
    return packet[0] >> 4 == 4 and not packet[6] & 0x40


def with_congestion(packet: bytes) -> bytes | None:
    """The inner packet after its outer header said CE (RFC 6040 section 4.2): marked, or None: to be dropped."""
    ecn = traffic_class(packet) & ECN_MASK
    if ecn == ECN_CE:
        return packet
    if ecn == 0:
        return None
    if packet[0] >> 4 == 6:
        return packet[:1] + bytes([packet[1] | ECN_CE << 4]) + packet[2:]
    length = ip_header_bytes(packet)
    header = bytearray(packet[:length])
    header[1] |= ECN_CE
    header[10:12] = bytes(2)
    header[10:12] = checksum(header).to_bytes(2)
    return bytes(header) + packet[length:]


def checksum(data: bytes | bytearray) -> int:
    """The Internet checksum (RFC 1071), 0 to 65535; an odd last byte counts as the high one."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    number = int.from_bytes(data)
    # The sum of 16-bit words is the number modulo 65535, but a sum of one or more is never 0 in one's complement.
    total = number % 0xFFFF or (0xFFFF if number else 0)
    return 0xFFFF - total


def ip_header(
    *, source: IpAddress, destination: IpAddress, protocol: int, payload_bytes: int, tos: int, ttl: int = 64
) -> bytes:
    """A header without options; IPv4 says do not fragment."""
    if isinstance(source, ipaddress.IPv6Address):
        first = 6 << 28 | tos << 20
        return struct.pack("!IHBB", first, payload_bytes, protocol, ttl) + source.packed + destination.packed
    fields = (0x45, tos, IPV4_HEADER_BYTES + payload_bytes, 0, 0x4000, ttl, protocol)
    header = _IPV4_HEADER.pack(*fields, 0, source.packed, destination.packed)
    return header[:10] + checksum(header).to_bytes(2) + header[12:]


def with_checksum(source: IpAddress, destination: IpAddress, protocol: int, payload: bytes) -> bytes:
    """`payload` with the TCP or UDP checksum that these addresses make right; others unchanged.

    For transport mode behind a NAT (RFC 3948 section 3.1.2): the sender computed it over other addresses.
    """
    offset = {TCP: 16, UDP: 6}.get(protocol)
    if offset is None or len(payload) < offset + 2:
        return payload
    no_checksum = payload[offset : offset + 2] == b"\0\0"
    if protocol == UDP and no_checksum and isinstance(source, ipaddress.IPv4Address):
        return payload
    blank = payload[:offset] + b"\0\0" + payload[offset + 2 :]
    pseudo = source.packed + destination.packed + struct.pack("!IHH", len(payload), 0, protocol)
    value = checksum(pseudo + blank)
    if protocol == UDP and value == 0:
        value = 0xFFFF
    return payload[:offset] + value.to_bytes(2) + payload[offset + 2 :]


def udp_packet(*, source: IpAddress, source_port: int, destination: IpAddress, port: int, payload: bytes) -> bytes:
    """A whole IP packet with a UDP datagram."""
    datagram = struct.pack("!HHHH", source_port, port, UDP_HEADER_BYTES + len(payload), 0xFFFF) + payload
    datagram = with_checksum(source, destination, UDP, datagram)
    return _in_ip(source, destination, UDP, datagram)


def too_big(packet: bytes, mtu: int) -> bytes | None:
    """The ICMP error that tells the sender of `packet` the largest packet that fits (RFC 1191, RFC 4443).

    It seems to come from the packet's destination. None where no error may be sent: about an ICMP error (RFC 1122
    section 3.2.2), a fragment or a multicast.
    """
    fields = read_fields(packet)
    if fields is None or fields.source == 0:
        return None
    if fields.version == 4:
        to, origin = ipaddress.IPv4Address(fields.source), ipaddress.IPv4Address(fields.destination)
        is_query = fields.protocol != ICMP or (fields.source_port or 0) >> 8 in (0, 8)
        if origin.is_multicast or not is_query or (fields.fragment and fields.source_port is None):
            return None
        body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + packet[:_ICMP_QUOTE_BYTES]
        body = body[:2] + checksum(body).to_bytes(2) + body[4:]
        return _in_ip(origin, to, ICMP, body)
    to6, origin6 = ipaddress.IPv6Address(fields.source), ipaddress.IPv6Address(fields.destination)
    if origin6.is_multicast or (fields.protocol == ICMPV6 and (fields.source_port or 0) >> 8 < 128):
        return None
    body = struct.pack("!BBHI", 2, 0, 0, mtu) + packet[: IPV6_MINIMUM_MTU - IPV6_HEADER_BYTES - 8]
    pseudo = origin6.packed + to6.packed + struct.pack("!II", len(body), ICMPV6)
    body = body[:2] + checksum(pseudo + body).to_bytes(2) + body[4:]
    return _in_ip(origin6, to6, ICMPV6, body)


def _in_ip(source: IpAddress, destination: IpAddress, protocol: int, payload: bytes) -> bytes:
    header = ip_header(
        source=source, destination=destination, protocol=protocol, payload_bytes=len(payload), tos=0, ttl=64
    )
    return header + payload


def _read_ipv4(packet: bytes) -> PacketFields | None:
    header_bytes = (packet[0] & 0xF) * 4
    if len(packet) < IPV4_HEADER_BYTES or not IPV4_HEADER_BYTES <= header_bytes <= len(packet):
        return None
    fragmentation = int.from_bytes(packet[6:8])
    source_port = destination_port = None
    if not fragmentation & 0x1FFF:
        source_port, destination_port = _ports(packet, packet[9], header_bytes)
    return PacketFields(
        version=4,
        source=int.from_bytes(packet[12:16]),
        destination=int.from_bytes(packet[16:20]),
        protocol=packet[9],
        source_port=source_port,
        destination_port=destination_port,
        fragment=bool(fragmentation & 0x3FFF),
    )


def _read_ipv6(packet: bytes) -> PacketFields | None:
    if len(packet) < IPV6_HEADER_BYTES:
        return None
    protocol, offset = packet[6], IPV6_HEADER_BYTES
    fragment = later = False
    for _ in range(_MAX_EXTENSION_HEADERS):
        if protocol not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS) or later:
            break
        if len(packet) < offset + 8:
            return None
        if protocol == _FRAGMENT:
            fragment, later = True, bool(int.from_bytes(packet[offset + 2 : offset + 4]) >> 3)
            length = 8
        else:
            length = (packet[offset + 1] + 1) * 8
        protocol, offset = packet[offset], offset + length
    else:
        return None
    source_port, destination_port = (None, None) if later else _ports(packet, protocol, offset)
    return PacketFields(
        version=6,
        source=int.from_bytes(packet[8:24]),
        destination=int.from_bytes(packet[24:40]),
        protocol=protocol,
        source_port=source_port,
        destination_port=destination_port,
        fragment=fragment,
    )


def _ports(packet: bytes, protocol: int, offset: int) -> tuple[int | None, int | None]:
    if protocol in _WITH_PORTS and len(packet) >= offset + 4:
        source, destination = _PORTS.unpack_from(packet, offset)
        return source, destination
    if protocol in (ICMP, ICMPV6) and len(packet) >= offset + 2:
        type_and_code = int.from_bytes(packet[offset : offset + 2])
        return type_and_code, type_and_code
    return None, None
