"""Rekeying the IKE SA, letter by letter, and all that may cross it. RFC 7296 sections 1.3.2, 2.8.2, 2.18 and 2.25.2."""

from dataclasses import replace

import pytest

from ike_worker.ikev2.child_sa import REPLACED_LIFE_S
from ike_worker.ikev2.features.retransmission import GIVE_UP_S
from ike_worker.ikev2.iana import ExchangeType, NotifyType
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.wire.notify import Notify
from ipc.algorithms import KeyExchangeId
from tests.ike_worker.ikev2.scenario import Letter, Party, Scenario, answer_to
from tests.ike_worker.ikev2.two_sides import IKE, MORE_ID, peer_of, two_rules

NONCES = ("alice asks", "alice answers", "bob asks", "bob answers")


def alice_loses(lowest: str) -> bool:
    return lowest in ("alice asks", "bob answers")


def says(letters: list[Letter]) -> list[str]:
    return [letter.says for letter in letters]


def spi_of(letter: Letter) -> bytes:
    return letter.spi.to_bytes(8, "big")


def states(party: Party) -> list[State]:
    return [sa.state for sa in party.ike_sas]


def stands(s: Scenario, letter: Letter) -> None:
    """The IKE SA that this request asked for is the one that both have."""
    assert spi_of(letter) in (s.alice.sa.own_spi, s.alice.sa.peer_spi)
    assert spi_of(letter) in (s.bob.sa.own_spi, s.bob.sa.peer_spi)


# ------------------------------------------------------------------ one side rekeys


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_rekey_step_by_step(who: str) -> None:
    s = Scenario()
    one: Party = getattr(s, who)
    other = s.bob if one is s.alice else s.alice
    flow = one.sends_on
    ask = one.rekeys_ike()
    (made,) = other.takes(ask)
    assert states(other) == [State.REKEYED, State.ESTABLISHED]
    (delete,) = one.takes(made)
    assert delete.says == "delete ike"
    (answer,) = other.takes(delete)
    assert answer.says == "ok"
    assert states(other) == [State.ESTABLISHED]
    assert one.takes(answer) == []
    s.ends()
    stands(s, ask)
    assert one.sends_on == flow, "the Child SAs are the same"
    assert one.sa.initiator
    assert not other.sa.initiator


def test_message_ids_start_again_on_the_new_one() -> None:
    s = Scenario()
    (made,) = s.bob.takes(s.alice.rekeys_ike())
    s.alice.takes(made)
    s.ends()
    assert s.bob.deletes().header.message_id == 0


def test_the_responder_wants_another_group() -> None:
    both = (KeyExchangeId.X25519, KeyExchangeId.ECP_256)
    s = Scenario(alice={"peer": peer_of("alice", ike_proposals=(replace(IKE, key_exchange=both),))})
    s.bob.sa.peer = peer_of("bob", ike_proposals=(replace(IKE, key_exchange=both[1:]),))
    (wrong,) = s.bob.takes(s.alice.rekeys_ike())
    assert wrong.says == "INVALID_KE_PAYLOAD"
    (again,) = s.alice.takes(wrong)
    (made,) = s.bob.takes(again)
    assert says(s.alice.takes(made)) == ["delete ike"]
    s.ends()


def test_a_refused_rekey_is_tried_again_and_the_old_one_stands() -> None:
    s = Scenario()
    good = s.bob.sa.peer
    s.bob.sa.peer = replace(good, ike_proposals=(replace(IKE, key_exchange=(KeyExchangeId.ECP_384,)),))
    (refused,) = s.bob.takes(s.alice.rekeys_ike())
    assert refused.says == "NO_PROPOSAL_CHOSEN"
    assert s.alice.takes(refused) == []
    s.bob.sa.peer = good
    assert says(s.alice.waits(30))[:1] == ["rekey ike"]
    s.ends()


def test_a_peer_that_can_not_rekey_has_everything_made_anew() -> None:
    """RFC 7296 section 1.3."""
    s = Scenario()
    (call,) = answer_to(s, s.alice.rekeys_ike(), Notify(type=NotifyType.NO_ADDITIONAL_SAS))
    assert call.says == "IKE_SA_INIT request 0"
    before = s.alice.sa.own_spi
    s.ends()
    assert s.alice.sa.own_spi != before


