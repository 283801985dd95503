"""CRLs and OCSP responses: who is revoked, and which of them say nothing."""

import datetime
from typing import Any

import pytest
from cryptography import x509

from ipc.types import Secret
from policy_loader.credentials import certificates, revocation
from policy_loader.credentials.certificates import CertificateError
from policy_loader.credentials.files import FetchedFile
from policy_loader.credentials.revocation import RevocationRules, Revoked, Status, StatusFile
from tests.lab.pki import DAY, KINDS, OCSP_RESPONDER, Authority, Flaws, Issued, new_key, root, some_key, utc_now

NOTHING = Status()


@pytest.fixture(scope="module")
def ca() -> Authority:
    return root(flaws=Flaws(key_usage=("key_cert_sign", "crl_sign")))


@pytest.fixture(scope="module")
def good(ca: Authority) -> Issued:
    return ca.issue("CN=good")


@pytest.fixture(scope="module")
def bad(ca: Authority) -> Issued:
    return ca.issue("CN=bad")


def status(*, crl: bytes = b"", ocsp: bytes = b"") -> Status:
    return Status(
        crls=revocation.read_crls(crl) if crl else (), ocsp_responses=(revocation.read_ocsp(ocsp),) if ocsp else ()
    )


def check(
    ca: Authority,
    one: Issued,
    known: Status = NOTHING,
    sent: Status = NOTHING,
    *,
    required: bool = False,
    now: datetime.datetime | None = None,
) -> None:
    rules = RevocationRules(files=(StatusFile("/ca.crl", revocation.crl_file, known),), required=required)
    revocation.check(certificates.parse(one.der), certificates.parse(ca.der), rules, sent, now or utc_now())


@pytest.mark.parametrize("kind", KINDS)
def test_a_crl_of_every_kind_of_key(kind: str) -> None:
    authority = root(key=some_key(kind))
    kept, gone = authority.issue("CN=kept"), authority.issue("CN=gone")
    known = status(crl=authority.crl(gone))
    check(authority, kept, known, required=True)
    with pytest.raises(Revoked, match=r'"CN=gone" \(serial [0-9a-f]+\) was revoked by its issuer on'):
        check(authority, gone, known)


@pytest.mark.parametrize("kind", KINDS)
def test_an_ocsp_response_of_every_kind_of_key(kind: str) -> None:
    authority = root(key=some_key(kind))
    one = authority.issue("CN=one")
    check(authority, one, status(ocsp=authority.ocsp(one)), required=True)
    with pytest.raises(Revoked, match="OCSP says"):
        check(authority, one, status(ocsp=authority.ocsp(one, revoked=True)))


def test_an_ocsp_response_signed_by_pss() -> None:
    authority = root(key=some_key("rsa"))
    one = authority.issue("CN=one")
    response = authority.ocsp(one, pss=True)
    check(authority, one, status(ocsp=response), required=True)
    with pytest.raises(Revoked, match="OCSP says"):
        check(authority, one, status(ocsp=authority.ocsp(one, revoked=True, pss=True)))
    for wrong in (response[:-1] + bytes((response[-1] ^ 1,)), root(key=some_key("rsa", 1)).ocsp(one, pss=True)):
        with pytest.raises(Revoked, match="no CRL or OCSP response"):
            check(authority, one, sent=status(ocsp=wrong), required=True)


def test_what_the_peer_sends_counts_too(ca: Authority, good: Issued, bad: Issued) -> None:
    check(ca, good, sent=status(crl=ca.crl()), required=True)
    check(ca, good, sent=status(ocsp=ca.ocsp(good)), required=True)
    for sent in (status(crl=ca.crl(bad)), status(ocsp=ca.ocsp(bad, revoked=True))):
        with pytest.raises(Revoked):
            check(ca, bad, sent=sent)


def test_a_good_answer_of_one_does_not_undo_the_other(ca: Authority, bad: Issued) -> None:
    with pytest.raises(Revoked):
        check(ca, bad, status(crl=ca.crl(bad)), sent=status(crl=ca.crl(), ocsp=ca.ocsp(bad)))


def test_without_any_it_is_the_policy_that_decides(ca: Authority, good: Issued) -> None:
    check(ca, good)
    with pytest.raises(Revoked, match="no CRL or OCSP response"):
        check(ca, good, required=True)
    elsewhere = status(crl=root("CN=Elsewhere").crl())
    check(ca, good, elsewhere)
    with pytest.raises(Revoked, match="no CRL or OCSP response"):
        check(ca, good, elsewhere, required=True)


def test_a_crl_that_is_not_its_issuers_is_refused(ca: Authority, good: Issued, bad: Issued) -> None:
    forged = status(crl=ca.crl(bad, signer=new_key("p256")))
    for one in (good, bad):
        with pytest.raises(Revoked, match="is not known: the CRL is not signed by"):
            check(ca, one, forged)
    check(ca, good, sent=forged)


