"""What runs inside the guest: ipsecd with libreswan and OpenIKED over the kernel's ESP. See test_other_peers.py."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.lab import pki
from tests.lab.capture import Capture, Kind
from tests.lab.instance import Instance
from tests.lab.libreswan import Libreswan
from tests.lab.namespaces import Gateways, LabError, gateways
from tests.lab.openiked import OpenIked
from tests.lab.ping import RunningPing, ping
from tests.lab.spd import HOST_TO_HOST, PSK, Pair
from tests.lab.waiting import wait_until

LEFT, RIGHT = "10.1.0.1", "10.2.0.1"
WAIT_S = 60.0
GCM = Pair(ike="aes256gcm16-prfsha256-ecp256", esp="aes256gcm16")
CBC = Pair(ike="aes256-sha256-x25519", esp="aes256-sha512")
IKED = f'local 10.9.0.2 peer 10.9.0.1 srcid right.example dstid left.example psk "{PSK}"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """ipsecd on the left; the other one comes on the right."""

    wire: Gateways
    ours: Instance

    def we_initiate(self, source: str = LEFT, destination: str = RIGHT) -> None:
        """Our first packet brings the tunnel up."""
        wait_until(
            "a ping is answered",
            lambda: ping(self.wire.left, destination, source=source, wait_s=1.0).received == 1,
            timeout_s=WAIT_S,
        )

    def traffic_flows(self, left: str = LEFT, right: str = RIGHT) -> None:
        """Both ways, without loss."""
        assert ping(self.wire.left, right, source=left, count=5, interval_s=0.02).lost == 0
        assert ping(self.wire.right, left, source=right, count=5, interval_s=0.02).lost == 0

    def is_one_pair(self) -> bool:
        """Whether there is one IKE SA with one Child SA."""
        return [len(one.children) for one in self.ours.tunnels()] == [1]

    def is_down(self) -> bool:
        """Whether there is no SA."""
        return not self.ours.tunnels()

    def no_packets_without_sa(self) -> int:
        """How many ESP packets came for which no SA was there: a responder may send on a new one before we have it."""
        lines = self.wire.left.run("cat", "/proc/net/xfrm_stat").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("XfrmInNoStates"))


@contextlib.contextmanager
def ipsecd(spd: str) -> Iterator[Here]:
    """ipsecd, started."""
    with gateways() as wire, Capture(wire) as capture, Instance(wire.left) as ours:
        try:
            ours.start(spd)
            yield Here(wire=wire, ours=ours)
            capture.stop()
            assert capture.of_kind(Kind.ESP)
            capture.assert_nothing_clear()
        finally:
            # pytest shows it only if the test fails.
            print(f"--- ipsecd ---\n{ours.log()[-6000:]}")


def libreswan_connection(**changes: str) -> str:
    """A connection of ipsec.conf, with its defaults where `changes` say nothing: it insists on PFS."""
    settings = {
        "ikev2": "insist",
        "authby": "secret",
        "left": "10.9.0.2",
        "leftid": "@right.example",
        "leftsubnet": "10.2.0.0/24",
        "right": "10.9.0.1",
        "rightid": "@left.example",
        "rightsubnet": "10.1.0.0/24",
        "leftupdown": "%disabled",
        "auto": "ignore",
    } | changes
    return "conn net\n" + "".join(f"    {key}={value}\n" for key, value in settings.items() if value)


@contextlib.contextmanager
def libreswan(here: Here, **changes: str) -> Iterator[Libreswan]:
    """libreswan on the right; it calls nobody by itself."""
    with Libreswan(here.wire.right, libreswan_connection(**changes), f': PSK "{PSK}"\n') as peer:
        try:
            peer.whack("--impair", "revival")
            yield peer
        finally:
            print(f"--- libreswan ---\n{peer.log()[-6000:]}")


@pytest.fixture(scope="module", autouse=True)
def everything_read_once() -> None:
    """The guest has read no Python and loaded no cipher yet: its first start may take longer than a start may."""
    with gateways() as wire, Instance(wire.left) as instance, contextlib.suppress(LabError):
        instance.start(Pair().left_spd())


def test_libreswan_from_both_sides_with_rekeys() -> None:
    """Its Child SAs are rekeyed with a key exchange, though our proposal has none."""
    with ipsecd(GCM.left_spd()) as here, libreswan(here) as peer:
        here.we_initiate()
        here.traffic_flows()
        peer.whack("--terminate", "--name", "net")
        wait_until("our side has no SA left", here.is_down, timeout_s=WAIT_S)
        peer.initiate()
        here.traffic_flows()
        rekeys: list[Callable[[], str]] = [
            lambda: peer.whack("--rekey-ipsec", "--name", "net"),
            lambda: here.ours.ctl("rekey", "other"),
            lambda: here.ours.ctl("rekey", "nets"),
        ]
        for rekey in rekeys:
            (before,) = here.ours.tunnels()
            early = here.no_packets_without_sa()
            pings = RunningPing(here.wire.left, RIGHT, source=LEFT, count=50, interval_s=0.02)
            rekey()
            assert pings.finish().lost == here.no_packets_without_sa() - early
            wait_until("one pair is left", here.is_one_pair, timeout_s=WAIT_S)
            (after,) = here.ours.tunnels()
            assert (after.spi_i, after.children) != (before.spi_i, before.children)


def test_libreswan_by_certificate_in_transport_mode(tmp_path: Path) -> None:
    authority = pki.root("CN=Lab,O=Example", key=pki.new_key("rsa"))
    ours = authority.issue("CN=left,O=Example", ["left.example"], key=pki.new_key("rsa"))
    theirs = authority.issue("CN=right,O=Example", ["right.example"], key=pki.new_key("rsa"))
    for name, content in {"own.pem": ours.pem, "own.key": pki.key_pem(ours.key), "ca.pem": authority.pem}.items():
        pki.write(tmp_path / name, content)
    auth = (
        f'auth = "certificate"\ncertificate_file = "{tmp_path}/own.pem"\nkey_file = "{tmp_path}/own.key"\n'
        f'ca_files = ["{tmp_path}/ca.pem"]'
    )
    connection = libreswan_connection(
        type="transport", leftsubnet="", rightsubnet="", authby="rsa-sha2", leftcert="own", rightca="%same"
    )
    with (
        ipsecd(replace(HOST_TO_HOST, auth=auth, ike=GCM.ike, esp=GCM.esp).left_spd()) as here,
        Libreswan(here.wire.right, connection, own=theirs, authorities=(authority,)) as peer,
    ):
        here.we_initiate("10.9.0.1", "10.9.0.2")
        here.traffic_flows("10.9.0.1", "10.9.0.2")
        assert "Child SA" in peer.log()


def test_openiked_initiates() -> None:
    settings = f'ikev2 "net" active esp from 10.2.0.0/24 to 10.1.0.0/24 {IKED}'
    with ipsecd(CBC.left_spd()) as here, OpenIked(here.wire.right, settings) as peer:
        wait_until("up", here.is_one_pair, timeout_s=WAIT_S)
        here.traffic_flows()
        (before,) = here.ours.tunnels()
        here.ours.ctl("rekey", "nets")
        wait_until("one pair is left", here.is_one_pair, timeout_s=WAIT_S)
        assert here.ours.tunnels()[0].children != before.children, peer.log()[-6000:]
        here.traffic_flows()
