"""How long SAs live, and what follows their end. RFC 7296 sections 1.4.1, 2.4, 2.8 and 2.8.3."""

from dataclasses import replace
from typing import Any

import pytest

from ike_worker.ikev2 import events as e
from ike_worker.ikev2.exchanges.reauthentication import OVERTIME
from ike_worker.ikev2.features.retransmission import GIVE_UP_S
from ike_worker.ikev2.features.upkeep import FIRST_RETRY_S, LAST_RETRY_S
from ipc.messages import Acquire, SaName, Usage
from ipc.types import Direction, EndAction, StartAction
from tests.ike_worker.ikev2.two_sides import (
    MORE_ID,
    RULE_ID,
    Side,
    World,
    describe,
    net,
    peer_of,
    rule_of,
    two_rules,
)


def connected(seed: Any = 1, **sides: Any) -> World:
    world = World(seed, **sides)
    world.connect()
    return world


def rules(me: str, **changes: object) -> dict[str, Any]:
    """A policy of one side."""
    return {me: {"rules": [rule_of(me, **changes)]}}


def peers(me: str, **changes: object) -> dict[str, Any]:
    """A policy of one side."""
    return {me: {"peer": peer_of(me, **changes)}}


def check_flow(world: World) -> None:
    """Both have something to send on, and whatever they send the other can receive."""
    for one, other in ((world.alice, world.bob), (world.bob, world.alice)):
        inbound = {sa.spi for sa in other.sas(Direction.IN)}
        outbound = {sa.spi for sa in one.sas(Direction.OUT)}
        assert outbound, f"{one.me} has nothing to send on"
        assert outbound <= inbound, f"{other.me} could not receive what {one.me} sends"


def run_and_watch(world: World, seconds: float) -> None:
    limit = world.now + seconds
    while world.step(limit):
        check_flow(world)
    world.now = limit


def packet(side: Side) -> Acquire:
    """A packet of the rule."""
    mine, theirs = ("10.1.0.5", "10.2.0.9") if side.me == "alice" else ("10.2.0.9", "10.1.0.5")
    return Acquire(acquire_id=1, rule_id=RULE_ID, packet_local=net(mine), packet_remote=net(theirs))


# ------------------------------------------------------------------ bytes and packets


def test_limits_of_bytes_and_packets_go_to_the_kernel_and_soft_ones_differ_a_little() -> None:
    limits = {"rekey_bytes": 10**9, "life_bytes": 2 * 10**9, "rekey_packets": 10**6, "life_packets": 2 * 10**6}
    world = connected(**rules("alice", **limits))
    softs = set()
    for _ in range(8):
        for sa in world.alice.kernel.values():
            assert 0.9 * 10**9 <= sa.soft_lifetime_bytes <= 10**9
            assert 0.9 * 10**6 <= sa.soft_lifetime_packets <= 10**6
            assert (sa.hard_lifetime_bytes, sa.hard_lifetime_packets) == (2 * 10**9, 2 * 10**6)
            softs.add(sa.soft_lifetime_bytes)
        world.alice.engine.rekey_child(world.alice.sas(Direction.IN)[0].spi, world.now)
        world.run(5)
    assert len(softs) > 4
    assert all(sa.hard_lifetime_bytes == 0 for sa in world.bob.kernel.values())


@pytest.mark.parametrize("direction", [Direction.IN, Direction.OUT])
def test_the_soft_limit_of_either_direction_leads_to_a_rekey(direction: Direction) -> None:
    world = connected()
    old = set(world.alice.kernel)
    world.alice.engine.child_expired(world.alice.sas(direction)[0].spi, False, world.now)
    run_and_watch(world, 10)
    assert not old & set(world.alice.kernel)
    world.agree(1)


def test_rekey_times_are_spread() -> None:
    times = set()
    for seed in range(20):
        world = connected(seed, **rules("alice", rekey_s=1000.0))
        (child,) = world.alice.engine.snapshot(world.alice.ike_spis[0]).children
        assert 900.0 <= child.rekey_at - child.established_at <= 1000.0
        times.add(round(child.rekey_at, 1))
    assert len(times) > 15


