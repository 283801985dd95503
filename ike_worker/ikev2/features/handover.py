"""Two SAs for the same traffic become one, without a lost packet. RFC 7296 sections 2.8.2 and 2.8.3.

That happens where both sides call each other at once, where both ask for the same Child SA at once, and where an IKE
SA is made anew from the start, AUTH included (reauthentication): the new one stands before the old one goes. Of two
by accident both sides see the same one lose, and the side that had asked for that one ends it, after a moment in which
both are sure to be installed on both sides. Parallel SAs that one side asks for on purpose are left alone.
"""

import logging
from dataclasses import replace

from ike_worker.ikev2.child_sa import REPLACED_LIFE_S, ChildSa, TrafficSelectors, serves
from ike_worker.ikev2.context import Context
from ike_worker.ikev2.features import elsewhere
from ike_worker.ikev2.ike_sa import Handover, IkeSa, Origin
from ike_worker.ikev2.selection import is_subset
from ike_worker.ikev2.states import ChildState, State, enter
from ike_worker.ikev2.wish import Wish, WishKind
from ipc.messages import StandingSa

log = logging.getLogger(__name__)

GIVE_WAY_S = 5.0
"""Two that stand by accident both stand this long."""
FIRST_LOOK_S = 1.0
"""What is left to hand over is looked at after this long, then twice as long ..."""
LIMIT_S = 60.0
"""... until this long after the beginning: then what is left goes."""
MAX_WITH_PEER = 128
"""IKE SAs with one peer at one address; many clients may be there, behind a NAT."""


# ------------------------------------------------------------------ Child SAs of one IKE SA


def settle_twins(context: Context, sa: IkeSa, child: ChildSa) -> None:
    """`child` is new: if both sides have asked for the same, one of the two will give way."""
    for other in sa.children.values():
        if not _are_twins(child, other):
            continue
        loser = min(child, other, key=_rank)
        if loser.ours and loser.state is not ChildState.INBOUND:
            loser.due_at = min(loser.due_at, context.now + GIVE_WAY_S)


def give_way(context: Context, sa: IkeSa, child: ChildSa) -> None:
    """The time of the one that lost has come."""
    child.due_at = float("inf")
    twin = next((other for other in sa.children.values() if _are_twins(child, other)), None)
    if twin is None or min(child, twin, key=_rank) is twin:
        return
    if twin.state is ChildState.INSTALLED:
        _step_down(context, sa, child, twin)
    else:
        child.due_at = context.now + GIVE_WAY_S


def _are_twins(one: ChildSa, other: ChildSa) -> bool:
    alive = (ChildState.INBOUND, ChildState.INSTALLED, ChildState.REKEYING)
    return (
        one.ours is not other.ours
        and one.rule_id == other.rule_id
        and one.state in alive
        and other.state in alive
        and one.inbound.local == other.inbound.local
        and one.inbound.remote == other.inbound.remote
    )


def _rank(child: ChildSa) -> tuple[int, int]:
    """The same on both sides."""
    spis = child.spi_in, child.outbound.spi
    return min(spis), max(spis)


def _step_down(context: Context, sa: IkeSa, child: ChildSa, heir: ChildSa) -> None:
    """`heir` has the traffic from now on, on both sides."""
    log.info("%s: %s gives way to %s", sa, child, heir)
    heir.beside = child.spi_in
    context.mark_changed(context.child_owners[heir.spi_in])
    _yield_traffic(context, sa, child)


def _yield_traffic(context: Context, sa: IkeSa, child: ChildSa) -> None:
    context.stop_sending_on(sa, child)
    enter(child, ChildState.REKEYED)
    child.due_at = context.now + REPLACED_LIFE_S
    if not sa.wants(WishKind.DELETE_CHILD, child.spi_in):
        sa.wishes.append(Wish(kind=WishKind.DELETE_CHILD, spi_in=child.spi_in))
    context.wake(sa)


# ------------------------------------------------------------------ IKE SAs


def is_crowded(context: Context, sa: IkeSa) -> bool:
    """Whether there are too many IKE SAs with this peer at this place, those included that are about to go."""
    return len(_neighbours(context, sa)) >= MAX_WITH_PEER


def _neighbours(context: Context, sa: IkeSa) -> list[IkeSa]:
    address = sa.path.remote.address
    return [other for other in context.with_peer(sa.peer.name) if other.path.remote.address == address]


def greet(context: Context, sa: IkeSa) -> None:
    """The handshake of `sa` is over: what else stands or begins with the same peer makes room, or `sa` does."""
    origin = sa.origin
    if origin is None:
        return
    while is_crowded(context, sa):
        oldest = min(_neighbours(context, sa), key=lambda one: one.created_at)
        context.close(oldest, f"the peer has {MAX_WITH_PEER} others")
    meet_elsewhere(context, sa)
    takes_over = _drop_calls(context, sa) or origin.takes_over
    for other in context.siblings(sa):
        if other.origin is None or other.handover is not None:
            continue
        if takes_over and other.origin.authenticated_at < origin.created_at:
            begin(context, other, 0.0)
        elif _met(origin, other.origin):
            loser = min(sa, other, key=_origin_rank)
            if loser.origin is not None and loser.origin.ours:
                begin(context, loser, GIVE_WAY_S)


