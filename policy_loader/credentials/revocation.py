"""Whether a certificate was revoked: CRLs (RFC 5280 section 5) and OCSP responses (RFC 6960), from files or the peer.

Nothing is fetched from the network. A CRL or response that its issuer did not sign, or whose time is over, says
nothing; where the policy names a file with one and it says nothing, the certificates that it is about are refused.
"""

import datetime
from collections.abc import Callable, Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from ipc import der
from ipc.value import value
from policy_loader.credentials import certificates, signatures
from policy_loader.credentials.certificates import Certificate, CertificateError, same_name
from policy_loader.credentials.files import FetchedFile, public_of
from policy_loader.credentials.keys import PublicKey
from policy_loader.credentials.signatures import SignatureRefused

CLOCK_SKEW = datetime.timedelta(minutes=5)
"""So much later than ours the clock of an issuer may be."""
OCSP_WITHOUT_END = datetime.timedelta(days=1)
"""How long an OCSP response is good that does not say it."""
_PEM = b"-----BEGIN X509 CRL"


class Revoked(Exception):
    """The certificate is revoked, or can't be shown not to be; says which and why, for our operator."""


@value
class Crl:
    """A CRL that could be read."""

    issuer: bytes
    """DER of the name."""
    this_update: datetime.datetime
    next_update: datetime.datetime | None
    parsed: x509.CertificateRevocationList


@value
class Status:
    """What is known of revocations: from the policy's files, or from a peer."""

    crls: tuple[Crl, ...] = ()
    ocsp_responses: tuple[ocsp.OCSPResponse, ...] = ()


class StatusFile:
    """A file with CRLs or an OCSP response, as it was read last. Peers that name the same file share it."""

    __slots__ = ("_read", "path", "status")

    def __init__(self, path: str, read: Callable[[FetchedFile], Status], status: Status) -> None:
        self.path = path
        self._read = read
        self.status = status

    def renew(self, fetched: FetchedFile) -> str:
        """Takes over what the file says now; why it does not, where the file is not good: then nothing changes."""
        if fetched.error:
            return fetched.error
        try:
            self.status = self._read(fetched)
        except ValueError as error:
            return str(error)
        return ""


@value
class RevocationRules:
    """What a peer's entry in the policy says of revocation. `required`: nothing known is as bad as revoked."""

    files: tuple[StatusFile, ...] = ()
    required: bool = False

    @property
    def wants_ocsp(self) -> bool:
        """Whether a peer is asked for OCSP responses about its certificates (RFC 4806)."""
        return self.required or any(file.status.ocsp_responses for file in self.files)


def read_crl(der: bytes) -> Crl:
    """A CRL in DER; CertificateError, also for indirect and delta CRLs, and such for a part of the certificates."""
    with certificates.without_warnings():
        try:
            crl = x509.load_der_x509_crl(der)
        except certificates.UNREADABLE:
            raise CertificateError("no CRL in PEM or DER") from None
        try:
            unknown = next((one.oid.dotted_string for one in crl.extensions if one.critical), "")
            read = Crl(
                issuer=crl.issuer.public_bytes(),
                this_update=crl.last_update_utc,
                next_update=crl.next_update_utc,
                parsed=crl,
            )
        except certificates.UNREADABLE as error:
            raise CertificateError(f"a CRL that can't be used: {error}") from None
    if unknown:
        raise CertificateError(f"a CRL with the critical extension {unknown}: only full CRLs are taken")
    return read


def read_crls(content: bytes) -> tuple[Crl, ...]:
    """The CRLs of a file, one or more in PEM or one in DER; CertificateError."""
    if _PEM not in content:
        return (read_crl(content),)
    found = []
    for part in content.split(_PEM)[1:]:
        try:
            crl = x509.load_pem_x509_crl(_PEM + part)
        except ValueError:
            raise CertificateError("a CRL in PEM that can't be read") from None
        found.append(read_crl(crl.public_bytes(serialization.Encoding.DER)))
    return tuple(found)