def test_a_lost_response_is_sent_again_and_makes_nothing_twice() -> None:
    s = Scenario()
    ask = s.alice.rekeys_ike()
    (made,) = s.bob.takes(ask)
    (again,) = s.bob.takes(ask)
    assert again.datagram == made.datagram
    assert len(s.bob.ike_sas) == 2
    s.alice.takes(again)
    s.ends()


def test_a_lost_delete_is_sent_again_on_the_old_one() -> None:
    s = Scenario()
    (made,) = s.bob.takes(s.alice.rekeys_ike())
    (delete,) = s.alice.takes(made)
    (again,) = s.alice.waits(1)
    assert again.datagram == delete.datagram
    s.ends()


def test_without_a_delete_the_responder_deletes_the_old_one_itself() -> None:
    s = Scenario()
    (made,) = s.bob.takes(s.alice.rekeys_ike())
    s.alice.takes(made)
    old = s.alice.ike_sas[0]
    old.window.pending = None  # Alice forgets to delete it
    assert says(s.bob.waits(REPLACED_LIFE_S))[:1] == ["delete ike"]
    s.ends()


def test_what_was_wanted_of_the_old_one_is_done_on_the_new_one() -> None:
    s = Scenario(**two_rules())
    ask = s.alice.rekeys_ike()
    s.alice.wants("initiate", MORE_ID)
    (made,) = s.bob.takes(ask)
    assert sorted(says(s.alice.takes(made))) == ["create child", "delete ike"]
    s.ends(children=2)
    stands(s, ask)


def test_a_delete_that_was_wanted_of_the_old_one_deletes_the_new_one() -> None:
    s = Scenario(flows=False)
    ask = s.alice.rekeys_ike()
    s.alice.wants("delete_ike_sa", s.alice.sa.own_spi)
    (made,) = s.bob.takes(ask)
    assert says(s.alice.takes(made)) == ["delete ike", "delete ike"]
    s.ends(children=0, ike_sas=0)


# ------------------------------------------------------------------ both rekey at once


@pytest.mark.parametrize("lowest", NONCES)
def test_both_rekey_and_the_lowest_nonce_loses(lowest: str) -> None:
    s = Scenario()
    s.lowest_nonce(lowest)
    ask_a, ask_b = s.alice.rekeys_ike(), s.bob.rekeys_ike()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    assert states(s.alice) == [State.ESTABLISHED, State.CANDIDATE]
    delete_a, delete_b = s.alice.takes(made_b), s.bob.takes(made_a)
    assert says(delete_a) == says(delete_b) == ["delete ike"]
    s.ends()
    stands(s, ask_b if alice_loses(lowest) else ask_a)


@pytest.mark.parametrize("lowest", NONCES)
def test_both_rekey_and_alice_hears_everything_late(lowest: str) -> None:
    """Bob has decided, and his delete comes before the response to Alice's own request."""
    s = Scenario()
    s.lowest_nonce(lowest)
    ask_a, ask_b = s.alice.rekeys_ike(), s.bob.rekeys_ike()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    (delete_b,) = s.bob.takes(made_a)
    s.alice.takes(delete_b)
    s.alice.takes(made_b)
    s.ends()
    stands(s, ask_b if alice_loses(lowest) else ask_a)


@pytest.mark.parametrize("lowest", NONCES)
def test_both_rekey_and_each_response_is_lost_once(lowest: str) -> None:
    s = Scenario()
    s.lowest_nonce(lowest)
    ask_a, ask_b = s.alice.rekeys_ike(), s.bob.rekeys_ike()
    s.bob.takes(ask_a)
    s.alice.takes(ask_b)
    s.ends()
    stands(s, ask_b if alice_loses(lowest) else ask_a)


def test_both_rekey_and_only_bob_notices() -> None:
    """RFC 7296 section 2.8.2: Alice has finished when Bob's request comes; he forgets his own."""
    s = Scenario()
    ask_a, ask_b = s.alice.rekeys_ike(), s.bob.rekeys_ike()
    (made_b,) = s.bob.takes(ask_a)
    (delete_a,) = s.alice.takes(made_b)
    (busy,) = s.alice.takes(ask_b)
    assert busy.says == "TEMPORARY_FAILURE"
    assert s.bob.takes(busy) == []
    s.bob.takes(delete_a)
    s.ends()
    stands(s, ask_a)


