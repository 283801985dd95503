"""The TUN device, as a descriptor: whole IP packets in and out, no packet information header."""

import os


class Tun:
    """The descriptor of a TUN device (IFF_TUN | IFF_NO_PI) that the supervisor opened and keeps."""

    LONGEST_PACKET = 65535

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor

    def read(self, limit: int) -> list[bytes]:
        """Up to `limit` packets that wait to be protected."""
        packets: list[bytes] = []
        take, read, descriptor, longest = packets.append, os.read, self.descriptor, self.LONGEST_PACKET
        try:
            for _ in range(limit):
                take(read(descriptor, longest))
        except BlockingIOError:
            pass
        return packets

    def write(self, packet: bytes) -> bool:
        """Hands a packet to the host; False if it takes it not: the device is down, or it is no IP packet."""
        try:
            os.write(self.descriptor, packet)
        except OSError:
            return False
        return True
