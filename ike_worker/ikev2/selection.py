"""Choosing: proposals (RFC 7296 sections 2.7 and 3.3.6) and traffic selectors (section 2.9). Pure functions."""

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from ike_worker.ikev2.crypto.keymat import ChildSuite, IkeSuite
from ike_worker.ikev2.iana import ProtocolId, TransformType
from ike_worker.ikev2.wire.sa import REMEMBERED, Proposal, SecurityAssociation, Transform
from ipc.algorithms import (
    FIXED_KEY_CIPHERS,
    Cipher,
    EsnId,
    EspProposal,
    IkeProposal,
    IntegrityId,
    KeyExchangeId,
    PrfId,
    cipher_sizes,
)
from ipc.types import TrafficSelector
from ipc.value import value

MAX_SELECTORS = 64
"""How many selectors one side of a Child SA has at most."""

Id = TypeVar("Id", PrfId, IntegrityId, KeyExchangeId, EsnId)

# RFC 7296 section 3.3.1
_ESP_SPI_BYTES = 4


@value
class ChosenIke:
    """An IKE suite, and the proposal as it is sent back."""

    suite: IkeSuite
    proposal: Proposal


@value
class ChosenChild:
    """A Child SA suite, and the proposal as it is sent back, without our SPI; `spi` is the peer's."""

    suite: ChildSuite
    number: int
    spi: int


# ------------------------------------------------------------------ offers


def offer_ike(proposals: tuple[IkeProposal, ...], spi: bytes = b"") -> SecurityAssociation:
    """The SA payload that offers `proposals`; `spi` is our new one where an IKE SA is rekeyed."""
    return SecurityAssociation(
        proposals=tuple(
            Proposal(
                number=number,
                protocol=ProtocolId.IKE,
                spi=spi,
                transforms=_ike_transforms(proposal),
            )
            for number, proposal in enumerate(proposals, 1)
        )
    )


def offer_esp(proposals: tuple[EspProposal, ...], spi: int, *, key_exchange: bool) -> SecurityAssociation:
    """The SA payload that offers `proposals` with our inbound `spi`; groups only with `key_exchange`."""
    return SecurityAssociation(
        proposals=tuple(
            Proposal(
                number=number,
                protocol=ProtocolId.ESP,
                spi=spi.to_bytes(_ESP_SPI_BYTES, "big"),
                transforms=_esp_transforms(proposal, key_exchange),
            )
            for number, proposal in enumerate(proposals, 1)
        )
    )


def with_groups(proposals: tuple[EspProposal, ...], groups: tuple[KeyExchangeId, ...]) -> tuple[EspProposal, ...]:
    """`proposals` with a key exchange by one of `groups`; unchanged if any of them has groups of its own."""
    if any(proposal.key_exchange for proposal in proposals):
        return proposals
    return tuple(replace(proposal, key_exchange=groups) for proposal in proposals)


def ike_answer(chosen: ChosenIke, spi: bytes = b"") -> SecurityAssociation:
    """The SA payload that says what was chosen."""
    transforms = _chosen_ike_transforms(chosen.suite)
    return SecurityAssociation(
        proposals=(Proposal(number=chosen.proposal.number, protocol=ProtocolId.IKE, spi=spi, transforms=transforms),)
    )


def esp_answer(chosen: ChosenChild, spi: int) -> SecurityAssociation:
    """The SA payload that says what was chosen, with our inbound `spi`."""
    return SecurityAssociation(
        proposals=(
            Proposal(
                number=chosen.number,
                protocol=ProtocolId.ESP,
                spi=spi.to_bytes(_ESP_SPI_BYTES, "big"),
                transforms=_chosen_esp_transforms(chosen.suite),
            ),
        )
    )


@functools.lru_cache(maxsize=REMEMBERED)
def _ike_transforms(proposal: IkeProposal) -> tuple[Transform, ...]:
    return (
        *_encryption(proposal.encryption),
        *_transforms(TransformType.PRF, proposal.prf),
        *_transforms(TransformType.INTEG, proposal.integrity),
        *_transforms(TransformType.KE, proposal.key_exchange),
    )


@functools.lru_cache(maxsize=REMEMBERED)
def _esp_transforms(proposal: EspProposal, key_exchange: bool) -> tuple[Transform, ...]:
    return (
        *_encryption(proposal.encryption),
        *_transforms(TransformType.INTEG, proposal.integrity),
        *_transforms(TransformType.KE, proposal.key_exchange if key_exchange else ()),
        *_transforms(TransformType.ESN, proposal.esn),
    )