def meet_elsewhere(context: Context, sa: IkeSa) -> None:
    """What other workers have with the same peer: of two begun by both sides at once ours may have to go."""
    origin = sa.origin
    if origin is None or not origin.ours or sa.state is not State.ESTABLISHED or sa.handover is not None:
        return
    if any(_met(origin, other) and origin.rank < other.rank for other in elsewhere.alike(context, sa)):
        begin(context, sa, GIVE_WAY_S)


def _met(one: Origin, other: Origin | StandingSa) -> bool:
    """Whether the two handshakes were under way at the same time, and each side had begun one."""
    return (
        one.ours is not other.ours
        and one.created_at <= other.authenticated_at
        and other.created_at <= one.authenticated_at
    )


def _origin_rank(sa: IkeSa) -> bytes:
    return sa.origin.rank if sa.origin is not None else b""


def _drop_calls(context: Context, sa: IkeSa) -> bool:
    """The peer was faster than our own call, which has not come as far as AUTH: that is not needed any more.

    True if it was to take the place of what stood: `sa` does that now.
    """
    if sa.initiator:
        return False
    takes_over = False
    for other in context.with_peer(sa.peer.name):
        if other.state is not State.CONNECTING or other.path.remote.address != sa.path.remote.address:
            continue
        takes_over = takes_over or other.in_handshake.takes_over
        sa.wishes.extend(other.wishes)
        other.wishes.clear()
        other.window.pending = None
        context.close(other, "the peer has called us meanwhile")
    context.wake(sa)
    return takes_over


def begin(context: Context, sa: IkeSa, delay_s: float) -> None:
    """`sa` hands its Child SAs over to another one with the same peer, and ends."""
    now = context.now + delay_s
    sa.handover = Handover(look_at=now, look_s=FIRST_LOOK_S, ends_at=now + LIMIT_S)
    context.mark_changed(sa)
    context.wake(sa)


def go_on(context: Context, sa: IkeSa) -> None:
    """Does what is left to do of it."""
    handover = sa.handover
    heirs = [other for other in context.siblings(sa) if other.handover is None and not other.wants(WishKind.DELETE_IKE)]
    if handover is None or not heirs:
        sa.handover = None
        if handover is not None and elsewhere.alike(context, sa):
            _leave_to_others(context, sa, handover)
        return
    heir = max(heirs, key=lambda one: one.origin.authenticated_at if one.origin is not None else 0.0)
    for child in list(sa.children.values()):
        if child.state is ChildState.INSTALLED:
            _hand_over(context, sa, child, heir)
    if not sa.children or context.now >= handover.ends_at:
        sa.handover = None
        sa.wishes.append(Wish(kind=WishKind.DELETE_IKE))
    else:
        sa.handover = _later(context, handover)
    context.mark_changed(sa)


def _later(context: Context, handover: Handover) -> Handover:
    next_look = min(context.now + handover.look_s, handover.ends_at)
    return replace(handover, look_at=next_look, look_s=2 * handover.look_s)


def _leave_to_others(context: Context, sa: IkeSa, handover: Handover) -> None:
    """What other workers carry too is left to them; what they don't stays here, and `sa` with it."""
    for child in list(sa.children.values()):
        inbound = child.inbound
        if child.state is ChildState.INSTALLED and elsewhere.carries(
            context, sa, child.rule_id, inbound.local, inbound.remote
        ):
            log.info("%s: %s gives way to another worker's", sa, child)
            _yield_traffic(context, sa, child)
    if not sa.children:
        sa.wishes.append(Wish(kind=WishKind.DELETE_IKE))
    elif context.now < handover.ends_at:
        sa.handover = _later(context, handover)
    context.mark_changed(sa)


def _hand_over(context: Context, sa: IkeSa, child: ChildSa, heir: IkeSa) -> None:
    inbound = child.inbound
    for other in heir.children.values():
        if (
            other.rule_id == child.rule_id
            and is_subset(inbound.local, other.inbound.local)
            and is_subset(inbound.remote, other.inbound.remote)
        ):
            if other.state is ChildState.INSTALLED:
                _step_down(context, sa, child, other)
            return
    if not any(wish.kind is WishKind.CREATE_CHILD and wish.rule_id == child.rule_id for wish in heir.all_wishes):
        heir.wishes.append(
            Wish(
                kind=WishKind.CREATE_CHILD,
                rule_id=child.rule_id,
                packet_local=inbound.local[0],
                packet_remote=inbound.remote[0],
            )
        )
        context.wake(heir)


def standing(
    context: Context,
    sa: IkeSa,
    rule_id: int,
    local: TrafficSelectors,
    remote: TrafficSelectors,
    *,
    since: float = 0.0,
) -> ChildSa | None:
    """The Child SA that has just this traffic now, of `sa` or of another IKE SA with its peer authenticated `since`."""
    others = [other for other in context.siblings(sa) if other.origin and other.origin.authenticated_at >= since]
    for owner in (sa, *others):
        for child in owner.children.values():
            if serves(child, rule_id, local, remote):
                return child
    return None
