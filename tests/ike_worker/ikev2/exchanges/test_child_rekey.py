"""Rekeying a Child SA, letter by letter, and all that may cross it. RFC 7296 sections 1.3.3, 2.8, 2.8.1 and 2.25.1."""

from dataclasses import replace

import pytest

from ike_worker.ikev2.child_sa import DRAIN_S, FIRST_PACKET_S, REPLACED_LIFE_S, SWITCH_OUTBOUND_S
from ike_worker.ikev2.iana import ExchangeType, NotifyType, ProtocolId
from ike_worker.ikev2.states import ChildState
from ike_worker.ikev2.wire.delete import Delete
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ipc.algorithms import KeyExchangeId
from tests.ike_worker.ikev2.scenario import Letter, Party, Scenario, answer_to
from tests.ike_worker.ikev2.two_sides import ESP, rule_of

INBOUND, INSTALLED = ChildState.INBOUND, ChildState.INSTALLED
REKEYING, REKEYED = ChildState.REKEYING, ChildState.REKEYED
DELETING, DRAINING = ChildState.DELETING, ChildState.DRAINING
NONCES = ("alice asks", "alice answers", "bob asks", "bob answers")
"""Each of the four nonces of a collision. What alice asks for is made of hers and of what bob answers."""


def alice_loses(lowest: str) -> bool:
    return lowest in ("alice asks", "bob answers")


def groups(*alice: KeyExchangeId, bob: tuple[KeyExchangeId, ...] = ()) -> Scenario:
    """Both rekey with a fresh key exchange, of these groups."""
    return Scenario(
        alice={"rules": [rule_of("alice", esp_proposals=(replace(ESP, key_exchange=alice),))]},
        bob={"rules": [rule_of("bob", esp_proposals=(replace(ESP, key_exchange=bob or alice),))]},
    )


def says(letters: list[Letter]) -> list[str]:
    return [letter.says for letter in letters]


# ------------------------------------------------------------------ one side rekeys


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_rekey_step_by_step(who: str) -> None:
    s = Scenario()
    one: Party = getattr(s, who)
    other = s.bob if one is s.alice else s.alice
    old = one.first.spi_in
    ask = one.rekeys()
    assert one.child(old) is REKEYING
    (made,) = other.takes(ask)
    assert (other.child(old), other.child(ask)) == (REKEYED, INBOUND)
    (delete,) = one.takes(made)
    assert delete.says == "delete child"
    assert (one.child(old), one.child(ask)) == (DELETING, INSTALLED)
    (deleted,) = other.takes(delete)
    assert deleted.says == "deleted"
    assert (other.child(old), other.child(ask)) == (DRAINING, INSTALLED)
    assert one.takes(deleted) == []
    assert one.child(old) is DRAINING
    s.ends()


def test_the_responder_sends_on_the_old_one_until_the_delete() -> None:
    s = Scenario()
    before = s.bob.sends_on
    (made,) = s.bob.takes(s.alice.rekeys())
    (delete,) = s.alice.takes(made)
    assert s.bob.sends_on == before
    s.bob.takes(delete)
    assert not s.bob.sends_on & before
    s.ends()


def test_packets_under_way_are_taken_for_a_moment_after_the_delete() -> None:
    s = Scenario()
    before = s.alice.receives_on
    (made,) = s.bob.takes(s.alice.rekeys())
    (delete,) = s.alice.takes(made)
    (deleted,) = s.bob.takes(delete)
    s.alice.takes(deleted)
    assert before < s.alice.receives_on
    s.alice.waits(DRAIN_S)
    assert not before & s.alice.receives_on
    s.ends()


def test_the_old_keys_say_nothing_of_the_new_ones_with_a_fresh_key_exchange() -> None:
    s = groups(KeyExchangeId.X25519)
    ask = s.alice.rekeys()
    (made,) = s.bob.takes(ask)
    s.alice.takes(made)
    assert s.alice.child(ask) is INSTALLED
    s.ends()


def test_the_responder_wants_another_group() -> None:
    s = groups(KeyExchangeId.X25519, KeyExchangeId.ECP_256, bob=(KeyExchangeId.ECP_256,))
    old = s.alice.first.spi_in
    (wrong,) = s.bob.takes(s.alice.rekeys())
    assert wrong.says == "INVALID_KE_PAYLOAD"
    assert s.bob.child(old) is INSTALLED
    (again,) = s.alice.takes(wrong)
    assert again.says == "rekey child"
    (made,) = s.bob.takes(again)
    assert says(s.alice.takes(made)) == ["delete child"]
    s.ends()


