"""Which failures are kept, and for how long."""

from dataclasses import replace

from ike_worker.ikev2.features.failures import MAX_OF_PEERS, PER_NAME, Failures
from ike_worker.ikev2.memory import MAX_FAILURES_BYTES
from ipc import codec
from ipc.wishes import Failure
from tests.ike_worker.ikev2.two_sides import RULE_ID, World, peer_of


def failure(peer: str = "bob", *, at: float = 1.0, sentence: str = "no", remote: str = "192.0.2.7:500") -> Failure:
    return Failure(
        peer=peer, rule="", remote=remote, at=at, exchange="", notify="", by_peer=False, sentence=sentence, first_at=at
    )


def test_the_last_few_of_each_peer_are_kept_the_newest_first() -> None:
    known = Failures()
    for number in range(PER_NAME + 3):
        known.add(failure(at=number, sentence=str(number)))
    assert [one.sentence for one in known.of("bob")] == [str(number) for number in range(PER_NAME + 2, 2, -1)]
    assert known.of("alice") == ()


def test_what_comes_again_is_counted_also_from_another_port() -> None:
    known = Failures()
    for port in (500, 500, 4711):
        known.add(failure(at=port, sentence=f"192.0.2.7:{port} does not answer", remote=f"192.0.2.7:{port}"))
    (last,) = known.of("bob")
    assert (last.times, last.first_at, last.at, last.remote) == (3, 500, 4711, "192.0.2.7:4711")
    known.add(failure(at=5000, sentence="192.0.2.8:500 does not answer", remote="192.0.2.8:500"))
    assert len(known.of("bob")) == 2


def test_all_together_are_bounded_and_who_failed_long_ago_is_forgotten_first() -> None:
    known = Failures()
    for number in range(MAX_OF_PEERS + 10):
        known.add(failure(f"peer{number}", at=number))
    known.add(failure("peer10", at=1e6, sentence="again"))
    assert len(list(known)) == MAX_OF_PEERS
    assert [one.sentence for one in known.of("peer10")] == ["again", "no"]
    assert known.of("peer9") == known.of("peer11") == ()


def test_strangers_drive_no_peer_out() -> None:
    known = Failures()
    known.add(failure())
    for number in range(1000):
        known.add(failure("", at=number, remote=f"10.0.{number // 250}.{number % 250}:500"))
    assert known.of("bob")


def test_they_outlive_the_worker() -> None:
    world = World(alice={"peer": peer_of("alice", address=peer_of("bob").address)})
    world.loss = 1.0
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(1000.0)
    before = world.alice.engine.view(world.now).failures("bob")
    assert before
    world.alice.kill_and_restore()
    assert world.alice.engine.view(world.now).failures("bob") == before
    world.alice.engine.set_policy((), (), world.now)
    assert list(world.alice.engine._context.reasons.failures) == []


def test_what_is_to_outlive_the_worker_is_bounded_in_bytes() -> None:
    world = World()
    known = world.alice.engine._context.reasons.failures
    for number in range(200):
        long = replace(failure(f"peer{number}", at=number), ours=("\N{GRINNING FACE}" * 1000,) * 10)
        known.add(long)
    memory = world.alice.engine.memory()
    assert 0 < len(codec.encode_value(memory)) <= MAX_FAILURES_BYTES + 1000
    assert memory.failures[0].peer == "peer199"
