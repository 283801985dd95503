"""Transport mode through a NAT between two engines. RFC 7296 section 2.23.1."""

from ipaddress import ip_address

import pytest

from ike_worker.ikev2.datagram import Endpoint
from ike_worker.ikev2.features import nat_traversal
from ike_worker.ikev2.ike_sa import NatPath
from ipc.types import Direction, Mode, TrafficSelector, UdpEncapsulation
from tests.ike_worker.ikev2.two_sides import (
    ALICE,
    BOB,
    RULE_ID,
    Side,
    World,
    behind_nat,
    net,
    peer_of,
    rule_of,
)

PUBLIC = ip_address("203.0.113.77")


def transport_world() -> World:
    """Alice is behind a NAT that shows her at PUBLIC; the two hosts protect what they say to each other."""
    alice = rule_of("alice", mode=Mode.TRANSPORT, local=(net(str(ALICE)),), remote=(net(str(BOB)),))
    bob = rule_of("bob", mode=Mode.TRANSPORT, local=(net(str(BOB)),), remote=(net(str(PUBLIC)),))
    world = World(alice={"rules": [alice]}, bob={"rules": [bob], "peer": peer_of("bob", address=PUBLIC)})
    world.nat = behind_nat(PUBLIC)
    return world


def seen(side: Side) -> set[tuple[Mode, str, str]]:
    return {(sa.mode, str(sa.local[0]), str(sa.remote[0])) for sa in side.kernel.values()}


def fits(world: World) -> None:
    """Each side has the selectors that its own packets have."""
    assert seen(world.alice) == {(Mode.TRANSPORT, str(ALICE), str(BOB))}
    assert seen(world.bob) == {(Mode.TRANSPORT, str(BOB), str(PUBLIC))}
    for one, other in ((world.alice, world.bob), (world.bob, world.alice)):
        (outbound,), (inbound,) = one.sas(Direction.OUT), other.sas(Direction.IN)
        assert (outbound.spi, outbound.encryption_key) == (inbound.spi, inbound.encryption_key)
        assert outbound.encapsulation is not None
        one.check_kernel()


def test_each_side_protects_the_addresses_that_it_sees() -> None:
    world = transport_world()
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    fits(world)
    (sa,) = world.bob.sas(Direction.OUT)
    assert sa.encapsulation == UdpEncapsulation(source_port=4500, destination_port=14500)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_so_does_a_rekey_from_either_side(who: str) -> None:
    world = transport_world()
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    side = world.alice if who == "alice" else world.bob
    before = side.sas(Direction.IN)[0].spi
    side.engine.rekey_child(before, world.now)
    world.run(30)
    assert side.sas(Direction.IN)[0].spi != before
    fits(world)


def test_a_tunnel_keeps_the_selectors_that_were_said() -> None:
    world = World(bob={"peer": peer_of("bob", address=PUBLIC)})
    world.nat = behind_nat(PUBLIC)
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.agree(1)


def test_forced_encapsulation_without_a_nat_changes_no_selector() -> None:
    hosts = {"local": (net(str(ALICE)),), "remote": (net(str(BOB)),)}
    world = World(
        alice={
            "rules": [rule_of("alice", mode=Mode.TRANSPORT, **hosts)],
            "peer": peer_of("alice", force_encapsulation=True),
        },
        bob={"rules": [rule_of("bob", mode=Mode.TRANSPORT, local=hosts["remote"], remote=hosts["local"])]},
    )
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.agree(1)


def path(*, we: bool, peer: bool) -> NatPath:
    made = NatPath(Endpoint(address=ALICE, port=4500), Endpoint(address=PUBLIC, port=14500), forced=False)
    made.we_behind_nat, made.peer_behind_nat = we, peer
    return made


@pytest.mark.parametrize(("we", "peer"), [(False, False), (True, False), (False, True), (True, True)])
def test_an_end_behind_a_nat_is_the_one_that_is_replaced(we: bool, peer: bool) -> None:
    local, remote = (net("192.0.2.200", protocol=6, port=80),), (net("10.0.0.9"),)
    own, other = nat_traversal.as_we_see_them(path(we=we, peer=peer), Mode.TRANSPORT, local=local, remote=remote)
    assert own == ((net(str(ALICE), protocol=6, port=80),) if we else local)
    assert other == ((net(str(PUBLIC)),) if peer else remote)


@pytest.mark.parametrize("selector", [net("10.0.0.0-10.0.0.255"), net("2001:db8::1")])
def test_what_is_no_single_host_of_that_family_stays(selector: TrafficSelector) -> None:
    own, other = nat_traversal.as_we_see_them(
        path(we=True, peer=True), Mode.TRANSPORT, local=(selector,), remote=(selector,)
    )
    assert own == other == (selector,)
