"""OCSP responses in CERT payloads: asked for where revocation matters, sent where they are asked for (RFC 4806)."""

import pytest

from ipc.messages import CertificateData
from ipc.types import CertificateEncoding, Secret
from policy_loader.credentials.files import FetchedFile
from policy_loader.credentials.loading import public_facts
from policy_loader.credentials.store import AuthKind, OwnKey, PeerCredentials
from tests.lab.pki import Authority, Issued, key_pem, root
from tests.policy_loader.credentials.test_loading import CERTIFICATE, complaints, credentials_of, load
from tests.policy_loader.credentials.test_signer import Sides

OWN_OCSP = CERTIFICATE + 'own_ocsp_files = ["/own.ocsp"]\n'
ASKED = CertificateData(encoding=CertificateEncoding.OCSP_CONTENT, data=b"")


@pytest.fixture(scope="module")
def ca() -> Authority:
    return root("CN=CA,O=Example")


@pytest.fixture(scope="module")
def own(ca: Authority) -> Issued:
    return ca.issue("CN=hq,O=Example", ["hq.example.net"])


def files(ca: Authority, own: Issued, **more: bytes) -> dict[str, bytes]:
    named = {f"/{name.replace('_', '.')}": content for name, content in more.items()}
    return {"/own.pem": own.pem, "/own.key": key_pem(own.key), "/ca.pem": ca.pem, **named}


def sides(ours: PeerCredentials, theirs: PeerCredentials) -> Sides:
    return Sides(own=ours, other=theirs)


def test_a_response_is_asked_for_where_it_counts(ca: Authority, own: Issued) -> None:
    """RFC 4806 section 3.1: no responder is named, since any that the authority trusts will do."""
    ocsp = 'ocsp_files = ["/ca.ocsp"]\n'
    with_file = load(CERTIFICATE + ocsp, files(ca, own, ca_ocsp=ca.ocsp(own)))
    required = load(CERTIFICATE + "revocation_required = true\n", files(ca, own))
    for loaded in (with_file, required):
        assert public_facts(credentials_of(loaded)).certificate_requests[1:] == (ASKED,)
        assert loaded.policy.peers[0].certificate_requests[1:] == (ASKED,)
    assert len(public_facts(credentials_of(load(CERTIFICATE, files(ca, own)))).certificate_requests) == 1


def test_who_asks_is_sent_ours_and_takes_it(ca: Authority, own: Issued) -> None:
    response = ca.ocsp(own)
    ours = credentials_of(load(OWN_OCSP, files(ca, own, own_ocsp=response)))
    theirs = credentials_of(load(CERTIFICATE + "revocation_required = true\n", files(ca, own)))
    both = sides(ours, theirs)
    unasked, asked = both.sign(encodings=(4,)), both.sign(encodings=(4, 14))
    assert [one.encoding for one in unasked.certificates] == [4]
    assert [(one.encoding, one.data) for one in asked.certificates] == [(4, own.der), (14, response)]
    assert 'certificate "CN=hq,O=Example"' in both.check(asked)
    with pytest.raises(Exception, match="no CRL or OCSP response"):
        both.check(unasked)


def test_what_the_file_says_now_is_sent(ca: Authority, own: Issued) -> None:
    loaded = load(OWN_OCSP, files(ca, own, own_ocsp=ca.ocsp(own)))
    (file,) = loaded.credentials.status_files
    newer = ca.ocsp(own, responder=ca.issue("CN=responder"))
    assert file.renew(FetchedFile(content=Secret(newer), mode=0o644, uid=0)) == ""
    both = sides(credentials_of(loaded), credentials_of(loaded))
    assert both.sign(encodings=(14,)).certificates[-1].data == newer


def test_a_key_of_its_own_needs_no_file(own: Issued) -> None:
    bare = PeerCredentials(local=AuthKind.PUBLIC_KEY, remote=AuthKind.PUBLIC_KEY, own=OwnKey(key=own.key))
    assert sides(bare, bare).sign(encodings=(14,)).certificates == ()


def test_a_file_about_somebody_else_is_warned_of(ca: Authority, own: Issued) -> None:
    (warning,) = load(OWN_OCSP, files(ca, own, own_ocsp=ca.ocsp(ca.issue("CN=other")))).warnings
    assert "branch.own_ocsp_files: /own.ocsp: the response is about no certificate of certificate_file" in warning
    assert load(OWN_OCSP, files(ca, own, own_ocsp=ca.ocsp(own))).warnings == ()
    assert "/own.ocsp: no OCSP response in DER" in complaints(OWN_OCSP, files(ca, own, own_ocsp=b"rubbish"))
    psk = 'auth = "psk"\npsk = "long enough for a test"\nown_ocsp_files = ["/own.ocsp"]\n'
    assert "own_ocsp_files: has no use with" in complaints(psk, {})
