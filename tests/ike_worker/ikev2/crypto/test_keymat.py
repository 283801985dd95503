"""NIST SP 800-135 IKEv2 samples (CAVP component testing), and the order in which RFC 7296 takes the keys."""

from dataclasses import fields

from ike_worker.ikev2.crypto.keymat import (
    ChildSuite,
    IkeKeys,
    IkeSuite,
    derive_child_keys,
    derive_ike_keys,
    derive_rekeyed_ike_keys,
)
from ike_worker.ikev2.crypto.prf import prf, prf_plus
from ipc.algorithms import (
    AES128CBC,
    AES128GCM16,
    AES256CBC,
    AES256GCM16,
    CHACHA20POLY1305,
    IntegrityId,
    KeyExchangeId,
    PrfId,
)
from ipc.types import Secret

SHARED = bytes.fromhex("0f4d257d7a58fc4545c7d7a88119eee5d5c9690c5b4c989171d3abbfd99d1d29")
SHARED_NEW = bytes.fromhex("25f3b12d6f282739256e39bf54eda53b60ffcf379bb7bcc90c27b4c4c578616c")
NONCE_I = bytes.fromhex("3f302be1abcb28e1")
NONCE_R = bytes.fromhex("8c332ee006064c9b")
SPI_I = bytes.fromhex("40dac39e1e1a8640")
SPI_R = bytes.fromhex("8619a1cf9a6e4c07")
SK_D = bytes.fromhex("0b137d669b0947d7d026d593f0305ad401ff0c471357d695778a9c7f4b4869ec")
SKEYSEED_REKEYED = bytes.fromhex("2d63f6debc92048b4fef3889c4c99ca67d6496e0fac14a2bca9a2d6566ff2398")
DKM = bytes.fromhex(
    "0b137d669b0947d7d026d593f0305ad401ff0c471357d695778a9c7f4b4869ece98aca531188d16041b3bb936d2dbb3b"
    "4993a6e768a809160de45d0283f273a6cdf6854379e31be72b8d3d1fa990cf9c5b015ca9f918a7df6253c958114a09d4"
    "e1c19bdcd4db14b29d98db1a74ad405c588662c14a04d0d36aa4ab55e90f8986d12d4aad"
)
GCM = IkeSuite(
    cipher=AES128GCM16,
    integrity=IntegrityId.NONE,
    prf=PrfId.HMAC_SHA2_256,
    key_exchange=KeyExchangeId.X25519,
)


def joined(keys: IkeKeys) -> bytes:
    """All keys in the order of RFC 7296 section 2.14."""
    names = ("sk_d", "sk_ai", "sk_ar", "sk_ei", "sk_er", "sk_pi", "sk_pr")
    assert {field.name for field in fields(keys)} == set(names)
    return b"".join(getattr(keys, name).reveal() for name in names)


def test_ike_keys_are_those_of_the_nist_sample() -> None:
    keys = derive_ike_keys(GCM, shared=SHARED, nonce_i=NONCE_I, nonce_r=NONCE_R, spi_i=SPI_I, spi_r=SPI_R)
    assert keys.sk_d.reveal() == SK_D
    assert joined(keys)[:132] == DKM
    assert [len(key) for key in (keys.sk_ai, keys.sk_ei, keys.sk_er, keys.sk_pi, keys.sk_pr)] == [0, 20, 20, 32, 32]


def test_ike_keys_with_integrity_stand_in_the_order_of_rfc_7296() -> None:
    suite = IkeSuite(
        cipher=AES128CBC,
        integrity=IntegrityId.HMAC_SHA2_256_128,
        prf=PrfId.HMAC_SHA2_256,
        key_exchange=KeyExchangeId.X25519,
    )
    keys = derive_ike_keys(suite, shared=SHARED, nonce_i=NONCE_I, nonce_r=NONCE_R, spi_i=SPI_I, spi_r=SPI_R)
    assert keys.sk_ai.reveal() == DKM[32:64]
    assert keys.sk_ar.reveal() == DKM[64:96]
    assert keys.sk_ei.reveal() == DKM[96:112]
    assert keys.sk_er.reveal() == DKM[112:128]
    assert keys.sk_pi.reveal()[:4] == DKM[128:]


