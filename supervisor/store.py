"""The checkpoints of IKE SAs, in memory, and what a worker knows beside them: what one that died needs to go on.

The supervisor does not look into a snapshot; it holds traffic keys. The store is bounded, since the worker that fills
it may have been broken into.
"""

from collections.abc import Iterator

from ipc import messages as m
from ipc.types import Secret
from supervisor.errors import StoreFull

MAX_STORE_BYTES = 1024 * 1024 * 1024
MAX_CHUNK_BYTES = 8 * 1024 * 1024
"""Snapshots in one RestoreIkeSas: well below what a link takes in one message."""


class Store:
    """The last saved state of every IKE SA, by own SPI."""

    def __init__(self, max_bytes: int = MAX_STORE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._states: dict[bytes, Secret] = {}
        self._memory = b""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, spi: bytes) -> bool:
        return spi in self._states

    def save(self, message: m.SaveIkeSas) -> None:
        """Keeps and forgets as `message` says; StoreFull if that is too much, and then nothing was changed."""
        grown = sum(len(one.state) for one in message.saved)
        if self.bytes + grown > self._max_bytes:
            raise StoreFull(f"more than {self._max_bytes} bytes of IKE SAs")
        for spi in message.forgotten:
            self._forget(spi)
        for snapshot in message.saved:
            self._forget(snapshot.spi)
            self._states[snapshot.spi] = snapshot.state
            self.bytes += len(snapshot.state)
        self._memory = message.memory or self._memory

    def drop_newest(self, count: int) -> int:
        """Forgets the `count` IKE SAs that were saved last, and says how many there were: one of them is suspected."""
        suspects = list(self._states)[max(0, len(self._states) - count) :]
        for spi in suspects:
            self._forget(spi)
        return len(suspects)

    def restore(self, workers: int = 1) -> Iterator[m.RestoreIkeSas]:
        """Everything, to one of so many workers, in messages of bounded count and size.

        The last says so, and comes even if all is empty.
        """
        chunk: list[m.IkeSaSnapshot] = []
        size = 0
        for spi, state in self._states.items():
            if len(chunk) == m.RULES_PER_MESSAGE or (chunk and size + len(state) > MAX_CHUNK_BYTES):
                yield m.RestoreIkeSas(snapshots=tuple(chunk), last=False, workers=workers)
                chunk, size = [], 0
            chunk.append(m.IkeSaSnapshot(spi=spi, state=state))
            size += len(state)
        yield m.RestoreIkeSas(snapshots=tuple(chunk), last=True, workers=workers, memory=self._memory)

    def _forget(self, spi: bytes) -> None:
        state = self._states.pop(spi, None)
        if state is not None:
            self.bytes -= len(state)
