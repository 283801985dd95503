"""The table of what other workers have, and what they are to be told: `features/elsewhere.py` asks and fills it."""

from ipc.messages import Acquire, EndedRule, StandingSa, StartedAnew, WorkerNews

DEFERRED_S = 30.0
"""So long a packet waits that another worker should see to; the kernel keeps it no longer."""
MAX_DEFERRED = 1024


class ElsewhereTable:
    """IKE SAs of other workers by peer; empty where there is but one worker."""

    def __init__(self) -> None:
        self._of_peer: dict[str, dict[bytes, StandingSa]] = {}
        self._peers: dict[bytes, str] = {}
        self._deferred: dict[int, tuple[Acquire, float]] = {}
        self.told: dict[bytes, StandingSa] = {}
        """What the others were told of ours, by our SPI."""
        self.anew: list[StartedAnew] = []
        self.ended: list[EndedRule] = []

    def of(self, peer: str) -> tuple[StandingSa, ...]:
        """Those with this peer."""
        standing = self._of_peer.get(peer)
        return tuple(standing.values()) if standing else ()

    def change(self, news: WorkerNews) -> None:
        """Takes over what another worker tells."""
        for spi in (*news.gone, *(one.spi for one in news.standing)):
            peer = self._peers.pop(spi, None)
            if peer is not None:
                del self._of_peer[peer][spi]
                if not self._of_peer[peer]:
                    del self._of_peer[peer]
        for one in news.standing:
            self._peers[one.spi] = one.peer
            self._of_peer.setdefault(one.peer, {})[one.spi] = one

    def defer(self, acquire: Acquire, now: float) -> None:
        """Another worker should see to this packet."""
        if len(self._deferred) < MAX_DEFERRED:
            self._deferred[acquire.acquire_id] = (acquire, now + DEFERRED_S)

    def take_deferred(self, now: float) -> list[Acquire]:
        """The packets that may wait still: who should have seen to them is perhaps not there any more."""
        deferred, self._deferred = self._deferred, {}
        return [acquire for acquire, until in deferred.values() if now < until]
