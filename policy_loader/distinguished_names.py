"""Distinguished names as operators write them (RFC 4514), to DER."""

import re

from cryptography import x509
from cryptography.x509.oid import NameOID

from ipc.distinguished_name import SHORT_NAMES

_STARTS = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)\s*=")
_BLANKS_BEHIND_COMMA = re.compile(r"(?<!\\)([,+])\s+")
_TYPES = {
    spelling: x509.ObjectIdentifier(oid)
    for oid, name in SHORT_NAMES.items()
    for spelling in (name, name.upper(), name.lower())
} | {"E": NameOID.EMAIL_ADDRESS, "EMAIL": NameOID.EMAIL_ADDRESS, "S": NameOID.STATE_OR_PROVINCE_NAME}
LONGEST_DER = 1024
"""As an identity may be."""


def looks_like_one(text: str) -> bool:
    """Whether an attribute stands at the front: "CN=..."."""
    return _STARTS.match(text) is not None


def parse(text: str) -> bytes:
    """The name in DER; ValueError with what is wrong and what would be right."""
    try:
        name = x509.Name.from_rfc4514_string(_BLANKS_BEHIND_COMMA.sub(r"\1", text.strip()), _TYPES).public_bytes()
    except ValueError as error:
        hint = f" ({error})" if str(error) else ""
        raise ValueError(
            f'no distinguished name{hint}: write it as RFC 4514 does, the last part first, "CN=gw 7,O=Example,C=CH"'
        ) from None
    if len(name) > LONGEST_DER:
        raise ValueError(f"a name of {len(name)} bytes: at most {LONGEST_DER} are allowed")
    return name