def test_the_responder_wants_a_group_that_was_not_offered() -> None:
    s = groups(KeyExchangeId.X25519)
    ask = s.alice.rekeys()
    wrong = Notify(type=NotifyType.INVALID_KE_PAYLOAD, data=int(KeyExchangeId.ECP_521).to_bytes(2, "big"))
    assert answer_to(s, ask, wrong) == []
    s.ends()


def test_a_refused_rekey_leaves_the_old_one_and_is_tried_again() -> None:
    s = groups(KeyExchangeId.X25519, bob=(KeyExchangeId.ECP_256,))
    old = s.alice.first.spi_in
    (refused,) = s.bob.takes(s.alice.rekeys())
    assert refused.says == "NO_PROPOSAL_CHOSEN"
    assert s.alice.takes(refused) == []
    assert s.alice.child(old) is INSTALLED
    assert says(s.alice.waits(30))[:1] == ["rekey child"]


def test_the_peer_has_lost_the_child_sa() -> None:
    s = Scenario(flows=False)
    sa = s.bob.sa
    s.bob.side.engine._context.close_child(sa, s.bob.first, "lost")
    ask = s.alice.rekeys()
    (unknown,) = s.bob.takes(ask)
    assert unknown.says == "CHILD_SA_NOT_FOUND"
    (create,) = s.alice.takes(unknown)
    assert create.says == "create child"
    s.ends()


def test_the_kernel_refuses_what_the_responder_makes() -> None:
    s = Scenario()
    old = s.alice.first.spi_in
    s.bob.side.refuse_installs = 1
    (refused,) = s.bob.takes(s.alice.rekeys())
    assert refused.says == "TEMPORARY_FAILURE"
    s.ends()
    assert s.alice.child(old) is not INSTALLED, "a later try makes another"


def test_the_kernel_refuses_what_the_initiator_makes() -> None:
    s = Scenario()
    old = s.alice.first.spi_in
    ask = s.alice.rekeys()
    (made,) = s.bob.takes(ask)
    s.alice.side.refuse_installs = 1
    (delete,) = s.alice.takes(made)
    assert (delete.says, delete.spi) == ("delete child", ask.spi)
    assert says(s.bob.takes(delete)) == ["deleted"]
    assert (s.alice.child(old), s.bob.child(old)) == (INSTALLED, INSTALLED)
    s.ends()


def test_a_lost_request_is_sent_again() -> None:
    s = Scenario()
    ask = s.alice.rekeys()
    (again,) = s.alice.waits(1)
    assert again.datagram == ask.datagram
    s.bob.takes(again)
    s.ends()


def test_a_lost_response_is_sent_again_and_makes_nothing_twice() -> None:
    s = Scenario()
    ask = s.alice.rekeys()
    (made,) = s.bob.takes(ask)
    (again,) = s.bob.takes(ask)
    assert again.datagram == made.datagram
    assert len(s.bob.sa.children) == 2
    s.alice.takes(again)
    assert s.alice.takes(made) == []
    s.ends()


def test_a_lost_delete_is_sent_again() -> None:
    s = Scenario()
    (made,) = s.bob.takes(s.alice.rekeys())
    s.alice.takes(made)
    (delete,) = s.alice.waits(1)
    assert says(s.bob.takes(delete)) == ["deleted"]
    s.ends()


def test_without_a_delete_the_responder_uses_the_new_one_and_deletes_the_old_one_in_the_end() -> None:
    s = Scenario()
    ask = s.alice.rekeys()
    (made,) = s.bob.takes(ask)
    s.alice.takes(made)
    s.alice.sa.window.pending = None  # Alice forgets to delete it
    s.bob.waits(SWITCH_OUTBOUND_S)
    assert s.bob.child(ask) is INSTALLED
    assert says(s.bob.waits(REPLACED_LIFE_S))[:1] == ["delete child"]
    s.ends()


