"""Deletes that cross, several in one message, and half-closed states. RFC 7296 sections 1.4.1 and 2.25."""

from ike_worker.ikev2.features.retransmission import GIVE_UP_S
from ike_worker.ikev2.iana import ExchangeType, NotifyType, ProtocolId
from ike_worker.ikev2.states import ChildState
from ike_worker.ikev2.wire.delete import Delete
from ike_worker.ikev2.wire.notify import Notify
from tests.ike_worker.ikev2.scenario import Scenario
from tests.ike_worker.ikev2.two_sides import MORE_ID, two_rules


def esp(*spis: int) -> Delete:
    return Delete(protocol=ProtocolId.ESP, spis=tuple(spi.to_bytes(4, "big") for spi in spis))


def two_children() -> Scenario:
    s = Scenario(flows=False, **two_rules())
    (made,) = s.bob.takes(s.alice.creates(MORE_ID))
    s.alice.takes(made)
    return s


def test_both_delete_the_same_child_sa() -> None:
    """Neither answer has a Delete payload: each knows already."""
    s = Scenario(flows=False)
    delete_a, delete_b = s.alice.deletes(), s.bob.deletes()
    (answer_b,) = s.bob.takes(delete_a)
    (answer_a,) = s.alice.takes(delete_b)
    assert (answer_a.says, answer_b.says) == ("ok", "ok")
    s.alice.takes(answer_b)
    s.bob.takes(answer_a)
    s.ends(children=0)


def test_both_delete_different_child_sas() -> None:
    s = two_children()
    first, second = s.alice.sa.children.values()
    delete_a = s.alice.deletes(first.spi_in)
    delete_b = s.bob.deletes(second.outbound.spi)
    (answer_b,) = s.bob.takes(delete_a)
    (answer_a,) = s.alice.takes(delete_b)
    assert (answer_a.says, answer_b.says) == ("deleted", "deleted")
    s.alice.takes(answer_b)
    s.bob.takes(answer_a)
    s.ends(children=0)


def test_several_deletes_in_one_message_are_answered_in_one() -> None:
    s = two_children()
    mine = [child.spi_in for child in s.alice.sa.children.values()]
    theirs = [child.outbound.spi for child in s.alice.sa.children.values()]
    (answer,) = s.bob.takes(s.alice.asks(ExchangeType.INFORMATIONAL, [esp(mine[0]), esp(mine[1])]))
    assert answer.payloads == (esp(*theirs),)
    assert not s.bob.side.kernel


def test_several_spis_in_one_delete_and_one_that_nobody_knows() -> None:
    """RFC 7296 section 2.25.1: what does not exist is left out of the answer."""
    s = two_children()
    mine = [child.spi_in for child in s.alice.sa.children.values()]
    theirs = [child.outbound.spi for child in s.alice.sa.children.values()]
    (answer,) = s.bob.takes(s.alice.asks(ExchangeType.INFORMATIONAL, [esp(mine[0], 0xDEADBEEF, mine[1], mine[0])]))
    assert answer.payloads == (esp(*theirs),)


def test_a_child_sa_is_deleted_by_the_spi_of_the_one_who_deletes_only() -> None:
    s = Scenario()
    (answer,) = s.bob.takes(s.alice.asks(ExchangeType.INFORMATIONAL, [esp(s.bob.first.spi_in)]))
    assert answer.says == "ok"
    assert s.bob.first.state is ChildState.INSTALLED


def test_the_ike_sa_and_its_child_sa_are_deleted_in_one_message() -> None:
    s = Scenario(flows=False)
    deletes = [esp(s.alice.first.spi_in), Delete(protocol=ProtocolId.IKE)]
    (answer,) = s.bob.takes(s.alice.asks(ExchangeType.INFORMATIONAL, deletes))
    assert answer.says == "ok", "RFC 7296 section 1.4.1: the IKE SA takes its Child SAs with it"
    assert s.bob.ike_sas == []
    assert not s.bob.side.kernel


def test_both_delete_the_ike_sa() -> None:
    s = Scenario(flows=False)
    delete_a, delete_b = s.alice.deletes_ike(), s.bob.deletes_ike()
    (answer_b,) = s.bob.takes(delete_a)
    (answer_a,) = s.alice.takes(delete_b)
    assert (answer_a.says, answer_b.says) == ("ok", "ok")
    s.alice.takes(answer_b)
    s.bob.takes(answer_a)
    s.ends(children=0, ike_sas=0)


def test_a_delete_of_the_ike_sa_meets_one_of_its_child_sa() -> None:
    s = Scenario(flows=False)
    delete_a, delete_b = s.alice.deletes_ike(), s.bob.deletes()
    (answer_b,) = s.bob.takes(delete_a)
    assert answer_b.says == "ok"
    s.alice.takes(delete_b)
    s.alice.takes(answer_b)
    s.ends(children=0, ike_sas=0)


def test_a_half_closed_child_sa_is_closed_when_the_peer_is_silent() -> None:
    """We have sent DELETE and hear nothing: what is left goes with the IKE SA, nothing stays half-closed for ever."""
    s = Scenario(flows=False)
    s.alice.deletes()
    assert s.alice.first.state is ChildState.DELETING
    s.alice.waits(GIVE_UP_S)
    assert s.alice.ike_sas == []
    assert not s.alice.side.kernel


def test_an_answer_without_a_delete_closes_the_other_half_too() -> None:
    """RFC 7296 section 1.4.1 lets a node refuse half-closed states; we have none."""
    s = Scenario(flows=False)
    delete = s.alice.deletes()
    s.bob.side.engine._context.close_child(s.bob.sa, s.bob.first, "lost")
    (answer,) = s.bob.takes(delete)
    assert answer.says == "ok"
    s.alice.takes(answer)
    s.ends(children=0)


def test_a_delete_beside_a_notify_is_heard() -> None:
    s = Scenario(flows=False)
    odd = Notify(type=NotifyType.ADDITIONAL_TS_POSSIBLE)
    (answer,) = s.bob.takes(s.alice.asks(ExchangeType.INFORMATIONAL, [odd, esp(s.alice.first.spi_in)]))
    assert answer.says == "deleted"
    assert s.bob.sa.children == {}
