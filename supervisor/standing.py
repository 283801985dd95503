"""Which IKE SAs stand in which worker, kept for those workers that are started again; passed on as it is told."""

from collections import OrderedDict
from collections.abc import Iterator

from ipc import messages as m
from supervisor.store import Store

MAX_ANEW = 4096


class Standing:
    """What each worker has told of its IKE SAs, by its name and its own SPI, and which peers have started anew."""

    def __init__(self) -> None:
        self._of_worker: dict[str, dict[bytes, m.StandingSa]] = {}
        self._anew: OrderedDict[tuple[str, bytes], m.StartedAnew] = OrderedDict()

    def take(self, worker: str, news: m.WorkerNews) -> None:
        """A worker has told."""
        by_spi = self._of_worker.setdefault(worker, {})
        for spi in news.gone:
            by_spi.pop(spi, None)
        by_spi.update({one.spi: one for one in news.standing})
        for anew in news.anew:
            key = anew.peer, anew.peer_id
            self._anew[key] = anew
            self._anew.move_to_end(key)
            if len(self._anew) > MAX_ANEW:
                self._anew.popitem(last=False)

    def keep_only(self, worker: str, store: Store) -> Iterator[m.WorkerNews]:
        """Forgets what a worker that died had not saved, or was not given back; what others are to be told of that."""
        by_spi = self._of_worker.get(worker, {})
        gone = tuple(spi for spi in by_spi if spi not in store)
        for spi in gone:
            del by_spi[spi]
        for start in range(0, len(gone), m.RULES_PER_MESSAGE):
            yield m.WorkerNews(gone=gone[start : start + m.RULES_PER_MESSAGE])

    def elsewhere(self, worker: str) -> Iterator[m.WorkerNews]:
        """All that other workers have, in messages of bounded size."""
        standing = [one for other, by_spi in self._of_worker.items() if other != worker for one in by_spi.values()]
        for start in range(0, len(standing), m.RULES_PER_MESSAGE):
            yield m.WorkerNews(standing=tuple(standing[start : start + m.RULES_PER_MESSAGE]))

    def started_anew(self) -> Iterator[m.WorkerNews]:
        """The peers that have started anew, for a worker that has its old IKE SAs back: it may have missed that."""
        anew = tuple(self._anew.values())
        for start in range(0, len(anew), m.RULES_PER_MESSAGE):
            yield m.WorkerNews(anew=anew[start : start + m.RULES_PER_MESSAGE])
