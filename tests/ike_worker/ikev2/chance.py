"""Two sides that do whatever operators, kernels, timers and loaders may ask for, over a network of any quality.

Run thousands of seeds with `python -m tests.ike_worker.ikev2.chance 5000`, one of them with `... 1 --first 4711`.
"""

import argparse
import sys
from dataclasses import replace
from typing import Any

from ike_worker.ikev2.context import Context
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.wish import WishKind
from ipc.messages import Acquire, NegotiationRule
from ipc.types import Direction
from tests.ike_worker.ikev2.two_sides import MORE_ID, RULE_ID, Side, World, peer_of, two_rules
from tests.ike_worker.ikev2.workers import Engines

DEEDS = 12
QUIET_S = 260.0
"""After this long everything that was under way is done or given up."""


def act(world: World) -> None:
    """Something that may be asked for at any time."""
    side: Side = world.chance.choice((world.alice, world.bob))
    inbound = side.sas(Direction.IN)
    engine, now = side.engine, world.now
    choice = world.chance.randrange(20)
    if choice < 6 and inbound:
        engine.rekey_child(world.chance.choice(inbound).spi, now)
    elif choice < 10 and side.ike_spis:
        engine.rekey_ike_sa(world.chance.choice(side.ike_spis), now)
    elif choice < 12 and inbound:
        engine.delete_child(world.chance.choice(inbound).spi, now)
    elif choice == 12 and side.ike_spis:
        engine.delete_ike_sa(world.chance.choice(side.ike_spis), now)
    elif choice == 13:
        side.kill_and_restore()
    elif choice == 14:
        reload(world, side)
    elif choice == 15 and inbound:
        engine.child_expired(world.chance.choice(inbound).spi, world.chance.random() < 0.3, now)
    elif choice == 16:
        reauthenticate(world, side)
    else:
        initiate(world, side)


def initiate(world: World, side: Side) -> None:
    """A packet, or an operator, wants a Child SA."""
    rule = world.chance.choice(side.rules)
    acquire = Acquire(
        acquire_id=1,
        rule_id=rule.rule_id,
        packet_local=replace(rule.local[0], end_address=rule.local[0].start_address),
        packet_remote=replace(rule.remote[0], end_address=rule.remote[0].start_address),
    )
    side.engine.initiate(rule.rule_id, world.now, acquire=acquire if world.chance.random() < 0.5 else None)


def reload(world: World, side: Side) -> None:
    """A new policy: the same, or with a rule that has changed, so that it has another number."""
    rules = list(side.rules)
    if world.chance.random() < 0.5:
        place = world.chance.randrange(len(rules))
        rules[place] = changed(rules[place])
    side.rules = tuple(rules)
    side.engine.set_policy(side.peers, side.rules, world.now)


def changed(rule: NegotiationRule) -> NegotiationRule:
    return replace(rule, rule_id=rule.rule_id + 10, rekey_s=rule.rekey_s + 1)


def reauthenticate(world: World, side: Side) -> None:
    """The time of an IKE SA to be made anew has come."""
    standing = [
        (context, sa)
        for context in contexts_of(side)
        for sa in context.ike_sas.values()
        if sa.state is State.ESTABLISHED
    ]
    if standing:
        context, sa = world.chance.choice(standing)
        sa.reauth_at = world.now
        context.schedule(sa, world.now)


def contexts_of(side: Side) -> list[Context]:
    """The inside of the engine, or of each worker's."""
    engine: object = side.engine
    return [one._context for one in (engine.all if isinstance(engine, Engines) else [side.engine])]


def world_of(seed: int, workers: int = 1) -> World:
    rules: dict[str, Any] = two_rules(rekey_s=900.0)
    for me in ("alice", "bob"):
        rules[me] |= {"peer": peer_of(me, liveness_s=20.0), "workers": workers}
    return World(seed, **rules)


