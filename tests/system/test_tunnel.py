"""Tunnels between two real instances: on demand, with each mode, family and cipher, and what is kept out of clear."""

import threading

import pytest

from tests.lab.capture import Kind
from tests.lab.namespaces import End, Namespace, join
from tests.lab.ping import PingResult, ping
from tests.lab.spd import HOST_TO_HOST, IPV4, IPV6, Pair
from tests.lab.streams import bytes_through_tcp, datagram_arrives
from tests.lab.two import Two, two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"
LEFT6, RIGHT6 = "fd01::1", "fd02::1"


def esp_only(two: Two) -> None:
    """Stops the capture: nothing was in clear, and something was in ESP."""
    two.capture.stop()
    two.capture.assert_nothing_clear()
    assert two.capture.of_kind(Kind.ESP, Kind.ESP_IN_UDP)


def answered(namespace: Namespace, destination: str, source: str, count: int = 20) -> PingResult:
    """Pings until the tunnel is there, then `count` more, and says what came of these."""
    wait_until(
        f"{destination} answers {source}",
        lambda: ping(namespace, destination, source=source, wait_s=1.0).received == 1,
        timeout_s=30.0,
    )
    return ping(namespace, destination, source=source, count=count, interval_s=0.01)


@pytest.mark.parametrize("initiator", ["left", "right"])
def test_the_first_packet_of_either_side_brings_the_tunnel_up(initiator: str) -> None:
    with two_instances() as two:
        assert not two.left.tunnels()
        assert not two.capture.of_kind(Kind.IKE)
        here, there, namespace = (LEFT, RIGHT, two.wire.left) if initiator == "left" else (RIGHT, LEFT, two.wire.right)
        assert answered(namespace, there, here).lost == 0
        first = two.capture.of_kind(Kind.IKE)[0]
        assert first.sender == initiator
        assert two.left.wait_for_tunnel().spi_i == two.right.wait_for_tunnel().spi_i
        esp_only(two)


def test_traffic_flows_both_ways_through_one_tunnel() -> None:
    with two_instances() as two:
        assert answered(two.wire.left, RIGHT, LEFT).lost == 0
        assert answered(two.wire.right, LEFT, RIGHT).lost == 0
        assert [len(one.children) for one in two.left.tunnels()] == [1]
        esp_only(two)


def test_both_sides_may_begin_at_once() -> None:
    with two_instances() as two:
        results: list[PingResult] = []
        sides = ((two.wire.left, RIGHT, LEFT), (two.wire.right, LEFT, RIGHT))
        threads = [threading.Thread(target=lambda side=side: results.append(answered(*side))) for side in sides]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30.0)
        assert [result.lost for result in results] == [0, 0]
        esp_only(two)


def test_a_rule_may_ask_for_its_tunnel_at_start() -> None:
    with two_instances(left_spd=IPV4.left_spd(rule_settings='start = "at-start"')) as two:
        two.left.wait_for_tunnel()
        assert ping(two.wire.left, RIGHT, source=LEFT, count=10, interval_s=0.01).lost == 0
        esp_only(two)


def test_transport_mode_protects_the_gateways_themselves() -> None:
    with two_instances(HOST_TO_HOST) as two:
        assert answered(two.wire.left, "10.9.0.2", "10.9.0.1").lost == 0
        assert two.left.status()["tunnels"][0]["children"][0]["mode"] == "transport"
        esp_only(two)


def test_ipv6_inside_and_outside() -> None:
    with two_instances(IPV6) as two:
        assert answered(two.wire.left, RIGHT6, LEFT6).lost == 0
        esp_only(two)


@pytest.mark.parametrize(("pair", "remote", "source"), [(IPV6, RIGHT6, LEFT6), (IPV4, RIGHT, LEFT)])
def test_with_the_device_gone_nothing_leaves_in_clear(pair: Pair, remote: str, source: str) -> None:
    with two_instances(pair) as two:
        assert answered(two.wire.left, remote, source).lost == 0
        two.left.die()
        for bound in (["-I", source], []):
            told = two.wire.left.run("ping", "-c", "3", "-i", "0.1", "-W", "0.5", *bound, remote, check=False)
            assert "No route to host" in told or " 0 received" in told
        esp_only(two)


