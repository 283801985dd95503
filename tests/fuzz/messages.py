"""Valid messages to begin with: of every payload that there is, in clear and sealed under known keys."""

import ipaddress
import struct

from ike_worker.ikev2.crypto.protection import MessageProtection
from ike_worker.ikev2.wire.authentication import Authentication
from ike_worker.ikev2.wire.certificate import Certificate, CertificateRequest
from ike_worker.ikev2.wire.configuration import Configuration
from ike_worker.ikev2.wire.delete import Delete
from ike_worker.ikev2.wire.eap import Eap
from ike_worker.ikev2.wire.identification import IdentificationInitiator, IdentificationResponder
from ike_worker.ikev2.wire.key_exchange import KeyExchangePayload
from ike_worker.ikev2.wire.message import (
    encode_message,
    seal_message,
)
from ike_worker.ikev2.wire.nonce import Nonce
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.sa import Proposal, SecurityAssociation, Transform
from ike_worker.ikev2.wire.traffic_selectors import TrafficSelectorsInitiator, TrafficSelectorsResponder
from ike_worker.ikev2.wire.unknown import UnknownPayload
from ike_worker.ikev2.wire.vendor_id import VendorId
from ipc.algorithms import AES128CBC, AES256GCM16, IntegrityId
from ipc.types import Secret, TrafficSelector

GCM = MessageProtection(AES256GCM16, IntegrityId.NONE, Secret(bytes(range(36))), Secret(b""))
CBC = MessageProtection(AES128CBC, IntegrityId.HMAC_SHA2_256_128, Secret(bytes(16)), Secret(bytes(32)))
TYPES = (*range(33, 54), 0, 1, 200, 255)


def selector(first: str, last: str) -> TrafficSelector:
    start, end = ipaddress.ip_address(first), ipaddress.ip_address(last)
    return TrafficSelector(protocol=0, start_address=start, end_address=end, start_port=0, end_port=65535)


SELECTORS = (selector("10.1.0.0", "10.1.255.255"), selector("2001:db8::", "2001:db8::ffff"))
TRANSFORMS = (Transform(type=1, id=20, key_bits=256), Transform(type=2, id=5), Transform(type=4, id=31))
SA = SecurityAssociation(
    proposals=(
        Proposal(number=1, protocol=1, transforms=TRANSFORMS),
        Proposal(number=2, protocol=3, spi=b"abcd", transforms=TRANSFORMS),
    )
)
INIT: tuple[Payload, ...] = (
    SA,
    KeyExchangePayload(group=31, data=bytes(32)),
    Nonce(data=bytes(range(32))),
    Notify(type=16388, data=bytes(20)),
    Notify(type=16389, data=bytes(20)),
    VendorId(data=b"vendor"),
    UnknownPayload(type=200, data=b"unknown"),
)
AUTH: tuple[Payload, ...] = (
    IdentificationInitiator(id_type=2, data=b"hq.example.net"),
    IdentificationResponder(id_type=1, data=bytes(4)),
    Certificate(encoding=4, data=bytes(50)),
    CertificateRequest(encoding=4, data=bytes(20)),
    Authentication(method=2, data=bytes(32)),
    SA,
    TrafficSelectorsInitiator(selectors=SELECTORS),
    TrafficSelectorsResponder(selectors=SELECTORS),
    Configuration(type=1, data=bytes(4)),
    Delete(protocol=3, spis=(b"abcd", b"efgh")),
    Eap(data=bytes(8)),
)


def clear(payloads: tuple[Payload, ...]) -> bytes:
    return encode_message(
        spi_i=b"initiatr",
        spi_r=b"respondr",
        exchange_type=34,
        initiator=True,
        response=False,
        message_id=0,
        payloads=payloads,
    )


def sealed(protection: MessageProtection) -> bytes:
    return seal_message(
        spi_i=b"initiatr",
        spi_r=b"respondr",
        exchange_type=35,
        initiator=True,
        response=False,
        message_id=1,
        payloads=AUTH,
        protection=protection,
        iv=bytes(protection.iv_bytes),
    )


def with_true_length(data: bytes) -> bytes:
    return data[:24] + len(data).to_bytes(4) + data[28:] if len(data) >= 28 else data


def authentic(plaintext: bytes, first: int, protection: MessageProtection) -> bytes:
    """A message around any plaintext, sealed with the right keys."""
    length = 4 + protection.sealed_bytes(len(plaintext))
    head = b"initiatrrespondr" + bytes((46, 0x20, 35, 8)) + struct.pack("!IIBBH", 1, 28 + length, first, 0, length)
    return head + protection.seal(head, plaintext, bytes(protection.iv_bytes))
