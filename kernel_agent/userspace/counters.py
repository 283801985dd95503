"""The counter memory: what of an SA must outlive a killed data path, in a memfd that the supervisor keeps.

Sequence numbers that never repeat under one key, the replay window, the traffic counters. Each SA has a slot of fixed
size. Numbers are stored whole (native, aligned 64-bit stores), in an order that leaves a slot right wherever SIGKILL
falls between two of them.
"""

import mmap
import os
import struct

from ipc.value import value
from kernel_agent.userspace.replay import BITMAP_BYTES

SLOTS = 65536
SLOT_BYTES = 1152
"""The memory is sparse: a slot costs its pages once it is used."""

# Offsets in a slot.
_TAG = 0
_INSTALLED_AT = 16
_TRAFFIC = 24  # last used (s), packets, bytes
_NEXT_SEQUENCE = 48
_BANK = 56  # which of two copies of the window counts
_WINDOWS = (64, 64 + 8 + BITMAP_BYTES)

# "@": one store for each number; with "<" Python writes byte by byte, and a kill could leave half a number.
_TRAFFIC_FIELDS = struct.Struct("@dQQ")
_NUMBER = struct.Struct("@Q")
_SECONDS = struct.Struct("@d")


class SlotRefused(ValueError):
    """The slot does not exist, or belongs to another SA."""


@value
class Traffic:
    """Packets and bytes of an SA since it was installed, and when the last one came (monotonic seconds)."""

    packets: int
    bytes: int
    last_used: float


@value
class Window:
    """A replay window, as in `ReplayWindow`."""

    highest: int
    seen: int


class Slot:
    """The counters of one SA, in the memory."""

    __slots__ = ("_view", "index")

    def __init__(self, view: memoryview, index: int) -> None:
        self._view = view
        self.index = index

    def belongs_to(self, tag: bytes) -> bool:
        """Whether this slot counts for the SA of this tag."""
        return self._view[_TAG : _TAG + 16] == tag

    def start(self, tag: bytes, now: float) -> None:
        """Starts at zero for a new SA; its first sequence number is 1 (RFC 4303 section 3.3.3)."""
        self._view[:] = bytes(SLOT_BYTES)
        _NUMBER.pack_into(self._view, _NEXT_SEQUENCE, 1)
        _SECONDS.pack_into(self._view, _INSTALLED_AT, now)
        _SECONDS.pack_into(self._view, _TRAFFIC, now)
        self._view[_TAG : _TAG + 16] = tag

    @property
    def installed_at(self) -> float:
        """When the SA was installed, monotonic seconds."""
        when: float = _SECONDS.unpack_from(self._view, _INSTALLED_AT)[0]
        return when

    @property
    def next_sequence(self) -> int:
        """The first sequence number that has never been sent."""
        number: int = _NUMBER.unpack_from(self._view, _NEXT_SEQUENCE)[0]
        return number

    def store_next_sequence(self, number: int) -> None:
        """To be called before any packet with a number below `number` is sent."""
        _NUMBER.pack_into(self._view, _NEXT_SEQUENCE, number)

    @property
    def traffic(self) -> Traffic:
        """The traffic counters."""
        last_used, packets, octets = _TRAFFIC_FIELDS.unpack_from(self._view, _TRAFFIC)
        return Traffic(packets=packets, bytes=octets, last_used=last_used)

    def store_traffic(self, packets: int, octets: int, last_used: float) -> None:
        """Sets the traffic counters."""
        _TRAFFIC_FIELDS.pack_into(self._view, _TRAFFIC, last_used, packets, octets)

    @property
    def window(self) -> Window:
        """The replay window that was stored last."""
        offset = _WINDOWS[self._bank()]
        return Window(
            highest=_NUMBER.unpack_from(self._view, offset)[0],
            seen=int.from_bytes(self._view[offset + 8 : offset + 8 + BITMAP_BYTES], "little"),
        )

    def store_window(self, highest: int, seen: int) -> None:
        """To be called before any packet it marks is delivered. Both or neither: the copy not in use is written."""
        bank = 1 - self._bank()
        offset = _WINDOWS[bank]
        _NUMBER.pack_into(self._view, offset, highest)
        self._view[offset + 8 : offset + 8 + BITMAP_BYTES] = seen.to_bytes(BITMAP_BYTES, "little")
        _NUMBER.pack_into(self._view, _BANK, bank)

    def _bank(self) -> int:
        return int(_NUMBER.unpack_from(self._view, _BANK)[0]) & 1


class CounterMemory:
    """All slots, mapped from `descriptor`, which is made as long as it must be."""

    def __init__(self, descriptor: int) -> None:
        if os.fstat(descriptor).st_size < SLOTS * SLOT_BYTES:
            os.ftruncate(descriptor, SLOTS * SLOT_BYTES)
        self._view = memoryview(mmap.mmap(descriptor, SLOTS * SLOT_BYTES))

    def slot(self, index: int) -> Slot:
        """The slot of this number; SlotRefused if there is none."""
        if not 0 <= index < SLOTS:
            raise SlotRefused(f"slot {index} of {SLOTS}")
        return Slot(self._view[index * SLOT_BYTES : (index + 1) * SLOT_BYTES], index)
