"""ipsecd with strongSwan: every algorithm and extension that both have, each pair of choices in some test."""

import re
from dataclasses import dataclass

import pytest

from tests.lab.capture import Capture, Exchange, Kind
from tests.lab.debian import Unavailable
from tests.lab.instance import Instance
from tests.lab.namespaces import gateways
from tests.lab.ping import ping
from tests.lab.spd import Pair
from tests.lab.strongswan import Connection, StrongSwan
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.timeout(180)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"
WAIT_S = 30.0
MANY_NETS = ", ".join(f'"10.1.0.{number}/30"' for number in range(0, 252, 4))
ENCRYPTED_FRAGMENT = 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is negotiated, and who begins."""

    we_begin: bool
    ike: str
    esp: str
    rekey: bool = False
    """With a key exchange, by them."""
    our_settings: str = ""
    their_settings: str = ""
    their_fragment_bytes: int = 1280
    long_policy: bool = False
    """Ours has so many selectors that IKE_AUTH does not fit into a packet."""
    in_fragments: bool = False
    """Messages of IKE_AUTH are expected in fragments."""
    childless: bool = False


CASES = {
    "cbc-modp2048": Case(we_begin=True, ike="aes256-sha256-modp2048", esp="aes128-sha256"),
    "cbc-ecp256-rekey": Case(we_begin=False, ike="aes128-sha384-ecp256", esp="aes256-sha512-modp2048", rekey=True),
    "ccm-x448": Case(we_begin=True, ike="aes128ccm16-prfsha256-x448", esp="aes256ccm16"),
    "ctr-ecp521": Case(we_begin=False, ike="aes256ctr-sha512-ecp521", esp="aes128ctr-sha256"),
    "our-fragments": Case(
        we_begin=True,
        ike="aes192gcm16-prfsha512-modp3072",
        esp="aes192-sha384-ecp256",
        rekey=True,
        long_policy=True,
        in_fragments=True,
    ),
    "their-fragments": Case(
        we_begin=False,
        ike="aes256-sha256-x25519",
        esp="aes128gcm16",
        their_settings="fragmentation = force",
        their_fragment_bytes=256,
        in_fragments=True,
    ),
    "we-childless": Case(
        we_begin=True,
        ike="chacha20poly1305-prfsha512-ecp256",
        esp="aes256gcm16-x25519",
        our_settings="childless = true",
        childless=True,
    ),
    "they-childless": Case(
        we_begin=False,
        ike="aes256gcm16-prfsha256-modp4096",
        esp="chacha20poly1305-ecp384",
        their_settings="childless = force",
        childless=True,
    ),
    "old": Case(we_begin=True, ike="3des-sha1-modp1024", esp="3des-sha1"),
}


@pytest.mark.parametrize("name", CASES)
def test_strongswan_and_ipsecd_agree_on(name: str) -> None:
    case = CASES[name]
    ours = Pair(ike=case.ike, esp=case.esp, peer_settings=f"force_encapsulation = true\n{case.our_settings}")
    theirs = Connection(
        ike_proposals=case.ike,
        esp_proposals=case.esp,
        settings=case.their_settings,
        fragment_bytes=case.their_fragment_bytes,
    )
    spd = ours.left_spd()
    if case.long_policy:
        spd = spd.replace('local = ["10.1.0.0/24"]', f"local = [{MANY_NETS}]")
    with gateways() as wire:
        try:
            peer = StrongSwan(wire.right, theirs)
        except Unavailable as reason:
            pytest.skip(str(reason))
        with Capture(wire) as capture, peer, Instance(wire.left) as instance:
            try:
                instance.start(spd)
                if not case.we_begin:
                    assert "initiate completed successfully" in peer.initiate()
                wait_until(
                    "they answer a ping",
                    lambda: ping(wire.left, RIGHT, source=LEFT, wait_s=1.0).received == 1,
                    timeout_s=WAIT_S,
                )
                assert ping(wire.right, LEFT, source=RIGHT, count=5, interval_s=0.05).lost == 0
                if case.rekey:
                    before = instance.wait_for_tunnel().children
                    peer.swanctl("--rekey", "--child", "net")
                    wait_until(
                        "there is a new Child SA",
                        lambda: instance.wait_for_tunnel().children != before,
                        timeout_s=WAIT_S,
                    )
                    assert ping(wire.left, RIGHT, source=LEFT, count=5, interval_s=0.05).lost == 0
                capture.stop()
                capture.assert_nothing_clear()
                exchanges = [frame for frame in capture.of_kind(Kind.IKE) if frame.ike is not None]
                created = [one for one in exchanges if one.ike and one.ike.exchange == Exchange.CREATE_CHILD_SA]
                assert bool(created) == (case.childless or case.rekey)
                sender = "left" if case.long_policy else "right"
                assert in_fragments(capture, sender) == case.in_fragments
                words = re.findall(r"[a-z0-9]+", case.esp)
                assert instance.wait_for_tunnel().algorithms[0].split("-")[0] == words[0]
            finally:
                # pytest shows these only if the test fails.
                print(f"--- ipsecd ---\n{instance.log()[-6000:]}\n--- strongSwan ---\n{peer.log()[-6000:]}")


def in_fragments(capture: Capture, sender: str) -> bool:
    """Whether this side sent IKE_AUTH in fragments: the next payload of the IKE header, behind UDP 4500's marker."""
    return any(
        frame.data[14 + 20 + 8 + 4 + 16] == ENCRYPTED_FRAGMENT
        for frame in capture.of_kind(Kind.IKE)
        if frame.sender == sender and frame.ike is not None and frame.ike.exchange == Exchange.IKE_AUTH
    )
