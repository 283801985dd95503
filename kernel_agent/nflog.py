"""Packets that nftables gives to an NFLOG group (linux/netfilter/nfnetlink_log.h), and what one line says of each."""

import errno
import ipaddress
import socket
import struct

from ipc.value import value
from kernel_agent.xfrm.constants import NETLINK_NETFILTER
from kernel_agent.xfrm.netlink import Request, RequestSocket
from kernel_agent.xfrm.structs import unpack_attributes

_PACKET, _CONFIG = 4 << 8 | 0, 4 << 8 | 1
_COMMAND, _MODE = 1, 2
_BIND, _COPY_PACKET = 1, 2
_INDEV, _OUTDEV, _PAYLOAD, _PREFIX = 4, 5, 9, 10
_HEADER_BYTES = 4
"""struct nfgenmsg"""
_IPV4_BYTES, _IPV6_BYTES = 20, 40
_ICMP = {socket.IPPROTO_ICMP: "icmp", socket.IPPROTO_ICMPV6: "icmpv6"}
_WITH_PORTS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}


@value
class LoggedPacket:
    """The start of a packet, and what nftables said of it."""

    prefix: str
    ifindex: int
    """Where it came in, or is about to leave; 0 if that is not known."""
    data: bytes


class NflogSocket:
    """Listens to one group, without ever waiting."""

    def __init__(self, group: int, length: int) -> None:
        """OSError if the group is another program's, or without CAP_NET_ADMIN."""
        self._requests = RequestSocket(NETLINK_NETFILTER)
        try:
            self._configure(group, _COMMAND, struct.pack("!B", _BIND))
            self._configure(group, _MODE, struct.pack("!IBx", length, _COPY_PACKET))
        except OSError:
            self._requests.close()
            raise

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._requests.fileno()

    def receive(self) -> list[LoggedPacket]:
        """What has come; empty if nothing has."""
        try:
            answers = self._requests.received()
        except OSError as error:
            if error.errno == errno.ENOBUFS:  # more than we could take, although bounded: they are only logged
                return []
            raise
        return [_read(answer.body) for answer in answers if answer.kind == _PACKET]

    def close(self) -> None:
        """Listens no more."""
        self._requests.close()

    def _configure(self, group: int, kind: int, value: bytes) -> None:
        body = struct.pack("!BBH", socket.AF_UNSPEC, 0, group) + struct.pack("=HH", 4 + len(value), kind) + value
        self._requests.execute([Request(_CONFIG, body)])


def describe(packet: LoggedPacket, interface: str) -> str:
    """One line: direction, interface, protocol, addresses, and ports or ICMP type where there are."""
    words = [packet.prefix]
    if interface:
        words.append(f"{'out' if packet.prefix == 'out' else 'in'} by {interface}")
    return ", ".join([*words, _content(packet.data)])


def _content(data: bytes) -> str:
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= _IPV4_BYTES:
        protocol, rest = data[9], data[(data[0] & 15) * 4 :]
        addresses = [ipaddress.ip_address(data[start : start + 4]) for start in (12, 16)]
    elif version == 6 and len(data) >= _IPV6_BYTES:
        protocol, rest = data[6], data[_IPV6_BYTES:]
        addresses = [ipaddress.ip_address(data[start : start + 16]) for start in (8, 24)]
    else:
        return f"{len(data)} bytes that are no IP packet"
    source, destination = map(str, addresses)
    if protocol in _WITH_PORTS and len(rest) >= 4:
        source_port, destination_port = struct.unpack_from("!HH", rest)
        return f"{_WITH_PORTS[protocol]}, {source} port {source_port} to {destination} port {destination_port}"
    if protocol in _ICMP and len(rest) >= 2:
        return f"{_ICMP[protocol]} type {rest[0]} code {rest[1]}, {source} to {destination}"
    return f"protocol {protocol}, {source} to {destination}"


def _read(body: bytes) -> LoggedPacket:
    values = {attribute.kind: attribute.value for attribute in unpack_attributes(body, _HEADER_BYTES)}
    index = values.get(_INDEV) or values.get(_OUTDEV) or bytes(4)
    return LoggedPacket(
        prefix=values.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace"),
        ifindex=int.from_bytes(index, "big"),
        data=values.get(_PAYLOAD, b""),
    )
