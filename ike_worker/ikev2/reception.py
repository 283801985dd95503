"""Which IKE SA a datagram is for, and what strangers are answered. RFC 7296 sections 1.5, 2.5 and 2.21.4."""

from ike_worker.ikev2 import dialogue
from ike_worker.ikev2.context import Context
from ike_worker.ikev2.datagram import Endpoint
from ike_worker.ikev2.errors import InvalidMajorVersion
from ike_worker.ikev2.exchanges import ike_sa_init
from ike_worker.ikev2.features import liveness
from ike_worker.ikev2.features.gate import is_init_request
from ike_worker.ikev2.iana import ExchangeType, NotifyType, PayloadType
from ike_worker.ikev2.ike_sa import NO_SPI, TAIL_BYTES, IkeSa
from ike_worker.ikev2.states import State
from ike_worker.ikev2.wire.message import (
    FLAG_INITIATOR,
    HEADER_BYTES,
    Header,
    check_version,
    encode_message,
    parse_header,
    parse_message,
)
from ike_worker.ikev2.wire.notify import Notify

_FLAGS_OFFSET = 19
_PROTECTED = frozenset({PayloadType.ENCRYPTED, PayloadType.ENCRYPTED_FRAGMENT, PayloadType.PUZZLE_SOLUTION})


def screen(context: Context, data: bytes, address: bytes, now: float) -> bytes | None:
    """As `Engine.screen`."""
    if len(data) < HEADER_BYTES:
        return b""
    if is_init_request(data):
        verdict = context.gate.examine(data, address, now, lets_in=False)
        return verdict if isinstance(verdict, bytes) else None
    # The flag of the original initiator tells which of the SPIs is ours (RFC 7296 section 3.1).
    own_spi = data[8:16] if data[_FLAGS_OFFSET] & FLAG_INITIATOR else data[:8]
    if own_spi in context.ike_sas or own_spi in context.ghosts or context.gate.strangers.has(now):
        return None
    return b""


def receive(context: Context, data: bytes, local: Endpoint, remote: Endpoint) -> None:
    """A datagram without its non-ESP marker; RemoteError says why it is dropped."""
    header = parse_header(data)
    try:
        check_version(header)
    except InvalidMajorVersion:
        _answer_stranger(context, header, NotifyType.INVALID_MAJOR_VERSION, local, remote)
        raise
    if header.exchange_type == ExchangeType.IKE_SA_INIT and not header.response:
        if header.initiator and header.message_id == 0 and header.spi_r == NO_SPI != header.spi_i:
            ike_sa_init.respond(context, header, data, local, remote)
        return
    own_spi, peer_spi = (header.spi_r, header.spi_i) if header.initiator else (header.spi_i, header.spi_r)
    sa = context.ike_sas.get(own_spi)
    if sa is None:
        _receive_for_nobody(context, header, own_spi, data, local, remote)
    elif sa.state is State.CONNECTING:
        _receive_init_response(context, sa, header, data, local, remote)
    elif sa.peer_spi == peer_spi:
        if header.next_payload not in _PROTECTED:
            _take_hint(context, sa, data)
        else:
            dialogue.receive(context, sa, header, data, local, remote)


def _receive_init_response(
    context: Context, sa: IkeSa, header: Header, data: bytes, local: Endpoint, remote: Endpoint
) -> None:
    if header.exchange_type != ExchangeType.IKE_SA_INIT or header.initiator or header.message_id != 0:
        return
    if ike_sa_init.complete(context, sa, parse_message(data), data, local, remote):
        dialogue.authenticate(context, sa)
    context.wake(sa)


def _receive_for_nobody(
    context: Context, header: Header, own_spi: bytes, data: bytes, local: Endpoint, remote: Endpoint
) -> None:
    ghost = context.ghosts.get(own_spi)
    if ghost is not None and context.now < ghost.until and not header.response:
        if ghost.tail == data[-TAIL_BYTES:]:
            context.answer_stranger(ghost.response, local, remote)
        return
    if not header.response:
        _answer_stranger(context, header, NotifyType.INVALID_IKE_SPI, local, remote)


def _take_hint(context: Context, sa: IkeSa, data: bytes) -> None:
    """RFC 7296 section 2.21.4: an unprotected INVALID_IKE_SPI is never believed, but is a reason to ask."""
    message = parse_message(data)
    says_so = any(isinstance(one, Notify) and one.type == NotifyType.INVALID_IKE_SPI for one in message.payloads)
    if says_so and liveness.take_hint(sa, context.now):
        context.wake(sa)


def _answer_stranger(context: Context, header: Header, kind: NotifyType, local: Endpoint, remote: Endpoint) -> None:
    """An unprotected answer (RFC 7296 sections 1.5, 2.5 and 2.21.4), so many in a second."""
    if header.response:
        return
    if not context.gate.strangers.take(context.now):
        return
    answer = encode_message(
        spi_i=header.spi_i,
        spi_r=header.spi_r,
        exchange_type=header.exchange_type,
        initiator=not header.initiator,
        response=True,
        message_id=header.message_id,
        payloads=[Notify(type=kind)],
    )
    context.answer_stranger((answer,), local, remote)