# ------------------------------------------------------------------ reauthentication


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_reauthentication_makes_before_it_breaks(who: str) -> None:
    world = connected(**peers(who, reauth_s=1000.0))
    old, kernel = world.alice.ike_spis, set(world.alice.kernel)
    run_and_watch(world, 1020)
    world.agree(1)
    assert len(world.alice.ike_spis) == len(world.bob.ike_spis) == 1
    assert world.alice.ike_spis != old
    assert not kernel & set(world.alice.kernel)
    assert [line for line in world.wire if "IKE_AUTH request" in line] == [f"{who}: IKE_AUTH request 1"]


def test_reauthentication_takes_all_child_sas_along() -> None:
    world = World(**{**two_rules(), "alice": {**two_rules()["alice"], "peer": peer_of("alice", reauth_s=1000.0)}})
    world.connect()
    world.alice.engine.initiate(MORE_ID, world.now)
    world.run(5)
    kernel = set(world.alice.kernel)
    run_and_watch(world, 1030)
    world.agree(2)
    assert {sa.rule_id for sa in world.alice.sas(Direction.OUT)} == {RULE_ID, MORE_ID}
    assert len(world.alice.ike_spis) == 1
    assert not kernel & set(world.alice.kernel)


def test_both_reauthenticate_at_once() -> None:
    world = connected(alice={"peer": peer_of("alice", reauth_s=1000.0)}, bob={"peer": peer_of("bob", reauth_s=1000.0)})
    for side in (world.alice, world.bob):
        (sa,) = side.engine._context.ike_sas.values()
        sa.reauth_at = world.now + 500
        side.engine._context.schedule(sa, sa.reauth_at)
    run_and_watch(world, 600)
    world.agree(1)
    assert len(world.alice.ike_spis) == len(world.bob.ike_spis) == 1


def test_a_rekey_of_the_ike_sa_does_not_put_reauthentication_off() -> None:
    world = connected(**peers("alice", reauth_s=1000.0, rekey_s=300.0))
    world.run(1020)
    assert sum("IKE_AUTH request" in line for line in world.wire) == 1
    world.agree(1)


def test_a_peer_that_can_not_authenticate_any_more_is_cut_off() -> None:
    world = connected(**peers("alice", reauth_s=1000.0))
    world.bob.psk = b"another"
    world.run(850)
    world.agree(1)
    world.run(1000 * OVERTIME - 850 + 60)
    world.agree(0)
    assert not world.alice.store


def test_reauthentication_of_an_ike_sa_without_child_sas_is_its_end() -> None:
    world = connected(**peers("alice", reauth_s=1000.0))
    world.alice.engine.delete_child(world.alice.sas(Direction.IN)[0].spi, world.now)
    world.run(1010)
    assert not world.alice.store
    assert not world.bob.store


# ------------------------------------------------------------------ a dead peer, a peer that closes


def dead(action: EndAction) -> World:
    """Bob is silent, and Alice has noticed."""
    world = connected(**peers("alice", liveness_s=10.0, liveness_action=action))
    world.loss = 1.0
    world.run(10 + GIVE_UP_S + 0.1)
    return world


def test_after_a_dead_peer_the_next_packet_negotiates_anew() -> None:
    world = dead(EndAction.TRAP)
    world.loss = 0.0
    world.run(100)
    assert not world.alice.store
    world.alice.engine.initiate(RULE_ID, world.now, acquire=packet(world.alice))
    world.run(5)
    world.agree(1)


def test_a_dead_peer_is_called_until_it_answers() -> None:
    world = dead(EndAction.START)
    world.run(200)
    world.loss = 0.0
    world.run(LAST_RETRY_S)
    world.agree(1)
    assert len(world.bob.store) == 1


