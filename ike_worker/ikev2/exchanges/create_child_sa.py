"""CREATE_CHILD_SA for Child SAs, new ones and rekeys. RFC 7296 sections 1.3.1, 1.3.3, 2.8 and 2.25.1.

No packet is lost in a rekey. The responder installs the new inbound SA before it answers, and sends on the new one
only when the initiator, which has both directions by then, deletes the old one. The initiator installs both, stops
sending on the old one and deletes it; both go on receiving on it for a moment.
"""

import logging
from dataclasses import replace

from ike_worker.ikev2 import child_negotiation as negotiation
from ike_worker.ikev2.child_sa import REPLACED_LIFE_S, SWITCH_OUTBOUND_S, ChildSa
from ike_worker.ikev2.context import Context, Request, Response, Work
from ike_worker.ikev2.errors import Ikev2Error, MalformedMessage, Refused, RefusedHere
from ike_worker.ikev2.exchange_rules import Contents
from ike_worker.ikev2.exchanges import reauthentication, rekey_ike_sa
from ike_worker.ikev2.exchanges.ike_sa_init import wanted_group
from ike_worker.ikev2.features import collisions, handover
from ike_worker.ikev2.features.retransmission import KeyExchangeSeed, Pending
from ike_worker.ikev2.iana import ExchangeType, NotifyType, ProtocolId, name_of
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.states import ChildState, State, enter
from ike_worker.ikev2.wire.key_exchange import KeyExchangePayload
from ike_worker.ikev2.wire.nonce import Nonce
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ike_worker.ikev2.wish import Wish, WishKind
from ipc.algorithms import KeyExchangeId
from ipc.messages import NegotiationRule

log = logging.getLogger(__name__)

RETRY_TEMPORARY_S = 2.0
"""After TEMPORARY_FAILURE; shortened at random like all times, so that two sides do not meet again and again."""
MAX_TEMPORARY_FAILURES = 10
MAX_CHILDREN = 512
"""In one IKE SA: they share a window of one request, and a checkpoint. Twice as many while all are rekeyed."""
MAX_SELECTORS = 8 * MAX_CHILDREN
"""Of all of them."""
RETRY_REKEY_S = 30.0
"""After any other failure of a rekey, until the Child SA's life ends."""
_SPI_BYTES = 4


# ------------------------------------------------------------------ initiator


def request(context: Context, sa: IkeSa, wish: Wish) -> Work[Request | None]:
    """The request for a new Child SA, or for one in the place of `wish.spi_in`; None if it is not wanted any more."""
    old = sa.children.get(wish.spi_in)
    rule = context.policy.rule(wish.rule_id if old is None else old.rule_id)
    if wish.kind is WishKind.REKEY_CHILD and (old is None or old.state is not ChildState.INSTALLED):
        return None
    if rule is None:
        raise RefusedHere("the rule has gone from the policy")
    if wish.kind is WishKind.CREATE_CHILD:
        if negotiation.is_served(sa, wish):
            return None
        if _is_full(sa, 1):
            raise RefusedHere(
                f"the IKE SA has {len(sa.children)} Child SAs: write fewer rules, with more selectors each"
            )
    if old is not None:
        enter(old, ChildState.REKEYING)
        wish = replace(wish, rule_id=rule.rule_id)
    spi = yield from context.allocate_spi(rule.rule_id)
    if old is not None and old.state is not ChildState.REKEYING:
        return None
    nonce = context.new_nonce()
    proposals = negotiation.proposals_for(sa, rule, fresh=wish.fresh)
    groups = [one for proposal in proposals for one in proposal.key_exchange]
    payloads = negotiation.offer(sa, rule, wish, spi, key_exchange=True, old=old)
    payloads.insert(1, Nonce(data=nonce))
    seed = None
    if groups:
        # The peer has shown that it speaks the group of the IKE SA.
        present = sa.keyed.suite.key_exchange
        group = KeyExchangeId(wish.group) if wish.group else present if present in groups else groups[0]
        seed = KeyExchangeSeed.generate(group, context.random_bytes)
        public = seed.key_exchange
        payloads.insert(2, KeyExchangePayload(group=public.group, data=public.public))
    own_spi = spi.to_bytes(_SPI_BYTES, "big")
    if old is not None:
        # RFC 7296 section 1.3.3: the SPI is the one that the sender expects in inbound packets.
        old_spi = old.spi_in.to_bytes(_SPI_BYTES, "big")
        payloads.insert(0, Notify(type=NotifyType.REKEY_SA, protocol=ProtocolId.ESP, spi=old_spi))
    return Request(
        wish=wish,
        exchange_type=ExchangeType.CREATE_CHILD_SA,
        payloads=payloads,
        nonce=nonce,
        spi=own_spi,
        key_exchange=seed,
    )


