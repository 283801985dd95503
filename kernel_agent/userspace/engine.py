"""Descriptors, packet loop and event loop put together: the data path without its links to other roles."""

import os
import time
from collections.abc import Callable, Mapping

from ipc.loop import Loop
from kernel_agent.userspace.counters import CounterMemory
from kernel_agent.userspace.outer import Outer
from kernel_agent.userspace.processor import TICK_S, Processor
from kernel_agent.userspace.tun import Tun

OUTER_SOCKETS = ("esp-v4", "esp-v6", "udp4500-v4", "udp4500-v6")
PACKETS_PER_BATCH = 64
BATCHES_PER_TURN = 4
"""How much one wakeup reads from the device, before other descriptors and timers have their turn."""


class MissingDescriptor(Exception):
    """The supervisor did not hand over what the data path needs."""


class Engine:
    """Moves packets between the descriptors "tun", "counters" and OUTER_SOCKETS; those of IPv6 may be missing."""

    def __init__(self, loop: Loop, descriptors: Mapping[str, int], notify: Callable[[object], object]) -> None:
        """MissingDescriptor if one is not there; OSError if one is not what its name says. `notify` as in Processor."""
        missing = {"tun", "counters", "esp-v4", "udp4500-v4"} - set(descriptors)
        if missing:
            raise MissingDescriptor(", ".join(sorted(missing)))
        self._loop = loop
        self._tun = Tun(descriptors["tun"])
        self.outer = Outer(self._received, self._tun.write)
        self.processor = Processor(
            device=self._tun,
            outside=self.outer,
            memory=CounterMemory(descriptors["counters"]),
            notify=notify,
            clock=time.monotonic,
            first_acquire_id=int.from_bytes(os.urandom(4)) or 1,
        )
        for name in OUTER_SOCKETS:
            if name in descriptors:
                self.outer.add(name, descriptors[name])

    def start(self) -> None:
        """Takes packets from now on. Before, they wait where they are."""
        self._loop.add_reader(self._tun.descriptor, self._read_tun)
        for one in self.outer.sockets.values():
            self._loop.add_reader(one.socket.fileno(), one.receive)
        self._tick()

    def summary(self) -> str:
        """What was dropped and why, for people."""
        drops = [f"{count} {reason.value}" for reason, count in self.processor.drops.items() if count]
        if self.outer.dropped:
            drops.append(f"{self.outer.dropped} refused by the kernel")
        return "dropped packets: " + (", ".join(drops) or "none")

    def _received(self, packets: list[bytes], source: tuple[str, int] | None, tos: int) -> None:
        self.processor.inbound(packets, source, tos)

    def _read_tun(self) -> None:
        for _ in range(BATCHES_PER_TURN):
            packets = self._tun.read(PACKETS_PER_BATCH)
            if packets:
                self.processor.outbound(packets)
            if len(packets) < PACKETS_PER_BATCH:
                return

    def _tick(self) -> None:
        self._loop.call_later(TICK_S, self._tick)
        self.processor.tick()
