"""Requests and responses of one IKE SA: message IDs, the window of one, retransmission. RFC 7296 sections 2.1 to 2.3.

A request of the peer is worked on once and its response kept; the next request drops it. Of our own wishes one is
under way at a time. To add an exchange: a file in `exchanges/`, and rows in the tables here and in `exchange_rules`.
"""

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ike_worker.ikev2.context import Context, Ending, Request, Response, Work
from ike_worker.ikev2.datagram import Endpoint
from ike_worker.ikev2.errors import (
    AuthenticationFailed,
    Ikev2Error,
    IntegrityFailure,
    RefusedHere,
    RemoteError,
)
from ike_worker.ikev2.exchange_rules import EXCHANGE_TYPES, Contents, check
from ike_worker.ikev2.exchanges import create_child_sa, ike_auth, informational, rekey_ike_sa
from ike_worker.ikev2.features import fragmentation, handover, liveness, nat_traversal
from ike_worker.ikev2.features.retransmission import Pending
from ike_worker.ikev2.iana import ExchangeType, NotifyType, PayloadType, ProtocolId
from ike_worker.ikev2.ike_sa import TAIL_BYTES, IkeSa
from ike_worker.ikev2.states import State
from ike_worker.ikev2.wire.message import Header, parse_message, parse_plaintext
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ike_worker.ikev2.wish import Wish, WishKind
from ipc.value import value

log = logging.getLogger(__name__)

LAST_MESSAGE_ID = 2**32 - 1
"""RFC 7296 section 2.2: an IKE SA ends before a message ID comes twice."""

Responder = Callable[[Context, IkeSa, Contents], Work[Response]]
Completer = Callable[[Context, IkeSa, Pending, Contents], Work[None]]


def _respond_create(context: Context, sa: IkeSa, contents: Contents) -> Work[Response]:
    offered = contents.need(SecurityAssociation)
    if offered.proposals[0].protocol == ProtocolId.IKE:
        return rekey_ike_sa.respond(context, sa, contents)
    return create_child_sa.respond(context, sa, contents)


RESPONDERS: Mapping[int, Responder] = MappingProxyType(
    {
        ExchangeType.IKE_AUTH: ike_auth.respond,
        ExchangeType.CREATE_CHILD_SA: _respond_create,
        ExchangeType.INFORMATIONAL: informational.respond,
    }
)
"""Who answers a request, by its exchange."""
COMPLETERS: Mapping[WishKind, Completer] = MappingProxyType(
    {
        WishKind.CREATE_CHILD: create_child_sa.complete,
        WishKind.REKEY_CHILD: create_child_sa.complete,
        WishKind.DELETE_CHILD: informational.complete,
        WishKind.REKEY_IKE: rekey_ike_sa.complete,
        WishKind.DELETE_IKE: informational.complete,
        WishKind.LIVENESS: informational.complete,
    }
)
"""Who acts on a response, by what was wanted. In IKE_AUTH it is `ike_auth.complete`."""


# ------------------------------------------------------------------ in


def receive(context: Context, sa: IkeSa, header: Header, data: bytes, local: Endpoint, remote: Endpoint) -> None:
    """A message for `sa`, protected if it is the peer's."""
    if header.initiator is sa.initiator or header.exchange_type not in EXCHANGE_TYPES:
        log.debug("%s: a message of our own role or of an unknown exchange is dropped", sa)
        return
    if sa.session is None or header.exchange_type == ExchangeType.IKE_SA_INIT:
        return
    if header.response:
        _receive_response(context, sa, header, data, local, remote)
    else:
        _receive_request(context, sa, header, data, local, remote)


