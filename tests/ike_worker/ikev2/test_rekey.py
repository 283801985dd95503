"""Rekeying of Child SAs and IKE SAs, by either side and by both at once. RFC 7296 sections 1.3.2, 1.3.3, 2.8, 2.25."""

from dataclasses import replace
from typing import Any

import pytest

from ike_worker.ikev2 import events as e
from ike_worker.ikev2.child_sa import DRAIN_S
from ike_worker.ikev2.datagram import Datagram
from ipc.algorithms import KeyExchangeId
from ipc.types import Direction
from tests.ike_worker.ikev2.two_sides import (
    ESP,
    IKE,
    MORE_ID,
    RULE_ID,
    Side,
    World,
    describe,
    peer_of,
    rule_of,
    two_rules,
)

REKEY = ["CREATE_CHILD_SA request", "CREATE_CHILD_SA response", "INFORMATIONAL request", "INFORMATIONAL response"]


def connected(seed: Any = 1, **sides: Any) -> World:
    world = World(seed, **sides)
    world.connect()
    for side in (world.alice, world.bob):
        side.kernel_log.clear()
    return world


def rekey(side: Side) -> None:
    side.engine.rekey_child(side.sas(Direction.IN)[0].spi, side.world.now)


def words(world: World) -> list[str]:
    """The messages without names and numbers."""
    return [line.partition(": ")[2].rpartition(" ")[0] for line in world.wire]


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("groups", [(), (KeyExchangeId.X25519,)])
def test_a_child_sa_is_rekeyed_without_a_gap(who: str, groups: tuple[KeyExchangeId, ...]) -> None:
    esp = (replace(ESP, key_exchange=groups),)
    world = connected(**{me: {"rules": [rule_of(me, esp_proposals=esp)]} for me in ("alice", "bob")})
    side = getattr(world, who)
    other = world.bob if side is world.alice else world.alice
    old = set(side.kernel)
    rekey(side)
    world.run(DRAIN_S + 1)
    assert words(world) == REKEY
    assert not old & set(side.kernel)
    world.agree(1)
    # Who rekeys has both directions before it stops sending on the old one.
    assert side.kernel_log == ["+in", "+out", "-out", "-in"]
    # Who answers can receive before the other sends, and sends only once the other has deleted the old one.
    assert other.kernel_log == ["+in", "+out", "-out", "-in"]
    (event,) = side.of(e.ChildSaEstablished)
    assert isinstance(event, e.ChildSaEstablished)
    assert event.rekeyed_spi_in is not None


def test_no_packet_is_lost_at_any_moment_of_a_rekey() -> None:
    world = connected()
    rekey(world.alice)
    limit = world.now + DRAIN_S + 1
    while world.step(limit):
        for one, other in ((world.alice, world.bob), (world.bob, world.alice)):
            inbound = {sa.spi for sa in other.sas(Direction.IN)}
            outbound = {sa.spi for sa in one.sas(Direction.OUT)}
            assert outbound, f"{one.me} has nothing to send on"
            assert outbound <= inbound, f"{other.me} could not receive what {one.me} sends"
    world.agree(1)


def test_the_responder_sends_on_the_new_one_after_a_while_even_without_a_delete() -> None:
    world = connected()
    world.filter = lambda _sender, datagram: [] if describe(datagram).startswith("INFORMATIONAL") else [datagram]
    rekey(world.bob)
    world.run(31)
    assert world.alice.kernel_log == ["+in", "+out"]
    world.filter = None
    world.run(20)
    world.agree(1)


def test_another_group_is_asked_for_in_a_rekey() -> None:
    both = (KeyExchangeId.X25519, KeyExchangeId.ECP_256)
    alice = rule_of("alice", esp_proposals=(replace(ESP, key_exchange=both),))
    bob = rule_of("bob", esp_proposals=(replace(ESP, key_exchange=both[1:]),))
    world = connected(alice={"rules": [alice]}, bob={"rules": [bob]})
    rekey(world.alice)
    world.run(5)
    assert words(world) == REKEY[:2] + REKEY
    world.agree(1)