def play(seed: int, workers: int = 1) -> World:
    """A storm, then quiet; both must agree, and nothing may be left over."""
    world = world_of(seed, workers)
    world.loss, world.duplication, world.corruption, world.spread_s = 0.15, 0.1, 0.01, 0.5
    for _ in range(DEEDS):
        act(world)
        world.run(world.chance.uniform(0.0, 4.0))
    world.loss = world.duplication = world.corruption = world.spread_s = 0.0
    world.run(QUIET_S)
    for rule in world.alice.rules:
        world.alice.engine.initiate(rule.rule_id, world.now)
    world.run(20)
    check(world)
    return world


def play_without_a_gap(seed: int, workers: int = 1) -> World:
    """Nothing is deleted, everything is replaced, by both sides, in bad weather: no packet is lost by that, ever."""
    world = world_of(seed, workers)
    world.connect()
    world.flows = True
    world.loss, world.duplication, world.spread_s = 0.1, 0.1, 0.3
    for _ in range(DEEDS):
        side: Side = world.chance.choice((world.alice, world.bob))
        deed = world.chance.randrange(5)
        if deed < 2:
            side.engine.rekey_child(world.chance.choice(side.sas(Direction.IN)).spi, world.now)
        elif deed == 2:
            side.engine.rekey_ike_sa(world.chance.choice(side.ike_spis), world.now)
        elif deed == 3:
            reauthenticate(world, side)
        run_and_watch(world, world.chance.uniform(0.0, 3.0))
    world.loss = world.duplication = world.spread_s = 0.0
    run_and_watch(world, QUIET_S)
    world.agree(1)
    assert len(world.alice.store) == len(world.bob.store) == 1
    return world


def run_and_watch(world: World, seconds: float) -> None:
    """Both have something to send on all the time, and whatever they send the other can receive."""
    limit = world.now + seconds
    while world.step(limit):
        for one, other in ((world.alice, world.bob), (world.bob, world.alice)):
            outbound = {sa.spi for sa in one.sas(Direction.OUT)}
            assert outbound, f"{one.me} has nothing to send on"
            assert outbound <= {sa.spi for sa in other.sas(Direction.IN)}, (
                f"{other.me} can't receive what {one.me} sends"
            )
    world.now = limit


def check(world: World) -> None:
    """Both have one IKE SA, and one Child SA of each rule, and are at rest.

    Of several workers each may have an IKE SA, if it is good for something.
    """
    world.agree(2)
    assert len(world.alice.store) == len(world.bob.store) <= world.alice.workers, "IKE SAs are doubled"
    for side in (world.alice, world.bob):
        standing = [(context, sa) for context in contexts_of(side) for sa in context.ike_sas.values()]
        assert len(standing) == len(side.store)
        assert all(sa.children for _, sa in standing)
        kinds = sorted(child.rule_id % 10 for _, sa in standing for child in sa.children.values())
        assert kinds == sorted((RULE_ID, MORE_ID)), "Child SAs are doubled"
        for context, sa in standing:
            _check_rest(context, sa)


def _check_rest(context: Context, sa: IkeSa) -> None:
    assert sa.state is State.ESTABLISHED
    assert all(child.state is ChildState.INSTALLED for child in sa.children.values())
    assert all(wish.kind is WishKind.LIVENESS for wish in sa.all_wishes)
    assert sa.handover is None
    assert not sa.window.serving
    assert not context._jobs
    assert len(context.half_open) == 0
    assert context.child_owners == dict.fromkeys(sa.children, sa)
    assert sum(len(with_peer) for with_peer in context._by_peer.values()) == 1


def main() -> int:
    """Plays many seeds; says which ones fail."""
    parser = argparse.ArgumentParser(prog="python -m tests.ike_worker.ikev2.chance")
    parser.add_argument("seeds", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--gaps", action="store_true", help="look for gaps in the traffic")
    parser.add_argument("--workers", type=int, default=1, help="of each side (1)")
    options = parser.parse_args()
    failed = 0
    for seed in range(options.first, options.first + options.seeds):
        try:
            (play_without_a_gap if options.gaps else play)(seed, options.workers)
        except Exception as error:  # noqa: BLE001
            failed += 1
            sys.stdout.write(f"seed {seed}: {type(error).__name__}: {error}\n")
    sys.stdout.write(f"{options.seeds} seeds, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
