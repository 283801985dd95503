"""Both sides rekey the same Child SA at once: the lowest of the four nonces loses. RFC 7296 section 2.8.1."""

from ike_worker.ikev2.child_sa import ChildSa
from ike_worker.ikev2.features.retransmission import Pending
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.wish import WishKind


def note(sa: IkeSa, old: ChildSa, new_spi_in: int, nonce_i: bytes, nonce_r: bytes) -> None:
    """The peer has rekeyed `old` while our own request to rekey it is under way."""
    pending = sa.window.pending
    if pending is not None and pending.wish.kind is WishKind.REKEY_CHILD and pending.wish.spi_in == old.spi_in:
        pending.collided_spi_in = new_spi_in
        pending.collided_nonce = min(nonce_i, nonce_r)


def we_lose(pending: Pending, nonce_r: bytes) -> bool:
    """Whether the Child SA of our own exchange is the redundant one: its initiator, so we, closes it."""
    return bool(pending.collided_nonce) and min(pending.nonce, nonce_r) < pending.collided_nonce