def test_without_a_delete_the_responder_follows_the_first_packet_on_the_new_one() -> None:
    s = Scenario()
    ask = s.alice.rekeys()
    (made,) = s.bob.takes(ask)
    s.bob.waits(2 * FIRST_PACKET_S)
    assert s.bob.child(ask) is INBOUND  # Alice does not have it yet, and sends nothing on it
    s.alice.takes(made)
    s.world.flows = True
    assert s.bob.child(ask) is INBOUND
    s.bob.waits(2 * FIRST_PACKET_S)
    assert s.bob.child(ask) is INSTALLED
    s.ends()


def test_the_delete_comes_while_the_responder_begins_to_send_on_the_new_one() -> None:
    s = Scenario()
    (made,) = s.bob.takes(s.alice.rekeys())
    (delete,) = s.alice.takes(made)
    s.bob.side.answer_events = False  # the kernel agent takes its time
    s.bob.waits(SWITCH_OUTBOUND_S)
    answers = s.bob.takes(delete)
    s.bob.side.answer_events = True
    assert says(answers + s.bob.does(lambda: None)) == ["deleted"]
    assert s.bob.child(made) is INSTALLED
    s.ends()


@pytest.mark.parametrize("lowest", NONCES)
def test_a_first_packet_decides_no_collision(lowest: str) -> None:
    s = Scenario()
    s.lowest_nonce(lowest)
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_by_b,) = s.bob.takes(ask_a)
    (made_by_a,) = s.alice.takes(ask_b)
    s.bob.takes(made_by_a)
    s.world.flows = True
    s.alice.waits(1.5 * FIRST_PACKET_S)
    assert s.alice.child(ask_b) is INBOUND
    s.alice.takes(made_by_b)
    s.ends()


def test_the_new_one_is_rekeyed_at_once() -> None:
    s = Scenario()
    ask = s.alice.rekeys()
    (made,) = s.bob.takes(ask)
    (delete,) = s.alice.takes(made)
    (deleted,) = s.bob.takes(delete)
    s.alice.takes(deleted)
    (made,) = s.bob.takes(s.alice.rekeys(ask.spi))
    assert says(s.alice.takes(made)) == ["delete child"]
    s.ends()


# ------------------------------------------------------------------ both rekey at once


@pytest.mark.parametrize("lowest", NONCES)
def test_both_rekey_and_the_lowest_nonce_loses(lowest: str) -> None:
    s = Scenario()
    s.lowest_nonce(lowest)
    old_a, old_b = s.alice.first.spi_in, s.bob.first.spi_in
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    (delete_a,) = s.alice.takes(made_b)
    (delete_b,) = s.bob.takes(made_a)
    # The loser deletes what it made, the winner deletes the old one.
    if alice_loses(lowest):
        assert (delete_a.spi, delete_b.spi) == (ask_a.spi, old_b)
    else:
        assert (delete_a.spi, delete_b.spi) == (old_a, ask_b.spi)
    s.alice.takes(delete_b)
    s.bob.takes(delete_a)
    s.ends()
    kept = ask_b if alice_loses(lowest) else ask_a
    assert (s.alice.child(kept), s.bob.child(kept)) == (INSTALLED, INSTALLED)


@pytest.mark.parametrize("lowest", NONCES)
def test_both_rekey_and_alice_hears_everything_late(lowest: str) -> None:
    """Bob has finished, delete and all, before Alice takes the response to her own request."""
    s = Scenario()
    s.lowest_nonce(lowest)
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    (delete_b,) = s.bob.takes(made_a)
    (answer,) = s.alice.takes(delete_b)
    assert answer.says == "deleted"
    s.bob.takes(answer)
    s.alice.takes(made_b)
    s.ends()
    kept = ask_b if alice_loses(lowest) else ask_a
    assert (s.alice.child(kept), s.bob.child(kept)) == (INSTALLED, INSTALLED)


def test_both_rekey_and_one_request_comes_after_the_other_is_done() -> None:
    """Only Bob notices: Alice has rekeyed and deleted when his request comes (RFC 7296 section 2.8.1)."""
    s = Scenario()
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_b,) = s.bob.takes(ask_a)
    (delete_a,) = s.alice.takes(made_b)
    (busy,) = s.alice.takes(ask_b)
    assert busy.says == "TEMPORARY_FAILURE"
    assert s.bob.takes(busy) == []
    s.bob.takes(delete_a)
    s.ends()
    assert (s.alice.child(ask_a), s.bob.child(ask_a)) == (INSTALLED, INSTALLED)
    assert s.alice.child(ask_b) is None


