"""ipsecd with strongSwan, each as initiator and as responder: its ESP is in user space, always in UDP."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ipc.roles import Role
from tests.lab.capture import Capture, Kind
from tests.lab.debian import Unavailable
from tests.lab.instance import Instance
from tests.lab.namespaces import Gateways, LabError, gateways
from tests.lab.ping import RunningPing, ping
from tests.lab.spd import Pair
from tests.lab.strongswan import Connection, StrongSwan
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.timeout(120)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"
OURS = Pair(ike="aes256gcm16-prfsha256-x25519", esp="aes256gcm16", peer_settings="force_encapsulation = true")
THEIRS = Connection(
    ike_proposals="aes256gcm16-prfsha256-x25519",
    esp_proposals="aes256gcm16",
    charon="make_before_break = yes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """ipsecd on the left, strongSwan on the right."""

    wire: Gateways
    ours: Instance
    theirs: StrongSwan
    capture: Capture


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """What all tests share: a strongSwan takes longer to start than most of them."""

    wire: Gateways
    theirs: StrongSwan


@pytest.fixture(scope="module")
def right() -> Iterator[Right]:
    with gateways() as wire:
        try:
            peer = StrongSwan(wire.right, THEIRS)
        except Unavailable as reason:
            pytest.skip(str(reason))
        with peer:
            yield Right(wire=wire, theirs=peer)


@pytest.fixture
def both(right: Right) -> Iterator[Both]:
    """A new ipsecd, and a strongSwan that has no SA left of the one before."""
    wire, peer = right.wire, right.theirs
    peer.swanctl("--terminate", "--ike", "peer", "--force", check=False)
    wait_until("strongSwan is idle", lambda: not peer.list_sas().strip())
    with Capture(wire) as capture, Instance(wire.left) as ours:
        try:
            ours.start(OURS.left_spd())
            yield Both(wire=wire, ours=ours, theirs=peer, capture=capture)
        finally:
            # pytest shows these only if the test fails.
            print(f"--- ipsecd ---\n{ours.log()[-6000:]}\n--- strongSwan ---\n{peer.log()[-6000:]}")


def reload(both: Both, spd: str) -> None:
    """Another policy for our side."""
    both.ours.write_spd(spd)
    both.ours.ctl("reload")


def we_initiate(both: Both) -> None:
    """Our first packet brings the tunnel up."""
    wait_until(
        "strongSwan's side answers a ping",
        lambda: ping(both.wire.left, RIGHT, source=LEFT, wait_s=1.0).received == 1,
        timeout_s=30.0,
    )


def traffic_flows(both: Both) -> None:
    """Both ways, without loss, and only ESP on the wire."""
    for namespace, destination, source in ((both.wire.left, RIGHT, LEFT), (both.wire.right, LEFT, RIGHT)):
        result = ping(namespace, destination, source=source, count=20, interval_s=0.01)
        assert result.lost == 0, result


def their_children(both: Both) -> list[str]:
    """strongSwan's Child SAs as our status would show them: its "in" is our "out"."""
    found = re.findall(r"^\s+in\s+([0-9a-f]{8}).*\n\s+out\s+([0-9a-f]{8})", both.theirs.list_sas(), re.MULTILINE)
    return [f"nets in {out} out {into}" for into, out in found]


def our_children(both: Both) -> list[str]:
    """Our Child SAs."""
    return [child for tunnel in both.ours.tunnels() for child in tunnel.children]


def sas_agree(both: Both) -> bool:
    """Whether both have the same Child SA; others, replaced a moment ago, may linger beside it on either side."""
    return bool(set(their_children(both)) & set(our_children(both)))


def sas_are_the_same(both: Both) -> bool:
    """Whether both have one and the same Child SA and no other."""
    return len(theirs := their_children(both)) == 1 and theirs == our_children(both)


def test_we_initiate_and_delete_when_we_stop(both: Both) -> None:
    we_initiate(both)
    traffic_flows(both)
    assert "ESTABLISHED" in both.theirs.list_sas()
    assert sas_are_the_same(both)
    both.capture.stop()
    both.capture.assert_nothing_clear()
    assert len(both.capture.of_kind(Kind.ESP_IN_UDP)) >= 80
    both.ours.stop()
    wait_until("strongSwan has no SA left", lambda: "ESTABLISHED" not in both.theirs.list_sas())


