"""What was on a wire: every frame that either end sent, captured by AF_PACKET and told apart by kind.

The question that a capture answers: did anything but IKE, ESP and neighbour discovery pass? Only what an end sends is
taken, at both ends: what kernel ESP has decapsulated looks to a capture as if it had come in by the wire. Formats:
RFC 7296 section 3.1 (IKE header), RFC 3948 section 2 (UDP 4500), RFC 4303 section 2 (ESP).
"""

import contextlib
import enum
import ipaddress
import selectors
import socket
import struct
import threading
import time
from bisect import insort
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.namespaces import WIRE, Gateways, LabError

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_ANCILLARY_BYTES = socket.CMSG_SPACE(16)
_PACKET_OUTGOING = 4
_RECEIVE_BUFFER_BYTES = 64 * 1024 * 1024
_ND_TYPES = range(133, 138)  # RFC 4861
_MLD_TYPES = (130, 131, 132, 143)  # RFC 2710, RFC 3810
_IKE_PORTS = (500, 4500)


class Kind(enum.StrEnum):
    """What a frame is. CLEAR is whatever is none of the others."""

    IKE = "IKE"
    ESP = "ESP"
    ESP_IN_UDP = "ESP in UDP"
    KEEPALIVE = "NAT keepalive"
    NEIGHBOUR = "ARP/ND"
    ERROR = "ICMP error about IKE or ESP"
    CLEAR = "clear"


