"""Keys for signatures: RSA, ECDSA on the NIST curves, Ed25519 and Ed448, from PEM or DER as they stand in files.

What a file holds is never quoted in an error.
"""

from collections.abc import Mapping
from types import MappingProxyType

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from ipc.types import Secret

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey

SHORTEST_RSA_BITS = 2048
LONGEST_RSA_BITS = 8192
"""A longer one costs more to look at than a stranger should be able to cost us, as does a longer exponent."""
LONGEST_RSA_EXPONENT_BITS = 64
CURVES: Mapping[str, str] = MappingProxyType({"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"})

_PEM = b"-----BEGIN "
_KINDS = "RSA, ECDSA on P-256, P-384 or P-521, Ed25519 or Ed448"


def read_private_key(content: Secret) -> PrivateKey:
    """The private key in a file, PEM or DER, PKCS#8 or the older forms; ValueError."""
    data = content.reveal()
    load = serialization.load_pem_private_key if _PEM in data else serialization.load_der_private_key
    try:
        key = load(data, None)
    except TypeError:
        raise ValueError("the key is encrypted: write it without a passphrase, into a file of mode 0600") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no private key in PEM or DER") from None
    if not isinstance(key, PrivateKey):
        raise ValueError(f"a key of a kind that can't sign here: it must be {_KINDS}")
    checked(key.public_key())
    return key


def read_public_key(content: bytes) -> PublicKey:
    """The public key in a file: a SubjectPublicKeyInfo in PEM or DER, or that of a certificate; ValueError."""
    pem = _PEM in content
    try:
        key: object = (serialization.load_pem_public_key if pem else serialization.load_der_public_key)(content)
    except UnsupportedAlgorithm:
        raise ValueError(f"a key of a kind that is not known here: it must be {_KINDS}") from None
    except ValueError:
        key = _key_of_certificate(content, pem=pem)
    return checked(key)


def _key_of_certificate(content: bytes, *, pem: bool) -> object:
    try:
        return (x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate)(content).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no public key and no certificate, in PEM or DER") from None


def checked(key: object) -> PublicKey:
    """`key`, if it is one that signatures are taken of; ValueError with what it is instead."""
    if isinstance(key, rsa.RSAPublicKey):
        if not SHORTEST_RSA_BITS <= key.key_size <= LONGEST_RSA_BITS:
            raise ValueError(
                f"an RSA key of {key.key_size} bits: from {SHORTEST_RSA_BITS} to {LONGEST_RSA_BITS} are taken"
            )
        if key.public_numbers().e.bit_length() > LONGEST_RSA_EXPONENT_BITS:
            raise ValueError(f"an RSA key with a public exponent of more than {LONGEST_RSA_EXPONENT_BITS} bits")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in CURVES:
            raise ValueError(f"an elliptic curve key on {key.curve.name}: P-256, P-384 and P-521 are taken")
        return key
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return key
    raise ValueError(f"a key of a kind that is not known here: it must be {_KINDS}")


def public_key_info(key: PublicKey) -> bytes:
    """The key's SubjectPublicKeyInfo in DER (RFC 5280 section 4.1.2.7)."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def name_of(key: PublicKey) -> str:
    """What kind of key it is, for people."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {CURVES[key.curve.name]}"
    return "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else "Ed448"
