import hashlib
import hmac
import random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from ike_worker.ikev2.crypto.protection import MessageProtection
from ike_worker.ikev2.errors import IntegrityFailure, LocalError, MalformedMessage
from ipc.algorithms import (
    AES128CBC,
    AES128GCM16,
    AES256CBC,
    AES256GCM16,
    CHACHA20POLY1305,
    CIPHER_NAMES,
    DES3CBC,
    INTEGRITY_KEY_BYTES,
    Cipher,
    IntegrityId,
    cipher_sizes,
)
from ipc.types import Secret

SUITES = [
    *[(cipher, IntegrityId.NONE) for cipher in CIPHER_NAMES.values() if cipher_sizes(cipher).aead],
    (AES128CBC, IntegrityId.HMAC_SHA2_256_128),
    (AES256CBC, IntegrityId.HMAC_SHA2_384_192),
    (AES256CBC, IntegrityId.HMAC_SHA2_512_256),
    (CIPHER_NAMES["aes192"], IntegrityId.HMAC_SHA1_96),
    (CIPHER_NAMES["aes128ctr"], IntegrityId.HMAC_SHA2_256_128),
    (CIPHER_NAMES["aes192ctr"], IntegrityId.HMAC_SHA2_384_192),
    (CIPHER_NAMES["aes256ctr"], IntegrityId.HMAC_SHA2_512_256),
    (DES3CBC, IntegrityId.HMAC_MD5_96),
]
EMPTY = Secret(b"")


def protection(cipher: Cipher, integrity: IntegrityId, seed: int = 1) -> MessageProtection:
    source = random.Random(seed)
    sizes = cipher_sizes(cipher)
    encryption_key = Secret(source.randbytes(sizes.key + sizes.salt))
    return MessageProtection(
        cipher, integrity, encryption_key, Secret(source.randbytes(INTEGRITY_KEY_BYTES[integrity]))
    )


def test_chacha20_poly1305_gives_the_ikev2_example_of_rfc_7634_appendix_b() -> None:
    key = Secret(bytes(range(0x80, 0xA0)) + bytes.fromhex("a0a1a2a3"))
    sealer = MessageProtection(CHACHA20POLY1305, IntegrityId.NONE, key, EMPTY)
    associated = bytes.fromhex("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029")
    plaintext = bytes.fromhex("0000000c000040010000000a")
    iv = bytes.fromhex("1011121314151617")
    body = iv + bytes.fromhex("610394701f8d017f7c129248896b71bfe25236efd7cdc67066906315b2")
    assert sealer.seal(associated, plaintext, iv) == body
    assert sealer.open(associated, body) == plaintext


# "The Galois/Counter Mode of Operation (GCM)", McGrew and Viega, test cases 2 and 14: 16 zero bytes of plaintext, the
# last of which is a pad length of zero here.
@pytest.mark.parametrize(
    "cipher, ciphertext, icv",
    [
        (AES128GCM16, "0388dace60b6a392f328c2b971b2fe78", "ab6e47d42cec13bdf53a67b21257bddf"),
        (AES256GCM16, "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"),
    ],
)
def test_aes_gcm_gives_the_vectors_of_its_authors(cipher: Cipher, ciphertext: str, icv: str) -> None:
    key = Secret(bytes(cipher_sizes(cipher).key + 4))
    sealer = MessageProtection(cipher, IntegrityId.NONE, key, EMPTY)
    assert sealer.seal(b"", bytes(15), bytes(8)) == bytes(8) + bytes.fromhex(ciphertext + icv)


def test_aes_gcm_takes_salt_and_iv_as_nonce_and_authenticates_the_header() -> None:
    """RFC 5282 sections 4 and 5.1, computed with the cipher's other interface."""
    material, iv, header = bytes(range(36)), bytes(range(50, 58)), b"the IKE header and the generic header"
    sealer = MessageProtection(AES256GCM16, IntegrityId.NONE, Secret(material), EMPTY)
    encryptor = BlockCipher(algorithms.AES(material[:32]), modes.GCM(material[32:] + iv)).encryptor()
    encryptor.authenticate_additional_data(header)
    ciphertext = encryptor.update(b"payloads" + b"\x00") + encryptor.finalize()
    assert sealer.seal(header, b"payloads", iv) == iv + ciphertext + encryptor.tag


