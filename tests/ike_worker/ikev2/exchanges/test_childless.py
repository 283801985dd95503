"""IKE SAs without a first Child SA. RFC 6023."""

from dataclasses import replace

import pytest

from ike_worker.ikev2 import events as e
from ike_worker.ikev2.datagram import Datagram
from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.exchanges import ike_auth
from ike_worker.ikev2.iana import NotifyType
from ike_worker.ikev2.wire.message import parse_header, parse_message
from ike_worker.ikev2.wire.notify import Notify
from ipc.algorithms import KeyExchangeId
from ipc.types import Direction
from tests.ike_worker.ikev2.two_sides import ESP, RULE_ID, Side, World, net, peer_of, rule_of, without_notify

HANDSHAKE = [
    "alice: IKE_SA_INIT request 0",
    "bob: IKE_SA_INIT response 0",
    "alice: IKE_AUTH request 1",
    "bob: IKE_AUTH response 1",
]
CHILD = ["alice: CREATE_CHILD_SA request 2", "bob: CREATE_CHILD_SA response 2"]


def childless_world(**sides: object) -> World:
    """Alice wants IKE SAs with Bob without a first Child SA."""
    alice = {"peer": peer_of("alice", childless=True), **sides.pop("alice", {})}  # type: ignore[dict-item]
    return World(alice=alice, **sides)


def call(world: World, seconds: float = 0.5) -> None:
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(seconds)


def reasons(side: Side) -> list[str]:
    return [event.reason for event in side.log if isinstance(event, e.NegotiationFailed)]


def test_the_child_sa_is_negotiated_after_a_childless_ike_auth() -> None:
    world = childless_world()
    sent: list[Datagram] = []

    def watch(_sender: Side, datagram: Datagram) -> list[Datagram]:
        sent.append(datagram)
        return [datagram]

    world.filter = watch
    call(world)
    assert world.wire == HANDSHAKE + CHILD
    world.agree(1)
    (sa,) = world.bob.engine._context.ike_sas.values()
    opened = sa.open(sent[2].data, parse_message(sent[2].data))
    assert {one.TYPE.name for one in opened} == {
        "IDENTIFICATION_INITIATOR",
        "IDENTIFICATION_RESPONDER",
        "AUTHENTICATION",
        "NOTIFY",
    }
    assert not reasons(world.alice) + reasons(world.bob)


def test_the_child_sa_of_a_childless_ike_sa_has_a_key_exchange_of_its_own() -> None:
    rules = {
        me: [rule_of(me, esp_proposals=(replace(ESP, key_exchange=(KeyExchangeId.ECP_256,)),))]
        for me in ("alice", "bob")
    }
    world = childless_world(alice={"rules": rules["alice"]}, bob={"rules": rules["bob"]})
    call(world)
    assert world.wire == HANDSHAKE + CHILD
    world.agree(1)


def test_a_responder_announces_it_and_an_initiator_that_does_not_care_sends_the_child_along() -> None:
    world = World()
    announced: list[bool] = []

    def watch(sender: Side, datagram: Datagram) -> list[Datagram]:
        if parse_header(datagram.data).message_id == 0:
            notifies = [one.type for one in parse_message(datagram.data).payloads if isinstance(one, Notify)]
            announced.append(NotifyType.CHILDLESS_IKEV2_SUPPORTED in notifies)
        return [datagram]

    world.filter = watch
    call(world)
    assert announced == [False, True]
    assert world.wire == HANDSHAKE
    world.agree(1)


def test_a_responder_that_takes_no_child_in_ike_auth_is_asked_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As strongSwan with childless = force; that we did not ask for it is no reason to have no Child SA."""

    def refuse(*_: object) -> None:
        raise MalformedMessage("no Child SA in IKE_AUTH")

    monkeypatch.setattr(ike_auth, "_first_child", refuse)
    world = World()
    call(world)
    assert world.wire == HANDSHAKE + CHILD
    assert reasons(world.alice) == []
    world.agree(1)


def test_with_a_responder_that_does_not_announce_it_the_child_goes_along() -> None:
    world = childless_world()

    def forget_it(sender: Side, datagram: Datagram) -> list[Datagram]:
        header = parse_header(datagram.data)
        if sender is world.alice or header.message_id:
            return [datagram]
        data = without_notify(datagram.data, NotifyType.CHILDLESS_IKEV2_SUPPORTED)
        (sa,) = world.bob.engine._context.ike_sas.values()
        sa.in_handshake.own_message = data  # so that it is what Bob signs
        return [replace(datagram, data=data)]

    world.filter = forget_it
    call(world)
    assert world.wire == HANDSHAKE
    world.agree(1)


def test_a_refused_child_leaves_the_ike_sa_standing_and_another_rule_goes_on() -> None:
    more = {"rule_id": 8, "name": "voice", "position": 1}
    strange = (net("172.16.0.0-172.16.0.255"),)
    world = childless_world(
        alice={"rules": [rule_of("alice", remote=strange), rule_of("alice", **more)]},
        bob={"rules": [rule_of("bob", **more)]},
    )
    call(world)
    assert len(reasons(world.alice)) == 1
    world.agree(0)
    assert len(world.alice.ike_spis) == len(world.bob.ike_spis) == 1
    world.alice.engine.initiate(8, world.now)
    world.run()
    world.agree(1)
    assert len(world.alice.ike_spis) == 1


def test_a_wrong_psk_ends_it_with_one_report_and_no_child() -> None:
    world = childless_world(bob={"psk": b"another"})
    call(world, 5.0)
    assert world.wire == HANDSHAKE
    assert len(reasons(world.alice)) == 1
    assert not world.alice.ike_spis
    assert world.alice.engine.get_timer() is None


@pytest.mark.parametrize("seed", range(10))
def test_over_a_bad_network_the_child_comes_all_the_same(seed: int) -> None:
    world = childless_world()
    world.chance.seed(seed)
    world.loss, world.duplication, world.spread_s = 0.2, 0.2, 0.1
    call(world, 60.0)
    world.loss = 0.0
    world.run(60.0)
    world.agree(1)


def test_a_killed_initiator_goes_on_with_the_child_that_it_wanted() -> None:
    world = childless_world()
    world.filter = lambda _sender, datagram: [datagram] if parse_header(datagram.data).message_id < 2 else []
    call(world)
    world.alice.kill_and_restore()
    world.filter = None
    world.run(10.0)
    world.agree(1)
    assert len(world.alice.sas(Direction.IN)) == 1
