"""Wireshark's tables of keys: its own format of preferences ("user accessible tables"), one SA a line.

The names of algorithms are those of Wireshark 4.0 and later; what it can't decrypt has no line.
"""

from collections.abc import Mapping

from ipc.algorithms import Cipher, EncryptionId, IntegrityId, cipher_name
from ipc.types import Secret
from ipc.wishes import EspSaKeys, IkeSaKeys

IKE_TABLE = "ikev2_decryption_table"
ESP_TABLE = "esp_sa"

_ICV_BYTES: Mapping[EncryptionId, int] = {
    EncryptionId.AES_GCM_16: 16,
    EncryptionId.AES_CCM_8: 8,
    EncryptionId.AES_CCM_12: 12,
    EncryptionId.AES_CCM_16: 16,
}
_IKE_MODES: Mapping[EncryptionId, str] = {
    EncryptionId.AES_CBC: "AES-CBC-{bits} [RFC3602]",
    EncryptionId.AES_CTR: "AES-CTR-{bits} [RFC5930]",
    EncryptionId.AES_GCM_16: "AES-GCM-{bits} with {icv} octet ICV [RFC5282]",
    EncryptionId.AES_CCM_8: "AES-CCM-{bits} with {icv} octet ICV [RFC5282]",
    EncryptionId.AES_CCM_12: "AES-CCM-{bits} with {icv} octet ICV [RFC5282]",
    EncryptionId.AES_CCM_16: "AES-CCM-{bits} with {icv} octet ICV [RFC5282]",
    EncryptionId.DES3: "3DES [RFC2451]",
}
_IKE_INTEGRITY: Mapping[IntegrityId, str] = {
    IntegrityId.NONE: "NONE [RFC4306]",
    IntegrityId.HMAC_MD5_96: "HMAC_MD5_96 [RFC2403]",
    IntegrityId.HMAC_SHA1_96: "HMAC_SHA1_96 [RFC2404]",
    IntegrityId.HMAC_SHA2_256_128: "HMAC_SHA2_256_128 [RFC4868]",
    IntegrityId.HMAC_SHA2_384_192: "HMAC_SHA2_384_192 [RFC4868]",
    IntegrityId.HMAC_SHA2_512_256: "HMAC_SHA2_512_256 [RFC4868]",
}
_ESP_CIPHERS: Mapping[EncryptionId, str] = {
    EncryptionId.AES_CBC: "AES-CBC [RFC3602]",
    EncryptionId.AES_CTR: "AES-CTR [RFC3686]",
    EncryptionId.AES_GCM_16: "AES-GCM with 16 octet ICV [RFC4106]",
    EncryptionId.DES3: "TripleDES-CBC [RFC2451]",
}
_ESP_INTEGRITY: Mapping[IntegrityId, str] = {
    IntegrityId.NONE: "NULL",
    IntegrityId.HMAC_MD5_96: "HMAC-MD5-96 [RFC2403]",
    IntegrityId.HMAC_SHA1_96: "HMAC-SHA-1-96 [RFC2404]",
    IntegrityId.HMAC_SHA2_256_128: "HMAC-SHA-256-128 [RFC4868]",
    IntegrityId.HMAC_SHA2_384_192: "HMAC-SHA-384-192 [RFC4868]",
    IntegrityId.HMAC_SHA2_512_256: "HMAC-SHA-512-256 [RFC4868]",
}


def ike_line(keys: IkeSaKeys) -> str | None:
    """The line of an IKE SA in IKE_TABLE; None where Wireshark can't decrypt it."""
    cipher = _ike_cipher(keys.cipher)
    if cipher is None:
        return None
    fields = (
        *(keys.spi_i.hex(), keys.spi_r.hex(), _hex(keys.sk_ei), _hex(keys.sk_er), _quoted(cipher)),
        *(_hex(keys.sk_ai), _hex(keys.sk_ar), _quoted(_IKE_INTEGRITY[keys.integrity])),
    )
    return ",".join(fields)


def esp_line(keys: EspSaKeys) -> str | None:
    """The line of one direction of a Child SA in ESP_TABLE; None where Wireshark can't decrypt it."""
    cipher = _ESP_CIPHERS.get(keys.cipher.id)
    if cipher is None:
        return None
    fields = [
        f"IPv{keys.source.version}",
        str(keys.source),
        str(keys.destination),
        f"0x{keys.spi:08x}",
        cipher,
        _number(keys.encryption_key),
        _ESP_INTEGRITY[keys.integrity],
        _number(keys.integrity_key),
    ]
    if keys.esn:
        # Since Wireshark 4.2; before, it says that it discards them, and decrypts all the same.
        fields += ["64-bit", "0"]
    return ",".join(_quoted(one) for one in fields)


def unreadable(ciphers: set[Cipher]) -> str:
    """What is said where SAs have no line."""
    return f"Wireshark can't decrypt {', '.join(sorted(cipher_name(one) for one in ciphers))}: these SAs are left out"


def _ike_cipher(cipher: Cipher) -> str | None:
    name = _IKE_MODES.get(cipher.id)
    return None if name is None else name.format(bits=cipher.key_bits, icv=_ICV_BYTES.get(cipher.id, 0))


def _hex(secret: Secret) -> str:
    return secret.reveal().hex()


def _number(secret: Secret) -> str:
    return f"0x{secret.reveal().hex()}" if secret else ""


def _quoted(text: str) -> str:
    return f'"{text}"'