def test_an_old_crl_is_refused_and_still_knows_who_was_revoked(ca: Authority, good: Issued, bad: Issued) -> None:
    known = status(crl=ca.crl(bad, next_update=utc_now() + DAY))
    check(ca, good, known)
    with pytest.raises(Revoked, match="was to be renewed by"):
        check(ca, good, known, now=utc_now() + 2 * DAY)
    with pytest.raises(Revoked, match="was revoked by its issuer"):
        check(ca, bad, known, now=utc_now() + 2 * DAY)
    future = status(crl=ca.crl(this_update=utc_now() + DAY))
    with pytest.raises(Revoked, match="and here it is"):
        check(ca, good, future)
    # A newer one at its side settles it.
    check(ca, good, known, sent=status(crl=ca.crl(next_update=utc_now() + 9 * DAY)), now=utc_now() + 2 * DAY)


def test_an_authority_that_may_not_sign_crls_signs_none(ca: Authority) -> None:
    below = ca.authority("CN=no CRLs", flaws=Flaws(key_usage=("key_cert_sign",)))
    with pytest.raises(Revoked, match="may not sign CRLs"):
        check(below, below.issue("CN=gw"), status(crl=below.crl()))


def test_ocsp_by_a_responder(ca: Authority, good: Issued) -> None:
    responder = ca.issue("CN=responder", flaws=OCSP_RESPONDER)
    check(ca, good, status(ocsp=ca.ocsp(good, responder=responder)), required=True)
    not_for_that = ca.issue("CN=not for that")
    of_another = root("CN=Another").issue("CN=responder", flaws=OCSP_RESPONDER)
    old = ca.issue("CN=old", flaws=Flaws(extended_key_usage=OCSP_RESPONDER.extended_key_usage, not_after=utc_now()))
    for wrong in (not_for_that, of_another, old):
        with pytest.raises(Revoked, match="no CRL or OCSP response"):
            later = utc_now() + DAY / 48
            check(ca, good, sent=status(ocsp=ca.ocsp(good, responder=wrong)), required=True, now=later)


def test_an_ocsp_response_has_its_time(ca: Authority, good: Issued) -> None:
    known = status(ocsp=ca.ocsp(good))
    for now in (utc_now() + 2 * DAY, utc_now() - DAY):
        with pytest.raises(Revoked, match="the OCSP response is good from"):
            check(ca, good, known, now=now)


def test_an_ocsp_response_about_another_says_nothing(ca: Authority, good: Issued, bad: Issued) -> None:
    check(ca, good, status(ocsp=ca.ocsp(bad, revoked=True)))
    same_serial_elsewhere = root("CN=Elsewhere").ocsp(good, revoked=True)
    check(ca, good, status(ocsp=same_serial_elsewhere))


@pytest.mark.parametrize("content", [b"", b"rubbish", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
def test_what_is_no_crl_and_no_ocsp_response_is_refused(content: bytes) -> None:
    with pytest.raises(CertificateError):
        revocation.read_crls(content)
    with pytest.raises(CertificateError):
        revocation.read_ocsp(content)


def test_a_crl_for_a_part_of_the_certificates_is_refused(ca: Authority) -> None:
    part = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    indirect = x509.IssuingDistributionPoint(None, None, False, False, None, True, False)
    for one in (part, indirect, x509.DeltaCRLIndicator(1)):
        with pytest.raises(CertificateError, match="only full CRLs"):
            revocation.read_crls(ca.crl(extensions=[one]))


def test_several_crls_in_one_file(ca: Authority) -> None:
    assert len(revocation.read_crls(ca.crl() + root("CN=Other").crl())) == 2


def test_a_file_is_renewed_and_a_bad_one_changes_nothing(ca: Authority, good: Issued, bad: Issued) -> None:
    def fetched(content: bytes, **facts: Any) -> FetchedFile:
        return FetchedFile(content=Secret(content), **{"mode": 0o644, "uid": 0, **facts})

    file = StatusFile("/ca.crl", revocation.crl_file, status(crl=ca.crl()))
    rules = RevocationRules(files=(file,))

    def is_refused(one: Issued) -> bool:
        try:
            revocation.check(certificates.parse(one.der), certificates.parse(ca.der), rules, NOTHING, utc_now())
        except Revoked:
            return True
        return False

    assert not is_refused(bad)
    assert file.renew(fetched(ca.crl(bad))) == ""
    assert is_refused(bad)
    assert not is_refused(good)
    assert "no CRL" in file.renew(fetched(b""))
    assert "only root may write it" in file.renew(fetched(ca.crl(), mode=0o666))
    assert file.renew(fetched(b"", error="no such file")) == "no such file"
    assert is_refused(bad)
