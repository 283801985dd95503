"""An established IKE SA as a value and back, for a process that takes it over. Half-open ones are not worth keeping.

What is between two answers of an exchange is not in it: the peer's request is worked on again when it comes again,
and our own is sent again. The fields hold only types that `ipc/codec.py` knows.
"""

from collections import deque
from typing import Annotated

from ike_worker.ikev2.child_sa import ChildSa
from ike_worker.ikev2.crypto.keymat import IkeKeys, IkeSuite
from ike_worker.ikev2.datagram import FIRST_PACKET_BYTES, Endpoint
from ike_worker.ikev2.features.retransmission import KeyExchangeSeed, Pending
from ike_worker.ikev2.ike_sa import Handover, IkeSa, NatPath, Origin, Session, Window
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.wire.message import MAX_MESSAGE_BYTES
from ike_worker.ikev2.wish import Wish
from ipc.algorithms import KeyExchangeId
from ipc.messages import Peer, Sa
from ipc.types import MaxLength, Name, Secret
from ipc.value import value

MAX_FRAGMENTS = 256
"""Of one message of ours: the longest one fits into fewer."""
Datagram = Annotated[bytes, MaxLength(MAX_MESSAGE_BYTES)]
MAX_CHILDREN = 4096
MAX_WISHES = 4096


@value
class ChildSaState:
    """A Child SA; see `ChildSa`."""

    rule_id: int
    rule_name: Name
    state: ChildState
    inbound: Sa
    outbound: Sa
    outbound_installed: bool
    replaces: int
    established_at: float
    rekey_at: float
    dies_at: float
    due_at: float
    ours: bool
    beside: int
    ask_at: float
    idle_before_s: float = 0.0


@value
class PendingState:
    """Our request under way; see `Pending`."""

    wish: Wish
    exchange_type: int
    message_id: int
    data: Annotated[tuple[Datagram, ...], MaxLength(MAX_FRAGMENTS)]
    nonce: bytes
    spi: bytes
    group: KeyExchangeId
    drawn: Secret
    interval_s: float
    next_at: float
    give_up_at: float
    collided_spi_in: int
    collided_nonces: tuple[bytes, ...]
    candidate: bytes


@value
class IkeSaState:
    """An IKE SA with its Child SAs, its message window and its wishes; see `IkeSa`."""

    own_spi: bytes
    peer_spi: bytes
    initiator: bool
    peer: Peer
    state: State
    local: Endpoint
    remote: Endpoint
    forced: bool
    we_behind_nat: bool
    peer_behind_nat: bool
    keepalive_at: float
    suite: IkeSuite
    keys: IkeKeys
    next_id: int
    expected_id: int
    last_response: Annotated[tuple[Datagram, ...], MaxLength(MAX_FRAGMENTS)]
    last_tail: bytes
    pending: PendingState | None
    wishes: Annotated[tuple[Wish, ...], MaxLength(MAX_WISHES)]
    children: Annotated[tuple[ChildSaState, ...], MaxLength(MAX_CHILDREN)]
    created_at: float
    established_at: float
    last_heard: float
    rekey_at: float
    reauth_at: float
    origin: Origin | None
    handover: Handover | None
    fragments: bool = False
    packet_bytes: int = FIRST_PACKET_BYTES


def take(sa: IkeSa) -> IkeSaState:
    """`sa` as a value."""
    path, window, session = sa.path, sa.window, sa.keyed
    return IkeSaState(
        own_spi=sa.own_spi,
        peer_spi=sa.peer_spi,
        initiator=sa.initiator,
        peer=sa.peer,
        state=sa.state,
        local=path.local,
        remote=path.remote,
        forced=path.forced,
        we_behind_nat=path.we_behind_nat,
        peer_behind_nat=path.peer_behind_nat,
        keepalive_at=path.keepalive_at,
        suite=session.suite,
        keys=session.keys,
        next_id=window.next_id,
        expected_id=window.expected_id,
        last_response=window.last_response,
        last_tail=window.last_tail,
        pending=_take_pending(window.pending) if window.pending is not None else None,
        wishes=_take_wishes(sa),
        children=tuple([_take_child(child) for child in sa.children.values()]),
        created_at=sa.created_at,
        established_at=sa.established_at,
        last_heard=sa.last_heard,
        rekey_at=sa.rekey_at,
        reauth_at=sa.reauth_at,
        origin=sa.origin,
        handover=sa.handover,
        fragments=path.fragments,
        packet_bytes=path.packet_bytes,
    )


