"""Signatures in AUTH payloads.

Method 14, Digital Signature, names its algorithm itself and uses a hash that the other side has listed (RFC 7427);
EdDSA is part of it under the hash IDENTITY (RFC 8420). A peer that lists none is an old one: for it there are ECDSA's
own methods 9 to 11 (RFC 4754), and method 1, RSA with SHA-1 (RFC 7296 section 3.8), which the policy must allow.
"""

import functools
from collections.abc import Collection, Mapping
from types import MappingProxyType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from ipc import der
from ipc.types import OFFERED_SIGNATURE_HASHES, AuthMethod, SignatureHash
from ipc.value import value
from policy_loader.credentials.keys import CURVES, PrivateKey, PublicKey, name_of

_HASHES: Mapping[SignatureHash, hashes.HashAlgorithm] = MappingProxyType(
    {
        SignatureHash.SHA1: hashes.SHA1(),
        SignatureHash.SHA2_256: hashes.SHA256(),
        SignatureHash.SHA2_384: hashes.SHA384(),
        SignatureHash.SHA2_512: hashes.SHA512(),
    }
)


class SignatureRefused(Exception):
    """A signature that is wrong or of a kind that is not taken, or that can't be made; says why, for our operator."""


@value
class Signature:
    """The content of an AUTH payload."""

    method: AuthMethod
    data: bytes


@value
class SigningRules:
    """What a peer's entry in the policy says of signatures."""

    pss: bool = True
    """RSA signs by PSS, else by PKCS #1 v1.5. Both are taken from the peer."""
    sha1: bool = False
    """RSA with SHA-1 is used with, and taken from, a peer that speaks no RFC 7427."""


# ------------------------------------------------------------------ algorithm identifiers

_RSA_OIDS = {
    "1.2.840.113549.1.1.5": SignatureHash.SHA1,
    "1.2.840.113549.1.1.11": SignatureHash.SHA2_256,
    "1.2.840.113549.1.1.12": SignatureHash.SHA2_384,
    "1.2.840.113549.1.1.13": SignatureHash.SHA2_512,
}
_ECDSA_OIDS = {
    "1.2.840.10045.4.1": SignatureHash.SHA1,
    "1.2.840.10045.4.3.2": SignatureHash.SHA2_256,
    "1.2.840.10045.4.3.3": SignatureHash.SHA2_384,
    "1.2.840.10045.4.3.4": SignatureHash.SHA2_512,
}
_PSS_OID = "1.2.840.113549.1.1.10"
_ED25519_OID = "1.3.101.112"
_ED448_OID = "1.3.101.113"
_MGF1_OID = "1.2.840.113549.1.1.8"
_HASH_OIDS = {
    "1.3.14.3.2.26": SignatureHash.SHA1,
    "2.16.840.1.101.3.4.2.1": SignatureHash.SHA2_256,
    "2.16.840.1.101.3.4.2.2": SignatureHash.SHA2_384,
    "2.16.840.1.101.3.4.2.3": SignatureHash.SHA2_512,
}
_NULL = b"\x05\x00"

# RFC 7427 appendix A
RSA_IDENTIFIERS: Mapping[SignatureHash, bytes] = MappingProxyType(
    {
        SignatureHash.SHA2_256: bytes.fromhex("300d06092a864886f70d01010b0500"),
        SignatureHash.SHA2_384: bytes.fromhex("300d06092a864886f70d01010c0500"),
        SignatureHash.SHA2_512: bytes.fromhex("300d06092a864886f70d01010d0500"),
    }
)
ECDSA_IDENTIFIERS: Mapping[SignatureHash, bytes] = MappingProxyType(
    {
        SignatureHash.SHA2_256: bytes.fromhex("300a06082a8648ce3d040302"),
        SignatureHash.SHA2_384: bytes.fromhex("300a06082a8648ce3d040303"),
        SignatureHash.SHA2_512: bytes.fromhex("300a06082a8648ce3d040304"),
    }
)
_PSS_IDENTIFIER = (
    "304106092a864886f70d01010a3034"
    "a00f300d060960864801650304020{0}0500"
    "a11c301a06092a864886f70d010108300d060960864801650304020{0}0500"
    "a2030201{1}"
)
PSS_IDENTIFIERS: Mapping[SignatureHash, bytes] = MappingProxyType(
    {
        SignatureHash.SHA2_256: bytes.fromhex(_PSS_IDENTIFIER.format(1, "20")),
        SignatureHash.SHA2_384: bytes.fromhex(_PSS_IDENTIFIER.format(2, "30")),
        SignatureHash.SHA2_512: bytes.fromhex(_PSS_IDENTIFIER.format(3, "40")),
    }
)
# RFC 8420 appendix A
ED25519_IDENTIFIER = bytes.fromhex("300506032b6570")
ED448_IDENTIFIER = bytes.fromhex("300506032b6571")


