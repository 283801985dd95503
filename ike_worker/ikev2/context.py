"""What the exchanges share: the tables of SAs, the clock, randomness, what goes out, and work that waits for an answer.

An exchange is a generator. It yields a question (an event with a token), gets the answer, and ends with a result; all
that lasts changes after its last question, in one piece. So a snapshot never sees half an exchange, and a process
that dies in the middle of one goes on from the retransmission.
"""

import enum
import heapq
import itertools
import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from ike_worker.ikev2 import events
from ike_worker.ikev2.child_sa import FIRST_PACKET_S, ChildSa, sa_name
from ike_worker.ikev2.datagram import Datagram, Endpoint
from ike_worker.ikev2.elsewhere_table import ElsewhereTable
from ike_worker.ikev2.errors import AuthenticationFailed, Ikev2Error, RefusedHere
from ike_worker.ikev2.features.fragmentation import FragmentStore
from ike_worker.ikev2.features.gate import Gate
from ike_worker.ikev2.features.half_open import HalfOpenTable
from ike_worker.ikev2.features.reasons import Reasons
from ike_worker.ikev2.features.retransmission import KeyExchangeSeed
from ike_worker.ikev2.features.upkeep import Upkeep
from ike_worker.ikev2.iana import ExchangeType
from ike_worker.ikev2.ike_sa import IkeSa, Origin
from ike_worker.ikev2.policy import Policy
from ike_worker.ikev2.states import ChildState, State, enter
from ike_worker.ikev2.wire.authentication import Authentication
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wish import INHERITED_WISHES, Wish, WishKind
from ipc.messages import CertificateData, Sa, SaName
from ipc.roles import SPI_STEER_BYTE
from ipc.types import AuthMethod, EndAction, IpAddress
from ipc.value import value

log = logging.getLogger(__name__)

SPI_BYTES = 8
NONCE_BYTES = 32
JITTER = 0.1
"""Rekey times are shortened at random by up to this part, so that the two sides seldom collide."""
GHOST_S = 60.0
"""How long the last response of a closed IKE SA is kept, for a peer that has not got it."""
MAX_GHOSTS = 4096

MAX_AGAIN = 3

T = TypeVar("T")
Work = Generator[events.Question, Any, T]
"""Work that asks questions and ends with a T."""


class Ending(enum.Enum):
    """Who ended an SA."""

    OURS = "ours"
    PEERS = "peer's"
    SILENCE = "silence"


class Job(Generic[T]):
    """Work under way for one IKE SA."""

    __slots__ = ("done", "failed", "question", "sa", "work")

    def __init__(
        self, sa: IkeSa, work: Work[T], done: Callable[[T], None], failed: Callable[[Ikev2Error], None]
    ) -> None:
        self.sa = sa
        self.work = work
        self.done = done
        self.failed = failed
        self.question: events.Question | None = None


@value
class Ghost:
    """The last response of an IKE SA that is no more."""

    tail: bytes
    response: tuple[bytes, ...]
    until: float


@value
class OwnAuth:
    """AUTH as the policy loader made it."""

    method: AuthMethod
    data: bytes
    certificates: tuple[CertificateData, ...] = ()


@value
class Verdict:
    """What the policy loader says of the peer's AUTH; `reason` is why not."""

    valid: bool
    reason: str = ""


@value
class Request:
    """A request that is ready to be sealed, with what must be remembered until its response."""

    wish: Wish
    exchange_type: ExchangeType
    payloads: list[Payload]
    nonce: bytes = b""
    spi: bytes = b""
    key_exchange: KeyExchangeSeed | None = None
    in_clear: tuple[Payload, ...] = ()
    """What stands ahead of the Encrypted payload."""


@value
class Response:
    """A response that is ready to be sealed."""

    payloads: list[Payload]
    close: str = ""
    """If not empty: why the IKE SA is no more once the response is sent."""
    ending: Ending = Ending.OURS


@value
class Place:
    """Which of how many workers this one is. Each has IKE SAs of its own, known by a byte of their SPI."""

    index: int = 0
    workers: int = 1