# AES-CBC: RFC 3602 section 4, cases 1 and 2. AES-CTR, the nonce behind the key: RFC 3686 section 6, vectors 1, 2 and 7.
# 3DES: NIST SP 800-67 appendix B, whose first block does not tell CBC with a zero IV from ECB.
@pytest.mark.parametrize(
    ("cipher", "key", "iv", "plaintext", "ciphertext"),
    [
        (
            "aes128",
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            b"Single block msg",
            "e353779c1079aeb82708942dbe77181a",
        ),
        (
            "aes128",
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            bytes(range(32)),
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        ),
        (
            "aes128ctr",
            "ae6852f8121067cc4bf7a5765577f39e" + "00000030",
            "0000000000000000",
            b"Single block msg",
            "e4095d4fb7a7b3792d6175a3261311b8",
        ),
        (
            "aes128ctr",
            "7e24067817fae0d743d6ce1f32539163" + "006cb6db",
            "c0543b59da48d90b",
            bytes(range(32)),
            "5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28",
        ),
        (
            "aes256ctr",
            "776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c104" + "00000060",
            "db5672c97aa8f0b2",
            b"Single block msg",
            "145ad01dbf824ec7560863dc71e3e0c0",
        ),
        (
            "3des",
            "0123456789abcdef23456789abcdef01456789abcdef0123",
            "0000000000000000",
            bytes.fromhex("5468652071756663"),
            "a826fd8ce53b855f",
        ),
    ],
)
def test_block_ciphers_give_the_vectors_of_rfc_3602_section_4_and_rfc_3686_section_6(
    cipher: str, key: str, iv: str, plaintext: bytes, ciphertext: str
) -> None:
    sealer = MessageProtection(
        CIPHER_NAMES[cipher], IntegrityId.HMAC_SHA2_256_128, Secret(bytes.fromhex(key)), Secret(bytes(32))
    )
    body = sealer.seal(b"", plaintext, bytes.fromhex(iv))
    assert body[sealer.iv_bytes :].hex().startswith(ciphertext)
    assert sealer.open(b"", body) == plaintext