def test_after_a_dead_peer_nothing_happens_until_an_operator_says_so() -> None:
    world = dead(EndAction.CLEAR)
    world.loss = 0.0
    world.alice.engine.initiate(RULE_ID, world.now, acquire=packet(world.alice))
    world.run(100)
    assert not world.alice.store
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(5)
    world.agree(1)


def test_a_cleared_rule_is_open_again_when_the_peer_comes() -> None:
    world = dead(EndAction.CLEAR)
    world.loss = 0.0
    world.bob.store.clear()
    world.bob.kill_and_restore()
    world.bob.engine.initiate(RULE_ID, world.now, acquire=packet(world.bob))
    world.run(5)
    world.alice.engine.delete_child(world.alice.sas(Direction.IN)[0].spi, world.now)
    world.run(5)
    world.alice.engine.initiate(RULE_ID, world.now, acquire=packet(world.alice))
    world.run(5)
    world.agree(1)


@pytest.mark.parametrize("start", [StartAction.ON_DEMAND, StartAction.AT_START])
@pytest.mark.parametrize("action", [EndAction.TRAP, EndAction.CLEAR])
def test_a_new_worker_leaves_alone_what_its_predecessor_left_alone(action: EndAction, start: StartAction) -> None:
    world = connected(**rules("alice", close_action=action, start=start))
    world.bob.engine.delete_ike_sa(world.bob.ike_spis[0], world.now)
    world.run(5)
    world.alice.kill_and_restore()
    world.run(10)
    world.agree(0)
    world.alice.engine.initiate(RULE_ID, world.now, acquire=packet(world.alice))
    world.run(5)
    world.agree(0 if action is EndAction.CLEAR else 1)


def test_a_new_worker_leaves_down_what_an_operator_has_ended() -> None:
    world = connected(**rules("alice", start=StartAction.AT_START))
    world.alice.engine.end_rule(RULE_ID, world.now)
    world.run(5)
    world.alice.kill_and_restore()
    world.run(10)
    world.agree(0)
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(5)
    world.agree(1)
    world.alice.store.clear()  # the supervisor has dropped it
    world.alice.kill_and_restore()
    world.run(5)
    assert len(world.alice.sas(Direction.OUT)) == 1, "it was up, so it is brought up again"


def test_a_new_worker_goes_on_trying() -> None:
    world = dead(EndAction.START)
    world.alice.kill_and_restore()
    world.loss = 0.0
    world.run(LAST_RETRY_S)
    world.agree(1)


@pytest.mark.parametrize("what", ["child", "ike"])
@pytest.mark.parametrize(("action", "children"), [(EndAction.TRAP, 0), (EndAction.START, 1), (EndAction.CLEAR, 0)])
def test_what_follows_when_the_peer_closes(action: EndAction, children: int, what: str) -> None:
    world = connected(**rules("alice", close_action=action))
    if what == "child":
        world.bob.engine.delete_child(world.bob.sas(Direction.IN)[0].spi, world.now)
    else:
        world.bob.engine.delete_ike_sa(world.bob.ike_spis[0], world.now)
    world.run(10)
    world.agree(children)
    world.alice.engine.initiate(RULE_ID, world.now, acquire=packet(world.alice))
    world.run(5)
    world.agree(0 if action is EndAction.CLEAR else 1)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_rekey_and_an_end_of_our_own_are_no_reason_for_an_end_action(who: str) -> None:
    world = connected(**rules(who, close_action=EndAction.CLEAR), **rules("bob" if who == "alice" else "alice"))
    side: Side = getattr(world, who)
    world.alice.engine.rekey_child(world.alice.sas(Direction.IN)[0].spi, world.now)
    world.run(5)
    world.alice.engine.rekey_ike_sa(world.alice.ike_spis[0], world.now)
    world.run(5)
    side.engine.delete_child(side.sas(Direction.IN)[0].spi, world.now)
    world.run(5)
    side.engine.initiate(RULE_ID, world.now, acquire=packet(side))
    world.run(5)
    world.agree(1)


