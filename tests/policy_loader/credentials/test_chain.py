"""Certificate chains: what leads to an authority, and each check that refuses one."""

import datetime
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from policy_loader.credentials import certificates, chain
from policy_loader.credentials.certificates import Certificate
from policy_loader.credentials.chain import ChainRefused, Trust
from policy_loader.credentials.revocation import RevocationRules, Status
from tests.lab.pki import DAY, KINDS, Authority, Flaws, Issued, root, some_key, utc_now

NOTHING = Status()


def read(one: Issued) -> Certificate:
    return certificates.parse(one.der)


def validate(
    end: Issued, *others: Issued, trusted: Sequence[Issued], now: datetime.datetime | None = None
) -> tuple[Certificate, ...]:
    trust = Trust(authorities=tuple(read(one) for one in trusted), revocation=RevocationRules())
    return chain.validate(read(end), [read(one) for one in others], NOTHING, trust, now or utc_now())


def refusal(end: Issued, *others: Issued, trusted: Sequence[Issued], now: datetime.datetime | None = None) -> str:
    with pytest.raises(ChainRefused) as caught:
        validate(end, *others, trusted=trusted, now=now)
    return str(caught.value)


@pytest.fixture(scope="module")
def ca() -> Authority:
    return root("CN=Root CA,O=Example")


@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_of_every_kind_of_key_is_good(kind: str) -> None:
    top = root(key=some_key(kind))
    below = top.authority("CN=Sub CA", key=some_key(kind, 1))
    end = below.issue("CN=gw", key=some_key(kind, 2))
    assert validate(end, below, trusted=[top]) == (read(end), read(below), read(top))
    assert validate(end, trusted=[below]) == (read(end), read(below))


def test_the_order_of_the_others_and_strangers_among_them_do_not_matter(ca: Authority) -> None:
    one = ca.authority("CN=One")
    two = one.authority("CN=Two")
    end = two.issue("CN=gw")
    stranger = root("CN=Two").authority("CN=Stranger")
    impostor = root("CN=Two")
    found = validate(end, impostor, stranger, ca, one, two, trusted=[ca])
    assert found == (read(end), read(two), read(one), read(ca))


def test_a_cross_signed_authority_is_found_by_either_way() -> None:
    old, new = root("CN=Old"), root("CN=New")
    key = some_key("p256", 3)
    by_old, by_new = old.authority("CN=Sub", key=key), new.authority("CN=Sub", key=key)
    end = by_old.issue("CN=gw")
    for trusted in (old, new):
        assert validate(end, by_old, by_new, trusted=[trusted])[-1] == read(trusted)


def test_an_untrusted_issuer_is_named(ca: Authority) -> None:
    end = root("CN=Other CA").issue("CN=gw")
    assert refusal(end, trusted=[ca]) == (
        f'the issuer of "CN=gw" (serial {read(end).serial:x}), "CN=Other CA", is not trusted: it is in none of ca_files'
    )


def test_an_authority_of_the_same_name_is_not_the_same_authority(ca: Authority) -> None:
    assert "is not that of" in refusal(root("CN=Root CA,O=Example").issue("CN=gw"), trusted=[ca])


def test_a_missing_intermediate_is_named(ca: Authority) -> None:
    assert '"CN=Sub"' in refusal(ca.authority("CN=Sub").issue("CN=gw"), trusted=[ca])


def test_times(ca: Authority) -> None:
    end = ca.issue("CN=gw")
    assert "has expired" in refusal(end, trusted=[ca], now=utc_now() + 366 * DAY)
    assert "is valid from" in refusal(end, trusted=[ca], now=utc_now() - 2 * DAY)
    short = ca.authority("CN=Short", flaws=Flaws(not_after=utc_now() + DAY))
    below = short.issue("CN=gw")
    validate(below, short, trusted=[ca])
    assert '"CN=Short"' in refusal(below, short, trusted=[ca], now=utc_now() + 2 * DAY)


def test_who_is_no_authority_issues_nothing(ca: Authority) -> None:
    user = ca.authority("CN=user", ca=False, flaws=Flaws(key_usage=("key_cert_sign", "digital_signature")))
    assert "no certification authority" in refusal(user.issue("CN=gw"), user, trusted=[ca])
    no_signing = ca.authority("CN=no signing", flaws=Flaws(key_usage=("crl_sign",)))
    assert "does not allow it to sign certificates" in refusal(no_signing.issue("CN=gw"), no_signing, trusted=[ca])


def test_a_path_length_is_kept(ca: Authority) -> None:
    none = ca.authority("CN=None below", path_length=0)
    validate(none.issue("CN=gw"), none, trusted=[ca])
    deeper = none.authority("CN=Deeper")
    assert "allows 0 authorities below it" in refusal(deeper.issue("CN=gw"), deeper, none, trusted=[ca])


def test_usages(ca: Authority) -> None:
    only_encryption = ca.issue("CN=gw", flaws=Flaws(key_usage=("key_encipherment",)))
    assert "does not allow signatures" in refusal(only_encryption, trusted=[ca])
    for_code = Flaws(extended_key_usage=(ExtendedKeyUsageOID.CODE_SIGNING,))
    assert "does not allow IKE" in refusal(ca.issue("CN=gw", flaws=for_code), trusted=[ca])
    code_ca = ca.authority("CN=code", flaws=for_code)
    assert "does not allow IKE" in refusal(code_ca.issue("CN=gw"), code_ca, trusted=[ca])
    for usage in (ExtendedKeyUsageOID.IPSEC_IKE, ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH):
        validate(ca.issue("CN=gw", flaws=Flaws(extended_key_usage=(usage,))), trusted=[ca])


def test_broken_hashes_are_refused() -> None:
    weak_ca = root(key=some_key("rsa"))
    assert "broken hash" in refusal(weak_ca.issue("CN=gw", flaws=Flaws(sha1=True)), trusted=[weak_ca])


def test_an_unknown_critical_extension_is_refused(ca: Authority) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    end = ca.issue("CN=gw", flaws=Flaws(extensions=(unknown,)))
    assert "critical extension 1.3.6.1.4.1.99999.1" in refusal(end, trusted=[ca])
    policies = x509.PolicyConstraints(require_explicit_policy=0, inhibit_policy_mapping=None)
    below = ca.authority("CN=policies", flaws=Flaws(extensions=(policies,)))
    assert "critical extension 2.5.29.36" in refusal(below.issue("CN=gw"), below, trusted=[ca])


def test_certificates_that_fit_in_many_ways_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many certificates of one name and key, each issued by each other: the search must end."""
    top = root("CN=Loop")
    loop = [top.authority("CN=Loop", key=top.key) for _ in range(12)]
    looked_at = []
    monkeypatch.setattr(chain, "_check_signature", lambda one, issuer: looked_at.append((one, issuer)))
    refusal(top.issue("CN=gw"), *loop, trusted=[root("CN=Elsewhere")])
    assert len(looked_at) == chain.MOST_SIGNATURES