SourceAddress = Callable[[IpAddress], IpAddress | None]
"""From which of our addresses routing would send to this one; None if that is not known."""


class Context:
    """The engine's inside, as the exchanges see it. `now` is set at each entry into the engine."""

    def __init__(self, random_bytes: Callable[[int], bytes], source_address: SourceAddress) -> None:
        self.random_bytes = random_bytes
        self.source_address = source_address
        self.now = 0.0
        self.place = Place()
        self.elsewhere = ElsewhereTable()
        self.policy = Policy()
        self.has_policy = False
        """Before the first policy nothing new is negotiated, but what was restored lives."""
        self.closing = False
        """Everything is being deleted, and nothing new is begun."""
        self.ike_sas: dict[bytes, IkeSa] = {}
        self.half_open = HalfOpenTable()
        self.gate = Gate(random_bytes, self.half_open)
        self._by_peer: dict[str, dict[bytes, IkeSa]] = {}
        self.child_owners: dict[int, IkeSa] = {}
        """The IKE SA of each Child SA, by our inbound SPI."""
        self.outbound_names: dict[SaName, int] = {}
        """Our inbound SPI of each Child SA, by the name of its outbound SA, whose SPI the peer has chosen."""
        self.ghosts: OrderedDict[bytes, Ghost] = OrderedDict()
        self.fragments = FragmentStore()
        self.strangers_fragments = FragmentStore()
        """Of half-open IKE SAs: whoever began them can't drive out what others have sent."""
        self.events: deque[events.Event] = deque()
        self.upkeep = Upkeep()
        self.reasons = Reasons()
        self.ended: dict[int, EndAction] = {}
        """What the end of a Child SA asks for, by rule; the engine does it before it returns."""
        self.again: list[Wish] = []
        """Child SAs that were wanted of an IKE SA which the peer has deleted."""
        self.outbox: list[Datagram] = []
        self.changed: dict[bytes, None] = {}
        self.gone: dict[bytes, None] = {}
        self.awake: dict[bytes, IkeSa] = {}
        """IKE SAs whose wishes and timers must be looked at before the engine returns."""
        self._jobs: dict[int, Job[Any]] = {}
        self._tokens = itertools.count(1)
        self._timers: list[tuple[float, int, IkeSa]] = []
        self._timer_order = itertools.count()

    # ------------------------------------------------------------------ time and chance

    def jittered(self, seconds: float) -> float:
        """`seconds`, shortened at random by up to JITTER."""
        return seconds * (1.0 - JITTER * int.from_bytes(self.random_bytes(2), "big") / 65535)

    def new_nonce(self) -> bytes:
        """A nonce of ours."""
        return self.random_bytes(NONCE_BYTES)

    def schedule(self, sa: IkeSa, when: float) -> None:
        """The timer looks at `sa` at `when`, or earlier if it does already."""
        if when < sa.scheduled_at:
            sa.scheduled_at = when
            heapq.heappush(self._timers, (when, next(self._timer_order), sa))

    def next_timer(self) -> float | None:
        """When the first IKE SA is due."""
        timers = self._timers
        while timers and (timers[0][0] != timers[0][2].scheduled_at or timers[0][2].state is State.CLOSED):
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def take_due(self) -> IkeSa | None:
        """The first IKE SA whose time has come."""
        when = self.next_timer()
        if when is None or when > self.now:
            return None
        sa = heapq.heappop(self._timers)[2]
        sa.scheduled_at = math.inf
        return sa

    def wake(self, sa: IkeSa) -> None:
        """Something about `sa` has changed: its wishes and its timer are looked at."""
        self.awake[sa.own_spi] = sa

    # ------------------------------------------------------------------ out

    def send(self, sa: IkeSa, message: tuple[bytes, ...]) -> None:
        """Sends a message of `sa`, whole or in fragments, to where its peer is."""
        path = sa.path
        for data in message:
            self.outbox.append(Datagram(local=path.local, remote=path.remote, data=data, own_spi=sa.own_spi))

    def answer_stranger(self, message: tuple[bytes, ...], local: Endpoint, remote: Endpoint) -> None:
        """Sends a message that no IKE SA stands behind."""
        for data in message:
            self.outbox.append(Datagram(local=local, remote=remote, data=data, own_spi=b""))

    def mark_changed(self, sa: IkeSa) -> None:
        """A new checkpoint of `sa` is needed. Half-open IKE SAs have none."""
        if sa.handshake is None:
            self.changed[sa.own_spi] = None
            sa.reported = True

    def report_failure(self, sa: IkeSa, wish: Wish | None, reason: str) -> None:
        """Tells that a negotiation came to nothing."""
        rule = self.policy.rule(wish.rule_id) if wish is not None else None
        name = rule.name if rule is not None else ""
        log.info("%s: %s%s", sa, f"{name}: " if name else "", reason)
        if rule is not None:
            self.upkeep.failed(rule.rule_id, self.now)
        self.reasons.other(self.now, sa, name, reason)
        self.events.append(events.NegotiationFailed(peer=sa.peer.name, rule=name, reason=reason))

    def forget_strangers_to_policy(self) -> None:
        """Forgets what is kept of rules and peers that are in the policy no more."""
        self.upkeep.keep_only(self.policy.rule_ids)
        self.reasons.failures.keep_only(self.policy.peer_names)

    # ------------------------------------------------------------------ work that asks

    def start(self, sa: IkeSa, work: Work[T], done: Callable[[T], None], failed: Callable[[Ikev2Error], None]) -> None:
        """Runs `work` up to its first question; `done` or `failed` comes at its end, perhaps at once."""
        self._go_on(Job(sa, work, done, failed), None, None)

    def answer(self, token: int, value: object) -> None:
        """The answer to the question `token`; ignored if nobody waits for it any more."""
        job = self._jobs.pop(token, None)
        if job is not None:
            self._go_on(job, value, None)

    def refuse(self, token: int, error: Ikev2Error) -> None:
        """The question `token` is refused."""
        job = self._jobs.pop(token, None)
        if job is not None:
            self._go_on(job, None, error)

    def _go_on(self, job: Job[Any], value: object, error: Ikev2Error | None) -> None:
        try:
            question = job.work.send(value) if error is None else job.work.throw(error)
        except StopIteration as stop:
            job.done(stop.value)
        except Ikev2Error as failure:
            job.failed(failure)
        else:
            job.question = question
            self._jobs[question.token] = job
            self.events.append(question)

    def cancel_jobs(self, sa: IkeSa) -> None:
        """Nobody waits any more. SAs that may be installed for that work are removed."""
        for token in [token for token, job in self._jobs.items() if job.sa is sa]:
            job = self._jobs.pop(token)
            job.work.close()
            if isinstance(job.question, events.InstallSas):
                self.events.append(events.DeleteSas(sas=tuple(sa_name(one) for one in job.question.sas)))

    def allocate_spi(self, rule_id: int) -> Work[int]:
        """Asks for an inbound SPI."""
        spi: int = yield events.AllocateSpi(token=next(self._tokens), rule_id=rule_id)
        return spi

    def install(self, *sas: Sa) -> Work[None]:
        """Has SAs installed; RefusedHere if they can't be."""
        yield events.InstallSas(token=next(self._tokens), sas=sas)

    def install_child(self, inbound: Sa, outbound: Sa, *, both: bool) -> Work[None]:
        """Has a new Child SA installed, `both` directions or the inbound one; RefusedHere if it can't be."""
        if sa_name(outbound) in self.outbound_names:
            raise RefusedHere(f"the peer chose the SPI {outbound.spi:08x}, which it has in use")
        yield from self.install(*((inbound, outbound) if both else (inbound,)))

    def compute_auth(self, sa: IkeSa, id_payload: bytes) -> Work[OwnAuth]:
        """Has our AUTH made; RefusedHere."""
        handshake, keys = sa.in_handshake, sa.keyed.keys
        answer: OwnAuth = yield events.ComputeAuth(
            token=next(self._tokens),
            peer=sa.peer.name,
            prf=sa.keyed.suite.prf,
            initiator=sa.initiator,
            message=handshake.own_message,
            nonce=handshake.peer_nonce,
            sk_p=keys.sk_pi if sa.initiator else keys.sk_pr,
            id_payload=id_payload,
            hash_algorithms=handshake.peer_hashes,
            requested_encodings=handshake.requested_encodings,
        )
        return answer

    def verify_auth(
        self, sa: IkeSa, id_payload: bytes, auth: Authentication, certificates: tuple[CertificateData, ...]
    ) -> Work[None]:
        """Has the peer's AUTH looked at; AuthenticationFailed, or RefusedHere."""
        handshake, keys = sa.in_handshake, sa.keyed.keys
        verdict: Verdict = yield events.VerifyAuth(
            token=next(self._tokens),
            peer=sa.peer.name,
            prf=sa.keyed.suite.prf,
            initiator=not sa.initiator,
            message=handshake.peer_message,
            nonce=handshake.own_nonce,
            sk_p=keys.sk_pr if sa.initiator else keys.sk_pi,
            id_payload=id_payload,
            method=auth.method,
            data=auth.data,
            certificates=certificates,
        )
        if not verdict.valid:
            self.reasons.not_authentic(self.now, sa, id_payload, auth.method, verdict.reason)
            raise AuthenticationFailed(f"the peer is not authenticated: {verdict.reason or 'its AUTH is wrong'}")

    # ------------------------------------------------------------------ IKE SAs

    def new_spi(self) -> bytes:
        """An SPI for an IKE SA of ours."""
        while (
            (spi := self.random_bytes(SPI_BYTES)) in self.ike_sas
            or spi == bytes(SPI_BYTES)
            or not self._leads_here(spi)
        ):
            pass
        return spi

    def _leads_here(self, spi: bytes) -> bool:
        """Whether what is sent to this SPI reaches this worker, of several."""
        return spi[SPI_STEER_BYTE] % self.place.workers == self.place.index

    def add(self, sa: IkeSa) -> None:
        """Takes a new IKE SA into the tables."""
        self.ike_sas[sa.own_spi] = sa
        if sa.state is not State.HALF_OPEN:
            self.index(sa)

    def add_half_open(self, sa: IkeSa, *, proven: bool) -> None:
        """Takes an IKE SA that an initiator has begun; `proven`: it has shown that it receives at its address."""
        self.add(sa)
        victim = self.half_open.add(sa, proven=proven)
        if victim is not None:
            self.close(victim, "too many IKE SAs are half-open")

    def index(self, sa: IkeSa) -> None:
        """From now on `sa` is found by its peer. A half-open one is not: its peer is only a guess."""
        self._by_peer.setdefault(sa.peer.name, {})[sa.own_spi] = sa

    def with_peer(self, name: str) -> list[IkeSa]:
        """The IKE SAs with this peer, half-open ones of its making left out."""
        return list(self._by_peer.get(name, {}).values())

    def siblings(self, sa: IkeSa) -> list[IkeSa]:
        """Other IKE SAs that stand with the same peer, by its identity too; at the same address, if it has none."""
        return [
            other
            for other in self.with_peer(sa.peer.name)
            if other is not sa
            and other.state is State.ESTABLISHED
            and (sa.peer.address is not None or other.path.remote.address == sa.path.remote.address)
            and (sa.origin is None or other.origin is None or sa.origin.peer_id == other.origin.peer_id)
        ]

    def established(self, sa: IkeSa, replaces: bytes = b"") -> None:
        """The handshake of `sa` is over, or the rekey of another one that has made it."""
        if sa.state is not State.ESTABLISHED:
            self.forget_init(sa)
            enter(sa, State.ESTABLISHED)
        self.index(sa)
        if sa.handshake is not None:
            rank = min(sa.spi_i, sa.spi_r)
            sa.origin = Origin(
                ours=sa.initiator,
                rank=rank,
                created_at=sa.created_at,
                authenticated_at=self.now,
                takes_over=sa.handshake.takes_over,
                peer_id=sa.handshake.peer_id,
            )
            sa.reauth_at = self.now + self.jittered(sa.peer.reauth_s) if sa.peer.reauth_s else math.inf
        sa.handshake = None
        sa.established_at = sa.last_heard = self.now
        sa.rekey_at = self.now + self.jittered(sa.peer.rekey_s) if sa.peer.rekey_s else math.inf
        self.mark_changed(sa)
        log.info("%s: established with %s", sa, sa.path.remote)
        self.events.append(events.IkeSaEstablished(own_spi=sa.own_spi, peer=sa.peer.name, replaces=replaces))

    def forget_init(self, sa: IkeSa) -> None:
        """`sa` is half-open no more."""
        if sa.state is State.HALF_OPEN:
            self.half_open.remove(sa)

    def close(self, sa: IkeSa, reason: str, ending: Ending = Ending.OURS) -> None:
        """`sa` and its Child SAs are no more."""
        if sa.state is State.CLOSED:
            return
        self._note_ends(sa, ending)
        stood = sa.handshake is None
        self.forget_init(sa)
        self.cancel_jobs(sa)
        for store in (self.fragments, self.strangers_fragments):
            store.forget(sa.own_spi)
        for child in list(sa.children.values()):
            self.close_child(sa, child, reason)
        enter(sa, State.CLOSED, reason)
        del self.ike_sas[sa.own_spi]
        siblings = self._by_peer.get(sa.peer.name)
        if siblings is not None and siblings.pop(sa.own_spi, None) is not None and not siblings:
            del self._by_peer[sa.peer.name]
        self.changed.pop(sa.own_spi, None)
        if sa.reported:
            self.gone[sa.own_spi] = None
        self._keep_ghost(sa)
        candidate = self.ike_sas.get(sa.window.pending.candidate) if sa.window.pending is not None else None
        if candidate is not None and candidate.state is State.CANDIDATE:
            self.close(candidate, reason)
        for wish in sa.all_wishes:
            if wish.kind is WishKind.CREATE_CHILD:
                self.report_failure(sa, wish, reason)
        if stood:
            log.info("%s: closed: %s", sa, reason)
            self.events.append(events.IkeSaClosed(own_spi=sa.own_spi, peer=sa.peer.name, reason=reason))

    def _note_ends(self, sa: IkeSa, ending: Ending) -> None:
        """What follows the end of `sa` for its rules: RFC 7296 leaves that to the policy."""
        for child in sa.children.values():
            if child.state is not ChildState.DRAINING:
                self.note_end(sa, child.rule_id, ending)
        if ending is Ending.PEERS:
            # What we wanted of it is wanted still; of a peer that ends each IKE SA just so often.
            wanted = [wish for wish in sa.all_wishes if wish.kind is WishKind.CREATE_CHILD]
            self.again += [wish for wish in wanted if wish.attempts < MAX_AGAIN]

    def note_end(self, sa: IkeSa, rule_id: int, ending: Ending) -> None:
        """A Child SA of this rule has ended in a way that we did not want."""
        rule = self.policy.rule(rule_id)
        if rule is not None and ending is Ending.PEERS:
            self.ended[rule_id] = rule.close_action
        elif rule is not None and ending is Ending.SILENCE:
            self.ended[rule_id] = sa.peer.liveness_action

    def _keep_ghost(self, sa: IkeSa) -> None:
        window = sa.window
        if window.last_response:
            ghost = Ghost(tail=window.last_tail, response=window.last_response, until=self.now + GHOST_S)
            self.ghosts[sa.own_spi] = ghost
            if len(self.ghosts) > MAX_GHOSTS:
                self.ghosts.popitem(last=False)

    # ------------------------------------------------------------------ Child SAs

    def add_child(self, sa: IkeSa, child: ChildSa, rekeyed_spi_in: int | None = None) -> None:
        """Takes a new Child SA into the tables."""
        sa.children[child.spi_in] = child
        self.upkeep.stands(child.rule_id)
        self.own(sa, child)
        rule = self.policy.rule(child.rule_id)
        rekey_s = rule.rekey_s if rule is not None else 0.0
        child.rekey_at = self.now + self.jittered(rekey_s) if rekey_s else math.inf
        self.ask_for_traffic_later(child)
        self.mark_changed(sa)
        log.info("%s: %s: established%s", sa, child, f", rekeys {rekeyed_spi_in:08x}" if rekeyed_spi_in else "")
        self.events.append(
            events.ChildSaEstablished(
                own_spi=sa.own_spi,
                rule=child.rule_name,
                spi_in=child.spi_in,
                spi_out=child.outbound.spi,
                rekeyed_spi_in=rekeyed_spi_in,
            )
        )

    def ask_for_traffic_later(self, child: ChildSa) -> None:
        """Sets when the kernel is asked what `child` carries (`features/traffic.py`)."""
        rule = self.policy.rule(child.rule_id)
        if child.state is ChildState.INBOUND and child.follows_another:
            child.ask_at = self.now + FIRST_PACKET_S
        elif child.state is ChildState.INSTALLED and rule is not None and rule.idle_s:
            child.ask_at = self.now + max(rule.idle_s - child.idle_before_s, 1.0)
        else:
            child.ask_at = math.inf

    def own(self, sa: IkeSa, child: ChildSa) -> None:
        """`child` is found by its SPIs from now on."""
        self.child_owners[child.spi_in] = sa
        self.outbound_names[sa_name(child.outbound)] = child.spi_in

    def close_child(self, sa: IkeSa, child: ChildSa, reason: str) -> None:
        """`child` is no more."""
        self.events.append(events.DeleteSas(sas=tuple(sa_name(one) for one in child.installed)))
        self.forget_child(sa, child)
        enter(child, ChildState.CLOSED, reason)
        log.info("%s: %s: closed: %s", sa, child, reason)
        self.events.append(
            events.ChildSaClosed(own_spi=sa.own_spi, rule=child.rule_name, spi_in=child.spi_in, reason=reason)
        )

    def forget_child(self, sa: IkeSa, child: ChildSa) -> None:
        """Takes `child` out of the tables, and what was wanted of it."""
        self._forget_wishes(sa, child)
        del sa.children[child.spi_in]
        self.child_owners.pop(child.spi_in, None)
        self.outbound_names.pop(sa_name(child.outbound), None)
        self.mark_changed(sa)

    def _forget_wishes(self, sa: IkeSa, child: ChildSa) -> None:
        if any(wish.spi_in == child.spi_in for wish in sa.wishes):
            sa.wishes = deque(wish for wish in sa.wishes if wish.spi_in != child.spi_in)

    def move_children(self, old: IkeSa, new: IkeSa) -> None:
        """`new` inherits the Child SAs of `old`, and what is wanted of them (RFC 7296 section 2.18)."""
        new.children, old.children = old.children, {}
        new.wishes.extend(wish for wish in old.wishes if wish.kind in INHERITED_WISHES)
        old.wishes.clear()
        for spi_in in new.children:
            self.child_owners[spi_in] = new
        self.mark_changed(old)
        self.mark_changed(new)

    def stop_sending_on(self, sa: IkeSa, child: ChildSa) -> None:
        """Another Child SA takes the outbound traffic of `child`, which goes on receiving."""
        if child.outbound_installed:
            rule = self.policy.rule(child.rule_id)
            if rule is not None and rule.idle_s:
                self.events.append(events.QueryUsage(sas=tuple(sa_name(one) for one in child.installed)))
            child.outbound_installed = False
            self.events.append(events.DeleteSas(sas=(sa_name(child.outbound),)))
            self.mark_changed(sa)

    def drain_child(self, sa: IkeSa, child: ChildSa, drain_s: float) -> None:
        """`child` is replaced and deleted on both sides; what is under way still comes in."""
        self._forget_wishes(sa, child)
        self.stop_sending_on(sa, child)
        enter(child, ChildState.DRAINING)
        child.due_at = self.now + drain_s
        self.mark_changed(sa)