def test_the_group_of_the_ike_sa_is_tried_first_in_a_rekey() -> None:
    """Not every peer says which other group it wants: libreswan 4.10 answers INVALID_SYNTAX, and all is over."""
    groups = (KeyExchangeId.ECP_256, KeyExchangeId.X25519)
    alice = rule_of("alice", esp_proposals=(replace(ESP, key_exchange=groups),))
    bob = rule_of("bob", esp_proposals=(replace(ESP, key_exchange=groups[1:]),))
    world = connected(alice={"rules": [alice]}, bob={"rules": [bob]})
    rekey(world.alice)
    world.run(5)
    assert words(world) == REKEY
    world.agree(1)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_peer_that_insists_on_a_key_exchange_gets_one(who: str) -> None:
    """IKE_AUTH does not show the difference, which many defaults have: with it, Child SAs would die at the rekey."""
    alice = rule_of("alice", esp_proposals=(replace(ESP, key_exchange=(KeyExchangeId.X25519,)),))
    world = connected(alice={"rules": [alice]})
    rekey(getattr(world, who))
    world.run(5)
    assert words(world) == (REKEY if who == "alice" else REKEY[:2] + REKEY)
    world.agree(1)


def test_a_peer_that_insists_on_another_group_is_asked_with_it() -> None:
    groups = (KeyExchangeId.X25519, KeyExchangeId.ECP_256)
    bob = rule_of("bob", esp_proposals=(replace(ESP, key_exchange=groups[1:]),))
    peer = peer_of("alice", ike_proposals=(replace(IKE, key_exchange=groups),))
    world = connected(alice={"peer": peer}, bob={"rules": [bob]})
    rekey(world.alice)
    world.run(5)
    assert words(world) == REKEY[:2] * 2 + REKEY
    world.agree(1)


def test_a_peer_that_wants_no_fresh_key_exchange_keeps_the_old_child_sa() -> None:
    alice = rule_of("alice", esp_proposals=(replace(ESP, key_exchange=(KeyExchangeId.ECP_256,)),))
    world = connected(alice={"rules": [alice]})
    rekey(world.alice)
    world.run(5)
    assert words(world) == REKEY[:2]
    world.agree(1)
    world.run(40)
    assert words(world)[:4] == REKEY[:2] * 2, "it is tried again later"


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_kernel_that_refuses_the_new_sas_leaves_the_old_ones(who: str) -> None:
    world = connected()
    old = set(world.alice.kernel)
    getattr(world, who).refuse_installs = 1
    rekey(world.alice)
    world.run(1)
    world.agree(1)
    assert set(world.alice.kernel) == old
    world.run(60)
    world.agree(1)
    assert not set(world.alice.kernel) & old


def test_a_lifetime_leads_to_a_rekey_before_its_end() -> None:
    world = connected(alice={"rules": [rule_of("alice", rekey_s=3600.0, life_s=4000.0)]})
    old = set(world.alice.kernel)
    world.run(0.89 * 3600.0)
    assert set(world.alice.kernel) == old
    world.run(0.12 * 3600.0)
    assert not set(world.alice.kernel) & old
    world.agree(1)


def test_a_child_sa_that_can_not_be_rekeyed_dies_at_the_end_of_its_life() -> None:
    world = connected(alice={"rules": [rule_of("alice", life_s=600.0)]})
    world.run(601)
    world.agree(0)
    assert [event.reason for event in world.alice.log if isinstance(event, e.ChildSaClosed)] == ["deleted by us"]


@pytest.mark.parametrize(("hard", "children"), [(False, 1), (True, 0)])
def test_the_kernel_reports_a_lifetime(hard: bool, children: int) -> None:
    world = connected()
    old = set(world.alice.kernel)
    world.alice.engine.child_expired(world.alice.sas(Direction.IN)[0].spi, hard, world.now)
    world.run(5)
    world.agree(children)
    assert not set(world.alice.kernel) & old


# ------------------------------------------------------------------ both at once


