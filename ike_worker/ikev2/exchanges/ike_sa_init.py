"""IKE_SA_INIT: algorithms, nonces and a key exchange, in clear. RFC 7296 sections 1.2, 2.6, 2.7 and 2.14.

The responder keeps nothing of an initiator that it refuses, and with many half-open IKE SAs nothing before a cookie
has come back.
"""

import ipaddress
import logging

from ike_worker.ikev2.context import NONCE_BYTES, Context
from ike_worker.ikev2.crypto.keymat import derive_ike_keys
from ike_worker.ikev2.datagram import IKE_PORT, Endpoint
from ike_worker.ikev2.errors import MalformedMessage, Refused, RemoteError, UnsupportedCriticalPayload
from ike_worker.ikev2.exchange_rules import Contents, check
from ike_worker.ikev2.features import fragmentation, nat_traversal, puzzles, signatures
from ike_worker.ikev2.features.gate import Admission
from ike_worker.ikev2.features.half_open import HALF_OPEN_S
from ike_worker.ikev2.features.puzzles import Puzzle
from ike_worker.ikev2.features.retransmission import KeyExchangeSeed, Pending
from ike_worker.ikev2.iana import ExchangeType, NotifyType, name_of
from ike_worker.ikev2.ike_sa import NO_SPI, TAIL_BYTES, Handshake, IkeSa, NatPath, Session
from ike_worker.ikev2.selection import ChosenIke, choose_ike, ike_answer, offer_ike
from ike_worker.ikev2.states import State, enter
from ike_worker.ikev2.wire.key_exchange import KeyExchangePayload
from ike_worker.ikev2.wire.message import Header, Message, encode_message, parse_message
from ike_worker.ikev2.wire.nonce import Nonce
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.puzzle_solution import PuzzleSolution
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ike_worker.ikev2.wish import Wish
from ipc.algorithms import KeyExchangeId
from ipc.messages import Peer
from ipc.types import IpAddress

log = logging.getLogger(__name__)

MAX_RESTARTS = 4
"""How often one negotiation may start again for a cookie or another group."""
_COOKIE_BYTES = range(1, 65)


# ------------------------------------------------------------------ initiator


def begin(context: Context, peer: Peer, address: IpAddress, wish: Wish) -> IkeSa:
    """Calls `peer` at `address`; the first Child SA will be what `wish` wants."""
    local = peer.local_address or context.source_address(address) or _unspecified(address)
    path = NatPath(
        Endpoint(address=local, port=IKE_PORT),
        Endpoint(address=address, port=IKE_PORT),
        # Where nobody knows our address we can't hash it, so the peer finds a NAT: then ESP goes in UDP.
        forced=peer.force_encapsulation or local.is_unspecified,
    )
    own_spi = context.new_spi()
    sa = IkeSa(
        own_spi=own_spi,
        peer_spi=NO_SPI,
        initiator=True,
        peer=peer,
        path=path,
        state=State.CONNECTING,
        now=context.now,
    )
    sa.handshake = Handshake(own_nonce=context.random_bytes(NONCE_BYTES))
    sa.wishes.append(wish)
    context.add(sa)
    log.info("%s: connecting to %s", sa, path.remote)
    _send(context, sa, peer.ike_proposals[0].key_exchange[0])
    return sa


def _unspecified(like: IpAddress) -> IpAddress:
    return ipaddress.IPv4Address(0) if like.version == 4 else ipaddress.IPv6Address(0)


def _send(context: Context, sa: IkeSa, group: KeyExchangeId) -> None:
    """The request, as it is now: with a cookie if one was asked for, with the group that is wanted."""
    handshake = sa.in_handshake
    if handshake.key_exchange is None or handshake.group is not group:
        handshake.group = group
        handshake.key_exchange = KeyExchangeSeed.generate(group, context.random_bytes)
    payloads: list[Payload] = [
        offer_ike(sa.peer.ike_proposals),
        KeyExchangePayload(group=group, data=handshake.key_exchange.key_exchange.public),
        Nonce(data=handshake.own_nonce),
        *nat_traversal.detection_notifies(sa.path, sa.own_spi, NO_SPI),
    ]
    if sa.peer.fragmentation:
        payloads.append(fragmentation.SUPPORTED)
    if signatures.may_sign(sa.peer):
        payloads.append(signatures.hash_notify())
    if handshake.solution:
        payloads.insert(0, PuzzleSolution(data=handshake.solution))
    if handshake.cookie:
        payloads.insert(0, Notify(type=NotifyType.COOKIE, data=handshake.cookie))
    data = encode_message(
        spi_i=sa.own_spi,
        spi_r=NO_SPI,
        exchange_type=ExchangeType.IKE_SA_INIT,
        initiator=True,
        response=False,
        message_id=0,
        payloads=payloads,
    )
    handshake.own_message = data
    sa.window.pending = Pending(
        wish=sa.wishes[0], exchange_type=ExchangeType.IKE_SA_INIT, message_id=0, data=(data,), now=context.now
    )
    context.send(sa, (data,))