def test_both_rekey_and_only_bob_notices_and_the_delete_comes_first() -> None:
    s = Scenario()
    ask_a, ask_b = s.alice.rekeys_ike(), s.bob.rekeys_ike()
    (made_b,) = s.bob.takes(ask_a)
    (delete_a,) = s.alice.takes(made_b)
    (busy,) = s.alice.takes(ask_b)
    (answer,) = s.bob.takes(delete_a)
    assert answer.says == "ok"
    assert s.bob.takes(busy) == []
    s.alice.takes(answer)
    s.ends()
    stands(s, ask_a)


def test_both_rekey_and_the_request_never_arrives() -> None:
    s = Scenario()
    ask_a = s.alice.rekeys_ike()
    s.bob.rekeys_ike()
    (made_b,) = s.bob.takes(ask_a)
    (delete_a,) = s.alice.takes(made_b)
    (answer,) = s.bob.takes(delete_a)
    s.alice.takes(answer)
    s.ends()
    stands(s, ask_a)


def test_a_request_on_the_new_one_waits_until_it_is_clear_which_that_is() -> None:
    s = Scenario()
    s.lowest_nonce("alice asks")
    ask_a, ask_b = s.alice.rekeys_ike(), s.bob.rekeys_ike()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    s.bob.takes(made_a)
    rekey = s.bob.rekeys()
    assert s.alice.takes(rekey) == [], "it will come again"
    s.alice.takes(made_b)
    assert says(s.alice.takes(rekey)) == ["made"]
    s.ends()


def test_both_rekey_and_all_nonces_are_equal() -> None:
    s = Scenario()
    for party in s.parties:
        party.nonces = [b"\x07" * 32] * 2
    ask_a, ask_b = s.alice.rekeys_ike(), s.bob.rekeys_ike()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    s.alice.takes(made_b)
    s.bob.takes(made_a)
    s.ends()
    stands(s, ask_a)


