"""Whatever the network does and whatever is asked for, the two sides end up with the same SAs, and with one of each.

`chance.py` says what is played, and plays as many seeds as you like.
"""

import pytest

from ipc.types import Direction
from tests.ike_worker.ikev2.chance import play, reauthenticate, world_of
from tests.ike_worker.ikev2.scenario import Scenario
from tests.ike_worker.ikev2.two_sides import RULE_ID

SEEDS = 250
PER_TEST = 25


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_both_sides_agree_after_any_weather(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        try:
            play(seed)
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
