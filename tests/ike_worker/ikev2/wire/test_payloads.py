"""The small payloads: each as its RFC 7296 section draws it, cut off anywhere, and with what else may be wrong."""

from dataclasses import FrozenInstanceError, fields

import pytest

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.wire.authentication import Authentication
from ike_worker.ikev2.wire.certificate import Certificate, CertificateRequest
from ike_worker.ikev2.wire.configuration import Configuration
from ike_worker.ikev2.wire.delete import Delete
from ike_worker.ikev2.wire.eap import Eap
from ike_worker.ikev2.wire.identification import IdentificationInitiator, IdentificationResponder
from ike_worker.ikev2.wire.key_exchange import KeyExchangePayload
from ike_worker.ikev2.wire.message import PAYLOAD_CLASSES
from ike_worker.ikev2.wire.nonce import Nonce
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.puzzle_solution import PuzzleSolution
from ike_worker.ikev2.wire.reader import Reader
from ike_worker.ikev2.wire.vendor_id import VendorId

# payload, its type number, its body, how short the body may be cut and still be one
DRAWN: list[tuple[Payload, int, str, int]] = [
    (KeyExchangePayload(group=31, data=b"\xaa\xbb"), 34, "001f 0000 aabb", 5),
    (IdentificationInitiator(id_type=2, data=b"a.b"), 35, "02 000000 612e62", 5),
    (IdentificationResponder(id_type=1, data=b"\xc0\x00\x02\x01"), 36, "01 000000 c0000201", 8),
    (Certificate(encoding=4, data=b"\x30"), 37, "04 30", 2),
    (CertificateRequest(encoding=4, data=b"\x11" * 20), 38, "04" + "11" * 20, 1),
    (Authentication(method=2, data=b"\x99\x98"), 39, "02 000000 9998", 5),
    (Nonce(data=bytes(range(16))), 40, "000102030405060708090a0b0c0d0e0f", 16),
    (Notify(type=16390, data=b"cookie"), 41, "00 00 4006 636f6f6b6965", 4),
    (Notify(protocol=3, spi=b"\xc0\xff\xee\x01", type=16393), 41, "03 04 4009 c0ffee01", 8),
    (Delete(protocol=1), 42, "01 00 0000", 4),
    (Delete(protocol=3, spis=(b"abcd", b"efgh")), 42, "03 04 0002 61626364 65666768", 12),
    (VendorId(data=b"\x01\x02"), 43, "0102", 0),
    (Configuration(type=1, data=b"\x00\x01\x00\x00"), 47, "01 000000 00010000", 4),
    (Eap(data=b"\x01\x02\x00\x04"), 48, "01020004", 1),
    (PuzzleSolution(data=b"abcdefgh"), 54, "6162636465666768", 1),
]


def parse(cls: type[Payload], data: bytes) -> Payload:
    reader = Reader(data, cls.__name__)
    payload = cls.parse_body(reader)
    reader.expect_end()
    return payload


@pytest.mark.parametrize("payload, number, body, shortest", DRAWN)
def test_it_is_encoded_and_parsed_as_the_rfc_draws_it(payload: Payload, number: int, body: str, shortest: int) -> None:
    assert int(payload.TYPE) == number
    assert PAYLOAD_CLASSES[number] is type(payload)
    assert payload.encode_body() == bytes.fromhex(body)
    assert parse(type(payload), bytes.fromhex(body)) == payload


@pytest.mark.parametrize("payload, number, body, shortest", DRAWN)
def test_cut_off_too_short_it_is_malformed(payload: Payload, number: int, body: str, shortest: int) -> None:
    data = bytes.fromhex(body)
    for end in range(shortest):
        with pytest.raises(MalformedMessage):
            parse(type(payload), data[:end])
    parse(type(payload), data[:shortest])


@pytest.mark.parametrize("payload, number, body, shortest", DRAWN)
def test_it_can_not_be_changed(payload: Payload, number: int, body: str, shortest: int) -> None:
    name = fields(payload)[0].name  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        setattr(payload, name, None)


def test_reserved_bytes_are_ignored() -> None:
    """RFC 7296 section 2.5: fields marked RESERVED MUST be ignored."""
    assert parse(KeyExchangePayload, bytes.fromhex("001f ffff aabb")) == KeyExchangePayload(group=31, data=b"\xaa\xbb")
    assert parse(Authentication, bytes.fromhex("02 ffffff 99")) == Authentication(method=2, data=b"\x99")


def test_the_body_of_an_identification_has_zero_reserved_bytes() -> None:
    assert IdentificationInitiator(id_type=11, data=b"key").body == b"\x0b\x00\x00\x00key"


@pytest.mark.parametrize("size, good", [(15, False), (16, True), (256, True), (257, False)])
def test_a_nonce_has_16_to_256_bytes(size: int, good: bool) -> None:
    if good:
        assert parse(Nonce, bytes(size)) == Nonce(data=bytes(size))
    else:
        with pytest.raises(MalformedMessage):
            parse(Nonce, bytes(size))


@pytest.mark.parametrize("id_type, size", [(1, 3), (1, 5), (5, 4), (5, 17), (2, 1025)])
def test_an_identity_of_a_wrong_length_is_malformed(id_type: int, size: int) -> None:
    with pytest.raises(MalformedMessage):
        parse(IdentificationInitiator, bytes((id_type, 0, 0, 0)) + bytes(size))


def test_an_identity_of_unknown_type_is_kept() -> None:
    assert parse(IdentificationResponder, b"\xc8\0\0\0x") == IdentificationResponder(id_type=200, data=b"x")


def test_an_auth_longer_than_any_signature_is_malformed() -> None:
    assert len(parse(Authentication, b"\x0e\0\0\0" + bytes(8192)).encode_body()) == 8196
    with pytest.raises(MalformedMessage):
        parse(Authentication, b"\x0e\0\0\0" + bytes(8193))


def test_a_notify_below_16384_is_an_error_also_if_unknown() -> None:
    assert Notify(type=14).is_error and Notify(type=16383).is_error
    assert not Notify(type=16384).is_error and not Notify(type=65535).is_error


def test_an_spi_beyond_the_notify_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        parse(Notify, bytes.fromhex("03 05 4009 c0ffee01"))


@pytest.mark.parametrize("body", ["03 00 0001", "03 04 0001", "03 04 0002 61626364", "03 04 ffff", "03 ff ffff 61"])
def test_spis_that_are_not_there_are_malformed(body: str) -> None:
    with pytest.raises(MalformedMessage):
        parse(Delete, bytes.fromhex(body))


def test_bytes_behind_the_last_spi_are_malformed() -> None:
    with pytest.raises(MalformedMessage, match="left over"):
        parse(Delete, bytes.fromhex("03 04 0001 61626364 00"))