def test_what_was_asked_of_an_ike_sa_that_the_peer_deletes_is_asked_again() -> None:
    world = World(**two_rules())
    world.connect()
    world.filter = lambda _sender, datagram: [] if describe(datagram).startswith("CREATE_CHILD_SA") else [datagram]
    world.alice.engine.initiate(MORE_ID, world.now)
    world.run(0.2)
    world.filter = None
    world.bob.engine.delete_ike_sa(world.bob.ike_spis[0], world.now)
    world.run(5)
    world.agree(1)
    assert {sa.rule_id for sa in world.alice.kernel.values()} == {MORE_ID}


# ------------------------------------------------------------------ rules that are to be up


def test_a_rule_that_is_to_be_up_is_tried_ever_more_rarely() -> None:
    world = World()
    world.loss = 1.0
    world.alice.engine.initiate(RULE_ID, world.now, keep_up=True)
    world.run(3000)
    failures = world.alice.of(e.NegotiationFailed)
    assert 8 <= len(failures) <= 14
    assert world.alice.engine.get_timer() is not None
    world.loss = 0.0
    world.run(LAST_RETRY_S + GIVE_UP_S)
    world.agree(1)
    assert not world.alice.engine._context.upkeep._tries


def test_a_rule_that_is_asked_for_once_is_tried_once() -> None:
    world = World()
    world.loss = 1.0
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(1000)
    assert len(world.alice.of(e.NegotiationFailed)) == 1
    assert world.alice.engine.get_timer() is None


def test_a_rule_that_leaves_the_policy_is_not_tried_any_more() -> None:
    world = World()
    world.loss = 1.0
    world.alice.engine.initiate(RULE_ID, world.now, keep_up=True)
    world.run(GIVE_UP_S + FIRST_RETRY_S / 2)
    world.alice.engine.set_policy(world.alice.peers, (), world.now)
    assert world.alice.engine.get_timer() is None


# ------------------------------------------------------------------ idle


def test_an_idle_child_sa_is_deleted() -> None:
    world = connected(**rules("alice", idle_s=300.0))
    world.run(299)
    world.agree(1)
    world.run(3)
    world.agree(0)
    assert world.alice.of(e.ChildSaClosed)


def test_a_child_sa_with_traffic_of_either_direction_is_not_idle() -> None:
    world = connected(**rules("alice", idle_s=300.0))
    (inbound,) = world.alice.sas(Direction.IN)
    world.alice.last_used[SaName(spi=inbound.spi, destination=inbound.destination)] = world.now + 200
    world.run(400)
    world.agree(1)
    world.run(150)
    world.agree(0)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_idle_time_goes_on_through_rekeys_of_both_kinds(who: str) -> None:
    world = connected(**rules("alice", idle_s=300.0))
    side: Side = getattr(world, who)
    for _ in range(2):
        world.run(100)
        side.engine.rekey_child(side.sas(Direction.IN)[0].spi, world.now)
        world.run(5)
        side.engine.rekey_ike_sa(side.ike_spis[0], world.now)
        world.run(5)
    world.agree(1)
    world.alice.kill_and_restore()
    world.run(70)
    world.agree(1)
    world.run(30)
    world.agree(0)


def test_traffic_before_a_rekey_counts_after_it() -> None:
    world = connected(**rules("alice", idle_s=300.0))
    (inbound,) = world.alice.sas(Direction.IN)
    world.alice.last_used[SaName(spi=inbound.spi, destination=inbound.destination)] = world.now + 200
    world.run(250)
    world.alice.engine.rekey_child(inbound.spi, world.now)
    world.run(240)
    world.agree(1)
    world.run(20)
    world.agree(0)


def test_idle_time_goes_on_where_the_ike_sa_is_made_anew() -> None:
    world = connected(alice={"peer": peer_of("alice", reauth_s=100.0), **rules("alice", idle_s=300.0)["alice"]})
    world.run(290)
    assert len(world.alice.of(e.IkeSaEstablished)) >= 2
    world.agree(1)
    world.run(80)
    world.agree(0)


