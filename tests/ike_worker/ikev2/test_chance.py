"""Whatever the network does, the two sides end up with the same SAs, and no packet falls between them for long."""

import pytest

from ipc.types import Direction
from tests.ike_worker.ikev2.two_sides import RULE_ID, Side, World, peer_of, rule_of

SEEDS = 300
PER_TEST = 25


def act(world: World) -> None:
    """Something that an operator, a kernel or a timer may ask for at any time."""
    side: Side = world.chance.choice((world.alice, world.bob))
    inbound = side.sas(Direction.IN)
    choice = world.chance.randrange(10)
    if choice < 4 and inbound:
        side.engine.rekey_child(world.chance.choice(inbound).spi, world.now)
    elif choice < 6 and side.ike_spis:
        side.engine.rekey_ike_sa(world.chance.choice(side.ike_spis), world.now)
    elif choice == 6 and inbound:
        side.engine.delete_child(world.chance.choice(inbound).spi, world.now)
    elif choice == 7:
        side.kill_and_restore()
    else:
        side.engine.initiate(RULE_ID, world.now)


def play(seed: int) -> None:
    lives = {
        me: {"peer": peer_of(me, liveness_s=20.0), "rules": [rule_of(me, rekey_s=300.0)]} for me in ("alice", "bob")
    }
    world = World(seed, **lives)
    world.loss, world.duplication, world.corruption, world.spread_s = 0.2, 0.1, 0.02, 0.5
    for _ in range(12):
        act(world)
        world.run(world.chance.uniform(0.0, 4.0))
    world.run(30)
    world.loss = world.duplication = world.corruption = world.spread_s = 0.0
    world.run(240)
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(5)
    world.agree()
    assert world.alice.sas(Direction.OUT)
    assert len(world.alice.sas(Direction.OUT)) == len(world.bob.sas(Direction.OUT))
    assert len(world.alice.store) == len(world.bob.store)


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_both_sides_agree_after_any_weather(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        try:
            play(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
