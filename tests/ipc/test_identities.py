"""Identities against patterns, and names as people read them; the names in DER are made by `cryptography`."""

import random

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from ipc import distinguished_name, identities
from ipc.types import Identity, IdType


def fqdn(name: str) -> Identity:
    return Identity(type=IdType.FQDN, data=name.encode())


def mail(name: str) -> Identity:
    return Identity(type=IdType.RFC822_ADDR, data=name.encode())


def dn(text: str) -> Identity:
    return Identity(type=IdType.DER_ASN1_DN, data=x509.Name.from_rfc4514_string(text).public_bytes())


@pytest.mark.parametrize(
    ("pattern", "identity"),
    [
        (fqdn("gw.example.net"), fqdn("GW.Example.net")),
        (fqdn("*.example.net"), fqdn("gw.example.net")),
        (mail("ann@example.net"), mail("ann@EXAMPLE.net")),
        (mail("*@example.net"), mail("ann@example.net")),
        (dn("CN=gw,O=Ex Ample,C=CH"), dn("CN=GW,O=ex  ample,C=ch")),
        (dn("CN=*,O=Example"), dn("CN=anything at all,O=Example")),
        (dn("CN=gw+UID=7,O=Example"), dn("UID=7+CN=gw,O=Example")),
        (Identity(type=IdType.KEY_ID, data=b"\x01*"), Identity(type=IdType.KEY_ID, data=b"\x01*")),
    ],
)
def test_an_identity_that_the_pattern_names(pattern: Identity, identity: Identity) -> None:
    assert identities.matches(pattern, identity)


@pytest.mark.parametrize(
    ("pattern", "identity"),
    [
        (fqdn("gw.example.net"), fqdn("gw.example.org")),
        (fqdn("gw.example.net"), mail("gw.example.net")),
        (fqdn("*.example.net"), fqdn("example.net")),
        (fqdn("*.example.net"), fqdn("a.b.example.net")),
        (fqdn("*.example.net"), fqdn("*.example.net")),
        (fqdn("*.example.net"), fqdn(".example.net")),
        (fqdn("*.example.net"), fqdn("gw.badexample.net")),
        (fqdn("gw.example.net"), fqdn("*.example.net")),
        (mail("ann@example.net"), mail("bob@example.net")),
        (mail("*@example.net"), mail("ann@sub.example.net")),
        (dn("CN=*,O=Example"), dn("CN=gw,O=Other")),
        (dn("CN=*,O=Example"), dn("CN=gw,OU=x,O=Example")),
        (dn("CN=*,O=Example"), dn("O=Example")),
        (dn("CN=gw,O=Example"), dn("O=Example,CN=gw")),
        (dn("CN=gw,O=Example"), dn("CN=*,O=Example")),
        (dn("CN=gw"), Identity(type=IdType.DER_ASN1_DN, data=b"\x30\x03\x31\x01\x05")),
        (Identity(type=IdType.KEY_ID, data=b"\x01"), Identity(type=IdType.KEY_ID, data=b"\x01\x02")),
    ],
)
def test_an_identity_that_it_does_not_name(pattern: Identity, identity: Identity) -> None:
    assert not identities.matches(pattern, identity)


def test_the_string_type_of_a_value_does_not_matter() -> None:
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gw 7", kind)]).public_bytes()
        for kind in (_ASN1Type.UTF8String, _ASN1Type.PrintableString, _ASN1Type.BMPString, _ASN1Type.IA5String)
    ]
    assert len(set(names)) == 4
    assert all(distinguished_name.matches(one, other) for one in names for other in names)


def test_a_name_in_the_opposite_order_is_recognised_as_that() -> None:
    assert distinguished_name.is_reversed(dn("CN=gw,O=Example").data, dn("O=Example,CN=gw").data)
    assert not distinguished_name.is_reversed(dn("CN=gw,O=Example").data, dn("O=Example,CN=other").data)


def test_a_value_that_is_no_text_is_compared_by_its_octets() -> None:
    # CN with a UTF8String of the octet ff, and with one of the octet fe.
    one, other = (bytes.fromhex(f"300c310a300806035504030c01{octet}") for octet in ("ff", "fe"))
    assert distinguished_name.same(one, one)
    assert not distinguished_name.same(one, other)
    assert distinguished_name.matches(dn("CN=*").data, one)
    assert distinguished_name.text(one) == "CN=#0c01ff"


def test_a_name_is_shown_as_rfc_4514_writes_it() -> None:
    for text in ("CN=gw,O=Example\\, Inc.,C=CH", "CN=gw+UID=7,DC=example,DC=net"):
        assert str(dn(text)) == text
    assert str(Identity(type=IdType.DER_ASN1_DN, data=b"\x30\x05")) == "3005"


def test_wildcards_are_known() -> None:
    assert all(identities.is_pattern(one) for one in (fqdn("*.a.b"), mail("*@a.b"), dn("CN=*,O=b")))
    assert not any(identities.is_pattern(one) for one in (fqdn("a.b"), mail("a@b"), dn("CN=a*"), dn("CN=a")))


def test_anything_at_all_is_compared() -> None:
    chance = random.Random(7)
    whole = dn("CN=gw+UID=7,O=Example").data
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        distinguished_name.matches(whole, bytes(data))
        distinguished_name.text(bytes(data))
