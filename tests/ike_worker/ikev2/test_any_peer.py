"""Peers that may come from anywhere: who they are their identity tells, and they are never called (RFC 7296 2.15)."""

from dataclasses import replace
from ipaddress import ip_address

from ike_worker.ikev2.policy import Policy
from ipc.types import StartAction
from tests.ike_worker.ikev2.two_sides import (
    ALICE,
    ALICE_NET,
    BOB,
    BOB_NET,
    RULE_ID,
    World,
    identity,
    net,
    peer_of,
    rule_of,
)

WIDE = net("10.0.0.0-10.255.255.255")


def anywhere(**changes: object) -> World:
    """A world where Bob does not know where Alice is, and would take any of the traffic in 10/8."""
    rule = rule_of("bob", remote=(WIDE,), start=StartAction.RESPOND_ONLY)
    return World(bob={"peer": peer_of("bob", address=None, **changes), "rules": [rule]})


def test_it_is_known_by_its_identity_and_gets_what_it_asks_for() -> None:
    world = anywhere()
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.agree(1)
    assert {(sa.local, sa.remote) for sa in world.bob.kernel.values()} == {((BOB_NET,), (ALICE_NET,))}


def test_it_is_not_called() -> None:
    world = anywhere()
    world.bob.engine.initiate(RULE_ID, world.now)
    world.run()
    assert world.wire == []


def test_once_it_is_there_more_is_negotiated_with_it_like_with_any_other() -> None:
    world = anywhere()
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    (spi,) = world.bob.ike_spis
    world.bob.engine.rekey_ike_sa(spi, world.now)
    world.run()
    world.agree(1)
    assert world.bob.ike_spis != [spi]


def test_another_identity_is_refused() -> None:
    world = anywhere(remote_id=identity("mallory.example"))
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.agree(0)


def test_peers_at_the_very_address_come_first() -> None:
    road = peer_of("bob", name="road", address=None)
    here = peer_of("bob")
    other = replace(here, name="other", local_address=ip_address("198.51.100.99"))
    policy = Policy((road, here, other))
    assert policy.peers_between(BOB, ALICE) == [here, road]
    assert policy.peers_between(BOB, ip_address("203.0.113.1")) == [road]
    assert policy.peers_between(ip_address("198.51.100.99"), ALICE) == [other]
