"""The IKE sockets: UDP 500 and 4500, IPv4 and IPv6, handed over by the supervisor.

They are bound to the wildcard address; the local address of each datagram comes and goes as ancillary data
(IP_PKTINFO, IPV6_PKTINFO). On port 4500 IKE stands behind four zero bytes, the non-ESP marker (RFC 3948 section 2.2).
"""

import ctypes
import ipaddress
import logging
import socket
import struct
from collections.abc import Callable, Mapping

from ike_worker.ikev2.engine import Endpoint
from ipc.types import IpAddress

log = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)

PORT_IKE = 500
PORT_NAT_TRAVERSAL = 4500
NON_ESP_MARKER = bytes(4)
NAT_KEEPALIVE = b"\xff"
MAX_DATAGRAM_BYTES = 65535
DATAGRAMS_PER_TURN = 64
"""How many datagrams one socket may deliver before other work has its turn."""

_IP_PKTINFO = 8
_PKTINFO = frozenset({(socket.IPPROTO_IP, _IP_PKTINFO), (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)})
_IN_PKTINFO = struct.Struct("=I4s4s")
_IN6_PKTINFO = struct.Struct("=16sI")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_IN6_PKTINFO.size) + socket.CMSG_SPACE(_IN_PKTINFO.size)

Ancillary = list[tuple[int, int, bytes]]
Source = tuple[str, int]
Receiver = Callable[[bytes, Endpoint, Endpoint], None]
"""Called with datagram (without marker), local and remote endpoint."""
Screen = Callable[[bytes, bytes], bytes | None]
"""Called before that with datagram and packed source address: None to go on, else the answer, which may be empty."""


class UdpSockets:
    """The worker's sockets, by (IP version, port)."""

    NAMES: Mapping[str, tuple[int, int]] = {
        "udp500-v4": (4, PORT_IKE),
        "udp4500-v4": (4, PORT_NAT_TRAVERSAL),
        "udp500-v6": (6, PORT_IKE),
        "udp4500-v6": (6, PORT_NAT_TRAVERSAL),
    }
    STRANGERS: Mapping[str, tuple[int, int]] = {
        "udp500-strangers-v4": (4, PORT_IKE),
        "udp4500-strangers-v4": (4, PORT_NAT_TRAVERSAL),
        "udp500-strangers-v6": (6, PORT_IKE),
        "udp4500-strangers-v6": (6, PORT_NAT_TRAVERSAL),
    }
    """Where first messages without a cookie arrive, so that a flood of them does not stand before the others."""

    def __init__(self, descriptors: Mapping[str, int]) -> None:
        self._sockets = {
            key: socket.socket(fileno=descriptors[name]) for name, key in self.NAMES.items() if name in descriptors
        }
        self._strangers = {
            key: socket.socket(fileno=descriptors[name]) for name, key in self.STRANGERS.items() if name in descriptors
        }
        self.dropped = 0

    def readers(self, receiver: Receiver, screen: Screen) -> dict[int, Callable[[], None]]:
        """For each descriptor the callback that drains it into `receiver`, as far as `screen` lets it."""
        return {
            sock.fileno(): self._reader(sock, version, port, receiver, screen)
            for (version, port), sock in (*self._sockets.items(), *self._strangers.items())
        }

    def send(self, local: Endpoint, remote: Endpoint, data: bytes) -> None:
        """Sends an IKE message, with the marker where the port wants it. A send that fails is a lost datagram."""
        sock = self._sockets.get((remote.address.version, local.port))
        if sock is None:
            self._drop(f"no socket for IPv{remote.address.version} port {local.port}")
            return
        if local.port == PORT_NAT_TRAVERSAL and data != NAT_KEEPALIVE:
            data = NON_ESP_MARKER + data
        try:
            sock.sendmsg([data], _source(local.address), 0, (str(remote.address), remote.port))
        except OSError as error:
            self._drop(f"to {remote}: {error.strerror}")

    def close(self) -> None:
        """Closes all of them."""
        for sock in (*self._sockets.values(), *self._strangers.values()):
            sock.close()

    def _reader(
        self, sock: socket.socket, version: int, port: int, receiver: Receiver, screen: Screen
    ) -> Callable[[], None]:
        family, marker = sock.family, NON_ESP_MARKER if port == PORT_NAT_TRAVERSAL else b""
        buffer = bytearray(MAX_DATAGRAM_BYTES)
        view, buffers = memoryview(buffer), [buffer]

        def drain() -> None:
            for _ in range(DATAGRAMS_PER_TURN):
                try:
                    length, ancillary, _flags, source = sock.recvmsg_into(buffers, _ANCILLARY_BYTES)
                except BlockingIOError:
                    return
                except OSError as error:  # an ICMP error for an earlier datagram; the next read is clean
                    self._drop(f"port {port}: {error.strerror}")
                    continue
                if marker and (length < len(marker) or buffer[:4] != marker):
                    self.dropped += 1  # a keepalive, or ESP that nobody else takes
                    continue
                data = bytes(view[len(marker) : length])
                answer = screen(data, socket.inet_pton(family, source[0].partition("%")[0]))
                if answer is None:
                    self._deliver(
                        data, ancillary, Endpoint(address=_address(version, source[0]), port=source[1]), port, receiver
                    )
                elif answer:
                    self._answer(sock, marker + answer, ancillary, source)
                else:
                    self.dropped += 1

        return drain

    def _deliver(self, data: bytes, ancillary: Ancillary, remote: Endpoint, port: int, receiver: Receiver) -> None:
        local_address = _destination(ancillary)
        if local_address is None:
            self._drop("a datagram without its destination address")
            return
        receiver(data, Endpoint(address=local_address, port=port), remote)

    def _answer(self, sock: socket.socket, data: bytes, ancillary: Ancillary, source: Source) -> None:
        """Sends `data` back from where it came to, without making a word of it: under attack there are many."""
        try:
            sock.sendmsg([data], _same_way_back(ancillary), 0, source)
        except OSError as error:
            self._drop(f"to {source[0]}: {error.strerror}")

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        log.debug("datagram dropped: %s", reason)


