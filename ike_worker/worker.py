"""The IKE worker: the engine between its sockets, the kernel agent, the policy loader and the supervisor.

Nothing that the peer could act on leaves before the supervisor holds the state it depends on: each round of the loop
hands over the IKE SAs that changed, and their datagrams wait for the receipt. So a worker may be killed between any
two instructions, and the next one goes on with the right message IDs (RFC 7296 section 2.2).
"""

import logging
import os
import time
from collections import deque

from ike_worker.ikev2 import events
from ike_worker.ikev2.engine import Changes, Datagram, Endpoint, Engine
from ike_worker.ikev2.memory import Memory
from ike_worker.ikev2.snapshot import IkeSaState
from ike_worker.kernel_client import KernelClient
from ike_worker.live_events import LiveEvents
from ike_worker.operator import Operator
from ike_worker.policy_client import PolicyClient
from ike_worker.rule_reports import RuleReports
from ike_worker.udp import RoutingProbe, UdpSockets
from ipc import codec
from ipc import messages as m
from ipc import wishes as w
from ipc.channel import Handler
from ipc.errors import MessageRefused
from ipc.loop import Timer
from ipc.process import RoleProcess
from ipc.types import Secret
from ipc.value import value

log = logging.getLogger(__name__)

FAILURES_DELAY_S = 2.0
"""Failures gather this long before the supervisor has them: strangers make many."""
STATUS_DELAY_S = 0.1
"""Status for people gathers this long before it goes to the supervisor."""


@value
class HeldDatagrams:
    """Datagrams that wait until the supervisor holds checkpoint `sequence`."""

    sequence: int
    datagrams: list[Datagram]