def _receive_request(
    context: Context, sa: IkeSa, header: Header, data: bytes, local: Endpoint, remote: Endpoint
) -> None:
    window = sa.window
    if header.message_id != window.expected_id or window.serving:
        if header.message_id + 1 == window.expected_id and _is_repeated(sa, header, data):
            log.debug("%s: request %d came again", sa, header.message_id)
            context.send(sa, window.last_response)
        return
    opened = _open(context, sa, header, data)
    contents, error = opened.contents, opened.error
    if (contents is None and error is None) or (contents is not None and _is_early(sa, contents)):
        return
    sa.last_heard = context.now
    nat_traversal.follow(context, sa, local, remote)
    exchange_type, tail = header.exchange_type, opened.tail
    window.serving = True

    def done(response: Response) -> None:
        _answer(context, sa, exchange_type, tail, response)
        _greet(context, sa, exchange_type)

    def failed(failure: Ikev2Error) -> None:
        log.info("%s: request %d refused: %s", sa, header.message_id, failure)
        _answer(context, sa, exchange_type, tail, _refusal(sa, failure))

    if contents is None or error is not None:
        failed(error or RemoteError())
    elif (sa.state is State.HALF_OPEN) is not (exchange_type == ExchangeType.IKE_AUTH):
        failed(RemoteError("not the exchange that comes next"))
    else:
        log.debug("%s: request %d, exchange %d", sa, header.message_id, exchange_type)
        try:
            work = RESPONDERS[exchange_type](context, sa, contents)
        except RemoteError as malformed:
            failed(malformed)
        else:
            context.start(sa, work, done, failed)


def _is_early(sa: IkeSa, contents: Contents) -> bool:
    """Whether a request overtook the response that tells us what it is about. It will come again.

    That is so before IKE_AUTH is answered, before it is clear whose rekey of the IKE SA wins, and where it names a
    Child SA that we do not know while one that we asked for is being made.
    """
    pending = sa.window.pending
    if sa.state is State.AUTHENTICATING:
        return True
    if sa.state is State.CANDIDATE:
        return all(delete.protocol != ProtocolId.IKE for delete in contents.deletes)
    if pending is None or pending.wish.kind not in (WishKind.CREATE_CHILD, WishKind.REKEY_CHILD):
        return False
    named = [spi for delete in contents.deletes if delete.protocol == ProtocolId.ESP for spi in delete.spis]
    named += [notify.spi for notify in contents.all_of(NotifyType.REKEY_SA)]
    return any(sa.child_by_outbound(spi) is None for spi in named)


def _is_repeated(sa: IkeSa, header: Header, data: bytes) -> bool:
    """Whether this is the request that was answered last; known by its end, or cut into fragments anew."""
    if sa.window.last_tail == data[-TAIL_BYTES:]:
        return True
    if header.next_payload != PayloadType.ENCRYPTED_FRAGMENT:
        return False
    try:
        return fragmentation.is_repeated(sa, parse_message(data), data)
    except RemoteError:
        return False


@value
class _Opened:
    """A message of the peer: its contents, or what is wrong with an authentic one, or neither."""

    contents: Contents | None = None
    error: RemoteError | None = None
    incomplete: bool = False
    """An authentic fragment, and others are still to come."""
    tail: bytes = b""
    """Its end, or that of its first fragment."""


def _open(context: Context, sa: IkeSa, header: Header, data: bytes) -> _Opened:
    tail = data[-TAIL_BYTES:]
    try:
        message = parse_message(data)
    except RemoteError as error:
        log.debug("%s: dropped: %s", sa, error)
        return _Opened()
    try:
        if message.fragment is not None and sa.path.fragments:
            store = context.strangers_fragments if sa.state is State.HALF_OPEN else context.fragments
            whole = store.take(sa, message, data, context.now)
            if whole is None:
                return _Opened(incomplete=True)
            tail = whole.tail
            fragmentation.notice_size(sa, whole)
            payloads = parse_plaintext(whole.first_payload, whole.plaintext)
        else:
            payloads = sa.open(data, message)
        contents = check(header.exchange_type, response=header.response, encrypted=True, payloads=payloads)
    except IntegrityFailure as error:
        log.debug("%s: dropped: %s", sa, error)
        return _Opened()
    except RemoteError as error:
        return _Opened(error=error, tail=tail)
    return _Opened(contents=contents, tail=tail)


def _refusal(sa: IkeSa, failure: Ikev2Error) -> Response:
    """The response to a request that failed. In IKE_AUTH the IKE SA ends with it."""
    if sa.state is State.HALF_OPEN:
        if isinstance(failure, RefusedHere):
            failure = AuthenticationFailed(str(failure))
        close = f"IKE_AUTH failed: {failure}"
    else:
        close = ""
    kind = failure.notify if isinstance(failure, RemoteError) else NotifyType.NO_ADDITIONAL_SAS
    if kind is NotifyType.INVALID_SYNTAX and not close:
        # RFC 7296 section 2.21.3: fatal in both peers, without another word.
        close = f"the peer sent a malformed request: {failure}"
    data = failure.notify_data if isinstance(failure, RemoteError) else b""
    return Response(payloads=[Notify(type=kind, data=data)], close=close, ending=Ending.PEERS)


