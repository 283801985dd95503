"""Authentication between two engines, with the policy loader's own signer behind each: what works, what is refused."""

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from ike_worker.ikev2 import events as e
from ike_worker.ikev2.datagram import Datagram
from ike_worker.ikev2.iana import ExchangeType, NotifyType
from ike_worker.ikev2.wire.certificate import CertificateRequest
from ike_worker.ikev2.wire.message import parse_header, parse_message
from ike_worker.ikev2.wire.notify import Notify
from ipc import codec
from ipc import messages as m
from ipc.messages import CertificateData, Peer
from ipc.types import AuthMethod, Identity, IdType
from policy_loader.credentials import certificates, signer, store
from policy_loader.credentials.chain import Trust
from policy_loader.credentials.revocation import RevocationRules
from policy_loader.credentials.signatures import SigningRules
from policy_loader.credentials.store import AuthKind, OwnKey, PeerCredentials
from tests.ike_worker.ikev2.two_sides import PSK, RULE_ID, Side, World, identity, peer_of, rule_of, without_notify
from tests.lab.pki import DAY, KINDS, Authority, Flaws, Issued, root, some_key, utc_now

Made = Callable[[str], PeerCredentials]
"""The credentials of "alice" or "bob"."""
REFUSED = "the peer answers AUTHENTICATION_FAILED to IKE_AUTH"


class Loader:
    """Answers what a side asks its policy loader; messages go through the codec, as between processes."""

    def __init__(self, side: Side, credentials: PeerCredentials) -> None:
        self.side = side
        self.credentials = credentials
        self.methods: list[int] = []
        """Of the AUTHs that it has made."""
        self._handle_others = side._handle
        side._handle = self.handle  # type: ignore[method-assign]

    def handle(self, event: e.Event) -> None:
        engine, now = self.side.engine, self.side.world.now
        if not isinstance(event, e.ComputeAuth | e.VerifyAuth):
            self._handle_others(event)
            return
        peer = next(one for one in self.side.peers if one.name == event.peer)
        fields = {one.name: getattr(event, one.name) for one in dataclasses.fields(event) if one.name != "token"}
        kind = m.ComputeAuth if isinstance(event, e.ComputeAuth) else m.VerifyAuth
        request: Any = codec.decode(codec.encode(kind(request_id=event.token, **fields)))
        try:
            if isinstance(request, m.ComputeAuth):
                made = signer.compute_auth(request, peer, self.credentials)
                self.methods.append(made.method)
                engine.auth_computed(event.token, made.method, made.data, now, made.certificates)
            else:
                signer.verify_auth(request, peer, self.credentials, utc_now())
                engine.auth_verified(event.token, True, now)
        except signer.NotAuthentic as error:
            engine.auth_verified(event.token, False, now, str(error))
        except signer.RequestRefused as error:
            engine.auth_refused(event.token, str(error), now)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """A world in which both sides authenticate as their credentials say."""

    world: World
    alice: Loader
    bob: Loader

    def call(self) -> None:
        """Alice calls Bob, and what is to happen happens."""
        self.world.alice.engine.initiate(RULE_ID, self.world.now)
        self.world.run()

    def reasons(self, side: Side) -> list[str]:
        return [event.reason for event in side.log if isinstance(event, e.NegotiationFailed)]

    def refused_by_bob(self) -> str:
        """Why Bob refuses Alice, who is not told it."""
        self.call()
        self.world.agree(0)
        assert self.reasons(self.world.alice) == [REFUSED]
        (reason,) = self.reasons(self.world.bob)
        return reason

    def refused_by_alice(self) -> str:
        """Why Alice refuses Bob, who has taken her and is told to forget that."""
        self.call()
        self.world.agree(0)
        (reason,) = self.reasons(self.world.alice)
        return reason


def meet(credentials: Made, **peer: Any) -> Meeting:
    """The two, with `peer` in the policy of both."""
    settings = {"auth": AuthMethod.DIGITAL_SIGNATURE, **peer}
    world = World(alice={"peer": peer_of("alice", **settings)}, bob={"peer": peer_of("bob", **settings)})
    return Meeting(
        world=world, alice=Loader(world.alice, credentials("alice")), bob=Loader(world.bob, credentials("bob"))
    )


def own(*chain: Issued) -> OwnKey:
    return OwnKey(key=chain[0].key, certificates=tuple(certificates.parse(one.der) for one in chain))


def trust(*authorities: Authority) -> Trust:
    return Trust(authorities=tuple(certificates.parse(one.der) for one in authorities), revocation=RevocationRules())


