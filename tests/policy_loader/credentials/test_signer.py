"""AUTH (RFC 7296 section 2.15), against values that `openssl dgst -mac HMAC` computed step by step."""

import dataclasses
import datetime
import ipaddress
from typing import Any

import pytest
from cryptography import x509

from ipc.algorithms import PrfId
from ipc.messages import CertificateData, ComputeAuth, Peer, VerifyAuth
from ipc.types import AuthMethod, Identity, IdType, Secret
from policy_loader.credentials import certificates, revocation, signer, store
from policy_loader.credentials.chain import Trust
from policy_loader.credentials.revocation import RevocationRules, Status, StatusFile
from policy_loader.credentials.signer import NotAuthentic
from policy_loader.credentials.store import AuthKind, OwnKey, PeerCredentials
from tests.lab.pki import DAY, DER, KINDS, Authority, Flaws, Issued, Key, constraint, root, some_key, utc_now

PSK = Secret(b"correct horse battery staple")
SHARED = store.of_psk(PSK)
NOW = utc_now()
NONCE = bytes(range(32, 64))
LOCAL_ID = bytes((2, 0, 0, 0)) + b"hq.example.net"
REMOTE_ID = bytes((1, 0, 0, 0)) + bytes((198, 51, 100, 7))
INITIATOR, RESPONSE = 0x08, 0x20

OURS = {
    PrfId.HMAC_SHA2_256: "df6f853da00f8c2a5fe3955f67ae7f7835918832fc0573ccccaa19bd93341c2e",
    PrfId.HMAC_SHA2_384: "fccdb40e88e4b4bac18cdef2fb3065003dd857911692dc8d5bcc43d53eebbf9c"
    "68c0e49e5ce4f82351daf630eadee156",
    PrfId.HMAC_SHA2_512: "01be8f2b53d4b5448e2d5a88705ed8d5b32864db4f8e3a66821613ee30190291"
    "8d0f2eff296e1dd17a81d1b33f07ac072477ccbd308c0789a883dc0a1658086b",
}
THEIRS = bytes.fromhex("b50ed67ce00a4aeb9cf5f85f7e3f62fe4286d7cde1daa2284d02e9f542e660b3")

PEER = Peer(
    name="branch",
    address=ipaddress.ip_address("198.51.100.7"),
    local_address=None,
    local_id=Identity(type=IdType.FQDN, data=b"hq.example.net"),
    remote_id=Identity(type=IdType.IPV4_ADDR, data=bytes((198, 51, 100, 7))),
    auth=AuthMethod.PSK,
    ike_proposals=(),
    force_encapsulation=False,
    liveness_s=30.0,
    rekey_s=0.0,
)


def message(flags: int, *, exchange: int = 34, message_id: int = 0, version: int = 0x20, extra: int = 0) -> bytes:
    body = bytes(range(100))
    header = b"\x11" * 8 + b"\x22" * 8 + bytes((33, version, exchange, flags)) + message_id.to_bytes(4, "big")
    return header + (28 + len(body) + extra).to_bytes(4, "big") + body


def compute(prf: PrfId = PrfId.HMAC_SHA2_256) -> ComputeAuth:
    size = {PrfId.HMAC_SHA2_256: 32, PrfId.HMAC_SHA2_384: 48, PrfId.HMAC_SHA2_512: 64}[prf]
    return ComputeAuth(
        request_id=1,
        peer="branch",
        prf=prf,
        initiator=True,
        message=message(INITIATOR),
        nonce=NONCE,
        sk_p=Secret(b"\x5a" * size),
        id_payload=LOCAL_ID,
    )


VERIFY = VerifyAuth(
    request_id=1,
    peer="branch",
    prf=PrfId.HMAC_SHA2_256,
    initiator=False,
    message=message(RESPONSE),
    nonce=NONCE,
    sk_p=Secret(b"\xa5" * 32),
    id_payload=REMOTE_ID,
    method=AuthMethod.PSK,
    data=THEIRS,
)


