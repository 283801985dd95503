"""IKE messages: header, chain of payloads, and the Encrypted payload around them. RFC 7296 sections 3.1, 3.2, 3.14.

Or, where that would be too long, Encrypted Fragment payloads in messages of their own (RFC 7383 section 2.5).

The invariant: arbitrary bytes give a Message or an Ikev2Error, in time linear in their length. To add a payload:
a new file with its class, and a row in PAYLOAD_CLASSES.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, Self

from ike_worker.ikev2.crypto.protection import MessageProtection
from ike_worker.ikev2.errors import (
    IntegrityFailure,
    InvalidMajorVersion,
    LocalError,
    MalformedMessage,
    UnsupportedCriticalPayload,
)
from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.authentication import Authentication
from ike_worker.ikev2.wire.certificate import Certificate, CertificateRequest
from ike_worker.ikev2.wire.configuration import Configuration
from ike_worker.ikev2.wire.delete import Delete
from ike_worker.ikev2.wire.eap import Eap
from ike_worker.ikev2.wire.encrypted_fragment import NUMBERS, EncryptedFragment
from ike_worker.ikev2.wire.identification import IdentificationInitiator, IdentificationResponder
from ike_worker.ikev2.wire.key_exchange import KeyExchangePayload
from ike_worker.ikev2.wire.nonce import Nonce
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.puzzle_solution import PuzzleSolution
from ike_worker.ikev2.wire.reader import Reader
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ike_worker.ikev2.wire.traffic_selectors import TrafficSelectorsInitiator, TrafficSelectorsResponder
from ike_worker.ikev2.wire.unknown import UnknownPayload
from ike_worker.ikev2.wire.vendor_id import VendorId
from ipc.value import value

MAX_MESSAGE_BYTES = 65535
MAX_PAYLOADS = 256
"""In one message: far more than any exchange needs, and a bound on what a datagram from anybody may cost."""
MAJOR_VERSION = 2
HEADER_BYTES = 28
SPI_BYTES = 8

_HEADER = struct.Struct("!8s8sBBBBII")  # SPIs, next payload, version, exchange, flags, message id, length
_GENERIC = struct.Struct("!BBH")  # next payload, critical bit, length (RFC 7296 section 3.2)
FLAG_INITIATOR = 0x08
_FLAG_RESPONSE = 0x20
_CRITICAL = 0x80
_ENCRYPTED = int(PayloadType.ENCRYPTED)
_FRAGMENT = int(PayloadType.ENCRYPTED_FRAGMENT)
MAX_FRAGMENTS = 0xFFFF


@value
class Header:
    """The IKE header (RFC 7296 section 3.1), its fields as they came. `length` is in bytes, the header included."""

    spi_i: bytes
    spi_r: bytes
    next_payload: int
    major: int
    minor: int
    exchange_type: int
    initiator: bool
    """Sent by the original initiator of the IKE SA."""
    response: bool
    message_id: int
    length: int


@value
class EncryptedPayload(Payload):
    """The Encrypted payload, SK: `body` is IV, ciphertext and ICV; `first_payload` the type of the first one inside."""

    TYPE: ClassVar[PayloadType] = PayloadType.ENCRYPTED
    first_payload: int
    body: bytes

    def encode_body(self) -> bytes:
        return self.body

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        raise LocalError("the body of an Encrypted payload does not tell its first payload")


@value
class Message:
    """A message as it came. `payloads` are those in clear, in their order, without the last one if it is encrypted."""

    header: Header
    payloads: tuple[Payload, ...]
    encrypted: EncryptedPayload | None
    fragment: EncryptedFragment | None = None


PAYLOAD_CLASSES: Mapping[int, type[Payload]] = MappingProxyType(
    {
        int(cls.TYPE): cls
        for cls in (
            SecurityAssociation,
            KeyExchangePayload,
            IdentificationInitiator,
            IdentificationResponder,
            Certificate,
            CertificateRequest,
            Authentication,
            Nonce,
            Notify,
            Delete,
            VendorId,
            TrafficSelectorsInitiator,
            TrafficSelectorsResponder,
            Configuration,
            Eap,
            PuzzleSolution,
        )
    }
)


def parse_header(data: bytes) -> Header:
    """The header of a datagram, without its non-ESP marker; MalformedMessage if there are fewer than 28 bytes."""
    if len(data) < HEADER_BYTES:
        raise MalformedMessage(f"IKE header: {HEADER_BYTES} bytes needed, {len(data)} there")
    spi_i, spi_r, next_payload, version, exchange_type, flags, message_id, length = _HEADER.unpack_from(data)
    return Header(
        spi_i=spi_i,
        spi_r=spi_r,
        next_payload=next_payload,
        major=version >> 4,
        minor=version & 0x0F,
        exchange_type=exchange_type,
        initiator=bool(flags & FLAG_INITIATOR),
        response=bool(flags & _FLAG_RESPONSE),
        message_id=message_id,
        length=length,
    )


def check_version(header: Header) -> None:
    """InvalidMajorVersion unless it is IKE version 2; the minor version is ignored (RFC 7296 section 2.5)."""
    if header.major != MAJOR_VERSION:
        raise InvalidMajorVersion(f"IKE version {header.major}.{header.minor}")


def parse_message(data: bytes) -> Message:
    """The message that `data` holds, whole.

    MalformedMessage, InvalidMajorVersion, or UnsupportedCriticalPayload. What is inside an Encrypted payload is left
    to `open_message`.
    """
    header = parse_header(data)
    check_version(header)
    if header.length != len(data):
        raise MalformedMessage(f"IKE header: length {header.length}, {len(data)} bytes there")
    reader = Reader(data, "message", HEADER_BYTES)
    payloads = _parse_payloads(header.next_payload, reader)
    last = payloads[-1] if payloads else None
    if type(last) is EncryptedPayload:
        return Message(header=header, payloads=tuple(payloads[:-1]), encrypted=last)
    if type(last) is EncryptedFragment:
        return Message(header=header, payloads=tuple(payloads[:-1]), encrypted=None, fragment=last)
    return Message(header=header, payloads=tuple(payloads), encrypted=None)


def _parse_payloads(kind: int, reader: Reader) -> list[Payload]:
    """The chain that begins with a payload of type `kind` and fills `reader`; an encrypted payload ends it."""
    payloads: list[Payload] = []
    while kind:
        if len(payloads) == MAX_PAYLOADS:
            raise MalformedMessage(f"more than {MAX_PAYLOADS} payloads")
        following, flags, length = reader.unpack(_GENERIC)
        cls = PAYLOAD_CLASSES.get(kind)
        if cls is not None:
            body = reader.part(length, _GENERIC.size, cls.__name__)
            payloads.append(cls.parse_body(body))
            body.expect_end()
        elif kind == _ENCRYPTED:
            body = reader.part(length, _GENERIC.size, "Encrypted")
            payloads.append(EncryptedPayload(first_payload=following, body=body.rest()))
            break
        elif kind == _FRAGMENT:
            body = reader.part(length, _GENERIC.size, "Encrypted Fragment")
            payloads.append(replace(EncryptedFragment.parse_body(body), first_payload=following))
            break
        elif flags & _CRITICAL:
            raise UnsupportedCriticalPayload(kind)
        else:
            body = reader.part(length, _GENERIC.size, "unknown payload")
            payloads.append(UnknownPayload(type=kind, data=body.rest_or_empty()))
        kind = following
    reader.expect_end()
    return payloads


def encode_message(
    *,
    spi_i: bytes,
    spi_r: bytes,
    exchange_type: int,
    initiator: bool,
    response: bool,
    message_id: int,
    payloads: Sequence[Payload],
) -> bytes:
    """A message in clear. LocalError if it would be longer than MAX_MESSAGE_BYTES."""
    body = _encode_payloads(payloads)
    flags = (FLAG_INITIATOR if initiator else 0) | (_FLAG_RESPONSE if response else 0)
    return _header(spi_i, spi_r, _first(payloads), exchange_type, flags, message_id, HEADER_BYTES + len(body)) + body


def seal_message(
    *,
    spi_i: bytes,
    spi_r: bytes,
    exchange_type: int,
    initiator: bool,
    response: bool,
    message_id: int,
    payloads: Sequence[Payload],
    protection: MessageProtection,
    iv: bytes,
    in_clear: Sequence[Payload] = (),
) -> bytes:
    """A message whose payloads are inside an Encrypted payload; `iv` as `MessageProtection.seal` wants it.

    `in_clear` stands ahead of it, authenticated too. LocalError if it would be longer than MAX_MESSAGE_BYTES.
    """
    plaintext = _encode_payloads(payloads)
    sk_length = _GENERIC.size + protection.sealed_bytes(len(plaintext))
    flags = (FLAG_INITIATOR if initiator else 0) | (_FLAG_RESPONSE if response else 0)
    ahead, first = _encode_payloads(in_clear, _ENCRYPTED), _first(in_clear) or _ENCRYPTED
    header = _header(spi_i, spi_r, first, exchange_type, flags, message_id, HEADER_BYTES + len(ahead) + sk_length)
    associated = header + ahead + _GENERIC.pack(_first(payloads), 0, sk_length)
    return associated + protection.seal(associated, plaintext, iv)


def open_message(data: bytes, message: Message, protection: MessageProtection) -> tuple[Payload, ...]:
    """The payloads inside the Encrypted payload of `message`, which `parse_message` made of `data`.

    IntegrityFailure if there is no such payload or it is not authentic: drop it. Any other RemoteError comes from
    an authentic message, so from the peer itself.
    """
    encrypted = message.encrypted
    if encrypted is None:
        raise IntegrityFailure("the message is in clear")
    plaintext = protection.open(data[: len(data) - len(encrypted.body)], encrypted.body)
    return parse_plaintext(encrypted.first_payload, plaintext)


def open_fragment(data: bytes, fragment: EncryptedFragment, protection: MessageProtection) -> bytes:
    """The plaintext of a fragment that `parse_message` found in `data`; errors as `open_message`."""
    return protection.open(data[: len(data) - len(fragment.body)], fragment.body)


def parse_plaintext(first_payload: int, plaintext: bytes) -> tuple[Payload, ...]:
    """The payloads in an opened Encrypted payload, or in the fragments of one, put together again."""
    payloads = _parse_payloads(first_payload, Reader(plaintext, "Encrypted"))
    if payloads and type(payloads[-1]) in (EncryptedPayload, EncryptedFragment):
        raise MalformedMessage("an Encrypted payload inside another")
    return tuple(payloads)


def split_message(
    datagrams: tuple[bytes, ...],
    max_bytes: int,
    protection: MessageProtection,
    random_bytes: Callable[[int], bytes],
) -> tuple[bytes, ...]:
    """A message of our own, whole or in fragments, sealed anew in fragments of at most `max_bytes` bytes each.

    `protection` is what sealed it. Every fragment has an IV of its own (RFC 7383 section 2.5). What stood in clear
    ahead of it goes with the first one (section 2.5.3).
    """
    opened = []
    first_payload = 0
    in_clear: tuple[Payload, ...] = ()
    for data in datagrams:
        message = parse_message(data)
        in_clear += message.payloads
        if message.fragment is not None:
            first_payload = first_payload or message.fragment.first_payload
            opened.append(open_fragment(data, message.fragment, protection))
        elif message.encrypted is not None:
            first_payload = message.encrypted.first_payload
            opened.append(protection.open(data[: len(data) - len(message.encrypted.body)], message.encrypted.body))
    plaintext = b"".join(opened)
    ahead = _encode_payloads(in_clear, _FRAGMENT)
    room = max_bytes - HEADER_BYTES - len(ahead) - _GENERIC.size - NUMBERS.size - protection.overhead
    if room < 1 or -(-len(plaintext) // room) > MAX_FRAGMENTS:
        raise LocalError(f"a message of {len(plaintext)} bytes in fragments of {max_bytes}")
    parts = [plaintext[start : start + room] for start in range(0, len(plaintext), room)] or [b""]
    header = replace(parse_header(datagrams[0]), next_payload=_first(in_clear) or _FRAGMENT)
    first = _seal_fragment(header, ahead, first_payload, 1, len(parts), parts[0], protection, random_bytes)
    header = replace(header, next_payload=_FRAGMENT)
    return first, *(
        _seal_fragment(header, b"", 0, number, len(parts), part, protection, random_bytes)
        for number, part in enumerate(parts[1:], 2)
    )


def _seal_fragment(
    header: Header,
    ahead: bytes,
    first_payload: int,
    number: int,
    total: int,
    part: bytes,
    protection: MessageProtection,
    random_bytes: Callable[[int], bytes],
) -> bytes:
    length = _GENERIC.size + NUMBERS.size + protection.sealed_bytes(len(part))
    flags = (FLAG_INITIATOR if header.initiator else 0) | (_FLAG_RESPONSE if header.response else 0)
    head = _header(
        *(header.spi_i, header.spi_r, header.next_payload, header.exchange_type),
        *(flags, header.message_id, HEADER_BYTES + len(ahead) + length),
    )
    associated = head + ahead + _GENERIC.pack(first_payload, 0, length) + NUMBERS.pack(number, total)
    return associated + protection.seal(associated, part, random_bytes(protection.iv_bytes))


def _header(
    spi_i: bytes, spi_r: bytes, next_payload: int, exchange_type: int, flags: int, message_id: int, length: int
) -> bytes:
    if length > MAX_MESSAGE_BYTES:
        raise LocalError(f"a message of {length} bytes, at most {MAX_MESSAGE_BYTES}")
    return _HEADER.pack(spi_i, spi_r, next_payload, MAJOR_VERSION << 4, exchange_type, flags, message_id, length)


def _first(payloads: Sequence[Payload]) -> int:
    return _type_of(payloads[0]) if payloads else 0


def _type_of(payload: Payload) -> int:
    return payload.type if type(payload) is UnknownPayload else payload.TYPE


def _encode_payloads(payloads: Sequence[Payload], behind: int = 0) -> bytes:
    """The chain, and behind it one of type `behind`."""
    parts: list[bytes] = []
    following = behind
    for payload in reversed(payloads):
        body = payload.encode_body()
        length = _GENERIC.size + len(body)
        if length > MAX_MESSAGE_BYTES:
            raise LocalError(f"a payload of {length} bytes, at most {MAX_MESSAGE_BYTES}")
        critical = _CRITICAL if type(payload) is UnknownPayload and payload.critical else 0
        parts += (body, _GENERIC.pack(following, critical, length))
        following = _type_of(payload)
    parts.reverse()
    return b"".join(parts)