def test_rekeyed_ike_keys_come_from_the_skeyseed_of_the_nist_sample() -> None:
    keys = derive_rekeyed_ike_keys(
        GCM,
        old_prf=PrfId.HMAC_SHA2_256,
        old_sk_d=Secret(SK_D),
        shared=SHARED_NEW,
        nonce_i=NONCE_I,
        nonce_r=NONCE_R,
        spi_i=SPI_I,
        spi_r=SPI_R,
    )
    stream = prf_plus(PrfId.HMAC_SHA2_256, SKEYSEED_REKEYED, NONCE_I + NONCE_R + SPI_I + SPI_R, 136)
    assert joined(keys) == stream


def test_rekeying_takes_the_old_prf_for_skeyseed_and_the_new_one_for_the_keys() -> None:
    suite = IkeSuite(
        cipher=AES256GCM16,
        integrity=IntegrityId.NONE,
        prf=PrfId.HMAC_SHA2_384,
        key_exchange=KeyExchangeId.X25519,
    )
    keys = derive_rekeyed_ike_keys(
        suite,
        old_prf=PrfId.HMAC_SHA2_256,
        old_sk_d=Secret(SK_D),
        shared=SHARED_NEW,
        nonce_i=NONCE_I,
        nonce_r=NONCE_R,
        spi_i=SPI_I,
        spi_r=SPI_R,
    )
    stream = prf_plus(PrfId.HMAC_SHA2_384, SKEYSEED_REKEYED, NONCE_I + NONCE_R + SPI_I + SPI_R, 216)
    assert joined(keys) == stream


def test_child_keys_take_the_initiators_first_and_encryption_before_integrity() -> None:
    suite = ChildSuite(cipher=AES256CBC, integrity=IntegrityId.HMAC_SHA2_256_128, esn=True)
    keys = derive_child_keys(suite, prf=PrfId.HMAC_SHA2_256, sk_d=Secret(SK_D), nonce_i=NONCE_I, nonce_r=NONCE_R)
    first = prf(PrfId.HMAC_SHA2_256, SK_D, NONCE_I + NONCE_R + b"\x01")
    second = prf(PrfId.HMAC_SHA2_256, SK_D, first + NONCE_I + NONCE_R + b"\x02")
    third = prf(PrfId.HMAC_SHA2_256, SK_D, second + NONCE_I + NONCE_R + b"\x03")
    fourth = prf(PrfId.HMAC_SHA2_256, SK_D, third + NONCE_I + NONCE_R + b"\x04")
    assert keys.encryption_i.reveal() == first
    assert keys.integrity_i.reveal() == second
    assert keys.encryption_r.reveal() == third
    assert keys.integrity_r.reveal() == fourth


def test_a_fresh_key_exchange_stands_before_the_nonces() -> None:
    suite = ChildSuite(
        cipher=CHACHA20POLY1305, integrity=IntegrityId.NONE, esn=False, key_exchange=KeyExchangeId.X25519
    )
    keys = derive_child_keys(
        suite, prf=PrfId.HMAC_SHA2_256, sk_d=Secret(SK_D), nonce_i=NONCE_I, nonce_r=NONCE_R, shared=SHARED_NEW
    )
    stream = prf_plus(PrfId.HMAC_SHA2_256, SK_D, SHARED_NEW + NONCE_I + NONCE_R, 72)
    assert keys.encryption_i.reveal() == stream[:36]
    assert keys.encryption_r.reveal() == stream[36:]
    assert not keys.integrity_i and not keys.integrity_r


def test_no_key_shows_in_a_repr() -> None:
    keys = derive_ike_keys(GCM, shared=SHARED, nonce_i=NONCE_I, nonce_r=NONCE_R, spi_i=SPI_I, spi_r=SPI_R)
    assert repr(keys).count("bytes)") == len(fields(keys)) == 7
    assert SK_D.hex() not in repr(keys) and repr(SK_D)[2:-1] not in repr(keys)