class Worker:
    """One IKE worker. The only place of the role where the engine meets the outside."""

    def __init__(self, process: RoleProcess) -> None:
        self._process = process
        self._loop = process.loop
        self._sockets = UdpSockets(process.descriptors)
        self._engine = Engine(random_bytes=os.urandom, source_address=RoutingProbe(process.descriptors).source_address)
        self._kernel = KernelClient(process, self._engine)
        self._operator = Operator(
            self._engine, self._kernel, self._loop, lambda message: self._supervisor.try_send(message)
        )
        self._live = LiveEvents(lambda message: self._supervisor.try_send(message))
        handlers: dict[type, Handler] = {
            m.RestoreIkeSas: self._on_restore,
            m.IkeSasSaved: self._on_saved,
            m.Elsewhere: self._on_elsewhere,
            w.OperatorWish: self._operator.on_wish,
            w.WatchSas: self._live.on_watch,
        }
        self._supervisor = process.open_supervisor_link(handlers, on_stop=self._on_stop)
        self._policy = PolicyClient(process, self._engine, self._on_policy)
        self._sequence = 0
        self._saved_sequence = 0
        self._held: deque[HeldDatagrams] = deque()
        self._timer: Timer | None = None
        self._timer_due: float | None = None
        self._status_changed: set[bytes] = set()
        self._status_gone: set[bytes] = set()
        self._status_timer: Timer | None = None
        self._failures_timer: Timer | None = None
        self._rule_reports = RuleReports()
        self._has_policy = False
        self._restored = False
        self._ready = False
        self._closed = False
        self._loop.before_wait(self._flush)

    # ------------------------------------------------------------------ life

    def _on_restore(self, restore: m.RestoreIkeSas, _peer: bytes) -> None:
        self._engine.set_place(self._process.index, restore.workers)
        for snapshot in restore.snapshots:
            try:
                state = codec.decode_value(IkeSaState, snapshot.state.reveal())
            except MessageRefused as error:
                log.error("IKE SA %s can't be restored and is forgotten: %s", snapshot.spi.hex(), error)
                continue
            self._engine.restore(state, time.monotonic())
            self._status_changed.add(snapshot.spi)
        if restore.memory:
            self._remember(restore.memory)
        if restore.last:
            self._restored = True
            self._become_ready()

    def _remember(self, data: bytes) -> None:
        try:
            self._engine.remember(codec.decode_value(Memory, data), time.monotonic())
        except MessageRefused as error:
            log.error("what was known of rules and failures is forgotten: %s", error)

    def _on_elsewhere(self, message: m.Elsewhere, _peer: bytes) -> None:
        self._engine.hear(message.news, time.monotonic())

    def _on_policy(self, peers: tuple[m.Peer, ...], rules: tuple[m.NegotiationRule, ...]) -> None:
        self._has_policy = True
        self._engine.set_policy(peers, rules, time.monotonic())
        self._rule_reports.set_policy(rules)
        self._report_status_soon()
        if self._ready:
            self._engine.start_rules(time.monotonic())
        else:
            self._become_ready()

    def _become_ready(self) -> None:
        if self._ready or not (self._restored and self._has_policy):
            return
        self._ready = True
        self._kernel.start()
        for descriptor, reader in self._sockets.readers(self._on_datagram, self._screen).items():
            self._loop.add_reader(descriptor, reader)
        restored = len(self._status_changed)
        self._supervisor.try_send(m.WorkerReady(ike_sas=restored))
        log.info("ready, with %d IKE SAs restored", restored)
        self._engine.start_rules(time.monotonic())

    def _on_stop(self, deadline_s: float) -> None:
        self._engine.close_all(time.monotonic())
        self._loop.call_later(deadline_s, self._finish)

    def _finish(self) -> None:
        if not self._closed:
            self._closed = True
            self._process.finish("the peers were told")

    # ------------------------------------------------------------------ a round

    def _screen(self, data: bytes, address: bytes) -> bytes | None:
        return self._engine.screen(data, address, time.monotonic())

    def _on_datagram(self, data: bytes, local: Endpoint, remote: Endpoint) -> None:
        self._engine.receive_datagram(data, local=local, remote=remote, now=time.monotonic())

    def _flush(self) -> None:
        """What the engine wants after this round: events, checkpoints, datagrams, its next timer."""
        self._handle_events()
        self._live.flush()
        changes = self._engine.take_changes()
        datagrams = self._engine.datagrams_to_send()
        if changes.changed or changes.gone or changes.memory:
            self._save(changes)
        if self._engine.take_new_failures() and self._failures_timer is None:
            self._failures_timer = self._loop.call_later(FAILURES_DELAY_S, self._save_failures)
        if datagrams:
            if self._saved_sequence == self._sequence:
                self._send(datagrams)
            else:
                self._held.append(HeldDatagrams(sequence=self._sequence, datagrams=datagrams))
        self._arm_timer()

    def _handle_events(self) -> None:
        while (event := self._engine.next_event()) is not None:
            self._live.note(event)
            match event:
                case events.AllocateSpi():
                    self._kernel.allocate_spi(event)
                case events.InstallSas():
                    self._kernel.install(event)
                case events.DeleteSas():
                    self._kernel.delete(event)
                case events.QueryUsage():
                    self._kernel.query(event)
                case events.ComputeAuth() | events.VerifyAuth():
                    self._policy.ask(event)
                case events.OrderEnded():
                    self._operator.on_order_ended(event)
                case events.AllClosed():
                    self._loop.call_later(0.0, self._finish)
                case events.NegotiationFailed() | events.ChildSaEstablished() | events.ChildSaClosed():
                    self._note_for_status(event)
                case _:
                    log.debug("%s", event)

    def _note_for_status(
        self, event: events.NegotiationFailed | events.ChildSaEstablished | events.ChildSaClosed
    ) -> None:
        log.debug("%s", event)
        match event:
            case events.NegotiationFailed():
                self._rule_reports.failed(event.peer, event.rule, event.reason)
            case events.ChildSaEstablished():
                self._rule_reports.established(event.rule)
            case events.ChildSaClosed():
                self._rule_reports.closed(event.rule, event.reason)
        self._report_status_soon()

    def _save_failures(self) -> None:
        self._failures_timer = None
        self._save(Changes(changed=(), gone=(), memory=True))

    def _save(self, changes: Changes) -> None:
        """Hands what has changed to the supervisor, in messages of bounded size."""
        changed, gone = changes.changed, changes.gone
        memory = codec.encode_value(self._engine.memory()) if changes.memory else b""
        news = self._engine.take_news(changes)
        snapshots = tuple(
            m.IkeSaSnapshot(spi=spi, state=Secret(codec.encode_value(self._engine.snapshot(spi)))) for spi in changed
        )
        size = m.RULES_PER_MESSAGE
        most = max(len(snapshots), len(gone), len(news.anew) if news else 0, len(news.ended) if news else 0, 1)
        for start in range(0, most, size):
            self._sequence += 1
            self._supervisor.try_send(
                m.SaveIkeSas(
                    sequence=self._sequence,
                    saved=snapshots[start : start + size],
                    forgotten=gone[start : start + size],
                    memory=memory if start == 0 else b"",
                    news=_part(news, start) if news is not None else None,
                )
            )
        self._status_changed.update(changed)
        self._status_changed.difference_update(gone)
        self._status_gone.update(gone)
        self._report_status_soon()

    def _report_status_soon(self) -> None:
        if self._status_timer is None:
            self._status_timer = self._loop.call_later(STATUS_DELAY_S, self._report_status)

    def _on_saved(self, saved: m.IkeSasSaved, _peer: bytes) -> None:
        self._saved_sequence = max(self._saved_sequence, saved.sequence)
        while self._held and self._held[0].sequence <= self._saved_sequence:
            self._send(self._held.popleft().datagrams)

    def _send(self, datagrams: list[Datagram]) -> None:
        for datagram in datagrams:
            self._sockets.send(datagram.local, datagram.remote, datagram.data)

    def _arm_timer(self) -> None:
        due = self._engine.get_timer()
        if due == self._timer_due and self._timer is not None and self._timer.callback is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._engine.handle_timer(time.monotonic())

    def _report_status(self) -> None:
        self._status_timer = None
        # One that ended in this round of the loop is told of with the next.
        found = (self._status_of(spi) for spi in sorted(self._status_changed))
        changed, gone = tuple(one for one in found if one is not None), tuple(self._status_gone)
        self._status_changed.clear()
        self._status_gone.clear()
        size = m.RULES_PER_MESSAGE
        for start in range(0, max(len(changed), len(gone)), size):
            part = slice(start, start + size)
            self._supervisor.try_send(m.TunnelsChanged(changed=changed[part], gone=gone[part]))
        for message in self._rule_reports.take():
            self._supervisor.try_send(message)

    def _status_of(self, own_spi: bytes) -> m.IkeSaStatus | None:
        try:
            return self._engine.status(own_spi)
        except KeyError:
            return None


def _part(news: m.WorkerNews, start: int) -> m.WorkerNews:
    end = start + m.RULES_PER_MESSAGE
    return m.WorkerNews(
        standing=news.standing[start:end],
        gone=news.gone[2 * start : 2 * end],
        anew=news.anew[start:end],
        ended=news.ended[start:end],
    )