def test_both_rekey_and_one_request_comes_after_the_delete_is_answered() -> None:
    s = Scenario()
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_b,) = s.bob.takes(ask_a)
    (delete_a,) = s.alice.takes(made_b)
    (deleted,) = s.bob.takes(delete_a)
    s.alice.takes(deleted)
    (unknown,) = s.alice.takes(ask_b)
    assert unknown.says == "CHILD_SA_NOT_FOUND"
    assert s.bob.takes(unknown) == [], "what replaced it stands: nothing is made anew"
    s.ends()
    assert (s.alice.child(ask_a), s.bob.child(ask_a)) == (INSTALLED, INSTALLED)


def test_both_rekey_and_the_refusal_comes_after_the_delete() -> None:
    s = Scenario()
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_b,) = s.bob.takes(ask_a)
    (delete_a,) = s.alice.takes(made_b)
    (busy,) = s.alice.takes(ask_b)
    (deleted,) = s.bob.takes(delete_a)
    s.alice.takes(deleted)
    assert s.bob.takes(busy) == []
    s.ends()
    assert (s.alice.child(ask_a), s.bob.child(ask_a)) == (INSTALLED, INSTALLED)


@pytest.mark.parametrize("lowest", NONCES)
def test_both_rekey_and_both_deletes_come_before_the_last_response(lowest: str) -> None:
    s = Scenario()
    s.lowest_nonce(lowest)
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    (delete_b,) = s.bob.takes(made_a)
    s.alice.takes(delete_b)
    (delete_a,) = s.alice.takes(made_b)
    s.bob.takes(delete_a)
    s.ends()


@pytest.mark.parametrize("lowest", NONCES)
def test_both_rekey_and_each_response_is_lost_once(lowest: str) -> None:
    s = Scenario()
    s.lowest_nonce(lowest)
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    s.bob.takes(ask_a)
    s.alice.takes(ask_b)
    s.ends()
    kept = ask_b if alice_loses(lowest) else ask_a
    assert (s.alice.child(kept), s.bob.child(kept)) == (INSTALLED, INSTALLED)


def test_both_rekey_and_all_four_nonces_are_equal() -> None:
    s = Scenario()
    for party in (s.alice, s.bob):
        party.nonces = [b"\x07" * 32] * 2
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    (delete_a,) = s.alice.takes(made_b)
    (delete_b,) = s.bob.takes(made_a)
    assert delete_b.spi == ask_b.spi, "the original initiator's stays"
    s.alice.takes(delete_b)
    s.bob.takes(delete_a)
    s.ends()
    assert s.alice.child(ask_a) is INSTALLED


def test_both_rekey_and_the_two_lowest_nonces_are_equal() -> None:
    s = Scenario()
    s.alice.nonces = [b"\x01" * 32, b"\x30" * 32]
    s.bob.nonces = [b"\x01" * 32, b"\x20" * 32]
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    s.alice.takes(made_b)
    s.bob.takes(made_a)
    s.ends()
    # 01 and 20 made Alice's, 01 and 30 Bob's: the next nonces decide.
    assert s.alice.child(ask_b) is INSTALLED


def test_both_rekey_and_the_shorter_nonce_is_a_prefix_of_the_other() -> None:
    s = Scenario()
    s.alice.nonces = [b"\x01" * 16, b"\x30" * 32]
    s.bob.nonces = [b"\x01" * 32, b"\x30" * 32]
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    s.alice.takes(made_b)
    s.bob.takes(made_a)
    s.ends()
    # RFC 7296 section 2.8.1: octet by octet; the one that ends first is the lower one.
    assert s.alice.child(ask_b) is INSTALLED


def test_both_rekey_and_one_is_told_to_take_another_group() -> None:
    s = groups(KeyExchangeId.X25519, KeyExchangeId.ECP_256, bob=(KeyExchangeId.ECP_256,))
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (wrong,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    assert s.alice.takes(wrong) == [], "the peer's will do"
    s.bob.takes(made_a)
    s.ends()
    assert s.alice.child(ask_b) is INSTALLED


def test_both_rekey_and_one_asks_again_with_another_group_before_it_hears_of_the_other() -> None:
    s = groups(KeyExchangeId.X25519, KeyExchangeId.ECP_256, bob=(KeyExchangeId.ECP_256,))
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (wrong,) = s.bob.takes(ask_a)
    (again,) = s.alice.takes(wrong)
    (made_b,) = s.bob.takes(again)
    (made_a,) = s.alice.takes(ask_b)
    s.alice.takes(made_b)
    s.bob.takes(made_a)
    s.ends()


def test_both_rekey_and_the_winner_is_refused_by_its_own_kernel() -> None:
    s = Scenario()
    s.lowest_nonce("bob asks")
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_b,) = s.bob.takes(ask_a)
    (made_a,) = s.alice.takes(ask_b)
    s.alice.side.refuse_installs = 1
    s.alice.takes(made_b)
    s.bob.takes(made_a)
    s.ends()


