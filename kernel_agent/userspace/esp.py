"""ESP packets: seal and open (RFC 4303), for combined-mode ciphers (RFC 4106, RFC 4309, RFC 7634) and for AES-CBC
(RFC 3602), AES-CTR (RFC 3686) and 3DES (RFC 2451) with HMAC (RFC 4868).

Pure. A sealer or opener is a closure with everything about its SA bound beforehand: it runs once for each packet.
"""

import hmac
import os
import struct
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from ipc.algorithms import (
    INTEGRITY_DIGESTS,
    INTEGRITY_ICV_BYTES,
    INTEGRITY_KEY_BYTES,
    EncryptionId,
    IntegrityId,
    cipher_sizes,
)
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

_CCM = frozenset({EncryptionId.AES_CCM_8, EncryptionId.AES_CCM_12, EncryptionId.AES_CCM_16})
_FIRST_BLOCK = (1).to_bytes(4)
"""RFC 3686 section 4: the block counter of AES-CTR begins with one."""
_Mode = modes.CBC | modes.CTR


class BadKey(ValueError):
    """Algorithms and keys of an SA do not fit together."""


def trailers(block: int) -> tuple[tuple[bytes, ...], ...]:
    """For each next header, by (payload length modulo `block`), the padding and trailer that fill the block."""
    lengths = [-(rest + TRAILER_BYTES) % block for rest in range(block)]
    return tuple(
        tuple(PADDING[length] + bytes([length, next_header]) for length in lengths) for next_header in range(256)
    )


# RFC 4303 section 2.4: the next header ends on a 4-byte boundary, whatever the cipher.
_TRAILERS = {1: trailers(4), 8: trailers(8), 16: trailers(16)}
_TRAILERS_4 = _TRAILERS[1]


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
    return _hmac_sealer(sa, random_bytes)


def opener(sa: Sa) -> Opener:
    """What opens the packets of `sa`; BadKey."""
    _check_keys(sa)
    return _aead_opener(sa) if cipher_sizes(sa.cipher).aead else _hmac_opener(sa)


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


def _aead(sa: Sa) -> tuple[AESGCM | AESCCM | ChaCha20Poly1305, bytes]:
    """The cipher and the salt."""
    sizes = cipher_sizes(sa.cipher)
    secret = sa.encryption_key.reveal()
    key, salt = secret[: sizes.key], secret[sizes.key :]
    if sa.cipher.id in _CCM:
        return AESCCM(key, tag_length=sizes.icv), salt
    return (AESGCM if sa.cipher.id is EncryptionId.AES_GCM_16 else ChaCha20Poly1305)(key), salt


def _aead_sealer(sa: Sa) -> Sealer:
    cipher, salt = _aead(sa)
    spi, esn = sa.spi, sa.esn
    spi_bytes = spi.to_bytes(4)
    encrypt, pack, trailer = cipher.encrypt, struct.Struct("!IIQ").pack, _TRAILERS_4

    def seal(sequence: int, payload: bytes, next_header: int) -> bytes:
        # The IV is the 64-bit sequence number: unique under a key (RFC 4106 and 4309 section 3.1, RFC 7634 section 2).
        header = pack(spi, sequence & 0xFFFFFFFF, sequence)
        iv = header[8:]
        associated = spi_bytes + iv if esn else header[:8]  # RFC 4106 section 5
        return header + encrypt(salt + iv, payload + trailer[next_header][len(payload) & 3], associated)

    return seal


def _aead_opener(sa: Sa) -> Opener:
    cipher, salt = _aead(sa)
    esn, spi_bytes = sa.esn, sa.spi.to_bytes(4)
    shortest = HEADER_BYTES + 8 + 4 + cipher_sizes(sa.cipher).icv
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


def _block_cipher(sa: Sa) -> tuple[algorithms.AES | TripleDES, Callable[[bytes], _Mode]]:
    """The cipher of an SA that has an integrity algorithm, and its mode for an IV."""
    secret, key_bytes = sa.encryption_key.reveal(), cipher_sizes(sa.cipher).key
    if sa.cipher.id is EncryptionId.AES_CTR:
        salt = secret[key_bytes:]
        return algorithms.AES(secret[:key_bytes]), lambda iv: modes.CTR(salt + iv + _FIRST_BLOCK)
    return (TripleDES if sa.cipher.id is EncryptionId.DES3 else algorithms.AES)(secret), modes.CBC


def _hmac_sealer(sa: Sa, random_bytes: RandomBytes) -> Sealer:
    cipher, mode = _block_cipher(sa)
    sizes = cipher_sizes(sa.cipher)
    key, digest, icv_bytes = (
        sa.integrity_key.reveal(),
        INTEGRITY_DIGESTS[sa.integrity],
        INTEGRITY_ICV_BYTES[sa.integrity],
    )
    counts, iv_bytes = sa.cipher.id is EncryptionId.AES_CTR, sizes.iv
    spi, esn, pack, trailer, mask = (
        sa.spi,
        sa.esn,
        struct.Struct("!II").pack,
        _TRAILERS[sizes.block],
        max(sizes.block, 4) - 1,
    )

    def seal(sequence: int, payload: bytes, next_header: int) -> bytes:
        # The IV of AES-CTR is unique under a key (RFC 3686 section 2.1); that of CBC can't be foretold (RFC 3602).
        iv = sequence.to_bytes(8) if counts else random_bytes(iv_bytes)
        encryptor = BlockCipher(cipher, mode(iv)).encryptor()
        ciphertext = encryptor.update(payload + trailer[next_header][len(payload) & mask]) + encryptor.finalize()
        packet = pack(spi, sequence & 0xFFFFFFFF) + iv + ciphertext
        # RFC 4303 section 2.2.1: the high half is authenticated behind the packet, and not sent.
        covered = packet + (sequence >> 32).to_bytes(4) if esn else packet
        return packet + hmac.digest(key, covered, digest)[:icv_bytes]

    return seal


def _hmac_opener(sa: Sa) -> Opener:
    cipher, mode = _block_cipher(sa)
    sizes = cipher_sizes(sa.cipher)
    key, digest, icv_bytes = (
        sa.integrity_key.reveal(),
        INTEGRITY_DIGESTS[sa.integrity],
        INTEGRITY_ICV_BYTES[sa.integrity],
    )
    start, unit, esn = HEADER_BYTES + sizes.iv, max(sizes.block, 4), sa.esn
    shortest = start + unit + icv_bytes

    def open_packet(packet: bytes, sequence: int) -> bytes | None:
        if len(packet) < shortest or (len(packet) - start - icv_bytes) % unit:
            return None
        covered = packet[:-icv_bytes] + (sequence >> 32).to_bytes(4) if esn else packet[:-icv_bytes]
        if not hmac.compare_digest(hmac.digest(key, covered, digest)[:icv_bytes], packet[-icv_bytes:]):
            return None
        decryptor = BlockCipher(cipher, mode(packet[HEADER_BYTES:start])).decryptor()
        return decryptor.update(packet[start:-icv_bytes]) + decryptor.finalize()

    return open_packet
