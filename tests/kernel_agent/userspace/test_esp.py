"""ESP packets against published vectors, and what holds for all of them."""

import dataclasses
import hashlib
import hmac
import random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import given
from hypothesis import strategies as st

from ipc.algorithms import (
    AES128CBC,
    AES128GCM16,
    AES256CBC,
    AES256GCM16,
    CHACHA20POLY1305,
    CIPHER_NAMES,
    DES3CBC,
    EncryptionId,
    IntegrityId,
)
from ipc.algorithms import Cipher as CipherName
from ipc.messages import Sa
from ipc.types import Secret
from kernel_agent.userspace import esp
from tests.kernel_agent.userspace.values import make_sa

SUITES = [
    (AES128GCM16, IntegrityId.NONE),
    (AES256GCM16, IntegrityId.NONE),
    (CHACHA20POLY1305, IntegrityId.NONE),
    (AES128CBC, IntegrityId.HMAC_SHA2_256_128),
    (AES256CBC, IntegrityId.HMAC_SHA2_384_192),
    (AES256CBC, IntegrityId.HMAC_SHA2_512_256),
    (CIPHER_NAMES["aes192gcm16"], IntegrityId.NONE),
    (CIPHER_NAMES["aes128ccm8"], IntegrityId.NONE),
    (CIPHER_NAMES["aes192ccm12"], IntegrityId.NONE),
    (CIPHER_NAMES["aes256ccm16"], IntegrityId.NONE),
    (CIPHER_NAMES["aes256ctr"], IntegrityId.HMAC_SHA2_256_128),
    (CIPHER_NAMES["aes128ctr"], IntegrityId.HMAC_SHA1_96),
    (DES3CBC, IntegrityId.HMAC_MD5_96),
]
SAS = [make_sa(cipher=cipher, integrity=integrity, esn=esn) for cipher, integrity in SUITES for esn in (False, True)]


def with_key(sa: Sa, key: str, spi: int) -> Sa:
    return dataclasses.replace(sa, encryption_key=Secret(bytes.fromhex(key)), spi=spi)


def test_rfc_7634_appendix_a() -> None:
    sa = with_key(make_sa(cipher=CHACHA20POLY1305), bytes(range(0x80, 0xA0)).hex() + "a0a1a2a3", 0x01020304)
    packet = bytes.fromhex(
        "0102030400000005"
        "1011121314151617"
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6"
        "14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3"
        "cbec163fac469b502773f6fb94e664da9165b82829f641e0"
        "76aaa8266b7fb0f7b11b369907e1ad43"
    )
    plaintext = bytes.fromhex(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10"
        "0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223"
        "2425262728292a2b2c2d2e2f303132333435363701020204"
    )
    opened = esp.opener(sa)(packet, 5)
    assert opened == plaintext
    assert esp.payload_of(opened) == plaintext[:-4]


@pytest.mark.parametrize(
    ("cipher", "esn", "key", "spi", "sequence", "iv", "ciphertext", "plaintext"),
    [
        pytest.param(
            AES128GCM16,
            True,
            "4c80cdefbb5d10da906ac73c3613a6342e443b68",
            0x4321,
            0x8765432100000000,
            "4956ed7e3b244cfe",
            "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34"
            "cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce"
            "61bc17d768fd9732459018148f6cbe722fd04796562dfdb4",
            "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000"
            "00000000045f736970045f756470037369700963796265726369747902646b00"
            "0021000101020201",
            id="test case 1, ESN",
        ),
        pytest.param(
            AES256GCM16,
            False,
            "abbccddef00112233445566778899aababbccddef00112233445566778899aab11223344",
            0x4A2CBFE3,
            2,
            "0102030405060708",
            "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763"
            "748a637985771d347f0545659f14e99def842d8eb335f4eecfdbf831824b4c49"
            "15956c96",
            "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201",
            id="test case 3",
        ),
    ],
)
def test_draft_mcgrew_gcm_test_01(
    cipher: CipherName, esn: bool, key: str, spi: int, sequence: int, iv: str, ciphertext: str, plaintext: str
) -> None:
    sa = with_key(make_sa(cipher=cipher, esn=esn), key, spi)
    packet = spi.to_bytes(4) + (sequence & 0xFFFFFFFF).to_bytes(4) + bytes.fromhex(iv) + bytes.fromhex(ciphertext)
    assert esp.opener(sa)(packet, sequence) == bytes.fromhex(plaintext)


@pytest.mark.parametrize("esn", [False, True])
def test_cbc_with_hmac_is_put_together_as_rfc_4303_says(esn: bool) -> None:
    sa = make_sa(cipher=AES128CBC, integrity=IntegrityId.HMAC_SHA2_256_128, esn=esn, spi=0x11223344)
    iv = bytes(range(16))
    packet = esp.sealer(sa, lambda length: iv[:length])(0x0000000500000006, b"payload", 4)
    encryptor = Cipher(algorithms.AES(sa.encryption_key.reveal()), modes.CBC(iv)).encryptor()
    header = bytes.fromhex("1122334400000006")
    body = header + iv + encryptor.update(b"payload" + bytes([1, 2, 3, 4, 5, 6, 7, 7, 4]))
    covered = body + bytes.fromhex("00000005") if esn else body
    assert packet == body + hmac.new(sa.integrity_key.reveal(), covered, hashlib.sha256).digest()[:16]


