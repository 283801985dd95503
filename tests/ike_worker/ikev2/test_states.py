"""The tables of states are whole: every state is reached, left, and has its story."""

import pytest

from ike_worker.ikev2.errors import IllegalTransition
from ike_worker.ikev2.states import (
    CHILD_TRANSITIONS,
    FIRST_CHILD_STATES,
    FIRST_STATES,
    TRANSITIONS,
    ChildState,
    State,
    enter,
)


class Sa:
    """Anything with a state."""

    def __init__(self, state: State) -> None:
        self.state = state


def test_every_state_is_reached_and_only_the_last_is_never_left() -> None:
    assert FIRST_STATES | {step.new for step in TRANSITIONS} == set(State)
    assert FIRST_CHILD_STATES | {step.new for step in CHILD_TRANSITIONS} == set(ChildState)
    assert {step.old for step in TRANSITIONS} == set(State) - {State.CLOSED}
    assert {step.old for step in CHILD_TRANSITIONS} == set(ChildState) - {ChildState.CLOSED}


def test_every_step_stands_once_and_has_a_story() -> None:
    for steps in (TRANSITIONS, CHILD_TRANSITIONS):
        assert len({(step.old, step.new) for step in steps}) == len(steps)
        assert all(step.story.endswith(".") for step in steps)


def test_every_state_leads_to_the_end() -> None:
    """Whatever happens, an SA can be closed."""
    assert {step.old for step in TRANSITIONS if step.new is State.CLOSED} == set(State) - {State.CLOSED}
    closable = {step.old for step in CHILD_TRANSITIONS if step.new is ChildState.CLOSED}
    assert closable == set(ChildState) - {ChildState.CLOSED}


def test_only_the_steps_of_the_table_are_taken() -> None:
    legal = {(step.old, step.new) for step in TRANSITIONS}
    for old in State:
        for new in State:
            sa = Sa(old)
            if (old, new) in legal:
                enter(sa, new)
                assert sa.state is new
            else:
                with pytest.raises(IllegalTransition):
                    enter(sa, new)
                assert sa.state is old
