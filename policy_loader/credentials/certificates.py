"""X.509 certificates and CRLs as they are used here: read once, with everything that is looked at later at hand.

`cryptography` parses lazily and raises when a broken part is asked for; so all that matters is asked for in `parse`.
"""

import datetime
import functools
import hashlib
import warnings
from dataclasses import field
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from ipc import distinguished_name
from ipc.value import value
from policy_loader.credentials import keys
from policy_loader.credentials.keys import PublicKey

MAX_CERTIFICATE_BYTES = 16384
_PEM = b"-----BEGIN "
_DER = serialization.Encoding.DER
_STRONG_HASHES = (hashes.SHA224, hashes.SHA256, hashes.SHA384, hashes.SHA512)
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for DER that makes no sense, some of it only when a part is looked at."""


class CertificateError(ValueError):
    """A certificate, or a part of it that matters, can't be read."""


E = TypeVar("E", bound=x509.ExtensionType)


@value
class Certificate:
    """A certificate whose parts could all be read. Two with the same DER are the same."""

    der: bytes
    subject: bytes = field(compare=False, repr=False)
    """DER of the name, as the next one."""
    issuer: bytes = field(compare=False, repr=False)
    serial: int = field(compare=False)
    public_key: PublicKey = field(compare=False, repr=False)
    not_before: datetime.datetime = field(compare=False)
    not_after: datetime.datetime = field(compare=False)
    alternative_names: tuple[x509.GeneralName, ...] = field(compare=False, repr=False)
    extensions: x509.Extensions = field(compare=False, repr=False)
    parsed: x509.Certificate = field(compare=False, repr=False)

    def extension(self, kind: type[E]) -> E | None:
        """The extension of this class; None if it has none."""
        for one in self.extensions:
            if type(one.value) is kind:
                return one.value
        return None

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer are the same name (RFC 5280 section 6.1)."""
        return same_name(self.subject, self.issuer)

    @property
    def key_id(self) -> bytes:
        """SHA-1 of the SubjectPublicKeyInfo: how CERTREQ names an authority (RFC 7296 section 3.7)."""
        return hashlib.sha1(keys.public_key_info(self.public_key), usedforsecurity=False).digest()

    def __str__(self) -> str:
        name = distinguished_name.text(self.subject) or ", ".join(map(name_text, self.alternative_names))
        return f'"{name[:200]}" (serial {self.serial:x})'


@functools.lru_cache(maxsize=1024)
def parse(der: bytes) -> Certificate:
    """The certificate in these DER bytes; CertificateError."""
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise CertificateError(f"a certificate of {len(der)} bytes: at most {MAX_CERTIFICATE_BYTES} are taken")
    with without_warnings():
        try:
            parsed = x509.load_der_x509_certificate(der)
        except UNREADABLE:
            raise CertificateError("no X.509 certificate") from None
        try:
            return _with_its_parts(der, parsed)
        except UNREADABLE as error:
            raise CertificateError(f"a certificate that can't be used: {error}") from None


def _with_its_parts(der: bytes, parsed: x509.Certificate) -> Certificate:
    extensions = parsed.extensions
    alternative: x509.SubjectAlternativeName | None = None
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            alternative = extension.value
    parsed.signature_algorithm_parameters  # noqa: B018 - raises for what is not known
    return Certificate(
        der=der,
        subject=parsed.subject.public_bytes(),
        issuer=parsed.issuer.public_bytes(),
        serial=parsed.serial_number,
        public_key=keys.checked(parsed.public_key()),
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        alternative_names=tuple(alternative) if alternative is not None else (),
        extensions=extensions,
        parsed=parsed,
    )


def without_warnings() -> "warnings.catch_warnings[None]":
    """`cryptography` warns of what peers send, such as a country of three letters; a log is not a peer's to fill."""
    return warnings.catch_warnings(action="ignore")


def read_certificates(content: bytes) -> tuple[Certificate, ...]:
    """All certificates of a file, one or more in PEM or one in DER, in its order; CertificateError."""
    if _PEM not in content:
        return (parse(content),)
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError:
        raise CertificateError("no certificate in PEM or DER") from None
    return tuple(parse(one.public_bytes(_DER)) for one in found)


def is_weak(algorithm: hashes.HashAlgorithm | None) -> bool:
    """Whether a signature over this hash proves nothing (SHA-1, MD5); EdDSA has none of its own."""
    return algorithm is not None and not isinstance(algorithm, _STRONG_HASHES)


def same_name(one: bytes, other: bytes) -> bool:
    """Whether two names in DER are the same (RFC 5280 section 7.1)."""
    return one == other or distinguished_name.same(one, other)


def name_text(name: x509.GeneralName) -> str:
    """A name of a subjectAltName, for people."""
    match name:
        case x509.DirectoryName():
            return distinguished_name.text(name.value.public_bytes())
        case x509.DNSName() | x509.RFC822Name() | x509.UniformResourceIdentifier() | x509.IPAddress():
            return str(name.value)
        case _:
            return type(name).__name__
