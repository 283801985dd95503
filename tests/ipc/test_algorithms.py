"""Names, sizes and digests of algorithms: what the RFCs say, and that no table forgets one."""

import hmac

import pytest

from ipc.algorithms import (
    CIPHER_NAMES,
    INTEGRITY_DIGESTS,
    INTEGRITY_ICV_BYTES,
    INTEGRITY_KEY_BYTES,
    INTEGRITY_NAMES,
    KEY_EXCHANGE_NAMES,
    PRF_BYTES,
    PRF_DIGESTS,
    PRF_NAMES,
    WEAK_WORDS,
    Cipher,
    EncryptionId,
    IntegrityId,
    KeyExchangeId,
    PrfId,
    cipher_name,
    cipher_sizes,
)

# Key, data "Hi There": RFC 4868 sections 2.7.1 and 2.7.2 (cases 1), RFC 2202 sections 2 and 3 (cases 1)
HI_THERE = [
    (
        PrfId.HMAC_SHA2_256,
        IntegrityId.HMAC_SHA2_256_128,
        "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7",
        "198a607eb44bfbc69903a0f1cf2bbdc5",
    ),
    (
        PrfId.HMAC_SHA2_384,
        IntegrityId.HMAC_SHA2_384_192,
        "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee9737a959796489bddbc4c5df61d5b3297b4fb68dab9f1b582c2",
        "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
    ),
    (
        PrfId.HMAC_SHA2_512,
        IntegrityId.HMAC_SHA2_512_256,
        "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8"
        "ac2878ebd5803f6f0b61dbce5e251ff8789a4722c1be65aea45fd464e89f8f5b",
        "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
    ),
    (
        PrfId.HMAC_SHA1,
        IntegrityId.HMAC_SHA1_96,
        "b617318655057264e28bc0b6fb378c8ef146be00",
        "b617318655057264e28bc0b6",
    ),
    (
        PrfId.HMAC_MD5,
        IntegrityId.HMAC_MD5_96,
        "9294727a3638bb1c13f48ef8158bfc9d",
        "9294727a3638bb1c13f48ef8",
    ),
]


@pytest.mark.parametrize(("prf", "integrity", "whole", "cut"), HI_THERE, ids=lambda one: str(one)[:12])
def test_hmacs_have_the_digest_key_and_length_of_rfc_4868_section_2_7(
    prf: PrfId, integrity: IntegrityId, whole: str, cut: str
) -> None:
    key = b"\x0b" * PRF_BYTES[prf]
    assert hmac.digest(key, b"Hi There", PRF_DIGESTS[prf]).hex() == whole
    key = b"\x0b" * INTEGRITY_KEY_BYTES[integrity]
    assert hmac.digest(key, b"Hi There", INTEGRITY_DIGESTS[integrity])[: INTEGRITY_ICV_BYTES[integrity]].hex() == cut


@pytest.mark.parametrize("name", CIPHER_NAMES)
def test_every_cipher_has_sizes_and_one_name(name: str) -> None:
    cipher = CIPHER_NAMES[name]
    sizes = cipher_sizes(cipher)
    assert sizes.key * 8 == cipher.key_bits
    assert sizes.aead == bool(sizes.icv)
    assert cipher_name(cipher) == name


def test_sizes_are_those_of_the_rfcs() -> None:
    """Salt, IV, ICV: RFC 4106 sections 4 to 6, RFC 4309 sections 3 and 4, RFC 3686 section 2, RFC 7634 section 2."""
    sizes = {
        name: (one.salt, one.iv, one.icv) for name, cipher in CIPHER_NAMES.items() for one in [cipher_sizes(cipher)]
    }
    assert sizes["aes192gcm16"] == (4, 8, 16)
    assert (sizes["aes128ccm8"], sizes["aes128ccm12"], sizes["aes256ccm16"]) == ((3, 8, 8), (3, 8, 12), (3, 8, 16))
    assert sizes["aes256ctr"] == (4, 8, 0)
    assert sizes["chacha20poly1305"] == (4, 8, 16)
    assert (sizes["aes192"], sizes["3des"]) == ((0, 16, 0), (0, 8, 0))


def test_nothing_that_has_a_number_lacks_a_name() -> None:
    assert {cipher.id for cipher in CIPHER_NAMES.values()} == set(EncryptionId)
    assert set(INTEGRITY_NAMES.values()) == set(IntegrityId) - {IntegrityId.NONE}
    assert set(PRF_NAMES.values()) == set(PrfId)
    assert set(KEY_EXCHANGE_NAMES.values()) == set(KeyExchangeId) - {KeyExchangeId.NONE}
    words = (*CIPHER_NAMES, *INTEGRITY_NAMES, *PRF_NAMES, *KEY_EXCHANGE_NAMES)
    assert len(words) == len(set(words))
    assert set(WEAK_WORDS) <= set(words)


def test_a_cipher_that_has_no_name_is_shown_by_its_numbers() -> None:
    assert cipher_name(Cipher(id=EncryptionId.AES_CBC, key_bits=512)) == "encr12-512"
