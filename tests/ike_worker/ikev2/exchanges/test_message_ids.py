"""Message IDs: a window of one in each direction, and responses that are kept. RFC 7296 sections 2.1 to 2.3."""

import itertools
from dataclasses import replace

import pytest

from ike_worker.ikev2.features.retransmission import GIVE_UP_S
from ike_worker.ikev2.iana import ExchangeType, NotifyType
from ike_worker.ikev2.wire.notify import Notify
from tests.ike_worker.ikev2.scenario import Scenario
from tests.ike_worker.ikev2.two_sides import MORE_ID, two_rules

HARMLESS = Notify(type=NotifyType.SET_WINDOW_SIZE, data=b"\0\0\0\x01")


def test_each_direction_counts_for_itself() -> None:
    s = Scenario()
    assert (s.alice.sa.window.next_id, s.alice.sa.window.expected_id) == (2, 0)
    assert (s.bob.sa.window.next_id, s.bob.sa.window.expected_id) == (0, 2)
    ask = s.bob.rekeys()
    assert ask.header.message_id == 0
    s.alice.takes(ask)
    assert (s.alice.sa.window.next_id, s.alice.sa.window.expected_id) == (2, 1)
    s.ends()


def test_a_request_is_acted_on_once_and_answered_as_often_as_it_comes() -> None:
    s = Scenario(flows=False)
    delete = s.alice.deletes()
    answers = [s.bob.takes(delete)[0].datagram for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert s.bob.sa.window.expected_id == 3


def test_a_request_before_the_last_is_dropped() -> None:
    s = Scenario()
    first = s.alice.asks(ExchangeType.INFORMATIONAL, [])
    second = s.alice.asks(ExchangeType.INFORMATIONAL, [])
    assert len(s.bob.takes(first)) == len(s.bob.takes(second)) == 1
    assert s.bob.takes(first) == []
    assert len(s.bob.takes(second)) == 1


@pytest.mark.parametrize("ahead", [1, 2, 2**31, 2**32 - 3])
def test_a_request_beyond_the_window_is_dropped(ahead: int) -> None:
    s = Scenario()
    s.alice.sa.window.next_id += ahead
    assert s.bob.takes(s.alice.asks(ExchangeType.INFORMATIONAL, [])) == []
    assert s.bob.sa.window.expected_id == 2


def test_two_requests_that_change_places_are_answered_in_order() -> None:
    s = Scenario()
    first = s.alice.asks(ExchangeType.INFORMATIONAL, [])
    second = s.alice.asks(ExchangeType.INFORMATIONAL, [])
    assert s.bob.takes(second) == []
    assert [one.header.message_id for one in s.bob.takes(first)] == [2]
    assert [one.header.message_id for one in s.bob.takes(second)] == [3]


def test_a_request_of_a_used_message_id_with_other_contents_is_dropped() -> None:
    s = Scenario()
    first = s.alice.asks(ExchangeType.INFORMATIONAL, [])
    s.bob.takes(first)
    s.alice.sa.window.next_id -= 1
    assert s.bob.takes(s.alice.asks(ExchangeType.INFORMATIONAL, [HARMLESS])) == []


def test_a_response_that_nobody_waits_for_is_dropped() -> None:
    s = Scenario(flows=False)
    delete = s.alice.deletes()
    (deleted,) = s.bob.takes(delete)
    s.alice.takes(deleted)
    assert s.alice.takes(deleted) == []
    s.ends(children=0)


def test_a_response_to_another_exchange_is_dropped() -> None:
    """The right message ID, authentic, but not the exchange that was begun."""
    s = Scenario(flows=False)
    delete = s.alice.deletes()
    sa = s.bob.sa
    (data,) = sa.seal([], exchange_type=ExchangeType.CREATE_CHILD_SA, response=True, message_id=2, random_bytes=bytes)
    strange = s.letter(s.bob, replace(delete.datagram, data=data, local=sa.path.local, remote=sa.path.remote))
    assert s.alice.takes(strange) == []
    assert s.alice.sa.window.pending is not None
    s.ends(children=0)


def test_the_next_request_waits_for_the_response_to_the_one_before() -> None:
    s = Scenario(**two_rules())
    ask = s.alice.rekeys()
    s.alice.wants("initiate", MORE_ID)
    (made,) = s.bob.takes(ask)
    sent = s.alice.takes(made)
    assert [letter.says for letter in sent] == ["delete child"]
    s.ends(children=2)


def test_retransmissions_are_identical_ever_rarer_and_end() -> None:
    s = Scenario(flows=False)
    ask = s.alice.rekeys()
    start = s.world.now
    times = []
    while s.alice.ike_sas:
        due = s.alice.side.engine.get_timer()
        assert due is not None
        for letter in s.alice.waits(due - s.world.now):
            assert letter.datagram == ask.datagram
            times.append(s.world.now - start)
    intervals = [later - earlier for earlier, later in itertools.pairwise([0.0, *times])]
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(intervals))
    assert len(times) == 6
    assert s.world.now - start == pytest.approx(GIVE_UP_S)


def test_message_ids_that_are_used_up_end_the_ike_sa() -> None:
    """RFC 7296 section 2.2: it must be closed before a message ID comes twice."""
    s = Scenario(flows=False)
    s.alice.sa.window.next_id = s.bob.sa.window.expected_id = 2**32 - 1
    delete = s.alice.deletes()
    assert delete.header.message_id == 2**32 - 1
    (deleted,) = s.bob.takes(delete)
    s.alice.takes(deleted)
    assert s.alice.ike_sas == []
    assert not s.alice.side.kernel
