"""Credentials from the files of a policy: what comes of them, what is refused, what is warned of."""

import datetime
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519

from ipc.messages import Peer
from ipc.types import AuthMethod, Identity, IdType, Secret
from policy_loader import policy_file
from policy_loader.credentials import certificates
from policy_loader.credentials.files import FetchedFile
from policy_loader.credentials.store import AuthKind, PeerCredentials
from policy_loader.errors import PolicyError
from policy_loader.policy_file import LoadedPolicy
from policy_loader.rule_ids import RuleIds
from tests.lab.pki import DAY, DER, KINDS, Authority, Flaws, Issued, key_pem, public_pem, root, some_key, utc_now

NOW = utc_now()
CERTIFICATE = """\
auth = "certificate"
certificate_file = "/own.pem"
key_file = "/own.key"
ca_files = ["/ca.pem"]
"""
PUBLIC_KEY = """\
auth = "public-key"
local_id = "hq.example.net"
key_file = "/own.key"
remote_public_key_file = "/other.pub"
"""


def load(
    lines: str, contents: Mapping[str, bytes], *, now: datetime.datetime = NOW, others: str = "", **facts: Any
) -> LoadedPolicy:
    """The policy with a peer of these lines; `facts` are mode and uid of all its files."""
    text = f"""
[setup]
interfaces = ["eth0"]
unmatched = "bypass"
{others}
[peers.branch]
address = "198.51.100.7"
{lines}
[[rules]]
name = "lan"
action = "protect"
local = ["10.1.0.0/16"]
remote = ["10.2.0.0/16"]
peer = "branch"
"""
    file = policy_file.read("t.spd", text.encode(), 0o600, 0)
    assert set(file.secret_files()) == set(contents)
    fetched = {
        path: FetchedFile(content=Secret(content), **{"mode": 0o600, "uid": 0, **facts})
        for path, content in contents.items()
    }
    return file.compile(fetched, RuleIds(), now=now)


def complaints(lines: str, contents: Mapping[str, bytes], **facts: Any) -> str:
    with pytest.raises(PolicyError) as caught:
        load(lines, contents, **facts)
    return "\n".join(caught.value.complaints)


def credentials_of(loaded: LoadedPolicy) -> PeerCredentials:
    credentials = loaded.credentials.of("branch")
    assert credentials is not None
    return credentials


def peer_of(loaded: LoadedPolicy) -> Peer:
    (peer,) = loaded.policy.peers
    return peer


@pytest.fixture(scope="module")
def ca() -> Authority:
    return root("CN=CA,O=Example")


@pytest.fixture(scope="module")
def own(ca: Authority) -> Issued:
    return ca.issue("CN=hq,O=Example", ["hq.example.net"])


def files(ca: Authority, own: Issued, **changes: bytes) -> dict[str, bytes]:
    named = {"/own.pem": own.pem, "/own.key": key_pem(own.key), "/ca.pem": ca.pem}
    return {**named, **{f"/{name.replace('_', '.')}": content for name, content in changes.items()}}


def test_a_certificate_its_key_and_an_authority(ca: Authority, own: Issued) -> None:
    loaded = load(CERTIFICATE, files(ca, own))
    assert loaded.warnings == ()
    credentials = credentials_of(loaded)
    assert (credentials.local, credentials.remote) == (AuthKind.CERTIFICATE, AuthKind.CERTIFICATE)
    assert credentials.own is not None
    assert [str(one) for one in credentials.own.certificates] == [str(certificates.parse(own.der))]
    peer = peer_of(loaded)
    assert (peer.auth, peer.remote_auth) == (AuthMethod.DIGITAL_SIGNATURE, AuthMethod.DIGITAL_SIGNATURE)
    (request,) = peer.certificate_requests
    assert (request.encoding, request.data) == (4, certificates.parse(ca.der).key_id)
    # The subject says who we are where nothing else does.
    assert str(peer.local_id) == "CN=hq,O=Example"


def test_no_repr_shows_a_private_key(ca: Authority, own: Issued) -> None:
    loaded = load(CERTIFICATE, files(ca, own))
    assert "PrivateKey" not in repr(loaded)
    assert "PrivateKey" not in repr(credentials_of(loaded))


