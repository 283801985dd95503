"""INITIAL_CONTACT: whatever came before between the same two identities is forgotten. RFC 7296 section 2.4."""

from ike_worker.ikev2.context import Context, Ending
from ike_worker.ikev2.ike_sa import IkeSa
from ipc.messages import StartedAnew


def is_first_contact(context: Context, sa: IkeSa) -> bool:
    """Whether `sa` is our only IKE SA with its peer."""
    return not context.elsewhere.of(sa.peer.name) and all(
        other is sa or other.handshake is not None for other in context.with_peer(sa.peer.name)
    )


def honour(context: Context, sa: IkeSa) -> None:
    """Closes, without a word, what stood with the same identity before `sa` began.

    An IKE SA that came to stand since then was made by two sides that called each other at once.
    """
    anew = StartedAnew(peer=sa.peer.name, peer_id=sa.in_handshake.peer_id, before=sa.created_at)
    if context.place.workers > 1:
        context.elsewhere.anew.append(anew)
    forget(context, anew)


def forget(context: Context, anew: StartedAnew) -> None:
    """Closes what the peer has forgotten."""
    for other in context.with_peer(anew.peer):
        origin = other.origin
        if origin is not None and origin.peer_id == anew.peer_id and origin.authenticated_at < anew.before:
            context.close(other, "the peer has started anew", Ending.PEERS)
