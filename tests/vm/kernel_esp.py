"""What runs inside the guest: ipsecd over the kernel's ESP. pytest does not collect it here: see test_kernel_esp.py."""

import contextlib
import functools
from dataclasses import replace

import pytest

from ipc.roles import Role
from tests.lab.capture import Capture, Kind
from tests.lab.instance import Instance, NetworkState, leftovers
from tests.lab.namespaces import LabError, gateways
from tests.lab.ping import RunningPing, ping
from tests.lab.spd import HOST_TO_HOST, IPV6, Pair
from tests.lab.strongswan import Connection, StrongSwan
from tests.lab.two import two_instances
from tests.lab.waiting import wait_until
from tests.system.test_language import manual
from tests.system.test_nat import check_that_a_changed_mapping_is_followed, only_udp, through_nat
from tests.system.test_road_warriors import check_that_each_gets_its_own, road
from tests.system.test_secure_mode import world

LEFT, RIGHT = "10.1.0.1", "10.2.0.1"


@pytest.fixture(scope="module", autouse=True)
def everything_read_once() -> None:
    """The guest has read no Python and loaded no cipher yet: its first start may take longer than a start may."""
    with gateways() as wire, Instance(wire.left) as instance, contextlib.suppress(LabError):
        instance.start(Pair().left_spd())


@pytest.mark.parametrize(
    ("pair", "destination", "source"),
    [
        pytest.param(HOST_TO_HOST, "10.9.0.2", "10.9.0.1", id="transport"),
        pytest.param(replace(IPV6, esp="chacha20poly1305-esn"), "fd02::1", "fd01::1", id="ipv6"),
        pytest.param(
            Pair(esp="aes256-sha256", peer_settings="force_encapsulation = true", unmatched="discard"),
            *(RIGHT, LEFT),
            id="aes-cbc in udp",
        ),
    ],
)
def test_kernel_esp_carries_the_traffic(pair: Pair, destination: str, source: str) -> None:
    with two_instances(pair) as two:
        assert two.left.status()["data_path"]["kind"] == "kernel"
        assert two.left.role(Role.DATA_PATH) is None
        wait_until(
            "the tunnel is up",
            lambda: ping(two.wire.left, destination, source=source, wait_s=1.0).received == 1,
            timeout_s=60.0,
        )
        assert ping(two.wire.left, destination, source=source, count=50, interval_s=0.02).lost == 0
        assert "proto esp" in two.wire.left.ip("xfrm", "state")
        if pair.unmatched == "discard":
            assert ping(two.wire.left, "10.9.0.2", source="10.9.0.1", wait_s=0.5).received == 0
        two.capture.stop()
        two.capture.assert_nothing_clear()
        assert len(two.capture.of_kind(Kind.ESP, Kind.ESP_IN_UDP)) >= 100


def test_in_secure_mode_a_gateway_forwards_by_the_mark_of_what_came_by_an_sa() -> None:
    with world() as world_:
        wire, client = world_.two.wire, world_.client
        assert world_.two.left.status()["mode"] == "secure"
        for destination in (RIGHT, "fd02::1"):
            pings = functools.partial(ping, client, destination, wait_s=1.0)
            wait_until("the client is answered", lambda one=pings: one().lost == 0, timeout_s=60.0)
        assert ping(wire.right, "10.3.0.2", source=RIGHT, count=5).lost == 0
        assert ping(client, "10.9.0.2", wait_s=0.5).received == 0
        world_.two.capture.stop()
        world_.two.capture.assert_nothing_clear()


def test_two_road_warriors_behind_one_rule_get_each_their_own_packets() -> None:
    with road() as world_:
        assert world_.gateway.status()["data_path"]["kind"] == "kernel"
        check_that_each_gets_its_own(world_)
        world_.gateway.stop()
        assert "tmpl" not in world_.wire.right.ip("xfrm", "policy")


def test_behind_a_nat_there_are_keepalives_and_a_changed_mapping_is_followed() -> None:
    with through_nat() as natted:
        assert natted.right.status()["data_path"]["kind"] == "kernel"
        check_that_a_changed_mapping_is_followed(natted)
        natted.capture.wait_for(Kind.KEEPALIVE, timeout_s=90.0)
        assert ping(natted.wire.gateways.right, LEFT, source=RIGHT, count=5, wait_s=10.0).lost == 0
        only_udp(natted)


def test_o26_fixed_keys_make_a_tunnel_without_ike() -> None:
    left = manual("10.9.0.1", "10.9.0.2", "10.1.0.0/24", "10.2.0.0/24", ("0x1001 a1", "0x2002 b2"))
    right = manual("10.9.0.2", "10.9.0.1", "10.2.0.0/24", "10.1.0.0/24", ("0x2002 b2", "0x1001 a1"))
    with two_instances(left_spd=left, right_spd=right) as two:
        assert two.left.status()["data_path"]["kind"] == "kernel"
        wait_until("up", lambda: ping(two.wire.left, RIGHT, source=LEFT, wait_s=1.0).received == 1, timeout_s=60.0)
        two.capture.stop()
        two.capture.assert_nothing_clear()
        assert two.capture.of_kind(Kind.ESP)


def test_roles_killed_under_traffic_cost_no_packet_and_stop_leaves_nothing() -> None:
    with gateways() as wire, Capture(wire) as capture, Instance(wire.left) as left, Instance(wire.right) as right:
        before = NetworkState.of(wire.left)
        settings = Pair(data_path="kernel", peer_settings='liveness = "1s"')
        right.start(settings.right_spd())
        left.start(settings.left_spd())
        wait_until("up", lambda: ping(wire.left, RIGHT, source=LEFT).received == 1, timeout_s=60.0)
        tunnel = left.wait_for_tunnel()
        pings = RunningPing(wire.left, RIGHT, source=LEFT, count=500, interval_s=0.02)
        for role in (Role.IKE_WORKER, Role.KERNEL_AGENT, Role.POLICY_LOADER):
            left.wait_for_successor(left.kill(role))
        assert pings.finish().lost == 0
        assert left.wait_for_tunnel() == tunnel
        assert "proto esp" in wire.left.ip("xfrm", "state")
        capture.stop()
        capture.assert_nothing_clear()
        assert len(capture.of_kind(Kind.ESP)) >= 1000
        left.stop()
        assert leftovers(left, before) == []


def test_with_strongswan_over_kernel_esp() -> None:
    with (
        gateways() as wire,
        Capture(wire) as capture,
        StrongSwan(wire.right, Connection(), kernel_esp=True) as peer,
        Instance(wire.left) as ours,
    ):
        ours.start(Pair(esp="aes256gcm16").left_spd())
        for bring_up in (lambda: ping(wire.left, RIGHT, source=LEFT), peer.initiate):
            bring_up()
            wait_until("up", lambda: ping(wire.left, RIGHT, source=LEFT).received == 1, timeout_s=60.0)
            peer.swanctl("--terminate", "--ike", "peer")
        peer.initiate()
        assert ping(wire.left, RIGHT, source=LEFT, count=30, interval_s=0.02).lost == 0
        assert ping(wire.right, LEFT, source=RIGHT, count=30, interval_s=0.02).lost == 0
        peer.swanctl("--rekey", "--child", "net")
        assert ping(wire.left, RIGHT, source=LEFT, count=30, interval_s=0.02).lost == 0
        capture.stop()
        capture.assert_nothing_clear()
        assert len(capture.of_kind(Kind.ESP)) >= 120