def by_certificate(ca: Authority, **changes: Any) -> Made:
    """Each has a certificate of `ca`; `alice=...` and `bob=...` replace theirs."""

    def make(me: str) -> PeerCredentials:
        issued = changes.get(me) or ca.issue(f"CN={me}", [f"{me}.example"])
        return PeerCredentials(
            local=AuthKind.CERTIFICATE,
            remote=AuthKind.CERTIFICATE,
            own=own(*issued) if isinstance(issued, tuple) else own(issued),
            trust=trust(ca),
            rules=changes.get("rules", SigningRules()),
        )

    return make


@pytest.fixture(scope="module")
def ca() -> Authority:
    return root()


# ------------------------------------------------------------------ what works


@pytest.mark.parametrize("kind", KINDS)
def test_certificates(kind: str, ca: Authority) -> None:
    made = {me: ca.issue(f"CN={me}", [f"{me}.example"], key=some_key(kind, n)) for n, me in enumerate(("alice", "bob"))}
    meeting = meet(by_certificate(ca, **made))
    meeting.world.connect()
    assert meeting.alice.methods == meeting.bob.methods == [AuthMethod.DIGITAL_SIGNATURE]


@pytest.mark.parametrize("kind", KINDS)
def test_public_keys_that_each_knows_of_the_other(kind: str) -> None:
    def make(me: str) -> PeerCredentials:
        mine, its = (0, 1) if me == "alice" else (1, 0)
        return PeerCredentials(
            local=AuthKind.PUBLIC_KEY,
            remote=AuthKind.PUBLIC_KEY,
            own=OwnKey(key=some_key(kind, mine)),
            remote_key=some_key(kind, its).public_key(),
        )

    meet(make, certificate_requests=(CertificateData(encoding=15, data=b""),)).world.connect()
    meet(make).world.connect()


def test_intermediate_authorities_come_in_cert_payloads(ca: Authority) -> None:
    one = ca.authority("CN=One")
    two = one.authority("CN=Two")
    made = by_certificate(ca, alice=(two.issue("CN=a", ["alice.example"]), two, one))
    meet(made).world.connect()


def test_each_side_in_its_own_way(ca: Authority) -> None:
    def make(me: str) -> PeerCredentials:
        both = by_certificate(ca)(me)
        local, remote = AuthKind.PSK, AuthKind.CERTIFICATE
        if me == "bob":
            local, remote = remote, local
        return replace(both, local=local, remote=remote, psk=store.of_psk(m.Secret(PSK)).psk)

    meeting = meet(make)
    meeting.world.connect()
    assert (meeting.alice.methods, meeting.bob.methods) == ([AuthMethod.PSK], [AuthMethod.DIGITAL_SIGNATURE])


@pytest.mark.parametrize(("kind", "method"), [("p256", 9), ("p384", 10), ("p521", 11), ("rsa", 1)])
def test_an_old_peer_without_hash_algorithms(kind: str, method: int, ca: Authority) -> None:
    made = {me: ca.issue(f"CN={me}", [f"{me}.example"], key=some_key(kind, n)) for n, me in enumerate(("alice", "bob"))}
    meeting = meet(by_certificate(ca, **made, rules=SigningRules(sha1=True)))
    # A worker that believes in shared keys lists no hash algorithms: so did those of old.
    meeting.world.alice.peers = (replace(meeting.world.alice.peers[0], auth=AuthMethod.PSK),)
    meeting.world.alice.engine.set_policy(meeting.world.alice.peers, meeting.world.alice.rules, meeting.world.now)
    meeting.world.connect()
    assert meeting.alice.methods == meeting.bob.methods == [method]


def clear_payloads(world: World, response: bool) -> list[Any]:
    """The payloads of the IKE_SA_INIT request or response of the next call."""
    found: list[Any] = []

    def look(_sender: Side, datagram: Datagram) -> list[Datagram]:
        header = parse_header(datagram.data)
        if header.exchange_type == ExchangeType.IKE_SA_INIT and header.response is response:
            found.extend(parse_message(datagram.data).payloads)
        return [datagram]

    world.filter = look
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    return found