@pytest.mark.parametrize("what", ["the Child SA", "the IKE SA", "by a new authentication"])
def test_strongswan_rekeys(both: Both, what: str) -> None:
    we_initiate(both)
    before = both.ours.wait_for_tunnel()
    pings = RunningPing(both.wire.left, RIGHT, source=LEFT, count=200, interval_s=0.01)
    match what:
        case "the Child SA":
            both.theirs.swanctl("--rekey", "--child", "net")
        case "the IKE SA":
            both.theirs.swanctl("--rekey", "--ike", "peer")
        case _:
            both.theirs.swanctl("--rekey", "--ike", "peer", "--reauth")

    def is_rekeyed() -> bool:
        now = both.ours.wait_for_tunnel()
        kept_ike, kept_child = now.spi_i == before.spi_i, now.children == before.children
        expected = {"the Child SA": (True, False), "the IKE SA": (False, True)}.get(what, (False, False))
        return (kept_ike, kept_child) == expected and len(both.ours.tunnels()) == 1 and sas_are_the_same(both)

    wait_until("both have the new SAs and only these", is_rekeyed, timeout_s=20.0)
    assert pings.finish().lost == 0
    traffic_flows(both)


@pytest.mark.parametrize("setting", ["rekey", "ike_rekey", "reauth"])
def test_we_rekey(both: Both, setting: str) -> None:
    spd = (
        OURS.left_spd(rule_settings='rekey = "3s"\nlife = "60s"')
        if setting == "rekey"
        else OURS.left_spd(peer_settings=f'force_encapsulation = true\n{setting} = "3s"')
    )
    reload(both, spd)
    we_initiate(both)
    before = both.ours.wait_for_tunnel()
    pings = RunningPing(both.wire.left, RIGHT, source=LEFT, count=500, interval_s=0.01)

    def is_rekeyed() -> bool:
        now = both.ours.wait_for_tunnel()
        return now.children != before.children if setting == "rekey" else now.spi_i != before.spi_i

    wait_until("our side has new SAs", is_rekeyed)
    wait_until("strongSwan has the same", lambda: sas_agree(both))
    # It uses the SAs of a new IKE_AUTH as soon as it has answered, and we have them when that answer is here.
    assert pings.finish().lost == 0 or setting == "reauth"
    traffic_flows(both)


def test_strongswan_deletes_the_ike_sa_or_the_child_sa_and_the_next_packet_brings_it_back(both: Both) -> None:
    we_initiate(both)
    both.theirs.swanctl("--terminate", "--ike", "peer")
    wait_until("our side has no SA left", lambda: not both.ours.tunnels())
    we_initiate(both)
    assert sas_are_the_same(both)
    before = both.ours.wait_for_tunnel()
    both.theirs.swanctl("--terminate", "--child", "net")
    wait_until("our side has no Child SA left", lambda: not any(one.children for one in both.ours.tunnels()))
    we_initiate(both)
    assert both.ours.wait_for_tunnel().spi_i == before.spi_i


def test_a_wrong_psk_is_refused_by_us(both: Both) -> None:
    reload(both, OURS.left_spd().replace("for tests only", "that is wrong"))
    with pytest.raises(LabError, match="AUTHENTICATION_FAILED"):
        both.theirs.initiate()
    assert not any(one.children for one in both.ours.tunnels())


def test_no_common_proposal_is_said_so(both: Both) -> None:
    reload(both, OURS.left_spd(ike="aes128gcm16-prfsha512-ecp384"))
    with pytest.raises(LabError, match="NO_PROPOSAL_CHOSEN"):
        both.theirs.initiate()


def test_the_killed_worker_takes_the_tunnel_up_again(both: Both) -> None:
    we_initiate(both)
    pings = RunningPing(both.wire.left, RIGHT, source=LEFT, count=300, interval_s=0.01)
    both.ours.wait_for_successor(both.ours.kill(Role.IKE_WORKER))
    both.theirs.swanctl("--rekey", "--child", "net")
    wait_until("both have the same Child SA", lambda: sas_agree(both))
    assert pings.finish().lost == 0
