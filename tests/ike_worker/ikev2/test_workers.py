"""Several workers on each side, as `ike_workers` has it: what they must tell each other so that all is as with one."""

import zlib
from dataclasses import replace
from typing import Any

import pytest

from ike_worker.ikev2.ike_sa import IkeSa
from ipc.messages import Acquire
from ipc.roles import SPI_STEER_BYTE
from ipc.types import Direction, EndAction, StartAction
from tests.ike_worker.ikev2.chance import play, play_without_a_gap, run_and_watch
from tests.ike_worker.ikev2.two_sides import MORE_ID, RULE_ID, Side, World, peer_of, rule_of, two_rules
from tests.ike_worker.ikev2.workers import Engines

SEEDS = range(12)


def world_of(seed: int, *, workers: tuple[int, int] = (2, 2), **sides: Any) -> World:
    """Alice and Bob with so many workers."""
    both = {"alice": {"workers": workers[0]}, "bob": {"workers": workers[1]}}
    return World(seed, **{me: both[me] | sides.get(me, {}) for me in both})


def engines(side: Side) -> Engines:
    assert isinstance(side.engine, Engines)
    return side.engine


def standing(side: Side) -> list[IkeSa]:
    return list(engines(side).ike_sas.values())


def worker_of(spi: bytes) -> int:
    return spi[SPI_STEER_BYTE] % 2