@pytest.mark.parametrize(
    ("ike", "esp"),
    [
        ("aes256gcm16-prfsha384-ecp384", "aes256gcm16"),
        ("aes128gcm16-prfsha256-ecp256", "aes128gcm16-esn"),
        ("chacha20poly1305-prfsha256-x25519", "chacha20poly1305-esn"),
        ("aes256-sha256-prfsha256-x25519", "aes256-sha256"),
        ("aes128-sha512-prfsha512-x25519", "aes128-sha384-esn"),
        ("aes256-sha384-prfsha384-x25519", "aes256-sha512"),
    ],
)
def test_every_cipher_carries_traffic(ike: str, esp: str) -> None:
    with two_instances(Pair(ike=ike, esp=esp)) as two:
        assert answered(two.wire.left, RIGHT, LEFT).lost == 0
        assert two.left.wait_for_tunnel().algorithms == (esp,)
        esp_only(two)


def test_esp_in_udp_where_the_policy_wants_it() -> None:
    with two_instances(Pair(peer_settings="force_encapsulation = true")) as two:
        assert answered(two.wire.left, RIGHT, LEFT).lost == 0
        esp_only(two)
        assert not two.capture.of_kind(Kind.ESP)


@pytest.mark.parametrize("size", [1400, 1472, 4000, 20000])
def test_packets_that_do_not_fit_are_cut_not_lost(size: int) -> None:
    with two_instances() as two:
        assert answered(two.wire.left, RIGHT, LEFT, count=1).lost == 0
        assert ping(two.wire.left, RIGHT, source=LEFT, count=5, interval_s=0.05, size=size).lost == 0
        two.capture.stop()
        assert two.capture.of_kind(Kind.ESP, Kind.ESP_IN_UDP)


def test_a_byte_stream_comes_through_whole() -> None:
    with two_instances() as two:
        assert answered(two.wire.left, RIGHT, LEFT, count=1).lost == 0
        assert bytes_through_tcp(two.wire.left, LEFT, two.wire.right, RIGHT, 2_000_000) == 2_000_000
        assert bytes_through_tcp(two.wire.right, RIGHT, two.wire.left, LEFT, 2_000_000) == 2_000_000
        esp_only(two)


def test_a_gateway_protects_the_hosts_behind_it() -> None:
    with two_instances() as two, Namespace("host-left") as host_left, Namespace("host-right") as host_right:
        for gateway, host, number, other in (
            (two.wire.left, host_left, 1, 2),
            (two.wire.right, host_right, 2, 1),
        ):
            gateway.ip("address", "del", f"10.{number}.0.1/24", "dev", "lo")
            join(
                End(namespace=gateway, interface="lan0", addresses=(f"10.{number}.0.1/24",)),
                End(namespace=host, interface="lan0", addresses=(f"10.{number}.0.9/24",)),
            )
            host.ip("route", "add", "default", "via", f"10.{number}.0.1")
            gateway.ip("route", "replace", f"10.{other}.0.0/24", "via", f"10.9.0.{other}")
            gateway.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        assert answered(host_left, "10.2.0.9", "10.1.0.9").lost == 0
        assert bytes_through_tcp(host_right, "10.2.0.9", host_left, "10.1.0.9", 1_000_000) == 1_000_000
        esp_only(two)


# ------------------------------------------------------------- bypass and discard

BYPASS_9999 = """
[[rules]]
name = "clear"
action = "bypass"
protocol = "udp"
local = ["10.1.0.0/24", "10.2.0.0/24"]
remote = ["10.1.0.0/24", "10.2.0.0/24"]
"""
DISCARD = BYPASS_9999.replace('"clear"', '"never"').replace("bypass", "discard")


def rule_for_port(rule: str, port: int) -> str:
    """`rule` twice: for datagrams to and from that port."""
    there = rule + f"remote_port = {port}\n"
    back = rule.replace('name = "', 'name = "back-') + f"local_port = {port}\n"
    return there + back


