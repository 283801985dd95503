"""Cryptographic algorithms by their IKEv2 transform numbers, with the sizes and names all roles agree on.

Numbers: IANA "Internet Key Exchange Version 2 (IKEv2) Parameters" (RFC 7296 section 3.3.2 and its updates).
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ipc.value import value


class EncryptionId(enum.IntEnum):
    """Transform type 1."""

    DES3 = 3  # RFC 2451; for old peers only
    AES_CBC = 12  # RFC 3602
    AES_CTR = 13  # RFC 3686, RFC 5930
    AES_CCM_8 = 14  # RFC 4309, RFC 5282, as the next two
    AES_CCM_12 = 15
    AES_CCM_16 = 16
    AES_GCM_16 = 20  # RFC 4106, RFC 5282
    CHACHA20_POLY1305 = 28  # RFC 7634


class PrfId(enum.IntEnum):
    """Transform type 2 (RFC 4868; MD5 and SHA-1, for old peers only: RFC 2403, RFC 2404)."""

    HMAC_MD5 = 1
    HMAC_SHA1 = 2
    HMAC_SHA2_256 = 5
    HMAC_SHA2_384 = 6
    HMAC_SHA2_512 = 7


class IntegrityId(enum.IntEnum):
    """Transform type 3 (RFC 4868; MD5 and SHA-1 as above). NONE goes with combined-mode ciphers."""

    NONE = 0
    HMAC_MD5_96 = 1
    HMAC_SHA1_96 = 2
    HMAC_SHA2_256_128 = 12
    HMAC_SHA2_384_192 = 13
    HMAC_SHA2_512_256 = 14


class KeyExchangeId(enum.IntEnum):
    """Transform type 4 (RFC 3526, RFC 5903, RFC 8031; MODP_1024, for old peers only: RFC 2409)."""

    NONE = 0
    MODP_1024 = 2
    MODP_2048 = 14
    MODP_3072 = 15
    MODP_4096 = 16
    ECP_256 = 19
    ECP_384 = 20
    ECP_521 = 21
    X25519 = 31
    X448 = 32


class EsnId(enum.IntEnum):
    """Transform type 5: 64-bit sequence numbers or not."""

    NO_ESN = 0
    ESN = 1


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cipher:
    """An encryption transform with its key length attribute, in bits; of FIXED_KEY_CIPHERS the only one they have."""

    id: EncryptionId
    key_bits: int


@value
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


DES3CBC = Cipher(id=EncryptionId.DES3, key_bits=192)
AES128CBC = Cipher(id=EncryptionId.AES_CBC, key_bits=128)
AES256CBC = Cipher(id=EncryptionId.AES_CBC, key_bits=256)
AES128GCM16 = Cipher(id=EncryptionId.AES_GCM_16, key_bits=128)
AES256GCM16 = Cipher(id=EncryptionId.AES_GCM_16, key_bits=256)
CHACHA20POLY1305 = Cipher(id=EncryptionId.CHACHA20_POLY1305, key_bits=256)

FIXED_KEY_CIPHERS = frozenset({EncryptionId.DES3, EncryptionId.CHACHA20_POLY1305})
"""They have one key length and no Key Length attribute (RFC 7296 section 3.3.5, RFC 7634 section 5)."""


@value
class _Family:
    """AES in one mode: the word of a proposal is "aes", the key length, `suffix`. Sizes as in CipherSizes."""

    id: EncryptionId
    suffix: str
    salt: int
    iv: int
    icv: int
    block: int
    aead: bool


_AES_FAMILIES = (
    _Family(id=EncryptionId.AES_GCM_16, suffix="gcm16", salt=4, iv=8, icv=16, block=1, aead=True),
    _Family(id=EncryptionId.AES_CCM_16, suffix="ccm16", salt=3, iv=8, icv=16, block=1, aead=True),
    _Family(id=EncryptionId.AES_CCM_12, suffix="ccm12", salt=3, iv=8, icv=12, block=1, aead=True),
    _Family(id=EncryptionId.AES_CCM_8, suffix="ccm8", salt=3, iv=8, icv=8, block=1, aead=True),
    _Family(id=EncryptionId.AES_CBC, suffix="", salt=0, iv=16, icv=0, block=16, aead=False),
    _Family(id=EncryptionId.AES_CTR, suffix="ctr", salt=4, iv=8, icv=0, block=1, aead=False),
)
_AES_KEY_BITS = (256, 192, 128)

_SIZES = {
    **{
        Cipher(id=one.id, key_bits=bits): CipherSizes(
            key=bits // 8, salt=one.salt, iv=one.iv, icv=one.icv, block=one.block, aead=one.aead
        )
        for one in _AES_FAMILIES
        for bits in _AES_KEY_BITS
    },
    CHACHA20POLY1305: CipherSizes(key=32, salt=4, iv=8, icv=16, block=1, aead=True),
    DES3CBC: CipherSizes(key=24, salt=0, iv=8, icv=0, block=8, aead=False),
}

# The words of a proposal ("aes256gcm16-prfsha384-x25519") and of every list that people read.
CIPHER_NAMES: Mapping[str, Cipher] = MappingProxyType(
    {
        "chacha20poly1305": CHACHA20POLY1305,
        **{
            f"aes{bits}{one.suffix}": Cipher(id=one.id, key_bits=bits)
            for one in _AES_FAMILIES
            for bits in _AES_KEY_BITS
        },
        "3des": DES3CBC,
    }
)
_WORDS = {cipher: word for word, cipher in CIPHER_NAMES.items()}
INTEGRITY_NAMES: Mapping[str, IntegrityId] = MappingProxyType(
    {
        "sha256": IntegrityId.HMAC_SHA2_256_128,
        "sha384": IntegrityId.HMAC_SHA2_384_192,
        "sha512": IntegrityId.HMAC_SHA2_512_256,
        "sha1": IntegrityId.HMAC_SHA1_96,
        "md5": IntegrityId.HMAC_MD5_96,
    }
)
PRF_NAMES: Mapping[str, PrfId] = MappingProxyType(
    {
        "prfsha256": PrfId.HMAC_SHA2_256,
        "prfsha384": PrfId.HMAC_SHA2_384,
        "prfsha512": PrfId.HMAC_SHA2_512,
        "prfsha1": PrfId.HMAC_SHA1,
        "prfmd5": PrfId.HMAC_MD5,
    }
)
KEY_EXCHANGE_NAMES: Mapping[str, KeyExchangeId] = MappingProxyType(
    {
        "x25519": KeyExchangeId.X25519,
        "ecp256": KeyExchangeId.ECP_256,
        "ecp384": KeyExchangeId.ECP_384,
        "ecp521": KeyExchangeId.ECP_521,
        "x448": KeyExchangeId.X448,
        "modp2048": KeyExchangeId.MODP_2048,
        "modp3072": KeyExchangeId.MODP_3072,
        "modp4096": KeyExchangeId.MODP_4096,
        "modp1024": KeyExchangeId.MODP_1024,
    }
)
ESN_NAMES: Mapping[str, EsnId] = MappingProxyType({"esn": EsnId.ESN, "noesn": EsnId.NO_ESN})

WEAK_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "3des": "64-bit blocks: traffic can be read after some gigabytes (RFC 8221 section 5)",
        "md5": "MD5 is broken (RFC 8221 section 6)",
        "prfmd5": "MD5 is broken (RFC 8247 section 2.2)",
        "sha1": "SHA-1 is on its way out (RFC 8221 section 6)",
        "prfsha1": "SHA-1 is on its way out (RFC 8247 section 2.2)",
        "modp1024": "1024-bit Diffie-Hellman is within reach of an attacker with means (RFC 8247 section 2.4)",
    }
)
"""Words that are used only where a proposal names them, and why an operator is warned of each at every start."""

INTEGRITY_KEY_BYTES: Mapping[IntegrityId, int] = MappingProxyType(
    {
        IntegrityId.NONE: 0,
        IntegrityId.HMAC_MD5_96: 16,
        IntegrityId.HMAC_SHA1_96: 20,
        IntegrityId.HMAC_SHA2_256_128: 32,
        IntegrityId.HMAC_SHA2_384_192: 48,
        IntegrityId.HMAC_SHA2_512_256: 64,
    }
)
INTEGRITY_ICV_BYTES: Mapping[IntegrityId, int] = MappingProxyType(
    {
        IntegrityId.NONE: 0,
        IntegrityId.HMAC_MD5_96: 12,
        IntegrityId.HMAC_SHA1_96: 12,
        IntegrityId.HMAC_SHA2_256_128: 16,
        IntegrityId.HMAC_SHA2_384_192: 24,
        IntegrityId.HMAC_SHA2_512_256: 32,
    }
)
INTEGRITY_DIGESTS: Mapping[IntegrityId, str] = MappingProxyType(
    {
        IntegrityId.HMAC_MD5_96: "md5",
        IntegrityId.HMAC_SHA1_96: "sha1",
        IntegrityId.HMAC_SHA2_256_128: "sha256",
        IntegrityId.HMAC_SHA2_384_192: "sha384",
        IntegrityId.HMAC_SHA2_512_256: "sha512",
    }
)
"""The hash of each HMAC, by the name that `hmac` and `hashlib` know."""
PRF_DIGESTS: Mapping[PrfId, str] = MappingProxyType(
    {
        PrfId.HMAC_MD5: "md5",
        PrfId.HMAC_SHA1: "sha1",
        PrfId.HMAC_SHA2_256: "sha256",
        PrfId.HMAC_SHA2_384: "sha384",
        PrfId.HMAC_SHA2_512: "sha512",
    }
)
PRF_BYTES: Mapping[PrfId, int] = MappingProxyType(
    {
        PrfId.HMAC_MD5: 16,
        PrfId.HMAC_SHA1: 20,
        PrfId.HMAC_SHA2_256: 32,
        PrfId.HMAC_SHA2_384: 48,
        PrfId.HMAC_SHA2_512: 64,
    }
)
"""Length of a prf's output, which is its preferred key length too (RFC 4868 section 2.1.2)."""


@value
class IkeProposal:
    """What may protect an IKE SA, most wanted first in each list. `integrity` is empty with combined-mode ciphers."""

    encryption: tuple[Cipher, ...]
    integrity: tuple[IntegrityId, ...]
    prf: tuple[PrfId, ...]
    key_exchange: tuple[KeyExchangeId, ...]


@value
class EspProposal:
    """What may protect a Child SA. An empty `key_exchange` means no fresh key exchange when rekeying."""

    encryption: tuple[Cipher, ...]
    integrity: tuple[IntegrityId, ...]
    key_exchange: tuple[KeyExchangeId, ...]
    esn: tuple[EsnId, ...]


def cipher_name(cipher: Cipher) -> str:
    """The proposal word for `cipher`, or its numbers if it has none."""
    return _WORDS.get(cipher) or f"encr{int(cipher.id)}-{cipher.key_bits}"


def esp_suite_name(cipher: Cipher, integrity: IntegrityId, esn: bool) -> str:
    """The words for the algorithms of a Child SA, as a proposal would say them."""
    words = [cipher_name(cipher)]
    words += [name for name, value in INTEGRITY_NAMES.items() if value is integrity]
    if esn:
        words.append("esn")
    return "-".join(words)
