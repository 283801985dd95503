"""The anti-replay window and 64-bit sequence numbers of an inbound SA. Pure. RFC 4303 section 3.4.3 and appendix A."""

MAX_WINDOW_PACKETS = 4096
MIN_WINDOW_PACKETS = 64
"""RFC 4303 section 3.4.3: 32 MUST be supported, 64 is the one to prefer."""
BITMAP_BYTES = MAX_WINDOW_PACKETS // 8


class ReplayWindow:
    """Which of the last `size` sequence numbers have been seen.

    `highest` is the right edge of the window, 0 before the first packet; bit n of `seen` stands for highest - n.
    """

    __slots__ = ("_mask", "highest", "seen", "size")

    def __init__(self, size: int, highest: int = 0, seen: int = 0) -> None:
        self.size = min(max(size, MIN_WINDOW_PACKETS), MAX_WINDOW_PACKETS)
        self._mask = (1 << self.size) - 1
        self.highest = highest
        self.seen = seen & self._mask

    def admits(self, sequence: int) -> bool:
        """Whether `sequence` (all 64 bits) is new and not too old. Changes nothing: the ICV comes first."""
        behind = self.highest - sequence
        if behind < 0:
            return True
        return behind < self.size and not self.seen >> behind & 1 and sequence > 0

    def mark(self, sequence: int) -> None:
        """Notes `sequence` as seen; only for one that was admitted and whose packet is authentic."""
        ahead = sequence - self.highest
        if ahead <= 0:
            self.seen |= 1 << -ahead
            return
        self.seen = (self.seen << ahead | 1) & self._mask if ahead < self.size else 1
        self.highest = sequence

    def infer(self, low: int) -> int:
        """The 64-bit number whose low half a packet carries (RFC 4303 appendix A2.2), 0 if there can be none."""
        highest_high, highest_low = self.highest >> 32, self.highest & 0xFFFFFFFF
        bottom = highest_low - self.size + 1
        if bottom >= 0:  # the window lies within one subspace: case A
            high = highest_high if low >= bottom else highest_high + 1
        else:  # it spans two: case B
            high = highest_high - 1 if low >= bottom + (1 << 32) else highest_high
        return 0 if high < 0 or high > 0xFFFFFFFF else high << 32 | low


class NoReplayWindow(ReplayWindow):
    """Anti-replay switched off, as fixed keys want it: every 32-bit number passes (RFC 4303 section 2.2)."""

    __slots__ = ()

    def admits(self, sequence: int) -> bool:
        """Whatever it is."""
        return True

    def mark(self, sequence: int) -> None:
        """The number last seen is the highest, since the sender's may have begun anew."""
        self.highest = sequence
