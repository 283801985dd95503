"""Algorithms of a Child SA as XFRM attributes (struct xfrm_algo, _auth, _aead), by the kernel's names."""

import struct

from ipc.algorithms import INTEGRITY_ICV_BYTES, EncryptionId, IntegrityId, cipher_sizes
from ipc.messages import Sa
from kernel_agent.xfrm.constants import XfrmAttribute
from kernel_agent.xfrm.structs import pack_attribute

_ALGO = struct.Struct("=64sI")
_ALGO_ICV = struct.Struct("=64sII")

AEAD_NAMES = {
    EncryptionId.AES_CCM_8: b"rfc4309(ccm(aes))",
    EncryptionId.AES_CCM_12: b"rfc4309(ccm(aes))",
    EncryptionId.AES_CCM_16: b"rfc4309(ccm(aes))",
    EncryptionId.AES_GCM_16: b"rfc4106(gcm(aes))",
    EncryptionId.CHACHA20_POLY1305: b"rfc7539esp(chacha20,poly1305)",
}
CIPHER_NAMES = {
    EncryptionId.DES3: b"cbc(des3_ede)",
    EncryptionId.AES_CBC: b"cbc(aes)",
    EncryptionId.AES_CTR: b"rfc3686(ctr(aes))",
}
INTEGRITY_NAMES = {
    IntegrityId.HMAC_MD5_96: b"hmac(md5)",
    IntegrityId.HMAC_SHA1_96: b"hmac(sha1)",
    IntegrityId.HMAC_SHA2_256_128: b"hmac(sha256)",
    IntegrityId.HMAC_SHA2_384_192: b"hmac(sha384)",
    IntegrityId.HMAC_SHA2_512_256: b"hmac(sha512)",
}


def algorithm_attributes(sa: Sa) -> bytes:
    """The attributes that give the kernel the algorithms and keys of `sa`.

    struct xfrm_algo { char alg_name[64]; unsigned alg_key_len; char alg_key[]; };          lengths in bits
    struct xfrm_algo_auth { char alg_name[64]; unsigned alg_key_len, alg_trunc_len; char alg_key[]; };
    struct xfrm_algo_aead { char alg_name[64]; unsigned alg_key_len, alg_icv_len; char alg_key[]; };
    """
    key = sa.encryption_key.reveal()
    sizes = cipher_sizes(sa.cipher)
    if sizes.aead:
        header = _ALGO_ICV.pack(AEAD_NAMES[sa.cipher.id], len(key) * 8, sizes.icv * 8)
        return pack_attribute(XfrmAttribute.ALG_AEAD, header + key)
    crypt = _ALGO.pack(CIPHER_NAMES[sa.cipher.id], len(key) * 8) + key
    auth_key = sa.integrity_key.reveal()
    icv_bits = INTEGRITY_ICV_BYTES[sa.integrity] * 8
    auth = _ALGO_ICV.pack(INTEGRITY_NAMES[sa.integrity], len(auth_key) * 8, icv_bits) + auth_key
    return pack_attribute(XfrmAttribute.ALG_CRYPT, crypt) + pack_attribute(XfrmAttribute.ALG_AUTH_TRUNC, auth)
