"""The worker's end of its link to the kernel agent: SPIs, SAs, and what the kernel reports."""

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ike_worker.ikev2 import events
from ike_worker.ikev2.engine import Endpoint, Engine
from ipc import messages as m
from ipc.channel import Handler
from ipc.links import WORKER_AGENT
from ipc.process import RoleProcess

log = logging.getLogger(__name__)

SPI_POOL = 32
"""How many SPIs are asked for at once; more are asked for when half of them are used."""


Counts = Mapping[m.SaName, m.Usage]


@dataclass(slots=True, kw_only=True)
class Counting:
    """What SAs have carried, as far as the agent has said it; `answer` is called once."""

    answer: Callable[[Counts], None]
    waits_for: set[int]
    usage: dict[m.SaName, m.Usage] = field(default_factory=dict)


class KernelClient:
    """Carries the engine's wishes to the agent and its answers back, by token.

    An agent that has just started says NeedSas: it forgot what was asked of it, so requests without an answer are
    asked again, and SPIs that the old agent gave are given up.
    """

    def __init__(self, process: RoleProcess, engine: Engine) -> None:
        self._engine = engine
        self._ids = itertools.count(1)
        self._spis: deque[int] = deque()
        self._waiting_for_spi: deque[int] = deque()
        self._spis_asked = False
        self._installing: dict[int, events.InstallSas] = {}
        self._counting: dict[int, Counting] = {}
        self._loop = process.loop
        self._ready = False
        self._agent_asks = False
        handlers: dict[type, Handler] = {
            m.NeedSas: self._on_need_sas,
            m.SpiAllocated: self._on_spi_allocated,
            m.SaAdded: self._on_sa_added,
            m.SaRefused: self._on_sa_refused,
            m.SaDeleted: lambda _deleted, _peer: None,
            m.SaUsage: self._on_sa_usage,
            m.Acquire: self._on_acquire,
            m.Expire: self._on_expire,
            m.PeerMoved: self._on_peer_moved,
        }
        self._channel = process.open_link(WORKER_AGENT, handlers)

    def start(self) -> None:
        """All SAs are restored: the agent may know them now."""
        self._ready = True
        if self._agent_asks:
            self._synchronise()

    def allocate_spi(self, event: events.AllocateSpi) -> None:
        """Answers from the pool, or as soon as the agent fills it."""
        if self._spis:
            self._engine.spi_allocated(event.token, self._spis.popleft(), time.monotonic())
        else:
            self._waiting_for_spi.append(event.token)
        self._fill_pool()

    def install(self, event: events.InstallSas) -> None:
        """Asks the agent to install SAs; its answer goes to the engine."""
        request_id = next(self._ids)
        self._installing[request_id] = event
        self._channel.try_send(m.AddSa(request_id=request_id, sas=event.sas))

    def delete(self, event: events.DeleteSas) -> None:
        """Asks the agent to delete SAs. One that it misses goes with the next synchronisation."""
        self._channel.try_send(m.DeleteSa(request_id=next(self._ids), sas=event.sas))

    def query(self, event: events.QueryUsage) -> None:
        """Asks the agent what traffic SAs have seen; the engine asks again where no answer comes."""
        self._channel.try_send(m.QuerySa(request_id=next(self._ids), sas=event.sas))

    def count(self, sas: tuple[m.SaName, ...], answer: Callable[[Counts], None], within_s: float) -> None:
        """Asks what traffic SAs have seen, for people; `answer` gets what has been said `within_s`."""
        size = m.RULES_PER_MESSAGE
        chunks = [sas[start : start + size] for start in range(0, len(sas), size)]
        counting = Counting(answer=answer, waits_for={next(self._ids) for _ in chunks})
        for request_id, chunk in zip(sorted(counting.waits_for), chunks, strict=True):
            self._counting[request_id] = counting
            self._channel.try_send(m.QuerySa(request_id=request_id, sas=chunk))
        if chunks:
            self._loop.call_later(within_s, lambda: self._counted(counting))
        else:
            answer({})

    def _counted(self, counting: Counting) -> None:
        """That is all, or all that came in time."""
        waited_for = [request_id for request_id, one in self._counting.items() if one is counting]
        for request_id in waited_for:
            del self._counting[request_id]
        if waited_for:
            counting.answer(counting.usage)

    def _fill_pool(self) -> None:
        if self._spis_asked or len(self._spis) > SPI_POOL // 2:
            return
        self._spis_asked = self._channel.try_send(m.AllocateSpi(request_id=next(self._ids), count=SPI_POOL))

    def _on_spi_allocated(self, allocated: m.SpiAllocated, _peer: bytes) -> None:
        self._spis_asked = False
        self._spis.extend(allocated.spis)
        now = time.monotonic()
        while self._spis and self._waiting_for_spi:
            self._engine.spi_allocated(self._waiting_for_spi.popleft(), self._spis.popleft(), now)
        self._fill_pool()

    def _on_sa_added(self, added: m.SaAdded, _peer: bytes) -> None:
        event = self._installing.pop(added.request_id, None)
        if event is not None:
            self._engine.sas_installed(event.token, time.monotonic())

    def _on_sa_refused(self, refused: m.SaRefused, _peer: bytes) -> None:
        event = self._installing.pop(refused.request_id, None)
        if event is not None:
            log.warning("the kernel agent refused an SA: %s", refused.reason)
            self._engine.sas_refused(event.token, refused.reason, time.monotonic())

    def _on_sa_usage(self, answer: m.SaUsage, _peer: bytes) -> None:
        counting = self._counting.get(answer.request_id)
        if counting is None:
            self._engine.sas_used(answer.usage, time.monotonic())
            return
        counting.usage.update({one.sa: one for one in answer.usage})
        counting.waits_for.discard(answer.request_id)
        if not counting.waits_for:
            self._counted(counting)

    def _on_acquire(self, acquire: m.Acquire, _peer: bytes) -> None:
        self._engine.initiate(acquire.rule_id, time.monotonic(), acquire=acquire)

    def _on_expire(self, expire: m.Expire, _peer: bytes) -> None:
        self._engine.child_expired(expire.sa.spi, expire.hard, time.monotonic())

    def _on_peer_moved(self, moved: m.PeerMoved, _peer: bytes) -> None:
        remote = Endpoint(address=moved.source, port=moved.source_port)
        self._engine.peer_moved(moved.sa.spi, remote, time.monotonic())

    def _on_need_sas(self, _message: m.NeedSas, _peer: bytes) -> None:
        self._agent_asks = True
        if self._ready:
            self._synchronise()

    def _synchronise(self) -> None:
        """Tells a fresh agent all SAs, asks again what was not answered, and fills the pool of SPIs."""
        self._agent_asks = False
        sas = self._engine.installed_sas()
        size = m.RULES_PER_MESSAGE
        chunks = [sas[start : start + size] for start in range(0, len(sas), size)] or [()]
        for chunk in chunks[:-1]:
            self._channel.try_send(m.SyncSa(sas=chunk, last=False))
        self._channel.try_send(m.SyncSa(sas=chunks[-1], last=True))
        self._spis.clear()
        self._spis_asked = False
        self._fill_pool()
        for request_id, event in self._installing.items():
            self._channel.try_send(m.AddSa(request_id=request_id, sas=event.sas))