@pytest.mark.parametrize("prf", list(OURS))
def test_our_auth_is_that_of_rfc_7296(prf: PrfId) -> None:
    made = signer.compute_auth(compute(prf), PEER, SHARED)
    assert (made.method, made.data.hex(), made.certificates) == (AuthMethod.PSK, OURS[prf], ())


def verify(request: VerifyAuth, psk: Secret = PSK) -> str:
    return signer.verify_auth(request, PEER, store.of_psk(psk), NOW)


def test_the_peers_auth_is_known_and_anything_else_is_not() -> None:
    assert verify(VERIFY) == "pre-shared key"
    with pytest.raises(NotAuthentic, match="its pre-shared key is not ours"):
        verify(VERIFY, Secret(b"another key"))
    for data in (THEIRS[:-1], THEIRS + b"\0", b"", bytes((THEIRS[0] ^ 1,)) + THEIRS[1:]):
        with pytest.raises(NotAuthentic):
            verify(dataclasses.replace(VERIFY, data=data))
    for change in ({"nonce": NONCE[::-1]}, {"sk_p": Secret(b"\xa6" * 32)}):
        with pytest.raises(NotAuthentic):
            verify(dataclasses.replace(VERIFY, **change))


def test_the_worker_cannot_have_the_peers_auth_made() -> None:
    request = dataclasses.replace(compute(), initiator=False, message=VERIFY.message, id_payload=REMOTE_ID)
    with pytest.raises(signer.RequestRefused, match="not our identity"):
        signer.compute_auth(request, PEER, SHARED)


def test_another_than_the_peers_identity_is_not_looked_at() -> None:
    with pytest.raises(signer.RequestRefused, match=r"not the peer's identity, 198\.51\.100\.7"):
        verify(dataclasses.replace(VERIFY, id_payload=LOCAL_ID))


def test_only_a_shared_key_is_taken() -> None:
    with pytest.raises(NotAuthentic, match="by method 14, and must by pre-shared key"):
        verify(dataclasses.replace(VERIFY, method=14))


