"""Numbered datagrams at a fixed pace, each counted.

    flooder.py receive ADDRESS PORT COUNT SILENCE
    flooder.py send SOURCE DESTINATION PORT COUNT RATE

The receiver says now and then how far it is, and the sender is never more than WINDOW ahead of it: so no queue on the
way can overflow on a machine that stands still for a moment, and whatever is lost was dropped by somebody. Each prints
one JSON object. RATE is datagrams a second, SILENCE and all waits are seconds.
"""

import contextlib
import json
import select
import socket
import struct
import sys
import time

WINDOW = 256
TELL_EVERY = 16
TELL_AGAIN_S = 0.05
NO_ANSWER_S = 15.0
_NUMBER = struct.Struct("!Q")
_BUFFER_BYTES = 8 * 1024 * 1024
_SO_RCVBUFFORCE = 33


def _socket(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    made.bind((address, port))
    return made


def receive(address: str, port: int, count: int, silence_s: float) -> str:
    """Counts until all have come, or nothing comes any more."""
    seen: set[int] = set()
    twice, highest, told, sender = 0, -1, 0.0, None
    with _socket(address, port) as own:
        print("ready", flush=True)
        last = time.monotonic()
        while len(seen) < count and time.monotonic() - last < silence_s:
            if select.select([own], [], [], TELL_AGAIN_S)[0]:
                data, sender = own.recvfrom(2048)
                (number,) = _NUMBER.unpack_from(data)
                twice += number in seen
                seen.add(number)
                highest, last = max(highest, number), time.monotonic()
            if sender is not None and (highest % TELL_EVERY == 0 or time.monotonic() - told > TELL_AGAIN_S):
                told = time.monotonic()
                with contextlib.suppress(OSError):
                    own.sendto(_NUMBER.pack(highest), sender)
    return json.dumps({"received": len(seen), "twice": twice})


def send(source: str, destination: str, port: int, count: int, rate: float) -> str:
    """Sends `count`, `rate` a second at most."""
    refused, answered = 0, -1
    begin = time.monotonic()
    with _socket(source, 0) as own:
        own.setblocking(False)
        for number in range(count):
            heard = time.monotonic()
            while number - answered > WINDOW or time.monotonic() < begin + number / rate:
                if time.monotonic() - heard > NO_ANSWER_S:
                    return json.dumps({"sent": number, "refused": refused, "took_s": time.monotonic() - begin})
                wait_s = max(0.0, begin + number / rate - time.monotonic()) or 0.01
                if select.select([own], [], [], wait_s)[0]:
                    answered = max(answered, _NUMBER.unpack_from(own.recv(64))[0])
            try:
                own.sendto(_NUMBER.pack(number) + bytes(192), (destination, port))
            except OSError:
                refused += 1
    return json.dumps({"sent": count, "refused": refused, "took_s": time.monotonic() - begin})


if __name__ == "__main__":
    words = sys.argv[2:]
    if sys.argv[1] == "receive":
        print(receive(words[0], int(words[1]), int(words[2]), float(words[3])))
    else:
        print(send(words[0], words[1], int(words[2]), int(words[3]), float(words[4])))
