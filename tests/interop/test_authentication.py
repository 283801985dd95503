"""ipsecd with strongSwan by certificates and public keys: each kind of key, each side as initiator."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.lab import pki
from tests.lab.debian import Unavailable
from tests.lab.instance import Instance
from tests.lab.namespaces import LabError, gateways
from tests.lab.ping import ping
from tests.lab.pki import Issued, key_pem, new_key, public_pem
from tests.lab.spd import LEFT_ID, RIGHT_ID, Pair
from tests.lab.strongswan import Connection, StrongSwan
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.timeout(180)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"
OURS = Pair(ike="aes256gcm16-prfsha256-x25519", esp="aes256gcm16", peer_settings="force_encapsulation = true")
WAIT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How the two authenticate: our lines of [peers.NAME] and files, their settings and files."""

    auth: str
    files: Mapping[str, bytes]
    local_auth: str
    remote_auth: str
    their_files: Mapping[str, bytes]
    our_id: str = LEFT_ID
    their_id: str = RIGHT_ID
    spd_changes: Mapping[str, str] = field(default_factory=dict)
    charon: str = ""
    logged: tuple[str, ...] = ()
    """What strongSwan says of the signatures: its own, and ours."""

    def spd(self, directory: Path) -> str:
        """Our SPD, with our files written to `directory`."""
        for name, content in self.files.items():
            pki.write(directory / name, content)
        return OURS.left_spd(auth=self.auth.replace("DIR", str(directory)), **self.spd_changes)

    def connection(self) -> Connection:
        return Connection(
            local_address="10.9.0.2",
            remote_address="10.9.0.1",
            local_id=self.their_id,
            remote_id=self.our_id,
            psk="not used",
            local_net="10.2.0.0/24",
            remote_net="10.1.0.0/24",
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


def by_certificate(kind: str, *, intermediate: bool = False, theirs: Issued | None = None) -> Arrangement:
    """Certificates of one authority on both sides; with `intermediate`, both through one below it."""
    ca = pki.root("CN=Interop CA,O=Example", key=new_key(kind))
    issuer = ca.authority("CN=Below,O=Example", key=new_key(kind)) if intermediate else ca
    ours = issuer.issue("CN=left,O=Example", [LEFT_ID], key=new_key(kind))
    theirs = theirs or issuer.issue("CN=right,O=Example", [RIGHT_ID], key=new_key(kind))
    between = [issuer.pem] if intermediate else []
    return Arrangement(
        auth=OUR_LINES,
        files={
            "own.pem": b"".join([ours.pem, *between]),
            "own.key": key_pem(ours.key),
            "ca.pem": ca.pem,
            "ca.crl": ca.crl(),
        },
        local_auth="auth = pubkey\ncerts = own.pem",
        remote_auth="auth = pubkey\ncacerts = ca.pem",
        their_files={
            "x509/own.pem": theirs.pem,
            "private/own.pem": key_pem(theirs.key),
            "x509ca/ca.pem": ca.pem,
            **({"x509ca/below.pem": issuer.pem} if intermediate else {}),
        },
    )


def by_dn() -> Arrangement:
    """RSA, and each is known by the subject of its certificate; ours we take from there."""
    # strongSwan writes a name in the order of its encoding, RFC 4514 in the opposite one.
    return replace(
        by_certificate("rsa"),
        our_id="O=Example, CN=left",
        their_id="O=Example, CN=right",
        spd_changes={"local_id": "# from the certificate", "remote_id": 'remote_id = "CN=*,O=Example"'},
        charon="rsa_pss = yes",
        logged=("(myself) with RSA_EMSA_PSS_SHA2_256", "'O=Example, CN=left' with RSA_EMSA_PSS_SHA2_256"),
    )


def by_public_key(kind: str) -> Arrangement:
    """Bare keys that each side has of the other in a file."""
    ours, theirs = new_key(kind), new_key(kind)
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
    )


def of_old(kind: str) -> Arrangement:
    """strongSwan as it was before RFC 7427."""
    one = by_certificate(kind)
    method = {"rsa": "RSA signature", "p256": "ECDSA-256 signature"}[kind]
    return replace(
        one,
        auth=one.auth + "\nsha1_signatures = true",
        charon="signature_authentication = no",
        logged=(f"(myself) with {method}", f"'{LEFT_ID}' with {method}"),
    )


ARRANGEMENTS = {
    "rsa-dn": by_dn,
    "p256-intermediate": lambda: by_certificate("p256", intermediate=True),
    "ed25519": lambda: by_certificate("ed25519"),
    "public-key": lambda: by_public_key("p384"),
    "rsa-of-old": lambda: of_old("rsa"),
    "p256-of-old": lambda: of_old("p256"),
}


@pytest.mark.parametrize("name", list(ARRANGEMENTS))
def test_strongswan_initiates_and_then_we(name: str, tmp_path: Path) -> None:
    arrangement = ARRANGEMENTS[name]()
    with gateways() as wire:
        try:
            peer = StrongSwan(wire.right, arrangement.connection())
        except Unavailable as reason:
            pytest.skip(str(reason))
        with peer, Instance(wire.left) as ours:
            try:
                ours.start(arrangement.spd(tmp_path))
                assert "initiate completed successfully" in peer.initiate()
                assert ping(wire.right, LEFT, source=RIGHT, count=5, interval_s=0.01).lost == 0
                peer.swanctl("--terminate", "--ike", "peer")
                wait_until("our side has no SA left", lambda: not ours.tunnels(), timeout_s=WAIT_S)
                wait_until(
                    "our packets bring it back",
                    lambda: ping(wire.left, RIGHT, source=LEFT, wait_s=1.0).received == 1,
                    timeout_s=WAIT_S,
                )
                assert ping(wire.left, RIGHT, source=LEFT, count=5, interval_s=0.01).lost == 0
                assert [one for one in arrangement.logged if one not in peer.log()] == []
            finally:
                print(f"--- ipsecd ---\n{ours.log()[-6000:]}\n--- strongSwan ---\n{peer.log()[-6000:]}")


def test_a_stranger_is_refused_and_the_log_says_why(tmp_path: Path) -> None:
    stranger = pki.root("CN=Stranger").issue("CN=right,O=Example", [RIGHT_ID])
    arrangement = by_certificate("p256", theirs=stranger)
    with gateways() as wire:
        try:
            peer = StrongSwan(wire.right, arrangement.connection())
        except Unavailable as reason:
            pytest.skip(str(reason))
        with peer, Instance(wire.left) as ours:
            ours.start(arrangement.spd(tmp_path))
            with pytest.raises(LabError, match="AUTHENTICATION_FAILED"):
                peer.initiate()
            assert '"CN=Stranger", is not trusted: it is in none of ca_files' in ours.log()
            assert "Stranger" not in peer.log()
