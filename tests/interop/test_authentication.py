"""ipsecd with strongSwan by certificates and public keys: each kind of key, each side as initiator.

What each side begins has algorithms of its own, so that with `test_algorithms` each two of the way to authenticate, the
cipher and the group come together in some test, with either side as initiator.
"""

import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa as crypto_rsa

from tests.interop import test_algorithms, test_strongswan
from tests.lab import pki
from tests.lab.capture import Capture, Exchange, Kind
from tests.lab.debian import Unavailable
from tests.lab.instance import Instance
from tests.lab.namespaces import Gateways, LabError, gateways
from tests.lab.ping import ping
from tests.lab.pki import Key, key_pem, new_key, public_pem
from tests.lab.spd import LEFT_ID, RIGHT_ID, Pair
from tests.lab.strongswan import Connection, StrongSwan
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.timeout(180)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"
ENCRYPTED_FRAGMENT = 53
WAIT_S = 60.0
SMALL_MTU = 700
"""What is longer does not get through, and nobody is told."""


@dataclass(frozen=True, slots=True)
class Suite:
    """The algorithms that are offered in a proposal."""

    ike: str
    esp: str


GCM_X25519 = Suite("aes256gcm16-prfsha256-x25519", "aes256gcm16")
GCM_P256 = Suite("aes128gcm16-prfsha256-ecp256", "aes128gcm16-ecp256")
GCM_MODP = Suite("aes256gcm16-prfsha384-modp2048", "aes256gcm16-modp2048")
CHACHA_X25519 = Suite("chacha20poly1305-prfsha256-x25519", "chacha20poly1305-x25519")
CHACHA_P256 = Suite("chacha20poly1305-prfsha512-ecp256", "chacha20poly1305")
CHACHA_MODP = Suite("chacha20poly1305-prfsha256-modp2048", "chacha20poly1305")
CBC_X25519 = Suite("aes256-sha256-x25519", "aes256-sha256")
CBC_P256 = Suite("aes128-sha384-ecp256", "aes128-sha384-ecp256")
CBC_MODP = Suite("aes256-sha512-modp2048", "aes256-sha512-modp2048")
CCM_X448 = Suite("aes256ccm16-prfsha256-x448", "aes128ccm16-x448")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How the two authenticate: our lines of [peers.NAME] and files, their settings and files."""

    auth: str
    files: Mapping[str, bytes]
    local_auth: str
    remote_auth: str
    their_files: Mapping[str, bytes]
    our_id: str = LEFT_ID
    """As they write it."""
    their_id: str = RIGHT_ID
    wanted: str = ""
    """Who they say we must be, if that is not `our_id`."""
    settings: str = ""
    """More lines of their connection."""
    fragment_bytes: int = 1280
    mtu: int = 0
    spd_changes: Mapping[str, str] = field(default_factory=dict)
    charon: str = ""
    logged: tuple[str, ...] = ()
    """What strongSwan says of the signatures: its own, and ours."""

    def spd(self, directory: Path, suite: Suite) -> str:
        """Our SPD, with our files written to `directory`."""
        for name, content in self.files.items():
            pki.write(directory / name, content)
        ours = Pair(ike=suite.ike, esp=suite.esp, peer_settings="force_encapsulation = true")
        return ours.left_spd(auth=self.auth.replace("DIR", str(directory)), **self.spd_changes)

    def connection(self, *suites: Suite) -> Connection:
        return Connection(
            local_id=self.their_id,
            remote_id=self.wanted or self.our_id,
            psk="not used",
            ike_proposals=", ".join(suite.ike for suite in suites),
            esp_proposals=", ".join(suite.esp for suite in suites),
            settings=self.settings,
            fragment_bytes=self.fragment_bytes,
            local_auth=self.local_auth,
            remote_auth=self.remote_auth,
            files=self.their_files,
            charon=self.charon,
        )


OUR_LINES = """\
auth = "certificate"
certificate_file = "DIR/own.pem"
key_file = "DIR/own.key"
ca_files = ["DIR/ca.pem"]
crl_files = ["DIR/ca.crl"]"""


def by_certificate(
    ours: Key,
    theirs: Key,
    *,
    issuers: Sequence[Key],
    names: bool = True,
    stranger: bool = False,
) -> Arrangement:
    """Certificates of one authority on both sides, through those below it, if there are more `issuers`.

    Without `names` there is nothing but a subject in them; with `stranger`, theirs is another authority's.
    """
    root = issuer = pki.root("CN=Interop CA,O=Example", key=issuers[0])
    below = [issuer := issuer.authority(f"CN=Below {n},O=Example", key=key) for n, key in enumerate(issuers[1:])]
    own = issuer.issue("CN=left,O=Example", [LEFT_ID] * names, key=ours)
    other = (pki.root("CN=Stranger") if stranger else issuer).issue(
        "CN=right,O=Example", [RIGHT_ID] * names, key=theirs
    )
    return Arrangement(
        auth=OUR_LINES,
        files={
            "own.pem": b"".join(one.pem for one in (own, *below)),
            "own.key": key_pem(ours),
            "ca.pem": root.pem + pki.root("CN=Of ours alone").pem,
            "ca.crl": b"".join(one.crl() for one in (root, *below)),
        },
        local_auth="auth = pubkey\ncerts = own.pem",
        remote_auth="auth = pubkey\ncacerts = ca.pem",
        their_files={
            "x509/own.pem": other.pem,
            "private/own.pem": key_pem(theirs),
            "x509ca/ca.pem": root.pem,
            "x509ca/another.pem": pki.root("CN=Of theirs alone").pem,
            **{f"x509ca/below-{number}.pem": one.pem for number, one in enumerate(below)},
        },
    )


def rsa() -> Arrangement:
    """RSASSA-PSS. Each is known by the subject of its certificate, which has no other name; ours we take from there."""
    one = by_certificate(
        *(new_key("rsa"), new_key("rsa")),
        issuers=[new_key("rsa")],
        names=False,
    )
    # strongSwan writes a name in the order of its encoding, RFC 4514 in the opposite one.
    return replace(
        one,
        auth=f"{one.auth}\nrevocation_required = true",  # so we ask for OCSP, which it does not know
        our_id="O=Example, CN=left",
        their_id="O=Example, CN=right",
        spd_changes={"local_id": "# from the certificate", "remote_id": 'remote_id = "CN=*,O=Example"'},
        charon="rsa_pss = yes",
        logged=("(myself) with RSA_EMSA_PSS_SHA2_256", "'O=Example, CN=left' with RSA_EMSA_PSS_SHA2_256"),
    )


def rsa_chain() -> Arrangement:
    """Three authorities below the root, all of RSA-4096, through a path that takes no packet of over 700 bytes."""
    # Such keys take long to make, so authorities that are not next to each other share one.
    odd, even, ours, theirs = (crypto_rsa.generate_private_key(65537, 4096) for _ in range(4))
    one = by_certificate(ours, theirs, issuers=[odd, even, odd, even])
    return replace(
        one,
        fragment_bytes=576,
        mtu=SMALL_MTU,
        logged=("(myself) with RSA_EMSA_PKCS1_SHA2", f"'{LEFT_ID}' with RSA_EMSA_PSS_SHA2"),
    )


def ecdsa() -> Arrangement:
    """P-256 and P-521, through an authority between. They say of nobody that we must be it, and send no IDr."""
    one = by_certificate(
        new_key("p256"),
        new_key("p521"),
        issuers=[new_key("p384"), new_key("p256")],
    )
    return replace(one, wanted="%any", logged=("(myself) with ECDSA_WITH_SHA512_DER",))


def eddsa() -> Arrangement:
    """Ed25519 and Ed448 (RFC 8420)."""
    one = by_certificate(new_key("ed25519"), new_key("ed448"), issuers=[new_key("ed25519")])
    return replace(one, logged=("(myself) with ED448", f"'{LEFT_ID}' with ED25519"))


def by_public_key() -> Arrangement:
    """Bare keys that each side has of the other in a file; who they are is a key ID."""
    ours, theirs = new_key("ed25519"), new_key("p384")
    return Arrangement(
        auth='auth = "public-key"\nkey_file = "DIR/own.key"\nremote_public_key_file = "DIR/other.pub"',
        files={"own.key": key_pem(ours), "other.pub": public_pem(theirs)},
        local_auth="auth = pubkey\npubkeys = own.pem",
        remote_auth="auth = pubkey\npubkeys = other.pem",
        their_files={
            "private/own.pem": key_pem(theirs),
            "pubkey/own.pem": public_pem(theirs),
            "pubkey/other.pem": public_pem(ours),
        },
        our_id="@#00ff",
        their_id="@#01ff",
        spd_changes={"local_id": 'local_id = "keyid:00ff"', "remote_id": 'remote_id = "keyid:01ff"'},
    )


def of_old(ours: str, theirs: str, *logged: str) -> Arrangement:
    """strongSwan as it was before RFC 7427."""
    one = by_certificate(new_key(ours), new_key(theirs), issuers=[new_key(theirs)])
    return replace(
        one, auth=one.auth + "\nsha1_signatures = true", charon="signature_authentication = no", logged=logged
    )


def without_cert() -> Arrangement:
    """It sends no CERT payload, so we have its certificate in a file; it is of old too."""
    one = of_old("p384", "p521", "(myself) with ECDSA-521", f"'{LEFT_ID}' with ECDSA-384")
    lines = (line for line in OUR_LINES.splitlines() if not line.startswith(("ca_files", "crl_files")))
    return replace(
        one,
        auth="\n".join((*lines, 'remote_auth = "public-key"', 'remote_public_key_file = "DIR/other.pem"')),
        files={**one.files, "other.pem": one.their_files["x509/own.pem"]},
        settings="send_cert = never",
    )


def rsa_of_old() -> Arrangement:
    return of_old("rsa", "rsa", "(myself) with RSA signature", f"'{LEFT_ID}' with RSA signature")


def ecdsa_of_old() -> Arrangement:
    return of_old("p256", "p256", "(myself) with ECDSA-256", f"'{LEFT_ID}' with ECDSA-256")


@dataclass(frozen=True, slots=True)
class Row:
    """One test: who authenticates how, and with which algorithms."""

    arrange: Callable[[], Arrangement]
    auth: str
    they_offer: Suite
    """When they begin; ours allows nothing else then."""
    we_offer: Suite
    """When we begin."""


ROWS: Mapping[str, Row] = {
    "rsa": Row(rsa, "RSA", GCM_X25519, CHACHA_P256),
    "rsa-chain": Row(rsa_chain, "RSA", CBC_MODP, CBC_MODP),
    "rsa-of-old": Row(rsa_of_old, "RSA", CBC_X25519, CBC_P256),
    "ecdsa": Row(ecdsa, "ECDSA", GCM_P256, CHACHA_MODP),
    "ecdsa-of-old": Row(ecdsa_of_old, "ECDSA", CBC_X25519, CHACHA_MODP),
    "without-cert": Row(without_cert, "ECDSA", CBC_X25519, GCM_P256),
    "eddsa": Row(eddsa, "Ed25519", GCM_MODP, CBC_P256),
    "public-key": Row(by_public_key, "Ed25519", CHACHA_X25519, CCM_X448),
}


def choices(who: str, auth: str, ike: str) -> tuple[str, str, str, str]:
    """What is chosen in one connection: who begins, how they authenticate, cipher, group."""
    first, *_, group = ike.split("-")
    cipher = next((word for word in ("gcm", "ccm", "ctr", "chacha") if word in first), "cbc")
    return who, auth, cipher, group


def test_each_two_choices_come_together_in_some_test() -> None:
    tried = [choices("they", row.auth, row.they_offer.ike) for row in ROWS.values()]
    tried += [choices("we", row.auth, row.we_offer.ike) for row in ROWS.values()]
    tried += [choices("we" if one.we_begin else "they", "PSK", one.ike) for one in test_algorithms.CASES.values()]
    tried.append(choices("we", "PSK", test_strongswan.OURS.ike))
    wanted = (
        ("we", "they"),
        ("PSK", "RSA", "ECDSA", "Ed25519"),
        ("gcm", "chacha", "cbc"),
        ("x25519", "ecp256", "modp2048"),
    )
    for one, other in itertools.combinations(range(len(wanted)), 2):
        pairs = {(row[one], row[other]) for row in tried}
        assert set(itertools.product(wanted[one], wanted[other])) <= pairs


def let_through(wire: Gateways, longest: int) -> None:
    """From now on both ends drop packets of more bytes that come in, and say nothing of it."""
    if shutil.which("nft") is None:
        raise Unavailable("nft is not installed")
    for namespace in (wire.left, wire.right):
        namespace.run("nft", "add table inet small")
        namespace.run("nft", "add chain inet small in { type filter hook prerouting priority -300; }")
        namespace.run("nft", f"add rule inet small in udp dport {{ 500, 4500 }} meta length > {longest} drop")


def in_fragments(capture: Capture, sender: str) -> int:
    """How many fragments of IKE_AUTH this side sent, the longest of them being let through."""
    return sum(
        frame.data[14 + 20 + 8 + 4 + 16] == ENCRYPTED_FRAGMENT and len(frame.data) <= 14 + SMALL_MTU
        for frame in capture.of_kind(Kind.IKE)
        if frame.sender == sender and frame.ike is not None and frame.ike.exchange == Exchange.IKE_AUTH
    )


@pytest.mark.parametrize("name", list(ROWS))
def test_strongswan_initiates_and_then_we(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    arrangement = row.arrange()
    with gateways() as wire:
        try:
            peer = StrongSwan(wire.right, arrangement.connection(row.they_offer, row.we_offer))
            if arrangement.mtu:
                let_through(wire, arrangement.mtu)
        except Unavailable as reason:
            pytest.skip(str(reason))
        with Capture(wire) as capture, peer, Instance(wire.left) as ours:
            try:
                ours.start(arrangement.spd(tmp_path, row.they_offer))
                assert "initiate completed successfully" in peer.initiate()
                assert ping(wire.right, LEFT, source=RIGHT, count=5, interval_s=0.01).lost == 0
                peer.swanctl("--terminate", "--ike", "peer")
                wait_until("our side has no SA left", lambda: not ours.tunnels(), timeout_s=WAIT_S)
                ours.write_spd(arrangement.spd(tmp_path, row.we_offer))
                ours.ctl("reload")
                wait_until(
                    "our packets bring it back",
                    lambda: ping(wire.left, RIGHT, source=LEFT, wait_s=1.0).received == 1,
                    timeout_s=WAIT_S,
                )
                assert ping(wire.left, RIGHT, source=LEFT, count=5, interval_s=0.01).lost == 0
                assert [one for one in arrangement.logged if one not in peer.log()] == []
                if arrangement.mtu:
                    capture.stop()
                    assert min(in_fragments(capture, "left"), in_fragments(capture, "right")) > 2 * 3
            finally:
                print(f"--- ipsecd ---\n{ours.log()[-6000:]}\n--- strongSwan ---\n{peer.log()[-6000:]}")


def test_a_stranger_is_refused_and_the_log_says_why(tmp_path: Path) -> None:
    keys = [new_key("p256") for _ in range(3)]
    arrangement = by_certificate(*keys[:2], issuers=keys[2:], stranger=True)
    with gateways() as wire:
        try:
            peer = StrongSwan(wire.right, arrangement.connection(GCM_P256))
        except Unavailable as reason:
            pytest.skip(str(reason))
        with peer, Instance(wire.left) as ours:
            ours.start(arrangement.spd(tmp_path, GCM_P256))
            with pytest.raises(LabError, match="AUTHENTICATION_FAILED"):
                peer.initiate()
            assert '"CN=Stranger", is not trusted: it is in none of ca_files' in ours.log()
            assert "Stranger" not in peer.log()
