"""Making Child SAs, and both sides at once: Child SAs and IKE SAs. RFC 7296 sections 1.3.1, 2.8 and 2.25."""

from dataclasses import replace

import pytest

from ike_worker.ikev2.events import NegotiationFailed
from ike_worker.ikev2.exchanges import create_child_sa
from ike_worker.ikev2.iana import ExchangeType, NotifyType
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.wire.key_exchange import KeyExchangePayload
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.traffic_selectors import TrafficSelectorsInitiator, TrafficSelectorsResponder
from ike_worker.ikev2.wire.unknown import UnknownPayload
from ipc.messages import Acquire
from ipc.types import StartAction, TrafficSelector
from tests.ike_worker.ikev2.scenario import Letter, Scenario, answer_to
from tests.ike_worker.ikev2.two_sides import ALICE_NET, BOB_NET, MORE_ID, RULE_ID, net, rule_of, two_rules


def selectors(letter: Letter) -> list[tuple[TrafficSelector, ...]]:
    """TSi and TSr."""
    return [
        one.selectors
        for one in letter.payloads
        if isinstance(one, TrafficSelectorsInitiator | TrafficSelectorsResponder)
    ]


def test_a_new_child_sa_step_by_step() -> None:
    s = Scenario(**two_rules(), flows=False)
    ask = s.alice.creates(MORE_ID)
    assert ask.says == "create child"
    (made,) = s.bob.takes(ask)
    assert s.bob.child(ask) is ChildState.INSTALLED
    s.alice.does(lambda: s.alice.side.engine.initiate(MORE_ID, s.world.now))
    assert s.alice.takes(made) == [], "it was asked for once"
    s.ends(children=2)


def test_both_ask_for_the_same_child_sa_at_once() -> None:
    s = Scenario(flows=False, child=False)
    ask_a, ask_b = s.alice.creates(), s.bob.creates()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    s.alice.takes(made_b)
    s.bob.takes(made_a)
    assert len(s.alice.sa.children) == len(s.bob.sa.children) == 2
    s.flows = True
    s.ends(children=1)


def test_both_ask_for_the_same_child_sa_and_one_request_is_late() -> None:
    s = Scenario(flows=False, child=False)
    ask_a, ask_b = s.alice.creates(), s.bob.creates()
    (made_b,) = s.bob.takes(ask_a)
    s.alice.takes(made_b)
    (made_a,) = s.alice.takes(ask_b)
    assert s.alice.child(ask_b) is ChildState.INBOUND, "there is one to send on until the peer has this one too"
    s.bob.takes(made_a)
    s.flows = True
    s.ends(children=1)


def test_both_ask_for_the_same_child_sa_and_rekey_what_came_of_it() -> None:
    s = Scenario(flows=False, child=False)
    ask_a, ask_b = s.alice.creates(), s.bob.creates()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    s.alice.takes(made_b)
    s.bob.takes(made_a)
    (made,) = s.bob.takes(s.alice.rekeys(ask_a.spi))
    s.alice.takes(made)
    s.ends(children=1)


def test_both_ask_for_different_child_sas_at_once() -> None:
    s = Scenario(**two_rules(), flows=False, child=False)
    ask_a, ask_b = s.alice.creates(), s.bob.creates(MORE_ID)
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    s.alice.takes(made_b)
    s.bob.takes(made_a)
    s.ends(children=2)


def test_two_that_one_side_asks_for_on_purpose_are_left_alone() -> None:
    """RFC 7296 section 2.8 allows parallel SAs with the same selectors."""
    s = Scenario()
    s.alice.first.rule_id = MORE_ID  # Alice does not know any more that it has one
    ask = s.alice.creates()
    (made,) = s.bob.takes(ask)
    s.alice.takes(made)
    s.bob.waits(60)
    assert [child.state for child in s.bob.sa.children.values()] == [ChildState.INSTALLED] * 2


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    "kind",
    [
        NotifyType.TS_UNACCEPTABLE,
        NotifyType.NO_ADDITIONAL_SAS,
        NotifyType.INVALID_SELECTORS,
        9999,
    ],
)
def test_a_refused_child_sa_is_not_asked_for_again(kind: int) -> None:
    s = Scenario(**two_rules())
    assert answer_to(s, s.alice.creates(MORE_ID), Notify(type=kind)) == []
    assert s.alice.waits(300) == []
    s.ends(children=1)


