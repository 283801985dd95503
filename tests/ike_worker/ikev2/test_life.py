"""Deletes, liveness, retransmission, duplicates, NATs, policy changes. RFC 7296 sections 1.4, 2.1, 2.4, 2.21, 2.23."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from ike_worker.ikev2 import events as e
from ike_worker.ikev2.datagram import Datagram, Endpoint
from ike_worker.ikev2.features.nat_traversal import KEEPALIVE_S
from ike_worker.ikev2.iana import ExchangeType, NotifyType
from ike_worker.ikev2.wire.message import encode_message, parse_header, parse_message
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.unknown import UnknownPayload
from ipc.types import Direction, UdpEncapsulation
from tests.ike_worker.ikev2.two_sides import (
    ALICE,
    BOB,
    RULE_ID,
    Side,
    World,
    behind_nat,
    describe,
    peer_of,
    rule_of,
)

ALICE_500 = Endpoint(address=ALICE, port=500)
BOB_500 = Endpoint(address=BOB, port=500)


def connected(**sides: Any) -> World:
    world = World(**sides)
    world.connect()
    return world


def closed(side: Side) -> list[str]:
    return [event.reason for event in side.log if isinstance(event, e.IkeSaClosed)]


# ------------------------------------------------------------------ deletes


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_child_sa_is_deleted_on_both_sides(who: str) -> None:
    world = connected()
    side = getattr(world, who)
    side.engine.delete_child(side.sas(Direction.IN)[0].spi, world.now)
    world.run()
    world.agree(0)
    assert len(world.alice.of(e.ChildSaClosed)) == len(world.bob.of(e.ChildSaClosed)) == 1
    assert len(world.alice.ike_spis) == 1
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.agree(1)


def test_deletes_of_the_same_child_sa_cross() -> None:
    world = connected()
    for side in (world.alice, world.bob):
        side.engine.delete_child(side.sas(Direction.IN)[0].spi, world.now)
    world.run(3)
    world.agree(0)
    assert len(world.wire) == 4
    assert len(world.alice.of(e.ChildSaClosed)) == len(world.bob.of(e.ChildSaClosed)) == 1


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_an_ike_sa_is_deleted_on_both_sides(who: str) -> None:
    world = connected()
    side = getattr(world, who)
    side.engine.delete_ike_sa(side.ike_spis[0], world.now)
    world.run()
    world.agree(0)
    assert not world.alice.store
    assert not world.bob.store
    assert closed(side) == ["deleted by us"]


def test_everything_is_closed_and_said_so_once() -> None:
    world = connected()
    world.alice.engine.close_all(world.now)
    world.bob.engine.close_all(world.now)
    world.run(3)
    for side in (world.alice, world.bob):
        assert len(side.of(e.AllClosed)) == 1
        assert not side.kernel
    world.alice.engine.initiate(RULE_ID, world.now)


def test_closing_with_nothing_open_is_done_at_once() -> None:
    world = World()
    world.alice.engine.close_all(world.now)
    world.run()
    assert len(world.alice.of(e.AllClosed)) == 1


def test_closing_a_dead_peer_gives_up() -> None:
    world = connected()
    world.loss = 1.0
    world.alice.engine.close_all(world.now)
    world.run(59)
    assert not world.alice.of(e.AllClosed)
    world.run(2)
    assert len(world.alice.of(e.AllClosed)) == 1
    assert not world.alice.kernel


def test_a_lost_answer_to_the_last_delete_is_sent_again() -> None:
    world = connected()
    lost: list[str] = []

    def lose_first_answer(sender: Side, datagram: Datagram) -> list[Datagram]:
        if sender is world.bob and not lost:
            lost.append(describe(datagram))
            return []
        return [datagram]

    world.filter = lose_first_answer
    world.alice.engine.delete_ike_sa(world.alice.ike_spis[0], world.now)
    world.run(2)
    assert lost == ["INFORMATIONAL response 2"]
    assert closed(world.alice) == ["deleted by us"]


# ------------------------------------------------------------------ retransmission


def test_a_request_is_sent_again_with_growing_intervals_and_answered_once() -> None:
    world = connected()
    times: list[float] = []

    def lose_answers(sender: Side, datagram: Datagram) -> list[Datagram]:
        if sender is world.bob:
            return [datagram] if len(times) > 3 else []
        times.append(world.now)
        return [datagram]

    world.filter = lose_answers
    start = world.now
    spi = world.alice.sas(Direction.IN)[0].spi
    world.alice.engine.delete_child(spi, world.now)
    world.run(20)
    assert [round(t - start, 2) for t in times] == [0.0, 1.0, 2.8, 6.04]
    assert len(world.bob.of(e.ChildSaClosed)) == 1
    world.agree(0)


def test_each_datagram_twice_changes_nothing() -> None:
    world = World()
    world.duplication = 1.0
    world.connect()
    assert len(world.bob.of(e.IkeSaEstablished)) == 0
    world.alice.engine.rekey_child(world.alice.sas(Direction.IN)[0].spi, world.now)
    world.run(5)
    world.agree(1)
    assert len(world.bob.of(e.ChildSaEstablished)) == 1


def test_old_and_future_message_ids_are_dropped() -> None:
    world = World()
    seen: list[Datagram] = []
    world.filter = lambda sender, datagram: seen.append(datagram) or [datagram]  # type: ignore[func-returns-value]
    world.connect()
    world.run()
    requests = [one for one in seen if one.remote.address == BOB]
    before = world.bob.engine.snapshot(world.bob.ike_spis[0])
    auth = requests[1]
    world.alice.engine.delete_child(world.alice.sas(Direction.IN)[0].spi, world.now)
    world.run()
    world.wire.clear()
    world.bob.engine.receive_datagram(auth.data, local=BOB_500, remote=ALICE_500, now=world.now)
    world.run()
    assert world.wire == []
    assert before.expected_id == 2
    assert world.bob.engine.snapshot(world.bob.ike_spis[0]).expected_id == 3


def test_a_damaged_message_is_dropped_without_an_answer() -> None:
    world = connected()
    world.corruption = 1.0
    world.alice.engine.delete_child(world.alice.sas(Direction.IN)[0].spi, world.now)
    world.run(20)
    assert not world.bob.of(e.ChildSaClosed)
    world.corruption = 0.0
    world.run(20)
    world.agree(0)


def test_noise_raises_nothing_and_leaves_nothing() -> None:
    world = connected()
    spi = world.bob.ike_spis[0]
    before = world.bob.engine.snapshot(spi)
    for size in (0, 1, 27, 28, 29, 60, 1200):
        for _ in range(50):
            data = world.chance.randbytes(size)
            for shaped in (data, data[:17] + b"\x20" + data[18:], before.peer_spi + spi + data[16:]):
                world.bob.engine.receive_datagram(shaped, local=BOB_500, remote=ALICE_500, now=world.now)
    assert world.bob.engine.snapshot(spi) == before


# ------------------------------------------------------------------ liveness


def test_a_silent_peer_is_asked_and_answers() -> None:
    world = connected(alice={"peer": peer_of("alice", liveness_s=30.0)})
    world.run(31)
    assert world.wire == ["alice: INFORMATIONAL request 2", "bob: INFORMATIONAL response 2"]
    world.agree(1)


def test_a_dead_peer_is_given_up_with_all_its_sas() -> None:
    world = connected(alice={"peer": peer_of("alice", liveness_s=30.0)})
    world.loss = 1.0
    world.run(30 + 61)
    assert closed(world.alice) == [f"the peer at {BOB}:500 does not answer"]
    assert not world.alice.kernel
    assert not world.alice.store
    assert world.alice.engine.get_timer() is None


def test_an_unprotected_invalid_spi_is_only_a_reason_to_ask() -> None:
    world = connected()
    world.run(10)
    state = world.alice.engine.snapshot(world.alice.ike_spis[0])
    forged = encode_message(
        spi_i=state.own_spi,
        spi_r=state.peer_spi,
        exchange_type=ExchangeType.INFORMATIONAL,
        initiator=False,
        response=True,
        message_id=2,
        payloads=[Notify(type=NotifyType.INVALID_IKE_SPI)],
    )
    for _ in range(5):
        world.alice.engine.receive_datagram(forged, local=ALICE_500, remote=BOB_500, now=world.now)
    world.run()
    assert world.wire == ["alice: INFORMATIONAL request 2", "bob: INFORMATIONAL response 2"]
    world.agree(1)


def test_a_message_for_no_ike_sa_is_answered_so_often_and_no_more() -> None:
    world = connected()
    world.alice.engine.delete_child(world.alice.sas(Direction.IN)[0].spi, world.now)
    world.alice.settle()
    data = world.to_do.pop()[3].data
    stray = data[:8] + b"\x00" * 7 + b"\x01" + data[16:]
    for _ in range(30):
        world.bob.engine.receive_datagram(stray, local=BOB_500, remote=ALICE_500, now=world.now)
    answers = world.bob.engine.datagrams_to_send()
    assert len(answers) == 10
    (notify,) = parse_message(answers[0].data).payloads
    assert isinstance(notify, Notify)
    assert notify.type == NotifyType.INVALID_IKE_SPI


def test_another_major_version_is_answered_with_ours() -> None:
    world = World()
    world.alice.engine.initiate(RULE_ID, world.now)
    (datagram,) = world.alice.engine.datagrams_to_send()
    future = datagram.data[:17] + b"\x30" + datagram.data[18:]
    world.bob.engine.receive_datagram(future, local=BOB_500, remote=ALICE_500, now=world.now)
    (answer,) = world.bob.engine.datagrams_to_send()
    (notify,) = parse_message(answer.data).payloads
    assert isinstance(notify, Notify)
    assert notify.type == NotifyType.INVALID_MAJOR_VERSION


# ------------------------------------------------------------------ strange but authentic requests


def request_from(side: Side, exchange_type: int, payloads: list[object]) -> list[int]:
    """Sends an authentic request of any content and gives the notify types of the answer."""
    (sa,) = side.engine._context.ike_sas.values()
    (data,) = sa.seal(
        payloads,  # type: ignore[arg-type]
        exchange_type=exchange_type,
        response=False,
        message_id=sa.window.next_id,
        random_bytes=bytes,
    )
    sa.window.next_id += 1
    other = side.world.bob if side is side.world.alice else side.world.alice
    other.engine.receive_datagram(data, local=sa.path.remote, remote=sa.path.local, now=side.world.now)
    while other.answer_events and (event := other.engine.next_event()) is not None:
        other._handle(event)
    (answer,) = other.engine.datagrams_to_send()
    payloads_back = sa.open(answer.data, parse_message(answer.data))
    return [payload.type for payload in payloads_back if isinstance(payload, Notify)]


def test_unknown_notifies_and_payloads_are_ignored() -> None:
    world = connected()
    odd = [Notify(type=40_000), Notify(type=9000), UnknownPayload(type=200, data=b"?")]
    assert request_from(world.alice, ExchangeType.INFORMATIONAL, list(odd)) == []
    world.agree(1)


def test_a_critical_unknown_payload_is_refused() -> None:
    world = connected()
    odd = [UnknownPayload(type=200, critical=True, data=b"?")]
    answer = request_from(world.alice, ExchangeType.INFORMATIONAL, list(odd))
    assert answer == [NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD]
    world.agree(1)


def test_a_request_without_its_payloads_has_invalid_syntax() -> None:
    world = connected()
    assert request_from(world.alice, ExchangeType.CREATE_CHILD_SA, []) == [NotifyType.INVALID_SYNTAX]
    assert not world.bob.engine._context.ike_sas, "RFC 7296 section 2.21.3: that is fatal"


# ------------------------------------------------------------------ NAT


def outer(side: Side) -> set[UdpEncapsulation | None]:
    return {sa.encapsulation for sa in side.sas(Direction.OUT)}


def test_behind_a_nat_everything_goes_over_port_4500() -> None:
    public = ip_address("203.0.113.77")
    world = World(bob={"peer": peer_of("bob", address=public)})
    world.nat = behind_nat(public)
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    assert outer(world.alice) == {UdpEncapsulation(source_port=4500, destination_port=4500)}
    assert outer(world.bob) == {UdpEncapsulation(source_port=4500, destination_port=14500)}
    (sa,) = world.bob.sas(Direction.OUT)
    assert sa.destination == public
    world.wire.clear()
    world.run(3 * KEEPALIVE_S)
    assert world.wire == ["alice: keepalive"] * 3


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_either_side_may_force_encapsulation(who: str) -> None:
    world = World(**{who: {"peer": peer_of(who, force_encapsulation=True)}})
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.agree(1)
    assert outer(world.alice) == outer(world.bob) == {UdpEncapsulation(source_port=4500, destination_port=4500)}


def test_without_a_known_local_address_esp_goes_in_udp() -> None:
    world = World(alice={"peer": peer_of("alice", local_address=None)})

    def route(sender: Side, datagram: Datagram) -> list[Datagram]:
        if datagram.local.address.is_unspecified:
            return [replace(datagram, local=Endpoint(address=ALICE, port=datagram.local.port))]
        return [datagram]

    world.filter = route
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.agree(1)
    assert outer(world.alice) == outer(world.bob) == {UdpEncapsulation(source_port=4500, destination_port=4500)}
    assert {sa.source for sa in world.alice.sas(Direction.OUT)} == {ALICE}


def test_the_peer_is_followed_when_its_nat_changes_the_port() -> None:
    public = ip_address("203.0.113.77")
    world = World(bob={"peer": peer_of("bob", address=public)})
    world.nat = behind_nat(public)
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.nat = behind_nat(public, 20_000)
    world.alice.engine.rekey_child(world.alice.sas(Direction.IN)[0].spi, world.now)
    world.run(10)
    assert outer(world.bob) == {UdpEncapsulation(source_port=4500, destination_port=24500)}
    world.alice.check_kernel()
    world.bob.check_kernel()


def test_a_message_that_is_not_authentic_moves_nobody() -> None:
    world = connected()
    elsewhere = Endpoint(address=ip_address("203.0.113.66"), port=500)
    world.alice.engine.delete_child(world.alice.sas(Direction.IN)[0].spi, world.now)
    world.alice.settle()
    data = bytearray(world.to_do[-1][3].data)
    data[-1] ^= 1
    world.bob.engine.receive_datagram(bytes(data), local=BOB_500, remote=elsewhere, now=world.now)
    assert world.bob.engine.snapshot(world.bob.ike_spis[0]).remote == ALICE_500


def test_the_data_path_reports_a_peer_that_moved() -> None:
    world = connected()
    elsewhere = Endpoint(address=ip_address("203.0.113.66"), port=4500)
    world.bob.engine.peer_moved(world.bob.sas(Direction.IN)[0].spi, elsewhere, world.now)
    state = world.bob.engine.snapshot(world.bob.ike_spis[0])
    assert state.remote == elsewhere
    world.bob.engine.handle_timer(world.now)
    world.bob.settle()
    assert world.to_do[-1][3].remote == elsewhere, "the Child SAs are rekeyed to where the peer is now"


# ------------------------------------------------------------------ policy


def test_an_unchanged_policy_touches_nothing() -> None:
    world = connected()
    world.alice.engine.set_policy((peer_of("alice"),), (rule_of("alice"),), world.now)
    world.run(5)
    assert world.wire == []
    world.agree(1)


def test_a_rule_that_is_gone_has_its_child_sa_deleted() -> None:
    world = connected()
    world.alice.engine.set_policy((peer_of("alice"),), (), world.now)
    world.run(5)
    world.agree(0)
    assert len(world.alice.ike_spis) == 1


def test_a_peer_that_is_only_to_be_asked_more_often_keeps_its_sas_and_is() -> None:
    world = connected()
    world.alice.engine.set_policy((peer_of("alice", liveness_s=9.0),), (rule_of("alice"),), world.now)
    world.run(5)
    assert world.wire == []
    world.agree(1)
    assert world.alice.engine.snapshot(world.alice.ike_spis[0]).peer.liveness_s == 9.0
    world.run(10)
    assert world.wire != [], "a sign of life was asked for"
    world.agree(1)


@pytest.mark.parametrize("peers", [(), (peer_of("alice", force_encapsulation=True),)])
def test_a_peer_that_is_gone_or_changed_has_its_ike_sa_deleted(peers: tuple[object, ...]) -> None:
    world = connected()
    world.alice.engine.set_policy(peers, (rule_of("alice"),), world.now)  # type: ignore[arg-type]
    world.run(5)
    world.agree(0)
    assert not world.bob.store


def test_message_ids_of_both_directions_are_apart() -> None:
    world = connected()
    for side in (world.alice, world.bob):
        side.engine.rekey_child(side.sas(Direction.IN)[0].spi, world.now)
        world.run(5)
    ids = [parse_header(item).message_id for item in world.bob.requests_sent.values()]
    assert ids == [0, 1]


def test_the_address_that_routing_chooses_needs_no_udp() -> None:
    world = World(alice={"peer": peer_of("alice", local_address=None)})
    world.alice.routed_source = ALICE
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.agree(1)
    assert outer(world.alice) == outer(world.bob) == {None}
    assert {sa.source for sa in world.alice.sas(Direction.OUT)} == {ALICE}