def _is_full(sa: IkeSa, times: int) -> bool:
    """Whether there are so many Child SAs, or so many selectors of theirs, that a checkpoint could not hold more."""
    children = sa.children.values()
    selectors = sum(len(child.inbound.local) + len(child.inbound.remote) for child in children)
    return len(children) >= times * MAX_CHILDREN or selectors >= times * MAX_SELECTORS


def complete(context: Context, sa: IkeSa, pending: Pending, contents: Contents) -> Work[None]:
    """Acts on the response; RemoteError or RefusedHere where no Child SA comes of it."""
    if contents.wrong is not None:
        _on_error(context, sa, pending, contents.wrong)
        return
    agreement, pair, nonce_r = _conclude(context, sa, pending, contents)
    if collisions.we_lose(sa, pending, nonce_r):
        sa.window.pending = None
        log.info("%s: our rekey of child %08x lost to the peer's", sa, pending.wish.spi_in)
        _not_rekeyed(context, sa, pending, RETRY_REKEY_S)
        sa.wishes.appendleft(Wish(kind=WishKind.DELETE_CHILD, spi_in=pair.inbound.spi))
        return
    yield from context.install_child(pair.inbound, pair.outbound, both=True)
    sa.window.pending = None
    old = sa.children.get(pending.wish.spi_in)
    ours = old.ours if old is not None else True
    child = negotiation.make_child(context, agreement.rule, pair, ChildState.INSTALLED, ours=ours)
    context.add_child(sa, child, pending.wish.spi_in or None)
    handover.settle_twins(context, sa, child)
    rest = negotiation.rest_to_ask_for(agreement, contents, pending.wish) if old is None else None
    if rest is not None:
        sa.wishes.append(rest)
    redundant = sa.children.get(pending.collided_spi_in)
    if redundant is not None and redundant.state is ChildState.INBOUND:
        redundant.replaces = 0
        redundant.due_at = context.now + REPLACED_LIFE_S
    if old is not None and old.state is ChildState.REKEYING:
        child.replaces = old.spi_in
        context.stop_sending_on(sa, old)
        _leave_to_peer(context, old)
        sa.wishes.appendleft(Wish(kind=WishKind.DELETE_CHILD, spi_in=old.spi_in))


def _conclude(
    context: Context, sa: IkeSa, pending: Pending, contents: Contents
) -> tuple[negotiation.Agreement, negotiation.SaPair, bytes]:
    rule = context.policy.rule(pending.wish.rule_id)
    if rule is None:
        raise RefusedHere("the rule has gone from the policy")
    agreement = negotiation.conclude(sa, rule, contents, key_exchange=True, fresh=pending.wish.fresh)
    nonce_r = contents.need(Nonce).data
    shared = b""
    if agreement.suite.key_exchange is not KeyExchangeId.NONE:
        theirs = contents.need(KeyExchangePayload)
        ours = pending.key_exchange
        if ours is None or not ours.key_exchange.group == agreement.suite.key_exchange == theirs.group:
            raise MalformedMessage("the responder's key exchange is of another group")
        shared = ours.key_exchange.shared_secret(theirs.data)
    pair = negotiation.make_sas(
        sa,
        agreement,
        spi_in=int.from_bytes(pending.spi, "big"),
        we_initiate=True,
        nonce_i=pending.nonce,
        nonce_r=nonce_r,
        shared=shared,
        acquire_id=pending.wish.acquire_id,
    )
    return agreement, pair, nonce_r


def failed(context: Context, sa: IkeSa, pending: Pending, contents: Contents | None, error: Ikev2Error) -> None:
    """No Child SA came of it here; a responder that has one is told to delete it."""
    sa.window.pending = None
    context.report_failure(sa, pending.wish, f"no Child SA: {error}")
    _not_rekeyed(context, sa, pending, RETRY_REKEY_S)
    if contents is not None and contents.wrong is None and contents.find(SecurityAssociation) is not None:
        spi_in = int.from_bytes(pending.spi, "big")
        sa.wishes.append(Wish(kind=WishKind.DELETE_CHILD, spi_in=spi_in))


def not_made(context: Context, sa: IkeSa, wish: Wish, error: Ikev2Error) -> None:
    """The request could not even be made."""
    context.report_failure(sa, wish, f"no Child SA: {error}")
    _rekey_later(context, sa, wish, RETRY_REKEY_S)


