"""Key exchange methods: Curve25519 (RFC 8031) and the ECP groups (RFC 5903), with the checks of RFC 6989.

Private keys come from the caller's `random_bytes`, so that an exchange can be repeated in a test.
"""

from collections.abc import Callable
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ike_worker.ikev2.errors import InvalidKeyExchange, LocalError
from ipc.algorithms import KeyExchangeId

_EXTRA_BYTES = 8  # FIPS 186-5 appendix A.2.1: 64 more random bits make the bias of the reduction negligible
_CURVES: dict[KeyExchangeId, ec.EllipticCurve] = {
    KeyExchangeId.ECP_256: ec.SECP256R1(),
    KeyExchangeId.ECP_384: ec.SECP384R1(),
}
_UNCOMPRESSED = b"\x04"


class KeyExchange:
    """One side of a key exchange: a fresh private key, used for one shared secret."""

    __slots__ = ("_private", "group", "public")

    def __init__(self, group: KeyExchangeId, private: X25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
        self.group = group
        self._private = private
        self.public = _public_bytes(private)
        """The public value as it stands in the KE payload."""

    @classmethod
    def generate(cls, group: KeyExchangeId, random_bytes: Callable[[int], bytes]) -> Self:
        """A fresh key; LocalError for a group that we do not speak."""
        if group is KeyExchangeId.X25519:
            return cls(group, X25519PrivateKey.from_private_bytes(random_bytes(32)))
        curve = _CURVES.get(group)
        if curve is None:
            raise LocalError(f"no key exchange method {group.name}")
        order = curve.group_order
        candidate = int.from_bytes(random_bytes(curve.key_size // 8 + _EXTRA_BYTES))
        return cls(group, ec.derive_private_key(candidate % (order - 1) + 1, curve))

    def shared_secret(self, peer_public: bytes) -> bytes:
        """g^ir (RFC 7296 section 2.14). InvalidKeyExchange for a wrong length, a point that is not on the curve, or
        an all-zero result."""
        try:
            if isinstance(self._private, X25519PrivateKey):
                return self._private.exchange(X25519PublicKey.from_public_bytes(peer_public))
            # Refuses wrong lengths, coordinates out of range, and points that are not on the curve.
            point = ec.EllipticCurvePublicKey.from_encoded_point(self._private.curve, _UNCOMPRESSED + peer_public)
            return self._private.exchange(ec.ECDH(), point)
        except ValueError as error:
            raise InvalidKeyExchange(f"{self.group.name}: {error}") from None


def _public_bytes(private: X25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """The 32 bytes of RFC 8031 section 3.1, or x | y of RFC 5903 section 7."""
    if isinstance(private, X25519PrivateKey):
        return private.public_key().public_bytes_raw()
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
