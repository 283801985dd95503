"""Pings at a fixed pace and waits for late answers: `python pinger.py DESTINATION SOURCE COUNT INTERVAL WAIT SIZE`.

Times are seconds, SOURCE may be empty, SIZE is the bytes behind the ICMP header. Prints one JSON object. ping(8) waits
for the last answers only twice as long as the slowest took before: where the machine stands still for a moment, it
counts as lost what comes. Here each answer has WAIT seconds.
"""

import json
import os
import select
import socket
import struct
import sys
import time

_ICMP_FILTER = 1
_ICMP6_FILTER = 1
_SOL_RAW = 255
_HEADER = struct.Struct("!BBHHH")


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def open_socket(v6: bool) -> socket.socket:
    """A raw socket that hears echo replies only."""
    if v6:
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        words = [0xFFFFFFFF] * 8
        words[129 // 32] &= ~(1 << 129 % 32)
        made.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        made.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF & ~1))
    return made


class Pings:
    """`count` echo requests and what came back."""

    def __init__(self, sock: socket.socket, destination: str, wait_s: float, size: int) -> None:
        self.times: dict[int, float] = {}
        """Round trips by number, in seconds."""
        self.sent: dict[int, float] = {}
        self.unsent = 0
        self._sock = sock
        self._destination = destination
        self._wait_s = wait_s
        self._payload = bytes(index & 0xFF for index in range(size))
        self._v6 = sock.family == socket.AF_INET6
        self._identifier = os.getpid() & 0xFFFF

    def send(self, number: int) -> None:
        """One request; the kernel may refuse it, which counts as one without an answer."""
        kind = 128 if self._v6 else 8
        body = _HEADER.pack(kind, 0, 0, self._identifier, number & 0xFFFF) + self._payload
        if not self._v6:
            body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        self.sent[number] = time.monotonic()
        try:
            self._sock.sendto(body, (self._destination, 0))
        except OSError:
            self.unsent += 1

    def hear_until(self, deadline: float, count: int = 0) -> None:
        """Takes answers until `deadline`, or until all that could be sent of `count` are answered."""
        while (left_s := deadline - time.monotonic()) > 0:
            if count and len(self.times) + self.unsent >= count:
                return
            if select.select([self._sock], [], [], left_s)[0]:
                self._take(self._sock.recv(65536))

    def _take(self, packet: bytes) -> None:
        icmp = packet if self._v6 else packet[(packet[0] & 0xF) * 4 :]
        _, _, _, identifier, number = _HEADER.unpack_from(icmp)
        if identifier != self._identifier or number not in self.sent or number in self.times:
            return
        took_s = time.monotonic() - self.sent[number]
        if took_s <= self._wait_s and icmp[_HEADER.size :] == self._payload:
            self.times[number] = took_s


def main() -> None:
    """As the module says."""
    destination, source = sys.argv[1:3]
    count, size = int(sys.argv[3]), int(sys.argv[6])
    interval_s, wait_s = float(sys.argv[4]), float(sys.argv[5])
    with open_socket(":" in destination) as sock:
        if source:
            sock.bind((source, 0))
        pings = Pings(sock, destination, wait_s, size)
        for number in range(count):
            pings.send(number)
            if number + 1 < count:
                pings.hear_until(time.monotonic() + interval_s)
        pings.hear_until(time.monotonic() + wait_s, count)
    times = pings.times.values()
    average_s = sum(times) / len(times) if times else 0.0
    seconds = {"average_s": average_s, "longest_s": max(times, default=0.0)}
    print(json.dumps({"sent": count, "received": len(times), **seconds}))


if __name__ == "__main__":
    main()
