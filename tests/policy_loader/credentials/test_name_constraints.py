"""Name constraints, by the words and examples of RFC 5280 section 4.2.1.10."""

import dataclasses

import pytest
from cryptography import x509

from policy_loader.credentials import certificates, name_constraints
from tests.lab.pki import DER, Authority, constraint, root


@pytest.fixture(scope="module")
def ca() -> Authority:
    return root()


def broken(ca: Authority, names: list[str], *, permitted: str = "", excluded: str = "", subject: str = "CN=gw") -> str:
    constraints = x509.NameConstraints(
        [constraint(permitted)] if permitted else None, [constraint(excluded)] if excluded else None
    )
    return name_constraints.broken_by(constraints, certificates.parse(ca.issue(subject, names).der))


@pytest.mark.parametrize(
    ("base", "inside", "outside"),
    [
        ("host.example.com", "host.example.com", "host1.example.com"),
        ("host.example.com", "my.HOST.example.com", "badhost.example.com"),
        (".example.com", "host.example.com", "example.com"),
        ("root@example.com", "root@EXAMPLE.com", "other@example.com"),
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("fd00::/8", "fd12::1", "fe80::1"),
        ("10.0.0.0/8", "10.1.2.3", "fd12::1"),
        ("O=Example,C=CH", "CN=a,O=example,C=CH", "CN=a,O=Other,C=CH"),
    ],
)
def test_what_is_inside_and_what_outside(ca: Authority, base: str, inside: str, outside: str) -> None:
    subject = "CN=gw,O=Example,C=CH"
    assert broken(ca, [inside], permitted=base, subject=subject) == ""
    assert "outside" in broken(ca, [outside], permitted=base, subject=subject)
    assert "outside" in broken(ca, [inside, outside], permitted=base, subject=subject)
    assert broken(ca, [outside], excluded=base) == ""
    assert "excluded" in broken(ca, [inside], excluded=base)


@pytest.mark.parametrize(
    ("base", "inside", "outside"),
    [("example.com", "a@example.com", "a@host.example.com"), (".example.com", "a@host.example.com", "a@example.com")],
)
def test_a_mailbox_in_a_host_or_in_a_domain(ca: Authority, base: str, inside: str, outside: str) -> None:
    constraints = x509.NameConstraints([x509.RFC822Name(base)], None)
    for name, good in ((inside, True), (outside, False)):
        found = name_constraints.broken_by(constraints, certificates.parse(ca.issue("CN=gw", [name]).der))
        assert (found == "") is good


def test_the_subject_is_a_directory_name_too(ca: Authority) -> None:
    assert broken(ca, [], permitted="O=Example", subject="CN=gw,O=Example") == ""
    assert broken(ca, [], permitted="O=Example", subject="CN=gw,O=Other") == (
        "CN=gw,O=Other is outside the names that are permitted"
    )


def test_a_uri_is_compared_by_its_host(ca: Authority) -> None:
    def uri(text: str) -> certificates.Certificate:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(ca.certificate.subject)
            .public_key(ca.key.public_key())
            .serial_number(1)
            .not_valid_before(ca.certificate.not_valid_before_utc)
            .not_valid_after(ca.certificate.not_valid_after_utc)
            .add_extension(names, critical=True)
        )
        return certificates.parse(builder.sign(ca.key, ca.certificate.signature_hash_algorithm).public_bytes(DER))

    constraints = x509.NameConstraints([x509.UniformResourceIdentifier(".example.com")], None)
    assert name_constraints.broken_by(constraints, uri("https://host.example.com/x")) == ""
    for text in ("https://example.com/", "https://host.example.org/", "urn:a:b", "https://[/"):
        assert "outside" in name_constraints.broken_by(constraints, uri(text))


def test_a_kind_of_name_that_is_not_understood_is_refused_where_it_is_constrained(ca: Authority) -> None:
    other = x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))
    certificate = certificates.parse(ca.issue("CN=gw", ["a.b"]).der)
    for constraints in (x509.NameConstraints([other], None), x509.NameConstraints(None, [other])):
        assert name_constraints.broken_by(constraints, certificate) == ""
    with_it = dataclasses.replace(certificate, alternative_names=(other,))
    for constraints in (x509.NameConstraints([other], None), x509.NameConstraints(None, [other])):
        assert "not understood" in name_constraints.broken_by(constraints, with_it)