def _rekey_later(context: Context, sa: IkeSa, wish: Wish, delay_s: float) -> None:
    old = sa.children.get(wish.spi_in)
    if old is not None:
        if old.state is ChildState.REKEYING:
            enter(old, ChildState.INSTALLED)
        old.rekey_at = context.now + context.jittered(delay_s)


def _not_rekeyed(context: Context, sa: IkeSa, pending: Pending, delay_s: float) -> None:
    """Our rekey came to nothing: it is tried again, unless the peer has made a rekey of its own meanwhile."""
    old = sa.children.get(pending.wish.spi_in)
    if old is None or old.state is not ChildState.REKEYING:
        return
    if pending.collided_spi_in in sa.children:
        _leave_to_peer(context, old)
    else:
        _rekey_later(context, sa, pending.wish, delay_s)


def _leave_to_peer(context: Context, old: ChildSa) -> None:
    """`old` is replaced; whoever should delete it has so long to do it."""
    enter(old, ChildState.REKEYED)
    old.due_at = context.now + REPLACED_LIFE_S


def _on_error(context: Context, sa: IkeSa, pending: Pending, wrong: Notify) -> None:
    wish = pending.wish
    old = sa.children.get(wish.spi_in)
    sa.window.pending = None
    if wrong.type == NotifyType.INVALID_KE_PAYLOAD and _try_group(context, sa, pending, wanted_group(wrong)):
        return
    if wrong.type == NotifyType.TEMPORARY_FAILURE and wish.attempts < MAX_TEMPORARY_FAILURES:
        if old is not None:
            _not_rekeyed(context, sa, pending, RETRY_TEMPORARY_S)
        elif wish.kind is WishKind.CREATE_CHILD:
            later = context.now + context.jittered(RETRY_TEMPORARY_S)
            sa.wishes.append(replace(wish, not_before=later, attempts=wish.attempts + 1))
        return
    if wrong.type == NotifyType.CHILD_SA_NOT_FOUND and wish.kind is WishKind.REKEY_CHILD:
        # RFC 7296 section 2.25: delete it here, and make a new one from scratch.
        if old is not None and old.state is ChildState.REKEYING:
            context.close_child(sa, old, "the peer does not have it")
            if pending.collided_spi_in not in sa.children:
                sa.wishes.append(Wish(kind=WishKind.CREATE_CHILD, rule_id=old.rule_id))
        return
    if wrong.type == NotifyType.SINGLE_PAIR_REQUIRED and (narrower := negotiation.as_single_pair(wish)) is not None:
        sa.wishes.appendleft(narrower)
        return
    if wrong.type == NotifyType.NO_PROPOSAL_CHOSEN and _try_fresh(context, sa, pending):
        return
    reason = f"the peer answers {name_of(NotifyType, wrong.type)}"
    rule = context.policy.rule(wish.rule_id)
    context.reasons.child_refused_by_peer(context.now, sa, rule, wrong.type, auth=False)
    context.report_failure(sa, wish, f"no Child SA: {reason}")
    _not_rekeyed(context, sa, pending, RETRY_REKEY_S)
    if wrong.type == NotifyType.NO_ADDITIONAL_SAS and wish.kind is WishKind.REKEY_CHILD:
        # RFC 7296 section 1.3: a peer that can't rekey has another IKE SA made, with new Child SAs.
        reauthentication.begin(context, sa)


def _try_group(context: Context, sa: IkeSa, pending: Pending, group: KeyExchangeId | None) -> bool:
    """Asks again with the group that the responder wants, if it was offered and not tried yet.

    Not where the peer has rekeyed the same Child SA meanwhile: that will do.
    """
    if pending.collided_spi_in in sa.children:
        _not_rekeyed(context, sa, pending, RETRY_REKEY_S)
        return True
    rule = context.policy.rule(pending.wish.rule_id)
    tried = pending.key_exchange
    if rule is None or group is None or tried is None or pending.wish.group:
        return False
    proposals = negotiation.proposals_for(sa, rule, fresh=pending.wish.fresh)
    if all(group not in proposal.key_exchange for proposal in proposals):
        return False
    _ask_again(sa, pending, replace(pending.wish, group=int(group)))
    return True


def _try_fresh(context: Context, sa: IkeSa, pending: Pending) -> bool:
    """Asks again with a key exchange, if our proposals name none and that was not tried yet; see `proposals_for`."""
    rule = context.policy.rule(pending.wish.rule_id)
    if rule is None or pending.key_exchange is not None or pending.collided_spi_in in sa.children:
        return False
    log.info("%s: %s: the peer may insist on a key exchange: it gets one", sa, rule.name)
    _ask_again(sa, pending, replace(pending.wish, fresh=True))
    return True