def ccm(key: bytes, nonce: bytes, associated: bytes, plaintext: bytes, icv_bytes: int) -> bytes:
    """CCM as RFC 3610 section 2 puts it together, from the bare block cipher."""
    block = BlockCipher(algorithms.AES(key), modes.ECB()).encryptor().update
    length_bytes = 15 - len(nonce)
    flags = (64 if associated else 0) + 8 * ((icv_bytes - 2) // 2) + length_bytes - 1
    blocks = bytes((flags,)) + nonce + len(plaintext).to_bytes(length_bytes)
    if associated:
        headed = len(associated).to_bytes(2) + associated
        blocks += headed + bytes(-len(headed) % 16)
    blocks += plaintext + bytes(-len(plaintext) % 16)
    mac = bytes(16)
    for start in range(0, len(blocks), 16):
        mac = block(bytes(a ^ b for a, b in zip(mac, blocks[start : start + 16], strict=True)))

    def stream(number: int) -> bytes:
        return block(bytes((length_bytes - 1,)) + nonce + number.to_bytes(length_bytes))

    keys = b"".join(stream(number + 1) for number in range(-(-len(plaintext) // 16)))
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, keys, strict=False))
    return ciphertext + bytes(a ^ b for a, b in zip(mac, stream(0), strict=True))[:icv_bytes]


def test_aes_ccm_is_rfc_3610_with_the_nonce_of_rfc_4309_section_4() -> None:
    """RFC 4309 has no vectors of its own: the reference above gives RFC 3610's first, and then what ours must give."""
    nonce = bytes.fromhex("00000003020100a0a1a2a3a4a5")
    sealed = ccm(bytes(range(0xC0, 0xD0)), nonce, bytes(range(8)), bytes(range(8, 31)), 8)
    assert sealed.hex() == "588c979a61c663d2f066d0c2c0f989806d5f6b61dac38417e8d12cfdf926e0"
    for name in ("aes128ccm8", "aes192ccm12", "aes256ccm16"):
        sizes = cipher_sizes(CIPHER_NAMES[name])
        key, salt, iv = bytes(range(sizes.key)), b"\x01\x02\x03", bytes(range(40, 48))
        sealer = MessageProtection(CIPHER_NAMES[name], IntegrityId.NONE, Secret(key + salt), EMPTY)
        expected = ccm(key, salt + iv, b"the headers", b"payloads" + b"\0", sizes.icv)
        assert sealer.seal(b"the headers", b"payloads", iv) == iv + expected


def test_aes_cbc_pads_to_a_block_and_macs_all_up_to_the_ciphertext() -> None:
    """RFC 7296 section 3.14, put together by hand."""
    key, integrity_key, iv, header = bytes(range(16)), bytes(range(32)), bytes(range(90, 106)), b"headers"
    sealer = MessageProtection(AES128CBC, IntegrityId.HMAC_SHA2_256_128, Secret(key), Secret(integrity_key))
    encryptor = BlockCipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(b"payloads" + bytes(7) + b"\x07") + encryptor.finalize()
    icv = hmac.new(integrity_key, header + iv + ciphertext, hashlib.sha256).digest()[:16]
    assert sealer.seal(header, b"payloads", iv) == iv + ciphertext + icv


@pytest.mark.parametrize("cipher, integrity", SUITES)
@given(plaintext=st.binary(max_size=100), associated=st.binary(max_size=40), iv_byte=st.integers(0, 255))
def test_what_is_sealed_opens_and_has_the_length_foretold(
    cipher: Cipher, integrity: IntegrityId, plaintext: bytes, associated: bytes, iv_byte: int
) -> None:
    sealer = protection(cipher, integrity)
    body = sealer.seal(associated, plaintext, bytes((iv_byte,)) * sealer.iv_bytes)
    assert len(body) == sealer.sealed_bytes(len(plaintext)) <= len(plaintext) + sealer.overhead
    assert sealer.open(associated, body) == plaintext


@pytest.mark.parametrize("cipher, integrity", SUITES)
def test_every_changed_bit_is_an_integrity_failure(cipher: Cipher, integrity: IntegrityId) -> None:
    sealer = protection(cipher, integrity)
    header = b"header"
    body = sealer.seal(header, b"payloads", bytes(sealer.iv_bytes))
    for bit in range(8 * len(body)):
        changed = bytearray(body)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityFailure):
            sealer.open(header, bytes(changed))
    with pytest.raises(IntegrityFailure):
        sealer.open(b"Header", body)
    with pytest.raises(IntegrityFailure):
        protection(cipher, integrity, seed=2).open(header, body)


@pytest.mark.parametrize("cipher, integrity", SUITES)
def test_every_shortened_body_is_an_integrity_failure(cipher: Cipher, integrity: IntegrityId) -> None:
    sealer = protection(cipher, integrity)
    body = sealer.seal(b"", b"payloads", bytes(sealer.iv_bytes))
    for length in range(len(body)):
        with pytest.raises(IntegrityFailure):
            sealer.open(b"", body[:length])


def test_padding_beyond_the_plaintext_is_malformed_though_authentic() -> None:
    key, integrity_key, iv = bytes(16), bytes(32), bytes(16)
    sealer = MessageProtection(AES128CBC, IntegrityId.HMAC_SHA2_256_128, Secret(key), Secret(integrity_key))
    for block, expected in ((bytes(15) + b"\x0f", b""), (bytes(15) + b"\x0e", b"\x00")):
        assert sealer.open(b"", authentic_cbc(key, integrity_key, iv, block)) == expected
    with pytest.raises(MalformedMessage, match="16 bytes of padding in 16 bytes"):
        sealer.open(b"", authentic_cbc(key, integrity_key, iv, bytes(15) + b"\x10"))


def authentic_cbc(key: bytes, integrity_key: bytes, iv: bytes, padded: bytes) -> bytes:
    encryptor = BlockCipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    sealed = iv + encryptor.update(padded) + encryptor.finalize()
    return sealed + hmac.new(integrity_key, sealed, hashlib.sha256).digest()[:16]


def test_an_authentic_ciphertext_of_part_of_a_block_is_malformed() -> None:
    sealer = MessageProtection(AES128CBC, IntegrityId.HMAC_SHA2_256_128, Secret(bytes(16)), Secret(bytes(32)))
    for length in (1, 15, 17):
        sealed = bytes(16 + length)
        icv = hmac.new(bytes(32), sealed, hashlib.sha256).digest()[:16]
        with pytest.raises(MalformedMessage, match="not whole blocks"):
            sealer.open(b"", sealed + icv)


@pytest.mark.parametrize("cipher, integrity", SUITES)
def test_an_iv_of_a_wrong_length_is_our_own_error(cipher: Cipher, integrity: IntegrityId) -> None:
    sealer = protection(cipher, integrity)
    with pytest.raises(LocalError):
        sealer.seal(b"", b"", bytes(sealer.iv_bytes + 1))


@pytest.mark.parametrize(
    "cipher, integrity, encryption_bytes, integrity_bytes",
    [
        (AES256GCM16, IntegrityId.HMAC_SHA2_256_128, 36, 32),
        (AES256CBC, IntegrityId.NONE, 32, 0),
        (AES256GCM16, IntegrityId.NONE, 32, 0),
        (AES256GCM16, IntegrityId.NONE, 36, 1),
        (AES256CBC, IntegrityId.HMAC_SHA2_256_128, 32, 31),
    ],
)
def test_a_wrong_pair_or_key_length_is_our_own_error(
    cipher: Cipher, integrity: IntegrityId, encryption_bytes: int, integrity_bytes: int
) -> None:
    with pytest.raises(LocalError):
        MessageProtection(cipher, integrity, Secret(bytes(encryption_bytes)), Secret(bytes(integrity_bytes)))
