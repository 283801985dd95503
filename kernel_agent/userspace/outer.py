"""The outer side: ESP packets over raw IP and over UDP 4500 (RFC 3948), with the kernel's batching where it has it.

The sockets come from the supervisor, bound, marked and with their own bypass policies. Here they get what needs no
privilege: UDP_GRO, error queues, DF, buffers. A killed process loses nothing that waits in them.
"""

import errno
import ipaddress
import logging
import select
import socket
import struct
from collections.abc import Callable

from ipc.types import IpAddress
from kernel_agent.userspace import packet as ip

log = logging.getLogger(__name__)

UDP_SEGMENT = 103
UDP_GRO = 104
IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IP_RECVERR = 11
IP_RECVTOS = 13
IPV6_MTU_DISCOVER = 23
IPV6_RECVERR = 25
PMTUDISC_DONT = 0
PMTUDISC_DO = 2

BUFFER_BYTES = 4 * 1024 * 1024
"""Asked for in each direction; the kernel gives what its limits allow."""
MAX_SEGMENTS = 64
MAX_RUN_BYTES = 65_000
"""Of one send with UDP_SEGMENT."""
READS_PER_TURN = 32
RAW_READS_PER_TURN = 64
ERRORS_PER_TURN = 64
SEND_WAIT_MS = 20
"""How long a send waits for room in the socket's buffer before the packets are dropped."""
_ANCILLARY_BYTES = 256

_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_IN_PKTINFO = struct.Struct("=i4s4s")
_IN6_PKTINFO = struct.Struct("=16si")
_U16 = struct.Struct("=H")
_INT = struct.Struct("=i")

Ancillary = list[tuple[int, int, bytes]]
Received = Callable[[list[bytes], tuple[str, int] | None, int], None]
"""(ESP packets, UDP source or None for raw IP, outer traffic class)."""
StrayIke = Callable[[bytes], object]
"""A whole IP packet that belongs to IKE."""


class Route:
    """Where and how the packets of one SA with one traffic class go; everything that a send needs, made beforehand."""

    __slots__ = ("address", "ancillary", "by_size", "socket", "udp")

    def __init__(self, sending: "OuterSocket", address: tuple[str, int], ancillary: Ancillary, udp: bool) -> None:
        self.socket = sending
        self.address = address
        self.ancillary = ancillary
        self.udp = udp
        self.by_size: dict[int, Ancillary] = {}

    def segmented(self, size: int) -> Ancillary:
        """The ancillary data for a run of packets of `size` bytes."""
        data = self.by_size.get(size)
        if data is None:
            data = self.by_size[size] = [*self.ancillary, (socket.SOL_UDP, UDP_SEGMENT, _U16.pack(size))]
        return data


class NoSocket(LookupError):
    """There is no socket of that kind: the host has no IPv6."""


