"""Distinguished names (X.501) in DER: compared RDN by RDN, and shown as RFC 4514 writes them.

Two values are the same if they differ only in their string type, in case, or in blanks (RFC 5280 section 7.1,
caseIgnoreMatch). In a pattern the value "*" stands for any value of its attribute.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType

from ipc import der
from ipc.der import DerError

ANY_VALUE = "*"
SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "2.5.4.3": "CN",
        "2.5.4.4": "SN",
        "2.5.4.5": "serialNumber",
        "2.5.4.6": "C",
        "2.5.4.7": "L",
        "2.5.4.8": "ST",
        "2.5.4.9": "STREET",
        "2.5.4.10": "O",
        "2.5.4.11": "OU",
        "2.5.4.12": "title",
        "2.5.4.42": "GN",
        "0.9.2342.19200300.100.1.1": "UID",
        "0.9.2342.19200300.100.1.25": "DC",
        "1.2.840.113549.1.9.1": "emailAddress",
    }
)
"""RFC 4514 section 3, and what the tools of the field write."""

_ENCODINGS = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii", 0x14: "latin-1", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}
_SPECIAL = frozenset(',+"\\<>;=')

Rdn = frozenset[tuple[str, str | bytes]]
"""Attribute types in dots with their values: text, or the DER of what is no text."""


def rdns(data: bytes) -> tuple[Rdn, ...]:
    """The RDNs of a name in DER, in its order, values made ready for comparison; DerError."""
    return tuple(
        frozenset((kind, _folded(value)) for kind, value in _attributes(one))
        for one in der.children(der.read(data), der.SEQUENCE)
    )


def matches(pattern: bytes, name: bytes) -> bool:
    """Whether the name `name` is what `pattern` says; both are DER. What is no name matches nothing."""
    try:
        wanted, found = rdns(pattern), rdns(name)
    except DerError:
        return False
    return len(wanted) == len(found) and all(_rdn_matches(one, other) for one, other in zip(wanted, found, strict=True))


def same(one: bytes, other: bytes) -> bool:
    """Whether both are the same name; "*" is just a character here."""
    try:
        return rdns(one) == rdns(other)
    except DerError:
        return False


def is_reversed(pattern: bytes, name: bytes) -> bool:
    """Whether `name` would match if it stood in the opposite order: an operator's usual slip."""
    try:
        wanted, found = rdns(pattern), rdns(name)
    except DerError:
        return False
    return len(wanted) == len(found) and all(
        _rdn_matches(one, other) for one, other in zip(wanted, reversed(found), strict=True)
    )


def is_within(base: bytes, name: bytes) -> bool:
    """Whether `name` begins with the RDNs of `base`: in its subtree (RFC 5280 section 4.2.1.10); DerError."""
    wanted, found = rdns(base), rdns(name)
    return found[: len(wanted)] == wanted


def has_wildcard(name: bytes) -> bool:
    """Whether some value of it is "*"."""
    try:
        return any(value == ANY_VALUE for rdn in rdns(name) for _, value in rdn)
    except DerError:
        return False


@functools.lru_cache(maxsize=1024)
def text(data: bytes) -> str:
    """The name as RFC 4514 writes it, last RDN first; the hex digits of what is no name."""
    try:
        parts = [
            "+".join(f"{SHORT_NAMES.get(kind, kind)}={_written(value)}" for kind, value in _attributes(rdn))
            for rdn in der.children(der.read(data), der.SEQUENCE)
        ]
    except DerError:
        return data.hex()
    return ",".join(reversed(parts))


def _attributes(rdn: der.Element) -> list[tuple[str, str | bytes]]:
    attributes = []
    for element in der.children(rdn, der.SET):
        parts = der.children(element, der.SEQUENCE)
        if len(parts) != 2:
            raise DerError("an attribute that is not a type and a value")
        attributes.append((der.object_identifier(parts[0]), _value(parts[1])))
    if not attributes:
        raise DerError("an empty RDN")
    return attributes


def _value(element: der.Element) -> str | bytes:
    encoding = _ENCODINGS.get(element.tag)
    if encoding is None:
        return element.encoded
    try:
        return element.content.decode(encoding)
    except UnicodeDecodeError:
        return element.encoded


def _folded(value: str | bytes) -> str | bytes:
    return " ".join(value.casefold().split()) if isinstance(value, str) else value


def _rdn_matches(pattern: Rdn, rdn: Rdn) -> bool:
    if len(pattern) != len(rdn):
        return False
    found = dict(rdn)
    return all(kind in found and (value == ANY_VALUE or value == found[kind]) for kind, value in pattern)


def _written(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return "#" + value.hex()
    shown = "".join(
        f"\\{char}" if char in _SPECIAL else char if char.isprintable() else f"\\{ord(char):02x}" for char in value
    )
    return f"\\{shown}" if shown[:1] in ("#", " ") else shown