def test_authorities_are_named_and_hashes_listed(ca: Authority) -> None:
    name = certificates.parse(ca.der).key_id
    meeting = meet(by_certificate(ca), certificate_requests=(CertificateData(encoding=4, data=name),))
    payloads = clear_payloads(meeting.world, response=True)
    assert [one for one in payloads if isinstance(one, CertificateRequest)] == [
        CertificateRequest(encoding=4, data=name)
    ]
    notify = Notify(type=NotifyType.SIGNATURE_HASH_ALGORITHMS, data=bytes.fromhex("0002000300040005"))
    assert notify in payloads
    asked = [event for event in meeting.world.bob.log if isinstance(event, e.ComputeAuth)]
    assert [(one.hash_algorithms, one.requested_encodings) for one in asked] == [((2, 3, 4, 5), (4,))]


def test_many_authorities_are_not_told_to_strangers(ca: Authority) -> None:
    names = b"".join(bytes((number,)) * 20 for number in range(9))
    meeting = meet(by_certificate(ca), certificate_requests=(CertificateData(encoding=4, data=names),))
    asked = [one for one in clear_payloads(meeting.world, response=True) if isinstance(one, CertificateRequest)]
    assert asked == [CertificateRequest(encoding=4, data=b"")]
    meeting.world.agree(1)


def test_with_shared_keys_there_is_no_word_of_hashes_and_authorities() -> None:
    shared = store.of_psk(m.Secret(PSK))
    meeting = meet(lambda _me: shared, auth=AuthMethod.PSK)
    for payloads in (clear_payloads(meeting.world, response=False), clear_payloads(meeting.world, response=True)):
        kinds = [one.type for one in payloads if isinstance(one, Notify)]
        assert NotifyType.SIGNATURE_HASH_ALGORITHMS not in kinds
        assert not any(isinstance(one, CertificateRequest) for one in payloads)


# ------------------------------------------------------------------ who is who


def dn(text: str) -> Identity:
    return Identity(type=IdType.DER_ASN1_DN, data=x509.Name.from_rfc4514_string(text).public_bytes())


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        (identity("alice.example"), identity("*.example")),
        (identity("ALICE.example"), identity("alice.example")),
        (dn("CN=alice,O=Example"), dn("CN=*,O=example")),
        (
            Identity(type=IdType.RFC822_ADDR, data=b"alice@example"),
            Identity(type=IdType.RFC822_ADDR, data=b"*@example"),
        ),
        (
            Identity(type=IdType.IPV6_ADDR, data=bytes(15) + b"\1"),
            Identity(type=IdType.IPV6_ADDR, data=bytes(15) + b"\1"),
        ),
    ],
)
def test_an_identity_may_be_known_by_a_pattern(name: Identity, known_as: Identity, ca: Authority) -> None:
    issued = ca.issue("CN=alice,O=Example", ["alice.example", "alice@example", "::1"])
    meeting = meet(by_certificate(ca, alice=issued))
    world = meeting.world
    world.alice.peers = (replace(world.alice.peers[0], local_id=name, remote_id=identity("*.example")),)
    world.bob.peers = (replace(world.bob.peers[0], remote_id=known_as),)
    for side in (world.alice, world.bob):
        side.engine.set_policy(side.peers, side.rules, world.now)
    world.connect()


def bob_knows(world: World, *peers: Peer) -> None:
    world.bob.peers = peers
    world.bob.rules = tuple(rule_of("bob", rule_id=100 + n, peer=one.name) for n, one in enumerate(peers))
    world.bob.engine.set_policy(world.bob.peers, world.bob.rules, world.now)


def established_with(side: Side) -> list[str]:
    return [event.peer for event in side.log if isinstance(event, e.IkeSaEstablished)]


def test_peers_from_anywhere_are_told_apart_by_their_identity(ca: Authority) -> None:
    meeting = meet(by_certificate(ca))
    anyone = replace(peer_of("bob", auth=AuthMethod.DIGITAL_SIGNATURE), address=None)
    bob_knows(
        meeting.world,
        replace(anyone, name="carol", remote_id=identity("carol.example")),
        replace(anyone, name="everybody", remote_id=identity("*.example")),
        replace(anyone, name="other face", local_id=identity("bob.elsewhere"), remote_id=identity("alice.example")),
        replace(anyone, name="alice", remote_id=identity("alice.example")),
    )
    meeting.call()
    meeting.world.agree(1)
    assert established_with(meeting.world.bob) == ["alice"]