@pytest.mark.parametrize("esn", [False, True])
def test_ctr_counts_from_one_behind_nonce_and_iv_as_rfc_3686_section_4_says(esn: bool) -> None:
    sa = make_sa(cipher=CIPHER_NAMES["aes128ctr"], integrity=IntegrityId.HMAC_SHA2_256_128, esn=esn, spi=0x11223344)
    sa = with_key(sa, "7e24067817fae0d743d6ce1f32539163" + "006cb6db", 0x11223344)
    sequence = 0xC0543B59DA48D90B  # the IV of RFC 3686 section 6, vector 2: here the IV is the sequence number
    packet = esp.sealer(sa)(sequence, bytes(range(32)), 4)
    body = packet[:-16]
    assert body[:16].hex() == "11223344da48d90b" + "c0543b59da48d90b"
    assert body[16:].hex().startswith("5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28")
    covered = body + bytes.fromhex("c0543b59") if esn else body
    assert packet[-16:] == hmac.new(sa.integrity_key.reveal(), covered, hashlib.sha256).digest()[:16]


@pytest.mark.parametrize("esn", [False, True])
def test_ccm_authenticates_what_rfc_4309_section_5_says(esn: bool) -> None:
    sa = make_sa(cipher=CIPHER_NAMES["aes256ccm12"], esn=esn, spi=0x11223344)
    secret = sa.encryption_key.reveal()
    packet = esp.sealer(sa)(0x0000000500000006, b"payload", 4)
    associated = bytes.fromhex("11223344" + ("00000005" if esn else "") + "00000006")
    plain = b"payload" + bytes([1, 2, 3, 3, 4])
    sealed = AESCCM(secret[:32], tag_length=12).encrypt(secret[32:] + packet[8:16], plain, associated)
    assert packet == bytes.fromhex("1122334400000006" + "0000000500000006") + sealed


@pytest.mark.parametrize("sa", SAS, ids=lambda sa: f"{sa.cipher.id.name}{sa.cipher.key_bits}-{sa.integrity}-{sa.esn}")
class TestEverySuite:
    @given(data=st.binary(max_size=100), sequence=st.integers(1, (1 << 64) - 1), next_header=st.integers(0, 255))
    def test_open_undoes_seal(self, sa: Sa, data: bytes, sequence: int, next_header: int) -> None:
        packet = esp.sealer(sa)(sequence, data, next_header)
        assert packet[:8] == sa.spi.to_bytes(4) + (sequence & 0xFFFFFFFF).to_bytes(4)
        assert len(packet) % 4 == 0
        plaintext = esp.opener(sa)(packet, sequence)
        assert plaintext is not None
        assert plaintext[-1] == next_header
        assert esp.payload_of(plaintext) == data

    @given(data=st.data())
    def test_every_flipped_bit_is_refused(self, sa: Sa, data: st.DataObject) -> None:
        packet = bytearray(esp.sealer(sa)(7, b"some payload", 4))
        bit = data.draw(st.integers(32, len(packet) * 8 - 1))
        packet[bit // 8] ^= 1 << bit % 8
        sequence = int.from_bytes(packet[4:8])
        assert esp.opener(sa)(bytes(packet), sequence) is None

    @given(data=st.binary(max_size=100))
    def test_arbitrary_bytes_never_raise(self, sa: Sa, data: bytes) -> None:
        assert esp.opener(sa)(data, 1) is None

    def test_a_wrong_high_half_is_refused_with_esn(self, sa: Sa) -> None:
        packet = esp.sealer(sa)(7, b"x", 4)
        assert (esp.opener(sa)(packet, 7 + (1 << 32)) is None) == sa.esn

    def test_the_largest_payload_fits_and_one_byte_more_does_not(self, sa: Sa) -> None:
        for room in range(200, 240):
            largest = esp.largest_payload(sa, room)
            assert len(esp.sealer(sa)(1, bytes(largest), 4)) <= room
            assert len(esp.sealer(sa)(1, bytes(largest + 1), 4)) > room


def test_ivs_of_combined_mode_are_the_sequence_number() -> None:
    seal = esp.sealer(make_sa(cipher=AES256GCM16, esn=True))
    chosen = random.Random(1)
    numbers = [chosen.getrandbits(64) for _ in range(100)]
    assert [int.from_bytes(seal(number, b"x", 4)[8:16]) for number in numbers] == numbers


@given(st.binary(max_size=300))
def test_payload_of_takes_only_padding_that_counts_up(plaintext: bytes) -> None:
    payload = esp.payload_of(plaintext)
    if payload is not None:
        length = plaintext[-2]
        assert plaintext == payload + bytes(range(1, length + 1)) + plaintext[-2:]


@pytest.mark.parametrize("plaintext", [b"", b"\4", b"x\2\2\4", b"x\2\4", b"xx\1\1\2\4", b"\1\2\3\3\4\4"])
def test_bad_padding(plaintext: bytes) -> None:
    assert esp.payload_of(plaintext) is None


@pytest.mark.parametrize(
    "change",
    [
        {"encryption_key": Secret(bytes(19))},
        {"integrity_key": Secret(bytes(32))},
        {"integrity": IntegrityId.HMAC_SHA2_256_128, "integrity_key": Secret(bytes(32))},
        {"cipher": AES128CBC, "encryption_key": Secret(bytes(16))},
        {"cipher": CipherName(id=EncryptionId.AES_GCM_16, key_bits=512)},
    ],
)
def test_keys_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    sa = dataclasses.replace(make_sa(), **change)  # type: ignore[arg-type]
    for make in (esp.sealer, esp.opener):
        with pytest.raises(esp.BadKey):
            make(sa)
