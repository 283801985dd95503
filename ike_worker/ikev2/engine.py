"""The IKEv2 engine: datagrams, answers and time go in; datagrams, events and the next timer come out. RFC 7296.

No input or output happens here: `now` is handed in with each call (monotonic seconds), randomness at the start. What
the network sends wrong is dropped, counted by nobody but the log, or answered with a NOTIFY; it raises nothing.
"""

import logging
import math
from collections import deque
from collections.abc import Callable

from ike_worker.ikev2 import demand, dialogue, memory, reception, snapshot, timers
from ike_worker.ikev2.context import Context, OwnAuth, Place, SourceAddress, Verdict
from ike_worker.ikev2.datagram import Datagram, Endpoint
from ike_worker.ikev2.errors import RefusedHere, RemoteError
from ike_worker.ikev2.events import AllClosed, Event, OrderEnded
from ike_worker.ikev2.features import elsewhere, handover, initial_contact, nat_traversal, traffic
from ike_worker.ikev2.features.orders import DownPeer, DownRule, Orders, RekeyChild, RekeyIke, Up
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.memory import Memory
from ike_worker.ikev2.policy import Policy
from ike_worker.ikev2.snapshot import IkeSaState
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.view import View
from ike_worker.ikev2.wish import Wish, WishKind
from ipc.messages import (
    Acquire,
    CertificateData,
    HalfOpenLimits,
    IkeSaStatus,
    NegotiationRule,
    Peer,
    Sa,
    Usage,
    WorkerNews,
)
from ipc.peers import goes_on
from ipc.types import AuthMethod
from ipc.value import value

__all__ = ["Changes", "Datagram", "Endpoint", "Engine"]

log = logging.getLogger(__name__)


@value
class Changes:
    """IKE SAs by our own SPI: those that need a new checkpoint, and those that are no more."""

    changed: tuple[bytes, ...]
    gone: tuple[bytes, ...]
    memory: bool = False
    """`Engine.memory` has changed in what is done."""


