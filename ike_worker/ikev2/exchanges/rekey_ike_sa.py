"""CREATE_CHILD_SA for the IKE SA itself: a new one inherits the Child SAs. RFC 7296 sections 1.3.2, 2.18 and 2.25.2.

While a Child SA is made, rekeyed or closed the answer is TEMPORARY_FAILURE. Where both sides rekey at once, what the
peer makes is a CANDIDATE until our own request is answered; then the nonces say which of the two takes the Child SAs.
"""

import logging
import math
from dataclasses import replace

from ike_worker.ikev2.child_sa import REPLACED_LIFE_S
from ike_worker.ikev2.context import Context, Request, Response, Work
from ike_worker.ikev2.crypto.keymat import IkeSuite, derive_rekeyed_ike_keys
from ike_worker.ikev2.errors import Ikev2Error, MalformedMessage, Refused, RefusedHere
from ike_worker.ikev2.events import IkeSaNotRekeyed
from ike_worker.ikev2.exchange_rules import Contents
from ike_worker.ikev2.exchanges import reauthentication
from ike_worker.ikev2.exchanges.ike_sa_init import wanted_group
from ike_worker.ikev2.features import collisions, handover, nat_traversal
from ike_worker.ikev2.features.retransmission import KeyExchangeSeed, Pending
from ike_worker.ikev2.iana import ExchangeType, NotifyType, name_of
from ike_worker.ikev2.ike_sa import IkeSa, Session
from ike_worker.ikev2.selection import choose_ike, ike_answer, offer_ike
from ike_worker.ikev2.states import ChildState, State, enter
from ike_worker.ikev2.wire.key_exchange import KeyExchangePayload
from ike_worker.ikev2.wire.nonce import Nonce
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ike_worker.ikev2.wish import Wish, WishKind
from ipc.algorithms import KeyExchangeId

log = logging.getLogger(__name__)

RETRY_S = 30.0
"""After a rekey that failed; after TEMPORARY_FAILURE ..."""
RETRY_TEMPORARY_S = 4.0
"""... sooner. Both shortened at random."""
_RETRY_SPREAD = 0.5
_SPI_BYTES = 8


# ------------------------------------------------------------------ initiator


def request(context: Context, sa: IkeSa, wish: Wish) -> Request | None:
    """The request; None if the IKE SA is not one to rekey any more."""
    if sa.state is not State.ESTABLISHED:
        return None
    offered = [group for proposal in sa.peer.ike_proposals for group in proposal.key_exchange]
    present = sa.keyed.suite.key_exchange
    group = KeyExchangeId(wish.group) if wish.group else present if present in offered else offered[0]
    seed = KeyExchangeSeed.generate(group, context.random_bytes)
    spi, nonce = context.new_spi(), context.new_nonce()
    payloads: list[Payload] = [
        offer_ike(sa.peer.ike_proposals, spi),
        Nonce(data=nonce),
        KeyExchangePayload(group=group, data=seed.key_exchange.public),
    ]
    return Request(
        wish=wish,
        exchange_type=ExchangeType.CREATE_CHILD_SA,
        payloads=payloads,
        nonce=nonce,
        spi=spi,
        key_exchange=seed,
    )


def complete(context: Context, sa: IkeSa, pending: Pending, contents: Contents) -> Work[None]:
    """Acts on the response; RemoteError or RefusedHere where no IKE SA comes of it."""
    if contents.wrong is not None:
        _on_error(context, sa, pending, contents)
        return
    payload = contents.need(SecurityAssociation)
    ours = pending.key_exchange
    if ours is None:
        raise RefusedHere("the key exchange of the request is lost")
    chosen = choose_ike(sa.peer.ike_proposals, payload, ours.key_exchange.group)
    theirs, nonce_r = contents.need(KeyExchangePayload), contents.need(Nonce).data
    if chosen is None or len(payload.proposals) != 1 or len(chosen.proposal.spi) != _SPI_BYTES:
        raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "the responder chose what was not offered")
    if not ours.key_exchange.group == chosen.suite.key_exchange == theirs.group:
        raise MalformedMessage("the responder's key exchange is of another group")
    lost = _is_lost(context, sa, pending, nonce_r)
    new = _make(
        context,
        sa,
        chosen.suite,
        State.REKEYED if lost else State.ESTABLISHED,
        initiator=True,
        own_spi=pending.spi,
        peer_spi=chosen.proposal.spi,
        shared=ours.key_exchange.shared_secret(theirs.data),
        nonce_i=pending.nonce,
        nonce_r=nonce_r,
    )
    sa.window.pending = None
    context.add(new)
    if lost:
        _discard(context, sa, new)
    else:
        _prevail(context, sa, new, pending)
    return
    yield  # an exchange is a generator, and this one asks nothing