def test_a_refused_proposal_is_offered_once_more_with_a_key_exchange() -> None:
    s = Scenario(**two_rules())
    refusal = Notify(type=NotifyType.NO_PROPOSAL_CHOSEN)
    (again,) = answer_to(s, s.alice.creates(MORE_ID), refusal)
    assert any(isinstance(payload, KeyExchangePayload) for payload in again.payloads)
    assert answer_to(s, again, refusal) == []
    assert s.alice.waits(300) == []
    s.ends(children=1)


def test_a_child_sa_that_can_not_be_made_now_is_asked_for_again() -> None:
    s = Scenario(**two_rules())
    assert answer_to(s, s.alice.creates(MORE_ID), Notify(type=NotifyType.TEMPORARY_FAILURE)) == []
    (again,) = s.alice.waits(2)
    assert again.says == "create child"
    s.ends(children=2)


def test_a_malformed_request_ends_the_ike_sa_on_both_sides() -> None:
    """RFC 7296 section 2.21.3: INVALID_SYNTAX is fatal, without a delete."""
    s = Scenario(flows=False)
    ask = s.alice.rekeys()
    s.alice.sa.window.next_id -= 1
    (wrong,) = s.bob.takes(s.alice.asks(ExchangeType.CREATE_CHILD_SA, ask.payloads[1:2]))
    assert wrong.says == "INVALID_SYNTAX"
    assert s.alice.takes(wrong) == []
    s.ends(children=0, ike_sas=0)


def test_a_critical_payload_that_nobody_knows_is_refused_and_nothing_else_happens() -> None:
    """RFC 7296 section 2.5."""
    s = Scenario()
    ask = s.alice.asks(ExchangeType.INFORMATIONAL, [UnknownPayload(type=200, critical=True, data=b"?")])
    (wrong,) = s.bob.takes(ask)
    assert wrong.says == "UNSUPPORTED_CRITICAL_PAYLOAD"
    assert wrong.payloads == (Notify(type=NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, data=bytes((200,))),)
    s.ends()