def acquire(world: World, side: Side, rule_id: int = RULE_ID) -> None:
    """A packet wants a rule's SA: all workers hear of it."""
    rule = next(rule for rule in side.rules if rule.rule_id == rule_id)
    local, remote = rule.local[0], rule.remote[0]
    wanted = Acquire(
        acquire_id=rule_id,
        rule_id=rule_id,
        packet_local=replace(local, end_address=local.start_address),
        packet_remote=replace(remote, end_address=remote.start_address),
    )
    side.engine.initiate(rule_id, world.now, acquire=wanted)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_packet_makes_one_ike_sa_and_rekeys_stay_in_its_worker(seed: int) -> None:
    world = world_of(seed)
    acquire(world, world.alice)
    world.run()
    world.agree(1)
    before = {side: worker_of(standing(side)[0].own_spi) for side in (world.alice, world.bob)}
    for side in (world.alice, world.bob):
        old = standing(side)[0].own_spi
        side.engine.rekey_ike_sa(old, world.now)
        world.run(30.0)
        for each in (world.alice, world.bob):
            (sa,) = standing(each)
            assert worker_of(sa.own_spi) == before[each]
            assert sa.own_spi != old
    world.agree(1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("workers", [(2, 2), (2, 1), (1, 2), (3, 2)])
def test_both_call_at_once_and_one_of_all_remains(seed: int, workers: tuple[int, int]) -> None:
    world = world_of(seed, workers=workers)
    world.alice.engine.initiate(RULE_ID, world.now)
    world.bob.engine.initiate(RULE_ID, world.now)
    world.run(0.5)
    world.flows = True
    run_and_watch(world, 120.0)
    world.agree(1)
    assert len(world.alice.store) == len(world.bob.store) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_what_stands_already_is_used_wherever_it_is(seed: int) -> None:
    world = world_of(seed, **two_rules())
    world.bob.engine.initiate(RULE_ID, world.now)
    world.run()
    acquire(world, world.alice, MORE_ID)
    acquire(world, world.alice)
    world.run(1.0)
    world.agree(2)
    assert len(world.alice.store) == len(world.bob.store) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_packet_whose_worker_lost_its_ike_sa_meanwhile_is_not_forgotten(seed: int) -> None:
    world = world_of(seed, **two_rules())
    world.bob.engine.initiate(RULE_ID, world.now)
    world.run()
    (sa,) = standing(world.alice)
    owner = engines(world.alice).of_spi(sa.own_spi)
    for one in engines(world.alice).all:
        if one is not owner:
            one.initiate(
                MORE_ID,
                world.now,
                acquire=Acquire(
                    acquire_id=9,
                    rule_id=MORE_ID,
                    packet_local=world.alice.rules[1].local[0],
                    packet_remote=world.alice.rules[1].remote[0],
                ),
            )
    assert not world.step(world.now)
    world.alice.engine.delete_ike_sa(sa.own_spi, world.now)
    world.run(2.0)
    made = [child.rule_id for one in standing(world.alice) for child in one.children.values()]
    home = engines(world.alice).all[zlib.crc32(b"bob") % 2]
    assert made == ([] if home is owner else [MORE_ID])


@pytest.mark.parametrize("seed", SEEDS)
def test_initial_contact_is_heeded_in_all_workers_and_sent_only_by_the_first(seed: int) -> None:
    world = world_of(seed)
    world.bob.engine.initiate(RULE_ID, world.now)
    world.run()
    old = standing(world.alice)[0].own_spi
    world.bob.store.clear()
    world.bob.memory = b""
    world.bob.kill_and_restore()
    world.alice.log.clear()
    world.now += 1.0
    world.bob.engine.initiate(RULE_ID, world.now)
    world.run(2.0)
    world.agree(1)
    (sa,) = standing(world.alice)
    assert sa.own_spi != old


@pytest.mark.parametrize("seed", SEEDS)
def test_reauthentication_makes_one_of_one(seed: int) -> None:
    sides = {me: {"peer": peer_of(me, reauth_s=100.0 if me == "alice" else 0.0)} for me in ("alice", "bob")}
    world = world_of(seed, **sides)
    side = world.alice if seed % 2 else world.bob
    side.engine.initiate(RULE_ID, world.now)
    world.run()
    old = standing(world.alice)[0].own_spi
    world.flows = True
    run_and_watch(world, 150.0)
    world.agree(1)
    assert len(world.alice.store) == len(world.bob.store) == 1
    assert standing(world.alice)[0].own_spi != old


@pytest.mark.parametrize("seed", SEEDS)
def test_rules_that_both_sides_start_have_one_sa_each(seed: int) -> None:
    rules = two_rules(start=StartAction.AT_START)
    world = world_of(seed, **rules)
    world.alice.engine.start_rules(world.now)
    world.bob.engine.start_rules(world.now)
    world.run(120.0)
    world.agree(2)
    for side in (world.alice, world.bob):
        assert all(not one._context.upkeep.wanted for one in engines(side).all)
    assert len(world.alice.store) == len(world.bob.store) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rule_that_the_peer_has_ended_is_left_alone_by_all_workers(seed: int) -> None:
    rules = {me: {"rules": [rule_of(me, close_action=EndAction.CLEAR)]} for me in ("alice", "bob")}
    world = world_of(seed, **rules)
    world.bob.engine.initiate(RULE_ID, world.now)
    world.run()
    world.bob.engine.delete_child(world.bob.sas(Direction.IN)[0].spi, world.now)
    world.run(10.0)
    acquire(world, world.alice)
    world.run(5.0)
    assert not world.alice.kernel
    world.bob.engine.initiate(RULE_ID, world.now)
    world.run(5.0)
    world.agree(1)


@pytest.mark.parametrize("seed", SEEDS)
def test_workers_that_died_go_on(seed: int) -> None:
    world = world_of(seed)
    world.bob.engine.initiate(RULE_ID, world.now)
    world.run()
    before = [set(side.store) for side in (world.alice, world.bob)]
    world.alice.kill_and_restore()
    world.bob.kill_and_restore()
    acquire(world, world.alice)
    world.run(5.0)
    world.agree(1)
    assert [set(side.store) for side in (world.alice, world.bob)] == before
    world.bob.engine.delete_ike_sa(standing(world.bob)[0].own_spi, world.now)
    world.run(5.0)
    acquire(world, world.alice)
    world.run(5.0)
    world.agree(1)
    assert not set(world.alice.store) & before[0]


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_all_workers_of_both_sides_agree_after_any_weather(first: int) -> None:
    for seed in range(first, first + 20):
        try:
            play(seed, workers=2)
            play_without_a_gap(seed, workers=2)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