def _is_lost(context: Context, sa: IkeSa, pending: Pending, nonce_r: bytes) -> bool:
    """Whether what the peer's rekey has made takes the place of `sa`, now."""
    lost = sa.state is State.ESTABLISHED and collisions.we_lose(sa, pending, nonce_r) and adopt_candidate(context, sa)
    return lost or sa.state is not State.ESTABLISHED


def _discard(context: Context, sa: IkeSa, new: IkeSa) -> None:
    log.info("%s: our rekey lost to the peer's", sa)
    new.wishes.append(Wish(kind=WishKind.DELETE_IKE))
    context.mark_changed(new)
    context.wake(new)


def _prevail(context: Context, sa: IkeSa, new: IkeSa, pending: Pending) -> None:
    candidate = context.ike_sas.get(pending.candidate)
    if candidate is not None and candidate.state is State.CANDIDATE:
        _leave_to_peer(context, candidate)
    _replace(context, sa, new)
    sa.wishes.appendleft(Wish(kind=WishKind.DELETE_IKE))


def failed(context: Context, sa: IkeSa, pending: Pending, error: Ikev2Error) -> None:
    """No new IKE SA of ours; the old one stands until the next try, if the peer has not replaced it meanwhile."""
    if not adopt_candidate(context, sa):
        _later(context, sa, RETRY_S, str(error))
    sa.window.pending = None


def adopt_candidate(context: Context, sa: IkeSa) -> bool:
    """Nothing comes of our own rekey: what the peer's has made, if anything, takes the place of `sa`."""
    pending = sa.window.pending
    candidate = context.ike_sas.get(pending.candidate) if pending is not None else None
    if candidate is None or candidate.state is not State.CANDIDATE:
        return False
    enter(candidate, State.ESTABLISHED)
    _replace(context, sa, candidate)
    return True


def _on_error(context: Context, sa: IkeSa, pending: Pending, contents: Contents) -> None:
    wrong = contents.wrong
    adopted = adopt_candidate(context, sa)
    sa.window.pending = None
    if wrong is None or adopted or sa.state is not State.ESTABLISHED:
        return
    if wrong.type == NotifyType.INVALID_KE_PAYLOAD and not pending.wish.group:
        group = wanted_group(wrong)
        if group is not None and any(group in one.key_exchange for one in sa.peer.ike_proposals):
            sa.wishes.appendleft(replace(pending.wish, group=int(group)))
            return
    if wrong.type == NotifyType.NO_ADDITIONAL_SAS:
        # RFC 7296 section 1.3: a peer that can't rekey has another IKE SA made from the start.
        reauthentication.begin(context, sa)
        return
    delay_s = RETRY_TEMPORARY_S if wrong.type == NotifyType.TEMPORARY_FAILURE else RETRY_S
    if wrong.type == NotifyType.NO_PROPOSAL_CHOSEN:
        context.reasons.ike_refused_by_peer(context.now, sa, ExchangeType.CREATE_CHILD_SA, wrong.type)
    _later(context, sa, delay_s, f"the peer answers {name_of(NotifyType, wrong.type)}")


def _later(context: Context, sa: IkeSa, delay_s: float, reason: str) -> None:
    log.info("%s: not rekeyed: %s", sa, reason)
    context.events.append(IkeSaNotRekeyed(own_spi=sa.own_spi, reason=reason))
    chance = int.from_bytes(context.random_bytes(2), "big") / 65535
    sa.rekey_at = context.now + delay_s * (1.0 - _RETRY_SPREAD * chance)


# ------------------------------------------------------------------ responder