# ------------------------------------------------------------------ a rekey and a delete


def test_a_delete_meets_a_rekey_that_is_under_way() -> None:
    """RFC 7296 section 2.25.1: the delete is answered as usual, the rekey with TEMPORARY_FAILURE."""
    s = Scenario(flows=False)
    ask, delete = s.alice.rekeys(), s.bob.deletes()
    (busy,) = s.bob.takes(ask)
    assert busy.says == "TEMPORARY_FAILURE"
    (deleted,) = s.alice.takes(delete)
    assert deleted.says == "deleted"
    assert s.alice.takes(busy) == []
    s.bob.takes(deleted)
    s.ends(children=0)


def test_a_delete_meets_a_rekey_and_its_refusal_comes_first() -> None:
    s = Scenario(flows=False)
    ask, delete = s.alice.rekeys(), s.bob.deletes()
    (busy,) = s.bob.takes(ask)
    assert s.alice.takes(busy) == []
    (deleted,) = s.alice.takes(delete)
    s.bob.takes(deleted)
    s.ends(children=0)


def test_a_rekey_comes_after_the_delete_is_done() -> None:
    s = Scenario(flows=False)
    ask, delete = s.alice.rekeys(), s.bob.deletes()
    (deleted,) = s.alice.takes(delete)
    s.bob.takes(deleted)
    (unknown,) = s.bob.takes(ask)
    assert unknown.says == "CHILD_SA_NOT_FOUND"
    assert s.alice.takes(unknown) == []
    s.ends(children=0)


def test_the_responder_deletes_what_was_just_replaced() -> None:
    """Bob deletes the old one on his own before Alice's delete: one answers with a Delete payload, one without."""
    s = Scenario()
    (made,) = s.bob.takes(s.alice.rekeys())
    (delete_a,) = s.alice.takes(made)
    s.bob.side.engine.delete_child(s.bob.first.spi_in, s.world.now)
    (delete_b,) = s.bob.does(lambda: None)
    (answer_a,) = s.alice.takes(delete_b)
    (answer_b,) = s.bob.takes(delete_a)
    assert (answer_a.says, answer_b.says) == ("ok", "ok")
    s.bob.takes(answer_a)
    s.alice.takes(answer_b)
    s.ends()


def test_the_responder_deletes_the_old_one_before_the_response_arrives() -> None:
    s = Scenario()
    ask = s.alice.rekeys()
    (made,) = s.bob.takes(ask)
    delete = s.bob.deletes()
    s.flows = False
    (deleted,) = s.alice.takes(delete)
    s.alice.takes(made)
    s.bob.takes(deleted)
    s.ends()
    assert s.alice.child(ask) is INSTALLED


def test_the_initiator_takes_its_new_one_back() -> None:
    s = Scenario()
    old, ask = s.alice.first.spi_in, s.alice.rekeys()
    s.bob.takes(ask)
    (answer,) = s.bob.takes(
        s.alice.asks(ExchangeType.INFORMATIONAL, [Delete(protocol=ProtocolId.ESP, spis=(ask.spi.to_bytes(4, "big"),))])
    )
    assert answer.says == "deleted"
    assert (s.bob.child(old), s.bob.child(ask)) == (INSTALLED, None)


def test_the_old_and_the_new_one_are_deleted_in_one_message() -> None:
    s = Scenario(flows=False)
    old, ask = s.alice.first.spi_in, s.alice.rekeys()
    s.bob.takes(ask)
    both = tuple(spi.to_bytes(4, "big") for spi in (old, ask.spi))
    (answer,) = s.bob.takes(s.alice.asks(ExchangeType.INFORMATIONAL, [Delete(protocol=ProtocolId.ESP, spis=both)]))
    (delete,) = (one for one in answer.payloads if isinstance(one, Delete))
    assert len(delete.spis) == 2
    assert s.bob.child(ask) is None
    assert not s.bob.sends_on