@pytest.mark.parametrize("seed", range(8))
def test_both_rekey_at_once_and_one_child_sa_remains(seed: int) -> None:
    world = connected(seed)
    old = set(world.alice.kernel)
    rekey(world.alice)
    rekey(world.bob)
    limit = world.now + 8
    while world.step(limit):
        for one, other in ((world.alice, world.bob), (world.bob, world.alice)):
            inbound = {sa.spi for sa in other.sas(Direction.IN)}
            assert {sa.spi for sa in one.sas(Direction.OUT)} <= inbound
    world.agree(1)
    assert not set(world.alice.kernel) & old
    closed = [event for side in (world.alice, world.bob) for event in side.of(e.ChildSaClosed)]
    assert len(closed) in (3, 4)


def test_the_lowest_nonce_loses_whoever_has_it() -> None:
    losers = set()
    for seed in range(12):
        world = connected(seed)
        rekey(world.alice)
        rekey(world.bob)
        world.run(8)
        lost = [side.me for side in (world.alice, world.bob) if len(side.of(e.ChildSaEstablished)) == 1]
        assert len(lost) == 1
        losers.update(lost)
    assert losers == {"alice", "bob"}


@pytest.mark.parametrize("late", ["request", "response"])
def test_both_rekey_and_one_message_is_late(late: str) -> None:
    world = connected()
    held: list[tuple[Side, Datagram]] = []

    def hold(sender: Side, datagram: Datagram) -> list[Datagram]:
        if sender is world.alice and describe(datagram).startswith(f"CREATE_CHILD_SA {late}") and not held:
            held.append((sender, datagram))
            return []
        return [datagram]

    world.filter = hold
    rekey(world.alice)
    rekey(world.bob)
    world.run(30)
    assert held
    world.agree(1)


def test_a_rekey_of_a_child_sa_that_the_peer_lost_makes_a_new_one() -> None:
    world = connected()
    bob = world.bob
    (sa,) = bob.engine._context.ike_sas.values()
    bob.engine._context.close_child(sa, next(iter(sa.children.values())), "lost")
    rekey(world.alice)
    world.run(5)
    assert words(world) == REKEY[:2] * 2
    world.agree(1)


# ------------------------------------------------------------------ the IKE SA


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_the_ike_sa_is_rekeyed_and_its_child_sas_live_on(who: str) -> None:
    world = connected()
    side = getattr(world, who)
    old_kernel, old_spis = dict(world.alice.kernel), (world.alice.ike_spis, world.bob.ike_spis)
    side.engine.rekey_ike_sa(side.ike_spis[0], world.now)
    world.run(5)
    assert words(world) == REKEY
    assert world.alice.kernel == old_kernel
    assert len(world.alice.ike_spis) == len(world.bob.ike_spis) == 1
    assert world.alice.ike_spis != old_spis[0]
    assert world.bob.ike_spis != old_spis[1]
    assert side.engine.status(side.ike_spis[0]).initiator
    for again in (world.alice, world.bob):
        rekey(again)
        world.run(5)
        world.agree(1)


def test_both_rekey_the_ike_sa_at_once() -> None:
    world = connected()
    for side in (world.alice, world.bob):
        side.engine.rekey_ike_sa(side.ike_spis[0], world.now)
    world.run(15)
    world.agree(1)
    assert len(world.alice.ike_spis) == len(world.bob.ike_spis) == 1


def test_the_ike_sa_and_its_child_are_rekeyed_at_once_by_different_sides() -> None:
    world = connected()
    world.alice.engine.rekey_ike_sa(world.alice.ike_spis[0], world.now)
    rekey(world.bob)
    world.run(40)
    world.agree(1)
    assert len(world.alice.ike_spis) == len(world.bob.ike_spis) == 1


def test_the_lifetime_of_the_ike_sa_leads_to_a_rekey() -> None:
    world = connected(alice={"peer": peer_of("alice", rekey_s=1000.0)})
    old = world.alice.ike_spis
    world.run(1001)
    assert world.alice.ike_spis != old
    world.agree(1)


def test_a_new_child_sa_is_refused_while_the_ike_sa_is_rekeyed_and_made_afterwards() -> None:
    world = connected(**two_rules())
    world.alice.engine.rekey_ike_sa(world.alice.ike_spis[0], world.now)
    world.bob.engine.initiate(MORE_ID, world.now)
    world.run(30)
    world.agree(2)
    assert RULE_ID in {sa.rule_id for sa in world.alice.kernel.values()}