def read_ocsp(der: bytes) -> ocsp.OCSPResponse:
    """An OCSP response in DER that is a success; CertificateError."""
    try:
        response = ocsp.load_der_ocsp_response(der)
    except ValueError:
        raise CertificateError("no OCSP response in DER") from None
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise CertificateError(f"an OCSP response that says {response.response_status.name}")
    return response


def der_of(response: ocsp.OCSPResponse) -> bytes:
    """The response as it goes on the wire."""
    return response.public_bytes(serialization.Encoding.DER)


def serials_of(response: ocsp.OCSPResponse) -> set[int]:
    """The serial numbers of the certificates that it is about; none where it can't be read."""
    try:
        return {one.serial_number for one in response.responses}
    except certificates.UNREADABLE:
        return set()


def crl_file(fetched: FetchedFile) -> Status:
    """What a file of crl_files says; ValueError."""
    return Status(crls=read_crls(public_of(fetched)))


def ocsp_file(fetched: FetchedFile) -> Status:
    """What a file of ocsp_files says; ValueError."""
    return Status(ocsp_responses=(read_ocsp(public_of(fetched)),))


def check(
    certificate: Certificate, issuer: Certificate, rules: RevocationRules, sent: Status, now: datetime.datetime
) -> None:
    """Revoked if `certificate` is; `sent` is what the peer has sent along, which counts where `issuer` signed it."""
    known = [answer for file in rules.files for answer in _ask(file.status, certificate, issuer, now)]
    answers = (*known, *_ask(sent, certificate, issuer, now))
    for answer in answers:
        if answer.revoked:
            raise Revoked(answer.text)
    if any(answer.good for answer in answers):
        return
    failed = [answer.text for answer in known if answer.text]
    if failed:
        raise Revoked(f"whether {certificate} is revoked is not known: {'; '.join(failed)}")
    if rules.required:
        raise Revoked(f"{certificate} has no CRL or OCSP response, and the policy says revocation_required = true")


def _ask(status: Status, certificate: Certificate, issuer: Certificate, now: datetime.datetime) -> list["_Answer"]:
    return [
        *(_ask_crl(crl, certificate, issuer, now) for crl in status.crls),
        *(_ask_ocsp(response, certificate, issuer, now) for response in status.ocsp_responses),
    ]


@value
class _Answer:
    """What one CRL or response says of one certificate; `text` is why it is neither good nor nothing."""

    good: bool = False
    revoked: bool = False
    text: str = ""


_NOTHING = _Answer()


# ------------------------------------------------------------------ CRLs


def _ask_crl(crl: Crl, certificate: Certificate, issuer: Certificate, now: datetime.datetime) -> _Answer:
    if not same_name(crl.issuer, certificate.issuer):
        return _NOTHING
    usage = issuer.extension(x509.KeyUsage)
    if usage is not None and not usage.crl_sign:
        return _Answer(text=f"{issuer} may not sign CRLs")
    try:
        if certificates.is_weak(crl.parsed.signature_hash_algorithm):
            return _Answer(text=f"the CRL of {issuer} is signed over a broken hash")
        if not crl.parsed.is_signature_valid(issuer.public_key):
            return _Answer(text=f"the CRL is not signed by {issuer}")
    except certificates.UNREADABLE as error:
        return _Answer(text=f"the CRL's signature can't be checked: {error}")
    entry = crl.parsed.get_revoked_certificate_by_serial_number(certificate.serial)
    if entry is not None:
        return _Answer(
            revoked=True, text=f"{certificate} was revoked by its issuer on {_date(entry.revocation_date_utc)}"
        )
    if crl.this_update > now + CLOCK_SKEW:
        return _Answer(text=f"the CRL of {issuer} is from {_date(crl.this_update)}, and here it is {_date(now)}")
    if crl.next_update is not None and crl.next_update < now:
        return _Answer(text=f"the CRL of {issuer} was to be renewed by {_date(crl.next_update)}")
    return _Answer(good=True)