@functools.lru_cache(maxsize=REMEMBERED)
def _chosen_ike_transforms(suite: IkeSuite) -> tuple[Transform, ...]:
    transforms = [*_encryption((suite.cipher,)), *_transforms(TransformType.PRF, (suite.prf,))]
    if suite.integrity is not IntegrityId.NONE:
        transforms += _transforms(TransformType.INTEG, (suite.integrity,))
    return (*transforms, *_transforms(TransformType.KE, (suite.key_exchange,)))


@functools.lru_cache(maxsize=REMEMBERED)
def _chosen_esp_transforms(suite: ChildSuite) -> tuple[Transform, ...]:
    transforms = _encryption((suite.cipher,))
    if suite.integrity is not IntegrityId.NONE:
        transforms += _transforms(TransformType.INTEG, (suite.integrity,))
    if suite.key_exchange is not KeyExchangeId.NONE:
        transforms += _transforms(TransformType.KE, (suite.key_exchange,))
    return (*transforms, *_transforms(TransformType.ESN, (EsnId.ESN if suite.esn else EsnId.NO_ESN,)))


def _encryption(ciphers: tuple[Cipher, ...]) -> list[Transform]:
    return [
        Transform(
            type=TransformType.ENCR,
            id=cipher.id,
            key_bits=None if cipher.id in FIXED_KEY_CIPHERS else cipher.key_bits,
        )
        for cipher in ciphers
    ]


def _transforms(kind: TransformType, ids: Iterable[int]) -> list[Transform]:
    return [Transform(type=kind, id=number) for number in ids]


# ------------------------------------------------------------------ choices


def choose_ike(
    ours: tuple[IkeProposal, ...], offered: SecurityAssociation, wanted_group: int | None = None
) -> ChosenIke | None:
    """The first of `ours` that something offered satisfies; of its groups `wanted_group` if it may."""
    for own in ours:
        for proposal in offered.proposals:
            if proposal.protocol != ProtocolId.IKE:
                continue
            suite = _match_ike(own, proposal, wanted_group)
            if suite is not None:
                return ChosenIke(suite=suite, proposal=proposal)
    return None


def allows_ike(ours: tuple[IkeProposal, ...], suite: IkeSuite) -> bool:
    """Whether `suite` is one that `ours` allow."""
    return any(
        suite.cipher in own.encryption
        and suite.prf in own.prf
        and suite.key_exchange in own.key_exchange
        and suite.integrity in (own.integrity or (IntegrityId.NONE,))
        for own in ours
    )


def choose_esp(
    ours: tuple[EspProposal, ...], offered: SecurityAssociation, *, key_exchange: bool, wanted_group: int | None = None
) -> ChosenChild | None:
    """As `choose_ike`, for a Child SA; without `key_exchange` (IKE_AUTH) groups are ignored on both sides."""
    for own in ours:
        for proposal in offered.proposals:
            if proposal.protocol != ProtocolId.ESP or len(proposal.spi) != _ESP_SPI_BYTES:
                continue
            suite = _match_esp(own, proposal, key_exchange, wanted_group)
            if suite is not None:
                return ChosenChild(suite=suite, number=proposal.number, spi=int.from_bytes(proposal.spi, "big"))
    return None


class _Offer:
    """The transforms of one proposal, by type."""

    __slots__ = ("by_type", "usable")

    def __init__(self, proposal: Proposal, known: frozenset[int]) -> None:
        self.by_type: dict[int, list[Transform]] = {}
        for transform in proposal.transforms:
            self.by_type.setdefault(transform.type, []).append(transform)
        # RFC 7296 section 3.3.6: a proposal with a transform type that is not understood is not chosen.
        self.usable = self.by_type.keys() <= known

    def cipher(self, ours: tuple[Cipher, ...]) -> Cipher | None:
        offered = {
            (transform.id, transform.key_bits)
            for transform in self.by_type.get(TransformType.ENCR, ())
            if not transform.unusable
        }
        for cipher in ours:
            if (cipher.id, cipher.key_bits) in offered:
                return cipher
            if cipher.id in FIXED_KEY_CIPHERS and (cipher.id, None) in offered:
                return cipher
        return None

    def one_of(self, kind: TransformType, ours: tuple[Id, ...], first: int | None = None) -> Id | None:
        offered = {transform.id for transform in self.by_type.get(kind, ()) if not transform.unusable}
        matching = [number for number in ours if number in offered]
        return next((number for number in matching if number == first), matching[0] if matching else None)

    def integrity(self, ours: tuple[IntegrityId, ...], cipher: Cipher) -> IntegrityId | None:
        # RFC 7296 section 3.3.3: with a combined-mode cipher, no integrity transform or just NONE.
        if not cipher_sizes(cipher).aead:
            return self.one_of(TransformType.INTEG, ours)
        offered = self.by_type.get(TransformType.INTEG, ())
        if offered and all(transform.id != IntegrityId.NONE for transform in offered):
            return None
        return IntegrityId.NONE


