"""The life of a child process as states, a table of the allowed steps, and the one function that takes them.

DOWN -> STARTING -> UP
          ^ |        |
          | v        v
       WAITING <- ENDING -> DOWN
"""

import enum
import logging

from ipc.value import value
from supervisor.errors import IllegalTransition

log = logging.getLogger(__name__)


class ChildState(enum.Enum):
    """Where in its life a child is."""

    DOWN = "down"
    STARTING = "starting"
    UP = "up"
    ENDING = "ending"
    WAITING = "waiting"


@value
class Transition:
    """One allowed step, and when it is taken."""

    old: ChildState
    new: ChildState
    story: str


TRANSITIONS = (
    Transition(old=ChildState.DOWN, new=ChildState.STARTING, story="the instance starts and this role is due"),
    Transition(old=ChildState.STARTING, new=ChildState.UP, story="it has dropped its privileges and said Hello"),
    Transition(old=ChildState.STARTING, new=ChildState.WAITING, story="it died before it said Hello"),
    Transition(old=ChildState.UP, new=ChildState.WAITING, story="it died by itself, or somebody else killed it"),
    Transition(old=ChildState.WAITING, new=ChildState.STARTING, story="its wait is over: it is started again"),
    Transition(old=ChildState.STARTING, new=ChildState.ENDING, story="it took too long, or the instance stops"),
    Transition(old=ChildState.UP, new=ChildState.ENDING, story="it misbehaved, hangs, or the instance stops"),
    Transition(old=ChildState.ENDING, new=ChildState.WAITING, story="it is gone as asked, and wanted again"),
    Transition(old=ChildState.ENDING, new=ChildState.DOWN, story="it is gone as asked, for good"),
    Transition(old=ChildState.WAITING, new=ChildState.DOWN, story="the instance stops before it was started again"),
)

_ALLOWED = {(row.old, row.new): row for row in TRANSITIONS}

ALIVE = frozenset({ChildState.STARTING, ChildState.UP, ChildState.ENDING})
"""States in which there is a process."""


def enter(name: str, old: ChildState, new: ChildState) -> ChildState:
    """Takes the child `name` from `old` to `new`, which is returned; IllegalTransition if that is no allowed step."""
    row = _ALLOWED.get((old, new))
    if row is None:
        raise IllegalTransition(f"{name}: {old.value} -> {new.value}")
    log.debug("%s: %s -> %s: %s", name, old.value, new.value, row.story)
    return new
