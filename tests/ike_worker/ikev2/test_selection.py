"""Choosing proposals (RFC 7296 sections 2.7, 3.3) and narrowing traffic selectors (section 2.9)."""

from dataclasses import replace

import pytest

from ike_worker.ikev2 import selection
from ike_worker.ikev2.iana import ProtocolId, TransformType
from ike_worker.ikev2.wire.sa import Proposal, SecurityAssociation, Transform
from ipc.algorithms import (
    AES128GCM16,
    AES256CBC,
    AES256GCM16,
    CIPHER_NAMES,
    Cipher,
    EncryptionId,
    EsnId,
    EspProposal,
    IkeProposal,
    IntegrityId,
    KeyExchangeId,
    PrfId,
    cipher_sizes,
)
from ipc.types import TrafficSelector
from tests.ike_worker.ikev2.two_sides import ESP, IKE, net


def esp(*transforms: Transform, protocol: int = ProtocolId.ESP, spi: bytes = b"\0\0\1\1") -> SecurityAssociation:
    return SecurityAssociation(proposals=(Proposal(number=1, protocol=protocol, spi=spi, transforms=transforms),))


GCM_256 = Transform(type=TransformType.ENCR, id=20, key_bits=256)
GCM_128 = Transform(type=TransformType.ENCR, id=20, key_bits=128)
ESN = Transform(type=TransformType.ESN, id=1)
NO_ESN = Transform(type=TransformType.ESN, id=0)
GROUP_31 = Transform(type=TransformType.KE, id=31)
NO_GROUP = Transform(type=TransformType.KE, id=0)
NO_INTEGRITY = Transform(type=TransformType.INTEG, id=0)
SHA256 = Transform(type=TransformType.INTEG, id=12)


def test_what_is_offered_is_chosen_back() -> None:
    for proposal in (ESP, replace(ESP, encryption=(AES256CBC,), integrity=(IntegrityId.HMAC_SHA2_256_128,))):
        offer = selection.offer_esp((proposal,), 257, key_exchange=False)
        chosen = selection.choose_esp((proposal,), offer, key_exchange=False)
        assert chosen is not None
        assert (chosen.spi, chosen.number, chosen.suite.cipher) == (257, 1, proposal.encryption[0])
        answer = selection.esp_answer(chosen, 258)
        assert selection.choose_esp((proposal,), answer, key_exchange=False) is not None


def test_our_order_counts() -> None:
    offer = esp(GCM_128, GCM_256, ESN)
    chosen = selection.choose_esp((ESP,), offer, key_exchange=False)
    assert chosen is not None
    assert chosen.suite.cipher == AES256GCM16
    chosen = selection.choose_esp((replace(ESP, encryption=(AES128GCM16,)),), offer, key_exchange=False)
    assert chosen is not None
    assert chosen.suite.cipher == AES128GCM16


@pytest.mark.parametrize(
    "transforms",
    [
        (GCM_256, NO_ESN),
        (ESN,),
        (GCM_256,),
        (GCM_256, ESN, SHA256),
        (GCM_256, ESN, Transform(type=6, id=36)),
        (replace(GCM_256, unusable=True), ESN),
        (replace(GCM_256, key_bits=192), ESN),
        (replace(GCM_256, key_bits=None), ESN),
    ],
)
def test_what_does_not_fit_is_not_chosen(transforms: tuple[Transform, ...]) -> None:
    assert selection.choose_esp((ESP,), esp(*transforms), key_exchange=False) is None


@pytest.mark.parametrize("kind", [*range(6, 13), 13, 255])
def test_a_proposal_with_more_key_exchanges_is_passed_over_for_one_without(kind: int) -> None:
    """RFC 7296 section 3.3.6; types 6 to 12 are the Additional Key Exchanges of RFC 9370 section 2.2.1."""
    plain = (
        Transform(type=TransformType.ENCR, id=AES256GCM16.id, key_bits=256),
        Transform(type=TransformType.PRF, id=PrfId.HMAC_SHA2_256),
        Transform(type=TransformType.KE, id=KeyExchangeId.X25519),
    )
    more = (*plain, Transform(type=kind, id=36), Transform(type=kind, id=0))
    ours = IkeProposal(
        encryption=(AES256GCM16,), integrity=(), prf=(PrfId.HMAC_SHA2_256,), key_exchange=(KeyExchangeId.X25519,)
    )
    offered = SecurityAssociation(
        proposals=tuple(
            Proposal(number=number, protocol=ProtocolId.IKE, transforms=transforms)
            for number, transforms in ((1, more), (2, plain))
        )
    )
    chosen = selection.choose_ike((ours,), offered)
    assert chosen is not None
    assert chosen.proposal.number == 2
    assert selection.choose_ike((ours,), replace(offered, proposals=offered.proposals[:1])) is None