class RoutingProbe:
    """Asks the kernel from which address it would send to a peer, by connecting a socket that never sends."""

    NAMES: Mapping[str, int] = {"route-v4": 4, "route-v6": 6}

    def __init__(self, descriptors: Mapping[str, int]) -> None:
        self._sockets = {
            version: socket.socket(fileno=descriptors[name])
            for name, version in self.NAMES.items()
            if name in descriptors
        }

    def source_address(self, remote: IpAddress) -> IpAddress | None:
        """Our address towards `remote`; None where there is no route."""
        sock = self._sockets.get(remote.version)
        if sock is None:
            return None
        try:
            sock.connect((str(remote), PORT_IKE))
            return _address(remote.version, sock.getsockname()[0])
        except OSError as error:
            log.debug("no route to %s: %s", remote, error.strerror)
            return None
        finally:
            # An address of family AF_UNSPEC dissolves the association, and the source address with it (connect(2)).
            _libc.connect(sock.fileno(), bytes(16), 16)

    def close(self) -> None:
        """Closes its sockets."""
        for sock in self._sockets.values():
            sock.close()


def _address(version: int, text: str) -> IpAddress:
    # A link-local source carries its zone ("fe80::1%2"); IKE speaks to global addresses.
    return ipaddress.IPv4Address(text) if version == 4 else ipaddress.IPv6Address(text.partition("%")[0])


def _same_way_back(ancillary: Ancillary) -> Ancillary:
    """Ancillary data that sends from the address that a datagram came to; the interface is left to routing."""
    return [
        (level, kind, bytes(4) + data[8:12] + bytes(4) if level == socket.IPPROTO_IP else data[:16] + bytes(4))
        for level, kind, data in ancillary
        if (level, kind) in _PKTINFO
    ]


def _destination(ancillary: Ancillary) -> IpAddress | None:
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return ipaddress.IPv4Address(_IN_PKTINFO.unpack(data)[2])
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return ipaddress.IPv6Address(_IN6_PKTINFO.unpack(data)[0])
    return None


def _source(address: IpAddress) -> Ancillary:
    """Ancillary data that sends from `address`; none for the wildcard, where routing chooses."""
    if address.is_unspecified:
        return []
    if address.version == 4:
        return [(socket.IPPROTO_IP, _IP_PKTINFO, _IN_PKTINFO.pack(0, address.packed, bytes(4)))]
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _IN6_PKTINFO.pack(address.packed, 0))]
