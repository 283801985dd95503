"""A NAT for UDP over IPv4 in a few lines of Python, for kernels that can't masquerade: it sits behind a TUN device.

inside -- forwarded into the TUN --> a port of its own at the public address --> forwarded to the outside, and back
"""

import contextlib
import fcntl
import os
import select
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from tests.lab.namespaces import Namespace

_DEVICE = "nat0"
_TABLE = "77"
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_UDP = 17
_IKE_PORTS = (500, 4500)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    address: bytes
    port: int


class PacketNat:
    """What is forwarded from the interfaces `inside` goes out from the address `public`, which none may have."""

    def __init__(self, namespace: Namespace, *, public: str, inside: tuple[str, ...]) -> None:
        self.namespace = namespace
        self._public = IPv4Address(public).packed
        self._inside = inside
        self._forward = b""
        self._free: Iterator[int] = iter(())
        self._by_inside: dict[_Place, int] = {}
        self._by_port: dict[int, _Place] = {}

    def forward_ike_to(self, address: str) -> None:
        """Lets what comes to UDP 500 and 4500 from outside through to a host inside."""
        self._forward = IPv4Address(address).packed

    def masquerade(self, ports: range) -> None:
        """New flows are given source ports of this range; mappings that there are stay."""
        self._free = iter(ports)

    def forget_mappings(self) -> None:
        """As after its restart: the next packet of each flow makes a new mapping."""
        self._by_inside, self._by_port = {}, {}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Translates, from here on."""
        device = self.namespace.call(_open_tun)
        end, ended = os.pipe()
        thread = threading.Thread(target=self._translate, args=(device, end))
        try:
            self.namespace.ip("link", "set", _DEVICE, "up")
            self.namespace.ip("route", "add", f"{IPv4Address(self._public)}/32", "dev", _DEVICE)
            self.namespace.ip("route", "add", "default", "dev", _DEVICE, "table", _TABLE)
            for interface in self._inside:
                self.namespace.ip("rule", "add", "iif", interface, "lookup", _TABLE)
            for setting, value in (("ip_forward", 1), ("conf/all/rp_filter", 0), (f"conf/{_DEVICE}/rp_filter", 0)):
                self._set(setting, value)
            self._set("conf/all/proxy_arp", 1)  # others on the wire find the public address here
            thread.start()
            yield
        finally:
            os.close(ended)
            if thread.ident is not None:
                thread.join()
            os.close(end)
            os.close(device)

    def _set(self, setting: str, value: int) -> None:
        self.namespace.run("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{setting}")

    def _translate(self, device: int, end: int) -> None:
        while True:
            ready, _, _ = select.select([device, end], [], [])
            if end in ready:
                return
            packet = self._translated(os.read(device, 65535))
            if packet is not None:
                os.write(device, packet)

    def _translated(self, packet: bytes) -> bytes | None:
        """A packet with its other addresses; None for what is no whole UDP packet, or comes for nobody."""
        header = (packet[0] & 0x0F) * 4
        if packet[0] >> 4 != 4 or packet[9] != _UDP or int.from_bytes(packet[6:8], "big") & 0x3FFF:
            return None
        source_port, destination_port = struct.unpack_from("!HH", packet, header)
        source, destination = packet[12:16], packet[16:20]
        if destination == self._public:
            place = self._by_port.get(destination_port)
            if place is None and self._forward and destination_port in _IKE_PORTS:
                place = _Place(address=self._forward, port=destination_port)
            if place is None:
                return None
            destination, destination_port = place.address, place.port
        else:
            source, source_port = self._public, self._port_of(_Place(address=source, port=source_port))
        ports = struct.pack("!HH", source_port, destination_port)
        ip = packet[:10] + b"\0\0" + source + destination + packet[20:header]
        ip = ip[:10] + _checksum(ip) + ip[12:]
        udp = ports + packet[header + 4 : header + 6]
        data = packet[header + 8 :]
        sum_ = b"\0\0"
        if packet[header + 6 : header + 8] != sum_:
            pseudo = source + destination + struct.pack("!HH", _UDP, len(udp) + 2 + len(data))
            sum_ = _checksum(pseudo + udp + sum_ + data)
        return ip + udp + sum_ + data

    def _port_of(self, place: _Place) -> int:
        if place.address == self._forward and place.port in _IKE_PORTS:
            return place.port
        if place not in self._by_inside:
            port = next(self._free)
            self._by_inside[place], self._by_port[port] = port, place
        return self._by_inside[place]


def _open_tun() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN_NO_PI))
    return device


def _checksum(data: bytes) -> bytes:
    """RFC 1071; of UDP, where 0 means none (RFC 768)."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ((~total & 0xFFFF) or 0xFFFF).to_bytes(2, "big")
