"""Whether a certificate is that of an identity (RFC 7296 section 3.5, RFC 4945 section 3.1)."""

import ipaddress

from cryptography import x509

from ipc.types import Identity, IdType
from policy_loader.credentials.certificates import Certificate, name_text, same_name

MOST_NAMES_SHOWN = 8


def has_identity(certificate: Certificate, identity: Identity) -> bool:
    """Whether subject or subjectAltName say so. A "*" in a certificate is no wildcard, and its CN is no host name."""
    match identity.type:
        case IdType.DER_ASN1_DN:
            names = (
                one.value.public_bytes() for one in certificate.alternative_names if isinstance(one, x509.DirectoryName)
            )
            return any(same_name(name, identity.data) for name in (certificate.subject, *names))
        case IdType.FQDN:
            wanted = _text(identity).lower().rstrip(".")
            return any(
                isinstance(one, x509.DNSName) and one.value.lower().rstrip(".") == wanted
                for one in certificate.alternative_names
            )
        case IdType.RFC822_ADDR:
            return any(
                isinstance(one, x509.RFC822Name) and _mailbox(one.value) == _mailbox(_text(identity))
                for one in certificate.alternative_names
            )
        case IdType.IPV4_ADDR | IdType.IPV6_ADDR:
            address = ipaddress.ip_address(identity.data)
            return any(
                isinstance(one, x509.IPAddress) and one.value == address for one in certificate.alternative_names
            )
        case IdType.KEY_ID:
            found = certificate.extension(x509.SubjectKeyIdentifier)
            return found is not None and found.digest == identity.data


def identities_of(certificate: Certificate) -> str:
    """Its names, for people."""
    names = [name_text(one) for one in certificate.alternative_names]
    if certificate.parsed.subject.rdns:
        names.insert(0, str(Identity(type=IdType.DER_ASN1_DN, data=certificate.subject)))
    left_out = len(names) - MOST_NAMES_SHOWN
    return "; ".join(names[:MOST_NAMES_SHOWN]) + (f"; and {left_out} more" if left_out > 0 else "") or "no name at all"


def _text(identity: Identity) -> str:
    return identity.data.decode("ascii", "replace")


def _mailbox(text: str) -> str:
    """The local part is compared as it is, the host without case (RFC 5280 section 7.5)."""
    local, _, host = text.rpartition("@")
    return f"{local}@{host.lower()}"