class OuterSocket:
    """One of the outer sockets."""

    def __init__(self, descriptor: int, received: Received) -> None:
        self.socket = socket.socket(fileno=descriptor)
        self.socket.setblocking(False)
        self._received = received
        self._v6 = self.socket.family == socket.AF_INET6
        self._level = socket.IPPROTO_IPV6 if self._v6 else socket.IPPROTO_IP
        self._discover = IPV6_MTU_DISCOVER if self._v6 else IP_MTU_DISCOVER
        self.socket.setsockopt(self._level, IPV6_RECVERR if self._v6 else IP_RECVERR, 1)
        received_class = socket.IPV6_RECVTCLASS if self._v6 else IP_RECVTOS
        self.socket.setsockopt(self._level, received_class, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._fragment(False)

    def route(self, source: IpAddress, destination: IpAddress, port: int, tos: int) -> Route:
        """A route from one of our addresses."""
        ancillary: Ancillary
        if self._v6:
            ancillary = [
                (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _IN6_PKTINFO.pack(source.packed, 0)),
                (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _INT.pack(tos)),
            ]
        else:
            ancillary = [
                (socket.IPPROTO_IP, IP_PKTINFO, _IN_PKTINFO.pack(0, source.packed, bytes(4))),
                (socket.IPPROTO_IP, socket.IP_TOS, _INT.pack(tos)),
            ]
        return Route(self, (str(destination), port), ancillary, udp=isinstance(self, UdpSocket))

    def send(self, buffers: list[bytes], ancillary: Ancillary, address: tuple[str, int]) -> int:
        """One datagram, or one run of them; 0, or the path MTU if it was too long for it (then nothing is sent).

        OSError for anything else that the kernel says.
        """
        for _ in range(3):
            try:
                self.socket.sendmsg(buffers, ancillary, socket.MSG_DONTWAIT, address)
                return 0
            except BlockingIOError:
                poll = select.poll()
                poll.register(self.socket, select.POLLOUT)
                poll.poll(SEND_WAIT_MS)
            except OSError as error:
                mtu = self.read_errors()
                if error.errno == errno.EMSGSIZE:
                    return mtu or ip.IPV6_MINIMUM_MTU
                # Else perhaps the answer to an earlier packet (ICMP), reported by the next call: try again.
                last = error
                continue
            last = OSError(errno.ENOBUFS, "the socket's buffer stays full")
        raise last

    def send_fragmented(self, data: bytes, ancillary: Ancillary, address: tuple[str, int]) -> None:
        """One datagram that may be longer than the path MTU; OSError."""
        self._fragment(True)
        try:
            self.socket.sendmsg([data], ancillary, socket.MSG_DONTWAIT, address)
        finally:
            self._fragment(False)

    def read_errors(self) -> int:
        """Empties the error queue; the last MTU that it told, or 0."""
        mtu = 0
        for _ in range(ERRORS_PER_TURN):
            try:
                ancillary = self.socket.recvmsg(0, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)[1]
            except BlockingIOError:
                break
            for _level, _kind, data in ancillary:
                if len(data) >= _EXTENDED_ERROR.size:
                    number, *_rest, info, _data = _EXTENDED_ERROR.unpack_from(data)
                    mtu = info if number == errno.EMSGSIZE else mtu
        return mtu

    def _fragment(self, allowed: bool) -> None:
        self.socket.setsockopt(self._level, self._discover, PMTUDISC_DONT if allowed else PMTUDISC_DO)


class RawSocket(OuterSocket):
    """ESP as an IP protocol. IPv4 delivers the IP header too, IPv6 does not."""

    def receive(self) -> None:
        """Reads what waits, up to a limit."""
        packets: dict[int, list[bytes]] = {}
        count = 0
        try:
            while count < RAW_READS_PER_TURN:
                if self._v6:
                    data, ancillary, _flags, _address = self.socket.recvmsg(65535, _ANCILLARY_BYTES)
                    packets.setdefault(_read_ancillary(ancillary).tos, []).append(data)
                else:
                    data = self.socket.recv(65535)
                    packets.setdefault(data[1], []).append(data[(data[0] & 0xF) * 4 :])
                count += 1
        except BlockingIOError:
            if not count:
                self.read_errors()
        except OSError as error:
            log.debug("raw socket: %s", error)
            self.read_errors()
        for tos, batch in packets.items():
            self._received(batch, None, tos)


class UdpSocket(OuterSocket):
    """UDP 4500. The kernel hands over what does not start with four zero bytes, several datagrams at once (UDP_GRO)."""

    def __init__(self, descriptor: int, received: Received, stray_ike: StrayIke) -> None:
        super().__init__(descriptor, received)
        self._stray_ike = stray_ike
        self._port: int = self.socket.getsockname()[1]
        self._buffer = bytearray(65536)
        self._view = memoryview(self._buffer)
        self.socket.setsockopt(socket.SOL_UDP, UDP_GRO, 1)

    def receive(self) -> None:
        """Reads what waits, up to a limit."""
        count = 0
        view, receive, buffers = self._view, self.socket.recvmsg_into, [self._buffer]
        try:
            while count < READS_PER_TURN:
                length, ancillary, _flags, address = receive(buffers, _ANCILLARY_BYTES)
                count += 1
                about = _read_ancillary(ancillary)
                step = about.segment_bytes or length
                packets = (
                    [bytes(view[start : min(start + step, length)]) for start in range(0, length, step)]
                    if length
                    else []
                )
                if len(packets) > 1 and packets[-1][:4] == bytes(4):
                    self._hand_on(packets.pop(), address, about)
                self._received(packets, address[:2], about.tos)
        except BlockingIOError:
            if not count:
                self.read_errors()
        except OSError as error:
            log.debug("UDP socket: %s", error)
            self.read_errors()

    def _hand_on(self, datagram: bytes, address: tuple[str, int], about: "_About") -> None:
        """UDP_GRO may append an IKE message to ESP of the same flow, before the group's program can tell them apart."""
        if about.destination is None:
            return
        source = ipaddress.ip_address(address[0].partition("%")[0])
        self._stray_ike(
            ip.udp_packet(
                source=source,
                source_port=address[1],
                destination=about.destination,
                port=self._port,
                payload=datagram,
            )
        )


class _About:
    """What came with a datagram."""

    __slots__ = ("destination", "segment_bytes", "tos")

    def __init__(self) -> None:
        self.tos = 0
        self.segment_bytes = 0
        self.destination: IpAddress | None = None


def _read_ancillary(ancillary: Ancillary) -> _About:
    about = _About()
    for level, kind, data in ancillary:
        if level == socket.SOL_UDP and kind == UDP_GRO:
            about.segment_bytes = _INT.unpack(data)[0]
        elif level == socket.IPPROTO_IP and kind == socket.IP_TOS:
            about.tos = data[0]
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_TCLASS:
            about.tos = _INT.unpack(data)[0]
        elif level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            about.destination = ipaddress.IPv4Address(data[8:12])
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            about.destination = ipaddress.IPv6Address(data[:16])
    return about


class Outer:
    """All outer sockets. `received` gets ESP packets, `stray_ike` IP packets that must go to the host's own stack."""

    def __init__(self, received: Received, stray_ike: StrayIke) -> None:
        self._received = received
        self._stray_ike = stray_ike
        self.sockets: dict[str, RawSocket | UdpSocket] = {}
        self.dropped = 0
        """Packets that the kernel would not send."""
        self._segmentation = True

    def add(self, name: str, descriptor: int) -> None:
        """Takes over the descriptor of this name: "esp-v4", "esp-v6", "udp4500-v4" or "udp4500-v6"."""
        if name.startswith("udp"):
            self.sockets[name] = UdpSocket(descriptor, self._received, self._stray_ike)
        else:
            self.sockets[name] = RawSocket(descriptor, self._received)

    def route(self, *, source: IpAddress, destination: IpAddress, port: int, tos: int) -> Route:
        """How to send from `source` to `destination`: UDP to `port`, raw if that is 0; NoSocket."""
        name = f"{'udp4500' if port else 'esp'}-v{destination.version}"
        if name not in self.sockets:
            raise NoSocket(name)
        return self.sockets[name].route(source, destination, port, tos)

    def send(self, route: Route, packets: list[bytes]) -> int:
        """Sends ESP packets. The path MTU if some were longer than it (they went in fragments), else 0."""
        if not route.udp or not self._segmentation or len(packets) == 1:
            return max([self._send_one(route, packet) for packet in packets])
        mtu, start, end = 0, 0, len(packets)
        while start < end:
            stop = run_end(packets, start)
            mtu = self._send_run(route, packets[start:stop]) or mtu
            start = stop
        return mtu

    def _send_run(self, route: Route, run: list[bytes]) -> int:
        if len(run) > 1:
            try:
                if not route.socket.send(run, route.segmented(len(run[0])), route.address):
                    return 0
            except OSError as error:
                if error.errno == errno.EIO:  # this device can't
                    log.info("no UDP segmentation here: packets are sent one by one")
                    self._segmentation = False
                elif error.errno not in (errno.EINVAL, errno.EMSGSIZE):
                    self.dropped += len(run)
                    return 0
        return max([self._send_one(route, packet) for packet in run])

    def _send_one(self, route: Route, packet: bytes) -> int:
        try:
            mtu = route.socket.send([packet], route.ancillary, route.address)
            if mtu:
                route.socket.send_fragmented(packet, route.ancillary, route.address)
        except OSError as error:
            log.debug("not sent to %s: %s", route.address[0], error)
            self.dropped += 1
            return 0
        return mtu


def run_end(packets: list[bytes], start: int) -> int:
    """Where the run from `start` ends that one UDP_SEGMENT send takes: equal lengths, the last may be shorter."""
    size = len(packets[start])
    limit = min(len(packets), start + min(MAX_SEGMENTS, max(1, MAX_RUN_BYTES // size)))
    stop = start + 1
    while stop < limit:
        length = len(packets[stop])
        if length > size:
            break
        stop += 1
        if length < size:
            break
    return stop