@pytest.mark.parametrize("limit", ["MAX_CHILDREN", "MAX_SELECTORS"])
def test_more_child_sas_than_one_ike_sa_can_have(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s = Scenario(**two_rules())
    ask = s.alice.creates(MORE_ID)
    monkeypatch.setattr(create_child_sa, limit, 1)
    (refused,) = s.bob.takes(ask)
    assert refused.says == "NO_ADDITIONAL_SAS"
    s.alice.takes(refused)
    s.alice.wants("initiate", MORE_ID)
    first, second = s.alice.side.of(NegotiationFailed)
    assert "NO_ADDITIONAL_SAS" in str(first)
    assert "write fewer rules" in str(second)
    s.ends()


# ------------------------------------------------------------------ traffic selectors


def test_a_responder_that_wants_single_pairs_is_asked_for_the_packet_alone() -> None:
    s = Scenario(flows=False, child=False)
    packet = Acquire(acquire_id=5, rule_id=RULE_ID, packet_local=net("10.1.0.5"), packet_remote=net("10.2.0.9"))
    (ask,) = s.alice.does(lambda: s.alice.side.engine.initiate(RULE_ID, s.world.now, acquire=packet))
    (again,) = answer_to(s, ask, Notify(type=NotifyType.SINGLE_PAIR_REQUIRED))
    assert selectors(again) == [(packet.packet_local,), (packet.packet_remote,)]
    (made,) = s.bob.takes(again)
    s.alice.takes(made)
    assert s.alice.first.inbound.local == (packet.packet_local,)
    assert s.alice.first.inbound.acquire_id == 5
    (made,) = s.bob.takes(s.alice.rekeys())
    assert selectors(made) == [(packet.packet_local,), (packet.packet_remote,)]
    s.alice.takes(made)
    s.ends()


@pytest.mark.parametrize(
    ("rule", "first"),
    [
        (ALICE_NET, net("10.1.0.5", protocol=1)),
        (replace(ALICE_NET, protocol=1, start_port=0x800, end_port=0x8FF), net("10.1.0.5", protocol=1, port=0x800)),
    ],
)
def test_a_ping_asks_for_all_icmp_of_its_addresses_first(rule: TrafficSelector, first: TrafficSelector) -> None:
    """A peer that grants the first selectors alone, as libreswan with narrowing=yes does, lets the answer pass too."""
    packet = Acquire(
        acquire_id=5,
        rule_id=RULE_ID,
        packet_local=net("10.1.0.5", protocol=1, port=0x800),
        packet_remote=net("10.2.0.9", protocol=1, port=0x800),
    )
    s = Scenario(flows=False, child=False, alice={"rules": [rule_of("alice", local=(rule,))]})
    (ask,) = s.alice.does(lambda: s.alice.side.engine.initiate(RULE_ID, s.world.now, acquire=packet))
    assert selectors(ask) == [(first, rule), (net("10.2.0.9", protocol=1), BOB_NET)]


def test_a_responder_that_wants_single_pairs_where_no_packet_asks_gets_none() -> None:
    s = Scenario(flows=False, child=False)
    assert answer_to(s, s.alice.creates(), Notify(type=NotifyType.SINGLE_PAIR_REQUIRED)) == []
    s.ends(children=0)


def two_halves(start: StartAction) -> Scenario:
    """What is one rule of Alice are two of Bob."""
    first, second = net("10.1.0.0-10.1.127.255"), net("10.1.128.0-10.1.255.255")
    rules = [
        rule_of("bob", remote=(first,)),
        rule_of("bob", rule_id=MORE_ID, name="more", position=1, remote=(second,)),
    ]
    alice = rule_of("alice", local=(first, second), start=start)
    return Scenario(alice={"rules": [alice]}, bob={"rules": rules}, connected=False, flows=False)


def test_what_the_responder_grants_in_another_child_sa_is_asked_for_at_once_for_a_rule_that_is_to_be_up() -> None:
    s = two_halves(StartAction.AT_START)
    s.world.by_hand = False
    s.alice.side.engine.initiate(RULE_ID, s.world.now)
    s.world.run(5)
    s.world.agree(2)
    granted = {child.inbound.local for child in s.alice.sa.children.values()}
    assert granted == {(net("10.1.0.0-10.1.127.255"),), (net("10.1.128.0-10.1.255.255"),)}
    s.ends(children=2)


def test_what_the_responder_grants_in_another_child_sa_is_asked_for_by_its_first_packet() -> None:
    s = two_halves(StartAction.ON_DEMAND)
    s.world.by_hand = False
    for address in ("10.1.200.1", "10.1.3.1", "10.1.3.2", "10.1.200.2"):
        packet = Acquire(acquire_id=1, rule_id=RULE_ID, packet_local=net(address), packet_remote=net("10.2.0.9"))
        s.alice.side.engine.initiate(RULE_ID, s.world.now, acquire=packet)
        s.world.run(5)
    s.world.agree(2)
    s.ends(children=2)


def test_a_rekey_asks_for_the_selectors_that_there_are() -> None:
    """RFC 7296 section 2.9.2: never for less; and not for more, which a responder could narrow to something else."""
    s = two_halves(StartAction.ON_DEMAND)
    s.world.by_hand = False
    packet = Acquire(acquire_id=1, rule_id=RULE_ID, packet_local=net("10.1.200.1"), packet_remote=net("10.2.0.9"))
    s.alice.side.engine.initiate(RULE_ID, s.world.now, acquire=packet)
    s.world.run(5)
    s.world.by_hand, s.flows = True, True
    ask = s.alice.rekeys()
    assert selectors(ask) == [(net("10.1.128.0-10.1.255.255"),), (BOB_NET,)]
    s.ends()


# ------------------------------------------------------------------ two calls


def test_both_call_at_once_and_one_ike_sa_remains() -> None:
    s = Scenario(connected=False, flows=False)
    init_a, init_b = s.alice.creates(), s.bob.creates()
    (answer_b,) = s.bob.takes(init_a)
    (answer_a,) = s.alice.takes(init_b)
    (auth_a,) = s.alice.takes(answer_b)
    (auth_b,) = s.bob.takes(answer_a)
    (done_b,) = s.bob.takes(auth_a)
    (done_a,) = s.alice.takes(auth_b)
    s.alice.takes(done_b)
    s.bob.takes(done_a)
    for party in s.parties:
        assert [sa.state for sa in party.ike_sas] == [State.ESTABLISHED] * 2
    s.flows = True
    s.ends()


def test_both_call_and_the_slower_one_is_not_needed_any_more() -> None:
    s = Scenario(connected=False, flows=False)
    init_a, init_b = s.alice.creates(), s.bob.creates()
    (answer_b,) = s.bob.takes(init_a)
    (auth_a,) = s.alice.takes(answer_b)
    (done_b,) = s.bob.takes(auth_a)
    assert [sa.state for sa in s.bob.ike_sas] == [State.ESTABLISHED], "Bob drops his call"
    s.alice.takes(init_b)
    s.alice.takes(done_b)
    assert s.alice.sa.children
    s.alice.waits(31)
    s.ends()


def test_both_call_and_the_last_message_of_one_is_late() -> None:
    s = Scenario(connected=False, flows=False)
    init_a, init_b = s.alice.creates(), s.bob.creates()
    (answer_b,) = s.bob.takes(init_a)
    (answer_a,) = s.alice.takes(init_b)
    (auth_a,) = s.alice.takes(answer_b)
    (auth_b,) = s.bob.takes(answer_a)
    (done_b,) = s.bob.takes(auth_a)
    s.alice.takes(done_b)
    s.flows = True
    (done_a,) = s.alice.takes(auth_b)
    s.bob.takes(done_a)
    s.ends()


def test_both_call_for_different_rules_and_one_ike_sa_serves_both() -> None:
    s = Scenario(**two_rules(), connected=False, flows=False)
    init_a, init_b = s.alice.creates(), s.bob.creates(MORE_ID)
    (answer_b,) = s.bob.takes(init_a)
    (answer_a,) = s.alice.takes(init_b)
    (auth_a,) = s.alice.takes(answer_b)
    (auth_b,) = s.bob.takes(answer_a)
    (done_b,) = s.bob.takes(auth_a)
    (done_a,) = s.alice.takes(auth_b)
    s.alice.takes(done_b)
    s.bob.takes(done_a)
    s.ends(children=2)


@pytest.mark.parametrize("seed", range(10))
def test_both_call_in_any_weather(seed: int) -> None:
    s = Scenario(seed=seed, connected=False, flows=False)
    s.world.by_hand = False
    s.world.loss, s.world.spread_s, s.world.duplication = 0.3, 1.0, 0.2
    s.alice.side.engine.initiate(7, s.world.now)
    s.bob.side.engine.initiate(7, s.world.now)
    s.world.run(50)
    s.world.loss = s.world.spread_s = s.world.duplication = 0.0
    s.alice.side.engine.initiate(7, s.world.now)
    s.ends()
