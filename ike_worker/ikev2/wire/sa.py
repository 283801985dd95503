"""The Security Association payload: proposals of transforms. RFC 7296 section 3.3."""

import functools
import struct
from typing import ClassVar, Self

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.iana import AttributeType, PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value

_PROPOSAL = struct.Struct("!BxHBBBB")  # last or more, length, number, protocol, SPI size, number of transforms
_TRANSFORM = struct.Struct("!BxHBxH")  # last or more, length, type, id
_ATTRIBUTE = struct.Struct("!HH")  # format bit and type, value or length
_LAST = 0
_MORE_PROPOSALS = 2
_MORE_TRANSFORMS = 3
_SHORT_FORM = 0x8000
_KEY_LENGTH = _SHORT_FORM | AttributeType.KEY_LENGTH
REMEMBERED = 256
"""Peers offer the same few transforms again and again: to look them up costs a tenth of reading or writing them."""
LONGEST_REMEMBERED_BYTES = 512


@value
class Transform:
    """One algorithm. `type` and `id` may be numbers that we do not know."""

    type: int
    id: int
    key_bits: int | None = None
    """The Key Length attribute."""
    unusable: bool = False
    """It had an attribute that we do not understand: it MUST NOT be chosen (RFC 7296 section 3.3.6). Equal to no
    transform of ours. The attribute itself is not kept."""


@value
class Proposal:
    """Transforms for one protocol: one of each type is to be chosen. `spi` is the sender's, empty in IKE_SA_INIT."""

    number: int
    protocol: int
    spi: bytes = b""
    transforms: tuple[Transform, ...]


@value
class SecurityAssociation(Payload):
    """What is offered, most wanted first, or the one proposal that was chosen. At least one proposal."""

    TYPE: ClassVar[PayloadType] = PayloadType.SECURITY_ASSOCIATION
    proposals: tuple[Proposal, ...]

    def encode_body(self) -> bytes:
        last = len(self.proposals) - 1
        return b"".join(
            [
                _encode_proposal(proposal, _LAST if index == last else _MORE_PROPOSALS)
                for index, proposal in enumerate(self.proposals)
            ]
        )

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        proposals = []
        more = _MORE_PROPOSALS
        while more == _MORE_PROPOSALS:
            more, length, number, protocol, spi_size, count = reader.unpack(_PROPOSAL)
            part = reader.part(length, _PROPOSAL.size, "proposal")
            spi = part.take(spi_size)
            encoded = part.rest_or_empty()
            parse = _parse_often if len(encoded) <= LONGEST_REMEMBERED_BYTES else _parse_transforms
            transforms = parse(encoded, count)
            proposals.append(Proposal(number=number, protocol=protocol, spi=spi, transforms=transforms))
        if more != _LAST:
            raise MalformedMessage(f"proposal: last substructure {more}, not {_LAST} or {_MORE_PROPOSALS}")
        return cls(proposals=tuple(proposals))


def _encode_proposal(proposal: Proposal, more: int) -> bytes:
    transforms = _encode_transforms(proposal.transforms)
    length = _PROPOSAL.size + len(proposal.spi) + len(transforms)
    fields = (more, length, proposal.number, proposal.protocol, len(proposal.spi), len(proposal.transforms))
    return _PROPOSAL.pack(*fields) + proposal.spi + transforms


@functools.lru_cache(maxsize=REMEMBERED)
def _encode_transforms(transforms: tuple[Transform, ...]) -> bytes:
    last = len(transforms) - 1
    return b"".join(
        [
            _encode_transform(transform, _LAST if index == last else _MORE_TRANSFORMS)
            for index, transform in enumerate(transforms)
        ]
    )


def _encode_transform(transform: Transform, more: int) -> bytes:
    if transform.key_bits is None:
        return _TRANSFORM.pack(more, _TRANSFORM.size, transform.type, transform.id)
    length = _TRANSFORM.size + _ATTRIBUTE.size
    attribute = _ATTRIBUTE.pack(_KEY_LENGTH, transform.key_bits)
    return _TRANSFORM.pack(more, length, transform.type, transform.id) + attribute


def _parse_transforms(encoded: bytes, count: int) -> tuple[Transform, ...]:
    """The `count` transforms of a proposal, which end where it ends."""
    reader = Reader(encoded, "proposal")
    transforms = []
    for left in range(count - 1, -1, -1):
        more, length, kind, number = reader.unpack(_TRANSFORM)
        if more != (_MORE_TRANSFORMS if left else _LAST):
            raise MalformedMessage(f"transform: last substructure {more}, with {left} more to come")
        if length == _TRANSFORM.size:
            transforms.append(_transform(kind, number, None, False))
        else:
            attributes = reader.part(length, _TRANSFORM.size, "transform")
            transforms.append(_parse_attributes(kind, number, attributes))
    reader.expect_end()
    return tuple(transforms)


_parse_often = functools.lru_cache(maxsize=REMEMBERED)(_parse_transforms)


@functools.lru_cache(maxsize=REMEMBERED)
def _transform(kind: int, number: int, key_bits: int | None, unusable: bool) -> Transform:
    return Transform(type=kind, id=number, key_bits=key_bits, unusable=unusable)


def _parse_attributes(kind: int, number: int, reader: Reader) -> Transform:
    """The transform with what its attributes say; a Key Length counts once, and in its short form only."""
    key_bits: int | None = None
    unusable = False
    while reader.remaining:
        attribute, value = reader.unpack(_ATTRIBUTE)
        if attribute == _KEY_LENGTH and key_bits is None:
            key_bits = value
            continue
        unusable = True
        if not attribute & _SHORT_FORM:
            reader.take(value)
    return _transform(kind, number, key_bits, unusable)