def test_an_agent_that_does_not_answer_cuts_nothing() -> None:
    world = connected(**rules("alice", idle_s=300.0))
    world.alice.answers_usage = False
    world.run(1000)
    world.agree(1)
    assert len(world.alice.of(e.QueryUsage)) > 3


def test_what_the_kernel_says_of_unknown_sas_is_ignored() -> None:
    world = connected(**rules("alice", idle_s=300.0))
    stray = Usage(sa=SaName(spi=0xDEAD, destination=world.alice.peers[0].address), packets=0, bytes=0, idle_s=1e9)
    world.alice.engine.sas_used((stray,), world.now)
    world.run(5)
    world.agree(1)


# ------------------------------------------------------------------ a new policy


def test_a_changed_rule_loses_its_child_sa_and_its_sibling_keeps_its_own() -> None:
    world = World(**two_rules())
    world.connect()
    world.alice.engine.initiate(MORE_ID, world.now)
    world.run(5)
    kept = {name for name, sa in world.alice.kernel.items() if sa.rule_id == MORE_ID}
    more = world.alice.rules[1]
    changed = rule_of("alice", rule_id=99, rekey_s=77.0)
    world.alice.engine.set_policy(world.alice.peers, (changed, more), world.now)
    world.run(10)
    world.agree(1)
    assert set(world.alice.kernel) == kept
    world.alice.engine.initiate(99, world.now)
    world.run(5)
    assert kept < set(world.alice.kernel)


def test_a_changed_peer_is_negotiated_with_anew_while_its_delete_is_under_way() -> None:
    world = connected()
    changed = peer_of("alice", liveness_s=5.0)
    world.alice.engine.set_policy((changed,), world.alice.rules, world.now)
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(10)
    world.agree(1)
    assert len(world.alice.ike_spis) == len(world.bob.ike_spis) == 1
    assert not world.alice.of(e.NegotiationFailed)


def test_a_rule_that_is_gone_while_its_child_sa_is_rekeyed() -> None:
    world = connected()
    world.alice.engine.rekey_child(world.alice.sas(Direction.IN)[0].spi, world.now)
    world.alice.settle()
    world.alice.engine.set_policy(world.alice.peers, (), world.now)
    world.run(20)
    world.agree(0)


def test_the_policy_may_be_said_again_at_any_time() -> None:
    world = connected()
    same = replace(world.alice.peers[0])
    for _ in range(3):
        world.alice.engine.rekey_child(world.alice.sas(Direction.IN)[0].spi, world.now)
        world.run(0.005)
        world.alice.engine.set_policy((same,), world.alice.rules, world.now)
        run_and_watch(world, 10)
    world.agree(1)


@pytest.mark.parametrize("first", ["alice", "bob"])
def test_another_pre_shared_key_makes_the_ike_sa_anew_as_soon_as_both_have_it(first: str) -> None:
    world = connected()
    before = world.alice.ike_spis
    one, other = (world.alice, world.bob) if first == "alice" else (world.bob, world.alice)
    one.psk = b"another pre-shared key"
    one.engine.set_policy(one.peers, one.rules, world.now)
    one.engine.authenticate_anew((one.peers[0].name,), world.now)
    run_and_watch(world, 70)
    assert world.alice.ike_spis == before, "what stands goes on while the other side does not have it"
    other.psk = one.psk
    other.engine.authenticate_anew((other.peers[0].name,), world.now)
    run_and_watch(world, 70)
    assert world.alice.ike_spis != before and len(world.alice.store) == len(world.bob.store) == 1
    world.agree(1)


def test_a_peer_that_can_t_be_called_is_not_made_anew() -> None:
    world = World(bob={"peer": peer_of("bob", address=None)})
    world.connect()
    before = world.alice.ike_spis
    world.bob.engine.authenticate_anew(("alice",), world.now)
    world.run(100)
    assert world.alice.ike_spis == before
