"""INITIAL_CONTACT: whatever came before between the same two identities is forgotten. RFC 7296 section 2.4."""

from ike_worker.ikev2.context import Context, Ending
from ike_worker.ikev2.ike_sa import IkeSa


def is_first_contact(context: Context, sa: IkeSa) -> bool:
    """Whether `sa` is our only IKE SA with its peer."""
    return all(other is sa or other.handshake is not None for other in context.with_peer(sa.peer.name))


def honour(context: Context, sa: IkeSa) -> None:
    """Closes, without a word, what stood with the same identity before `sa` began.

    An IKE SA that came to stand since then was made by two sides that called each other at once.
    """
    for other in context.with_peer(sa.peer.name):
        origin = other.origin
        if other is sa or origin is None or origin.peer_id != sa.in_handshake.peer_id:
            continue
        if origin.authenticated_at < sa.created_at:
            context.close(other, "the peer has started anew", Ending.PEERS)
