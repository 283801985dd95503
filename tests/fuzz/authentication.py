"""What the fuzzer has a peer send to be authenticated, and an authority that the policy trusts.

The bytes are a list of things: a kind, two bytes of length, the thing. A certificate may come as its TBSCertificate
alone, which is then signed by the authority, so that its content is looked at and not only its signature.
"""

import datetime
import functools
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from ipc.types import Identity, IdType
from policy_loader.credentials import certificates
from policy_loader.credentials.chain import Trust
from policy_loader.credentials.revocation import RevocationRules
from tests.lab import pki

NOW = pki.utc_now()
CERTIFICATE, SIGNED, CRL, OCSP, AUTH = range(5)
IDENTITIES = (
    Identity(type=IdType.FQDN, data=b"gw.example.net"),
    Identity(type=IdType.RFC822_ADDR, data=b"admin@example.net"),
    Identity(type=IdType.IPV4_ADDR, data=bytes((192, 0, 2, 1))),
    Identity(type=IdType.IPV6_ADDR, data=bytes(16)),
    Identity(type=IdType.KEY_ID, data=b"key"),
    Identity(type=IdType.DER_ASN1_DN, data=b"0\0"),
)
_ED25519 = bytes.fromhex("300506032b6570")
_METHODS = (1, 9, 10, 11, 14, 2)


@functools.cache
def authority() -> pki.Authority:
    """The one that is trusted; its key is the same in each run, so what was found can be tried again."""
    return pki.root(key=Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


@functools.cache
def trust() -> Trust:
    """The policy's."""
    known = certificates.parse(authority().der)
    return Trust(authorities=(known,), revocation=RevocationRules())


@dataclass(slots=True, kw_only=True)
class Sent:
    """What came."""

    certificates: list[bytes] = field(default_factory=list)
    crls: list[bytes] = field(default_factory=list)
    ocsp_responses: list[bytes] = field(default_factory=list)
    signatures: list[tuple[int, bytes]] = field(default_factory=list)
    """AUTH method and data."""


def taken_apart(data: bytes) -> Sent:
    """Any bytes."""
    sent = Sent()
    while len(data) >= 3:
        kind, length = data[0], int.from_bytes(data[1:3])
        thing, data = data[3 : 3 + length], data[3 + length :]
        if kind == SIGNED:
            sent.certificates.append(signed(thing))
        elif kind == CRL:
            sent.crls.append(thing)
        elif kind == OCSP:
            sent.ocsp_responses.append(thing)
        elif kind >= AUTH:
            sent.signatures.append((_METHODS[kind % len(_METHODS)], thing))
        else:
            sent.certificates.append(thing)
    return sent


def put_together(*things: tuple[int, bytes]) -> bytes:
    """The bytes of such a list."""
    return b"".join(bytes((kind,)) + len(thing).to_bytes(2) + thing for kind, thing in things)


def signed(tbs: bytes) -> bytes:
    """A certificate with this content by the authority (RFC 5280 section 4.1), whatever the content is."""
    signature = authority().key.sign(tbs)  # type: ignore[union-attr,call-arg]
    return _tlv(0x30, tbs + _ED25519 + _tlv(0x03, b"\0" + signature))


def seeds() -> list[bytes]:
    """What honest peers send, and some of what they may not."""
    ca = authority()
    end = ca.issue("CN=gw,O=Example", ["gw.example.net", "admin@example.net", "192.0.2.1"])
    middle = ca.authority("CN=Middle,O=Example", path_length=0)
    below = middle.issue("CN=below", ["gw.example.net"])
    crl = pki.x509.load_pem_x509_crl(ca.crl(end, this_update=NOW - datetime.timedelta(days=1)))
    return [
        put_together((CERTIFICATE, end.der), (AUTH, b"\x0c" + bytes(76))),
        put_together((CERTIFICATE, below.der), (CERTIFICATE, middle.der)),
        put_together((SIGNED, end.certificate.tbs_certificate_bytes)),
        put_together((CERTIFICATE, below.der), (SIGNED, middle.certificate.tbs_certificate_bytes)),
        put_together((CERTIFICATE, end.der), (CRL, crl.public_bytes(Encoding.DER))),
        put_together((CERTIFICATE, end.der), (OCSP, ca.ocsp(end))),
    ]


def _tlv(tag: int, value: bytes) -> bytes:
    length = len(value)
    if length < 128:
        return bytes((tag, length)) + value
    octets = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(octets))) + octets + value