@value
class Algorithm:
    """What an AlgorithmIdentifier says."""

    oid: str
    hash: SignatureHash
    salt_bytes: int = 0
    """PSS only."""


@functools.lru_cache(maxsize=64)
def read_algorithm(identifier: bytes) -> Algorithm:
    """The signature algorithm of an AlgorithmIdentifier in DER; SignatureRefused."""
    try:
        oid_element, *parameters = der.children(der.read(identifier), der.SEQUENCE)
        oid = der.object_identifier(oid_element)
        if oid == _PSS_OID and len(parameters) == 1:
            return _read_pss(parameters[0])
    except ValueError as error:
        raise SignatureRefused(f"the algorithm identifier {identifier.hex()} can't be read: {error}") from None
    if [one.encoded for one in parameters] not in ([], [_NULL]):
        raise SignatureRefused(f"the algorithm identifier {identifier.hex()} has parameters that don't belong there")
    known = {**_RSA_OIDS, **_ECDSA_OIDS, _ED25519_OID: SignatureHash.IDENTITY, _ED448_OID: SignatureHash.IDENTITY}
    if oid not in known:
        raise SignatureRefused(f"the signature algorithm {oid} is not known here")
    return Algorithm(oid=oid, hash=known[oid])


def _read_pss(parameters: der.Element) -> Algorithm:
    """RSASSA-PSS-params (RFC 8017 appendix A.2.3), the defaults of which are SHA-1's."""
    fields = {one.tag: der.read(one.content) for one in der.children(parameters, der.SEQUENCE)}
    hash_ = mask_hash = SignatureHash.SHA1
    if 0xA0 in fields:
        hash_ = _read_hash(fields[0xA0])
    if 0xA1 in fields:
        function, inner = der.children(fields[0xA1], der.SEQUENCE)
        if der.object_identifier(function) != _MGF1_OID:
            raise der.DerError("a mask generation function other than MGF1")
        mask_hash = _read_hash(inner)
    if mask_hash is not hash_:
        raise der.DerError("MGF1 with another hash than that of the message")
    salt_bytes = _small_integer(fields[0xA2]) if 0xA2 in fields else 20
    if not set(fields) <= {0xA0, 0xA1, 0xA2, 0xA3} or (0xA3 in fields and _small_integer(fields[0xA3]) != 1):
        raise der.DerError("parameters that RSASSA-PSS does not have")
    return Algorithm(oid=_PSS_OID, hash=hash_, salt_bytes=salt_bytes)


def _read_hash(element: der.Element) -> SignatureHash:
    oid_element, *parameters = der.children(element, der.SEQUENCE)
    oid = der.object_identifier(oid_element)
    if oid not in _HASH_OIDS or [one.encoded for one in parameters] not in ([], [_NULL]):
        raise der.DerError(f"the hash {oid} is not known here")
    return _HASH_OIDS[oid]


def _small_integer(element: der.Element) -> int:
    if element.tag != der.INTEGER or not 1 <= len(element.content) <= 2:
        raise der.DerError("no small integer")
    return int.from_bytes(element.content, "big")


# ------------------------------------------------------------------ making