def _date(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")


# ------------------------------------------------------------------ OCSP


def _ask_ocsp(
    response: ocsp.OCSPResponse, certificate: Certificate, issuer: Certificate, now: datetime.datetime
) -> _Answer:
    try:
        single = next((one for one in response.responses if _is_about(one, certificate, issuer)), None)
        if single is None or not _is_signed(response, issuer, now):
            return _NOTHING
        return _answer_of(single, certificate, now)
    except certificates.UNREADABLE:
        # It is parsed as it is looked at, and a part of it makes no sense.
        return _NOTHING


def _answer_of(single: ocsp.OCSPSingleResponse, certificate: Certificate, now: datetime.datetime) -> _Answer:
    if single.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        when = single.revocation_time_utc
        return _Answer(
            revoked=True, text=f"{certificate} was revoked on {_date(when) if when else 'some day'}, OCSP says"
        )
    start, end = single.this_update_utc, single.next_update_utc or single.this_update_utc + OCSP_WITHOUT_END
    if not start - CLOCK_SKEW <= now <= end:
        return _Answer(
            text=f"the OCSP response is good from {_date(start)} to {_date(end)}, and here it is {_date(now)}"
        )
    if single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        return _Answer(text="the OCSP responder does not know it")
    return _Answer(good=True)


def _is_about(single: ocsp.OCSPSingleResponse, certificate: Certificate, issuer: Certificate) -> bool:
    """RFC 6960 section 4.1.1: the issuer is named by hashes of its name and key."""
    if single.serial_number != certificate.serial:
        return False
    name, key = hashes.Hash(single.hash_algorithm), hashes.Hash(single.hash_algorithm)
    name.update(certificate.issuer)
    key.update(_key_bits(issuer.public_key))
    return name.finalize() == single.issuer_name_hash and key.finalize() == single.issuer_key_hash


def _key_bits(key: PublicKey) -> bytes:
    """The BIT STRING in a SubjectPublicKeyInfo, without its header."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return key.public_bytes_raw()


def _is_signed(response: ocsp.OCSPResponse, issuer: Certificate, now: datetime.datetime) -> bool:
    """By the issuer, or by a responder that the issuer has certified for that (RFC 6960 section 4.2.2.2)."""
    if _verifies(issuer.public_key, response):
        return True
    for responder in _readable(response.certificates):
        usages: Sequence[x509.ObjectIdentifier] = tuple(responder.extension(x509.ExtendedKeyUsage) or ())
        if ExtendedKeyUsageOID.OCSP_SIGNING not in usages or not responder.not_before <= now <= responder.not_after:
            continue
        try:
            responder.parsed.verify_directly_issued_by(issuer.parsed)
        except (InvalidSignature, TypeError, ValueError, UnsupportedAlgorithm):
            continue
        if _verifies(responder.public_key, response):
            return True
    return False


def _readable(found: Iterable[x509.Certificate]) -> list[Certificate]:
    good = []
    for one in found:
        try:
            good.append(certificates.parse(one.public_bytes(serialization.Encoding.DER)))
        except CertificateError:
            continue
    return good


def _verifies(key: PublicKey, response: ocsp.OCSPResponse) -> bool:
    signature, signed = response.signature, response.tbs_response_bytes
    try:
        if response.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS:
            signatures.verify_pss(key, _algorithm_of(response), signature, signed)
            return True
        algorithm = response.signature_hash_algorithm
        if certificates.is_weak(algorithm):
            return False
        if isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
            key.verify(signature, signed, ec.ECDSA(algorithm))
        elif not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) and algorithm is None:
            key.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, SignatureRefused, UnsupportedAlgorithm):
        return False
    return True


def _algorithm_of(response: ocsp.OCSPResponse) -> bytes:
    """The AlgorithmIdentifier of the signature (RFC 6960 section 4.2.1), which `cryptography` does not tell whole."""
    _, tagged = der.children(der.read(der_of(response)), der.SEQUENCE)
    _, octets = der.children(der.read(tagged.content), der.SEQUENCE)
    return der.children(der.read(octets.content), der.SEQUENCE)[1].encoded
