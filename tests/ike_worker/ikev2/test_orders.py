"""What an operator asks for ends with an event that says what has come of it, and never hangs."""

from typing import Any

from ike_worker.ikev2 import events as e
from ike_worker.ikev2.features.retransmission import GIVE_UP_S
from ipc.types import Direction
from tests.ike_worker.ikev2.two_sides import MORE_ID, RULE_ID, Side, World, describe, rule_of, two_rules

ORDER = 77


def connected(**sides: Any) -> World:
    world = World(**sides)
    world.connect()
    return world


def ended(side: Side) -> list[str]:
    """The failures of all orders that have ended; "" for one that is done."""
    outcomes = [event for event in side.log if isinstance(event, e.OrderEnded)]
    assert all(event.order == ORDER for event in outcomes)
    return [event.failure for event in outcomes]


def first(side: Side) -> int:
    return side.sas(Direction.IN)[0].spi


# ------------------------------------------------------------------ up


def test_up_is_done_when_the_child_sa_stands() -> None:
    world = World()
    world.alice.engine.initiate(RULE_ID, world.now, order=ORDER)
    world.run(0.03)
    assert ended(world.alice) == []
    world.run(1)
    assert ended(world.alice) == [""]


def test_up_is_done_at_once_where_there_is_one() -> None:
    world = connected()
    world.alice.engine.initiate(RULE_ID, world.now, order=ORDER)
    world.run(0)
    assert ended(world.alice) == [""]
    assert world.wire == []


def test_up_of_a_dead_peer_fails_with_its_reason() -> None:
    world = World()
    world.loss = 1.0
    world.alice.engine.initiate(RULE_ID, world.now, order=ORDER)
    world.run(GIVE_UP_S + 1)
    assert ended(world.alice) == ["the peer at 198.51.100.2:500 does not answer"]


def test_up_that_the_peer_refuses_says_what_it_answers() -> None:
    world = World(**{**two_rules(), "bob": {"rules": [rule_of("bob")]}})
    world.connect()
    world.alice.engine.initiate(MORE_ID, world.now, order=ORDER)
    world.run(1)
    assert ended(world.alice) == ["no Child SA: the peer answers TS_UNACCEPTABLE"]


def test_up_of_an_unknown_rule_fails_at_once() -> None:
    world = connected()
    world.alice.engine.initiate(4711, world.now, order=ORDER)
    world.run(0)
    assert ended(world.alice) == ["the rule has gone from the policy"]


# ------------------------------------------------------------------ down


def test_down_of_a_rule_deletes_its_child_sas_only() -> None:
    world = connected(**two_rules())
    world.alice.engine.initiate(MORE_ID, world.now)
    world.run(1)
    world.alice.engine.end_rule(MORE_ID, world.now, order=ORDER)
    assert ended(world.alice) == []
    world.run(1)
    assert ended(world.alice) == [""]
    world.agree(1)
    assert {sa.rule_id for sa in world.alice.kernel.values()} == {RULE_ID}


def test_down_of_a_rule_that_is_being_negotiated_ends_that_too() -> None:
    for seconds in (0.0, 0.005, 0.015, 0.025, 0.035, 0.045):
        world = World()
        world.alice.engine.initiate(RULE_ID, world.now, keep_up=True)
        world.run(seconds)
        world.alice.engine.end_rule(RULE_ID, world.now, order=ORDER)
        world.run(40)
        assert ended(world.alice) == [""]
        world.agree(0)


def test_down_of_a_rule_whose_child_sa_is_being_asked_for_ends_it_when_it_is_made() -> None:
    world = connected(**two_rules())
    world.filter = lambda _sender, datagram: [] if describe(datagram).startswith("CREATE") else [datagram]
    world.alice.engine.initiate(MORE_ID, world.now)
    world.run(0.5)
    world.alice.engine.end_rule(MORE_ID, world.now, order=ORDER)
    world.filter = None
    world.run(10)
    assert ended(world.alice) == [""]
    world.agree(1)


def test_down_of_a_peer_ends_everything_with_it() -> None:
    world = connected()
    world.alice.engine.end_peer("bob", world.now, order=ORDER)
    world.run(1)
    assert ended(world.alice) == [""]
    world.agree(0)
    assert not world.bob.store


def test_down_of_a_dead_peer_is_done_when_it_is_given_up() -> None:
    world = connected()
    world.loss = 1.0
    world.alice.engine.end_peer("bob", world.now, order=ORDER)
    world.run(GIVE_UP_S - 1)
    assert ended(world.alice) == []
    world.run(2)
    assert ended(world.alice) == [""]


def test_down_where_nothing_is_up_is_done_at_once() -> None:
    world = World()
    world.alice.engine.end_rule(RULE_ID, world.now, order=ORDER)
    world.run(0)
    assert ended(world.alice) == [""]


def test_after_down_a_packet_negotiates_anew_and_nothing_else_does() -> None:
    world = World()
    world.alice.engine.initiate(RULE_ID, world.now, keep_up=True)
    world.run(1)
    world.alice.engine.end_rule(RULE_ID, world.now, order=ORDER)
    world.run(1000)
    world.agree(0)
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(1)
    world.agree(1)


# ------------------------------------------------------------------ rekey


def test_rekeys_are_done_when_the_new_one_stands() -> None:
    world = connected()
    old = first(world.alice)
    world.alice.engine.rekey_child(old, world.now, order=ORDER)
    world.run(1)
    assert ended(world.alice) == [""]
    world.alice.engine.rekey_ike_sa(world.alice.ike_spis[0], world.now, order=ORDER)
    world.run(1)
    assert ended(world.alice) == ["", ""]


def test_a_rekey_that_the_peers_overtakes_is_done_too() -> None:
    world = connected()
    world.alice.engine.rekey_ike_sa(world.alice.ike_spis[0], world.now, order=ORDER)
    world.bob.engine.rekey_ike_sa(world.bob.ike_spis[0], world.now, order=ORDER)
    world.run(5)
    assert ended(world.alice) == ended(world.bob) == [""]
    world.alice.engine.rekey_child(first(world.alice), world.now, order=ORDER)
    world.bob.engine.rekey_child(first(world.bob), world.now, order=ORDER)
    world.run(5)
    assert ended(world.alice) == ended(world.bob) == ["", ""]


def test_rekeys_of_a_dead_peer_fail_when_it_is_given_up() -> None:
    world = connected()
    world.loss = 1.0
    world.alice.engine.rekey_child(first(world.alice), world.now, order=ORDER)
    world.run(GIVE_UP_S + 1)
    assert ended(world.alice) == ["the peer at 198.51.100.2:500 does not answer"]


def test_rekeys_of_what_there_is_not_fail_at_once() -> None:
    world = connected()
    world.alice.engine.rekey_child(0xDEAD, world.now, order=ORDER)
    world.alice.engine.rekey_ike_sa(bytes(8), world.now, order=ORDER)
    world.run(0)
    assert ended(world.alice) == [
        "there is no Child SA with the inbound SPI 0000dead",
        "there is no IKE SA with the SPI 0000000000000000 that could be rekeyed",
    ]
