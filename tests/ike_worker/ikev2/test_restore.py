"""A worker is killed between any two steps, and the next one goes on from its checkpoints. RFC 7296 section 2.2.

`Side` asserts at each request that no message ID is used for two different ones.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ike_worker.ikev2 import events
from ike_worker.ikev2.snapshot import IkeSaState
from ike_worker.ikev2.wish import WishKind
from ipc import codec
from ipc.algorithms import KeyExchangeId
from ipc.types import Direction
from tests.ike_worker.ikev2.two_sides import ESP, RULE_ID, Side, World, rule_of

FRESH_KEYS = (replace(ESP, key_exchange=(KeyExchangeId.ECP_256,)),)


def connected() -> World:
    sides: dict[str, Any] = {me: {"rules": [rule_of(me, esp_proposals=FRESH_KEYS)]} for me in ("alice", "bob")}
    world = World(**sides)
    world.connect()
    return world


def first_spi(side: Side) -> int:
    return side.sas(Direction.IN)[0].spi


def rekey_both(world: World) -> None:
    world.alice.engine.rekey_child(first_spi(world.alice), world.now)
    world.bob.engine.rekey_child(first_spi(world.bob), world.now)


SCENARIOS: dict[str, tuple[Callable[[World], None], int]] = {
    "rekey child": (lambda world: world.alice.engine.rekey_child(first_spi(world.alice), world.now), 1),
    "rekey child by both": (rekey_both, 1),
    "rekey ike": (lambda world: world.alice.engine.rekey_ike_sa(world.alice.ike_spis[0], world.now), 1),
    "delete child": (lambda world: world.alice.engine.delete_child(first_spi(world.alice), world.now), 0),
    "delete ike": (lambda world: world.alice.engine.delete_ike_sa(world.alice.ike_spis[0], world.now), 0),
}


def test_what_waits_for_a_request_under_way_is_done_by_the_next_one() -> None:
    world = connected()
    world.loss = 1.0
    world.alice.engine.rekey_ike_sa(world.alice.ike_spis[0], world.now)
    world.run(0.1)
    world.alice.engine.delete_child(first_spi(world.alice), world.now)
    world.run(0.1)
    world.alice.kill_and_restore()
    world.loss = 0.0
    world.run(10)
    world.agree(0)
    assert len(world.alice.store) == len(world.bob.store) == 1


def test_what_is_being_put_together_is_asked_by_the_next_one() -> None:
    """The kernel tells of a soft lifetime only once."""
    world = connected()
    first = first_spi(world.alice)
    world.alice.answer_events = False
    world.alice.engine.child_expired(first, False, world.now)
    world.run(0.1)
    world.alice.answer_events = True
    world.alice.kill_and_restore()
    world.run(10)
    world.agree(1)
    assert first_spi(world.alice) != first


@pytest.mark.parametrize("victim", ["alice", "bob"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_after_any_step_it_goes_on(scenario: str, victim: str) -> None:
    action, children = SCENARIOS[scenario]
    steps = 0
    finished = False
    while not finished:
        world = connected()
        action(world)
        limit = world.now + 5
        finished = not all(world.step(limit) for _ in range(steps))
        side = getattr(world, victim)
        side.settle()
        side.kill_and_restore()
        world.run(100)
        world.agree(children)
        assert len(world.alice.store) == len(world.bob.store)
        steps += 1
    assert steps > 3


@pytest.mark.parametrize("victim", ["alice", "bob"])
def test_killed_while_the_kernel_works_on_an_install(victim: str) -> None:
    world = connected()
    side: Side = getattr(world, victim)
    world.alice.engine.rekey_child(first_spi(world.alice), world.now)
    handle = side._handle

    def silent(event: object) -> None:
        if type(event).__name__ != "InstallSas":
            handle(event)  # type: ignore[arg-type]

    side._handle = silent  # type: ignore[method-assign]
    world.run(2.5)
    side._handle = handle  # type: ignore[method-assign]
    side.kill_and_restore()
    world.run(30)
    world.agree(1)


def test_a_snapshot_says_all_there_is() -> None:
    world = connected()
    world.loss = 1.0
    rekey_both(world)
    world.run(3)
    for side in (world.alice, world.bob):
        state = side.engine.snapshot(side.ike_spis[0])
        data = codec.encode_value(state)
        assert codec.decode_value(IkeSaState, data) == state
        assert state.pending is not None
        side.kill_and_restore()
        again = side.engine.snapshot(side.ike_spis[0])
        assert replace(again, pending=None) == replace(state, pending=None)
        assert again.pending is not None
        assert again.pending.data == state.pending.data


def test_a_half_open_ike_sa_is_not_kept() -> None:
    world = World()
    world.alice.engine.initiate(RULE_ID, world.now)
    for _ in range(2):
        world.step(world.now + 1)
    assert world.alice.engine.take_changes().changed == ()
    assert world.bob.engine.take_changes().changed == ()


def test_a_peer_that_is_gone_when_the_worker_comes_back_is_told() -> None:
    world = connected()
    world.alice.peers = ()
    world.alice.kill_and_restore()
    world.run(5)
    world.agree(0)
    assert not world.bob.store


def test_a_rule_that_is_gone_when_the_worker_comes_back_is_deleted() -> None:
    world = connected()
    world.alice.rules = ()
    world.alice.kill_and_restore()
    world.run(5)
    world.agree(0)
    assert len(world.bob.store) == 1


def test_before_its_policy_a_restored_worker_begins_nothing_new_and_does_not_spin() -> None:
    world = connected()
    alice = world.alice
    alice.engine.rekey_child(first_spi(alice), world.now)
    (sa,) = alice.engine._context.ike_sas.values()
    state = alice.engine.snapshot(sa.own_spi)
    assert [wish.kind for wish in state.wishes] == [WishKind.REKEY_CHILD]
    alice.engine = alice._fresh_engine()
    alice.engine.restore(state, world.now)
    assert alice.engine.datagrams_to_send() == []
    assert alice.engine.get_timer() is None
    alice.engine.set_policy(alice.peers, alice.rules, world.now)
    assert isinstance(alice.engine.next_event(), events.AllocateSpi)
