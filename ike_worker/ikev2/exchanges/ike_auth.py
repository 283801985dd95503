"""IKE_AUTH: who both sides are, and the first Child SA. RFC 7296 sections 1.2, 2.15 and 2.21.2.

AUTH is made and looked at by the policy loader. Whatever is wrong with a peer's identity or AUTH, it is told the
same: AUTHENTICATION_FAILED.
"""

from ike_worker.ikev2 import child_negotiation as negotiation
from ike_worker.ikev2.child_sa import ChildSa
from ike_worker.ikev2.context import Context, Request, Response, Work
from ike_worker.ikev2.errors import AuthenticationFailed, Ikev2Error, Refused, RefusedHere, RemoteError
from ike_worker.ikev2.exchange_rules import Contents
from ike_worker.ikev2.exchanges import reauthentication
from ike_worker.ikev2.features import initial_contact, nat_traversal, signatures
from ike_worker.ikev2.features.retransmission import Pending
from ike_worker.ikev2.iana import ExchangeType, NotifyType, name_of
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.selection import allows_ike
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.wire.authentication import Authentication
from ike_worker.ikev2.wire.identification import IdentificationInitiator, IdentificationResponder
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.puzzle_solution import PuzzleSolution
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ike_worker.ikev2.wish import Wish, WishKind
from ipc.identities import difference, is_pattern, matches, of_payload
from ipc.messages import Peer
from ipc.types import Identity

MOST_SAID = 4
"""When nobody is found, for so many peers the log says why not."""


# ------------------------------------------------------------------ initiator


def request(context: Context, sa: IkeSa) -> Work[Request]:
    """The request, with the first Child SA that is wanted; or without it, if both sides can do that (RFC 6023)."""
    identity = sa.peer.local_id
    id_i = IdentificationInitiator(id_type=identity.type, data=identity.data)
    auth = yield from context.compute_auth(sa, id_i.body)
    wish, spi, child = sa.wishes[0], b"", list[Payload]()
    if not sa.in_handshake.childless:
        rule = context.policy.rule(wish.rule_id)
        if rule is None:
            raise RefusedHere("the rule has gone from the policy")
        number = yield from context.allocate_spi(rule.rule_id)
        spi = number.to_bytes(4, "big")
        child = negotiation.offer(sa, rule, wish, number, key_exchange=False)
    sa.wishes.popleft()
    remote = sa.peer.remote_id
    payloads: list[Payload] = [
        id_i,
        *signatures.certificate_payloads(auth.certificates),
        *signatures.certificate_requests([sa.peer], in_clear=False),
        *([] if is_pattern(remote) else [IdentificationResponder(id_type=remote.type, data=remote.data)]),
        Authentication(method=auth.method, data=auth.data),
        *child,
    ]
    if initial_contact.is_first_contact(context, sa):
        payloads.append(Notify(type=NotifyType.INITIAL_CONTACT))
    solution = sa.in_handshake.solution
    in_clear = (PuzzleSolution(data=solution),) if solution else ()
    return Request(wish=wish, exchange_type=ExchangeType.IKE_AUTH, payloads=payloads, spi=spi, in_clear=in_clear)


def complete(context: Context, sa: IkeSa, pending: Pending, contents: Contents) -> Work[None]:
    """Acts on the response. AuthenticationFailed where the responder is not who it should be."""
    id_r, auth = contents.find(IdentificationResponder), contents.find(Authentication)
    if id_r is None or auth is None:
        wrong = contents.wrong
        if wrong is not None:
            _note_refusal(context, sa, pending, wrong.type)
        raise Refused(
            NotifyType.AUTHENTICATION_FAILED,
            f"the peer answers {name_of(NotifyType, wrong.type) if wrong else 'nothing'} to IKE_AUTH",
        )
    wrong_id = _difference(sa.peer.remote_id, id_r)
    if wrong_id:
        context.reasons.wrong_responder(context.now, sa, id_r.body, wrong_id)
        raise AuthenticationFailed(f"the responder is not who it should be: {wrong_id}")
    yield from context.verify_auth(sa, id_r.body, auth, signatures.certificates_of(contents))
    sa.in_handshake.peer_id = id_r.body
    wish = pending.wish
    if not pending.spi:  # childless: what is wanted is asked for next
        _stands(context, sa, contents)
        sa.wishes.appendleft(wish)
        return
    try:
        pair, child = _conclude_child(context, sa, pending, contents)
        yield from context.install_child(pair.inbound, pair.outbound, both=True)
    except (RemoteError, RefusedHere) as error:
        _without_child(context, sa, wish, contents, error)
        return
    _stands(context, sa, contents)
    context.add_child(sa, child)


