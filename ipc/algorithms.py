"""Cryptographic algorithms by their IKEv2 transform numbers, with the sizes and names all roles agree on.

Numbers: IANA "Internet Key Exchange Version 2 (IKEv2) Parameters" (RFC 7296 section 3.3.2 and its updates).
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class EncryptionId(enum.IntEnum):
    """Transform type 1."""

    AES_CBC = 12  # RFC 3602
    AES_GCM_16 = 20  # RFC 4106, RFC 5282
    CHACHA20_POLY1305 = 28  # RFC 7634


class PrfId(enum.IntEnum):
    """Transform type 2 (RFC 4868)."""

    HMAC_SHA2_256 = 5
    HMAC_SHA2_384 = 6
    HMAC_SHA2_512 = 7


class IntegrityId(enum.IntEnum):
    """Transform type 3 (RFC 4868). NONE goes with combined-mode ciphers."""

    NONE = 0
    HMAC_SHA2_256_128 = 12
    HMAC_SHA2_384_192 = 13
    HMAC_SHA2_512_256 = 14


class KeyExchangeId(enum.IntEnum):
    """Transform type 4 (RFC 5903, RFC 8031)."""

    NONE = 0
    ECP_256 = 19
    ECP_384 = 20
    X25519 = 31


class EsnId(enum.IntEnum):
    """Transform type 5: 64-bit sequence numbers or not."""

    NO_ESN = 0
    ESN = 1


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cipher:
    """An encryption transform with its key length attribute, in bits (256 for ChaCha20)."""

    id: EncryptionId
    key_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CipherSizes:
    """Sizes in bytes. `salt` is the implicit nonce part that follows the key in the key material."""

    key: int
    salt: int
    iv: int
    icv: int
    block: int
    aead: bool


def cipher_sizes(cipher: Cipher) -> CipherSizes:
    """The sizes of `cipher`; KeyError for a combination that is not in CIPHER_NAMES."""
    return _SIZES[cipher]


AES128CBC = Cipher(id=EncryptionId.AES_CBC, key_bits=128)
AES256CBC = Cipher(id=EncryptionId.AES_CBC, key_bits=256)
AES128GCM16 = Cipher(id=EncryptionId.AES_GCM_16, key_bits=128)
AES256GCM16 = Cipher(id=EncryptionId.AES_GCM_16, key_bits=256)
CHACHA20POLY1305 = Cipher(id=EncryptionId.CHACHA20_POLY1305, key_bits=256)

_SIZES = {
    AES128CBC: CipherSizes(key=16, salt=0, iv=16, icv=0, block=16, aead=False),
    AES256CBC: CipherSizes(key=32, salt=0, iv=16, icv=0, block=16, aead=False),
    AES128GCM16: CipherSizes(key=16, salt=4, iv=8, icv=16, block=1, aead=True),
    AES256GCM16: CipherSizes(key=32, salt=4, iv=8, icv=16, block=1, aead=True),
    CHACHA20POLY1305: CipherSizes(key=32, salt=4, iv=8, icv=16, block=1, aead=True),
}

# The words of a proposal ("aes256gcm16-prfsha384-x25519") and of every list that people read.
CIPHER_NAMES: Mapping[str, Cipher] = MappingProxyType(
    {
        "aes256gcm16": AES256GCM16,
        "aes128gcm16": AES128GCM16,
        "chacha20poly1305": CHACHA20POLY1305,
        "aes256": AES256CBC,
        "aes128": AES128CBC,
    }
)
INTEGRITY_NAMES: Mapping[str, IntegrityId] = MappingProxyType(
    {
        "sha256": IntegrityId.HMAC_SHA2_256_128,
        "sha384": IntegrityId.HMAC_SHA2_384_192,
        "sha512": IntegrityId.HMAC_SHA2_512_256,
    }
)
PRF_NAMES: Mapping[str, PrfId] = MappingProxyType(
    {
        "prfsha256": PrfId.HMAC_SHA2_256,
        "prfsha384": PrfId.HMAC_SHA2_384,
        "prfsha512": PrfId.HMAC_SHA2_512,
    }
)
KEY_EXCHANGE_NAMES: Mapping[str, KeyExchangeId] = MappingProxyType(
    {
        "x25519": KeyExchangeId.X25519,
        "ecp256": KeyExchangeId.ECP_256,
        "ecp384": KeyExchangeId.ECP_384,
    }
)
ESN_NAMES: Mapping[str, EsnId] = MappingProxyType({"esn": EsnId.ESN, "noesn": EsnId.NO_ESN})

INTEGRITY_KEY_BYTES: Mapping[IntegrityId, int] = MappingProxyType(
    {
        IntegrityId.NONE: 0,
        IntegrityId.HMAC_SHA2_256_128: 32,
        IntegrityId.HMAC_SHA2_384_192: 48,
        IntegrityId.HMAC_SHA2_512_256: 64,
    }
)
INTEGRITY_ICV_BYTES: Mapping[IntegrityId, int] = MappingProxyType(
    {
        IntegrityId.NONE: 0,
        IntegrityId.HMAC_SHA2_256_128: 16,
        IntegrityId.HMAC_SHA2_384_192: 24,
        IntegrityId.HMAC_SHA2_512_256: 32,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeProposal:
    """What may protect an IKE SA, most wanted first in each list. `integrity` is empty with combined-mode ciphers."""

    encryption: tuple[Cipher, ...]
    integrity: tuple[IntegrityId, ...]
    prf: tuple[PrfId, ...]
    key_exchange: tuple[KeyExchangeId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EspProposal:
    """What may protect a Child SA. An empty `key_exchange` means no fresh key exchange when rekeying."""

    encryption: tuple[Cipher, ...]
    integrity: tuple[IntegrityId, ...]
    key_exchange: tuple[KeyExchangeId, ...]
    esn: tuple[EsnId, ...]


def cipher_name(cipher: Cipher) -> str:
    """The proposal word for `cipher`, or its numbers if it has none."""
    names = {value: name for name, value in CIPHER_NAMES.items()}
    return names.get(cipher, f"encr{int(cipher.id)}-{cipher.key_bits}")


def esp_suite_name(cipher: Cipher, integrity: IntegrityId, esn: bool) -> str:
    """The words for the algorithms of a Child SA, as a proposal would say them."""
    words = [cipher_name(cipher)]
    words += [name for name, value in INTEGRITY_NAMES.items() if value is integrity]
    if esn:
        words.append("esn")
    return "-".join(words)