def test_a_bypass_rule_ahead_lets_its_traffic_pass_in_clear() -> None:
    with two_instances(Pair(rules_before=rule_for_port(BYPASS_9999, 9999))) as two:
        assert datagram_arrives(two.wire.left, LEFT, two.wire.right, RIGHT, 9999, wait_s=3.0)
        assert "UDP" in two.capture.wait_for(Kind.CLEAR)[0].description
        assert not two.capture.of_kind(Kind.IKE)
        assert answered(two.wire.left, RIGHT, LEFT).lost == 0
        two.capture.stop()
        assert len(two.capture.of_kind(Kind.CLEAR)) == 1


def test_a_discard_rule_ahead_drops_its_traffic_and_nothing_else() -> None:
    with two_instances(Pair(rules_before=rule_for_port(DISCARD, 9998))) as two:
        assert not datagram_arrives(two.wire.left, LEFT, two.wire.right, RIGHT, 9998, wait_s=1.0)
        assert datagram_arrives(two.wire.left, LEFT, two.wire.right, RIGHT, 9997, wait_s=5.0)
        esp_only(two)


def test_what_no_rule_matches_is_dropped_where_the_policy_says_so() -> None:
    with two_instances(Pair(unmatched="discard")) as two:
        assert ping(two.wire.left, "10.9.0.2", source="10.9.0.1", wait_s=0.5).received == 0
        assert answered(two.wire.left, RIGHT, LEFT).lost == 0
        assert ping(two.wire.left, "127.0.0.1", wait_s=0.5).received == 1
        esp_only(two)


def test_what_no_rule_matches_passes_in_clear_where_the_policy_says_so() -> None:
    with two_instances(Pair(unmatched="bypass")) as two:
        assert ping(two.wire.left, "10.9.0.2", source="10.9.0.1", count=3, interval_s=0.1).lost == 0
        two.capture.wait_for(Kind.CLEAR, count=6)


def test_protected_traffic_never_comes_in_unprotected() -> None:
    with two_instances() as two:
        assert answered(two.wire.left, RIGHT, LEFT).lost == 0
        two.left.stop()  # sends in clear from now on, as an attacker on the wire would
        assert ping(two.wire.left, RIGHT, source=LEFT, count=3, interval_s=0.05, wait_s=0.5).received == 0
        assert not datagram_arrives(two.wire.left, LEFT, two.wire.right, RIGHT, 9000, wait_s=0.5)


def test_without_the_peer_nothing_goes_out_in_clear() -> None:
    with two_instances() as two:
        two.right.stop()
        before = len(two.capture.of_kind(Kind.CLEAR))
        assert ping(two.wire.left, RIGHT, source=LEFT, count=3, interval_s=0.1, wait_s=0.5).received == 0
        two.capture.stop()
        mine = [frame for frame in two.capture.of_kind(Kind.CLEAR)[before:] if frame.sender == "left"]
        assert not mine, mine


def test_with_a_wrong_psk_there_is_no_tunnel() -> None:
    wrong = IPV4.left_spd().replace("for tests only", "that is wrong")
    with two_instances(left_spd=wrong) as two:
        assert ping(two.wire.left, RIGHT, source=LEFT, count=3, interval_s=0.3, wait_s=0.5).received == 0
        assert not [one for one in two.right.tunnels() if one.children]
        two.capture.stop()
        two.capture.assert_nothing_clear()


# ------------------------------------------------------------- rekeying


def test_a_child_sa_is_rekeyed_without_loss() -> None:
    with two_instances(Pair(rule_settings='rekey = "2s"\nlife = "60s"')) as two:
        assert answered(two.wire.left, RIGHT, LEFT, count=1).lost == 0
        before = two.left.wait_for_tunnel()
        assert ping(two.wire.left, RIGHT, source=LEFT, count=500, interval_s=0.01).lost == 0
        after = two.left.wait_for_tunnel()
        assert after.spi_i == before.spi_i
        assert after.children != before.children
        esp_only(two)


def test_an_ike_sa_is_rekeyed_without_loss() -> None:
    with two_instances(Pair(peer_settings='ike_rekey = "2s"')) as two:
        assert answered(two.wire.left, RIGHT, LEFT, count=1).lost == 0
        before = two.left.wait_for_tunnel()
        assert ping(two.wire.left, RIGHT, source=LEFT, count=500, interval_s=0.01).lost == 0
        after = two.left.wait_for_tunnel()
        assert after.spi_i != before.spi_i
        assert after.children == before.children
        esp_only(two)
