"""SAs are replaced by packets and by time, AUTH included, under traffic, and end when there is none."""

import pytest

from tests.lab.instance import Instance
from tests.lab.ping import ping
from tests.lab.spd import IPV4
from tests.lab.two import two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"


def children(instance: Instance) -> set[str]:
    """Its Child SAs, by rule and SPIs."""
    return {child for tunnel in instance.tunnels() for child in tunnel.children}


def test_sas_are_replaced_under_traffic_and_end_without_it() -> None:
    left = IPV4.left_spd(peer_settings='reauth = "15s"', rule_settings="rekey_packets = 200")
    right = IPV4.right_spd(rule_settings='idle = "10s"')
    with two_instances(left_spd=left, right_spd=right) as two:
        wait_until("the tunnel is up", lambda: ping(two.wire.left, RIGHT, source=LEFT, wait_s=1.0).received == 1)
        ike_sas, spis = set(), set()
        for turn in range(10):
            if turn % 3 == 2:
                two.right.ctl("rekey", "nets", "--timeout", "60")  # the other side replaces it too
            assert ping(two.wire.left, RIGHT, source=LEFT, count=100, interval_s=0.03).lost == 0
            ike_sas.update(tunnel.spi_i for tunnel in two.left.tunnels())
            spis.update(children(two.left))
        assert len(ike_sas) >= 2, "the IKE SA was never made anew"
        assert len(spis) >= 3, "the Child SA was never replaced for its packets"
        wait_until(
            "the idle Child SA is gone", lambda: not children(two.left) and not children(two.right), timeout_s=60.0
        )
        assert ping(two.wire.left, RIGHT, source=LEFT, count=3, wait_s=3.0).received, "a packet brings it back"
        two.capture.stop()
        two.capture.assert_nothing_clear()
