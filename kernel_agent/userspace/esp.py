"""ESP packets: seal and open (RFC 4303), for combined-mode ciphers (RFC 4106, RFC 7634) and CBC with HMAC (RFC 4868).

Pure. A sealer or opener is a closure with everything about its SA bound beforehand: it runs once for each packet.
"""

import hmac
import os
import struct
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ipc.algorithms import INTEGRITY_ICV_BYTES, INTEGRITY_KEY_BYTES, EncryptionId, IntegrityId, cipher_sizes
from ipc.messages import Sa

HEADER_BYTES = 8
"""SPI and the low half of the sequence number."""
TRAILER_BYTES = 2
"""Pad length and next header."""
PADDING = tuple(bytes(range(1, length + 1)) for length in range(256))
"""By length; it counts from 1 (RFC 4303 section 2.4)."""

Sealer = Callable[[int, bytes, int], bytes]
"""(64-bit sequence number, payload, next header) to an ESP packet."""
Opener = Callable[[bytes, int], bytes | None]
"""(ESP packet, 64-bit sequence number) to the plaintext with its trailer, or None if it is not authentic."""
RandomBytes = Callable[[int], bytes]

_DIGESTS = {
    IntegrityId.HMAC_SHA2_256_128: "sha256",
    IntegrityId.HMAC_SHA2_384_192: "sha384",
    IntegrityId.HMAC_SHA2_512_256: "sha512",
}


class BadKey(ValueError):
    """Algorithms and keys of an SA do not fit together."""


def trailers(block: int) -> tuple[tuple[bytes, ...], ...]:
    """For each next header, by (payload length modulo `block`), the padding and trailer that fill the block."""
    lengths = [-(rest + TRAILER_BYTES) % block for rest in range(block)]
    return tuple(
        tuple(PADDING[length] + bytes([length, next_header]) for length in lengths) for next_header in range(256)
    )


# RFC 4303 section 2.4: the next header ends on a 4-byte boundary, whatever the cipher.
_TRAILERS_4 = trailers(4)
_TRAILERS_16 = trailers(16)


def payload_of(plaintext: bytes) -> bytes | None:
    """The payload of an opened packet; None if the padding is not 1, 2, 3, … (RFC 4303 section 2.4)."""
    try:
        length = plaintext[-2]
    except IndexError:
        return None
    end = -TRAILER_BYTES - length
    if length and plaintext[end:-2] != PADDING[length]:
        return None
    return plaintext[:end]


def largest_payload(sa: Sa, esp_bytes: int) -> int:
    """The longest payload whose ESP packet is not longer than `esp_bytes`."""
    sizes = cipher_sizes(sa.cipher)
    room = esp_bytes - HEADER_BYTES - sizes.iv - (sizes.icv or INTEGRITY_ICV_BYTES[sa.integrity])
    return room - room % max(sizes.block, 4) - TRAILER_BYTES


def sealer(sa: Sa, random_bytes: RandomBytes = os.urandom) -> Sealer:
    """What seals the packets of `sa`; BadKey. `random_bytes` makes the IVs of CBC."""
    _check_keys(sa)
    if cipher_sizes(sa.cipher).aead:
        return _aead_sealer(sa)
    return _cbc_sealer(sa, random_bytes)


def opener(sa: Sa) -> Opener:
    """What opens the packets of `sa`; BadKey."""
    _check_keys(sa)
    return _aead_opener(sa) if cipher_sizes(sa.cipher).aead else _cbc_opener(sa)


def _check_keys(sa: Sa) -> None:
    try:
        sizes = cipher_sizes(sa.cipher)
    except KeyError:
        raise BadKey("unknown cipher") from None
    if len(sa.encryption_key) != sizes.key + sizes.salt:
        raise BadKey(f"{len(sa.encryption_key)} bytes of encryption key, not {sizes.key + sizes.salt}")
    if sizes.aead != (sa.integrity is IntegrityId.NONE):
        raise BadKey("a combined-mode cipher takes no integrity algorithm, any other needs one")
    if len(sa.integrity_key) != INTEGRITY_KEY_BYTES[sa.integrity]:
        raise BadKey(f"{len(sa.integrity_key)} bytes of integrity key, not {INTEGRITY_KEY_BYTES[sa.integrity]}")