def sign(key: PrivateKey, octets: bytes, peer_hashes: Collection[int], rules: SigningRules) -> Signature:
    """Our AUTH over `octets`, in the best way that the peer understands; SignatureRefused if there is none."""
    if not peer_hashes:
        return _sign_old(key, octets, rules)
    hash_ = _chosen_hash(key, peer_hashes)
    if isinstance(key, rsa.RSAPrivateKey):
        if rules.pss:
            return _digital(PSS_IDENTIFIERS[hash_], key.sign(octets, _pss(hash_), _HASHES[hash_]))
        return _digital(RSA_IDENTIFIERS[hash_], key.sign(octets, padding.PKCS1v15(), _HASHES[hash_]))
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _digital(ECDSA_IDENTIFIERS[hash_], key.sign(octets, ec.ECDSA(_HASHES[hash_])))
    identifier = ED25519_IDENTIFIER if isinstance(key, ed25519.Ed25519PrivateKey) else ED448_IDENTIFIER
    return _digital(identifier, key.sign(octets))


_SHA2 = (SignatureHash.SHA2_256, SignatureHash.SHA2_384, SignatureHash.SHA2_512)
_FOR_CURVE = {
    "secp256r1": SignatureHash.SHA2_256,
    "secp384r1": SignatureHash.SHA2_384,
    "secp521r1": SignatureHash.SHA2_512,
}


def _chosen_hash(key: PrivateKey, peer_hashes: Collection[int]) -> SignatureHash:
    wanted: tuple[SignatureHash, ...] = (SignatureHash.IDENTITY,)
    if isinstance(key, rsa.RSAPrivateKey):
        wanted = _SHA2
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        best = _FOR_CURVE[key.curve.name]
        wanted = (best, *(one for one in reversed(_SHA2) if one is not best))
    found = next((one for one in wanted if one in peer_hashes), None)
    if found is None:
        raise SignatureRefused(
            f"our {name_of(key.public_key())} key needs {_names(wanted)}, the peer takes {_names(peer_hashes)} only"
        )
    return found


def _names(numbers: Collection[int]) -> str:
    known = SignatureHash._value2member_map_
    return " or ".join(SignatureHash(one).name if one in known else f"hash {one}" for one in numbers)


def _pss(hash_: SignatureHash) -> padding.PSS:
    algorithm = _HASHES[hash_]
    return padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)


def _digital(identifier: bytes, signature: bytes) -> Signature:
    data = bytes((len(identifier),)) + identifier + signature
    return Signature(method=AuthMethod.DIGITAL_SIGNATURE, data=data)


_OLD_METHODS = {
    "secp256r1": AuthMethod.ECDSA_P256,
    "secp384r1": AuthMethod.ECDSA_P384,
    "secp521r1": AuthMethod.ECDSA_P521,
}


def _sign_old(key: PrivateKey, octets: bytes, rules: SigningRules) -> Signature:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        curve = key.curve
        r, s = decode_dss_signature(key.sign(octets, ec.ECDSA(_HASHES[_FOR_CURVE[curve.name]])))
        size = (curve.key_size + 7) // 8
        data = r.to_bytes(size, "big") + s.to_bytes(size, "big")
        return Signature(method=_OLD_METHODS[curve.name], data=data)
    if isinstance(key, rsa.RSAPrivateKey):
        _allow_sha1(rules)
        return Signature(method=AuthMethod.RSA_SIGNATURE, data=key.sign(octets, padding.PKCS1v15(), hashes.SHA1()))
    raise SignatureRefused(
        f"the peer lists no hash algorithms (RFC 7427), and without them there is no {name_of(key.public_key())}"
    )


def _allow_sha1(rules: SigningRules) -> None:
    if not rules.sha1:
        raise SignatureRefused(
            "the peer does not use RFC 7427, so RSA is with SHA-1: update it, or, if you must speak with it as it is, "
            "write sha1_signatures = true"
        )


# ------------------------------------------------------------------ looking at


def verify(key: PublicKey, method: int, data: bytes, octets: bytes, rules: SigningRules) -> str:
    """How `data` is the AUTH over `octets` by the holder of `key`, for people; SignatureRefused if it is not."""
    try:
        if method == AuthMethod.DIGITAL_SIGNATURE:
            return _verify_digital(key, data, octets)
        if method in _OLD_METHODS.values():
            return _verify_old_ecdsa(key, method, data, octets)
        if method == AuthMethod.RSA_SIGNATURE:
            return _verify_old_rsa(key, data, octets, rules)
    except InvalidSignature:
        raise SignatureRefused(f"its signature is not made with the {name_of(key)} key that it should be") from None
    raise SignatureRefused(f"it authenticates by method {method}, where a signature is wanted")