def _answer(context: Context, sa: IkeSa, exchange_type: int, tail: bytes, response: Response) -> None:
    window = sa.window
    window.serving = False
    if sa.state is State.CLOSED:
        return
    window.last_response = sa.seal(
        response.payloads,
        exchange_type=exchange_type,
        response=True,
        message_id=window.expected_id,
        random_bytes=context.random_bytes,
    )
    window.last_tail = tail
    window.expected_id += 1
    context.send(sa, window.last_response)
    context.mark_changed(sa)
    if response.close:
        rekey_ike_sa.adopt_candidate(context, sa)
        if sa.state is State.HALF_OPEN:
            context.report_failure(sa, None, response.close)
        context.close(sa, response.close, response.ending)
        return
    context.wake(sa)


def _receive_response(
    context: Context, sa: IkeSa, header: Header, data: bytes, local: Endpoint, remote: Endpoint
) -> None:
    window = sa.window
    pending = window.pending
    if pending is None or pending.answered or header.message_id != pending.message_id:
        return
    if header.exchange_type != pending.exchange_type:
        return
    opened = _open(context, sa, header, data)
    contents, error = opened.contents, opened.error
    if contents is None and error is None:
        if not opened.incomplete:
            _take_hint(context, sa, data)
        return
    sa.last_heard = context.now
    nat_traversal.follow(context, sa, local, remote)
    pending.answered = True
    log.debug("%s: response %d", sa, header.message_id)
    context.mark_changed(sa)

    def done(_result: None) -> None:
        _greet(context, sa, pending.exchange_type)
        if sa.state is not State.CLOSED:
            context.mark_changed(sa)
            context.wake(sa)

    def failed(failure: Ikev2Error) -> None:
        _fail(context, sa, pending, contents, failure)
        done(None)

    if contents is None or error is not None:
        failed(error or RemoteError())
        return
    in_auth = pending.exchange_type == ExchangeType.IKE_AUTH
    if contents.wrong is not None and contents.wrong.type == NotifyType.INVALID_SYNTAX and not in_auth:
        # RFC 7296 section 2.21.3: the peer has closed it.
        context.close(sa, "the peer answers INVALID_SYNTAX", Ending.PEERS)
        return
    completer = ike_auth.complete if in_auth else COMPLETERS[pending.wish.kind]
    context.start(sa, completer(context, sa, pending, contents), done, failed)


def _greet(context: Context, sa: IkeSa, exchange_type: int) -> None:
    if exchange_type == ExchangeType.IKE_AUTH and sa.state is State.ESTABLISHED:
        handover.greet(context, sa)


def _take_hint(context: Context, sa: IkeSa, data: bytes) -> None:
    """An unprotected answer is believed by nobody, but may be a reason to ask (RFC 7296 section 2.21.4)."""
    if liveness.take_hint(sa, context.now):
        log.debug("%s: an unprotected message of %d bytes hints that the peer has lost us", sa, len(data))
        context.wake(sa)


def _fail(context: Context, sa: IkeSa, pending: Pending, contents: Contents | None, failure: Ikev2Error) -> None:
    """A response that can't be accepted, or that we can't act on."""
    kind = pending.wish.kind
    if pending.exchange_type == ExchangeType.IKE_AUTH:
        ike_auth.failed(context, sa, pending, failure)
    elif kind in (WishKind.CREATE_CHILD, WishKind.REKEY_CHILD):
        create_child_sa.failed(context, sa, pending, contents, failure)
    elif kind is WishKind.REKEY_IKE:
        rekey_ike_sa.failed(context, sa, pending, failure)
    else:
        # A DELETE or a question whether the peer lives is answered by whatever is authentic.
        log.debug("%s: response %d: %s", sa, pending.message_id, failure)
        context.start(
            sa, informational.complete(context, sa, pending, Contents(())), lambda _result: None, lambda _error: None
        )


