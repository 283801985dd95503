"""An IKE SA is made anew from the start, AUTH included, before the old one ends. RFC 7296 section 2.8.3.

The new one is called like the first one, with one of the Child SAs; `features/handover.py` does the rest.
"""

import logging

from ike_worker.ikev2.context import Context
from ike_worker.ikev2.exchange_rules import Contents
from ike_worker.ikev2.exchanges import ike_sa_init
from ike_worker.ikev2.iana import NotifyType
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.wish import Wish, WishKind

log = logging.getLogger(__name__)

RETRY_S = 30.0
MARGIN_S = 60.0
"""So long before the peer's own time is up (AUTH_LIFETIME)."""
_LIFETIME_BYTES = 4
OVERTIME = 1.1
"""It ends unauthenticated after this many times its lifetime."""


def heed(context: Context, sa: IkeSa, contents: Contents) -> None:
    """The responder may want the initiator to authenticate itself anew within some time (RFC 4478)."""
    notify = contents.notify(NotifyType.AUTH_LIFETIME)
    if notify is None or not sa.initiator or len(notify.data) != _LIFETIME_BYTES:
        return
    life_s = max(int.from_bytes(notify.data, "big") - MARGIN_S, RETRY_S)
    log.info("%s: the peer wants AUTH anew within %d s", sa, life_s)
    sa.reauth_at = min(sa.reauth_at, context.now + context.jittered(life_s))
    context.mark_changed(sa)


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
