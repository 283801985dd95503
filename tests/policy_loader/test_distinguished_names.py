"""Distinguished names as operators write them."""

import pytest

from ipc import distinguished_name
from ipc.types import IdType
from policy_loader import distinguished_names, values


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("CN=gw 7,O=Example,C=CH", "CN=gw 7,O=Example,C=CH"),
        ("CN=gw 7, O=Example,  C=CH", "CN=gw 7,O=Example,C=CH"),
        (" cn=gw,o=Example", "CN=gw,O=Example"),
        ("CN=gw,O=Example\\, Inc.", "CN=gw,O=Example\\, Inc."),
        ("E=a@example.net,CN=gw", "emailAddress=a@example.net,CN=gw"),
        ("serialNumber=12,SN=Doe,GN=Ann", "serialNumber=12,SN=Doe,GN=Ann"),
        ("CN=gw+UID=7,DC=example,DC=net", "CN=gw+UID=7,DC=example,DC=net"),
        ("1.2.3.4=x,CN=gw", "1.2.3.4=x,CN=gw"),
        ("CN=*,O=Example", "CN=*,O=Example"),
        ("CN=J\u00f6rg", "CN=J\u00f6rg"),
    ],
)
def test_a_name_is_read_and_shown_again(text: str, written: str) -> None:
    identity = values.parse_identity(text)
    assert identity.type is IdType.DER_ASN1_DN
    assert distinguished_name.text(identity.data) == written == str(identity)


def test_the_last_part_is_written_first() -> None:
    # RFC 4514 section 2.1: the RDNs in reverse order. 2.5.4.6 is C, 2.5.4.3 is CN (X.520).
    assert distinguished_names.parse("CN=a,C=CH").hex() == "301931" + "0b" + "3009060355040613024348" + "310a" + (
        "300806035504030c0161"
    )


@pytest.mark.parametrize(
    "text", ["CN=a,Q=b", "CN=", "CN=a,", "CN=a;O=b", "CN=a,,O=b", "CN=" + "x" * 2000, "C=Switzerland"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 4514|at most 1024"):
        values.parse_identity(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("*.example.net", IdType.FQDN), ("*@example.net", IdType.RFC822_ADDR), ("192.0.2.1", IdType.IPV4_ADDR)],
)
def test_other_identities_are_not_taken_for_names(text: str, kind: IdType) -> None:
    assert values.parse_identity(text).type is kind


@pytest.mark.parametrize("text", ["*", "a.*.net", "*.*.net", "**.net", "*."])
def test_a_wildcard_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no identity"):
        values.parse_identity(text)
