"""Certification authorities, certificates, CRLs and OCSP responses for tests, each with the flaw that a test wants."""

import datetime
import functools
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from ipc.types import SignatureHash
from policy_loader.credentials.signatures import PSS_IDENTIFIERS

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

KINDS = ("rsa", "p256", "p384", "p521", "ed25519", "ed448")
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
DAY = datetime.timedelta(days=1)


def utc_now() -> datetime.datetime:
    """The time, in whole seconds."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def new_key(kind: str) -> Key:
    """A fresh key of one of KINDS."""
    match kind:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "p521":
            return ec.generate_private_key(ec.SECP521R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ed448":
            return ed448.Ed448PrivateKey.generate()
    raise ValueError(kind)


@functools.cache
def some_key(kind: str, number: int = 0) -> Key:
    """A key that is made once: number `number` of its kind."""
    return new_key(kind)


def key_pem(key: Key) -> bytes:
    """The private key as a file holds it."""
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def public_pem(key: Key) -> bytes:
    """The public key as a file holds it."""
    return key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def general_name(text: str) -> x509.GeneralName:
    """An entry of a subjectAltName: an address, a mailbox, a DN or a host name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if "=" in text:
        return x509.DirectoryName(x509.Name.from_rfc4514_string(text))
    return x509.RFC822Name(text) if "@" in text else x509.DNSName(text)


def constraint(text: str) -> x509.GeneralName:
    """A subtree of name constraints; a prefix for addresses."""
    if "/" in text and "=" not in text:
        return x509.IPAddress(ipaddress.ip_network(text))
    return general_name(text) if "@" not in text else x509.RFC822Name(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaws:
    """What is unusual about a certificate."""

    not_before: datetime.datetime | None = None
    not_after: datetime.datetime | None = None
    sha1: bool = False
    key_usage: tuple[str, ...] | None = None
    extended_key_usage: tuple[x509.ObjectIdentifier, ...] = ()
    extensions: tuple[x509.ExtensionType, ...] = ()
    """More of them, critical."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and its key."""

    key: Key = field(repr=False)
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def subject(self) -> str:
        return self.certificate.subject.rfc4514_string()


_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority(Issued):
    """Issues certificates; made by `root` or by `authority` of another one."""

    def issue(
        self, subject: str, names: Iterable[str] = (), *, key: Key | None = None, flaws: Flaws | None = None
    ) -> Issued:
        """A certificate for `subject` and the subjectAltNames `names`, on a fresh P-256 key if none is given."""
        key = key or new_key("p256")
        return Issued(key=key, certificate=_certificate(subject, names, key, self, flaws or Flaws(), ca=False))

    def authority(
        self,
        subject: str,
        *,
        key: Key | None = None,
        flaws: Flaws | None = None,
        ca: bool = True,
        path_length: int | None = None,
    ) -> "Authority":
        """An authority below this one."""
        key = key or new_key("p256")
        made = _certificate(subject, (), key, self, flaws or Flaws(), ca=ca, path_length=path_length)
        return Authority(key=key, certificate=made)

    def crl(
        self,
        *revoked: Issued,
        this_update: datetime.datetime | None = None,
        next_update: datetime.datetime | None = None,
        signer: Key | None = None,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> bytes:
        """A CRL in PEM; `signer` signs it in place of this authority's key."""
        this_update = this_update or utc_now() - DAY
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(this_update)
            .next_update(next_update or this_update + 30 * DAY)
        )
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(this_update).build())
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        key = signer or self.key
        return builder.sign(key, _hash_for(key)).public_bytes(PEM)

    def ocsp(
        self,
        about: Issued,
        *,
        revoked: bool = False,
        this_update: datetime.datetime | None = None,
        responder: Issued | None = None,
        pss: bool = False,
    ) -> bytes:
        """An OCSP response in DER, by this authority or a responder that it has certified; RSA signs by PSS if so."""
        this_update = this_update or utc_now() - DAY / 24
        signer = responder or self
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=about.certificate,
            issuer=self.certificate,
            algorithm=hashes.SHA256(),
            cert_status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
            this_update=this_update,
            next_update=this_update + DAY,
            revocation_time=this_update if revoked else None,
            revocation_reason=None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
        if responder is not None:
            builder = builder.certificates([responder.certificate])
        made = builder.sign(signer.key, _hash_for(signer.key))
        return (_with_pss(made, signer.key) if pss else made).public_bytes(DER)