class Exchange(enum.IntEnum):
    """IKEv2 exchange types (RFC 7296 section 3.1)."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeHeader:
    """What can be read of an IKE message without keys."""

    spi_i: bytes
    spi_r: bytes
    exchange: int
    response: bool
    from_initiator: bool
    message_id: int

    def __str__(self) -> str:
        known = {item.value: item.name for item in Exchange}
        kind = "response" if self.response else "request"
        return f"{known.get(self.exchange, self.exchange)} {kind} {self.message_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame. `time` is seconds since the epoch, `sender` the label of the namespace that sent it."""

    time: float
    sender: str
    data: bytes
    kind: Kind
    description: str
    ike: IkeHeader | None = None
    spi: int = 0
    """Of ESP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packet:
    """An IP packet taken apart as far as its payload."""

    source: str
    destination: str
    protocol: int
    payload: bytes
    fragment: bool

    def __str__(self) -> str:
        return f"{self.source} > {self.destination}"


def classify(data: bytes, *, seen_at: float = 0.0, sender: str = "") -> Frame:
    """What kind of Ethernet frame `data` is. What is cut short or only looks like IKE or ESP is CLEAR."""

    def frame(kind: Kind, description: str, ike: IkeHeader | None = None, spi: int = 0) -> Frame:
        return Frame(time=seen_at, sender=sender, data=data, kind=kind, description=description, ike=ike, spi=spi)

    ethertype = int.from_bytes(data[12:14])
    if ethertype == 0x0806:
        return frame(Kind.NEIGHBOUR, "ARP")
    packet = {0x0800: _ipv4, 0x86DD: _ipv6}.get(ethertype, _no_ip)(data[14:])
    if packet is None:
        return frame(Kind.CLEAR, f"ethertype {ethertype:#06x}, {len(data)} bytes")
    payload = packet.payload
    if packet.protocol == 50 and (packet.fragment or len(payload) >= 8):
        return frame(Kind.ESP, f"{packet} ESP", spi=int.from_bytes(payload[:4]))
    if packet.protocol == 58 and payload and (payload[0] in _ND_TYPES or payload[0] in _MLD_TYPES):
        return frame(Kind.NEIGHBOUR, f"{packet} ICMPv6 type {payload[0]}")
    if packet.protocol == 17 and not packet.fragment and len(payload) >= 8:
        source_port, destination_port = struct.unpack("!HH", payload[:4])
        body = payload[8:]
        if source_port in _IKE_PORTS or destination_port in _IKE_PORTS:
            on_4500 = 4500 in (source_port, destination_port)
            if on_4500 and body == b"\xff":
                return frame(Kind.KEEPALIVE, f"{packet} NAT keepalive")
            marked = on_4500 and body[:4] == bytes(4)
            ike = _ike_header(body[4:] if marked else body) if marked or not on_4500 else None
            if ike is not None:
                return frame(Kind.IKE, f"{packet} {ike}", ike=ike)
            if on_4500 and not marked and len(body) >= 8:
                return frame(Kind.ESP_IN_UDP, f"{packet} ESP in UDP", spi=int.from_bytes(body[:4]))
        return frame(Kind.CLEAR, f"{packet} UDP {source_port} > {destination_port}")
    if _is_error_about_ours(packet):
        return frame(Kind.ERROR, f"{packet} ICMP type {payload[0]} code {payload[1]} about IKE or ESP")
    return frame(Kind.CLEAR, f"{packet} protocol {packet.protocol}, {len(data)} bytes")


def _no_ip(_data: bytes) -> _Packet | None:
    return None


def _ipv4(data: bytes) -> _Packet | None:
    header = (data[0] & 15) * 4 if data else 0
    if header < 20 or len(data) < header:
        return None
    total = int.from_bytes(data[2:4])
    offset_and_flags = int.from_bytes(data[6:8])
    return _Packet(
        source=str(ipaddress.IPv4Address(data[12:16])),
        destination=str(ipaddress.IPv4Address(data[16:20])),
        protocol=data[9],
        payload=data[header:total] if total else data[header:],
        fragment=offset_and_flags & 0x1FFF != 0,
    )


def _ipv6(data: bytes) -> _Packet | None:
    if len(data) < 40:
        return None
    protocol, payload, fragment = data[6], data[40:], False
    while protocol in (0, 43, 44, 60) and len(payload) >= 8:
        following = payload[0]
        if protocol == 44:
            fragment = fragment or int.from_bytes(payload[2:4]) & 0xFFF8 != 0
        length = 8 if protocol == 44 else (payload[1] + 1) * 8
        protocol, payload = following, payload[length:]
    return _Packet(
        source=str(ipaddress.IPv6Address(data[8:24])),
        destination=str(ipaddress.IPv6Address(data[24:40])),
        protocol=protocol,
        payload=payload,
        fragment=fragment,
    )


def _is_error_about_ours(packet: _Packet) -> bool:
    """Whether it is an ICMP error that quotes a packet of IKE or ESP: "port unreachable" while nobody listens, say."""
    four, six = packet.protocol == 1, packet.protocol == 58
    if not packet.payload or not ((four and packet.payload[0] in (3, 11, 12)) or (six and packet.payload[0] < 128)):
        return False
    quoted = (_ipv4 if four else _ipv6)(packet.payload[8:])
    if quoted is None:
        return False
    ports = struct.unpack("!HH", quoted.payload[:4]) if len(quoted.payload) >= 4 else ()
    return quoted.protocol == 50 or (quoted.protocol == 17 and any(port in _IKE_PORTS for port in ports))


def _ike_header(data: bytes) -> IkeHeader | None:
    """The header of an IKEv2 message that is as long as it says, else None."""
    if len(data) < 28 or data[17] >> 4 != 2 or int.from_bytes(data[24:28]) != len(data):
        return None
    return IkeHeader(
        spi_i=data[:8],
        spi_r=data[8:16],
        exchange=data[18],
        response=bool(data[19] & 0x20),
        from_initiator=bool(data[19] & 0x08),
        message_id=int.from_bytes(data[20:24]),
    )


class Capture:
    """A capture of the wire between two gateways, from `with` to its end. `frames` grows meanwhile, ordered by time."""

    def __init__(self, pair: Gateways) -> None:
        self.frames: list[Frame] = []
        self.missed = 0
        self._taps = {namespace.call(_open): namespace.label for namespace in (pair.left, pair.right)}
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._read, name="capture", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the capture, with all that has arrived by now in `frames`; harmless if it has ended."""
        if not self._taps:
            return
        self._stop_writer.send(b".")
        self._thread.join(10.0)
        for tap in self._taps:
            _packets, missed = struct.unpack("=II", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
            self.missed += missed
        for one in (*self._taps, self._stop_reader, self._stop_writer):
            one.close()
        self._taps.clear()

    def counts(self) -> Counter[Kind]:
        """How many frames of each kind."""
        return Counter(frame.kind for frame in tuple(self.frames))

    def of_kind(self, *kinds: Kind) -> list[Frame]:
        """The frames of these kinds, in order."""
        return [frame for frame in tuple(self.frames) if frame.kind in kinds]

    def wait_for(self, kind: Kind, *, count: int = 1, timeout_s: float = 10.0) -> list[Frame]:
        """Waits until so many frames of a kind are there; LabError if they do not come."""
        deadline = time.monotonic() + timeout_s
        while len(found := self.of_kind(kind)) < count:
            if time.monotonic() > deadline:
                raise LabError(f"{len(found)} frames of {kind} in {timeout_s:g} s, not {count}")
            time.sleep(0.01)
        return found

    def summary(self) -> str:
        """For people: "12 IKE, 2,030 ESP in UDP, 4 ARP/ND"."""
        counts = self.counts()
        return ", ".join(f"{counts[kind]:,} {kind}" for kind in Kind if counts[kind]) or "nothing"

    def assert_nothing_clear(self) -> None:
        """AssertionError, with the first such frames, if anything was in clear or the capture has missed frames."""
        clear = self.of_kind(Kind.CLEAR)
        assert not clear, f"{len(clear)} frames in clear: {'; '.join(frame.description for frame in clear[:5])}"
        assert not self.missed, f"the capture missed {self.missed} frames"

    def write_pcap(self, path: Path) -> None:
        """Writes the frames as a pcap file (link type Ethernet)."""
        with path.open("wb") as file:
            file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
            for frame in tuple(self.frames):
                seconds = int(frame.time)
                microseconds = int((frame.time - seconds) * 1e6)
                file.write(struct.pack("=IIII", seconds, microseconds, len(frame.data), len(frame.data)))
                file.write(frame.data)

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            for tap in self._taps:
                selector.register(tap, selectors.EVENT_READ)
            stop = selector.register(self._stop_reader, selectors.EVENT_READ)
            stopping = False
            while not stopping:
                stopping = any(key is stop for key, _ in selector.select(1.0))
                for tap, sender in self._taps.items():
                    self._take_all(tap, sender)

    def _take_all(self, tap: socket.socket, sender: str) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _, address = tap.recvmsg(262144, _ANCILLARY_BYTES)
                if address[2] == _PACKET_OUTGOING:
                    seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
                    frame = classify(data, seen_at=seconds + nanoseconds / 1e9, sender=sender)
                    insort(self.frames, frame, key=lambda one: one.time)


def _open() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
    made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    made.bind((WIRE, _ETH_P_ALL))
    made.setblocking(False)
    return made
