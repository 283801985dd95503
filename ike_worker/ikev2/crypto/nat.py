"""NAT detection hashes. RFC 7296 section 2.23."""

import hashlib


def nat_detection_hash(spi_i: bytes, spi_r: bytes, address: bytes, port: int) -> bytes:
    """Data of NAT_DETECTION_SOURCE_IP and _DESTINATION_IP: SHA-1 of SPIs, address (4 or 16 bytes) and port.

    The protocol fixes SHA-1, and nothing secret rests on it: it only tells whether an address was rewritten.
    """
    return hashlib.sha1(spi_i + spi_r + address + port.to_bytes(2), usedforsecurity=False).digest()