def test_both_rekey_and_one_is_told_to_take_another_group() -> None:
    both = (KeyExchangeId.X25519, KeyExchangeId.ECP_256)
    s = Scenario(alice={"peer": peer_of("alice", ike_proposals=(replace(IKE, key_exchange=both),))})
    s.bob.sa.peer = peer_of("bob", ike_proposals=(replace(IKE, key_exchange=both[1:]),))
    ask_a, ask_b = s.alice.rekeys_ike(), s.bob.rekeys_ike()
    (wrong,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    assert (wrong.says, made_a.says) == ("INVALID_KE_PAYLOAD", "made")
    assert s.alice.takes(wrong) == [], "the peer's will do"
    s.bob.takes(made_a)
    s.ends()


def test_the_winner_dies_before_it_can_say_so() -> None:
    """Bob never answers again: what he had made takes the Child SAs, and is asked whether he lives."""
    s = Scenario(alice={"peer": peer_of("alice", liveness_s=30.0)})
    ask_a, ask_b = s.alice.rekeys_ike(), s.bob.rekeys_ike()
    s.alice.takes(ask_b)
    del ask_a
    s.flows = False
    s.alice.waits(GIVE_UP_S)
    assert states(s.alice) == [State.ESTABLISHED]
    s.alice.waits(30 + GIVE_UP_S)
    assert states(s.alice) == []


# ------------------------------------------------------------------ an IKE rekey and Child SAs


@pytest.mark.parametrize("deed", ["creates", "rekeys"])
def test_a_child_exchange_meets_the_rekey_of_the_ike_sa(deed: str) -> None:
    """RFC 7296 section 2.25: each is refused for the sake of the other, and both are tried again."""
    s = Scenario(**two_rules())
    ask_a = s.alice.rekeys_ike()
    ask_b = s.bob.creates(MORE_ID) if deed == "creates" else s.bob.rekeys()
    (busy_b,) = s.bob.takes(ask_a)
    (busy_a,) = s.alice.takes(ask_b)
    assert busy_a.says == busy_b.says == "TEMPORARY_FAILURE"
    assert s.alice.takes(busy_b) == s.bob.takes(busy_a) == []
    s.ends(children=2 if deed == "creates" else 1)


def test_the_delete_of_a_child_sa_meets_the_rekey_of_the_ike_sa() -> None:
    s = Scenario(flows=False)
    ask_a, delete_b = s.alice.rekeys_ike(), s.bob.deletes()
    (busy,) = s.bob.takes(ask_a)
    (deleted,) = s.alice.takes(delete_b)
    assert (busy.says, deleted.says) == ("TEMPORARY_FAILURE", "deleted")
    s.alice.takes(busy)
    s.bob.takes(deleted)
    s.ends(children=0)


def test_a_child_sa_that_is_about_to_be_rekeyed_moves_first() -> None:
    s = Scenario()
    (made,) = s.bob.takes(s.alice.rekeys_ike())
    s.bob.side.engine.rekey_child(s.bob.first.spi_in, s.world.now)
    s.alice.takes(made)
    s.ends()


# ------------------------------------------------------------------ an IKE rekey and deletes


def test_a_delete_of_the_ike_sa_meets_its_rekey() -> None:
    s = Scenario(flows=False)
    ask_a, delete_b = s.alice.rekeys_ike(), s.bob.deletes_ike()
    (busy,) = s.bob.takes(ask_a)
    assert busy.says == "TEMPORARY_FAILURE"
    (answer,) = s.alice.takes(delete_b)
    assert answer.says == "ok"
    assert states(s.alice) == []
    s.bob.takes(answer)
    s.ends(children=0, ike_sas=0)


def test_a_delete_of_the_ike_sa_meets_its_rekey_and_the_refusal_comes_first() -> None:
    s = Scenario(flows=False)
    ask_a, delete_b = s.alice.rekeys_ike(), s.bob.deletes_ike()
    (busy,) = s.bob.takes(ask_a)
    assert s.alice.takes(busy) == []
    (answer,) = s.alice.takes(delete_b)
    s.bob.takes(answer)
    s.ends(children=0, ike_sas=0)


def test_both_delete_what_one_of_them_has_replaced() -> None:
    s = Scenario()
    (made,) = s.bob.takes(s.alice.rekeys_ike())
    (delete_a,) = s.alice.takes(made)
    old = s.bob.ike_sas[0].own_spi
    (delete_b,) = s.bob.does(lambda: s.bob.side.engine.delete_ike_sa(old, s.world.now))
    (answer_a,) = s.alice.takes(delete_b)
    (answer_b,) = s.bob.takes(delete_a)
    assert says([answer_a, answer_b]) == ["ok", "ok"]
    s.ends()


# ------------------------------------------------------------------ a confused peer


def test_a_confused_peer_rekeys_what_it_has_rekeyed() -> None:
    s = Scenario()
    ask = s.alice.rekeys_ike()
    (made,) = s.bob.takes(ask)
    (busy,) = s.bob.takes(s.alice.asks(ExchangeType.CREATE_CHILD_SA, ask.payloads))
    assert busy.says == "TEMPORARY_FAILURE"
    assert len(s.bob.ike_sas) == 2
    s.alice.takes(made)
    s.ends()


def test_a_confused_peer_rekeys_twice_while_both_rekey() -> None:
    s = Scenario()
    ask_a, ask_b = s.alice.rekeys_ike(), s.bob.rekeys_ike()
    (made_b,) = s.bob.takes(ask_a)
    (busy,) = s.bob.takes(s.alice.asks(ExchangeType.CREATE_CHILD_SA, ask_a.payloads))
    assert busy.says == "TEMPORARY_FAILURE"
    assert len(s.bob.ike_sas) == 2
    s.alice.takes(made_b)
    s.alice.takes(ask_b)
    s.ends()


def test_a_confused_peer_goes_on_using_the_old_one() -> None:
    s = Scenario(**two_rules())
    s.bob.takes(s.alice.rekeys_ike())
    (busy,) = s.bob.takes(s.alice.asks(ExchangeType.CREATE_CHILD_SA, []))
    assert busy.says == "INVALID_SYNTAX"


def test_children_that_are_replaced_move_as_they_are() -> None:
    """A rekey of a Child SA whose delete is still to come hinders the rekey of the IKE SA for so long only."""
    s = Scenario()
    ask = s.alice.rekeys()
    (made,) = s.bob.takes(ask)
    (delete,) = s.alice.takes(made)
    rekey_ike = s.bob.rekeys_ike()
    (busy,) = s.alice.takes(rekey_ike)
    assert busy.says == "TEMPORARY_FAILURE"
    (deleted,) = s.bob.takes(delete)
    s.alice.takes(deleted)
    s.bob.takes(busy)
    s.ends()
    assert s.alice.child(ask) is ChildState.INSTALLED
