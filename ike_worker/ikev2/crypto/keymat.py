"""Keys of IKE SAs and Child SAs. RFC 7296 sections 2.14, 2.17 and 2.18."""

from ike_worker.ikev2.crypto.prf import prf, prf_plus
from ipc.algorithms import INTEGRITY_KEY_BYTES, PRF_BYTES, Cipher, IntegrityId, KeyExchangeId, PrfId, cipher_sizes
from ipc.types import Secret
from ipc.value import value


@value
class IkeSuite:
    """The algorithms that an IKE SA was negotiated with."""

    cipher: Cipher
    integrity: IntegrityId
    prf: PrfId
    key_exchange: KeyExchangeId


@value
class IkeKeys:
    """SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi, SK_pr (RFC 7296 section 2.14). In SK_e a salt stands behind the key."""

    sk_d: Secret
    sk_ai: Secret
    sk_ar: Secret
    sk_ei: Secret
    sk_er: Secret
    sk_pi: Secret
    sk_pr: Secret


@value
class ChildSuite:
    """The algorithms that a Child SA was negotiated with. `key_exchange` NONE: no fresh one."""

    cipher: Cipher
    integrity: IntegrityId
    esn: bool
    key_exchange: KeyExchangeId = KeyExchangeId.NONE


@value
class ChildKeys:
    """Keys of both directions; _i protects what the initiator of the exchange sends. A salt stands behind the key."""

    encryption_i: Secret
    integrity_i: Secret
    encryption_r: Secret
    integrity_r: Secret


def derive_ike_keys(
    suite: IkeSuite, *, shared: bytes, nonce_i: bytes, nonce_r: bytes, spi_i: bytes, spi_r: bytes
) -> IkeKeys:
    """The keys of a first IKE SA: SKEYSEED = prf(Ni | Nr, g^ir) (RFC 7296 section 2.14)."""
    skeyseed = prf(suite.prf, nonce_i + nonce_r, shared)
    return _expand(suite, skeyseed, nonce_i + nonce_r + spi_i + spi_r)


def derive_rekeyed_ike_keys(
    suite: IkeSuite,
    *,
    old_prf: PrfId,
    old_sk_d: Secret,
    shared: bytes,
    nonce_i: bytes,
    nonce_r: bytes,
    spi_i: bytes,
    spi_r: bytes,
) -> IkeKeys:
    """The keys of a rekeyed IKE SA: SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr), with the prf of the old IKE SA;
    nonces and SPIs are those of the exchange that rekeys (RFC 7296 section 2.18)."""
    skeyseed = prf(old_prf, old_sk_d.reveal(), shared + nonce_i + nonce_r)
    return _expand(suite, skeyseed, nonce_i + nonce_r + spi_i + spi_r)


def derive_child_keys(
    suite: ChildSuite, *, prf: PrfId, sk_d: Secret, nonce_i: bytes, nonce_r: bytes, shared: bytes = b""
) -> ChildKeys:
    """The keys of a Child SA: prf+(SK_d, g^ir (new) | Ni | Nr), the initiator's first (RFC 7296 section 2.17).

    `prf` is that of the IKE SA, `shared` is empty without a fresh key exchange.
    """
    sizes = cipher_sizes(suite.cipher)
    integrity = INTEGRITY_KEY_BYTES[suite.integrity]
    encryption = sizes.key + sizes.salt
    keys = _split(prf, sk_d.reveal(), shared + nonce_i + nonce_r, (encryption, integrity, encryption, integrity))
    return ChildKeys(encryption_i=keys[0], integrity_i=keys[1], encryption_r=keys[2], integrity_r=keys[3])


def _expand(suite: IkeSuite, skeyseed: bytes, seed: bytes) -> IkeKeys:
    """{SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr)."""
    sizes = cipher_sizes(suite.cipher)
    prf_key = PRF_BYTES[suite.prf]
    integrity = INTEGRITY_KEY_BYTES[suite.integrity]
    encryption = sizes.key + sizes.salt
    lengths = (prf_key, integrity, integrity, encryption, encryption, prf_key, prf_key)
    keys = _split(suite.prf, skeyseed, seed, lengths)
    return IkeKeys(
        sk_d=keys[0],
        sk_ai=keys[1],
        sk_ar=keys[2],
        sk_ei=keys[3],
        sk_er=keys[4],
        sk_pi=keys[5],
        sk_pr=keys[6],
    )


def _split(prf_id: PrfId, key: bytes, seed: bytes, lengths: tuple[int, ...]) -> list[Secret]:
    """prf+ cut into keys of these lengths."""
    stream = prf_plus(prf_id, key, seed, sum(lengths))
    keys = []
    start = 0
    for length in lengths:
        keys.append(Secret(stream[start : start + length]))
        start += length
    return keys