@pytest.mark.parametrize("cipher", list(CIPHER_NAMES.values()), ids=list(CIPHER_NAMES))
def test_every_cipher_is_offered_with_its_key_length_and_chosen_back(cipher: Cipher) -> None:
    aead = cipher_sizes(cipher).aead
    ours = EspProposal(
        encryption=(cipher,),
        integrity=() if aead else (IntegrityId.HMAC_SHA2_256_128,),
        key_exchange=(),
        esn=(EsnId.ESN,),
    )
    offered = selection.offer_esp((ours,), 0x1234, key_exchange=False)
    (transform,) = (one for one in offered.proposals[0].transforms if one.type == TransformType.ENCR)
    # RFC 7634 section 5 and RFC 7296 section 3.3.5: these two have one key length and no attribute.
    fixed = cipher.id in (EncryptionId.CHACHA20_POLY1305, EncryptionId.DES3)
    assert transform.key_bits == (None if fixed else cipher.key_bits)
    chosen = selection.choose_esp((ours,), offered, key_exchange=False)
    assert chosen is not None
    assert chosen.suite.cipher == cipher


def test_ah_and_a_wrong_spi_are_not_chosen() -> None:
    assert selection.choose_esp((ESP,), esp(GCM_256, ESN, protocol=ProtocolId.AH), key_exchange=False) is None
    assert selection.choose_esp((ESP,), esp(GCM_256, ESN, spi=b"\0\1"), key_exchange=False) is None


def test_no_integrity_may_be_said_or_left_out_with_a_combined_cipher() -> None:
    assert selection.choose_esp((ESP,), esp(GCM_256, ESN, NO_INTEGRITY), key_exchange=False) is not None


@pytest.mark.parametrize(
    ("ours", "offered", "group"),
    [
        ((), (), KeyExchangeId.NONE),
        ((), (GROUP_31, NO_GROUP), KeyExchangeId.NONE),
        ((), (GROUP_31,), None),
        ((KeyExchangeId.X25519,), (GROUP_31,), KeyExchangeId.X25519),
        ((KeyExchangeId.X25519,), (), None),
    ],
)
def test_a_fresh_key_exchange_is_wanted_by_both_or_by_none(
    ours: tuple[KeyExchangeId, ...], offered: tuple[Transform, ...], group: KeyExchangeId | None
) -> None:
    proposal = replace(ESP, key_exchange=ours)
    chosen = selection.choose_esp((proposal,), esp(GCM_256, ESN, *offered), key_exchange=True)
    assert (chosen.suite.key_exchange if chosen is not None else None) is group


def test_the_group_of_the_ke_payload_saves_a_round_trip() -> None:
    both = replace(IKE, key_exchange=(KeyExchangeId.X25519, KeyExchangeId.ECP_256))
    offer = selection.offer_ike((both,))
    chosen = selection.choose_ike((both,), offer, int(KeyExchangeId.ECP_256))
    assert chosen is not None
    assert chosen.suite.key_exchange is KeyExchangeId.ECP_256
    assert selection.allows_ike((both,), chosen.suite)
    assert not selection.allows_ike((IKE,), chosen.suite)


def test_32_bit_sequence_numbers_need_not_be_said() -> None:
    chosen = selection.choose_esp((replace(ESP, esn=(EsnId.NO_ESN,)),), esp(GCM_256), key_exchange=False)
    assert chosen is not None
    assert not chosen.suite.esn


# ------------------------------------------------------------------ traffic selectors

LAN = net("10.0.0.0-10.0.255.255")


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (LAN, net("10.0.3.0-10.0.3.255"), net("10.0.3.0-10.0.3.255")),
        (net("10.0.0.0-10.0.0.9"), net("10.0.0.5-10.0.0.20"), net("10.0.0.5-10.0.0.9")),
        (LAN, net("10.1.0.0"), None),
        (net("10.0.0.1", protocol=6), LAN, net("10.0.0.1", protocol=6)),
        (net("10.0.0.1", protocol=6), net("10.0.0.1", protocol=17), None),
        (net("10.0.0.1", protocol=6, port=80), net("10.0.0.1", protocol=6), net("10.0.0.1", protocol=6, port=80)),
        (net("10.0.0.1", protocol=6, port=80), net("10.0.0.1", protocol=6, port=81), None),
        (LAN, net("2001:db8::1"), None),
    ],
)
def test_intersection(one: TrafficSelector, other: TrafficSelector, both: TrafficSelector | None) -> None:
    assert selection.intersection(one, other) == selection.intersection(other, one) == both


def test_narrowing_drops_what_is_part_of_another() -> None:
    packet = net("10.0.3.4", protocol=6, port=80)
    assert selection.narrow((packet, LAN), (LAN,)) == (LAN,)
    assert selection.narrow((packet,), (LAN,)) == (packet,)
    assert selection.narrow((net("172.16.0.1"),), (LAN,)) == ()


def test_a_subset_is_never_empty_and_never_wider() -> None:
    assert selection.is_subset((net("10.0.1.1"),), (LAN,))
    assert not selection.is_subset((), (LAN,))
    assert not selection.is_subset((net("10.0.0.0-10.1.0.0"),), (LAN,))
    assert not selection.is_subset((LAN,), (replace(LAN, protocol=6),))
