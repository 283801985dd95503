"""What runs inside the guest: ipsecd over the kernel's ESP. pytest does not collect it here: see test_kernel_esp.py."""

import pytest

from ipc.roles import Role
from tests.lab.capture import Capture, Kind
from tests.lab.instance import Instance, NetworkState, leftovers
from tests.lab.namespaces import gateways
from tests.lab.ping import RunningPing, ping
from tests.lab.spd import HOST_TO_HOST, IPV4, IPV6, LEFT_ID, PSK, RIGHT_ID, Pair
from tests.lab.strongswan import Connection, StrongSwan
from tests.lab.two import two_instances
from tests.lab.waiting import wait_until

LEFT, RIGHT = "10.1.0.1", "10.2.0.1"
KERNEL = Pair(data_path="kernel")


@pytest.mark.parametrize(
    ("pair", "destination", "source"),
    [
        pytest.param(IPV4, RIGHT, LEFT, id="tunnel"),
        pytest.param(HOST_TO_HOST, "10.9.0.2", "10.9.0.1", id="transport"),
        pytest.param(IPV6, "fd02::1", "fd01::1", id="ipv6"),
        pytest.param(Pair(esp="aes256-sha256", ike="aes256-sha256-prfsha256-x25519"), RIGHT, LEFT, id="aes-cbc"),
        pytest.param(Pair(esp="chacha20poly1305-esn"), RIGHT, LEFT, id="chacha20"),
        pytest.param(Pair(peer_settings="force_encapsulation = true"), RIGHT, LEFT, id="udp"),
        pytest.param(Pair(unmatched="discard"), RIGHT, LEFT, id="discard"),
    ],
)
def test_kernel_esp_carries_the_traffic(pair: Pair, destination: str, source: str) -> None:
    with two_instances(pair) as two:
        assert two.left.status()["data_path"]["kind"] == "kernel"
        assert two.left.role(Role.DATA_PATH) is None
        wait_until(
            "the tunnel is up",
            lambda: ping(two.wire.left, destination, source=source, wait_s=1.0).received == 1,
            timeout_s=20.0,
        )
        assert ping(two.wire.left, destination, source=source, count=50, interval_s=0.02).lost == 0
        assert "proto esp" in two.wire.left.ip("xfrm", "state")
        two.capture.stop()
        two.capture.assert_nothing_clear()
        assert len(two.capture.of_kind(Kind.ESP, Kind.ESP_IN_UDP)) >= 100


@pytest.mark.parametrize("role", [Role.IKE_WORKER, Role.KERNEL_AGENT, Role.POLICY_LOADER])
def test_a_role_killed_under_traffic_costs_no_packet(role: Role) -> None:
    with two_instances(Pair(data_path="kernel", peer_settings='liveness = "1s"')) as two:
        wait_until("up", lambda: ping(two.wire.left, RIGHT, source=LEFT).received == 1, timeout_s=20.0)
        before = two.left.wait_for_tunnel()
        pings = RunningPing(two.wire.left, RIGHT, source=LEFT, count=200, interval_s=0.02)
        two.left.wait_for_successor(two.left.kill(role), timeout_s=10.0)
        assert pings.finish().lost == 0
        assert two.left.wait_for_tunnel() == before
        two.capture.stop()
        two.capture.assert_nothing_clear()


def test_stop_leaves_nothing_in_the_kernel() -> None:
    with gateways() as wire, Instance(wire.left) as instance:
        before = NetworkState.of(wire.left)
        instance.start(KERNEL.left_spd())
        assert NetworkState.of(wire.left) != before
        instance.stop()
        assert leftovers(instance, before) == []


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
def test_with_strongswan_over_kernel_esp(initiator: str) -> None:
    theirs = Connection(
        local_address="10.9.0.2",
        remote_address="10.9.0.1",
        local_id=RIGHT_ID,
        remote_id=LEFT_ID,
        psk=PSK,
        local_net="10.2.0.0/24",
        remote_net="10.1.0.0/24",
    )
    with (
        gateways() as wire,
        Capture(wire) as capture,
        StrongSwan(wire.right, theirs, kernel_esp=True) as peer,
        Instance(wire.left) as ours,
    ):
        ours.start(Pair(esp="aes256gcm16").left_spd())
        if initiator == "theirs":
            peer.initiate()
        wait_until("up", lambda: ping(wire.left, RIGHT, source=LEFT).received == 1, timeout_s=20.0)
        assert ping(wire.left, RIGHT, source=LEFT, count=30, interval_s=0.02).lost == 0
        assert ping(wire.right, LEFT, source=RIGHT, count=30, interval_s=0.02).lost == 0
        peer.swanctl("--rekey", "--child", "net")
        assert ping(wire.left, RIGHT, source=LEFT, count=30, interval_s=0.02).lost == 0
        capture.stop()
        capture.assert_nothing_clear()
        assert len(capture.of_kind(Kind.ESP)) >= 120