class Engine:
    """All IKE SAs of this host, with all peers.

    `source_address` says from which of our addresses routing would send to a peer; None where it does not know.
    """

    def __init__(self, *, random_bytes: Callable[[int], bytes], source_address: SourceAddress) -> None:
        self._orders = Orders()
        self._ending: set[int] = set()
        """Rules that an operator has ended, until they have no Child SA."""
        self._context = Context(random_bytes, source_address)
        self._started: set[int] = set()
        """At-start rules that were begun."""

    def set_place(self, index: int, workers: int) -> None:
        """Which of how many workers this is; before anything else."""
        self._context.place = Place(index=index, workers=workers)

    # ------------------------------------------------------------------ policy

    def set_half_open_limits(self, limits: HalfOpenLimits) -> None:
        """From how many half-open IKE SAs on initiators are asked for more, and where it ends."""
        self._context.half_open.limits = limits

    def set_policy(self, peers: tuple[Peer, ...], rules: tuple[NegotiationRule, ...], now: float) -> None:
        """Takes a new policy. SAs of peers and rules that changed or are gone are deleted, others are untouched."""
        context = self._enter(now)
        context.policy = Policy(peers, rules)
        context.forget_strangers_to_policy()
        context.has_policy = True
        context.gate.expects = context.policy.expects
        for sa in list(context.ike_sas.values()):
            context.wake(sa)
            self._apply_policy(sa)
        self._settle()

    def authenticate_anew(self, peers: tuple[str, ...], now: float) -> None:
        """Makes the IKE SAs with these peers anew, AUTH included, before those that stand end.

        A peer that we have no address of must call us: until it does, what stands goes on.
        """
        context = self._enter(now)
        for name in peers:
            for sa in context.with_peer(name):
                if sa.state is State.ESTABLISHED and sa.peer.address is not None:
                    sa.reauth_at = now
                    context.mark_changed(sa)
                    context.wake(sa)
        self._settle()

    def _apply_policy(self, sa: IkeSa) -> None:
        context = self._context
        peer = context.policy.peer(sa.peer.name)
        if peer is None or not goes_on(sa.peer, peer):
            self._delete(sa, "its peer is gone from the policy, or changed")
            return
        sa.peer = peer
        for child in list(sa.children.values()):
            if context.policy.rule(child.rule_id) is None:
                timers.delete_child(sa, child)

    # ------------------------------------------------------------------ datagrams

    def screen(self, data: bytes, address: bytes, now: float) -> bytes | None:
        """A first look at a datagram from `address` (4 or 16 bytes).

        None: `receive_datagram` wants it. Else it is dealt with: what to send back, nothing if that is empty. Calling
        this first is not needed, but under attack it saves most of the work.
        """
        return reception.screen(self._context, data, address, now)

    def receive_datagram(self, data: bytes, *, local: Endpoint, remote: Endpoint, now: float) -> None:
        """A datagram without its non-ESP marker. Whatever is in it, nothing is raised."""
        try:
            reception.receive(self._enter(now), data, local, remote)
        except RemoteError as error:
            log.debug("%s: dropped: %s", remote, error)
        self._settle()

    def datagrams_to_send(self) -> list[Datagram]:
        """What is to be sent since the last call, in order."""
        outbox, self._context.outbox = self._context.outbox, []
        return outbox

    # ------------------------------------------------------------------ time and events

    def get_timer(self) -> float | None:
        """When `handle_timer` must be called; None if nothing waits for time."""
        due = self._context.next_timer()
        again = self._context.upkeep.next_due
        if due is None:
            return None if math.isinf(again) else again
        return min(due, again)

    def handle_timer(self, now: float) -> None:
        """Does what is due at `now`."""
        context = self._enter(now)
        due = []
        while (sa := context.take_due()) is not None:
            due.append(sa)
        for sa in due:
            if sa.state is not State.CLOSED:
                timers.run(context, sa)
        for rule_id in context.upkeep.take_due(now):
            demand.negotiate(context, Wish(kind=WishKind.CREATE_CHILD, rule_id=rule_id))
        self._settle()

    def next_event(self) -> Event | None:
        """The next event, in order; None if there is none."""
        events = self._context.events
        if not events:
            return None
        event = events.popleft()
        self._orders.hear(self._context, event)
        return event

    # ------------------------------------------------------------------ wishes from outside

    def initiate(
        self, rule_id: int, now: float, *, acquire: Acquire | None = None, keep_up: bool = False, order: int = 0
    ) -> None:
        """Negotiates a Child SA for a rule; nothing happens if that is under way, or if one stands that would do.

        With `keep_up` it is tried again, ever more rarely, until there is one. A packet (`acquire`) does nothing
        where the policy wants the rule left alone (EndAction.CLEAR). OrderEnded tells what has come of `order`, here
        and in the other methods that take one, unless it is 0.
        """
        context = self._enter(now)
        rule = context.policy.rule(rule_id)
        self._orders.take(order, Up(rule_id=rule_id, rule=rule.name if rule is not None else ""))
        if acquire is not None and rule_id in context.upkeep.cleared:
            return
        wish = Wish(
            kind=WishKind.CREATE_CHILD,
            rule_id=rule_id,
            acquire_id=acquire.acquire_id if acquire is not None else 0,
            packet_local=acquire.packet_local if acquire is not None else None,
            packet_remote=acquire.packet_remote if acquire is not None else None,
        )
        if acquire is not None and rule is not None and not demand.is_for_us(context, rule.peer, wish):
            context.elsewhere.defer(acquire, now)
            return
        self._ending.discard(rule_id)
        if keep_up:
            context.upkeep.want(rule_id)
        demand.negotiate(context, wish)
        self._settle()

    def hear(self, news: WorkerNews, now: float) -> None:
        """What another worker tells: it may make ours superfluous, or have been what a packet waits for."""
        context = self._enter(now)
        context.elsewhere.change(news)
        for anew in news.anew:
            initial_contact.forget(context, anew)
        for ended in news.ended:
            context.upkeep.end(ended.rule_id, ended.action)
        for one in news.standing:
            for child in one.children:
                context.upkeep.stands(child.rule_id)
            for sa in context.with_peer(one.peer):
                handover.meet_elsewhere(context, sa)
                elsewhere.drop_call(context, sa)
        if news.gone:
            for acquire in context.elsewhere.take_deferred(now):
                self.initiate(acquire.rule_id, now, acquire=acquire)
        self._settle()

    def start_rules(self, now: float) -> None:
        """Negotiates what is to be up and has no Child SA.

        That are at-start rules that are new and have not been ended by anybody, and what was being tried already.
        """
        context = self._enter(now)
        at_start = demand.at_start(context)
        for rule_id in demand.to_begin(context, at_start - self._started):
            self.initiate(rule_id, now, keep_up=True)
        self._started = at_start

    def end_rule(self, rule_id: int, now: float, *, order: int = 0) -> None:
        """Deletes the Child SAs of a rule, on both sides, and tries no more to have one; a packet may ask anew."""
        context = self._enter(now)
        self._orders.take(order, DownRule(rule_id=rule_id))
        context.upkeep.give_up(rule_id)
        self._ending.add(rule_id)
        for sa in list(context.ike_sas.values()):
            wanted = [wish for wish in sa.all_wishes if not demand.creates(wish, rule_id)]
            if sa.state is State.CONNECTING and not wanted:
                context.close(sa, "ended by an operator")
            else:
                sa.wishes = deque(wish for wish in sa.wishes if not demand.creates(wish, rule_id))
        self._settle()

    def end_peer(self, name: str, now: float, *, order: int = 0) -> None:
        """Deletes all IKE SAs with a peer, on both sides, and tries no more to have one; a packet may ask anew."""
        context = self._enter(now)
        self._orders.take(order, DownPeer(peer=name))
        for rule_id in context.policy.rule_ids:
            rule = context.policy.rule(rule_id)
            if rule is not None and rule.peer == name:
                context.upkeep.give_up(rule_id)
        for sa in context.with_peer(name):
            self._delete(sa, "ended by an operator")
        self._settle()

    def rekey_child(self, spi_in: int, now: float, *, order: int = 0) -> None:
        """Rekeys the Child SA with this inbound SPI."""
        sa = self._enter(now).child_owners.get(spi_in)
        if sa is None or sa.children[spi_in].state is ChildState.DRAINING:
            self._refuse(order, f"there is no Child SA with the inbound SPI {spi_in:08x}")
        else:
            self._orders.take(order, RekeyChild(spi_in=spi_in, rule=sa.children[spi_in].rule_name))
            timers.rekey_child(sa, sa.children[spi_in])
            self._context.wake(sa)
        self._settle()

    def delete_child(self, spi_in: int, now: float) -> None:
        """Deletes the Child SA with this inbound SPI, on both sides."""
        sa = self._enter(now).child_owners.get(spi_in)
        if sa is not None:
            timers.delete_child(sa, sa.children[spi_in])
            self._context.wake(sa)
        self._settle()

    def rekey_ike_sa(self, own_spi: bytes, now: float, *, order: int = 0) -> None:
        """Rekeys the IKE SA with this SPI of ours; its Child SAs move to the new one."""
        sa = self._enter(now).ike_sas.get(own_spi)
        if sa is None or sa.state is not State.ESTABLISHED:
            self._refuse(order, f"there is no IKE SA with the SPI {own_spi.hex()} that could be rekeyed")
        else:
            self._orders.take(order, RekeyIke(own_spi=own_spi))
            if not sa.wants(WishKind.REKEY_IKE):
                sa.wishes.append(Wish(kind=WishKind.REKEY_IKE))
            self._context.wake(sa)
        self._settle()

    def forget_order(self, order: int) -> None:
        """Nobody waits for it any more; what was begun for it goes on."""
        self._orders.forget(order)

    def _refuse(self, order: int, reason: str) -> None:
        if order:
            self._context.events.append(OrderEnded(order=order, failure=reason))

    def delete_ike_sa(self, own_spi: bytes, now: float) -> None:
        """Deletes the IKE SA with this SPI of ours and its Child SAs, on both sides."""
        sa = self._enter(now).ike_sas.get(own_spi)
        if sa is not None:
            self._delete(sa, "deleted by us")
        self._settle()

    def close_all(self, now: float) -> None:
        """Deletes everything; AllClosed comes when every DELETE is answered or given up. Nothing new is begun."""
        context = self._enter(now)
        context.closing = True
        for sa in list(context.ike_sas.values()):
            self._delete(sa, "deleted by us")
        self._settle()

    def _delete(self, sa: IkeSa, reason: str) -> None:
        asked = sa.state is State.AUTHENTICATING and sa.window.pending is not None
        if sa.handshake is not None and sa.state is not State.DELETING and not asked:
            self._context.close(sa, reason)
            return
        timers.delete_ike_sa(sa)
        self._context.wake(sa)

    def child_expired(self, spi: int, hard: bool, now: float) -> None:
        """The kernel says that a lifetime is over: soft, it is rekeyed; hard, it is deleted."""
        context = self._enter(now)
        sa = self._owner(spi)
        for child in list(sa.children.values()) if sa is not None else ():
            if sa is not None and spi in (child.spi_in, child.outbound.spi):
                if hard:
                    timers.delete_child(sa, child)
                else:
                    timers.rekey_child(sa, child)
                context.wake(sa)
        self._settle()

    def peer_moved(self, spi: int, remote: Endpoint, now: float) -> None:
        """The data path saw authentic ESP of this SA from a new address or port (RFC 7296 section 2.23)."""
        context = self._enter(now)
        sa = self._owner(spi)
        if sa is not None:
            nat_traversal.follow(context, sa, sa.path.local, remote)
            context.wake(sa)
        self._settle()

    def _owner(self, spi: int) -> IkeSa | None:
        owners = self._context.child_owners
        if spi in owners:
            return owners[spi]
        return next(
            (sa for sa in owners.values() if any(child.outbound.spi == spi for child in sa.children.values())), None
        )

    # ------------------------------------------------------------------ answers to events

    def sas_used(self, usage: tuple[Usage, ...], now: float) -> None:
        """Answer to QueryUsage."""
        context = self._enter(now)
        by_spi = {one.sa.spi: one for one in usage}
        owners = {spi: owner for spi in by_spi if (owner := context.child_owners.get(spi)) is not None}
        for spi, sa in owners.items():
            child = sa.children[spi]
            if traffic.look(context, sa, child, by_spi):
                log.info("%s: %s: idle", sa, child)
                timers.delete_child(sa, child)
            context.wake(sa)
        self._settle()

    def spi_allocated(self, token: int, spi: int, now: float) -> None:
        """Answer to AllocateSpi."""
        self._enter(now).answer(token, spi)
        self._settle()

    def auth_computed(
        self,
        token: int,
        method: AuthMethod,
        data: bytes,
        now: float,
        certificates: tuple[CertificateData, ...] = (),
    ) -> None:
        """Answer to ComputeAuth."""
        self._enter(now).answer(token, OwnAuth(method=method, data=data, certificates=certificates))
        self._settle()

    def auth_verified(self, token: int, valid: bool, now: float, reason: str = "") -> None:
        """Answer to VerifyAuth; `reason` is why not."""
        self._enter(now).answer(token, Verdict(valid=valid, reason=reason))
        self._settle()

    def auth_refused(self, token: int, reason: str, now: float) -> None:
        """Answer to ComputeAuth or VerifyAuth: the policy does not allow it."""
        self._enter(now).refuse(token, RefusedHere(reason))
        self._settle()

    def sas_installed(self, token: int, now: float) -> None:
        """Answer to InstallSas."""
        self._enter(now).answer(token, None)
        self._settle()

    def sas_refused(self, token: int, reason: str, now: float) -> None:
        """Answer to InstallSas: the agent or the kernel said no."""
        self._enter(now).refuse(token, RefusedHere(reason))
        self._settle()

    # ------------------------------------------------------------------ state out and in

    def take_changes(self) -> Changes:
        """What has changed since the last call; half-open IKE SAs are not reported."""
        context = self._context
        changes = Changes(changed=tuple(context.changed), gone=tuple(context.gone), memory=context.upkeep.changed)
        context.changed, context.gone, context.upkeep.changed = {}, {}, False
        return changes

    def take_news(self, changes: Changes) -> WorkerNews | None:
        """What other workers are to be told of `changes`; None if nothing."""
        return elsewhere.news(self._context, changes.changed, changes.gone)

    def take_new_failures(self) -> bool:
        """Whether `memory` holds failures that it did not hold when this was last called, or lacks what is done."""
        failures, upkeep = self._context.reasons.failures, self._context.upkeep
        changed, failures.changed, upkeep.settled = failures.changed or upkeep.settled, False, False
        return changed

    def memory(self) -> Memory:
        """What is to outlive this engine beside the IKE SAs."""
        return memory.take(self._context)

    def remember(self, what: Memory, now: float) -> None:
        """Takes over what another engine's `memory` was, before or after `set_policy`."""
        memory.restore(self._enter(now), what)

    def snapshot(self, own_spi: bytes) -> IkeSaState:
        """The whole state of an established IKE SA; KeyError if there is none of this SPI."""
        return snapshot.take(self._context.ike_sas[own_spi])

    def restore(self, state: IkeSaState, now: float) -> None:
        """Takes over an IKE SA, before or after `set_policy`. What was under way goes on."""
        context = self._enter(now)
        sa = snapshot.rebuild(state)
        context.add(sa)
        for child in sa.children.values():
            context.own(sa, child)
        elsewhere.know_as_told(context, sa)
        context.wake(sa)
        log.info("%s: restored, %d Child SAs", sa, len(sa.children))
        self._settle()

    def status(self, own_spi: bytes) -> IkeSaStatus:
        """An IKE SA, for people; KeyError if there is none of this SPI."""
        return self._context.ike_sas[own_spi].status()

    def view(self, now: float) -> View:
        """What an operator may see."""
        return View(self._enter(now))

    def installed_sas(self) -> tuple[Sa, ...]:
        """All SAs that should be in the kernel."""
        return tuple(
            one for sa in self._context.ike_sas.values() for child in sa.children.values() for one in child.installed
        )

    # ------------------------------------------------------------------ inside

    def _go_on_ending(self) -> None:
        """Deletes the Child SAs of rules that an operator has ended, also those that were still being made then."""
        context = self._context
        for rule_id in list(self._ending):
            if DownRule(rule_id=rule_id).look(context) is not None:
                self._ending.discard(rule_id)
                continue
            for sa in list(context.ike_sas.values()):
                for child in list(sa.children.values()):
                    if child.rule_id == rule_id:
                        timers.delete_child(sa, child)
                        context.wake(sa)

    def _enter(self, now: float) -> Context:
        self._context.now = now
        return self._context

    def _settle(self) -> None:
        """Begins what is wanted, and sets timers, of all IKE SAs that something happened to."""
        context = self._context
        self._go_on_ending()
        while context.awake or context.ended or context.again:
            demand.follow_ends(context)
            if not context.awake:
                continue
            _, sa = context.awake.popitem()
            if sa.state is State.CLOSED:
                continue
            elsewhere.end_if_superfluous(context, sa)
            dialogue.pump(context, sa)
            context.schedule(sa, timers.next_due(sa, context.now))
        self._orders.look(context)
        if context.closing and not context.ike_sas:
            context.closing = False
            context.events.append(AllClosed())