def _note_refusal(context: Context, sa: IkeSa, pending: Pending, kind: int) -> None:
    """The peer refuses all of it. Some do where they only dislike the Child SA, and RFC 7296 has them go on."""
    if pending.spi and kind in (NotifyType.NO_PROPOSAL_CHOSEN, NotifyType.TS_UNACCEPTABLE):
        rule = context.policy.rule(pending.wish.rule_id)
        context.reasons.child_refused_by_peer(context.now, sa, rule, kind, auth=True)
    else:
        context.reasons.auth_refused_by_peer(context.now, sa, kind)


def _stands(context: Context, sa: IkeSa, contents: Contents) -> None:
    """The responder is who it should be."""
    context.established(sa)
    reauthentication.heed(context, sa, contents)
    nat_traversal.start_keepalives(context, sa)
    sa.window.pending = None


def _conclude_child(
    context: Context, sa: IkeSa, pending: Pending, contents: Contents
) -> tuple[negotiation.SaPair, ChildSa]:
    rule = context.policy.rule(pending.wish.rule_id)
    if rule is None:
        raise RefusedHere("the rule has gone from the policy")
    if contents.wrong is not None:
        name = name_of(NotifyType, contents.wrong.type)
        context.reasons.child_refused_by_peer(context.now, sa, rule, contents.wrong.type, auth=True)
        raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, f"the peer answers {name}")
    agreement = negotiation.conclude(sa, rule, contents, key_exchange=False)
    pair = negotiation.make_sas(
        sa,
        agreement,
        spi_in=int.from_bytes(pending.spi, "big"),
        we_initiate=True,
        nonce_i=sa.in_handshake.own_nonce,
        nonce_r=sa.in_handshake.peer_nonce,
        acquire_id=pending.wish.acquire_id,
    )
    child = negotiation.make_child(context, rule, pair, ChildState.INSTALLED, ours=True)
    rest = negotiation.rest_to_ask_for(agreement, contents, pending.wish)
    if rest is not None:
        sa.wishes.append(rest)
    return pair, child


def _without_child(context: Context, sa: IkeSa, wish: Wish, contents: Contents, error: Ikev2Error) -> None:
    """The IKE SA stands, its Child SA does not. If the peer has made one, it is told to delete it."""
    pending, wrong = sa.window.pending, contents.wrong
    # A responder may take Child SAs in exchanges of their own alone: strongSwan with childless = force.
    not_here = wrong is not None and wrong.type == NotifyType.INVALID_SYNTAX and sa.in_handshake.offers_childless
    _stands(context, sa, contents)
    narrower = negotiation.as_single_pair(wish)
    if wrong is not None and wrong.type == NotifyType.SINGLE_PAIR_REQUIRED and narrower is not None:
        sa.wishes.append(narrower)
        return
    if not_here:
        sa.wishes.append(wish)
        return
    context.report_failure(sa, wish, f"no Child SA: {error}")
    if wrong is None and pending is not None and contents.find(SecurityAssociation) is not None:
        sa.wishes.append(Wish(kind=WishKind.DELETE_CHILD, spi_in=int.from_bytes(pending.spi, "big")))


def failed(context: Context, sa: IkeSa, pending: Pending, error: Ikev2Error) -> None:
    """No IKE SA: a responder that has one is told to forget it (RFC 7296 section 2.21.2)."""
    context.report_failure(sa, pending.wish, str(error))
    sa.window.pending = None
    if isinstance(error, Refused):
        context.close(sa, str(error))
        return
    sa.wishes.clear()
    sa.wishes.append(Wish(kind=WishKind.DELETE_IKE, failed=True))


# ------------------------------------------------------------------ responder