# ------------------------------------------------------------------ a confused peer


def test_a_confused_peer_rekeys_what_it_has_rekeyed() -> None:
    s = Scenario()
    old = s.alice.first.spi_in
    ask = s.alice.rekeys()
    (made,) = s.bob.takes(ask)
    again = s.alice.asks(ExchangeType.CREATE_CHILD_SA, ask.payloads)
    (busy,) = s.bob.takes(again)
    assert busy.says == "TEMPORARY_FAILURE"
    assert (s.bob.child(old), s.bob.child(ask)) == (REKEYED, INBOUND)
    assert len(s.bob.sa.children) == 2
    s.alice.takes(made)
    s.ends()


def test_a_confused_peer_rekeys_while_both_rekey() -> None:
    s = Scenario()
    ask_a, ask_b = s.alice.rekeys(), s.bob.rekeys()
    (made_b,) = s.bob.takes(ask_a)
    (answer,) = s.bob.takes(s.alice.asks(ExchangeType.CREATE_CHILD_SA, ask_a.payloads))
    assert answer.says == "TEMPORARY_FAILURE", "one collision at a time"
    s.alice.takes(made_b)
    s.alice.takes(ask_b)
    s.ends()


def test_a_confused_peer_rekeys_what_was_never_there() -> None:
    s = Scenario()
    ask = s.alice.rekeys()
    payloads = [
        replace(one, spi=b"\xde\xad\xbe\xef") if isinstance(one, Notify) and one.type == NotifyType.REKEY_SA else one
        for one in ask.payloads
    ]
    s.alice.sa.window.next_id -= 1
    (answer,) = s.bob.takes(s.alice.asks(ExchangeType.CREATE_CHILD_SA, payloads))
    assert answer.says == "CHILD_SA_NOT_FOUND"


def test_a_rekey_of_another_protocol_finds_nothing() -> None:
    s = Scenario()
    ask = s.alice.rekeys()
    payloads = [
        replace(one, protocol=ProtocolId.AH) if isinstance(one, Notify) and one.type == NotifyType.REKEY_SA else one
        for one in ask.payloads
    ]
    s.alice.sa.window.next_id -= 1
    (answer,) = s.bob.takes(s.alice.asks(ExchangeType.CREATE_CHILD_SA, payloads))
    assert answer.says == "CHILD_SA_NOT_FOUND"


def test_a_peer_that_can_not_rekey_has_everything_made_anew() -> None:
    """RFC 7296 section 1.3: another IKE SA, and the old one ends when the traffic flows there."""
    s = Scenario()
    old, ask = s.alice.first.spi_in, s.alice.rekeys()
    (call,) = answer_to(s, ask, Notify(type=NotifyType.NO_ADDITIONAL_SAS))
    assert call.says == "IKE_SA_INIT request 0"
    assert s.alice.child(old) is INSTALLED
    s.ends()
    assert s.alice.child(old) is None


@pytest.mark.parametrize("kind", [NotifyType.TEMPORARY_FAILURE, NotifyType.TS_UNACCEPTABLE, 8191])
def test_an_answer_that_refuses_keeps_the_old_one(kind: int) -> None:
    s = Scenario()
    old, ask = s.alice.first.spi_in, s.alice.rekeys()
    assert answer_to(s, ask, Notify(type=kind)) == []
    assert s.alice.child(old) is INSTALLED
    s.ends()


def test_a_confused_peer_offers_an_spi_that_it_has_in_use() -> None:
    """The kernel could not tell the two apart."""
    s = Scenario()
    ask = s.alice.rekeys()
    s.alice.sa.window.next_id -= 1
    used = s.alice.first.spi_in.to_bytes(4, "big")
    payloads = [
        replace(one, proposals=tuple(replace(proposal, spi=used) for proposal in one.proposals))
        if isinstance(one, SecurityAssociation)
        else one
        for one in ask.payloads
    ]
    (refused,) = s.bob.takes(s.alice.asks(ExchangeType.CREATE_CHILD_SA, payloads))
    assert refused.says == "TEMPORARY_FAILURE"
    assert len(s.bob.sa.children) == 1
