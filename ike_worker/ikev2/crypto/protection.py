"""The cryptography of the Encrypted payload. RFC 7296 section 3.14, RFC 5282 (AEAD), RFC 7634 (ChaCha20-Poly1305).

AEAD: nonce = salt | IV, the associated data is the message up to the end of the Encrypted payload's generic header.
AES-CBC, AES-CTR (RFC 5930), 3DES: encrypt, then HMAC over the message up to the end of the ciphertext.
"""

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from ike_worker.ikev2.errors import IntegrityFailure, LocalError, MalformedMessage
from ipc.algorithms import (
    INTEGRITY_DIGESTS,
    INTEGRITY_ICV_BYTES,
    INTEGRITY_KEY_BYTES,
    Cipher,
    EncryptionId,
    IntegrityId,
    cipher_sizes,
)
from ipc.types import Secret

_CCM = frozenset({EncryptionId.AES_CCM_8, EncryptionId.AES_CCM_12, EncryptionId.AES_CCM_16})
_FIRST_BLOCK = (1).to_bytes(4)
"""RFC 3686 section 4: the block counter of AES-CTR begins with one."""


class MessageProtection:
    """One direction of an IKE SA: seals or opens the Encrypted payloads of its messages."""

    __slots__ = ("_aead", "_block", "_cipher", "_cipher_key", "_digest", "_icv", "_integrity_key", "_salt", "iv_bytes")

    def __init__(self, cipher: Cipher, integrity: IntegrityId, encryption_key: Secret, integrity_key: Secret) -> None:
        """`encryption_key` is SK_ei or SK_er: the key with its salt behind it. `integrity_key` is SK_ai or SK_ar,
        empty with a combined-mode cipher. LocalError where their lengths or the pair of algorithms are not right."""
        sizes = cipher_sizes(cipher)
        if sizes.aead is not (integrity is IntegrityId.NONE):
            raise LocalError(f"{cipher.id.name} with integrity {integrity.name}")
        if len(encryption_key) != sizes.key + sizes.salt or len(integrity_key) != INTEGRITY_KEY_BYTES[integrity]:
            raise LocalError(f"{cipher.id.name} with {integrity.name}: keys of a wrong length")
        material = encryption_key.reveal()
        self.iv_bytes = sizes.iv
        """Length of the IV in bytes."""
        self._block = sizes.block
        self._icv = sizes.icv or INTEGRITY_ICV_BYTES[integrity]
        self._salt = material[sizes.key :]
        self._cipher_key = material[: sizes.key]
        self._integrity_key = integrity_key.reveal()
        self._digest = INTEGRITY_DIGESTS.get(integrity, "")
        self._cipher = cipher.id
        self._aead = _aead(cipher.id, self._cipher_key, sizes.icv) if sizes.aead else None

    @property
    def overhead(self) -> int:
        """The most bytes that protection adds to a plaintext: IV, padding, pad length and ICV."""
        return self.iv_bytes + self._block + self._icv

    def sealed_bytes(self, plaintext_bytes: int) -> int:
        """How long `seal` makes a plaintext of this length."""
        return self.iv_bytes + plaintext_bytes + self._padding(plaintext_bytes) + 1 + self._icv

    def seal(self, associated: bytes, plaintext: bytes, iv: bytes) -> bytes:
        """IV, ciphertext and ICV. `associated` is the message up to the end of the generic payload header.

        `iv` has `iv_bytes` bytes: with a combined-mode cipher it MUST never repeat under one key (RFC 5282 section
        3.1), with AES-CTR too;
        with AES-CBC nobody may be able to foretell it.
        """
        if len(iv) != self.iv_bytes:
            raise LocalError(f"an IV of {len(iv)} bytes, not {self.iv_bytes}")
        padding = self._padding(len(plaintext))
        padded = plaintext + bytes(padding) + bytes((padding,))
        if self._aead is not None:
            return iv + self._aead.encrypt(self._salt + iv, padded, associated)
        encryptor = self._block_cipher(iv).encryptor()
        sealed = iv + encryptor.update(padded) + encryptor.finalize()
        return sealed + self._mac(associated + sealed)

    def open(self, associated: bytes, body: bytes) -> bytes:
        """The plaintext without its padding. IntegrityFailure, or MalformedMessage if authentic but padded wrongly."""
        if len(body) < self.iv_bytes + 1 + self._icv:
            raise IntegrityFailure(f"Encrypted: {len(body)} bytes are too few")
        padded = self._open_aead(associated, body) if self._aead is not None else self._open_block(associated, body)
        end = len(padded) - 1 - padded[-1]
        if end < 0:
            raise MalformedMessage(f"Encrypted: {padded[-1]} bytes of padding in {len(padded)} bytes")
        return padded[:end]

    def _open_aead(self, associated: bytes, body: bytes) -> bytes:
        assert self._aead is not None
        try:
            return self._aead.decrypt(self._salt + body[: self.iv_bytes], body[self.iv_bytes :], associated)
        except InvalidTag:
            raise IntegrityFailure("Encrypted: the ICV is wrong") from None

    def _open_block(self, associated: bytes, body: bytes) -> bytes:
        sealed, icv = body[: -self._icv], body[-self._icv :]
        if not hmac.compare_digest(self._mac(associated + sealed), icv):
            raise IntegrityFailure("Encrypted: the ICV is wrong")
        ciphertext = sealed[self.iv_bytes :]
        if len(ciphertext) % self._block:
            raise MalformedMessage(f"Encrypted: {len(ciphertext)} bytes are not whole blocks")
        decryptor = self._block_cipher(sealed[: self.iv_bytes]).decryptor()
        return decryptor.update(ciphertext) + decryptor.finalize()

    def _block_cipher(self, iv: bytes) -> BlockCipher[modes.CBC] | BlockCipher[modes.CTR]:
        if self._cipher is EncryptionId.AES_CTR:
            return BlockCipher(algorithms.AES(self._cipher_key), modes.CTR(self._salt + iv + _FIRST_BLOCK))
        kind = TripleDES if self._cipher is EncryptionId.DES3 else algorithms.AES
        return BlockCipher(kind(self._cipher_key), modes.CBC(iv))

    def _padding(self, plaintext_bytes: int) -> int:
        """The least padding, not counting its length byte (RFC 7296 section 3.14)."""
        return -(plaintext_bytes + 1) % self._block

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._integrity_key, data, self._digest)[: self._icv]


def _aead(cipher: EncryptionId, key: bytes, icv: int) -> AESGCM | AESCCM | ChaCha20Poly1305:
    if cipher in _CCM:
        return AESCCM(key, tag_length=icv)
    return AESGCM(key) if cipher is EncryptionId.AES_GCM_16 else ChaCha20Poly1305(key)