def respond(context: Context, sa: IkeSa, contents: Contents) -> Work[Response]:
    """Answers the initiator, or raises AuthenticationFailed."""
    if sa.state is not State.HALF_OPEN:
        raise Refused(NotifyType.INVALID_SYNTAX, "IKE_AUTH on an IKE SA that stands")
    id_i, auth = contents.need(IdentificationInitiator), contents.find(Authentication)
    if auth is None:
        raise AuthenticationFailed("the peer wants to authenticate itself by EAP, which no peer of the policy may")
    sa.peer = _identify(context, sa, id_i, contents.find(IdentificationResponder))
    yield from context.verify_auth(sa, id_i.body, auth, signatures.certificates_of(contents))
    sa.in_handshake.peer_id = id_i.body
    sa.in_handshake.requested_encodings = signatures.requested_encodings(contents)
    identity = sa.peer.local_id
    id_r = IdentificationResponder(id_type=identity.type, data=identity.data)
    own_auth = yield from context.compute_auth(sa, id_r.body)
    child: ChildSa | None = None
    child_payloads: list[Payload] = []
    if contents.find(SecurityAssociation) is not None:
        try:
            child, child_payloads = yield from _first_child(context, sa, contents)
        except (RemoteError, RefusedHere) as error:
            child_payloads = [_child_refusal(error)]
            context.report_failure(sa, None, f"no Child SA for the peer: {error}")
    if contents.notify(NotifyType.INITIAL_CONTACT) is not None:
        initial_contact.honour(context, sa)
    context.established(sa)
    nat_traversal.start_keepalives(context, sa)
    if child is not None:
        context.add_child(sa, child)
    certificates = signatures.certificate_payloads(own_auth.certificates)
    own = Authentication(method=own_auth.method, data=own_auth.data)
    return Response(payloads=[id_r, *certificates, own, *child_payloads])


def _first_child(context: Context, sa: IkeSa, contents: Contents) -> Work[tuple[ChildSa, list[Payload]]]:
    agreement = negotiation.accept(context, sa, contents, key_exchange=False, group=None)
    spi = yield from context.allocate_spi(agreement.rule.rule_id)
    handshake = sa.in_handshake
    pair = negotiation.make_sas(
        sa,
        agreement,
        spi_in=spi,
        we_initiate=False,
        nonce_i=handshake.peer_nonce,
        nonce_r=handshake.own_nonce,
    )
    afresh = contents.notify(NotifyType.INITIAL_CONTACT) is not None
    child = yield from negotiation.install_asked(context, sa, agreement, pair, afresh=afresh)
    return child, negotiation.answer(agreement, spi)


def _child_refusal(error: Ikev2Error) -> Notify:
    if isinstance(error, RemoteError):
        return Notify(type=error.notify, data=error.notify_data)
    return Notify(type=NotifyType.NO_ADDITIONAL_SAS)


def _identify(context: Context, sa: IkeSa, id_i: IdentificationInitiator, id_r: IdentificationResponder | None) -> Peer:
    """The peer of the policy that this is, at the address where it called from; one named in full before a pattern."""
    path = sa.path
    wrong = []
    found = []
    candidates = context.policy.peers_between(path.local.address, path.remote.address)
    for peer in candidates:
        difference_to_us = _difference(peer.local_id, id_r) if id_r is not None else ""
        if difference_to_peer := _difference(peer.remote_id, id_i):
            wrong.append(f"{peer.name}: {difference_to_peer}")
        elif difference_to_us:
            wrong.append(f"{peer.name}: {difference_to_us}, who is wanted here")
        elif not allows_ike(peer.ike_proposals, sa.keyed.suite):
            wrong.append(f"{peer.name}: its proposals do not allow what was chosen in IKE_SA_INIT")
        else:
            found.append(peer)
    if not found:
        context.reasons.not_identified(context.now, sa, candidates, _said(id_i, id_r), "; ".join(wrong[:MOST_SAID]))
        raise AuthenticationFailed(f"no peer of the policy at {path.remote} is that: {'; '.join(wrong[:MOST_SAID])}")
    return min(found, key=lambda peer: is_pattern(peer.remote_id))


def _said(id_i: IdentificationInitiator, id_r: IdentificationResponder | None) -> tuple[str, ...]:
    """What an initiator says of itself, and whom it wants, for people."""
    return (_text(id_i), *([_text(id_r)] if id_r is not None else []))


def _text(payload: IdentificationInitiator | IdentificationResponder) -> str:
    return str(of_payload(payload.id_type, payload.data) or f"type {payload.id_type}: {payload.data.hex()}")


def _difference(identity: Identity, payload: IdentificationInitiator | IdentificationResponder) -> str:
    """How the identity in `payload` is not `identity`, for people; empty if it is."""
    other = of_payload(payload.id_type, payload.data)
    if other is None:
        return f"an identity of type {payload.id_type} is not {identity}"
    return "" if matches(identity, other) else difference(identity, other)
