"""Whether an identity that came is the one that the policy names, wildcards included (RFC 7296 section 3.5)."""

from ipc import distinguished_name
from ipc.types import Identity, IdType

_ANY_LABEL = b"*."
_ANY_MAILBOX = b"*@"


def matches(pattern: Identity, identity: Identity) -> bool:
    """Whether `identity` is what `pattern` names.

    Host names are compared without case, and "*." at the front of a pattern stands for one label; "*@" for any
    mailbox of a domain. DNs are compared as `distinguished_name` says. Everything else is the same octets or is not.
    """
    if pattern.type is not identity.type:
        return False
    if pattern.type is IdType.DER_ASN1_DN:
        return pattern.data == identity.data or distinguished_name.matches(pattern.data, identity.data)
    if pattern.type is IdType.FQDN:
        return _host_matches(pattern.data, identity.data)
    if pattern.type is IdType.RFC822_ADDR:
        mailbox, _, domain = pattern.data.rpartition(b"@")
        own_mailbox, _, own_domain = identity.data.rpartition(b"@")
        return domain.lower() == own_domain.lower() and (mailbox == b"*" or mailbox == own_mailbox)
    return pattern.data == identity.data


def is_pattern(identity: Identity) -> bool:
    """Whether `identity` stands for many: then it can't be sent."""
    if identity.type is IdType.DER_ASN1_DN:
        return distinguished_name.has_wildcard(identity.data)
    wildcards = {IdType.FQDN: _ANY_LABEL, IdType.RFC822_ADDR: _ANY_MAILBOX}
    wildcard = wildcards.get(identity.type)
    return wildcard is not None and identity.data.startswith(wildcard)


def of_payload(id_type: int, data: bytes) -> Identity | None:
    """The identity in an ID payload; None for a type that the policy can't name."""
    return Identity(type=IdType(id_type), data=data) if id_type in IdType._value2member_map_ else None


def difference(pattern: Identity, identity: Identity) -> str:
    """How `identity` is not what `pattern` names, for people."""
    if pattern.type is identity.type is IdType.DER_ASN1_DN and distinguished_name.is_reversed(
        pattern.data, identity.data
    ):
        return f"{identity} is the name in the opposite order: RFC 4514 writes the last part of a DN first"
    if pattern.type is not identity.type:
        return f"{identity} ({identity.type.name}) is not {pattern} ({pattern.type.name})"
    return f"{identity} is not {pattern}"


def _host_matches(pattern: bytes, name: bytes) -> bool:
    pattern, name = pattern.lower().rstrip(b"."), name.lower().rstrip(b".")
    if pattern.startswith(_ANY_LABEL):
        label, dot, rest = name.partition(b".")
        return bool(label and dot) and label != b"*" and rest == pattern[len(_ANY_LABEL) :]
    return pattern == name
