"""The one bounded reader that every payload is parsed with.

No read goes beyond the end of its part of the message: MalformedMessage says how much was needed and how much was
there. A length field that does not even cover its own header is refused, so every step of every loop makes progress.
"""

import struct
from typing import Any

from ike_worker.ikev2.errors import MalformedMessage


class Reader:
    """Reads `data` from `offset` to `end`; `what` names that part in errors."""

    __slots__ = ("_data", "_end", "_offset", "_what")

    def __init__(self, data: bytes, what: str, offset: int = 0, end: int | None = None) -> None:
        self._data = data
        self._what = what
        self._offset = offset
        self._end = len(data) if end is None else end

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return self._end - self._offset

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The fields of `layout`, which is fixed and in network order."""
        offset = self._offset
        after = offset + layout.size
        if after > self._end:
            raise self._short(layout.size)
        self._offset = after
        return layout.unpack_from(self._data, offset)

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        offset = self._offset
        after = offset + size
        if after > self._end:
            raise self._short(size)
        self._offset = after
        return self._data[offset:after]

    def rest(self) -> bytes:
        """All that is left, at least one byte."""
        if self._offset == self._end:
            raise self._short(1)
        return self.take(self._end - self._offset)

    def rest_or_empty(self) -> bytes:
        """All that is left."""
        return self.take(self._end - self._offset)

    def part(self, length: int, header_size: int, what: str) -> "Reader":
        """The body of a structure whose `length` field counts its header of `header_size` bytes, already read."""
        offset = self._offset
        after = offset + length - header_size
        if after < offset:
            raise MalformedMessage(f"{what}: length {length}, at least {header_size} needed")
        if after > self._end:
            raise self._short(length - header_size)
        self._offset = after
        return Reader(self._data, what, offset, after)

    def expect_end(self) -> None:
        """MalformedMessage if anything is left."""
        if self._offset != self._end:
            raise MalformedMessage(f"{self._what}: {self._end - self._offset} bytes left over")

    def _short(self, needed: int) -> MalformedMessage:
        return MalformedMessage(f"{self._what}: {needed} bytes needed, {self._end - self._offset} there")
