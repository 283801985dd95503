"""Numbered datagrams at a fixed pace, each counted.

    flooder.py receive ADDRESS PORT
    flooder.py send SOURCE DESTINATION PORT COUNT RATE

The sender ends after COUNT, or at SIGTERM, and when the receiver has seen its last; the receiver at SIGTERM, when no
more comes. The receiver says now and then how far it is, and the sender is never more than WINDOW ahead of it: so no
queue on the way can overflow on a machine that stands still for a moment, and whatever is lost was dropped by somebody.
Each prints one JSON object. RATE is datagrams a second.
"""

import contextlib
import json
import select
import signal
import socket
import struct
import sys
import time

WINDOW = 256
TELL_EVERY = 16
TELL_AGAIN_S = 0.05
NO_ANSWER_S = 15.0
QUIET_S = 1.0
_NUMBER = struct.Struct("!Q")
_BUFFER_BYTES = 8 * 1024 * 1024
_SO_RCVBUFFORCE = 33


def _socket(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    made.bind((address, port))
    return made


class _Told:
    """Whether SIGTERM has come."""

    def __init__(self) -> None:
        self.to_end = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.to_end = True


def receive(address: str, port: int) -> str:
    """Counts until it is told to end and nothing comes any more."""
    told_to, seen, twice, highest, told, sender = _Told(), set[int](), 0, -1, 0.0, None
    with _socket(address, port) as own:
        print("ready", flush=True)
        last = time.monotonic()
        while not told_to.to_end or time.monotonic() - last < QUIET_S:
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


class Sender:
    """Sends, and hears how far the receiver is."""

    def __init__(self, own: socket.socket, destination: tuple[str, int]) -> None:
        self.sent = 0
        self.refused = 0
        self._answered = -1
        self._own = own
        self._destination = destination
        own.setblocking(False)

    def send(self) -> None:
        """One more, if the kernel takes it."""
        try:
            self._own.sendto(_NUMBER.pack(self.sent) + bytes(192), self._destination)
        except OSError:
            self.refused += 1
        self.sent += 1

    def wait(self, ahead: int, until: float) -> bool:
        """Until `until`, and until the receiver is at most `ahead` behind; False if it says nothing for too long."""
        begin = time.monotonic()
        while self.sent - 1 - self._answered > ahead or time.monotonic() < until:
            if time.monotonic() - begin > NO_ANSWER_S:
                return False
            wait_s = max(0.0, until - time.monotonic()) or 0.01
            if select.select([self._own], [], [], wait_s)[0]:
                self._answered = max(self._answered, _NUMBER.unpack_from(self._own.recv(64))[0])
        return True


def send(source: str, destination: str, port: int, count: int, rate: float) -> str:
    """Sends `count`, `rate` a second at most, or fewer if it is told to end."""
    told, begin = _Told(), time.monotonic()
    with _socket(source, 0) as own:
        sender = Sender(own, (destination, port))
        while sender.sent < count and not told.to_end and sender.wait(WINDOW, begin + sender.sent / rate):
            sender.send()
        took_s = time.monotonic() - begin
        sender.wait(0, 0.0)
    return json.dumps({"sent": sender.sent, "refused": sender.refused, "took_s": took_s})


if __name__ == "__main__":
    words = sys.argv[2:]
    if sys.argv[1] == "receive":
        print(receive(words[0], int(words[1])))
    else:
        print(send(words[0], words[1], int(words[2]), int(words[3]), float(words[4])))
