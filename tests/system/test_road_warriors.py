"""Peers from anywhere: several behind one rule, each of which gets its own packets, also behind one NAT.

Without the NAT it is tried over kernel ESP (tests/vm/kernel_esp.py).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from ipc.roles import Role
from tests.lab.capture import Capture
from tests.lab.instance import Instance
from tests.lab.namespaces import WIRE, End, Gateways, Namespace, add_addresses, gateways, join
from tests.lab.nat import LEFT_PUBLIC, OTHER, natted
from tests.lab.ping import RunningPing, ping
from tests.lab.spd import IPV4, PSK, RIGHT_ID, Pair, Side
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.root

GATEWAY_ADDRESS = "10.2.0.1"
WARRIORS = ("10.1.0.1", "10.3.0.1")
GATEWAY = f"""\
[setup]
interfaces = ["{WIRE}", "wire1"]
unmatched = "bypass"

[proposals.lab]
ike = ["aes256gcm16-prfsha256-x25519"]
esp = ["aes256gcm16-esn"]

[peers.road]
address = "any"
local_id = "{RIGHT_ID}"
remote_id = "*.example"
auth = "psk"
psk = "{PSK}"
proposals = "lab"

[[rules]]
name = "warriors"
action = "protect"
local = ["10.2.0.0/24"]
remote = ["10.1.0.0/24", "10.3.0.0/16"]
peer = "road"
"""
OTHER_ID = "other.example"
OTHER_PAIR = Pair(
    left=Side(identity=OTHER_ID, outer="10.8.0.1", inner="10.3.0.0/24"),
    right=Side(identity=RIGHT_ID, outer="10.8.0.2", inner="10.2.0.0/24"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """A gateway (right), and two who come to it."""

    wire: Gateways
    gateway: Instance
    warriors: tuple[Instance, Instance]


@contextlib.contextmanager
def road() -> Iterator[Road]:
    """All started; right has a second wire, to the other warrior."""
    with gateways() as wire, Namespace("other") as other:
        join(
            End(namespace=other, interface=WIRE, addresses=("10.8.0.1/24",)),
            End(namespace=wire.right, interface="wire1", addresses=("10.8.0.2/24",)),
        )
        add_addresses(End(namespace=other, interface="lo", addresses=("10.3.0.1/24",)))
        other.ip("route", "add", "10.2.0.0/24", "via", "10.8.0.2", "src", "10.3.0.1")
        wire.right.ip("route", "add", "10.3.0.0/24", "via", "10.8.0.1", "src", GATEWAY_ADDRESS)
        with Instance(wire.right) as gateway, Instance(wire.left) as one, Instance(other) as two:
            gateway.start(GATEWAY)
            one.start(IPV4.left_spd())
            two.start(OTHER_PAIR.left_spd())
            yield Road(wire=wire, gateway=gateway, warriors=(one, two))


@contextlib.contextmanager
def road_through_one_nat() -> Iterator[Road]:
    """Both warriors are behind the same NAT: the gateway sees one address, and two ports."""
    with natted(with_other=True) as wire:
        assert wire.other is not None
        ends = wire.gateways
        ends.right.ip("route", "add", "10.3.0.0/24", "via", LEFT_PUBLIC, "src", GATEWAY_ADDRESS)
        pair = replace(OTHER_PAIR, left=replace(OTHER_PAIR.left, outer=OTHER), right=wire.left_pair.right)
        with Instance(ends.right) as gateway, Instance(ends.left) as one, Instance(wire.other) as two:
            gateway.start(GATEWAY.replace(', "wire1"', ""))
            one.start(wire.left_pair.left_spd())
            two.start(pair.left_spd())
            yield Road(wire=ends, gateway=gateway, warriors=(one, two))


def check_that_each_gets_its_own(world: Road) -> None:
    """Both ways, after a rekey, and while the gateway's agent is another one."""
    right = world.wire.right
    for warrior, own in zip(world.warriors, WARRIORS, strict=True):
        wait_until(
            f"{own} is answered",
            lambda: ping(warrior.namespace, GATEWAY_ADDRESS, source=own, wait_s=2.0).lost == 0,  # noqa: B023
            timeout_s=60.0,
        )
    assert len(world.gateway.status()["tunnels"]) == 2
    pings = [RunningPing(right, own, source=GATEWAY_ADDRESS, count=300, interval_s=0.02) for own in WARRIORS]
    world.gateway.wait_for_successor(world.gateway.kill(Role.KERNEL_AGENT))
    world.warriors[0].ctl("rekey", "nets")
    assert [one.finish().lost for one in pings] == [0, 0]
    for own in WARRIORS:
        assert ping(right, own, source=GATEWAY_ADDRESS, count=5, wait_s=10.0).lost == 0
    # One goes, the other stays; nothing of it is in clear.
    with Capture(world.wire) as capture:
        world.warriors[0].stop()
        assert ping(right, WARRIORS[0], source=GATEWAY_ADDRESS, wait_s=1.0).received == 0
        assert ping(right, WARRIORS[1], source=GATEWAY_ADDRESS, count=5, wait_s=10.0).lost == 0
        capture.stop()
        capture.assert_nothing_clear()


def test_two_road_warriors_behind_one_rule_and_one_nat_get_each_their_own_packets() -> None:
    with road_through_one_nat() as world:
        check_that_each_gets_its_own(world)
        world.gateway.stop()
