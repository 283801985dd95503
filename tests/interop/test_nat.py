"""ipsecd with strongSwan through a NAT, each of them behind it, and over IPv6."""

import pytest

from tests.lab.capture import Capture, Kind
from tests.lab.debian import Unavailable
from tests.lab.instance import Instance
from tests.lab.namespaces import Namespace, gateways
from tests.lab.nat import LEFT, LEFT_PUBLIC, OTHER_PORTS, RIGHT, natted
from tests.lab.ping import ping
from tests.lab.spd import IPV6, LEFT_ID, PSK, RIGHT_ID
from tests.lab.strongswan import Connection, StrongSwan
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.timeout(180)]
LEFT_INNER, RIGHT_INNER = "10.1.0.1", "10.2.0.1"
WAIT_S = 30.0


def connection(local: str, remote: str, local_id: str, remote_id: str, local_net: str, remote_net: str) -> Connection:
    return Connection(
        local_address=local,
        remote_address=remote,
        local_id=local_id,
        remote_id=remote_id,
        psk=PSK,
        local_net=local_net,
        remote_net=remote_net,
    )


def strongswan(namespace: Namespace, one: Connection) -> StrongSwan:
    try:
        return StrongSwan(namespace, one)
    except Unavailable as reason:
        pytest.skip(str(reason))


def comes_up(namespace: Namespace, destination: str, source: str) -> None:
    wait_until(
        f"{destination} answers {source}",
        lambda: ping(namespace, destination, source=source, wait_s=1.0).received == 1,
        timeout_s=WAIT_S,
    )
    assert ping(namespace, destination, source=source, count=10, interval_s=0.05).lost == 0


def test_we_are_behind_the_nat_and_its_mapping_changes() -> None:
    with natted() as wire:
        ends = wire.gateways
        theirs = connection(RIGHT, LEFT_PUBLIC, RIGHT_ID, LEFT_ID, "10.2.0.0/24", "10.1.0.0/24")
        with Capture(ends) as capture, strongswan(ends.right, theirs) as peer, Instance(ends.left) as ours:
            try:
                ours.start(wire.left_pair.left_spd(esp="aes256gcm16"))
                comes_up(ends.left, RIGHT_INNER, LEFT_INNER)
                assert ping(ends.right, LEFT_INNER, source=RIGHT_INNER, count=10, interval_s=0.05).lost == 0
                wire.left_nat.masquerade(OTHER_PORTS)
                wire.left_nat.forget_mappings()
                comes_up(ends.left, RIGHT_INNER, LEFT_INNER)
                capture.stop()
                capture.assert_nothing_clear()
                assert capture.of_kind(Kind.ESP_IN_UDP)
                assert not capture.of_kind(Kind.ESP)
            finally:
                print(f"--- ipsecd ---\n{ours.log()[-5000:]}\n--- strongSwan ---\n{peer.log()[-5000:]}")


def test_strongswan_is_behind_the_nat_and_its_mapping_changes() -> None:
    with natted() as wire:
        ends = wire.gateways
        theirs = connection(LEFT, RIGHT, LEFT_ID, RIGHT_ID, "10.1.0.0/24", "10.2.0.0/24")
        with Capture(ends) as capture, strongswan(ends.left, theirs) as peer, Instance(ends.right) as ours:
            try:
                ours.start(wire.right_pair.right_spd(esp="aes256gcm16"))
                assert "initiate completed successfully" in peer.initiate()
                comes_up(ends.left, RIGHT_INNER, LEFT_INNER)
                wire.left_nat.masquerade(OTHER_PORTS)
                wire.left_nat.forget_mappings()
                comes_up(ends.left, RIGHT_INNER, LEFT_INNER)
                assert ping(ends.right, LEFT_INNER, source=RIGHT_INNER, count=10, interval_s=0.05).lost == 0
                capture.stop()
                capture.assert_nothing_clear()
            finally:
                print(f"--- ipsecd ---\n{ours.log()[-5000:]}\n--- strongSwan ---\n{peer.log()[-5000:]}")


def test_over_ipv6() -> None:
    theirs = connection("fd09::2", "fd09::1", RIGHT_ID, LEFT_ID, "fd02::/64", "fd01::/64")
    with (
        gateways() as ends,
        Capture(ends) as capture,
        strongswan(ends.right, theirs) as peer,
        Instance(ends.left) as ours,
    ):
        try:
            ours.start(IPV6.left_spd(esp="aes256gcm16", peer_settings="force_encapsulation = true"))
            comes_up(ends.left, "fd02::1", "fd01::1")
            assert ping(ends.right, "fd01::1", source="fd02::1", count=10, interval_s=0.05).lost == 0
            capture.stop()
            capture.assert_nothing_clear()
        finally:
            print(f"--- ipsecd ---\n{ours.log()[-5000:]}\n--- strongSwan ---\n{peer.log()[-5000:]}")