def respond(context: Context, sa: IkeSa, contents: Contents) -> Work[Response]:
    """Answers the peer's request for a new IKE SA."""
    own = own_rekey(sa)
    if _is_busy(sa) or (own is not None and own.candidate) or handover.is_crowded(context, sa):
        raise Refused(NotifyType.TEMPORARY_FAILURE, "something else is under way on the IKE SA")
    theirs = contents.need(KeyExchangePayload)
    offered = contents.need(SecurityAssociation)
    chosen = choose_ike(sa.peer.ike_proposals, offered, theirs.group)
    if chosen is None or len(chosen.proposal.spi) != _SPI_BYTES:
        context.reasons.ike_rekey_refused(context.now, sa, offered)
        raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "no proposal of the peer is acceptable for the IKE SA")
    group = chosen.suite.key_exchange
    if theirs.group != group:
        raise Refused(NotifyType.INVALID_KE_PAYLOAD, f"not group {group.name}", group.to_bytes(2, "big"))
    ours = KeyExchangeSeed.generate(group, context.random_bytes).key_exchange
    nonce_i, nonce_r, own_spi = contents.need(Nonce).data, context.new_nonce(), context.new_spi()
    new = _make(
        context,
        sa,
        chosen.suite,
        State.ESTABLISHED if own is None else State.CANDIDATE,
        initiator=False,
        own_spi=own_spi,
        peer_spi=chosen.proposal.spi,
        shared=ours.shared_secret(theirs.data),
        nonce_i=nonce_i,
        nonce_r=nonce_r,
    )
    context.add(new)
    if own is None:
        _replace(context, sa, new)
    else:
        own.candidate, own.collided_nonces = own_spi, (nonce_i, nonce_r)
    context.mark_changed(new)
    return Response(
        payloads=[
            ike_answer(chosen, own_spi),
            Nonce(data=nonce_r),
            KeyExchangePayload(group=group, data=ours.public),
        ]
    )
    yield  # an exchange is a generator, and this one asks nothing


def own_rekey(sa: IkeSa) -> Pending | None:
    """Our own request to rekey `sa`, if it is under way."""
    pending = sa.window.pending
    return pending if pending is not None and pending.wish.kind is WishKind.REKEY_IKE else None


def _is_busy(sa: IkeSa) -> bool:
    """RFC 7296 section 2.25: whether `sa` is being closed, or a Child SA of it is being made, rekeyed or closed."""
    if sa.state is not State.ESTABLISHED or sa.window.preparing is not None or sa.wants(WishKind.DELETE_IKE):
        return True
    pending = sa.window.pending
    if pending is not None and pending.wish.kind not in (WishKind.LIVENESS, WishKind.REKEY_IKE):
        return True
    return any(child.state in (ChildState.REKEYING, ChildState.DELETING) for child in sa.children.values())


# ------------------------------------------------------------------ both


def _make(
    context: Context,
    old: IkeSa,
    suite: IkeSuite,
    state: State,
    *,
    initiator: bool,
    own_spi: bytes,
    peer_spi: bytes,
    shared: bytes,
    nonce_i: bytes,
    nonce_r: bytes,
) -> IkeSa:
    new = IkeSa(
        own_spi=own_spi,
        peer_spi=peer_spi,
        initiator=initiator,
        peer=old.peer,
        path=old.path.successor(),
        state=state,
        now=context.now,
    )
    keys = derive_rekeyed_ike_keys(
        suite,
        old_prf=old.keyed.suite.prf,
        old_sk_d=old.keyed.keys.sk_d,
        shared=shared,
        nonce_i=nonce_i,
        nonce_r=nonce_r,
        spi_i=new.spi_i,
        spi_r=new.spi_r,
    )
    new.session = Session(suite, keys, initiator=initiator)
    new.origin, new.reauth_at, new.handover = old.origin, old.reauth_at, old.handover
    return new


def _replace(context: Context, old: IkeSa, new: IkeSa) -> None:
    context.established(new, old.own_spi)
    nat_traversal.start_keepalives(context, new)
    _leave_to_peer(context, old)
    context.move_children(old, new)
    context.wake(new)


def _leave_to_peer(context: Context, sa: IkeSa) -> None:
    """`sa` is replaced; whoever should delete it has so long to do it."""
    sa.path.keepalive_at = math.inf
    enter(sa, State.REKEYED)
    sa.rekey_at = context.now + REPLACED_LIFE_S
    context.mark_changed(sa)
    context.wake(sa)