@pytest.mark.parametrize(
    "change",
    [
        {"id_payload": b""},
        {"id_payload": bytes((2, 0, 0, 1)) + b"hq.example.net"},
        {"id_payload": bytes((3, 0, 0, 0)) + b"hq.example.net"},
        {"id_payload": LOCAL_ID + b"\0"},
        {"nonce": NONCE[:15]},
        {"nonce": bytes(257)},
        {"sk_p": Secret(b"")},
        {"sk_p": Secret(bytes(48))},
        {"message": b""},
        {"message": message(INITIATOR)[:27]},
        {"message": message(INITIATOR)[:-1]},
        {"message": message(INITIATOR) + b"\0"},
        {"message": message(INITIATOR, extra=1)},
        {"message": message(INITIATOR, exchange=35)},
        {"message": message(INITIATOR, message_id=1)},
        {"message": message(INITIATOR, version=0x10)},
        {"message": message(RESPONSE)},
        {"message": message(INITIATOR | RESPONSE)},
        {"message": message(0)},
        {"initiator": False},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_request_that_is_not_for_an_ike_sa_init_of_ours_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(signer.RequestRefused):
        signer.compute_auth(dataclasses.replace(compute(), **change), PEER, SHARED)


# ------------------------------------------------------------------ signatures


HQ = Identity(type=IdType.FQDN, data=b"hq.example.net")
BRANCH = Identity(type=IdType.IPV4_ADDR, data=bytes((198, 51, 100, 7)))
ALL_HASHES = (2, 3, 4, 5)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """HQ, which signs, and the branch, which looks at that."""

    own: PeerCredentials
    other: PeerCredentials
    identity: Identity = HQ

    def sign(self, hashes: tuple[int, ...] = ALL_HASHES, encodings: tuple[int, ...] = (4,)) -> signer.OwnAuth:
        peer = dataclasses.replace(PEER, local_id=self.identity)
        body = bytes((self.identity.type, 0, 0, 0)) + self.identity.data
        request = dataclasses.replace(compute(), id_payload=body, hash_algorithms=hashes, requested_encodings=encodings)
        return signer.compute_auth(request, peer, self.own)

    def check(
        self, auth: signer.OwnAuth, *, remote_id: Identity | None = None, now: datetime.datetime = NOW, **changes: Any
    ) -> str:
        peer = dataclasses.replace(PEER, local_id=BRANCH, remote_id=remote_id or self.identity)
        body = bytes((self.identity.type, 0, 0, 0)) + self.identity.data
        asked = compute()
        request = VerifyAuth(
            request_id=1,
            peer="hq",
            prf=asked.prf,
            initiator=True,
            message=asked.message,
            nonce=asked.nonce,
            sk_p=asked.sk_p,
            id_payload=body,
            method=auth.method,
            data=auth.data,
            certificates=auth.certificates,
        )
        return signer.verify_auth(dataclasses.replace(request, **changes), peer, self.other, now)


def certificate_sides(ca: Authority, *chain: Issued, identity: Identity = HQ, known: Status | None = None) -> Sides:
    """`chain` is the certificate of HQ, and what leads from it to `ca`."""
    own = OwnKey(key=chain[0].key, certificates=tuple(certificates.parse(one.der) for one in chain))
    files = (StatusFile("/ca.crl", revocation.crl_file, known or Status()),)
    trust = Trust(authorities=(certificates.parse(ca.der),), revocation=RevocationRules(files=files))
    return Sides(
        own=PeerCredentials(local=AuthKind.CERTIFICATE, remote=AuthKind.CERTIFICATE, own=own),
        other=PeerCredentials(local=AuthKind.CERTIFICATE, remote=AuthKind.CERTIFICATE, trust=trust),
        identity=identity,
    )


def key_sides(key: Key, known: Key) -> Sides:
    """HQ has `key`, and the branch takes it to have `known`."""
    return Sides(
        own=PeerCredentials(local=AuthKind.PUBLIC_KEY, remote=AuthKind.PUBLIC_KEY, own=OwnKey(key=key)),
        other=PeerCredentials(local=AuthKind.PUBLIC_KEY, remote=AuthKind.PUBLIC_KEY, remote_key=known.public_key()),
    )


@pytest.fixture(scope="module")
def ca() -> Authority:
    return root()


def hq(ca: Authority, **flaws: Any) -> Issued:
    return ca.issue("CN=hq,O=Example", ["hq.example.net"], flaws=Flaws(**flaws))


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_of_every_kind_of_key_is_taken(kind: str, ca: Authority) -> None:
    sides = certificate_sides(ca, ca.issue("CN=hq", ["hq.example.net"], key=some_key(kind)))
    auth = sides.sign()
    assert [one.encoding for one in auth.certificates] == [4]
    assert 'certificate "CN=hq"' in sides.check(auth)


def test_an_old_peer_takes_our_ecdsa_and_we_its(ca: Authority) -> None:
    sides = certificate_sides(ca, hq(ca))
    auth = sides.sign(hashes=())
    assert auth.method is AuthMethod.ECDSA_P256
    sides.check(auth)


def test_intermediates_go_along_in_order(ca: Authority) -> None:
    one = ca.authority("CN=One")
    two = one.authority("CN=Two")
    sides = certificate_sides(ca, hq(two), two, one)
    auth = sides.sign()
    assert [one.data for one in auth.certificates][1:] == [two.der, one.der]
    sides.check(auth)
    with pytest.raises(NotAuthentic, match='"CN=Two", is not trusted'):
        sides.check(dataclasses.replace(auth, certificates=auth.certificates[:1]))


def test_the_first_certificate_is_the_peers(ca: Authority) -> None:
    below = ca.authority("CN=One")
    auth = certificate_sides(ca, hq(below), below).sign()
    backwards = dataclasses.replace(auth, certificates=auth.certificates[::-1])
    with pytest.raises(NotAuthentic, match='key usage of "CN=One"'):
        certificate_sides(ca, hq(below), below).check(backwards)


def test_the_identity_must_be_in_the_certificate(ca: Authority) -> None:
    names = ["hq.example.net", "198.51.100.1", "2001:db8::1", "hq@example.net", "CN=second,O=Example"]
    issued = ca.issue("CN=hq,O=Example", names)
    subject = issued.certificate.subject.public_bytes()
    key_id = issued.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    good = [
        HQ,
        Identity(type=IdType.FQDN, data=b"HQ.example.NET"),
        Identity(type=IdType.IPV4_ADDR, data=bytes((198, 51, 100, 1))),
        Identity(type=IdType.IPV6_ADDR, data=ipaddress.ip_address("2001:db8::1").packed),
        Identity(type=IdType.RFC822_ADDR, data=b"hq@EXAMPLE.net"),
        Identity(type=IdType.DER_ASN1_DN, data=subject),
        Identity(type=IdType.DER_ASN1_DN, data=x509.Name.from_rfc4514_string("CN=second,O=Example").public_bytes()),
        Identity(type=IdType.KEY_ID, data=key_id),
    ]
    bad = [
        Identity(type=IdType.FQDN, data=b"hq"),
        Identity(type=IdType.FQDN, data=b"www.hq.example.net"),
        Identity(type=IdType.IPV4_ADDR, data=bytes((198, 51, 100, 2))),
        Identity(type=IdType.RFC822_ADDR, data=b"HQ@example.net"),
        Identity(type=IdType.DER_ASN1_DN, data=x509.Name.from_rfc4514_string("CN=hq").public_bytes()),
        Identity(type=IdType.KEY_ID, data=key_id + b"\0"),
    ]
    for identity in good:
        sides = certificate_sides(ca, issued, identity=identity)
        sides.check(sides.sign())
    for identity in bad:
        sides = certificate_sides(ca, issued, identity=identity)
        with pytest.raises(NotAuthentic, match=r"is for CN=hq,O=Example; hq\.example\.net; 198\.51\.100\.1; "):
            sides.check(sides.sign())


def test_a_wildcard_in_a_certificate_is_none(ca: Authority) -> None:
    sides = certificate_sides(ca, ca.issue("CN=hq", ["*.example.net"]))
    with pytest.raises(NotAuthentic, match="it says that it is hq"):
        sides.check(sides.sign())


def test_a_wildcard_in_the_policy_is_one(ca: Authority) -> None:
    sides = certificate_sides(ca, hq(ca))
    sides.check(sides.sign(), remote_id=Identity(type=IdType.FQDN, data=b"*.example.net"))
    with pytest.raises(signer.RequestRefused, match="not the peer's identity"):
        sides.check(sides.sign(), remote_id=Identity(type=IdType.FQDN, data=b"*.example.org"))


def test_who_has_the_certificate_and_not_its_key_is_refused(ca: Authority) -> None:
    issued = hq(ca)
    sides = certificate_sides(ca, Issued(key=some_key("p256", 5), certificate=issued.certificate))
    with pytest.raises(NotAuthentic, match="not made with the ECDSA P-256 key"):
        sides.check(sides.sign())


def test_what_is_wrong_with_a_chain_is_said(ca: Authority) -> None:
    sides = certificate_sides(ca, hq(ca, not_after=NOW + DAY))
    with pytest.raises(NotAuthentic, match="has expired: it was valid until"):
        sides.check(sides.sign(), now=NOW + 2 * DAY)
    sides = certificate_sides(root("CN=Other"), hq(ca))
    with pytest.raises(NotAuthentic, match="is not trusted: it is in none of ca_files"):
        sides.check(sides.sign())
    constraints = x509.NameConstraints([constraint("example.org")], None)
    narrow = ca.authority("CN=Narrow", flaws=Flaws(extensions=(constraints,)))
    sides = certificate_sides(ca, hq(narrow), narrow)
    with pytest.raises(NotAuthentic, match=r'"CN=Narrow" .* forbid .*: hq\.example\.net is outside'):
        sides.check(sides.sign())


def test_a_revoked_certificate_is_refused_by_crl_and_by_ocsp_of_the_peer(ca: Authority) -> None:
    issued = hq(ca)
    known = Status(crls=revocation.read_crls(ca.crl(issued)))
    sides = certificate_sides(ca, issued, known=known)
    with pytest.raises(NotAuthentic, match="was revoked by its issuer"):
        sides.check(sides.sign())
    sides = certificate_sides(ca, issued)
    auth = sides.sign()
    sides.check(auth)
    for encoding, data in (
        (14, ca.ocsp(issued, revoked=True)),
        (7, x509.load_pem_x509_crl(ca.crl(issued)).public_bytes(DER)),
    ):
        more = (*auth.certificates, CertificateData(encoding=encoding, data=data))
        with pytest.raises(NotAuthentic, match="was revoked"):
            sides.check(dataclasses.replace(auth, certificates=more))


@pytest.mark.parametrize("data", [b"", b"rubbish", bytes(100)])
def test_rubbish_as_a_certificate_is_refused(ca: Authority, data: bytes) -> None:
    sides = certificate_sides(ca, hq(ca))
    auth = sides.sign()
    rubbish = tuple(CertificateData(encoding=encoding, data=data) for encoding in (4, 7, 14, 15, 200))
    with pytest.raises(NotAuthentic, match=r"no X\.509 certificate"):
        sides.check(dataclasses.replace(auth, certificates=rubbish))
    with pytest.raises(NotAuthentic, match=r"sent no X\.509 certificate, only encoding 7, 14"):
        sides.check(dataclasses.replace(auth, certificates=rubbish[1:]))
    sides.check(dataclasses.replace(auth, certificates=(*auth.certificates, *rubbish)))


def test_no_certificate_and_a_shared_key_are_refused(ca: Authority) -> None:
    sides = certificate_sides(ca, hq(ca))
    with pytest.raises(NotAuthentic, match=r"sent no X\.509 certificate: have it send one"):
        sides.check(dataclasses.replace(sides.sign(), certificates=()))
    with pytest.raises(NotAuthentic, match="by pre-shared key, and must by certificate"):
        sides.check(sides.sign(), method=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_key_that_is_known_is_taken(kind: str) -> None:
    sides = key_sides(some_key(kind), some_key(kind))
    sides.check(sides.sign())
    auth = sides.sign(encodings=(15,))
    assert [one.encoding for one in auth.certificates] == [15]
    sides.check(auth)


def test_another_public_key_is_refused(ca: Authority) -> None:
    sides = key_sides(some_key("p256", 1), some_key("p256", 2))
    with pytest.raises(NotAuthentic, match="not made with"):
        sides.check(sides.sign())
    with pytest.raises(NotAuthentic, match="not the one in remote_public_key_file"):
        sides.check(sides.sign(encodings=(15,)))


def test_the_bare_key_of_a_certificate_goes_to_who_wants_only_that(ca: Authority) -> None:
    issued = hq(ca)
    sides = certificate_sides(ca, issued)
    assert [one.encoding for one in sides.sign(encodings=(15,)).certificates] == [15]
    assert [one.encoding for one in sides.sign(encodings=(4, 15)).certificates] == [4]
    assert [one.encoding for one in sides.sign(encodings=()).certificates] == [4]
    by_key = dataclasses.replace(sides, other=key_sides(issued.key, issued.key).other)
    by_key.check(sides.sign(encodings=(15,)))
    by_key.check(sides.sign())


def test_what_can_not_be_signed_is_said() -> None:
    sides = key_sides(some_key("ed25519"), some_key("ed25519"))
    with pytest.raises(signer.RequestRefused, match="our Ed25519 key needs IDENTITY"):
        sides.sign(hashes=(2, 3))