def _take_wishes(sa: IkeSa) -> tuple[Wish, ...]:
    """A request that is being prepared is still to be made."""
    preparing = sa.window.preparing
    return (*((preparing,) if preparing is not None else ()), *sa.wishes)[:MAX_WISHES]


def _take_pending(pending: Pending) -> PendingState:
    seed = pending.key_exchange
    return PendingState(
        wish=pending.wish,
        exchange_type=pending.exchange_type,
        message_id=pending.message_id,
        data=pending.data,
        nonce=pending.nonce,
        spi=pending.spi,
        group=seed.key_exchange.group if seed is not None else KeyExchangeId.NONE,
        drawn=Secret(seed.drawn if seed is not None else b""),
        interval_s=pending.interval_s,
        next_at=pending.next_at,
        give_up_at=pending.give_up_at,
        collided_spi_in=pending.collided_spi_in,
        collided_nonces=pending.collided_nonces,
        candidate=pending.candidate,
    )


def _take_child(child: ChildSa) -> ChildSaState:
    return ChildSaState(
        rule_id=child.rule_id,
        rule_name=child.rule_name,
        state=child.state,
        inbound=child.inbound,
        outbound=child.outbound,
        outbound_installed=child.outbound_installed,
        replaces=child.replaces,
        established_at=child.established_at,
        rekey_at=child.rekey_at,
        dies_at=child.dies_at,
        due_at=child.due_at,
        ours=child.ours,
        beside=child.beside,
        ask_at=child.ask_at,
        idle_before_s=child.idle_before_s,
    )


def rebuild(state: IkeSaState) -> IkeSa:
    """The IKE SA that `state` was taken of."""
    path = NatPath(state.local, state.remote, forced=state.forced)
    path.we_behind_nat = state.we_behind_nat
    path.peer_behind_nat = state.peer_behind_nat
    path.keepalive_at = state.keepalive_at
    path.fragments, path.packet_bytes = state.fragments, state.packet_bytes
    sa = IkeSa(
        own_spi=state.own_spi,
        peer_spi=state.peer_spi,
        initiator=state.initiator,
        peer=state.peer,
        path=path,
        state=state.state,
        now=state.created_at,
    )
    sa.session = Session(state.suite, state.keys, initiator=state.initiator)
    sa.established_at = state.established_at
    sa.last_heard = state.last_heard
    sa.rekey_at = state.rekey_at
    sa.reauth_at = state.reauth_at
    sa.origin = state.origin
    sa.handover = state.handover
    sa.reported = True
    sa.wishes = deque(state.wishes)
    sa.children = {child.inbound.spi: _rebuild_child(child) for child in state.children}
    sa.window = _rebuild_window(state)
    under_way = state.pending.wish.spi_in if state.pending is not None else 0
    for child in sa.children.values():
        if child.state is ChildState.REKEYING and child.spi_in != under_way:
            child.state = ChildState.INSTALLED  # its request was being prepared, and is a wish again
    return sa


def _rebuild_window(state: IkeSaState) -> Window:
    window = Window()
    window.next_id = state.next_id
    window.expected_id = state.expected_id
    window.last_response = state.last_response
    window.last_tail = state.last_tail
    if state.pending is not None:
        window.pending = _rebuild_pending(state.pending)
    return window


def _rebuild_pending(state: PendingState) -> Pending:
    pending = Pending(
        wish=state.wish,
        exchange_type=state.exchange_type,
        message_id=state.message_id,
        data=state.data,
        now=0.0,
        nonce=state.nonce,
        spi=state.spi,
        key_exchange=KeyExchangeSeed.replay(state.group, state.drawn.reveal())
        if state.group is not KeyExchangeId.NONE
        else None,
    )
    pending.interval_s = state.interval_s
    pending.next_at = state.next_at
    pending.give_up_at = state.give_up_at
    pending.collided_spi_in = state.collided_spi_in
    pending.collided_nonces = state.collided_nonces
    pending.candidate = state.candidate
    return pending


def _rebuild_child(state: ChildSaState) -> ChildSa:
    child = ChildSa(
        rule_id=state.rule_id,
        rule_name=state.rule_name,
        inbound=state.inbound,
        outbound=state.outbound,
        state=state.state,
        ours=state.ours,
        now=state.established_at,
        dies_at=state.dies_at,
    )
    child.outbound_installed = state.outbound_installed
    child.replaces = state.replaces
    child.rekey_at = state.rekey_at
    child.due_at = state.due_at
    child.beside = state.beside
    child.ask_at = state.ask_at
    child.idle_before_s = state.idle_before_s
    return child
