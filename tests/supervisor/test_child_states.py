"""The table of a child's life."""

import pytest

from supervisor.child_states import TRANSITIONS, ChildState, enter
from supervisor.errors import IllegalTransition


def test_every_step_of_the_table_may_be_taken() -> None:
    for row in TRANSITIONS:
        assert enter("ike_worker", row.old, row.new) is row.new


def test_every_other_step_is_refused() -> None:
    allowed = {(row.old, row.new) for row in TRANSITIONS}
    refused = [(old, new) for old in ChildState for new in ChildState if (old, new) not in allowed]
    assert len(refused) == len(ChildState) ** 2 - len(TRANSITIONS)
    for old, new in refused:
        with pytest.raises(IllegalTransition, match=f"ike_worker: {old.value} -> {new.value}"):
            enter("ike_worker", old, new)


def test_every_state_can_be_reached_and_left() -> None:
    assert {row.new for row in TRANSITIONS} == set(ChildState)
    assert {row.old for row in TRANSITIONS} == set(ChildState)


def test_every_step_has_a_story() -> None:
    assert all(row.story for row in TRANSITIONS)