def complete(context: Context, sa: IkeSa, message: Message, data: bytes, local: Endpoint, remote: Endpoint) -> bool:
    """Acts on the response; True if there are keys now and IKE_AUTH comes next, at once.

    RemoteError where the response makes no sense: it is not authentic yet, so it is dropped and another one may come.
    """
    contents = check(
        ExchangeType.IKE_SA_INIT, response=True, encrypted=message.encrypted is not None, payloads=message.payloads
    )
    cookie = contents.notify(NotifyType.COOKIE)
    if cookie is not None and contents.find(SecurityAssociation) is None:
        _send_cookie_back(context, sa, cookie.data, contents.notify(NotifyType.PUZZLE))
        return False
    if contents.wrong is not None:
        _on_error(context, sa, contents.wrong)
        return False
    if message.header.spi_r == NO_SPI:
        raise MalformedMessage("an IKE_SA_INIT response without an SPI")
    _take_keys(sa, contents, message.header)
    path = sa.path
    path.local = Endpoint(address=local.address, port=path.local.port)
    nat_traversal.detect(path, contents, sa.spi_i, sa.spi_r, local, remote)
    nat_traversal.float_port(path)
    path.fragments = sa.peer.fragmentation and fragmentation.offered(contents)
    offers_childless = contents.notify(NotifyType.CHILDLESS_IKEV2_SUPPORTED) is not None
    sa.in_handshake.offers_childless = offers_childless
    sa.in_handshake.childless = sa.peer.childless and offers_childless
    sa.in_handshake.peer_message, sa.in_handshake.solver = data, None
    sa.in_handshake.peer_hashes = signatures.peer_hashes(contents)
    sa.in_handshake.requested_encodings = signatures.requested_encodings(contents)
    sa.window.pending = None
    sa.window.next_id = 1
    enter(sa, State.AUTHENTICATING)
    puzzle = contents.notify(NotifyType.PUZZLE)
    task = puzzles.read(sa.in_handshake.peer_nonce + sa.spi_r, puzzle) if puzzle is not None else None
    sa.in_handshake.solution = b""
    if task is not None:
        _solve(context, sa, task)
    return task is None


def _take_keys(sa: IkeSa, contents: Contents, header: Header) -> None:
    handshake = sa.in_handshake
    payload = contents.need(SecurityAssociation)
    chosen = choose_ike(sa.peer.ike_proposals, payload, handshake.group)
    if chosen is None or len(payload.proposals) != 1 or handshake.key_exchange is None:
        raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "the responder chose what was not offered")
    key_exchange = contents.need(KeyExchangePayload)
    if not handshake.group == chosen.suite.key_exchange == key_exchange.group:
        raise MalformedMessage("the responder's key exchange is of another group")
    handshake.peer_nonce = contents.need(Nonce).data
    keys = derive_ike_keys(
        chosen.suite,
        shared=handshake.key_exchange.key_exchange.shared_secret(key_exchange.data),
        nonce_i=handshake.own_nonce,
        nonce_r=handshake.peer_nonce,
        spi_i=header.spi_i,
        spi_r=header.spi_r,
    )
    sa.peer_spi = header.spi_r
    sa.session = Session(chosen.suite, keys, initiator=True)