def _aead(sa: Sa) -> tuple[AESGCM | ChaCha20Poly1305, bytes]:
    """The cipher and the salt."""
    secret, key_bytes = sa.encryption_key.reveal(), cipher_sizes(sa.cipher).key
    kind = AESGCM if sa.cipher.id is EncryptionId.AES_GCM_16 else ChaCha20Poly1305
    return kind(secret[:key_bytes]), secret[key_bytes:]


def _aead_sealer(sa: Sa) -> Sealer:
    cipher, salt = _aead(sa)
    spi, esn = sa.spi, sa.esn
    spi_bytes = spi.to_bytes(4)
    encrypt, pack, trailer = cipher.encrypt, struct.Struct("!IIQ").pack, _TRAILERS_4

    def seal(sequence: int, payload: bytes, next_header: int) -> bytes:
        # The IV is the 64-bit sequence number: unique under a key (RFC 4106 section 3.1, RFC 7634 section 2).
        header = pack(spi, sequence & 0xFFFFFFFF, sequence)
        iv = header[8:]
        associated = spi_bytes + iv if esn else header[:8]  # RFC 4106 section 5
        return header + encrypt(salt + iv, payload + trailer[next_header][len(payload) & 3], associated)

    return seal


def _aead_opener(sa: Sa) -> Opener:
    cipher, salt = _aead(sa)
    esn, spi_bytes = sa.esn, sa.spi.to_bytes(4)
    shortest = HEADER_BYTES + 8 + 4 + 16
    decrypt = cipher.decrypt

    def open_packet(packet: bytes, sequence: int) -> bytes | None:
        if len(packet) < shortest or len(packet) & 3:
            return None
        associated = spi_bytes + sequence.to_bytes(8) if esn else packet[:8]
        try:
            return decrypt(salt + packet[8:16], packet[16:], associated)
        except InvalidTag:
            return None

    return open_packet


def _cbc_sealer(sa: Sa, random_bytes: RandomBytes) -> Sealer:
    cipher = algorithms.AES(sa.encryption_key.reveal())
    key, digest, icv_bytes = sa.integrity_key.reveal(), _DIGESTS[sa.integrity], INTEGRITY_ICV_BYTES[sa.integrity]
    spi, esn, pack, trailer = sa.spi, sa.esn, struct.Struct("!II").pack, _TRAILERS_16

    def seal(sequence: int, payload: bytes, next_header: int) -> bytes:
        iv = random_bytes(16)
        encryptor = BlockCipher(cipher, modes.CBC(iv)).encryptor()
        ciphertext = encryptor.update(payload + trailer[next_header][len(payload) & 15]) + encryptor.finalize()
        packet = pack(spi, sequence & 0xFFFFFFFF) + iv + ciphertext
        # RFC 4303 section 2.2.1: the high half is authenticated behind the packet, and not sent.
        covered = packet + (sequence >> 32).to_bytes(4) if esn else packet
        return packet + hmac.digest(key, covered, digest)[:icv_bytes]

    return seal


def _cbc_opener(sa: Sa) -> Opener:
    cipher = algorithms.AES(sa.encryption_key.reveal())
    key, digest, icv_bytes = sa.integrity_key.reveal(), _DIGESTS[sa.integrity], INTEGRITY_ICV_BYTES[sa.integrity]
    esn, shortest = sa.esn, HEADER_BYTES + 16 + 16 + icv_bytes

    def open_packet(packet: bytes, sequence: int) -> bytes | None:
        if len(packet) < shortest or (len(packet) - HEADER_BYTES - icv_bytes) % 16:
            return None
        covered = packet[:-icv_bytes] + (sequence >> 32).to_bytes(4) if esn else packet[:-icv_bytes]
        if not hmac.compare_digest(hmac.digest(key, covered, digest)[:icv_bytes], packet[-icv_bytes:]):
            return None
        decryptor = BlockCipher(cipher, modes.CBC(packet[8:24])).decryptor()
        return decryptor.update(packet[24:-icv_bytes]) + decryptor.finalize()

    return open_packet
