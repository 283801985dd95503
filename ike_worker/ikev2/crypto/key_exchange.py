"""Key exchange methods: Curve25519 and Curve448 (RFC 8031), ECP groups (RFC 5903), MODP groups (RFC 3526).

With the checks of RFC 6989. Private keys come from the caller's `random_bytes`, so that an exchange can be repeated:
in a test, and by the process that takes over from one that died in the middle.
"""

import abc
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from ike_worker.ikev2.crypto.modp import GENERATOR, PRIMES
from ike_worker.ikev2.errors import InvalidKeyExchange, LocalError
from ipc.algorithms import KeyExchangeId

with warnings.catch_warnings():
    # `cryptography` is pinned to versions that still have these groups (pyproject.toml).
    warnings.simplefilter("ignore", CryptographyDeprecationWarning)
    from cryptography.hazmat.primitives.asymmetric.dh import (
        DHParameterNumbers,
        DHPrivateKey,
        DHPrivateNumbers,
        DHPublicNumbers,
    )

RandomBytes = Callable[[int], bytes]

_EXTRA_BYTES = 8  # FIPS 186-5 appendix A.2.1: 64 more random bits make the bias of the reduction negligible
_UNCOMPRESSED = b"\x04"
_MODP_EXPONENT_BYTES: Mapping[KeyExchangeId, int] = MappingProxyType(
    {
        KeyExchangeId.MODP_1024: 32,
        # RFC 3526 section 8: twice the strength of the group, by its higher estimate.
        KeyExchangeId.MODP_2048: 40,
        KeyExchangeId.MODP_3072: 53,
        KeyExchangeId.MODP_4096: 60,
    }
)


class Private(abc.ABC):
    """A private key of one method."""

    public: bytes
    """The public value as it stands in the KE payload."""

    @abc.abstractmethod
    def exchange(self, peer_public: bytes) -> bytes:
        """The shared secret; ValueError for a public value that the RFCs want refused."""


class KeyExchange:
    """One side of a key exchange: a fresh private key, used for one shared secret."""

    __slots__ = ("_private", "group", "public")

    def __init__(self, group: KeyExchangeId, private: Private) -> None:
        self.group = group
        self._private = private
        self.public = private.public
        """The public value as it stands in the KE payload."""

    @classmethod
    def generate(cls, group: KeyExchangeId, random_bytes: RandomBytes) -> Self:
        """A fresh key; LocalError for a group that we do not speak."""
        make = _METHODS.get(group)
        if make is None:
            raise LocalError(f"no key exchange method {group.name}")
        return cls(group, make(random_bytes))

    def shared_secret(self, peer_public: bytes) -> bytes:
        """g^ir (RFC 7296 section 2.14). InvalidKeyExchange for a wrong length, a value that is not in the group, or
        one that gives no secret."""
        try:
            return self._private.exchange(peer_public)
        except ValueError as error:
            raise InvalidKeyExchange(f"{self.group.name}: {error}") from None


class _X25519(Private):
    def __init__(self, random_bytes: RandomBytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(random_bytes(32))
        self.public = self._key.public_key().public_bytes_raw()

    def exchange(self, peer_public: bytes) -> bytes:
        # Refuses an all-zero secret, as RFC 8031 section 2 allows and RFC 7748 section 6.1 wants.
        return self._key.exchange(X25519PublicKey.from_public_bytes(peer_public))


class _X448(Private):
    def __init__(self, random_bytes: RandomBytes) -> None:
        self._key = X448PrivateKey.from_private_bytes(random_bytes(56))
        self.public = self._key.public_key().public_bytes_raw()

    def exchange(self, peer_public: bytes) -> bytes:
        return self._key.exchange(X448PublicKey.from_public_bytes(peer_public))


class _Ecp(Private):
    """x | y, and of the product x alone (RFC 5903 section 7)."""

    def __init__(self, curve: ec.EllipticCurve, random_bytes: RandomBytes) -> None:
        candidate = int.from_bytes(random_bytes((curve.key_size + 7) // 8 + _EXTRA_BYTES))
        self._key = ec.derive_private_key(candidate % (curve.group_order - 1) + 1, curve)
        self.public = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]

    def exchange(self, peer_public: bytes) -> bytes:
        # Refuses wrong lengths, coordinates out of range, and points that are not on the curve.
        point = ec.EllipticCurvePublicKey.from_encoded_point(self._key.curve, _UNCOMPRESSED + peer_public)
        return self._key.exchange(ec.ECDH(), point)


class _Modp(Private):
    """Values as long as the prime, zeros in front (RFC 7296 sections 2.14 and 3.4)."""

    def __init__(self, group: KeyExchangeId, random_bytes: RandomBytes) -> None:
        self._prime = PRIMES[group]
        self._size = (self._prime.bit_length() + 7) // 8
        exponent = int.from_bytes(random_bytes(_MODP_EXPONENT_BYTES[group]))
        # The highest bit is set: never a small exponent, whatever was drawn.
        self._exponent = exponent | 1 << (8 * _MODP_EXPONENT_BYTES[group] - 1)
        # libcrypto knows this prime and need not test it; of the 1024-bit one it would for 0.1 s each time.
        self._key = _modp_key(self._prime, self._exponent) if group is not KeyExchangeId.MODP_1024 else None
        self.public = self._power(GENERATOR)

    def exchange(self, peer_public: bytes) -> bytes:
        if len(peer_public) != self._size:
            raise ValueError(f"a public value of {len(peer_public)} bytes, not {self._size}")
        value = int.from_bytes(peer_public)
        if not 1 < value < self._prime - 1:  # RFC 6989 section 2.1
            raise ValueError("a public value that is out of range")
        return self._power(value)

    def _power(self, base: int) -> bytes:
        """`base` to our exponent."""
        if self._key is None:
            return pow(base, self._exponent, self._prime).to_bytes(self._size)
        return self._key.exchange(_numbers(self._prime, base).public_key()).rjust(self._size, b"\0")


def _modp_key(prime: int, exponent: int) -> DHPrivateKey:
    """A key that only raises to its exponent: its public value, which that does not need, is a stand-in."""
    return DHPrivateNumbers(exponent, _numbers(prime, GENERATOR)).private_key()


def _numbers(prime: int, value: int) -> DHPublicNumbers:
    return DHPublicNumbers(value, DHParameterNumbers(prime, GENERATOR))


def _ecp(curve: ec.EllipticCurve) -> Callable[[RandomBytes], Private]:
    return lambda random_bytes: _Ecp(curve, random_bytes)


def _modp(group: KeyExchangeId) -> Callable[[RandomBytes], Private]:
    return lambda random_bytes: _Modp(group, random_bytes)


_METHODS: Mapping[KeyExchangeId, Callable[[RandomBytes], Private]] = MappingProxyType(
    {
        KeyExchangeId.X25519: _X25519,
        KeyExchangeId.X448: _X448,
        KeyExchangeId.ECP_256: _ecp(ec.SECP256R1()),
        KeyExchangeId.ECP_384: _ecp(ec.SECP384R1()),
        KeyExchangeId.ECP_521: _ecp(ec.SECP521R1()),
        **{group: _modp(group) for group in PRIMES},
    }
)
