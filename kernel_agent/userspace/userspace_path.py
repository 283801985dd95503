"""The agent's side of the user-space data path: the kernel enforces around a TUN device, a process of ours does ESP.

The agent puts policies, marks and routes in place, and tells the process (role data_path) the policy and the SAs, each
with its slot in the counter memory. The process may die and come back at any time: at each connection it is told all
again, and goes on where the counter memory says.

A slot follows from the SA's name, so that an agent which starts anew finds it again: the first free one from a hash of
the name on. The process refuses an SA in a slot that holds another's counters, and then the next slot is tried.
"""

import functools
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ipc import messages as m
from ipc.channel import Handler
from ipc.messages import PlacedSa, PlaceSa, Sa, SaName
from ipc.types import DataPathKind
from ipc.value import value
from kernel_agent import clean, interfaces, netfilter
from kernel_agent.data_path import Answered, DataPathError, Done, Listener, Lost, SecurityPolicy
from kernel_agent.drift import DriftWatch
from kernel_agent.last_result import LastResult
from kernel_agent.probe import ScratchSockets
from kernel_agent.routes import RoutePlanner
from kernel_agent.routing_table import Link, RoutingTable
from kernel_agent.xfrm.constants import NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM
from kernel_agent.xfrm.messages import InstalledSa, PolicyEntry
from kernel_agent.xfrm.netlink import RequestSocket
from kernel_agent.xfrm.policies import Planner, PolicyPlan
from kernel_agent.xfrm.policy_table import PolicyTable

log = logging.getLogger(__name__)

SLOTS = 65536
SLOT_ATTEMPTS = 16
DEFAULT_OUTER_MTU = 1500
ESP_OVERHEAD_BYTES = 100
"""More than any combination adds: outer IPv6, UDP, ESP, IV, padding, ICV."""
LOWEST_MTU = 576

Send = Callable[[object], bool]


@dataclass(slots=True, kw_only=True)
class _Place:
    """An SA that should exist. Mutable: it is moved and acknowledged."""

    sa: Sa
    slot: int
    attempt: int = 0
    fresh: bool
    """Not known to count anywhere yet. Harmless if it does: the process goes on with keys that have a slot."""


@value
class _Asked:
    names: tuple[SaName, ...]
    done: Done


@dataclass(slots=True, kw_only=True)
class _Pending:
    """Questions that the process has not answered, by request id, in their order."""

    placings: dict[int, _Asked] = field(default_factory=dict)
    deletions: dict[int, _Asked] = field(default_factory=dict)
    queries: dict[int, Answered] = field(default_factory=dict)


