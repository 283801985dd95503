"""From a peer's certificate to an authority that the policy trusts: path building and validation by RFC 5280 section 6.

`cryptography` has a verifier of its own, but for the web: it knows no Ed25519 or Ed448 certificates and no constraints
on directory names, which are usual for IPsec. Here are the checks of section 6.1, with RFC 4945 section 5.1 for what
IKE wants of a certificate. What is not done: certificate policies and their mappings. A critical extension that is
not known here, those for policies among them, refuses the certificate.
"""

import datetime
import functools
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from ipc import distinguished_name
from ipc.value import value
from policy_loader.credentials import certificates, name_constraints, revocation
from policy_loader.credentials.certificates import Certificate, same_name
from policy_loader.credentials.revocation import RevocationRules, Revoked, Status

MOST_CERTIFICATES = 8
"""In a chain, both ends included."""
MOST_SIGNATURES = 32
"""So many are looked at before a peer's certificates are given up: they may be made to fit each other in many ways."""

_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,  # any policy will do, so there is nothing to check
    }
)
_IKE_INTERMEDIATE = x509.ObjectIdentifier("1.3.6.1.5.5.8.2.2")
_USAGES_FOR_IKE = frozenset(
    {
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        ExtendedKeyUsageOID.IPSEC_IKE,
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
        _IKE_INTERMEDIATE,
        x509.ObjectIdentifier("1.3.6.1.5.5.7.3.5"),  # IPsec end system, tunnel, user: of old, RFC 4945 section 5.1.3.12
        x509.ObjectIdentifier("1.3.6.1.5.5.7.3.6"),
        x509.ObjectIdentifier("1.3.6.1.5.5.7.3.7"),
    }
)
"""What an extendedKeyUsage must have one of. RFC 4945 wants IKE's own; in the field those of TLS are usual."""


class ChainRefused(Exception):
    """No chain leads to a trusted authority; says which certificate fails which check, for our operator."""


@value
class Trust:
    """Whom a peer's certificate must come from, and what else is looked at."""

    authorities: tuple[Certificate, ...]
    revocation: RevocationRules


def validate(
    end: Certificate, others: Sequence[Certificate], sent: Status, trust: Trust, now: datetime.datetime
) -> tuple[Certificate, ...]:
    """The chain from `end` to one of the authorities; ChainRefused. `others` and `sent` came from the peer."""
    _check_end(end, now)
    search = _Search(others, sent, trust, now)
    found = search.extend((end,))
    if found is None:
        raise ChainRefused(search.reason)
    return found


class _Search:
    def __init__(self, others: Sequence[Certificate], sent: Status, trust: Trust, now: datetime.datetime) -> None:
        self._others = others
        self._sent = sent
        self._trust = trust
        self._now = now
        self._signatures = 0
        self._deepest = -1
        self.reason = ""

    def extend(self, path: tuple[Certificate, ...]) -> tuple[Certificate, ...] | None:
        """A whole good chain that begins with `path`, or None; `reason` is then of the attempt that got furthest."""
        last = path[-1]
        for issuer in self._issuers(path):
            try:
                self._check_link(path, issuer)
            except (ChainRefused, Revoked) as error:
                self._note(len(path), str(error))
                continue
            longer = (*path, issuer)
            if issuer in self._trust.authorities:
                return longer
            found = self.extend(longer)
            if found is not None:
                return found
        name = distinguished_name.text(last.issuer)
        self._note(len(path) - 1, f'the issuer of {last}, "{name}", is not trusted: it is in none of ca_files')
        return None

    def _note(self, depth: int, reason: str) -> None:
        if depth > self._deepest:
            self._deepest, self.reason = depth, reason

    def _issuers(self, path: tuple[Certificate, ...]) -> Iterable[Certificate]:
        """Who may have issued the last one: authorities first, then what the peer sent."""
        if len(path) >= MOST_CERTIFICATES:
            return
        seen = set(path[1:])
        for one in (*self._trust.authorities, *self._others):
            if one not in seen and same_name(one.subject, path[-1].issuer):
                seen.add(one)
                yield one

    def _check_link(self, path: tuple[Certificate, ...], issuer: Certificate) -> None:
        """Everything about `issuer` as the one that issued the last of `path` (RFC 5280 sections 6.1.3 and 6.1.4)."""
        self._signatures += 1
        if self._signatures > MOST_SIGNATURES:
            raise ChainRefused(f"after {MOST_SIGNATURES} signatures there was no chain yet")
        _check_signature(path[-1], issuer)
        _check_time(issuer, self._now)
        _check_extensions(issuer)
        _check_authority(issuer, below=sum(not one.self_issued for one in path[1:]))
        _check_usage(issuer)
        constraints = issuer.extension(x509.NameConstraints)
        for one in path if constraints is not None else ():
            if constraints is not None and (one is path[0] or not one.self_issued):
                broken = name_constraints.broken_by(constraints, one)
                if broken:
                    raise ChainRefused(f"the name constraints of {issuer} forbid {one}: {broken}")
        revocation.check(path[-1], issuer, self._trust.revocation, self._sent, self._now)


def _check_end(end: Certificate, now: datetime.datetime) -> None:
    _check_time(end, now)
    _check_extensions(end)
    usage = end.extension(x509.KeyUsage)
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        raise ChainRefused(f"the key usage of {end} does not allow signatures")
    _check_usage(end)


def _check_time(certificate: Certificate, now: datetime.datetime) -> None:
    if now > certificate.not_after:
        raise ChainRefused(f"{certificate} has expired: it was valid until {_date(certificate.not_after)}")
    if now < certificate.not_before:
        raise ChainRefused(
            f"{certificate} is valid from {_date(certificate.not_before)} on, and here it is {_date(now)}"
        )


def _date(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")


@functools.lru_cache(maxsize=1024)
def _check_signature(certificate: Certificate, issuer: Certificate) -> None:
    """Good ones are remembered: whoever is there comes again."""
    try:
        if certificates.is_weak(certificate.parsed.signature_hash_algorithm):
            raise ChainRefused(f"{certificate} is signed over a broken hash, SHA-1 or MD5")
        certificate.parsed.verify_directly_issued_by(issuer.parsed)
    except InvalidSignature:
        raise ChainRefused(f"the signature of {certificate} is not that of {issuer}") from None
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ChainRefused(f"the signature of {certificate} can't be checked: {error}") from None


def _check_extensions(certificate: Certificate) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise ChainRefused(f"{certificate} has the critical extension {extension.oid.dotted_string}, unknown here")


def _check_authority(issuer: Certificate, below: int) -> None:
    basic, usage = issuer.extension(x509.BasicConstraints), issuer.extension(x509.KeyUsage)
    if basic is None or not basic.ca:
        raise ChainRefused(f"{issuer} is no certification authority, and has issued a certificate")
    if basic.path_length is not None and below > basic.path_length:
        raise ChainRefused(f"{issuer} allows {basic.path_length} authorities below it, and there are {below}")
    if usage is not None and not usage.key_cert_sign:
        raise ChainRefused(f"the key usage of {issuer} does not allow it to sign certificates")


def _check_usage(certificate: Certificate) -> None:
    usages = certificate.extension(x509.ExtendedKeyUsage)
    if usages is not None and not _USAGES_FOR_IKE.intersection(usages):
        raise ChainRefused(f"the extended key usage of {certificate} does not allow IKE")