OCSP_RESPONDER = Flaws(extended_key_usage=(ExtendedKeyUsageOID.OCSP_SIGNING,))


def root(subject: str = "CN=Root CA,O=Example", *, key: Key | None = None, flaws: Flaws | None = None) -> Authority:
    """An authority of its own."""
    key = key or new_key("p256")
    return Authority(key=key, certificate=_certificate(subject, (), key, None, flaws or Flaws(), ca=True))


def _certificate(
    subject: str,
    names: Iterable[str],
    key: Key,
    issuer: Issued | None,
    flaws: Flaws,
    *,
    ca: bool,
    path_length: int | None = None,
) -> x509.Certificate:
    now = utc_now()
    name = x509.Name.from_rfc4514_string(subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer is not None else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(flaws.not_before or now - DAY)
        .not_valid_after(flaws.not_after or now + 365 * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    usages = flaws.key_usage or (("key_cert_sign", "crl_sign") if ca else ("digital_signature",))
    usage = x509.KeyUsage(**{one: one in usages for one in _USAGES})
    builder = builder.add_extension(usage, critical=True)
    if alternative := [general_name(one) for one in names]:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    if flaws.extended_key_usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(flaws.extended_key_usage), critical=False)
    for extension in flaws.extensions:
        builder = builder.add_extension(extension, critical=True)
    signer = issuer.key if issuer is not None else key
    made = builder.sign(signer, _hash_for(signer))
    return _with_sha1(made, signer) if flaws.sha1 else made


def _with_pss(response: ocsp.OCSPResponse, key: Key) -> ocsp.OCSPResponse:
    """`response` signed again by PSS with SHA-384, which `cryptography` makes none with."""
    assert isinstance(key, rsa.RSAPrivateKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    signature = key.sign(response.tbs_response_bytes, pss, hashes.SHA384())
    signed = response.tbs_response_bytes + PSS_IDENTIFIERS[SignatureHash.SHA2_384]
    signed = _element(0x30, signed + _element(0x03, b"\0" + signature))
    content = bytes.fromhex("06092b0601050507300101") + _element(0x04, signed)
    der = _element(0x30, bytes.fromhex("0a0100") + _element(0xA0, _element(0x30, content)))
    return ocsp.load_der_ocsp_response(der)


def _element(tag: int, content: bytes) -> bytes:
    """DER with a length of two octets, which all of these need."""
    return bytes((tag, 0x82)) + len(content).to_bytes(2) + content


_RSA_SHA256, _RSA_SHA1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")


def _with_sha1(certificate: x509.Certificate, signer: Key) -> x509.Certificate:
    """`certificate` signed again, with RSA over SHA-1; `cryptography` makes no such certificates any more."""
    assert isinstance(signer, rsa.RSAPrivateKey)
    signed = certificate.tbs_certificate_bytes.replace(_RSA_SHA256, _RSA_SHA1)
    signature = signer.sign(signed, padding.PKCS1v15(), hashes.SHA1())
    der = certificate.public_bytes(DER).replace(certificate.tbs_certificate_bytes, signed)
    der = der.replace(_RSA_SHA256, _RSA_SHA1).removesuffix(certificate.signature) + signature
    return x509.load_der_x509_certificate(der)


def _hash_for(key: Key) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


def write(path: Path, *contents: bytes) -> Path:
    """A file of mode 0600 with these contents one behind the other."""
    path.write_bytes(b"".join(contents))
    path.chmod(0o600)
    return path