class UserspacePath:
    """`DataPath` by the process of role data_path. `send` speaks to it: False while it is not there."""

    kind = DataPathKind.USERSPACE

    def __init__(
        self,
        tun_interface: str,
        send: Send,
        *,
        scratch: ScratchSockets | None = None,
        working: Callable[[], None] = lambda: None,
    ) -> None:
        """`scratch` is netlink in a namespace where policies may be tried; `working` is called now and then."""
        self._scratch = scratch
        self._tun_interface = tun_interface
        self._send = send
        self.xfrm = RequestSocket(NETLINK_XFRM, working)
        self.route = RequestSocket(NETLINK_ROUTE, working)
        self.netfilter = RequestSocket(NETLINK_NETFILTER)
        self._policies = PolicyTable(self.xfrm)
        self._drift = DriftWatch(self.xfrm, self._policies)
        self._routing = RoutingTable(self.route)
        self._named: set[int] = set()
        """Interfaces whose packets are marked for the policies."""
        self._policy_plan = LastResult(Planner().userspace_policies)
        self._routing_plan = LastResult(RoutePlanner().plan)
        self._listener: Listener | None = None
        self._policy: SecurityPolicy | None = None
        self._places: dict[SaName, _Place] = {}
        self._slots: set[int] = set()
        self._pending = _Pending()
        self._request_ids = itertools.count(1)
        self._handlers = self._table()

    def handlers(self) -> Mapping[type, Handler]:
        """What the link to the process needs; `on_connected` goes with it."""
        return self._handlers

    def _table(self) -> Mapping[type, Handler]:
        return {
            # A process asks when it starts; that it has just connected has told us already.
            m.NeedPolicy: lambda _message, _peer: None,
            m.PolicyTaken: lambda message, _peer: log.debug("the data path has policy %d", message.generation),
            m.SaAdded: lambda message, _peer: self._on_placed(message.request_id, ""),
            m.SaRefused: lambda message, _peer: self._on_refused(message),
            m.SaDeleted: lambda message, _peer: self._on_deleted(message.request_id, ""),
            m.SaUsage: lambda message, _peer: self._on_usage(message),
            m.Acquire: lambda message, _peer: self._to_listener(lambda listener: listener.on_acquire(message)),
            m.Expire: lambda message, _peer: self._on_expire(message),
            m.PeerMoved: lambda message, _peer: self._to_listener(lambda listener: listener.on_peer_moved(message)),
        }

    # ------------------------------------------------------------- the operations

    def start(self, listener: Listener) -> None:
        """Looks that the TUN device is there, and ends what SAs the kernel may still have of ours."""
        self._tun()
        try:
            clean.remove_sas(self.xfrm)
        except OSError as error:
            raise DataPathError(f"the kernel's SAs can't be removed: {error.strerror}") from error
        self._listener = listener

    def install_policy(self, policy: SecurityPolicy) -> None:
        """Policies, marks and routes in the kernel, then the process is told."""
        tun = self._tun()
        before: Mapping[bytes, PolicyEntry] | None = None
        try:
            routing = self._routing_plan.of(policy.rules, self._routing.addresses(), tun.index)
            policies = self._policies_of(policy, tun)
            named = set(interfaces.indexes(policy.rules).values())
            # Packets are marked before a policy asks for it, and for as long as one does.
            netfilter.install(self.netfilter, tun.index, named | self._named)
            before = self._policies.install(policies)
            netfilter.install(self.netfilter, tun.index, named)
            self._named = named
            self._routing.bring_up(tun, self._mtu(policy))
            self._routing.install(routing)
            self._drift.settle()
        except OSError as error:
            if before is not None:
                self._restore(before)
            raise DataPathError(f"the kernel did not take the policy: {error.strerror}") from error
        self._policy = policy
        self._send_policy(policy)

    def check_policy(self, policy: SecurityPolicy) -> None:
        """Tries what is new in the namespace aside: policies and routing rules. Routes can't be refused."""
        if self._scratch is None:
            return
        tun = self._tun()
        try:
            routing = self._routing_plan.of(policy.rules, self._routing.addresses(), tun.index)
            self._policies.check(self._policies_of(policy, tun), PolicyTable(self._scratch.xfrm))
            self._routing.check(routing, RoutingTable(self._scratch.route))
        except OSError as error:
            raise DataPathError(f"the kernel would not take the policy: {error.strerror}") from error

    def drift(self, policy: SecurityPolicy) -> tuple[str, ...]:
        """As the policy table has it. To install it again mends marks and routes too."""
        return self._drift.look(lambda: self._policies_of(policy, self._tun()))

    def installed_sas(self) -> tuple[InstalledSa, ...]:
        """The SAs that the process was told, or will be."""
        return tuple(InstalledSa(name=name, rule_id=place.sa.rule_id) for name, place in self._places.items())

    def add_sas(self, sas: tuple[Sa, ...], done: Done) -> None:
        """Places new SAs; they wait while the process is away."""
        self._place(sas, done, fresh=True)

    def restore_sas(self, sas: tuple[Sa, ...], lost: Lost) -> None:
        """Places SAs whose counters are in the memory already; those that this agent knows need nothing."""
        for sa in sas:
            name = _name(sa)
            if name not in self._places:
                self._place((sa,), functools.partial(_tell_if_lost, name, lost), fresh=False)

    def delete_sas(self, names: tuple[SaName, ...], done: Done) -> None:
        """Deletes; a process that is away does not hear of them again."""
        for name in names:
            self._forget(name)
        request_id = next(self._request_ids)
        self._pending.deletions[request_id] = _Asked(names=names, done=done)
        if not self._send(m.DeleteSa(request_id=request_id, sas=names)):
            self._on_deleted(request_id, "")

    def query_sas(self, names: tuple[SaName, ...], answered: Answered) -> None:
        """Asks the process; nothing is known while it is away."""
        request_id = next(self._request_ids)
        self._pending.queries[request_id] = answered
        if not self._send(m.QuerySa(request_id=request_id, sas=names)):
            del self._pending.queries[request_id]
            answered(())

    def leave(self) -> None:
        """Closes the sockets."""
        self._listener = None
        for one in (self.xfrm, self.route, self.netfilter):
            one.close()

    # ------------------------------------------------------------- the process

    def on_connected(self, _peer: bytes) -> None:
        """The process is there, perhaps a new one: tells it everything, in the order it first came."""
        unanswered = dict(self._pending.placings)
        waited_for = {name for asked in unanswered.values() for name in asked.names}
        queries, self._pending.queries = self._pending.queries, {}
        for answered in queries.values():
            answered(())
        if self._policy is not None:
            self._send_policy(self._policy)
        for name in [name for name in self._places if name not in waited_for]:
            self._ask_to_place((name,), functools.partial(_tell_if_lost, name, self._expire))
        for request_id, asked in unanswered.items():
            self._send_placing(request_id, asked.names)
        for request_id, asked in self._pending.deletions.items():
            self._send(m.DeleteSa(request_id=request_id, sas=asked.names))

    def _place(self, sas: tuple[Sa, ...], done: Done, *, fresh: bool) -> None:
        if len(self._slots) + len(sas) > SLOTS // 2:
            done("the counter memory of the data path is full")
            return
        for sa in sas:
            place = _Place(sa=sa, slot=0, fresh=fresh)
            self._take_slot(place)
            self._places[_name(sa)] = place
        self._ask_to_place(tuple(_name(sa) for sa in sas), done)

    def _ask_to_place(self, names: tuple[SaName, ...], done: Done) -> None:
        request_id = next(self._request_ids)
        self._pending.placings[request_id] = _Asked(names=names, done=done)
        self._send_placing(request_id, names)

    def _send_placing(self, request_id: int, names: Iterable[SaName]) -> None:
        places = [self._places[name] for name in names if name in self._places]
        placed = tuple(PlacedSa(sa=place.sa, slot=place.slot, fresh=place.fresh) for place in places)
        self._send(PlaceSa(request_id=request_id, sas=placed))

    def _on_placed(self, request_id: int, reason: str) -> None:
        placing = self._pending.placings.pop(request_id, None)
        if placing is None:
            return
        for name in placing.names:
            place = self._places.get(name)
            if place is not None:
                place.fresh = False
        placing.done(reason)

    def _on_refused(self, message: m.SaRefused) -> None:
        if message.request_id in self._pending.deletions:
            self._on_deleted(message.request_id, message.reason)
            return
        placing = self._pending.placings.pop(message.request_id, None)
        if placing is None:
            return
        single = self._places.get(placing.names[0]) if len(placing.names) == 1 else None
        if single is not None and not single.fresh and single.attempt < SLOT_ATTEMPTS:
            self._move(single)
            self._ask_to_place(placing.names, placing.done)
            return
        for name in placing.names:
            self._forget(name)
        placing.done(message.reason)

    def _move(self, place: _Place) -> None:
        self._slots.discard(place.slot)
        place.attempt += 1
        self._take_slot(place)

    def _take_slot(self, place: _Place) -> None:
        for attempt, slot in enumerate(_slots_of(_name(place.sa))):
            if attempt >= place.attempt and slot not in self._slots:
                place.slot, place.attempt = slot, attempt
                self._slots.add(slot)
                return

    def _expire(self, name: SaName, reason: str) -> None:
        """The process could not go on with an SA that nobody waits for: the worker must know."""
        log.warning("SA %08x is lost: %s", name.spi, reason)
        self._to_listener(lambda listener: listener.on_expire(m.Expire(sa=name, hard=True)))

    def _on_deleted(self, request_id: int, reason: str) -> None:
        asked = self._pending.deletions.pop(request_id, None)
        if asked is not None:
            asked.done(reason)

    def _on_usage(self, message: m.SaUsage) -> None:
        answered = self._pending.queries.pop(message.request_id, None)
        if answered is not None:
            answered(message.usage)

    def _on_expire(self, message: m.Expire) -> None:
        if message.sa not in self._places:
            return
        if message.hard:
            self._forget(message.sa)
        self._to_listener(lambda listener: listener.on_expire(message))

    def _forget(self, name: SaName) -> None:
        place = self._places.pop(name, None)
        if place is not None:
            self._slots.discard(place.slot)

    def _to_listener(self, tell: Callable[[Listener], None]) -> None:
        if self._listener is not None:
            tell(self._listener)

    def _send_policy(self, policy: SecurityPolicy) -> None:
        generation = policy.generation
        begin = m.BeginPolicy(generation=generation, interfaces=policy.interfaces, unmatched=policy.unmatched)
        if not self._send(begin):
            return
        for start in range(0, len(policy.rules), m.RULES_PER_MESSAGE):
            chunk = policy.rules[start : start + m.RULES_PER_MESSAGE]
            self._send(m.AddPolicy(generation=generation, rules=chunk))
        self._send(m.CommitPolicy(generation=generation, rules=len(policy.rules)))

    # ------------------------------------------------------------- the kernel

    def _policies_of(self, policy: SecurityPolicy, tun: Link) -> PolicyPlan:
        return self._policy_plan.of(policy.rules, tun.index, interfaces.indexes(policy.rules))

    def _tun(self) -> Link:
        try:
            links = self._routing.links()
        except OSError as error:
            raise DataPathError(f"the interfaces can't be listed: {error.strerror}") from error
        for link in links:
            if link.name == self._tun_interface:
                return link
        raise DataPathError(f"the TUN device {self._tun_interface} does not exist")

    def _mtu(self, policy: SecurityPolicy) -> int:
        outer = [link.mtu for link in self._routing.links() if link.name in policy.interfaces]
        return max(LOWEST_MTU, min(outer, default=DEFAULT_OUTER_MTU) - ESP_OVERHEAD_BYTES)

    def _restore(self, before: Mapping[bytes, PolicyEntry]) -> None:
        """Policies as they were; routes have undone themselves, and marks alone change nothing."""
        try:
            self._policies.restore(before)
        except DataPathError as error:
            log.error("the former policies could not be put back whole: %s", error)


def _tell_if_lost(name: SaName, lost: Lost, reason: str) -> None:
    if reason:
        lost(name, reason)


def _name(sa: Sa) -> SaName:
    return SaName(spi=sa.spi, destination=sa.destination)


def _slots_of(name: SaName) -> Iterator[int]:
    """Where the counters of an SA may be, most likely first."""
    digest = hashlib.blake2b(name.spi.to_bytes(4, "big") + name.destination.packed, digest_size=4).digest()
    first = int.from_bytes(digest, "big")
    return ((first + step) % SLOTS for step in range(SLOTS))
