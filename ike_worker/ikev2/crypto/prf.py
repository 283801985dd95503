"""Pseudorandom functions. RFC 7296 sections 2.13 and 5; RFC 4868 for HMAC-SHA2."""

import hmac
from collections.abc import Mapping
from types import MappingProxyType

from ike_worker.ikev2.errors import LocalError
from ipc.algorithms import PrfId

PRF_KEY_BYTES: Mapping[PrfId, int] = MappingProxyType(
    {PrfId.HMAC_SHA2_256: 32, PrfId.HMAC_SHA2_384: 48, PrfId.HMAC_SHA2_512: 64}
)
"""Preferred key length of each prf, which is also the length of its output, in bytes (RFC 4868 section 2.1.2)."""

_DIGESTS = {PrfId.HMAC_SHA2_256: "sha256", PrfId.HMAC_SHA2_384: "sha384", PrfId.HMAC_SHA2_512: "sha512"}
_MAX_BLOCKS = 255


def prf(prf_id: PrfId, key: bytes, data: bytes) -> bytes:
    """prf(key, data); PRF_KEY_BYTES[prf_id] bytes."""
    return hmac.digest(key, data, _DIGESTS[prf_id])


def prf_plus(prf_id: PrfId, key: bytes, seed: bytes, length: int) -> bytes:
    """The first `length` bytes of prf+(key, seed) (RFC 7296 section 2.13); LocalError beyond its 255 blocks."""
    if length > _MAX_BLOCKS * PRF_KEY_BYTES[prf_id]:
        raise LocalError(f"prf+ does not give {length} bytes")
    keyed = hmac.new(key, digestmod=_DIGESTS[prf_id])
    stream = b""
    block = b""
    number = 0
    while len(stream) < length:
        number += 1
        mac = keyed.copy()
        mac.update(block + seed + bytes((number,)))
        block = mac.digest()
        stream += block
    return stream[:length]