def test_who_is_nobody_is_said_why(ca: Authority) -> None:
    meeting = meet(by_certificate(ca))
    peer = peer_of("bob", auth=AuthMethod.DIGITAL_SIGNATURE)
    bob_knows(
        meeting.world,
        replace(peer, name="carol", remote_id=identity("carol.example")),
        replace(peer, name="face", local_id=identity("bob.elsewhere")),
        replace(peer, name="typed", remote_id=Identity(type=IdType.KEY_ID, data=b"alice.example")),
    )
    assert meeting.refused_by_bob() == (
        "IKE_AUTH failed: no peer of the policy at 192.0.2.1:500 is that: "
        "carol: alice.example is not carol.example; "
        "face: bob.example is not bob.elsewhere, who is wanted here; "
        "typed: alice.example (FQDN) is not 616c6963652e6578616d706c65 (KEY_ID)"
    )


def test_a_responder_with_another_name_is_refused(ca: Authority) -> None:
    meeting = meet(by_certificate(ca))
    world = meeting.world
    world.alice.peers = (replace(world.alice.peers[0], remote_id=dn("CN=bob,O=Example")),)
    world.alice.engine.set_policy(world.alice.peers, world.alice.rules, world.now)
    world.bob.peers = (replace(world.bob.peers[0], local_id=dn("O=Example,CN=bob")),)
    world.bob.engine.set_policy(world.bob.peers, world.bob.rules, world.now)
    meeting.call()
    world.agree(0)
    assert "the name in the opposite order: RFC 4514 writes" in meeting.reasons(world.bob)[0]


# ------------------------------------------------------------------ what is refused


def test_what_is_wrong_with_the_initiator_is_in_the_responders_log_only(ca: Authority) -> None:
    stranger = root("CN=Stranger").issue("CN=alice", ["alice.example"])
    other_name = ca.issue("CN=alice", ["alice.elsewhere"])
    old = ca.issue("CN=alice", ["alice.example"], flaws=Flaws(not_after=utc_now() - DAY / 24))
    wrong_key = Issued(key=some_key("p256", 8), certificate=ca.issue("CN=alice", ["alice.example"]).certificate)
    for issued, words in (
        (stranger, '"CN=Stranger", is not trusted'),
        (other_name, "is for CN=alice; alice.elsewhere"),
        (old, "has expired"),
        (wrong_key, "is not made with the ECDSA P-256 key"),
    ):
        assert words in meet(by_certificate(ca, alice=issued)).refused_by_bob()


def test_what_is_wrong_with_the_responder_is_in_the_initiators_log(ca: Authority) -> None:
    stranger = root("CN=Stranger").issue("CN=bob", ["bob.example"])
    meeting = meet(by_certificate(ca, bob=stranger))
    assert '"CN=Stranger", is not trusted' in meeting.refused_by_alice()
    assert not meeting.world.bob.store


def test_a_shared_key_where_a_certificate_is_wanted_is_refused(ca: Authority) -> None:
    shared = store.of_psk(m.Secret(PSK))
    meeting = meet(lambda me: shared if me == "alice" else by_certificate(ca)(me))
    assert "by pre-shared key, and must by certificate" in meeting.refused_by_bob()


def test_a_hash_list_that_was_cut_out_on_the_way_is_noticed(ca: Authority) -> None:
    """Else somebody in between could bring both down to the methods of old."""
    meeting = meet(by_certificate(ca))

    def cut(_sender: Side, datagram: Datagram) -> list[Datagram]:
        header = parse_header(datagram.data)
        if header.exchange_type != ExchangeType.IKE_SA_INIT or header.response:
            return [datagram]
        data = without_notify(datagram.data, NotifyType.SIGNATURE_HASH_ALGORITHMS)
        return [replace(datagram, data=data)]

    meeting.world.filter = cut
    assert "is not made with the ECDSA P-256 key" in meeting.refused_by_bob()


def test_eddsa_with_a_peer_that_lists_no_hash_is_refused_with_a_reason(ca: Authority) -> None:
    issued = ca.issue("CN=bob", ["bob.example"], key=some_key("ed25519"))
    meeting = meet(by_certificate(ca, bob=issued))
    world = meeting.world
    world.alice.peers = (replace(world.alice.peers[0], auth=AuthMethod.PSK),)
    world.alice.engine.set_policy(world.alice.peers, world.alice.rules, world.now)
    assert "lists no hash algorithms (RFC 7427)" in meeting.refused_by_bob()


def test_more_certificates_than_are_taken_do_not_stop_it(ca: Authority) -> None:
    strangers = tuple(root(f"CN=Stranger {number}") for number in range(m.MAX_CERTIFICATES - 1))
    issued = ca.issue("CN=alice", ["alice.example"])
    meet(by_certificate(ca, alice=(issued, *strangers))).world.connect()