_IKE_TYPES = frozenset({TransformType.ENCR, TransformType.PRF, TransformType.INTEG, TransformType.KE})
_ESP_TYPES = frozenset({TransformType.ENCR, TransformType.INTEG, TransformType.KE, TransformType.ESN})


def _match_ike(own: IkeProposal, proposal: Proposal, wanted_group: int | None) -> IkeSuite | None:
    offer = _Offer(proposal, _IKE_TYPES)
    cipher = offer.cipher(own.encryption) if offer.usable else None
    if cipher is None:
        return None
    prf = offer.one_of(TransformType.PRF, own.prf)
    integrity = offer.integrity(own.integrity, cipher)
    group = offer.one_of(TransformType.KE, own.key_exchange, wanted_group)
    if prf is None or integrity is None or group is None:
        return None
    return IkeSuite(cipher=cipher, integrity=integrity, prf=prf, key_exchange=group)


def _match_esp(own: EspProposal, proposal: Proposal, key_exchange: bool, wanted_group: int | None) -> ChildSuite | None:
    offer = _Offer(proposal, _ESP_TYPES)
    cipher = offer.cipher(own.encryption) if offer.usable else None
    if cipher is None:
        return None
    integrity = offer.integrity(own.integrity, cipher)
    # A proposal that says nothing of sequence numbers has the 32-bit ones of RFC 4303.
    esn = offer.one_of(TransformType.ESN, own.esn) if TransformType.ESN in offer.by_type else EsnId.NO_ESN
    if integrity is None or esn is None or esn not in own.esn:
        return None
    group: KeyExchangeId | None = KeyExchangeId.NONE
    if key_exchange and own.key_exchange:
        group = offer.one_of(TransformType.KE, own.key_exchange, wanted_group)
    elif key_exchange and TransformType.KE in offer.by_type:
        group = offer.one_of(TransformType.KE, (KeyExchangeId.NONE,))
    if group is None:
        return None
    return ChildSuite(cipher=cipher, integrity=integrity, esn=esn is EsnId.ESN, key_exchange=group)


# ------------------------------------------------------------------ traffic selectors


def contains(outer: TrafficSelector, inner: TrafficSelector) -> bool:
    """Whether all traffic of `inner` is traffic of `outer`."""
    return (
        outer.protocol in (0, inner.protocol)
        and outer.start_address.version == inner.start_address.version
        and int(outer.start_address) <= int(inner.start_address)
        and int(outer.end_address) >= int(inner.end_address)
        and outer.start_port <= inner.start_port
        and outer.end_port >= inner.end_port
    )


def intersection(one: TrafficSelector, other: TrafficSelector) -> TrafficSelector | None:
    """The traffic that is in both; None if there is none."""
    if one.start_address.version != other.start_address.version:
        return None
    if one.protocol and other.protocol and one.protocol != other.protocol:
        return None
    start = max(one.start_address, other.start_address, key=int)
    end = min(one.end_address, other.end_address, key=int)
    start_port = max(one.start_port, other.start_port)
    end_port = min(one.end_port, other.end_port)
    if int(start) > int(end) or start_port > end_port:
        return None
    return TrafficSelector(
        protocol=one.protocol or other.protocol,
        start_address=start,
        end_address=end,
        start_port=start_port,
        end_port=end_port,
    )


def narrow(offered: tuple[TrafficSelector, ...], allowed: tuple[TrafficSelector, ...]) -> tuple[TrafficSelector, ...]:
    """What is in both lists, without selectors that are part of another; empty if nothing is (TS_UNACCEPTABLE)."""
    if offered == allowed and len(offered) == 1:
        return offered
    parts: list[TrafficSelector] = []
    for one in offered:
        for other in allowed:
            part = intersection(one, other)
            if part is None or any(contains(known, part) for known in parts):
                continue
            parts = [known for known in parts if not contains(part, known)]
            parts.append(part)
    return tuple(parts[:MAX_SELECTORS])


def is_subset(inner: tuple[TrafficSelector, ...], outer: tuple[TrafficSelector, ...]) -> bool:
    """Whether each of `inner` lies within one of `outer`, and there is at least one."""
    return bool(inner) and len(inner) <= MAX_SELECTORS and all(any(contains(o, i) for o in outer) for i in inner)


def overlap(offered: tuple[TrafficSelector, ...], allowed: tuple[TrafficSelector, ...]) -> bool:
    """Whether anything is in both lists."""
    return any(intersection(one, other) is not None for one in offered for other in allowed)
