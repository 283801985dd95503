"""RFC 7296 section 3.3, byte by byte."""

import pytest

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.wire.reader import Reader
from ike_worker.ikev2.wire.sa import Proposal, SecurityAssociation, Transform

AES_GCM_256 = Transform(type=1, id=20, key_bits=256)
PRF_SHA256 = Transform(type=2, id=5)
X25519 = Transform(type=4, id=31)
TWO_PROPOSALS = SecurityAssociation(
    proposals=(
        Proposal(number=1, protocol=1, transforms=(AES_GCM_256, PRF_SHA256, X25519)),
        Proposal(number=2, protocol=3, spi=b"\xc0\xff\xee\x01", transforms=(Transform(type=5, id=0),)),
    )
)
TWO_PROPOSALS_BYTES = bytes.fromhex(
    "02 00 0024 01 01 00 03"  # more, length 36, number 1, IKE, no SPI, 3 transforms
    "03 00 000c 01 00 0014 800e 0100"  # ENCR AES-GCM-16, Key Length 256
    "03 00 0008 02 00 0005"
    "00 00 0008 04 00 001f"
    "00 00 0014 02 03 04 01 c0ffee01"  # last, length 20, number 2, ESP, 4-byte SPI, 1 transform
    "00 00 0008 05 00 0000"
)


def parse(data: bytes) -> SecurityAssociation:
    reader = Reader(data, "SecurityAssociation")
    payload = SecurityAssociation.parse_body(reader)
    reader.expect_end()
    return payload


def proposal(transforms: str, count: int) -> bytes:
    body = bytes.fromhex(transforms)
    return bytes((0, 0)) + (8 + len(body)).to_bytes(2) + bytes((1, 1, 0, count)) + body


def test_it_encodes_as_the_rfc_draws_it() -> None:
    assert TWO_PROPOSALS.encode_body() == TWO_PROPOSALS_BYTES


def test_it_parses_what_the_rfc_draws() -> None:
    assert parse(TWO_PROPOSALS_BYTES) == TWO_PROPOSALS


@pytest.mark.parametrize("end", range(len(TWO_PROPOSALS_BYTES)))
def test_cut_off_anywhere_it_is_malformed(end: int) -> None:
    with pytest.raises(MalformedMessage):
        parse(TWO_PROPOSALS_BYTES[:end])


@pytest.mark.parametrize("offset, value", [(0, 0), (0, 1), (0, 3), (36, 2), (36, 1), (36, 255)])
def test_a_last_substructure_field_that_does_not_fit_is_malformed(offset: int, value: int) -> None:
    data = bytearray(TWO_PROPOSALS_BYTES)
    data[offset] = value
    with pytest.raises(MalformedMessage):
        parse(bytes(data))


@pytest.mark.parametrize("offset, value", [(8, 0), (8, 2), (20, 0), (28, 3), (28, 1)])
def test_a_last_field_of_a_transform_that_does_not_fit_is_malformed(offset: int, value: int) -> None:
    data = bytearray(TWO_PROPOSALS_BYTES)
    data[offset] = value
    with pytest.raises(MalformedMessage, match="transform: last substructure"):
        parse(bytes(data))


def test_more_transforms_than_counted_are_malformed() -> None:
    with pytest.raises(MalformedMessage):
        parse(proposal("00000008020000050000000802000005", count=1))


def test_fewer_transforms_than_counted_are_malformed() -> None:
    with pytest.raises(MalformedMessage):
        parse(proposal("0300000802000005", count=2))


@pytest.mark.parametrize("length", ["0000", "0007", "0009", "00ff"])
def test_a_transform_length_that_does_not_fit_is_malformed(length: str) -> None:
    with pytest.raises(MalformedMessage):
        parse(proposal(f"0000{length}02000005", count=1))


def test_a_proposal_without_transforms_is_kept() -> None:
    """Whether it can be chosen is not a question of shape."""
    assert parse(proposal("", count=0)).proposals[0].transforms == ()


def transform_with(attributes: str) -> Transform:
    length = 8 + len(bytes.fromhex(attributes))
    (transform,) = parse(proposal(f"0000{length:04x}0100000c{attributes}", count=1)).proposals[0].transforms
    return transform


def test_a_key_length_makes_a_usable_transform() -> None:
    assert transform_with("800e0080") == Transform(type=1, id=12, key_bits=128)


@pytest.mark.parametrize(
    "attributes",
    [
        "800f0080",  # an unknown attribute in short form
        "800e0080800f0001",  # one after the key length
        "800f0001800e0080",  # and before it
        "000f0004deadbeef",  # in long form
        "000f0000",  # in long form, empty
        "000e00020080",  # a key length in long form: it MUST be short
        "800e0080800e0100",  # two key lengths
    ],
)
def test_an_attribute_that_we_do_not_understand_makes_a_transform_that_equals_none(attributes: str) -> None:
    """RFC 7296 section 3.3.6: a transform with such an attribute MUST NOT be chosen."""
    transform = transform_with(attributes)
    assert transform.unusable
    assert (transform.type, transform.id) == (1, 12)
    assert transform not in [Transform(type=1, id=12, key_bits=bits) for bits in (None, 128, 256)]


@pytest.mark.parametrize("attributes", ["80", "800e00", "000f0005deadbeef", "000fffff", "800e008080"])
def test_an_attribute_beyond_the_transform_is_malformed(attributes: str) -> None:
    with pytest.raises(MalformedMessage):
        transform_with(attributes)


def test_an_spi_beyond_the_proposal_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        parse(bytes.fromhex("0000000c 01 03 05 00 c0ffee01"))
