"""Pseudorandom functions. RFC 7296 section 2.13; RFC 4868 for HMAC-SHA2."""

import hmac
from collections.abc import Mapping
from types import MappingProxyType

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from ike_worker.ikev2.errors import LocalError
from ipc.algorithms import PRF_BYTES, PRF_DIGESTS, PrfId

_HASHES: Mapping[PrfId, hashes.HashAlgorithm] = MappingProxyType(
    {
        PrfId.HMAC_MD5: hashes.MD5(),
        PrfId.HMAC_SHA1: hashes.SHA1(),
        PrfId.HMAC_SHA2_256: hashes.SHA256(),
        PrfId.HMAC_SHA2_384: hashes.SHA384(),
        PrfId.HMAC_SHA2_512: hashes.SHA512(),
    }
)
_MAX_BLOCKS = 255


def prf(prf_id: PrfId, key: bytes, data: bytes) -> bytes:
    """prf(key, data); PRF_BYTES[prf_id] bytes."""
    return hmac.digest(key, data, PRF_DIGESTS[prf_id])


def prf_plus(prf_id: PrfId, key: bytes, seed: bytes, length: int) -> bytes:
    """The first `length` bytes of prf+(key, seed) (RFC 7296 section 2.13); LocalError beyond its 255 blocks.

    With an HMAC for a prf this is HKDF-Expand (RFC 5869 section 2.3), which `cryptography` does in one call.
    """
    if length > _MAX_BLOCKS * PRF_BYTES[prf_id]:
        raise LocalError(f"prf+ does not give {length} bytes")
    return HKDFExpand(_HASHES[prf_id], length, seed).derive(key)