def test_der_does_as_well(ca: Authority, own: Issued) -> None:
    key = own.key.private_bytes(DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    loaded = load(
        CERTIFICATE + 'crl_files = ["/ca.crl"]\nocsp_files = ["/ca.ocsp"]',
        files(ca, own, own_pem=own.der, own_key=key, ca_pem=ca.der, ca_crl=ca.crl(), ca_ocsp=ca.ocsp(own)),
    )
    trust = credentials_of(loaded).trust
    assert trust is not None
    assert [file.path for file in trust.revocation.files] == ["/ca.crl", "/ca.ocsp"]
    assert loaded.credentials.status_files == trust.revocation.files


def test_what_lies_between_goes_along_in_order_and_the_authority_does_not(ca: Authority) -> None:
    one = ca.authority("CN=One")
    two = one.authority("CN=Two")
    mine = two.issue("CN=hq", ["hq.example.net"])
    stranger = root("CN=Stranger")
    loaded = load(CERTIFICATE, files(ca, mine, own_pem=b"".join([ca.pem, one.pem, stranger.pem, two.pem, mine.pem])))
    own_key = credentials_of(loaded).own
    assert own_key is not None
    assert [one.der for one in own_key.certificates] == [mine.der, two.der, one.der]


@pytest.mark.parametrize("kind", KINDS)
def test_public_keys_in_every_form(kind: str, ca: Authority) -> None:
    key, other = some_key(kind, 6), some_key(kind, 7)
    certificate = ca.issue("CN=other", key=other)
    for content in (public_pem(other), certificate.pem, certificate.der):
        loaded = load(PUBLIC_KEY, {"/own.key": key_pem(key), "/other.pub": content})
        credentials = credentials_of(loaded)
        assert credentials.remote_key == other.public_key()
        assert peer_of(loaded).certificate_requests == ()


def test_each_side_in_its_own_way(ca: Authority, own: Issued) -> None:
    by_psk_and_certificate = (
        'auth = "psk"\nremote_auth = "certificate"\nlocal_id = "a"\n'
        'psk = "sixteen bytes and more"\nca_files = ["/ca.pem"]'
    )
    loaded = load(by_psk_and_certificate, {"/ca.pem": ca.pem})
    assert (peer_of(loaded).auth, peer_of(loaded).remote_auth) == (AuthMethod.PSK, AuthMethod.DIGITAL_SIGNATURE)
    by_certificate_and_psk = (
        'auth = "certificate"\nremote_auth = "psk"\npsk_file = "/psk"\n'
        'certificate_file = "/own.pem"\nkey_file = "/own.key"'
    )
    content = files(ca, own, psk=b"sixteen bytes and more\n")
    del content["/ca.pem"]
    loaded = load(by_certificate_and_psk, content)
    assert (peer_of(loaded).auth, peer_of(loaded).remote_auth) == (AuthMethod.DIGITAL_SIGNATURE, AuthMethod.PSK)
    assert peer_of(loaded).certificate_requests == ()


def test_a_local_id_is_kept_and_must_be_in_the_certificate(ca: Authority, own: Issued) -> None:
    loaded = load(CERTIFICATE + 'local_id = "hq.example.net"', files(ca, own))
    assert peer_of(loaded).local_id == Identity(type=IdType.FQDN, data=b"hq.example.net")
    assert loaded.warnings == ()
    (warning,) = load(CERTIFICATE + 'local_id = "hq.example.org"', files(ca, own)).warnings
    assert "is not for local_id, hq.example.org, but for CN=hq,O=Example; hq.example.net: peers refuse it" in warning


def test_a_certificate_without_a_subject_does_not_say_who_we_are(ca: Authority) -> None:
    nameless = ca.issue("", ["hq.example.net"])
    assert "branch.local_id: is missing: our certificate has no subject" in complaints(CERTIFICATE, files(ca, nameless))
    load(CERTIFICATE + 'local_id = "hq.example.net"', files(ca, nameless))


def test_a_key_must_be_that_of_the_certificate(ca: Authority, own: Issued) -> None:
    text = complaints(CERTIFICATE, files(ca, own, own_key=key_pem(some_key("p256", 9))))
    assert "branch.certificate_file: /own.pem: no certificate in it is for the key in /own.key" in text


def test_who_may_read_a_key_and_write_a_certificate(ca: Authority, own: Issued) -> None:
    load(CERTIFICATE, files(ca, own), mode=0o400)
    text = complaints(CERTIFICATE, files(ca, own), mode=0o644)
    assert "branch.key_file: /own.key: mode is 0644: the group may read it (bit 0040), others may read it" in text
    assert "/own.pem" not in text
    text = complaints(CERTIFICATE, files(ca, own), mode=0o620)
    assert "branch.ca_files: /ca.pem: mode is 0620: only root may write it (chmod go-w)" in text
    assert "belongs to uid 60703" in complaints(CERTIFICATE, files(ca, own), uid=60703)


def test_keys_that_can_not_be_used(ca: Authority, own: Issued) -> None:
    encrypted = own.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    wrong = {
        encrypted: "is encrypted: write it without a passphrase",
        key_pem(rsa.generate_private_key(65537, 1024)): "an RSA key of 1024 bits: from 2048 to 8192 are taken",
        key_pem(ec.generate_private_key(ec.SECP256K1())): "on secp256k1: P-256, P-384 and P-521 are taken",
        key_pem(x25519.X25519PrivateKey.generate()): "of a kind that can't sign here",  # type: ignore[arg-type]
        b"rubbish": "no private key in PEM or DER",
        own.pem: "no private key in PEM or DER",
    }
    for content, words in wrong.items():
        text = complaints(CERTIFICATE, files(ca, own, own_key=content))
        assert words in text
        assert "BEGIN" not in text


def test_time_is_warned_of(ca: Authority, own: Issued) -> None:
    (warning,) = load(CERTIFICATE, files(ca, own), now=NOW + 355 * DAY).warnings
    assert 'branch.certificate_file: "CN=hq,O=Example" (serial' in warning
    assert "peers refuse it at other times" in warning
    two = load(CERTIFICATE, files(ca, own), now=NOW + 366 * DAY).warnings
    assert any("nothing that it has issued is taken" in one for one in two)


def test_time_is_warned_of_where_nothing_else_has_changed(ca: Authority, own: Issued) -> None:
    former = load(CERTIFICATE, files(ca, own))
    assert former.warnings == ()
    fetched = {path: FetchedFile(content=Secret(one), mode=0o600, uid=0) for path, one in files(ca, own).items()}
    later = former.file.compile(fetched, RuleIds(), now=NOW + 355 * DAY, former=former)
    assert len(later.warnings) == 1
    assert later.policy is former.policy


def test_what_will_refuse_every_peer_is_warned_of(ca: Authority, own: Issued) -> None:
    (warning,) = load(CERTIFICATE, files(ca, own, ca_pem=own.pem)).warnings
    assert "is no certification authority: nothing that it issues is taken" in warning
    crl = ca.crl(this_update=NOW - 9 * DAY, next_update=NOW - DAY)
    (warning,) = load(CERTIFICATE + 'crl_files = ["/ca.crl"]', files(ca, own, ca_crl=crl)).warnings
    assert "branch.crl_files: the CRL of CN=CA,O=Example was to be renewed by" in warning


def test_a_dn_is_sent_as_the_certificate_has_it(ca: Authority) -> None:
    # C is a PrintableString always, O and CN here a UTF8String; the policy says the same in other letters.
    mine = ca.issue("CN=hq,O=Example,C=CH", ["hq.example.net"])
    loaded = load(CERTIFICATE + 'local_id = "CN=HQ, O=example, C=CH"', files(ca, mine))
    assert loaded.warnings == ()
    assert peer_of(loaded).local_id.data == mine.certificate.subject.public_bytes()


def test_sha_1_is_warned_of(ca: Authority, own: Issued) -> None:
    (warning,) = load(CERTIFICATE + "sha1_signatures = true", files(ca, own)).warnings
    assert "RSA signatures over SHA-1" in warning
    assert credentials_of(load(CERTIFICATE + "pkcs1_signatures = true", files(ca, own))).rules.pss is False


def test_a_file_that_several_peers_name_is_read_once(
    ca: Authority, own: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    read = certificates.read_certificates

    def watched(content: bytes) -> tuple[certificates.Certificate, ...]:
        seen.append(content)
        return read(content)

    monkeypatch.setattr(certificates, "read_certificates", watched)
    load(CERTIFICATE, files(ca, own), others='[peers.second]\naddress = "198.51.100.8"\n' + CERTIFICATE)
    assert sorted(seen) == sorted([own.pem, ca.pem])


def test_an_authority_with_a_flaw_is_loaded_and_a_broken_file_is_not(ca: Authority, own: Issued) -> None:
    weak = root("CN=Old", key=some_key("rsa"), flaws=Flaws(sha1=True))
    load(CERTIFICATE, files(ca, own, ca_pem=ca.pem + weak.pem))
    assert "/ca.pem: no certificate in PEM or DER" in complaints(CERTIFICATE, files(ca, own, ca_pem=ca.pem[:-40]))