def _send_cookie_back(context: Context, sa: IkeSa, cookie: bytes, puzzle: Notify | None) -> None:
    handshake = sa.in_handshake
    if len(cookie) not in _COOKIE_BYTES:
        raise MalformedMessage(f"a cookie of {len(cookie)} bytes")
    if cookie == handshake.cookie and handshake.solver is not None:
        return
    _count_restart(sa)
    handshake.cookie, handshake.solution = cookie, b""
    task = puzzles.read(cookie, puzzle) if puzzle is not None else None
    if task is None:
        # Also where a puzzle is too hard: some of those who can't solve it are served (RFC 8019 section 7.1.2).
        _send(context, sa, handshake.group)
        return
    _solve(context, sa, task)
    if sa.window.pending is not None:
        sa.window.pending.answered = True


def _solve(context: Context, sa: IkeSa, task: Puzzle) -> None:
    log.info("%s: the responder is under load and asks for a puzzle of difficulty %d", sa, task.difficulty)
    sa.in_handshake.solver = puzzles.Solver(task, context.random_bytes)


def go_on_solving(context: Context, sa: IkeSa) -> bool:
    """Works a little on the responder's puzzle; with its solution the request is sent, or True: IKE_AUTH comes next."""
    handshake = sa.in_handshake
    if handshake.solver is None:
        return False
    handshake.solver.work()
    if not handshake.solver.done:
        return False
    handshake.solution, handshake.solver = handshake.solver.solution, None
    if sa.state is State.AUTHENTICATING:
        return True
    _send(context, sa, handshake.group)
    return False


def _on_error(context: Context, sa: IkeSa, wrong: Notify) -> None:
    if wrong.type == NotifyType.INVALID_KE_PAYLOAD:
        group = wanted_group(wrong)
        offered = [one for proposal in sa.peer.ike_proposals for one in proposal.key_exchange]
        if group is None or group not in offered or group is sa.in_handshake.group:
            raise MalformedMessage("the responder wants a group that was not offered")
        _count_restart(sa)
        _send(context, sa, group)
        return
    context.reasons.ike_refused_by_peer(context.now, sa, ExchangeType.IKE_SA_INIT, wrong.type)
    context.close(sa, f"the peer answers {name_of(NotifyType, wrong.type)} to IKE_SA_INIT")


def _count_restart(sa: IkeSa) -> None:
    sa.in_handshake.restarts += 1
    if sa.in_handshake.restarts > MAX_RESTARTS:
        raise MalformedMessage(f"the responder made us start again {MAX_RESTARTS} times")


def wanted_group(wrong: Notify) -> KeyExchangeId | None:
    """The group in an INVALID_KE_PAYLOAD notify, if we speak it (RFC 7296 section 1.3)."""
    number = int.from_bytes(wrong.data, "big")
    return KeyExchangeId(number) if len(wrong.data) == 2 and number in KeyExchangeId._value2member_map_ else None


# ------------------------------------------------------------------ responder


def respond(context: Context, header: Header, data: bytes, local: Endpoint, remote: Endpoint) -> None:
    """Answers an initiator; raises nothing but what `parse_message` says of a message that can't be answered."""
    known = context.half_open.find(header.spi_i, remote)
    if known is not None:
        # A retransmission is answered again; anything else under this SPI is somebody else's (RFC 7296 section 2.1).
        if known.in_handshake.peer_message == data:
            context.answer_stranger(known.window.last_response, local, remote)
        return
    admission = context.gate.examine(data, remote.address.packed, context.now)
    if isinstance(admission, bytes):
        if admission:
            context.answer_stranger((admission,), local, remote)
        return
    try:
        message = parse_message(data)
        contents = check(
            ExchangeType.IKE_SA_INIT, response=False, encrypted=message.encrypted is not None, payloads=message.payloads
        )
        _accept(context, contents, header, data, local, remote, proven=admission is Admission.PROVEN)
    except (Refused, UnsupportedCriticalPayload) as error:
        level = logging.INFO if context.gate.log_lines.take(context.now) else logging.DEBUG
        log.log(level, "%s refused in IKE_SA_INIT: %s", remote, error)
        _answer_notify(context, header, Notify(type=error.notify, data=error.notify_data), local, remote)
    except RemoteError as error:
        log.debug("%s: IKE_SA_INIT dropped: %s", remote, error)


