"""Algorithms by the names that the kernel knows (struct xfrm_algo, _auth, _aead)."""

import struct

import pytest

from ipc.algorithms import CIPHER_NAMES, INTEGRITY_ICV_BYTES, INTEGRITY_KEY_BYTES, IntegrityId, cipher_sizes
from ipc.types import Secret
from kernel_agent.xfrm.algorithms import algorithm_attributes
from kernel_agent.xfrm.constants import XfrmAttribute
from tests.kernel_agent.values import sa

# As crypto/Kconfig and net/xfrm/xfrm_algo.c of the kernel call them: name, bits of key with salt, bits of ICV.
COMBINED = {
    "aes128gcm16": ("rfc4106(gcm(aes))", 160, 128),
    "aes192gcm16": ("rfc4106(gcm(aes))", 224, 128),
    "aes128ccm8": ("rfc4309(ccm(aes))", 152, 64),
    "aes192ccm12": ("rfc4309(ccm(aes))", 216, 96),
    "aes256ccm16": ("rfc4309(ccm(aes))", 280, 128),
    "chacha20poly1305": ("rfc7539esp(chacha20,poly1305)", 288, 128),
}
PLAIN = {
    "aes192": ("cbc(aes)", 192),
    "aes128ctr": ("rfc3686(ctr(aes))", 160),
    "aes256ctr": ("rfc3686(ctr(aes))", 288),
    "3des": ("cbc(des3_ede)", 192),
}


def attributes(cipher: str, integrity: IntegrityId) -> dict[int, bytes]:
    """What the kernel is told, by attribute number."""
    sizes = cipher_sizes(CIPHER_NAMES[cipher])
    data = algorithm_attributes(
        sa(
            cipher=CIPHER_NAMES[cipher],
            integrity=integrity,
            encryption_key=Secret(bytes(range(sizes.key + sizes.salt))),
            integrity_key=Secret(bytes(INTEGRITY_KEY_BYTES[integrity])),
        )
    )
    found = {}
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:length]
        data = data[length + -length % 4 :]
    return found


@pytest.mark.parametrize("cipher", COMBINED)
def test_combined_mode_ciphers(cipher: str) -> None:
    name, key_bits, icv_bits = COMBINED[cipher]
    (body,) = [attributes(cipher, IntegrityId.NONE)[XfrmAttribute.ALG_AEAD]]
    assert body[:64].rstrip(b"\0").decode() == name
    assert struct.unpack_from("=II", body, 64) == (key_bits, icv_bits)
    assert body[72:] == bytes(range(key_bits // 8))


@pytest.mark.parametrize("cipher", PLAIN)
@pytest.mark.parametrize("integrity", [one for one in IntegrityId if one is not IntegrityId.NONE])
def test_ciphers_with_integrity(cipher: str, integrity: IntegrityId) -> None:
    name, key_bits = PLAIN[cipher]
    found = attributes(cipher, integrity)
    crypt, auth = found[XfrmAttribute.ALG_CRYPT], found[XfrmAttribute.ALG_AUTH_TRUNC]
    assert crypt[:64].rstrip(b"\0").decode() == name
    assert struct.unpack_from("=I", crypt, 64) == (key_bits,)
    assert len(crypt) == 68 + key_bits // 8
    lengths = (INTEGRITY_KEY_BYTES[integrity] * 8, INTEGRITY_ICV_BYTES[integrity] * 8)
    assert struct.unpack_from("=II", auth, 64) == lengths


@pytest.mark.parametrize("cipher", CIPHER_NAMES)
def test_every_cipher_has_a_name_in_the_kernel(cipher: str) -> None:
    aead = cipher_sizes(CIPHER_NAMES[cipher]).aead
    assert attributes(cipher, IntegrityId.NONE if aead else IntegrityId.HMAC_SHA2_256_128)