# ------------------------------------------------------------------ out


def pump(context: Context, sa: IkeSa) -> None:
    """Begins the next request that is wanted, if none is under way."""
    window = sa.window
    if window.next_id > LAST_MESSAGE_ID and window.pending is None:
        context.close(sa, "its message IDs are used up")
    while sa.wishes and window.pending is None and window.preparing is None and sa.state is not State.CLOSED:
        wish = _next_wish(context, sa)
        if wish is None:
            break
        _prepare(context, sa, wish)
    if sa.state is not State.CLOSED and (sa.wishes or window.preparing is not None):
        context.mark_changed(sa)  # who takes over wants it too


def _next_wish(context: Context, sa: IkeSa) -> Wish | None:
    """The first wish whose time has come and that the state of the IKE SA allows; it is taken off the list."""
    for wish in sa.wishes:
        if wish.not_before <= context.now and _is_possible(context, sa, wish):
            sa.wishes.remove(wish)
            return wish
    return None


def _is_possible(context: Context, sa: IkeSa, wish: Wish) -> bool:
    if sa.state is not State.ESTABLISHED:
        return wish.kind is WishKind.DELETE_IKE
    if wish.kind is WishKind.REKEY_IKE and sa.window.serving:
        return False  # what is being made for the peer could miss the move
    return context.has_policy or wish.kind not in (WishKind.CREATE_CHILD, WishKind.REKEY_CHILD)


def _prepare(context: Context, sa: IkeSa, wish: Wish) -> None:
    sa.window.preparing = wish

    def done(request: Request | None) -> None:
        sa.window.preparing = None
        if request is not None:
            send_request(context, sa, request)

    def failed(error: Ikev2Error) -> None:
        sa.window.preparing = None
        create_child_sa.not_made(context, sa, wish, error)

    if wish.kind in (WishKind.CREATE_CHILD, WishKind.REKEY_CHILD):
        context.start(sa, create_child_sa.request(context, sa, wish), done, failed)
    elif wish.kind is WishKind.REKEY_IKE:
        done(rekey_ike_sa.request(context, sa, wish))
    else:
        done(informational.request(context, sa, wish))


def authenticate(context: Context, sa: IkeSa) -> None:
    """Sends the IKE_AUTH request; IKE_SA_INIT is done."""
    sa.window.preparing = sa.wishes[0]

    def done(request: Request) -> None:
        sa.window.preparing = None
        send_request(context, sa, request)

    def failed(error: Ikev2Error) -> None:
        sa.window.preparing = None
        context.close(sa, f"IKE_AUTH can't be sent: {error}")

    context.start(sa, ike_auth.request(context, sa), done, failed)


def send_request(context: Context, sa: IkeSa, request: Request) -> None:
    """Sends a request with the next message ID."""
    window = sa.window
    data = sa.seal(
        request.payloads,
        exchange_type=request.exchange_type,
        response=False,
        message_id=window.next_id,
        random_bytes=context.random_bytes,
        in_clear=request.in_clear,
    )
    window.pending = Pending(
        wish=request.wish,
        exchange_type=request.exchange_type,
        message_id=window.next_id,
        data=data,
        now=context.now,
        nonce=request.nonce,
        spi=request.spi,
        key_exchange=request.key_exchange,
    )
    window.next_id += 1
    context.send(sa, data)
    context.mark_changed(sa)
    context.wake(sa)


def retransmit_or_give_up(context: Context, sa: IkeSa) -> None:
    """The time of the request under way has come."""
    pending = sa.window.pending
    if pending is None or pending.answered or context.now < pending.next_due:
        return
    if context.now >= pending.give_up_at:
        rekey_ike_sa.adopt_candidate(context, sa)
        context.close(sa, f"the peer at {sa.path.remote} does not answer", Ending.SILENCE)
        return
    if fragmentation.cut_smaller(sa, pending, context.random_bytes):
        log.info("%s: request %d is sent in smaller fragments", sa, pending.message_id)
        context.mark_changed(sa)
    context.send(sa, pending.data)
    pending.back_off(context.now)
    log.debug("%s: request %d sent again", sa, pending.message_id)
