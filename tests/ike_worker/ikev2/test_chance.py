"""Whatever the network does and whatever is asked for, the two sides end up with the same SAs, and with one of each.

`chance.py` says what is played, and plays as many seeds as you like.
"""

import pytest

from ipc.types import Direction
from tests.ike_worker.ikev2.chance import play, play_without_a_gap, reauthenticate, run_and_watch, world_of
from tests.ike_worker.ikev2.scenario import Scenario
from tests.ike_worker.ikev2.two_sides import RULE_ID

SEEDS = 200
GAP_SEEDS = 75
PER_TEST = 25


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_both_sides_agree_after_any_weather(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        try:
            play(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("first", range(0, GAP_SEEDS, PER_TEST))
def test_whatever_is_replaced_leaves_no_gap(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        try:
            play_without_a_gap(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


# What it has found.


def test_what_a_rekey_of_the_peer_has_just_made_is_not_asked_for_again() -> None:
    """The old one is replaced, the new one not sent on yet: the rule has its Child SA all the same."""
    s = Scenario()
    s.bob.takes(s.alice.rekeys())
    s.bob.wants("initiate", RULE_ID)
    s.ends()


def test_a_reauthentication_that_the_peer_overtakes_is_not_needed() -> None:
    world = world_of(1)
    world.connect()
    world.filter = lambda sender, datagram: [] if sender is world.alice else [datagram]
    reauthenticate(world, world.alice)
    world.run(0.1)
    world.filter = None
    reauthenticate(world, world.bob)
    world.run(60)
    world.agree(1)
    assert len(world.alice.store) == len(world.bob.store) == 1
    assert len(world.alice.sas(Direction.OUT)) == 1


def test_a_child_sa_that_is_rekeyed_while_its_ike_sa_is_made_anew_leaves_no_gap() -> None:
    """What waits beside the old one is sent on when the successor of that goes."""
    world = world_of(1)
    world.connect()
    reauthenticate(world, world.alice)
    while len(world.bob.store) < 2:
        run_and_watch(world, 0.01)
    world.alice.engine.rekey_child(world.alice.sas(Direction.IN)[0].spi, world.now)
    run_and_watch(world, 30)
    world.agree(1)
