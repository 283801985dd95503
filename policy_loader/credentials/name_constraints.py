"""Name constraints of certification authorities (RFC 5280 section 4.2.1.10).

Directory names, host names, mailboxes, addresses and URIs are compared. A constraint on another kind of name refuses
every certificate that has such a name: nothing passes because it was not understood.
"""

import ipaddress
import urllib.parse
from collections.abc import Iterable

from cryptography import x509
from cryptography.x509.oid import NameOID

from ipc import distinguished_name
from ipc.der import DerError
from ipc.types import IpAddress
from policy_loader.credentials.certificates import Certificate, name_text

_COMPARED = (
    x509.DirectoryName,
    x509.DNSName,
    x509.RFC822Name,
    x509.IPAddress,
    x509.UniformResourceIdentifier,
)


def broken_by(constraints: x509.NameConstraints, certificate: Certificate) -> str:
    """The name of `certificate` that `constraints` do not allow, for people; empty if they allow all."""
    for name in _names(certificate):
        permitted = _of_kind(name, constraints.permitted_subtrees)
        excluded = _of_kind(name, constraints.excluded_subtrees)
        if not permitted and not excluded:
            continue
        if not isinstance(name, _COMPARED):
            return f"names like its {name_text(name)} are constrained in a way that is not understood here"
        try:
            if any(_is_within(name, base) for base in excluded):
                return f"{name_text(name)} is among the names that are excluded"
            if permitted and not any(_is_within(name, base) for base in permitted):
                return f"{name_text(name)} is outside the names that are permitted"
        except DerError as error:
            return f"{name_text(name)} can't be compared: {error}"
    return ""


def _names(certificate: Certificate) -> Iterable[x509.GeneralName]:
    subject = certificate.parsed.subject
    if subject.rdns:
        yield x509.DirectoryName(subject)
    for attribute in subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS):
        if isinstance(attribute.value, str) and attribute.value.isascii():
            yield x509.RFC822Name(attribute.value)
    yield from certificate.alternative_names


def _of_kind(name: x509.GeneralName, bases: Iterable[x509.GeneralName] | None) -> list[x509.GeneralName]:
    return [base for base in bases or () if type(base) is type(name)]


def _is_within(name: x509.GeneralName, base: x509.GeneralName) -> bool:
    match name, base:
        case x509.DirectoryName(), x509.DirectoryName():
            return distinguished_name.is_within(base.value.public_bytes(), name.value.public_bytes())
        case x509.DNSName(), x509.DNSName():
            return _host_within(name.value, base.value)
        case x509.RFC822Name(), x509.RFC822Name():
            return _mailbox_within(name.value, base.value)
        case x509.UniformResourceIdentifier(), x509.UniformResourceIdentifier():
            return _uri_within(name.value, base.value)
        case x509.IPAddress(), x509.IPAddress():
            address, network = name.value, base.value
            return (
                isinstance(address, IpAddress)
                and isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network)
                and address in network
            )
    raise AssertionError(f"{type(base).__name__} compared with {type(name).__name__}")


def _host_within(host: str, base: str) -> bool:
    """A name is within itself, and within every name that it is made from by labels at the front."""
    host, base = host.lower().rstrip("."), base.lower().rstrip(".")
    if base.startswith("."):
        return host.endswith(base)
    return not base or host == base or host.endswith(f".{base}")


def _mailbox_within(mailbox: str, base: str) -> bool:
    """A base is one mailbox, one host, or with "." at the front all hosts of a domain."""
    local, _, host = mailbox.rpartition("@")
    base_local, at, base_host = base.rpartition("@")
    if at:
        return local == base_local and host.lower() == base_host.lower()
    return _one_host_or_domain(host, base)


def _uri_within(uri: str, base: str) -> bool:
    try:
        host = urllib.parse.urlsplit(uri).hostname
    except ValueError:
        return False
    return host is not None and _one_host_or_domain(host, base)


def _one_host_or_domain(host: str, base: str) -> bool:
    host, base = host.lower().rstrip("."), base.lower().rstrip(".")
    return host.endswith(base) if base.startswith(".") else host == base
