"""An IKE SA is made anew from the start, AUTH included, before the old one ends. RFC 7296 section 2.8.3.

The new one is called like the first one, with one of the Child SAs; `features/handover.py` does the rest.
"""

import logging

from ike_worker.ikev2.context import Context
from ike_worker.ikev2.exchanges import ike_sa_init
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.wish import Wish, WishKind

log = logging.getLogger(__name__)

RETRY_S = 30.0
OVERTIME = 1.1
"""It ends unauthenticated after this many times its lifetime."""


def begin(context: Context, sa: IkeSa) -> None:
    """The time of `sa` has come, or it can't be rekeyed."""
    sa.reauth_at = context.now + RETRY_S
    context.mark_changed(sa)
    if sa.handover is not None or sa.wants(WishKind.DELETE_IKE) or _is_under_way(context, sa):
        return
    children = [child for child in sa.children.values() if child.state is ChildState.INSTALLED]
    if not sa.children or _is_overdue(context, sa):
        log.info("%s: ends, its peer must authenticate again", sa)
        sa.wishes.append(Wish(kind=WishKind.DELETE_IKE))
        return
    rule = context.policy.rule(children[0].rule_id) if children else None
    if rule is None:
        return
    log.info("%s: made anew, with AUTH", sa)
    inbound = children[0].inbound
    wish = Wish(
        kind=WishKind.CREATE_CHILD,
        rule_id=rule.rule_id,
        packet_local=inbound.local[0],
        packet_remote=inbound.remote[0],
    )
    new = ike_sa_init.begin(context, sa.peer, sa.path.remote.address, wish)
    new.in_handshake.takes_over = True
    context.wake(new)


def _is_under_way(context: Context, sa: IkeSa) -> bool:
    calling = (State.CONNECTING, State.AUTHENTICATING)
    return any(other.state in calling for other in context.with_peer(sa.peer.name))


def _is_overdue(context: Context, sa: IkeSa) -> bool:
    life_s = sa.peer.reauth_s
    return bool(life_s) and sa.origin is not None and context.now > sa.origin.authenticated_at + OVERTIME * life_s