def _verify_digital(key: PublicKey, data: bytes, octets: bytes) -> str:
    size = data[0] if data else 0
    identifier, signature = data[1 : 1 + size], data[1 + size :]
    algorithm = read_algorithm(identifier)
    if algorithm.hash not in OFFERED_SIGNATURE_HASHES:
        raise SignatureRefused(f"its signature uses {algorithm.hash.name}, which was not offered")
    oid, hash_ = algorithm.oid, algorithm.hash
    if isinstance(key, rsa.RSAPublicKey) and oid in _RSA_OIDS:
        key.verify(signature, octets, padding.PKCS1v15(), _HASHES[hash_])
        return f"{name_of(key)} {hash_.name}"
    if oid == _PSS_OID:
        verify_pss(key, identifier, signature, octets)
        return f"{name_of(key)} PSS {hash_.name}"
    if isinstance(key, ec.EllipticCurvePublicKey) and oid in _ECDSA_OIDS:
        key.verify(signature, octets, ec.ECDSA(_HASHES[hash_]))
        return f"{name_of(key)} {hash_.name}"
    if (isinstance(key, ed25519.Ed25519PublicKey) and oid == _ED25519_OID) or (
        isinstance(key, ed448.Ed448PublicKey) and oid == _ED448_OID
    ):
        key.verify(signature, octets)
        return name_of(key)
    raise SignatureRefused(f"its signature algorithm {oid} does not go with its {name_of(key)} key")


def verify_pss(key: PublicKey, identifier: bytes, signature: bytes, octets: bytes) -> None:
    """RSASSA-PSS as the AlgorithmIdentifier says; SignatureRefused or InvalidSignature, also for SHA-1."""
    algorithm = read_algorithm(identifier)
    if not isinstance(key, rsa.RSAPublicKey) or algorithm.oid != _PSS_OID or algorithm.hash is SignatureHash.SHA1:
        raise SignatureRefused(f"its signature algorithm {algorithm.oid} does not go with its {name_of(key)} key")
    hash_ = _HASHES[algorithm.hash]
    key.verify(signature, octets, padding.PSS(padding.MGF1(hash_), algorithm.salt_bytes), hash_)


def _verify_old_ecdsa(key: PublicKey, method: int, data: bytes, octets: bytes) -> str:
    """RFC 4754 section 7: r and s, each as long as the curve's order."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or _OLD_METHODS[key.curve.name] != method:
        raise SignatureRefused(f"its authentication method {method} does not go with its {name_of(key)} key")
    size = (key.curve.key_size + 7) // 8
    if len(data) != 2 * size:
        raise SignatureRefused(f"its signature has {len(data)} bytes, and one on {CURVES[key.curve.name]} {2 * size}")
    signature = encode_dss_signature(int.from_bytes(data[:size], "big"), int.from_bytes(data[size:], "big"))
    hash_ = _FOR_CURVE[key.curve.name]
    key.verify(signature, octets, ec.ECDSA(_HASHES[hash_]))
    return f"{name_of(key)} {hash_.name}"


def _verify_old_rsa(key: PublicKey, data: bytes, octets: bytes, rules: SigningRules) -> str:
    """RFC 7296 section 3.8: SHA-1 is usual, and a peer may use a better hash, which the signature itself names."""
    if not isinstance(key, rsa.RSAPublicKey):
        raise SignatureRefused(f"its authentication method 1 does not go with its {name_of(key)} key")
    for hash_ in _SHA2:
        try:
            key.verify(data, octets, padding.PKCS1v15(), _HASHES[hash_])
        except InvalidSignature:
            continue
        return f"{name_of(key)} {hash_.name}"
    key.verify(data, octets, padding.PKCS1v15(), hashes.SHA1())
    _allow_sha1(rules)
    return f"{name_of(key)} SHA-1"
