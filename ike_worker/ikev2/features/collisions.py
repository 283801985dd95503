"""Both sides rekey the same SA at once: what the lowest of the four nonces made is redundant. RFC 7296 section 2.8.1.

It is closed by whoever made it. Two equal nonces are no accident, but both sides must see the same one lose then too.
"""

from ike_worker.ikev2.child_sa import ChildSa
from ike_worker.ikev2.features.retransmission import Pending
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.wish import WishKind


def note(sa: IkeSa, old: ChildSa, new_spi_in: int, nonce_i: bytes, nonce_r: bytes) -> None:
    """The peer has rekeyed `old` while our own request to rekey it is under way."""
    pending = sa.window.pending
    if pending is not None and pending.wish.kind is WishKind.REKEY_CHILD and pending.wish.spi_in == old.spi_in:
        pending.collided_spi_in = new_spi_in
        pending.collided_nonces = (nonce_i, nonce_r)


def we_lose(sa: IkeSa, pending: Pending, nonce_r: bytes) -> bool:
    """Whether the SA of our own exchange is the redundant one."""
    if not pending.collided_nonces:
        return False
    ours, theirs = sorted((pending.nonce, nonce_r)), sorted(pending.collided_nonces)
    return not sa.initiator if ours == theirs else ours < theirs
