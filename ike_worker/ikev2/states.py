"""The states of an IKE SA and of a Child SA, and every step between them. RFC 7296 sections 1.2, 1.3, 2.8 and 2.25.

The ladder of a handshake, with the states of both sides:

    initiator                                              responder
    CONNECTING      HDR, SAi1, KEi, Ni               -->
                                                     <--   HDR, SAr1, KEr, Nr                  HALF_OPEN
    AUTHENTICATING  HDR, SK {IDi, AUTH, SAi2, ...}   -->
                                                     <--   HDR, SK {IDr, AUTH, SAr2, ...}      ESTABLISHED
    ESTABLISHED
"""

import enum
import logging
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ike_worker.ikev2.errors import IllegalTransition

log = logging.getLogger(__name__)


class State(enum.Enum):
    """Of an IKE SA."""

    CONNECTING = "connecting"
    HALF_OPEN = "half-open"
    AUTHENTICATING = "authenticating"
    ESTABLISHED = "established"
    CANDIDATE = "candidate"
    REKEYED = "rekeyed"
    DELETING = "deleting"
    CLOSED = "closed"


class ChildState(enum.Enum):
    """Of a Child SA."""

    INBOUND = "inbound"
    INSTALLED = "installed"
    REKEYING = "rekeying"
    REKEYED = "rekeyed"
    DELETING = "deleting"
    DRAINING = "draining"
    CLOSED = "closed"


S = TypeVar("S", State, ChildState)


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of an IKE SA, and when it is taken."""

    old: State
    new: State
    story: str


@dataclass(frozen=True, slots=True)
class ChildTransition:
    """One step of a Child SA, and when it is taken."""

    old: ChildState
    new: ChildState
    story: str


FIRST_STATES = frozenset({State.CONNECTING, State.HALF_OPEN, State.ESTABLISHED, State.CANDIDATE, State.REKEYED})
"""A rekey makes the last three: REKEYED is what lost to the peer's rekey before it was used."""
FIRST_CHILD_STATES = frozenset({ChildState.INBOUND, ChildState.INSTALLED, ChildState.DELETING})
"""DELETING is the first state of a Child SA that lost a rekey collision before it was installed."""

TRANSITIONS = (
    Transition(State.CONNECTING, State.AUTHENTICATING, "The responder has chosen a proposal: there are keys."),
    Transition(State.CONNECTING, State.CLOSED, "No answer, or the responder chose nothing."),
    Transition(State.AUTHENTICATING, State.ESTABLISHED, "The responder's AUTH is right."),
    Transition(State.AUTHENTICATING, State.DELETING, "The responder's AUTH is wrong: it is told to forget us."),
    Transition(State.AUTHENTICATING, State.CLOSED, "No answer, or the responder refused us."),
    Transition(State.HALF_OPEN, State.ESTABLISHED, "The initiator's AUTH is right."),
    Transition(State.HALF_OPEN, State.CLOSED, "The initiator went away, or its AUTH is wrong."),
    Transition(State.CANDIDATE, State.ESTABLISHED, "The peer rekeyed it too, and ours lost: it takes the Child SAs."),
    Transition(State.CANDIDATE, State.REKEYED, "The peer rekeyed it too, and ours won: the peer deletes it."),
    Transition(State.CANDIDATE, State.DELETING, "We sent DELETE."),
    Transition(State.CANDIDATE, State.CLOSED, "The peer sent DELETE, or the IKE SA that it was to replace is gone."),
    Transition(State.ESTABLISHED, State.REKEYED, "A new IKE SA has taken its Child SAs; its initiator deletes it."),
    Transition(State.ESTABLISHED, State.DELETING, "We sent DELETE."),
    Transition(State.ESTABLISHED, State.CLOSED, "The peer sent DELETE, or is dead, or has forgotten us."),
    Transition(State.REKEYED, State.DELETING, "We rekeyed it, so we sent DELETE; or the peer failed to."),
    Transition(State.REKEYED, State.CLOSED, "The peer, who rekeyed it, sent DELETE."),
    Transition(State.DELETING, State.CLOSED, "Our DELETE was answered or given up, or the peer's crossed it."),
)

CHILD_TRANSITIONS = (
    ChildTransition(ChildState.INBOUND, ChildState.INSTALLED, "The peer, who rekeyed, uses it: now we send on it too."),
    ChildTransition(ChildState.INBOUND, ChildState.DELETING, "We delete it before it was ever used."),
    ChildTransition(ChildState.INBOUND, ChildState.CLOSED, "It lost a rekey collision, or its IKE SA is gone."),
    ChildTransition(ChildState.INSTALLED, ChildState.REKEYING, "Its time is up: we asked for another in its place."),
    ChildTransition(
        ChildState.INSTALLED, ChildState.REKEYED, "Another is in its place, or beside it for the same traffic."
    ),
    ChildTransition(ChildState.INSTALLED, ChildState.DELETING, "We sent DELETE."),
    ChildTransition(ChildState.INSTALLED, ChildState.DRAINING, "The peer has another beside it, and sent DELETE."),
    ChildTransition(ChildState.INSTALLED, ChildState.CLOSED, "The peer sent DELETE, or its IKE SA is gone."),
    ChildTransition(ChildState.REKEYING, ChildState.INSTALLED, "The rekey failed: it is tried again later."),
    ChildTransition(ChildState.REKEYING, ChildState.REKEYED, "Another stands in its place."),
    ChildTransition(ChildState.REKEYING, ChildState.DRAINING, "The peer rekeyed it too, faster, and deleted it."),
    ChildTransition(ChildState.REKEYING, ChildState.DELETING, "We sent DELETE."),
    ChildTransition(ChildState.REKEYING, ChildState.CLOSED, "The peer deleted it or never had it."),
    ChildTransition(ChildState.REKEYED, ChildState.INSTALLED, "The peer deleted what it had made in its place."),
    ChildTransition(
        ChildState.REKEYED, ChildState.DELETING, "We rekeyed it, so we sent DELETE; or the peer failed to."
    ),
    ChildTransition(ChildState.REKEYED, ChildState.DRAINING, "The peer, who rekeyed it, sent DELETE."),
    ChildTransition(ChildState.REKEYED, ChildState.CLOSED, "Its IKE SA is gone."),
    ChildTransition(ChildState.DELETING, ChildState.DRAINING, "DELETE is done; packets under way still come in."),
    ChildTransition(ChildState.DELETING, ChildState.CLOSED, "DELETE is done and nothing replaces it."),
    ChildTransition(ChildState.DRAINING, ChildState.CLOSED, "Whatever was under way has come in."),
)

_LEGAL = frozenset((step.old, step.new) for step in TRANSITIONS)
_CHILD_LEGAL = frozenset((step.old, step.new) for step in CHILD_TRANSITIONS)


class HasState(Protocol[S]):
    """An IKE SA or a Child SA; str() of it is the prefix of its log lines."""

    state: S


def enter(sa: HasState[S], new: S, reason: str = "") -> None:
    """Takes `sa` to the state `new`; IllegalTransition if the tables have no such step."""
    old = sa.state
    if (old, new) not in _LEGAL and (old, new) not in _CHILD_LEGAL:
        raise IllegalTransition(f"{sa}: {old.value} -> {new.value}")
    sa.state = new
    log.debug("%s: %s -> %s%s", sa, old.value, new.value, f": {reason}" if reason else "")