def _ask_again(sa: IkeSa, pending: Pending, wish: Wish) -> None:
    old = sa.children.get(pending.wish.spi_in)
    if old is not None and old.state is ChildState.REKEYING:
        enter(old, ChildState.INSTALLED)
    sa.wishes.appendleft(wish)


# ------------------------------------------------------------------ responder


def respond(context: Context, sa: IkeSa, contents: Contents) -> Work[Response]:
    """Answers a request for a Child SA. Refused, or RefusedHere, where there is to be none."""
    if sa.state is not State.ESTABLISHED or rekey_ike_sa.own_rekey(sa) or sa.wants(WishKind.DELETE_IKE):
        # RFC 7296 section 2.25.2: while the IKE SA is rekeyed or deleted, no Child SAs are made.
        raise Refused(NotifyType.TEMPORARY_FAILURE, "the IKE SA is being rekeyed or deleted")
    rekey = contents.notify(NotifyType.REKEY_SA)
    if rekey is None and _is_full(sa, 1):
        raise Refused(NotifyType.NO_ADDITIONAL_SAS, f"there are {len(sa.children)} Child SAs already")
    if _is_full(sa, 2):
        raise Refused(NotifyType.TEMPORARY_FAILURE, f"there are {len(sa.children)} Child SAs, old ones counted")
    old = sa.child_by_outbound(rekey.spi) if rekey is not None and rekey.protocol == ProtocolId.ESP else None
    if rekey is not None and (old is None or old.state is ChildState.DRAINING):
        not_found = Notify(type=NotifyType.CHILD_SA_NOT_FOUND, protocol=rekey.protocol, spi=rekey.spi)
        return Response(payloads=[not_found])
    replaced = old is not None and any(child.replaces == old.spi_in for child in sa.children.values())
    if old is not None and (replaced or old.state not in (ChildState.INSTALLED, ChildState.REKEYING)):
        # RFC 7296 section 2.25.1: it is being closed or replaced already.
        raise Refused(NotifyType.TEMPORARY_FAILURE, f"{old} is {old.state.value}")
    key_exchange = contents.find(KeyExchangePayload)
    agreement = negotiation.accept(
        context,
        sa,
        contents,
        key_exchange=True,
        group=key_exchange.group if key_exchange is not None else None,
        rule_id=old.rule_id if old is not None else 0,
    )
    shared, payload = _exchange_keys(context, agreement.suite.key_exchange, key_exchange)
    spi = yield from context.allocate_spi(agreement.rule.rule_id)
    nonce_i, nonce_r = contents.need(Nonce).data, context.new_nonce()
    pair = negotiation.make_sas(
        sa, agreement, spi_in=spi, we_initiate=False, nonce_i=nonce_i, nonce_r=nonce_r, shared=shared
    )
    if old is not None:
        try:
            yield from context.install_child(pair.inbound, pair.outbound, both=False)
        except RefusedHere as error:
            raise Refused(NotifyType.TEMPORARY_FAILURE, str(error)) from None
        child = _take(context, agreement.rule, pair, old)
        collisions.note(sa, old, child.spi_in, nonce_i, nonce_r)
    else:
        child = yield from negotiation.install_asked(context, sa, agreement, pair)
    context.add_child(sa, child, old.spi_in if old is not None else None)
    handover.settle_twins(context, sa, child)
    payloads = negotiation.answer(agreement, spi)
    payloads.insert(1, Nonce(data=nonce_r))
    if payload is not None:
        payloads.insert(2, payload)
    return Response(payloads=payloads)


def _take(context: Context, rule: NegotiationRule, pair: negotiation.SaPair, old: ChildSa) -> ChildSa:
    child = negotiation.make_child(context, rule, pair, ChildState.INBOUND, ours=old.ours)
    child.replaces = old.spi_in
    child.due_at = context.now + SWITCH_OUTBOUND_S
    if old.state is ChildState.INSTALLED:
        _leave_to_peer(context, old)
    return child


def _exchange_keys(
    context: Context, group: KeyExchangeId, theirs: KeyExchangePayload | None
) -> tuple[bytes, KeyExchangePayload | None]:
    """The shared secret and our KE payload; nothing of both without a fresh key exchange."""
    if group is KeyExchangeId.NONE:
        return b"", None
    if theirs is None or theirs.group != group:
        raise Refused(NotifyType.INVALID_KE_PAYLOAD, f"not group {group.name}", group.to_bytes(2, "big"))
    ours = KeyExchangeSeed.generate(group, context.random_bytes).key_exchange
    return ours.shared_secret(theirs.data), KeyExchangePayload(group=group, data=ours.public)
