"""What an IKE SA and its Child SAs do when their time has come: ask again, give up, rekey, delete, look for life."""

import math

from ike_worker.ikev2 import dialogue
from ike_worker.ikev2.child_sa import SWITCH_OUTBOUND_S, ChildSa
from ike_worker.ikev2.context import Context
from ike_worker.ikev2.exchanges import ike_sa_init, informational, reauthentication
from ike_worker.ikev2.features import handover, liveness, nat_traversal, traffic
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.wish import Wish, WishKind


def next_due(sa: IkeSa, now: float) -> float:
    """When something must be done about `sa`, or may have to be. Wishes that wait for something else do not count."""
    window = sa.window
    due = min(liveness.question_due(sa), sa.path.keepalive_at)
    if window.pending is not None:
        due = min(due, window.pending.next_due)
    for wish in sa.wishes:
        if wish.not_before > now:
            due = min(due, wish.not_before)
    if sa.handshake is not None:
        return now if sa.handshake.solver is not None else min(due, sa.handshake.deadline)
    if sa.state in (State.ESTABLISHED, State.REKEYED):
        due = min(due, sa.rekey_at)
    if sa.state is State.ESTABLISHED:
        due = min(due, sa.reauth_at, sa.handover.look_at if sa.handover is not None else math.inf)
    for child in sa.children.values():
        due = min(due, child.next_due)
    return due


def run(context: Context, sa: IkeSa) -> None:
    """Does what is due."""
    now = context.now
    if sa.handshake is not None and now >= sa.handshake.deadline and sa.state is State.HALF_OPEN:
        context.close(sa, "the initiator did not go on")
        return
    if sa.handshake is not None and ike_sa_init.go_on_solving(context, sa):
        dialogue.authenticate(context, sa)
    dialogue.retransmit_or_give_up(context, sa)
    if sa.state is State.CLOSED:
        return
    if now >= liveness.question_due(sa):
        liveness.ask(sa)
    if now >= sa.path.keepalive_at:
        nat_traversal.send_keepalive(context, sa)
    if now >= sa.rekey_at:
        _ike_sa_due(context, sa)
    if sa.state is State.ESTABLISHED and now >= sa.reauth_at:
        reauthentication.begin(context, sa)
    if sa.state is State.ESTABLISHED and sa.handover is not None and now >= sa.handover.look_at:
        handover.go_on(context, sa)
    for child in list(sa.children.values()):
        if now >= child.next_due:
            _child_due(context, sa, child)
    context.wake(sa)


def _ike_sa_due(context: Context, sa: IkeSa) -> None:
    sa.rekey_at = math.inf
    if sa.state is State.ESTABLISHED and not sa.wants(WishKind.REKEY_IKE):
        sa.wishes.append(Wish(kind=WishKind.REKEY_IKE))
    elif sa.state is State.REKEYED and not sa.wants(WishKind.DELETE_IKE):
        sa.wishes.append(Wish(kind=WishKind.DELETE_IKE))
        # The peer should have deleted it: does it know that there is another?
        for other in context.siblings(sa):
            liveness.ask(other)
            context.wake(other)


def _child_due(context: Context, sa: IkeSa, child: ChildSa) -> None:
    now, state = context.now, child.state
    if state is ChildState.DRAINING:
        context.close_child(sa, child, "replaced by a rekey")
    elif now >= child.dies_at:
        child.dies_at = math.inf
        delete_child(sa, child)
    elif state is ChildState.INSTALLED and now >= child.due_at:
        handover.give_way(context, sa, child)
    elif state is ChildState.INSTALLED and now >= child.rekey_at:
        child.rekey_at = math.inf
        rekey_child(sa, child)
    elif state is ChildState.INSTALLED or (state is ChildState.INBOUND and now < child.due_at):
        traffic.ask(context, child)
    elif state is ChildState.INBOUND and child.follows_another:
        # The peer should have deleted the old one by now; the new one stands on both sides in any case.
        child.due_at = now + SWITCH_OUTBOUND_S
        context.start(sa, informational.switch_outbound(context, child), lambda _: None, lambda _: None)
    else:
        child.due_at = math.inf
        delete_child(sa, child)


def rekey_child(sa: IkeSa, child: ChildSa) -> None:
    """Wants another in the place of `child`."""
    if child.state is ChildState.INSTALLED and not sa.wants(WishKind.REKEY_CHILD, child.spi_in):
        sa.wishes.append(Wish(kind=WishKind.REKEY_CHILD, spi_in=child.spi_in))


def delete_child(sa: IkeSa, child: ChildSa) -> None:
    """Wants `child` deleted on both sides."""
    if child.state is not ChildState.DRAINING and not sa.wants(WishKind.DELETE_CHILD, child.spi_in):
        sa.wishes.append(Wish(kind=WishKind.DELETE_CHILD, spi_in=child.spi_in))


def delete_ike_sa(sa: IkeSa) -> None:
    """Wants `sa` deleted on both sides, before anything else that is wanted of it."""
    sa.wishes.clear()
    if sa.state is not State.DELETING and not sa.wants(WishKind.DELETE_IKE):
        sa.wishes.append(Wish(kind=WishKind.DELETE_IKE))