def _answer_notify(context: Context, header: Header, notify: Notify, local: Endpoint, remote: Endpoint) -> None:
    data = encode_message(
        spi_i=header.spi_i,
        spi_r=NO_SPI,
        exchange_type=ExchangeType.IKE_SA_INIT,
        initiator=False,
        response=True,
        message_id=0,
        payloads=[notify],
    )
    context.answer_stranger((data,), local, remote)


def _accept(
    context: Context,
    contents: Contents,
    header: Header,
    data: bytes,
    local: Endpoint,
    remote: Endpoint,
    *,
    proven: bool,
) -> None:
    key_exchange = contents.need(KeyExchangePayload)
    peer, chosen = _choose(context, contents, key_exchange.group, local, remote)
    suite = chosen.suite
    if key_exchange.group != suite.key_exchange:
        wanted = suite.key_exchange.to_bytes(2, "big")
        raise Refused(NotifyType.INVALID_KE_PAYLOAD, f"group {key_exchange.group} is not the one chosen", wanted)
    own = KeyExchangeSeed.generate(suite.key_exchange, context.random_bytes).key_exchange
    shared = own.shared_secret(key_exchange.data)
    own_spi, own_nonce = context.new_spi(), context.random_bytes(NONCE_BYTES)
    nonce = contents.need(Nonce).data
    sa = IkeSa(
        own_spi=own_spi,
        peer_spi=header.spi_i,
        initiator=False,
        peer=peer,
        path=NatPath(local, remote, forced=peer.force_encapsulation),
        state=State.HALF_OPEN,
        now=context.now,
    )
    keys = derive_ike_keys(suite, shared=shared, nonce_i=nonce, nonce_r=own_nonce, spi_i=header.spi_i, spi_r=own_spi)
    sa.session = Session(suite, keys, initiator=False)
    sa.handshake = Handshake(
        own_nonce=own_nonce,
        peer_nonce=nonce,
        peer_message=data,
        peer_hashes=signatures.peer_hashes(contents),
        first_remote=remote,
        deadline=context.now + HALF_OPEN_S,
    )
    nat_traversal.detect(sa.path, contents, header.spi_i, NO_SPI, local, remote)
    sa.path.fragments = peer.fragmentation and fragmentation.offered(contents)
    _answer(context, sa, chosen, own.public, data)
    context.add_half_open(sa, proven=proven)
    context.schedule(sa, sa.in_handshake.deadline)


def _choose(
    context: Context, contents: Contents, group: int, local: Endpoint, remote: Endpoint
) -> tuple[Peer, ChosenIke]:
    """The first peer at this address, and what suits it; who it really is, its identity will tell."""
    offered = contents.need(SecurityAssociation)
    candidates = context.policy.peers_between(local.address, remote.address)
    for peer in candidates:
        chosen = choose_ike(peer.ike_proposals, offered, group)
        if chosen is not None:
            return peer, chosen
    context.reasons.init_refused(context.now, remote, candidates, offered)
    raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "no peer of the policy is there, or none of its proposals fits")


def _answer(context: Context, sa: IkeSa, chosen: ChosenIke, public: bytes, request: bytes) -> None:
    handshake = sa.in_handshake
    payloads: list[Payload] = [
        ike_answer(chosen),
        KeyExchangePayload(group=chosen.suite.key_exchange, data=public),
        Nonce(data=handshake.own_nonce),
        *nat_traversal.detection_notifies(sa.path, sa.spi_i, sa.spi_r),
    ]
    payloads.append(Notify(type=NotifyType.CHILDLESS_IKEV2_SUPPORTED))
    if sa.path.fragments:
        payloads.append(fragmentation.SUPPORTED)
    candidates = context.policy.peers_between(sa.path.local.address, sa.path.remote.address)
    if handshake.peer_hashes and any(signatures.may_sign(peer) for peer in candidates):
        payloads.append(signatures.hash_notify())
    payloads += signatures.certificate_requests(candidates, in_clear=True)
    handshake.own_message = encode_message(
        spi_i=sa.spi_i,
        spi_r=sa.spi_r,
        exchange_type=ExchangeType.IKE_SA_INIT,
        initiator=False,
        response=True,
        message_id=0,
        payloads=payloads,
    )
    window = sa.window
    window.expected_id = 1
    window.last_response = (handshake.own_message,)
    window.last_tail = request[-TAIL_BYTES:]
    context.answer_stranger((handshake.own_message,), sa.path.local, sa.path.remote)
